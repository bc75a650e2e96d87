"""One connection from its first byte to its last, on a thread of its own, always within a deadline."""

from __future__ import annotations

import contextlib
import enum
import socket
import threading
import time
from collections.abc import Callable

from visor_actors.api.answers import refuse
from visor_actors.api.http import HttpProblem, Request, RequestReader, Response, render_response

REQUEST_SECONDS = 5.0
RESPONSE_SECONDS = 5.0
_LINGER_SECONDS = 0.5
_LINGER_BYTES = 1024 * 1024


class Phase(enum.Enum):
    """Where an exchange is. Only one that is ``READING`` may be cut off for the sake of others."""

    READING = "reading"
    ANSWERING = "answering"
    OVER = "over"


class Exchange:
    """Reads one request from ``connection``, has it answered, sends the response, closes.

    :meth:`run` belongs to one thread; :meth:`cut_off` and :meth:`wait` may be called from any."""

    def __init__(self, connection: socket.socket, answer: Callable[[Request], Response]) -> None:
        self._connection = connection
        self._answer = answer
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.phase = Phase.READING
        self.accepted_at = time.monotonic()

    def run(self) -> None:
        """Serve the connection. Returns when it is closed; never raises for anything its peer does."""
        try:
            self._serve()
        except OSError:
            # The peer went away or stalled: its loss, nobody else's.
            pass
        finally:
            with self._lock:
                self.phase = Phase.OVER
                self._connection.close()
            self._over.set()

    def age(self) -> float:
        """Return the seconds since the connection was accepted."""
        return time.monotonic() - self.accepted_at

    def cut_off(self) -> None:
        """End the exchange if it still waits for its request."""
        with self._lock:
            if self.phase is Phase.READING:
                with contextlib.suppress(OSError):  # the peer was faster
                    self._connection.shutdown(socket.SHUT_RDWR)

    def wait(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for the end; return whether it came."""
        return self._over.wait(timeout)

    def _serve(self) -> None:
        with_body = True
        whole = True
        try:
            request = self._read()
            if request is None:
                return
            with self._lock:
                self.phase = Phase.ANSWERING
            with_body = request.method != "HEAD"
            response = self._answer(request)
        except HttpProblem as problem:
            response = refuse(problem.status, problem.problem)
            whole = False
        self._connection.settimeout(RESPONSE_SECONDS)
        self._connection.sendall(render_response(response, with_body=with_body))
        if not whole:
            self._linger()

    def _read(self) -> Request | None:
        """Return the request; None if the peer closed without one. Raises HttpProblem and OSError."""
        reader = RequestReader()
        deadline = self.accepted_at + REQUEST_SECONDS
        while True:
            # One deadline for the whole request: a byte a second buys no more time.
            left = deadline - time.monotonic()
            if left <= 0:
                raise HttpProblem(408, f"the request took longer than {REQUEST_SECONDS:.0f} seconds")
            self._connection.settimeout(left)
            try:
                data = self._connection.recv(65536)
            except TimeoutError:
                continue
            if not data:
                return None
            request = reader.feed(data)
            if request is not None:
                return request

    def _linger(self) -> None:
        """Read off what the peer still sends: closing over unread bytes would reset away our answer."""
        self._connection.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + _LINGER_SECONDS
        received = 0
        while received < _LINGER_BYTES and (left := deadline - time.monotonic()) > 0:
            self._connection.settimeout(left)
            data = self._connection.recv(65536)
            if not data:
                return
            received += len(data)
