"""Drives simulated nodes directly: processes, raw HTTP on their sockets, and waiting for what they record."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from visor_actors.simulator import ProcessRecord, SimulatedChain, read_records

T = TypeVar("T")
DEADLINE = 20.0  # seconds; generous, because the machine may be busy

STATUS_CALL = b'{"method":"protocolupgrade.UpgradeStatus","params":[null],"id":1}'


def wait_for(what: Callable[[], T | None]) -> T:
    """The first true answer of ``what``; fails the test when there is none in time."""
    end = time.monotonic() + DEADLINE
    while not (found := what()):
        assert time.monotonic() < end, f"nothing within {DEADLINE} s"
        time.sleep(0.003)
    return found


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response as it came over the socket."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    raw: bytes


def post(
    body: bytes, *headers: str, path: str = "/rpc", content_type: str | None = "application/json"
) -> bytes:
    """The bytes of a request as the real client sends them, closing the connection afterwards."""
    kind = () if content_type is None else (f"Content-Type: {content_type}",)
    lines = ("Host: unix", *kind, f"Content-Length: {len(body)}", "Connection: close", *headers)
    return f"POST {path} HTTP/1.1\r\n".encode() + "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(DEADLINE)
    try:
        client.connect(str(path))
    except OSError:
        client.close()
        raise
    return client


def read_to_end(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def exchange(path: Path, request: bytes) -> Answer:
    """Send ``request`` on a new connection and read until the server closes it."""
    with connect(path) as client:
        client.sendall(request)
        return parse(read_to_end(client))


def parse(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in rest)
    return Answer(int(first.split(" ")[1]), headers, body, raw)


def status_body(path: Path) -> str:
    return exchange(path, post(STATUS_CALL)).body.decode()


@dataclass(slots=True)
class Nodes:
    """Starts processes for one test and ends those that are left, by the pid it started."""

    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self, binary: Path, *args: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        number = len(self.started)
        out, err = self.folder / f"{number}.out", self.folder / f"{number}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [binary, *args],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, **(env or {})},
            )
        self.started.append(process)
        return process

    def start_core(self, binary: Path, chain: SimulatedChain, *args: str) -> subprocess.Popen[bytes]:
        return self.start(binary, *chain.core_args, *args)

    def start_data_node(self, binary: Path, chain: SimulatedChain) -> subprocess.Popen[bytes]:
        return self.start(binary, *chain.data_node_args)

    def out(self, process: subprocess.Popen[bytes]) -> str:
        return (self.folder / f"{self.started.index(process)}.out").read_text(errors="replace")

    def err(self, process: subprocess.Popen[bytes]) -> str:
        return (self.folder / f"{self.started.index(process)}.err").read_text(errors="replace")

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait(DEADLINE)


def end(process: subprocess.Popen[bytes]) -> int:
    """Send SIGTERM and return the exit status."""
    process.terminate()
    return process.wait(DEADLINE)


def seen(
    home: Path, event: str, *, role: str = "core", pid: int | None = None, height: int = 0
) -> ProcessRecord:
    """Wait for a record of the node."""

    def look() -> ProcessRecord | None:
        for record in read_records(home, event=event, role=role):
            if pid in (None, record.pid) and record.height >= height:
                return record
        return None

    return wait_for(look)


def height_of(chain: SimulatedChain) -> int:
    """The last executed block, by the node's own log."""
    path = chain.home / "state" / "node" / "blocks.log"
    heights = re.findall(r"^(\d+) ", path.read_text() if path.exists() else "", flags=re.MULTILINE)
    return max(map(int, heights), default=0)


def reach(chain: SimulatedChain, height: int) -> None:
    wait_for(lambda: height_of(chain) >= height)
