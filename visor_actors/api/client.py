"""The operator's end of the control socket: the same port, spoken over HTTP.

ClientError
├── NotRunning       nobody serves the socket: no visor runs on this home
├── Unreachable      somebody has it, but no answer came: hung, foreign, or not allowed
└── (ControlRefused) comes as it was raised in the running visor
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from visor_actors.actors.control import Accepted, ControlRefused, Fault, StopMode
from visor_actors.actors.reports import StatusReport, UpgradeReport
from visor_actors.api.http import HttpProblem, Response, parse_response, render_request
from visor_actors.api.sockets import connect_private
from visor_actors.api.wire import WireError, dump, load

if TYPE_CHECKING:
    from visor_actors.actor import NodeSnapshot

T = TypeVar("T")
TIMEOUT_SECONDS = 10.0
_MAX_ANSWER_BYTES = 64 * 1024 * 1024


class ClientError(Exception):
    """Base of what :class:`ControlClient` raises besides ControlRefused."""


class NotRunning(ClientError):
    """No visor runs on this home."""


class Unreachable(ClientError):
    """The control socket exists but gave no usable answer."""


class Method(enum.Enum):
    """The two HTTP methods of the control API: ask, and command."""

    GET = "GET"
    POST = "POST"


class ControlClient:
    """Talks to the visor that serves ``path``; implements ControlPort. One connection a call, no state."""

    def __init__(self, path: Path, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self._path = path
        self._timeout = timeout

    def status(self) -> StatusReport:
        """Return the visor's status."""
        return self._call(Method.GET, "/status", StatusReport)

    def tree(self) -> NodeSnapshot:
        """Return the supervision tree."""
        from visor_actors.actor import NodeSnapshot

        return self._call(Method.GET, "/tree", NodeSnapshot)

    def upgrades(self) -> tuple[UpgradeReport, ...]:
        """Return the upgrades, newest first."""
        from visor_actors.api.answers import Upgrades

        return self._call(Method.GET, "/upgrades", Upgrades).upgrades

    def counters(self) -> Mapping[str, int]:
        """Return the event counters."""
        return self.status().counters

    def restart(self, slot: str | None) -> Accepted:
        """Restart one binary or the node."""
        return self._command("/restart", {"slot": slot})

    def stop(self, mode: StopMode) -> Accepted:
        """End the visor."""
        return self._command("/stop", {"mode": mode})

    def hold(self, tag: str | None) -> Accepted:
        """Hold an upgrade."""
        return self._command("/hold", {"tag": tag})

    def resume(self, tag: str | None) -> Accepted:
        """Take a hold back."""
        return self._command("/resume", {"tag": tag})

    def prepare(self, tag: str) -> Accepted:
        """Fetch and verify a release now."""
        return self._command("/prepare", {"tag": tag})

    def inject(self, actor: str, fault: Fault) -> Accepted:
        """Make an actor fail (tests only)."""
        return self._command("/inject", {"actor": actor, "fault": fault})

    def _command(self, path: str, body: Mapping[str, object]) -> Accepted:
        return self._call(Method.POST, path, Accepted, dump(body).encode())

    def _call(self, method: Method, path: str, kind: type[T], body: bytes | None = None) -> T:
        response = self._exchange(render_request(method.value, path, body))
        try:
            if response.status >= 300:
                raise _refusal(response)
            return load(kind, response.body)
        except WireError as error:
            raise Unreachable(
                f"visor gave an answer that this version does not understand: {error}"
            ) from error

    def _exchange(self, request: bytes) -> Response:
        try:
            with connect_private(self._path, self._timeout) as connection:
                connection.sendall(request)
                answer = bytearray()
                while data := connection.recv(65536):
                    answer += data
                    if len(answer) > _MAX_ANSWER_BYTES:
                        raise Unreachable("the answer on the control socket is too long to be visor's")
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise NotRunning(f"no visor runs on this home ({self._path.name}: {error.strerror})") from error
        except TimeoutError as error:
            raise Unreachable(f"visor did not answer within {self._timeout:g} seconds") from error
        except OSError as error:
            raise Unreachable(f"the control socket cannot be used: {error.strerror or error}") from error
        if not answer:
            raise Unreachable("visor closed the connection without an answer")
        try:
            return parse_response(bytes(answer))
        except HttpProblem as problem:
            raise Unreachable(problem.problem) from problem


def _refusal(response: Response) -> Exception:
    from visor_actors.api.answers import Refusal

    error = load(Refusal, response.body).error
    if response.status == 409:
        return ControlRefused(error.problem, error.next_step or "")
    step = f"; {error.next_step}" if error.next_step else ""
    return Unreachable(f"visor refused the request: {error.problem}{step}")
