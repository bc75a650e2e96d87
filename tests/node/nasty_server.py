"""A server on a unix or TCP socket that behaves as badly as a test tells it to."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

Behaviour = Callable[["Peer"], None]

DEADLINE = 20.0


class Peer:
    """One accepted connection, for a behaviour that runs on its own thread."""

    def __init__(self, connection: socket.socket, number: int, over: threading.Event) -> None:
        self.connection = connection
        self.number = number
        self.over = over

    def request(self) -> bytes | None:
        """Read one whole request; None when the client closed instead of asking."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.connection.recv(65536)
            if not more:
                return None
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(body) < length:
            more = self.connection.recv(65536)
            if not more:
                return None
            body += more
        return head + b"\r\n\r\n" + body

    def request_id(self) -> int:
        """Read one request and return its id. A client that closed instead ends the behaviour."""
        request = self.request()
        if request is None:
            raise ConnectionAbortedError
        number: int = json.loads(request.partition(b"\r\n\r\n")[2])["id"]
        return number

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def wait_for_the_end(self) -> None:
        """Do nothing until the test is over."""
        self.over.wait(DEADLINE)


class NastyServer:
    """Accepts connections in the background and runs ``behaviour`` for each. Use it as a context manager."""

    def __init__(self, behaviour: Behaviour, *, path: Path | None = None) -> None:
        family = socket.AF_INET if path is None else socket.AF_UNIX
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.bind(("127.0.0.1", 0) if path is None else str(path))
        self._listener.listen(8)
        self._behaviour = behaviour
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._lock = threading.Lock()
        self.accepted = 0
        self._acceptor = threading.Thread(target=self._accept, name="nasty-accept")

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def __enter__(self) -> NastyServer:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(DEADLINE)
        self._listener.close()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.append(connection)
                self.accepted += 1
                peer = Peer(connection, self.accepted, self._over)
            thread = threading.Thread(target=self._serve, args=(peer,), name=f"nasty-{peer.number}")
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: Peer) -> None:
        with peer.connection:
            try:
                self._behaviour(peer)
            except OSError:
                return


def answer(body: str | bytes, *, status: str = "200 OK", content_type: str | None = None) -> bytes:
    """The bytes of a reply as the node's server writes it."""
    text = body.encode() if isinstance(body, str) else body
    kind = "application/json; charset=utf-8" if content_type is None else content_type
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nX-Content-Type-Options: nosniff\r\n"
    return f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text


def status_body(
    request_id: int,
    *,
    tag: str | None = "v0.79.1",
    height: int = 35,
    ready: bool = False,
    key: str = "VegaReleaseTag",
) -> str:
    """The body of a status, byte for byte as a core writes it; ``tag`` None: no release info at all."""
    info = "null" if tag is None else f'{{"{key}":{json.dumps(tag)},"UpgradeBlockHeight":{height}}}'
    shown = "true" if ready else "false"
    result = f'{{"AcceptedReleaseInfo":{info},"ReadyToUpgrade":{shown}}}'
    return f'{{"result":{result},"error":null,"id":{request_id}}}\n'


def well_behaved(peer: Peer) -> None:
    """Answer every question with the default status."""
    while (request := peer.request()) is not None:
        request_id = json.loads(request.partition(b"\r\n\r\n")[2])["id"]
        peer.send(answer(status_body(request_id)))
