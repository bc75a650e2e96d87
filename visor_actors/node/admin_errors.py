"""Why a core gave no upgrade status.

::

    AdminRpcError
     ├─ Absent          there is no socket yet, or no more
     ├─ Refused         a socket file whose owner is dead
     ├─ Denied          no permission
     ├─ NotASocket      something else has that path
     ├─ Unreachable     any other failure of the system
     ├─ TimedOut        not connected, not answered, or not finished in time
     ├─ Dropped         the node closed the connection inside an answer
     ├─ BadStatus       an HTTP status other than 200
     ├─ RpcFailed       the node answered with an error of its own
     ├─ Malformed       not the answer a node gives
     ├─ TooLarge        larger than any answer a node gives
     └─ WrongId         the answer to another question

The leaves with ``answered`` True prove that something lives behind the socket; the others do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from visor_actors.node.errors import NodeError


class AdminRpcError(NodeError):
    """No status from the core's admin socket. ``answered``: something behind the socket did react."""

    answered: ClassVar[bool] = False

    def __init__(self, socket_path: Path, sentence: str) -> None:
        super().__init__(sentence)
        self.socket_path = socket_path


class Absent(AdminRpcError):
    """There is no file at the socket's path. Usual while a core starts: with a data node it comes after that
    one."""

    next_step = (
        "wait for the core to open it; if it never does, compare socketPath with the core's own configuration"
    )

    def __init__(self, socket_path: Path) -> None:
        super().__init__(socket_path, f"the admin socket {socket_path} does not exist")


class Refused(AdminRpcError):
    """The socket file is there and nobody listens: left behind by a core that was killed."""

    next_step = "none while the core starts: it removes the old file itself"

    def __init__(self, socket_path: Path) -> None:
        super().__init__(socket_path, f"nobody listens on the admin socket {socket_path}")


class Denied(AdminRpcError):
    """The file system does not let this user connect."""

    next_step = "run visor as the user of the core, or let that user's group reach the socket"

    def __init__(self, socket_path: Path) -> None:
        super().__init__(socket_path, f"the admin socket {socket_path} may not be opened by this user")


class NotASocket(AdminRpcError):
    """Something that is no stream socket has the path."""

    next_step = "move it away, or correct socketPath in the run configuration"

    def __init__(self, socket_path: Path, found: str) -> None:
        super().__init__(socket_path, f"{socket_path} is {found}, not an admin socket")
        self.found = found


class Unreachable(AdminRpcError):
    """The system failed the connection in another way; ``error`` is what it said."""

    def __init__(self, socket_path: Path, error: OSError) -> None:
        super().__init__(
            socket_path, f"the admin socket {socket_path} cannot be used: {error.strerror or error}"
        )
        self.error = error


class TimedOut(AdminRpcError):
    """The deadline passed. ``phase``: ``connect`` (nobody accepts), ``answer`` (nothing came) or ``reply``
    (too slow)."""

    next_step = "see the core's log: a core that does not answer for long hangs"

    def __init__(self, socket_path: Path, phase: str, seconds: float) -> None:
        what = {
            "connect": "accepted no connection",
            "answer": "gave no answer",
            "reply": "did not finish its answer",
        }
        super().__init__(socket_path, f"the core {what[phase]} within {seconds:g} s on {socket_path}")
        self.phase = phase
        self.seconds = seconds


class Dropped(AdminRpcError):
    """The node closed the connection before or inside its answer, of which ``received`` bytes had come."""

    def __init__(self, socket_path: Path, received: int) -> None:
        super().__init__(socket_path, f"the core closed {socket_path} after {received} bytes of an answer")
        self.received = received


class BadStatus(AdminRpcError):
    """The HTTP status is not 200; ``body`` is the start of the text that came with it."""

    answered = True
    next_step = "compare httpPath with the core's own configuration"

    def __init__(self, socket_path: Path, status: int, body: str) -> None:
        super().__init__(
            socket_path, f"the core answered HTTP {status} on {socket_path}: {body or 'without a text'}"
        )
        self.status = status
        self.body = body


class RpcFailed(AdminRpcError):
    """The node's own handler failed with ``error``."""

    answered = True

    def __init__(self, socket_path: Path, error: str) -> None:
        super().__init__(socket_path, f"the core could not tell its upgrade status: {error}")
        self.error = error


class Malformed(AdminRpcError):
    """The answer is not what a node says; ``problem`` tells in which way."""

    answered = True
    next_step = "check that socketPath leads to the core's admin server"

    def __init__(self, socket_path: Path, problem: str) -> None:
        super().__init__(socket_path, f"the answer on {socket_path} is not an upgrade status: {problem}")
        self.problem = problem


class TooLarge(AdminRpcError):
    """The answer is beyond the limit of ``limit`` bytes."""

    answered = True
    next_step = "check that socketPath leads to the core's admin server"

    def __init__(self, socket_path: Path, limit: int) -> None:
        super().__init__(socket_path, f"the answer on {socket_path} is larger than {limit} bytes")
        self.limit = limit


class WrongId(AdminRpcError):
    """The answer bears another id than the question."""

    answered = True

    def __init__(self, socket_path: Path, sent: int, got: str) -> None:
        super().__init__(
            socket_path, f"the core answered another question on {socket_path}: id {got}, not {sent}"
        )
        self.sent = sent
        self.got = got
