"""A Sentry of our own on the loopback: parses envelopes as the real one does, and misbehaves on demand."""

from __future__ import annotations

import gzip
import json
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from visor_actors.testing.probe import Probe

Report = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One event of one envelope, with the headers it came with."""

    event: Report
    encoding: str | None
    auth: str


@dataclass(slots=True)
class Receiver:
    """What arrived. ``status`` and ``headers`` answer every request; clear ``answering`` and none is
    answered.
    """

    probe: Probe = field(default_factory=Probe)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    answering: threading.Event = field(default_factory=threading.Event)
    requests: int = 0
    port: int = 0

    @property
    def dsn(self) -> str:
        return f"http://0123456789abcdef@127.0.0.1:{self.port}/42"

    def expect(self, name: str) -> Report:
        return self.probe.expect(Received, lambda one: one.event["tags"]["event"] == name).event


def parse_envelope(body: bytes) -> Iterator[tuple[Report, bytes]]:
    """Yield the items of an envelope: header and payload, by the length that the header tells."""
    _, _, rest = body.partition(b"\n")
    while rest.strip():
        line, _, rest = rest.partition(b"\n")
        header = json.loads(line)
        length = header["length"]
        yield header, rest[:length]
        rest = rest[length + 1 :]


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests += 1
            encoding = self.headers.get("Content-Encoding")
            for header, payload in parse_envelope(gzip.decompress(body) if encoding == "gzip" else body):
                if header["type"] == "event":
                    receiver.probe.record(
                        Received(
                            event=json.loads(payload),
                            encoding=encoding,
                            auth=self.headers.get("X-Sentry-Auth", ""),
                        )
                    )
            receiver.answering.wait(60)
            self.close_connection = True
            try:
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "2")
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(b"{}")
            except OSError:
                pass  # the reporter has gone: that is one of the tests

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver while the block runs."""
    receiver = Receiver()
    receiver.answering.set()
    socketserver.TCPServer.allow_reuse_address = True
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(receiver))
    server.daemon_threads = False  # joined by server_close
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.answering.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
