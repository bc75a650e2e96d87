"""The actor that serves the control API.

Its inbox is woken by the listening sockets themselves, so an idle API costs nothing. Every connection is
served by a short-lived job (see :mod:`visor_actors.api.exchange`), at most :data:`MAX_CONNECTIONS` at
once. When all places are taken, whoever has been slow to say what it wants loses its place to the next
in the queue: two hundred stuck scrapers cannot lock the operator out.

A socket that cannot be had (port in use, disk full) never fails the actor: it is reported and tried again.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from functools import partial
from itertools import count

from msgspec import Struct

from visor_actors.actor import Actor, Context, JobDone, JobFailed
from visor_actors.actors.config_watcher import ConfigChanged
from visor_actors.actors.control import ControlPort
from visor_actors.api.exchange import REQUEST_SECONDS, RESPONSE_SECONDS, Exchange, Phase
from visor_actors.api.http import Request, Response
from visor_actors.api.routes import Origin, Router
from visor_actors.api.sockets import PrivateSocket, TcpAddress, listen_tcp, peer_is_ours
from visor_actors.home.layout import HomeLayout
from visor_actors.home.settings import ApiConfig
from visor_actors.telemetry.events import Event, Severity

MAX_CONNECTIONS = 64
_PATIENCE_SECONDS = 0.25
_FULL_SECONDS = 0.1
_RETRY_SECONDS = 5.0
_GOODBYE_SECONDS = 0.5
# Out of descriptors or memory: accepting goes on once some have been given back.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class _Incoming(Struct, frozen=True):
    """Somebody waits on a listening socket."""

    origin: Origin


class _RetryPrivate(Struct, frozen=True):
    """Try to have the control socket."""


class _RetryTcp(Struct, frozen=True):
    """Try to have the TCP port."""


class _AcceptAgain(Struct, frozen=True):
    """Look whether there are places again."""


class _Served(Struct, frozen=True):
    """The key of the job that serves one connection."""

    number: int


class ApiActor(Actor):
    """Serves the control socket of ``layout`` and, if configured, TCP. Restarting it disturbs nobody else."""

    def __init__(self, context: Context, *, port: ControlPort, layout: HomeLayout) -> None:
        super().__init__(context)
        self._port = port
        self._layout = layout
        self._router = Router(port, testing=os.environ.get("VISOR_TESTING") == "1")
        self._settings: ApiConfig | None = None
        self._private: PrivateSocket | None = None
        self._tcp: socket.socket | None = None
        self._tcp_origin = Origin.TCP_TOKEN
        self._token: str | None = None
        self._exchanges: dict[_Served, Exchange] = {}
        self._numbers = count(1)
        self._accepting = True
        self._reported: set[str] = set()

    def init(self) -> None:
        """Open the sockets, as far as they can be had."""
        self._open_private()
        self._apply(self._port.config().api)

    def handle(self, message: object) -> None:
        """Accept connections, take note of finished ones, follow the configuration."""
        match message:
            case _Incoming():
                self._accept(message.origin)
            case JobDone(key=_Served() as key) | JobFailed(key=_Served() as key):
                self._exchanges.pop(key, None)
                if not self._accepting:
                    self._resume()
            case _AcceptAgain():
                self._resume()
            case ConfigChanged():
                self._apply(self._port.config().api)
            case _RetryPrivate():
                self._open_private()
            case _RetryTcp():
                self._open_tcp()
            case _:
                pass

    def terminate(self) -> None:
        """Give the sockets back; let answers that are on their way out arrive."""
        if not self.context.fenced:
            self._unwatch()
        self._close_tcp()
        if self._private is not None:
            self._private.close()
            self._private = None
        for exchange in self._exchanges.values():
            exchange.cut_off()
        deadline = time.monotonic() + _GOODBYE_SECONDS  # for all of them together
        for exchange in self._exchanges.values():
            exchange.wait(max(0.0, deadline - time.monotonic()))

    # sockets

    def _open_private(self) -> None:
        try:
            self._private = PrivateSocket(self._layout.socket)
        except OSError as error:
            self._report(
                "api.socket-failed",
                f"the control socket {self._layout.socket} cannot be served: {error.strerror or error}",
                "free disk space or correct the permissions; it is tried again every 5 seconds",
            )
            self.context.after(_RETRY_SECONDS, _RetryPrivate(), key=_RetryPrivate)
            return
        self._recovered("api.socket-failed", "the control socket is served again")
        if self._accepting:
            self.context.watch(self._private.listener.fileno(), _Incoming(Origin.CONTROL_SOCKET))

    def _apply(self, settings: ApiConfig) -> None:
        if settings != self._settings:
            self._settings = settings
            self._close_tcp()
            self._open_tcp()

    def _open_tcp(self) -> None:
        settings = self._settings
        if settings is None or settings.listen is None:
            self._reported.discard("api.listen-failed")
            return
        try:
            address = TcpAddress.parse(settings.listen)
            self._token = self._read_token(settings)
            if not address.loopback and self._token is None:
                raise ValueError("an address that others can reach needs a tokenFile")
            self._tcp = listen_tcp(address)
        except (OSError, ValueError) as error:
            self._report(
                "api.listen-failed",
                f"[api] listen = {settings.listen!r} cannot be served: {error}",
                "free the port, or correct [api]; it is tried again every 5 seconds",
            )
            self.context.after(_RETRY_SECONDS, _RetryTcp(), key=_RetryTcp)
            return
        # With a token file even this machine's users must show the token: whoever set it meant it.
        self._tcp_origin = Origin.TCP_LOOPBACK if self._token is None else Origin.TCP_TOKEN
        self._recovered("api.listen-failed", f"the API is served on {settings.listen} again")
        if self._accepting:
            self.context.watch(self._tcp.fileno(), _Incoming(self._tcp_origin))

    def _read_token(self, settings: ApiConfig) -> str | None:
        if settings.token_file is None:
            return None
        token = settings.token_file.read_text().strip()
        if not token:
            raise ValueError(f"{settings.token_file} is empty")
        return token

    def _close_tcp(self) -> None:
        if self._tcp is not None:
            if not self.context.fenced:
                self.context.unwatch(self._tcp.fileno())
            self._tcp.close()
            self._tcp = None

    # connections

    def _accept(self, origin: Origin) -> None:
        listener = self._listener(origin)
        if listener is None:
            return
        if len(self._exchanges) >= MAX_CONNECTIONS:
            self._make_room()
            return
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._pause()
            return
        if origin is Origin.CONTROL_SOCKET and not peer_is_ours(connection):
            connection.close()
            return
        key = _Served(next(self._numbers))
        exchange = Exchange(connection, partial(self._answer, origin, self._token))
        self._exchanges[key] = exchange
        longest = REQUEST_SECONDS + RESPONSE_SECONDS + 60.0  # nearer bounds are the exchange's own
        self.context.run_job(lambda _token: exchange.run(), key=key, timeout=longest)

    def _answer(self, origin: Origin, token: str | None, request: Request) -> Response:
        return self._router.answer(request, origin, token)

    def _make_room(self) -> None:
        """End the exchanges that still wait for their request after their fair time; accept later."""
        for exchange in self._exchanges.values():
            if exchange.phase is Phase.READING and exchange.age() >= _PATIENCE_SECONDS:
                exchange.cut_off()
        self._pause()

    def _pause(self) -> None:
        self._accepting = False
        self._unwatch()
        self.context.after(_FULL_SECONDS, _AcceptAgain(), key=_AcceptAgain)

    def _resume(self) -> None:
        if len(self._exchanges) >= MAX_CONNECTIONS:
            self._make_room()
            return
        self._accepting = True
        self.context.cancel(_AcceptAgain)
        if self._private is not None:
            self.context.watch(self._private.listener.fileno(), _Incoming(Origin.CONTROL_SOCKET))
        if self._tcp is not None:
            self.context.watch(self._tcp.fileno(), _Incoming(self._tcp_origin))

    def _unwatch(self) -> None:
        for origin in (Origin.CONTROL_SOCKET, self._tcp_origin):
            listener = self._listener(origin)
            if listener is not None:
                self.context.unwatch(listener.fileno())

    def _listener(self, origin: Origin) -> socket.socket | None:
        if origin is not Origin.CONTROL_SOCKET:
            return self._tcp
        return self._private.listener if self._private is not None else None

    # reporting

    def _report(self, name: str, message: str, next_step: str) -> None:
        """Say it once, not at every attempt."""
        if name not in self._reported:
            self._reported.add(name)
            self._port.emit(Event(name=name, message=message, next_step=next_step, severity=Severity.ALARM))

    def _recovered(self, name: str, message: str) -> None:
        if name in self._reported:
            self._reported.discard(name)
            self._port.emit(Event(name=f"{name.removesuffix('-failed')}-served", message=message))
