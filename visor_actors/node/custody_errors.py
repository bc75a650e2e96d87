"""What can go wrong between visor and a shim.

::

    ShimError                  (a NodeError)
    ├── ShimUnavailable        attaching failed; the binary, if one runs, is not affected
    │   ├── ShimNotStarted     no shim lived and none could be started
    │   ├── ShimUnresponsive   a shim lives but does not answer
    │   ├── ShimFenced         a newer visor or a newer actor has attached before
    │   └── ShimIncompatible   the shim speaks none of our protocol versions
    ├── ShimGone               the connection ended; attach again
    │   └── ShimReplaced       because a newer client attached
    └── OrderTooLarge          a launch order beyond what a shim accepts
"""

from __future__ import annotations

from visor_actors.node.errors import NodeError


class ShimError(NodeError):
    """Base of all. ``problem`` says what happened, ``next_step`` what to do about it."""

    def __init__(self, problem: str, next_step: str) -> None:
        super().__init__(f"{problem}; {next_step}")
        self.problem = problem
        self.next_step: str = next_step


class ShimUnavailable(ShimError):
    """Attaching failed."""


class ShimNotStarted(ShimUnavailable):
    """No shim lived in the slot and none could be started."""


class ShimUnresponsive(ShimUnavailable):
    """A shim lives but does not answer in time. ``pid`` is its pid, None where unknown."""

    def __init__(self, problem: str, next_step: str, *, pid: int | None) -> None:
        super().__init__(problem, next_step)
        self.pid = pid


class ShimFenced(ShimUnavailable):
    """Our epoch is older than one that has attached before. ``highest`` is the highest epoch the slot has
    seen.
    """

    def __init__(self, highest: int) -> None:
        super().__init__(
            f"a newer client (epoch {highest}) has attached to this slot",
            "nothing is to be done if another visor took over; otherwise attach with a higher epoch",
        )
        self.highest = highest


class ShimIncompatible(ShimUnavailable):
    """The shim speaks none of our protocol versions."""

    def __init__(self, spoken: tuple[int, ...]) -> None:
        super().__init__(
            f"the running shim speaks protocol versions {', '.join(map(str, spoken)) or 'unknown'} only",
            "run the visor release that started the node, stop the node with it, then run this one",
        )
        self.spoken = spoken


class ShimGone(ShimError):
    """The connection to the shim ended: it died, was killed, or sent what is not its protocol."""

    def __init__(self, problem: str, next_step: str = "attach again; the binary is not affected") -> None:
        super().__init__(problem, next_step)


class ShimReplaced(ShimGone):
    """A newer client attached to the slot, so the shim closed this connection."""

    def __init__(self) -> None:
        super().__init__("a newer client has attached to this slot", "leave the slot to it")


class OrderTooLarge(ShimError):
    """A launch order of ``size`` bytes, beyond the ``limit`` a shim accepts."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"arguments and environment take {size} bytes, {limit} are accepted", "shorten the environment"
        )
        self.size = size
        self.limit = limit
