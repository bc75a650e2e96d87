"""The root of what can go wrong between visor and a node.

::

    NodeError
     ├─ AdminRpcError          admin_errors.py: the core's admin socket gave no status
     ├─ RestError              rest.py: the core's REST gave no height
     ├─ FlagWithoutValue       arguments.py: an argument list ends inside a flag
     ├─ NoSuchBinary           arguments.py: the run configuration has no such binary
     ├─ StartRefused           height.py: a core that must not be started
     ├─ CommandFailed          command.py: a short command did not run to its end
     └─ VersionUnknown         version.py: a binary did not tell its version

``str()`` of each is one sentence for the operator; ``next_step`` says what to do about it, where something
can be done.
"""

from __future__ import annotations


class NodeError(Exception):
    """Base of the package's errors. ``str()`` is a sentence; ``next_step`` is what to do, or None."""

    next_step: str | None = None
