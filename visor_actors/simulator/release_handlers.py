"""The two halves of a simulated release server as HTTP handlers: the interface and the store."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

from visor_actors.simulator import release_faults as faults
from visor_actors.simulator.release_catalog import LoggedRequest, SimulatedAsset, SimulatedRelease
from visor_actors.simulator.release_faults import AnyFault, At

if TYPE_CHECKING:
    from visor_actors.simulator.release_server import ReleaseServer

_CHUNK = 1 << 18
_SILENT_SECONDS = 60.0


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Listener(ThreadingHTTPServer):
    """One of the two: a listener with a thread a connection, all of which end with it."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, releases: ReleaseServer, role: str) -> None:
        super().__init__(("127.0.0.1", 0), Interface if role == "interface" else Store)
        self.releases = releases
        self.role = role
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.05,), name=f"release-{role}", daemon=True
        )
        self._thread.start()

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: object) -> None:
        with self._lock:
            self._connections.discard(cast(socket.socket, request))
        super().shutdown_request(cast(socket.socket, request))

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what these servers are for."""

    def stop(self) -> None:
        self.shutdown()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    """What both servers share: sending, with or without a fault, and logging."""

    protocol_version = "HTTP/1.1"
    timeout = _SILENT_SECONDS
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    server: Listener

    @property
    def releases(self) -> ReleaseServer:
        return self.server.releases

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: requests are kept in ``ReleaseServer.requests``."""

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.releases.log(
            LoggedRequest(
                server=self.server.role,
                path=self.path,
                headers={name.lower(): value for name, value in self.headers.items()},
                status=status,
            )
        )
        self.send_response_only(status)
        if "date" not in (name.lower() for name in headers):
            self.send_header("Date", self.date_time_string())
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send_text(self, status: int, body: str, headers: Mapping[str, str]) -> None:
        data = body.encode()
        self.begin(status, {"Content-Length": str(len(data)), **headers})
        self.wfile.write(data)

    def struck_before_the_body(self, fault: AnyFault | None) -> bool:
        """Carry out a fault that replaces the whole answer; say whether it was one."""
        match fault:
            case faults.Answer():
                self.send_text(fault.status, fault.body, fault.headers)
            case faults.RedirectToSelf():
                self.send_text(302, "", {"Location": f"{self.server.url}{self.path}"})
            case _:
                return False
        return True

    def send_body(self, file: _Reader, length: int, fault: AnyFault | None) -> None:
        """Send ``length`` bytes of ``file``, interrupted or slowed as ``fault`` says."""
        match fault:
            case faults.Cut(after=after) | faults.Reset(after=after) | faults.Stall(after=after):
                self.wfile.write(file.read(min(after, length)))
                self.wfile.flush()
                self.interrupt(fault)
            case faults.Drip(size=size, pause=pause):
                while length > 0 and (data := file.read(min(size, length))):
                    self.wfile.write(data)
                    self.wfile.flush()
                    length -= len(data)
                    if self.releases.closing.wait(pause):
                        return
            case _:
                while length > 0 and (data := file.read(min(_CHUNK, length))):
                    self.wfile.write(data)
                    length -= len(data)

    def interrupt(self, fault: AnyFault) -> None:
        self.close_connection = True
        if isinstance(fault, faults.Stall):
            self.releases.closing.wait(_SILENT_SECONDS)
        elif isinstance(fault, faults.Reset):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Interface(_Handler):
    """The REST interface."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        root = f"/repos/{quote(self.releases.owner)}/{quote(self.releases.repository)}/releases"
        if not self.headers.get("User-Agent"):
            self._json(403, {"message": "Request forbidden by administrative rules."})
            return
        if not parts.path.startswith(root) or not self._may_see():
            self._missing()
            return
        rest = parts.path.removeprefix(root)
        query = parse_qs(parts.query)
        if found := re.fullmatch(r"/tags/(.+)", rest):
            self._release(unquote(found.group(1)))
        elif found := re.fullmatch(r"/assets/(\d+)", rest):
            self._link(int(found.group(1)))
        elif found := re.fullmatch(r"/(\d+)/assets", rest):
            self._assets(int(found.group(1)), query)
        elif rest == "":
            self._list(query)
        else:
            self._missing()

    def _may_see(self) -> bool:
        return self.releases.token is None or self._authorized()

    def _authorized(self) -> bool:
        return self.releases.token is not None and (
            self.headers.get("Authorization") == f"Bearer {self.releases.token}"
        )

    def _release(self, tag: str) -> None:
        fault = self.releases.next_fault(At.RELEASE, None)
        if self.struck_before_the_body(fault):
            return
        release = self.releases.release(tag)
        if release is None:
            self._missing()
        else:
            self._json(200, self._release_record(release), fault=fault)

    def _list(self, query: Mapping[str, list[str]]) -> None:
        fault = self.releases.next_fault(At.RELEASES, None)
        if self.struck_before_the_body(fault):
            return
        found = self.releases.releases(drafts=self._authorized())
        self._page([self._release_record(release) for release in found], query, fault)

    def _assets(self, number: int, query: Mapping[str, list[str]]) -> None:
        fault = self.releases.next_fault(At.ASSETS, None)
        if self.struck_before_the_body(fault):
            return
        for release in self.releases.releases(drafts=True):
            if release.id == number:
                self._page([self._asset_record(asset) for asset in release.assets.values()], query, fault)
                return
        self._missing()

    def _link(self, number: int) -> None:
        asset = self.releases.asset(number)
        if asset is None:
            self._missing()
            return
        fault = self.releases.next_fault(At.LINK, asset.name)
        if not self.struck_before_the_body(fault):
            self._json(302, None, headers={"Location": self.releases.new_link(asset)})

    def _page(self, items: list[object], query: Mapping[str, list[str]], fault: AnyFault | None) -> None:
        number = int(query.get("page", ["1"])[0])
        size = self.releases.page_size or int(query.get("per_page", ["30"])[0])
        page = items[(number - 1) * size : number * size]
        headers = {}
        if number * size < len(items):
            address = f"{self.server.url}{urlsplit(self.path).path}?page={number + 1}"
            headers["Link"] = f'<{address}>; rel="next"'
        self._json(200, page, headers=headers, fault=fault)

    def _missing(self) -> None:
        self._json(404, {"message": "Not Found", "status": "404"})

    def _json(
        self,
        status: int,
        record: object,
        *,
        headers: Mapping[str, str] | None = None,
        fault: AnyFault | None = None,
    ) -> None:
        data = b"" if record is None else json.dumps(record).encode()
        with self.releases.lock:
            self.releases.remaining = max(0, self.releases.remaining - 1)
            remaining = self.releases.remaining
        sent = {
            "Content-Type": "application/json; charset=utf-8",
            "Content-Length": str(len(data)),
            "X-RateLimit-Limit": "60",
            "X-RateLimit-Remaining": str(max(1, remaining)),
            "X-RateLimit-Reset": str(int(time.time()) + 3600),
            **(headers or {}),
        }
        self.begin(status, sent)
        self.send_body(io.BytesIO(data), len(data), fault)

    def _release_record(self, release: SimulatedRelease) -> dict[str, object]:
        root = f"{self.server.url}/repos/{self.releases.owner}/{self.releases.repository}/releases"
        assets = [self._asset_record(asset) for asset in release.assets.values()]
        return {
            "id": release.id,
            "tag_name": release.tag,
            "name": release.tag,
            "draft": release.draft,
            "prerelease": release.prerelease,
            "assets_url": f"{root}/{release.id}/assets",
            "assets": assets[: self.releases.listed],
        }

    def _asset_record(self, asset: SimulatedAsset) -> object:
        root = f"{self.server.url}/repos/{self.releases.owner}/{self.releases.repository}/releases"
        return {
            "id": asset.id,
            "name": asset.name,
            "url": f"{root}/assets/{asset.id}",
            "state": asset.state,
            "content_type": asset.content_type,
            "size": asset.size,
            "digest": asset.digest,
            "updated_at": "2024-10-01T00:00:00Z",
        }


class Store(_Handler):
    """The store behind the redirects, and plain files by tag and name."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if found := re.fullmatch(r"/store/(\d+)", parts.path):
            if self.headers.get("Authorization") is not None:
                self.send_text(400, "<Error><Code>InvalidArgument</Code></Error>", {})
                return
            signature = parse_qs(parts.query).get("X-Signature", [""])[0]
            if not self.releases.link_is_valid(signature):
                self.send_text(403, "<Error><Code>AccessDenied</Code>Request has expired</Error>", {})
                return
            asset = self.releases.asset(int(found.group(1)))
        elif found := re.fullmatch(r"/files/([^/]+)/([^/]+)", parts.path):
            asset = self.releases.file(unquote(found.group(1)), unquote(found.group(2)))
        else:
            asset = None
        if asset is None:
            self.send_text(404, "not found", {})
            return
        fault = self.releases.next_fault(At.CONTENT, asset.name)
        if not self.struck_before_the_body(fault):
            with asset.open() as file:
                self._content(asset, file, fault)

    def _content(self, asset: SimulatedAsset, file: BinaryIO, fault: AnyFault | None) -> None:
        size = file.seek(0, os.SEEK_END)
        first = self._first_byte(asset, size, fault)
        if first is None:
            self.send_text(416, "", {"Content-Range": f"bytes */{size}"})
            return
        shift = fault.shift if isinstance(fault, faults.WrongRange) else 0
        begin = max(0, first + shift) if first else first
        file.seek(begin)
        headers = {"ETag": asset.etag, "Content-Type": asset.content_type, "Accept-Ranges": "bytes"}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{size - 1}/{size}"
        status = 206 if begin else 200
        match fault:
            case faults.WithoutLength() | faults.Endless():
                self.begin(status, {**headers, "Transfer-Encoding": "chunked"})
                self._send_chunked(_zeros() if isinstance(fault, faults.Endless) else _pieces(file))
            case faults.Encoded():
                data = gzip.compress(file.read())
                self.begin(status, {**headers, "Content-Encoding": "gzip", "Content-Length": str(len(data))})
                self.wfile.write(data)
            case faults.Corrupt(position=position):
                damaged = bytearray(file.read())
                if 0 <= position - begin < len(damaged):
                    damaged[position - begin] ^= 0xFF
                self.begin(status, {**headers, "Content-Length": str(len(damaged))})
                self.wfile.write(damaged)
            case None:
                self.begin(status, {**headers, "Content-Length": str(size - begin)})
                self._send_file(asset, file, begin, size)
            case _:
                self.begin(status, {**headers, "Content-Length": str(size - begin)})
                self.send_body(file, size - begin, fault)

    def _first_byte(self, asset: SimulatedAsset, size: int, fault: AnyFault | None) -> int | None:
        """Return from where to send, 0 for the whole file, None for a part that does not exist."""
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted is None or isinstance(fault, faults.IgnoreRange):
            return 0
        if self.headers.get("If-Range", asset.etag) != asset.etag:
            return 0
        first = int(wanted.group(1))
        return first if first < size else None

    def _send_file(self, asset: SimulatedAsset, file: BinaryIO, begin: int, size: int) -> None:
        if asset.path is None:
            self.send_body(file, size - begin, None)
            return
        self.wfile.flush()
        self.connection.sendfile(file, begin, size - begin)

    def _send_chunked(self, pieces: Iterator[bytes]) -> None:
        for data in pieces:
            if self.releases.closing.is_set():
                return
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(_CHUNK):
        yield data


def _zeros() -> Iterator[bytes]:
    while True:
        yield bytes(_CHUNK)
