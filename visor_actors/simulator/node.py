"""A simulated node: one stand-alone file that plays core node and data node of the Vega family.

It behaves on the command line, on its sockets, in its log and in its exit status as the real programs do
around a protocol upgrade, and it keeps its chain on disk, so that a visor which runs the wrong binary, two of
them, or one too late leaves a ruined chain behind (``visor_actors.simulator.check_chain``).
``docs/simulator.md`` says how it is used and lists the faults.

Nothing of the project is imported, and of the standard library only what starts in well under a millisecond:
tests start this file by the hundred. That is why there are no dataclasses, enums, ``json``, ``signal`` or
``socket`` here, but their C halves, and why configuration is read by a few lines that understand the flat
TOML this package writes.

One thread, one loop: every class below is called by :class:`Loop` and never blocks, except when stdout's
reader stalls.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import heapq
import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator
    from typing import NoReturn
else:
    import _signal as signal  # the public module imports enum: four milliseconds at every start

VERSION = "v0.0.0+dev"  # replaced by build_binary
BRAND = "fury"  # replaced by build_binary
COMMIT = ""  # replaced by build_binary
BAKED_FAULTS = ""  # replaced by build_binary; the text of a faults file

RETURNED_ERROR, FATAL, PANIC, MISUSED = 255, 1, 2, 64

COMMON_FAULTS = frozenset(
    {"crash_at_height", "crash_after_ms", "crash_exit_code", "crash_signal", "crash_times"}
    | {"fail_first_starts", "startup_delay_ms", "ignore_sigterm", "stop_ms"}
    | {"helper_seconds", "helper_session", "flood_lines", "flood_line_bytes"}
)
KNOWN_FAULTS = {
    "core": COMMON_FAULTS
    | {"rpc", "rpc_from_height", "rpc_slow_ms", "rpc_huge_bytes", "status", "status_tag", "status_height"}
    | {"die_at_upgrade", "die_when_ready_ms", "stall_at_height"},
    "data_node": COMMON_FAULTS | {"at_upgrade"},
    "history": frozenset({"mode", "exit_code"}),
    "version": frozenset({"mode", "exit_code", "value"}),
}

Scalar = str | int | float | bool


class NodeFailure(Exception):
    """The command returns an error: the text goes to stderr and the process ends with ``code``."""

    def __init__(self, text: str, code: int = RETURNED_ERROR) -> None:
        super().__init__(text)
        self.code = code


# -- text formats --------------------------------------------------------------------------------------------


def parse_flat_toml(text: str) -> dict[str, dict[str, Scalar]]:
    """The tables of ``text`` by their full name; only one-line scalars, which is all this package writes."""
    tables: dict[str, dict[str, Scalar]] = {"": {}}
    table = tables[""]
    for raw in text.split("\n"):
        line = raw.strip()
        if line.startswith("["):
            table = tables.setdefault(line[1 : line.index("]")].strip().replace('"', ""), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            table[key.strip().strip('"')] = _parse_scalar(value.strip())
    return tables


def _parse_scalar(text: str) -> Scalar:
    if text.startswith('"'):
        return text[1 : text.rindex('"')].replace('\\"', '"').replace("\\\\", "\\")
    text = text.partition("#")[0].strip()
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        return float(text)


def quote(text: str) -> str:
    """``text`` as a JSON string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " else f"\\u{ord(c):04x}" for c in escaped) + '"'


def to_json(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(to_json(item) for item in value) + "]"
    return str(value) if isinstance(value, (int, float)) else quote(str(value))


def seconds_of(duration: str) -> float:
    """A Go duration of one unit (``250ms``, ``5s``, ``96h``) in seconds."""
    for suffix, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        if duration.endswith(suffix):
            return float(duration[: -len(suffix)]) * factor
    raise NodeFailure(f"time: missing unit in duration {quote(duration)}")


def read_text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def remove_file(path: str) -> None:
    """Remove ``path`` if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def replace_file(path: str, text: str) -> None:
    temporary = f"{path}.tmp.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(temporary, path)


def append_line(path: str, text: str) -> None:
    """Add ``text`` by a single write: processes may share the file, a kill leaves no half line."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, (text + "\n").encode())
    finally:
        os.close(fd)


def app_hash(previous: str, height: int, version: str) -> str:
    """The state after a block; as in the real node, the executing version is part of it."""
    import _blake2

    return _blake2.blake2b(f"{previous} {height} {version}".encode(), digest_size=16).hexdigest().upper()


# -- the surroundings of a process ---------------------------------------------------------------------------


class Paths:
    """Where a node keeps its things: ``X/config`` and ``X/state``, or the XDG folders without ``--home``."""

    def __init__(self, home: str | None, kind: str) -> None:
        if home:
            config, state = f"{home}/config", f"{home}/state"
            self.faults = f"{home}/faults.toml"
        else:
            user = os.environ.get("HOME", "/nonexistent")
            config = os.environ.get("XDG_CONFIG_HOME", f"{user}/.config") + f"/{BRAND}"
            state = os.environ.get("XDG_STATE_HOME", f"{user}/.local/state") + f"/{BRAND}"
            self.faults = f"{config}/faults.toml"
        self.config = f"{config}/{kind}/config.toml"
        self.network = f"{config}/{kind}/network.toml"
        self.state = f"{state}/{kind}"
        self.starts = f"{state}/starts.jsonl"
        self.counts = f"{state}/fault-counts"

    def make(self) -> None:
        for folder in (f"{self.state}/snapshots", self.counts):
            os.makedirs(folder, exist_ok=True)


class Journal:
    """``state/starts.jsonl``: what each process of a home did, for the tests to read."""

    def __init__(self, paths: Paths, role: str) -> None:
        self.path, self.role = paths.starts, role

    def write(self, event: str, **fields: object) -> None:
        head = {"event": event, "role": self.role, "pid": os.getpid(), "version": VERSION}
        stamps = {"mono_ns": time.monotonic_ns(), "wall": time.time()}
        pairs = {**head, **stamps, **fields}
        append_line(self.path, "{" + ",".join(f"{quote(k)}:{to_json(v)}" for k, v in pairs.items()) + "}")


class Faults:
    """The faults of one role: baked in, then ``SIMNODE_FAULTS`` (a path or text), then the home's file."""

    def __init__(self, role: str, path: str | None = None, counts: str | None = None) -> None:
        self.role, self.path, self.counts = role, path, counts
        self._stamp: tuple[int, int] | None = None
        text = os.environ.get("SIMNODE_FAULTS", "")
        if text.startswith("/"):
            text = read_text(text)
        self._fixed = {**self._table(BAKED_FAULTS), **self._table(text)}
        self._values = self._fixed
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if it changed; costs one ``stat`` if not."""
        if self.path is None:
            return
        try:
            status = os.stat(self.path)
        except OSError:
            self._values, self._stamp = self._fixed, None
            return
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            self._stamp = stamp
            self._values = {**self._fixed, **self._table(read_text(self.path))}

    def _table(self, text: str) -> dict[str, Scalar]:
        if not text:
            return {}
        table = parse_flat_toml(text).get(self.role, {})
        unknown = set(table) - KNOWN_FAULTS[self.role]
        if unknown:
            raise NodeFailure(f"simulated node: unknown fault {self.role}.{min(unknown)}", MISUSED)
        return table

    def text(self, key: str, default: str = "") -> str:
        return str(self._values.get(key, default))

    def number(self, key: str, default: int = 0) -> int:
        return int(self._values.get(key, default))

    def given(self, key: str) -> bool:
        return key in self._values

    def flag(self, key: str) -> bool:
        return bool(self._values.get(key, False))

    def count(self, name: str) -> int:
        """How often ``name`` was counted before, in all processes of this home; counts this time too."""
        path = f"{self.counts}/{self.role}.{name}"
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            before = os.fstat(fd).st_size
            os.write(fd, b".")
        finally:
            os.close(fd)
        return before

    def due(self, name: str, times: int) -> bool:
        """Whether ``name`` fires now: the first ``times`` times, always if 0."""
        return times == 0 or self.count(name) < times


class Console:
    """Console lines as the real programs write them: all levels on stdout, tab separated."""

    def __init__(self, name: str) -> None:
        self.name = name

    def write(self, level: str, message: str, fields: str = "") -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        line = f"{stamp}.{int(now * 1000) % 1000:03d}Z\t{level}\t{self.name}\tsimulator/node.go:1\t{message}"
        write_all(1, (line + (f"\t{fields}\n" if fields else "\n")).encode())

    def info(self, message: str, fields: str = "") -> None:
        self.write("INFO", message, fields)

    def error(self, message: str, fields: str = "") -> None:
        self.write("ERROR", message, fields)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


class Timer:
    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback, self.cancelled = callback, False


class Loop:
    """Timers, file descriptors and signals on one thread."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self.sigterm_ns = 0
        self._on_term: Callable[[], None] = lambda: None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)

    def take_signals(self, on_term: Callable[[], None]) -> None:
        """From now on SIGTERM and SIGINT call ``on_term``; ``sigterm_ns`` is when the first one arrived."""
        self._on_term = on_term
        signal.set_wakeup_fd(self._wake_write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stamp)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as a Go program that writes to a closed stdout
        self.watch(self._wake_read, self._drain)

    def _stamp(self, _number: int, _frame: object) -> None:
        self.sigterm_ns = self.sigterm_ns or time.monotonic_ns()

    def _drain(self, _events: int) -> None:
        os.read(self._wake_read, 512)
        self._on_term()

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self.at(time.monotonic() + seconds, callback)

    def at(self, moment: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        self._sequence += 1
        heapq.heappush(self._timers, (moment, self._sequence, timer))
        return timer

    def watch(self, fd: int, callback: Callable[[int], None], *, writing: bool = False) -> None:
        self._callbacks[fd] = callback
        self._poll.register(fd, select.POLLIN | (select.POLLOUT if writing else 0))

    def unwatch(self, fd: int) -> None:
        if self._callbacks.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def run(self) -> NoReturn:
        while True:
            timeout: float | None = None
            if self._timers:
                timeout = max(0.0, (self._timers[0][0] - time.monotonic()) * 1000 + 0.5)
            for fd, events in self._poll.poll(timeout):
                callback = self._callbacks.get(fd)
                if callback is not None:
                    callback(events)
            # Only what is due now: a timer that re-arms itself at zero must not starve the sockets.
            now, due = time.monotonic(), []
            while self._timers and self._timers[0][0] <= now:
                due.append(heapq.heappop(self._timers)[2])
            for timer in due:
                if not timer.cancelled:
                    timer.callback()


class Stream:
    """A non-blocking socket with an output buffer."""

    def __init__(self, loop: Loop, sock: _socket.socket) -> None:
        self.loop, self.sock = loop, sock
        self._out = bytearray()
        self._more: Iterator[bytes] | None = None
        self._close_when_sent = False
        self.closed = False
        sock.setblocking(False)
        loop.watch(sock.fileno(), self._ready)

    def received(self, data: bytes) -> None:
        """Called with what came in; ``b""`` at the end of the stream."""

    def send(self, data: bytes, *, more: Iterator[bytes] | None = None, then_close: bool = False) -> None:
        if self.closed:
            return
        self._out += data
        self._more = more or self._more
        self._close_when_sent = self._close_when_sent or then_close
        self._flush()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.loop.unwatch(self.sock.fileno())
            self.sock.close()

    def _ready(self, events: int) -> None:
        if events & select.POLLOUT:
            self._flush()
        if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and not self.closed:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self.received(data)

    def _flush(self) -> None:
        try:
            while self._out or self._more:
                if not self._out and self._more:
                    chunk = next(self._more, None)
                    if chunk is None:
                        self._more = None
                        continue
                    self._out += chunk
                del self._out[: self.sock.send(self._out, _socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            self.loop.watch(self.sock.fileno(), self._ready, writing=True)
            return
        except OSError:
            self.close()
            return
        if self._close_when_sent:
            self.close()
        else:
            self.loop.watch(self.sock.fileno(), self._ready)


_folder_fds: dict[str, int] = {}


def short_address(path: str) -> str:
    """An address for ``path`` that fits into a socket address however long the folder's name is."""
    if len(path.encode()) <= 107:
        return path
    folder, _, name = path.rpartition("/")
    if folder not in _folder_fds:
        _folder_fds[folder] = os.open(folder or "/", os.O_PATH | os.O_CLOEXEC)
    return f"/proc/self/fd/{_folder_fds[folder]}/{name}"


def listen_unix(
    loop: Loop, path: str, address: str, on_accept: Callable[[_socket.socket], None]
) -> _socket.socket:
    """Listen at ``path``, removing what a killed predecessor left there."""
    remove_file(path)
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    listener.bind(address)
    return _accept_from(loop, listener, on_accept)


def listen_tcp(loop: Loop, port: int, on_accept: Callable[[_socket.socket], None]) -> _socket.socket:
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return _accept_from(loop, listener, on_accept)


def _accept_from(
    loop: Loop, listener: _socket.socket, on_accept: Callable[[_socket.socket], None]
) -> _socket.socket:
    listener.listen(128)
    listener.setblocking(False)

    def accept(_events: int) -> None:
        try:
            fd, _ = listener._accept()  # type: ignore[attr-defined]  # the C half of socket.accept
        except OSError:
            return
        on_accept(_socket.socket(fileno=fd))

    loop.watch(listener.fileno(), accept)
    return listener


# -- HTTP ----------------------------------------------------------------------------------------------------

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    415: "Unsupported Media Type",
    500: "Internal Server Error",
}


class HttpRequest:
    __slots__ = ("body", "headers", "keep_alive", "method", "path", "protocol")

    def __init__(self, method: str, target: str, protocol: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.protocol, self.headers, self.body = method, protocol, headers, body
        self.path = target.partition("?")[0]
        connection = headers.get("connection", "").lower()
        self.keep_alive = connection != "close" and (protocol == "HTTP/1.1" or connection == "keep-alive")


class HttpResponse:
    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.status, self.body, self.headers = status, body, headers

    def encode(self, request: HttpRequest) -> bytes:
        lines = [f"{request.protocol} {self.status} {REASONS[self.status]}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines.append(time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT", time.gmtime()))
        lines.append(f"Content-Length: {len(self.body)}")
        if not request.keep_alive:
            lines.append("Connection: close")
        body = b"" if request.method == "HEAD" else self.body
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def plain(status: int, text: str) -> HttpResponse:
    return HttpResponse(status, text.encode(), ("Content-Type", "text/plain; charset=utf-8"))


NOT_FOUND = HttpResponse(
    404,
    b"404 page not found\n",
    ("Content-Type", "text/plain; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
)


class HttpConnection(Stream):
    """One client; answers its requests in order with what ``answer`` sends on this connection."""

    def __init__(
        self, loop: Loop, sock: _socket.socket, answer: Callable[[HttpConnection, HttpRequest], None]
    ) -> None:
        super().__init__(loop, sock)
        self._answer, self._in = answer, bytearray()

    def received(self, data: bytes) -> None:
        if not data:
            self.close()
            return
        self._in += data
        while not self.closed and (request := self._take_request()) is not None:
            self._answer(self, request)

    def respond(self, request: HttpRequest, response: HttpResponse) -> None:
        self.send(response.encode(request), then_close=not request.keep_alive)

    def _take_request(self) -> HttpRequest | None:
        end = self._in.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *rest = self._in[:end].decode("latin-1").split("\r\n")
        headers = {
            name.lower().strip(): value.strip() for name, _, value in (line.partition(":") for line in rest)
        }
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            self._refuse("400 Bad Request")
            return None
        if words[2] == "HTTP/1.1" and "host" not in headers:
            self._refuse("400 Bad Request: missing required Host header")
            return None
        length = headers.get("content-length", "0")
        if not length.isdigit() or "transfer-encoding" in headers:
            self._refuse("400 Bad Request")
            return None
        if len(self._in) < end + 4 + int(length):
            return None
        body = bytes(self._in[end + 4 : end + 4 + int(length)])
        del self._in[: end + 4 + int(length)]
        return HttpRequest(words[0], words[1], words[2], headers, body)

    def _refuse(self, text: str) -> None:
        head = (
            f"HTTP/1.1 {text}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n{text}"
        )
        self.send(head.encode(), then_close=True)


# -- admin RPC -----------------------------------------------------------------------------------------------


class JsonFault(Exception):
    """Not JSON, in the words of Go's decoder."""


class Scanner:
    """Just enough JSON: kinds of values and where they end, so that an ``id`` can be echoed byte for byte."""

    def __init__(self, text: str) -> None:
        self.text = text

    def value(self, at: int, pairs: list[tuple[str, str]] | None = None, depth: int = 0) -> tuple[str, int]:
        """Kind of the value at ``at`` and the index after it; an object fills ``pairs`` (key, raw value)."""
        at = self._skip(at)
        if at >= len(self.text):
            raise JsonFault("unexpected EOF" if self.text.strip() else "EOF")
        if depth > 200:
            raise JsonFault("exceeded max depth")
        match self.text[at]:
            case "{":
                return "object", self._object(at + 1, pairs, depth)
            case "[":
                return "array", self._array(at + 1, depth)
            case '"':
                return "string", self._string(at)
            case "t":
                return "bool", self._literal(at, "true")
            case "f":
                return "bool", self._literal(at, "false")
            case "n":
                return "null", self._literal(at, "null")
            case c if c in "-0123456789":
                end = at + 1
                while end < len(self.text) and self.text[end] in "+-.eE0123456789":
                    end += 1
                return "number", end
            case c:
                raise JsonFault(f"invalid character {go_rune(c)} looking for beginning of value")

    def _skip(self, at: int) -> int:
        while at < len(self.text) and self.text[at] in " \t\r\n":
            at += 1
        return at

    def _expect(self, at: int, allowed: str, where: str) -> tuple[str, int]:
        at = self._skip(at)
        if at >= len(self.text):
            raise JsonFault("unexpected EOF")
        if self.text[at] not in allowed:
            raise JsonFault(f"invalid character {go_rune(self.text[at])} {where}")
        return self.text[at], at

    def _object(self, at: int, pairs: list[tuple[str, str]] | None, depth: int) -> int:
        found, at = self._expect(at, '}"', "looking for beginning of object key string")
        while found != "}":
            _, at = self._expect(at, '"', "looking for beginning of object key string")
            end = self._string(at)
            key = self.text[at + 1 : end - 1]
            _, at = self._expect(end, ":", "after object key")
            start = self._skip(at + 1)
            _, end = self.value(start, None, depth + 1)
            if pairs is not None:
                pairs.append((key.lower(), self.text[start:end]))
            found, at = self._expect(end, ",}", "after object key:value pair")
            at += 1
        return at if self.text[at - 1] == "}" else at + 1

    def _array(self, at: int, depth: int) -> int:
        at = self._skip(at)
        if at < len(self.text) and self.text[at] == "]":
            return at + 1
        while True:
            _, at = self.value(at, None, depth + 1)
            found, at = self._expect(at, ",]", "after array element")
            at += 1
            if found == "]":
                return at

    def _string(self, at: int) -> int:
        at += 1
        while at < len(self.text):
            if self.text[at] == '"':
                return at + 1
            if self.text[at] < " ":
                raise JsonFault(f"invalid character {go_rune(self.text[at])} in string literal")
            at += 2 if self.text[at] == "\\" else 1
        raise JsonFault("unexpected EOF")

    def _literal(self, at: int, word: str) -> int:
        for offset, expected in enumerate(word):
            if at + offset >= len(self.text):
                raise JsonFault("unexpected EOF")
            if self.text[at + offset] != expected:
                found = go_rune(self.text[at + offset])
                raise JsonFault(f"invalid character {found} in literal {word} (expecting '{expected}')")
        return at + len(word)


def go_rune(character: str) -> str:
    escapes = {"'": "'\\''", "\n": "'\\n'", "\t": "'\\t'", "\r": "'\\r'", "\x00": "'\\x00'"}
    return escapes.get(character, f"'{character}'")


def answer_admin(request: HttpRequest, http_path: str, status: Callable[[], str]) -> tuple[HttpResponse, str]:
    """The response to an admin request and the raw ``id`` it echoes (``""`` when there is none to echo)."""
    if request.path != http_path:
        return NOT_FOUND, ""
    if request.method != "POST":
        return plain(405, f"rpc: POST method required, received {request.method}"), ""
    content_type = request.headers.get("content-type", "").partition(";")[0]
    if content_type.lower() != "application/json":
        return plain(415, f"rpc: unrecognized Content-Type: {content_type}"), ""
    try:
        method, params, raw_id = read_call(request.body.decode("utf-8", "replace"))
        result = call(method, params, status)
    except JsonFault as fault:
        return plain(400, str(fault)), ""
    if raw_id is None:
        return HttpResponse(200, b"", ("X-Content-Type-Options", "nosniff")), ""
    return json_answer(f'{result},"id":{raw_id}'), raw_id


def json_answer(inside: str) -> HttpResponse:
    body = ("{" + inside + "}\n").encode()
    return HttpResponse(
        200, body, ("Content-Type", "application/json; charset=utf-8"), ("X-Content-Type-Options", "nosniff")
    )


def read_call(body: str) -> tuple[str, str | None, str | None]:
    """Method, raw params and raw id of a call; ``None`` for what is missing or null."""
    pairs: list[tuple[str, str]] = []
    kind, _ = Scanner(body).value(0, pairs)
    if kind not in ("object", "null"):
        raise JsonFault(f"json: cannot unmarshal {kind} into Go value of type json.serverRequest")
    fields = {key: raw for key, raw in pairs if raw != "null"}
    method = fields.get("method", '""')
    if not method.startswith('"'):
        kind, _ = Scanner(method).value(0)
        raise JsonFault(
            f"json: cannot unmarshal {kind} into Go struct field serverRequest.method of type string"
        )
    return method[1:-1], fields.get("params"), fields.get("id")


def call(method: str, params: str | None, status: Callable[[], str]) -> str:
    service, dot, name = method.partition(".")
    if not dot or "." in name:
        raise JsonFault(f'rpc: service/method request ill-formed: "{method}"')
    methods = {"protocolupgrade": ("UpgradeStatus",), "NodeWallet": ("Reload", "Show")}.get(service)
    if methods is None:
        raise JsonFault(f'rpc: can\'t find service "{method}"')
    if name not in methods:
        raise JsonFault(f'rpc: can\'t find method "{method}"')
    if params is None:
        raise JsonFault("rpc: method request ill-formed: missing params field")
    kind, _ = Scanner(params).value(0)
    if kind != "array":
        raise JsonFault(f"json: cannot unmarshal {kind} into Go value of type [1]interface {{}}")
    if service == "NodeWallet":
        return '"result":null,"error":"the simulated node has no wallets"'
    return f'"result":{status()},"error":null'


def status_json(info: tuple[str, int] | None, ready: bool) -> str:
    key = f"{BRAND[:1].upper()}{BRAND[1:]}ReleaseTag"
    shown = "null" if info is None else f'{{"{key}":{quote(info[0])},"UpgradeBlockHeight":{info[1]}}}'
    return f'{{"AcceptedReleaseInfo":{shown},"ReadyToUpgrade":{"true" if ready else "false"}}}'


# -- the chain on disk ---------------------------------------------------------------------------------------


class Upgrade:
    """A release the network votes for: known from block ``accepted_at`` on, carried out at ``height``."""

    __slots__ = ("accepted_at", "height", "tag")

    def __init__(self, tag: str, height: int, accepted_at: int) -> None:
        self.tag, self.height, self.accepted_at = tag, height, accepted_at


class Network:
    """``config/node/network.toml``: the network's pace and upgrades; may change while running."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self.settings: dict[str, Scalar] = {}
        self.upgrades: list[Upgrade] = []
        self.refresh()

    def refresh(self) -> None:
        try:
            status = os.stat(self._path)
        except OSError:
            return
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        tables = parse_flat_toml(read_text(self._path))
        self.settings = tables[""]
        self.upgrades = sorted(
            (
                Upgrade(name[len("upgrade.") :], int(table["height"]), int(table["accepted_at"]))
                for name, table in tables.items()
                if name.startswith("upgrade.")
            ),
            key=lambda upgrade: upgrade.height,
        )

    def number(self, key: str, default: int) -> int:
        return int(self.settings.get(key, default))

    def seconds(self, key: str, default_ms: int) -> float:
        return float(self.settings.get(key, default_ms)) / 1000

    def accepted(self, height: int) -> tuple[str, int]:
        """What the status shows once block ``height`` was processed; the earliest height wins."""
        for upgrade in self.upgrades:
            if upgrade.accepted_at <= height <= upgrade.height:
                return upgrade.tag, upgrade.height
        return "", 0

    def expected_version(self, height: int) -> str | None:
        """The version that has to execute ``height``; ``None`` before the first upgrade."""
        tags = [upgrade.tag for upgrade in self.upgrades if upgrade.height < height]
        return tags[-1] if tags else None


class Snapshot:
    """One ``state/node/snapshots/HEIGHT``: the state after a block."""

    __slots__ = ("hash", "height", "info", "upgrade", "version")

    def __init__(self, height: int, version: str, upgrade: bool, hash_: str, info: tuple[str, int]) -> None:
        self.height, self.version, self.upgrade, self.hash, self.info = height, version, upgrade, hash_, info

    def write(self, folder: str) -> None:
        text = f"{self.height} {self.version} {int(self.upgrade)} {self.hash} {self.info[1]} {self.info[0]}"
        replace_file(f"{folder}/{self.height}", text)

    @staticmethod
    def read(folder: str, height: int) -> Snapshot:
        number, version, upgrade, hash_, at, tag = read_text(f"{folder}/{height}").split(" ")
        return Snapshot(int(number), version, upgrade == "1", hash_, (tag, int(at)))


class Chain:
    """A core's snapshots and executed blocks (``blocks.log``: every execution appended, replays too)."""

    TAIL = 2_000_000  # bytes of the log read at a start: twenty thousand blocks

    def __init__(self, folder: str) -> None:
        self.log, self.snapshots = f"{folder}/blocks.log", f"{folder}/snapshots"
        self.stored: dict[int, tuple[str, str]] = {}  # height -> (version, hash) as first executed
        self.height, self.hash = 0, ""
        self._fd = os.open(self.log, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._fd).st_size
        text = os.pread(self._fd, self.TAIL, max(0, size - self.TAIL)).decode()
        for line in text.split("\n")[:-1]:
            words = line.split(" ")
            if len(words) == 6 and words[3] == "new":
                self.stored[int(words[0])] = (words[1], words[4])
        self.stored_height = max(self.stored, default=0)

    def snapshot_heights(self) -> list[int]:
        return sorted(int(name) for name in os.listdir(self.snapshots) if name.isdigit())

    def close(self) -> None:
        os.close(self._fd)

    def write(self, height: int, kind: str, hash_: str) -> None:
        line = f"{height} {VERSION} {os.getpid()} {kind} {hash_} {time.monotonic_ns()}\n"
        os.write(self._fd, line.encode())


# -- what both programs have in common -----------------------------------------------------------------------


class Program:
    """A long-running role: its faults, its end, its start record."""

    def __init__(self, role: str, name: str, paths: Paths) -> None:
        paths.make()
        self.role, self.paths = role, paths
        self.journal, self.console = Journal(paths, role), Console(name)
        self.faults = Faults(role, paths.faults, paths.counts)
        self.loop = Loop()
        self.stopping = False
        self.height = 0
        self.flooded = 0

    def start(self) -> NoReturn:
        self.journal.write("start", argv=sys.argv, cwd=os.getcwd())
        self.loop.take_signals(self.terminated)
        first_starts = self.faults.number("fail_first_starts")
        if first_starts and self.faults.due("start", first_starts):
            self.end_on_purpose("start refused by a fault", self.faults.number("crash_exit_code", FATAL))
        self._leave_helper()
        if self.faults.given("crash_after_ms"):
            self.loop.after(self.faults.number("crash_after_ms") / 1000, self.crash_if_due)
        if self.faults.number("flood_lines"):
            self.loop.after(0, self._flood)
        delay = self.faults.number("startup_delay_ms") / 1000
        try:
            self.loop.after(delay, self.open) if delay else self.open()
            self.loop.run()
        except NodeFailure as failure:
            self.journal.write("failed", reason=str(failure), code=failure.code, height=self.height)
            raise

    def open(self) -> None:
        """Take the database and go to work."""
        raise NotImplementedError

    def terminated(self) -> None:
        """SIGTERM or SIGINT arrived."""
        raise NotImplementedError

    def unlink_sockets(self) -> None:
        """Remove what a graceful stop removes."""

    def lock(self, path: str, refusal: str) -> None:
        """Take the exclusive database lock, held until this process is gone, or end as the real one does."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 64, 0).decode() or "0"
            self.journal.write("refused", holder=int(holder))
            raise NodeFailure(refusal) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)

    def finish(self, code: int, reason: str) -> NoReturn:
        """A graceful end."""
        self.unlink_sockets()
        self.journal.write(
            "stop", reason=reason, code=code, sigterm_ns=self.loop.sigterm_ns, height=self.height
        )
        os._exit(code)

    def end_on_purpose(self, why: str, code: int, number: int = 0) -> None:
        """Die as a fault asks for; returns only after a signal that does not kill (SIGSTOP)."""
        self.journal.write("crash", reason=why, code=code, signal=number, height=self.height)
        if number:
            if number not in (signal.SIGKILL, signal.SIGSTOP):
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if code == 0:
            self.finish(0, why)
        write_all(2, f"simulated crash: {why}\n".encode())
        os._exit(code)

    def crash_if_due(self) -> None:
        if self.faults.due("crash", self.faults.number("crash_times", 1)):
            self.end_on_purpose(
                "crash", self.faults.number("crash_exit_code", FATAL), self.faults.number("crash_signal")
            )

    def crash_at_height_if_due(self) -> None:
        if self.faults.given("crash_at_height") and self.height >= self.faults.number("crash_at_height"):
            self.crash_if_due()

    def _leave_helper(self) -> None:
        seconds = self.faults.number("helper_seconds")
        if not seconds:
            return
        own = self.faults.text("helper_session", "same") == "own"
        # Inherits every descriptor that this process was given: stdout, and whatever its parent passed on.
        pid = os.posix_spawn("/bin/sleep", ["sleep", str(seconds)], dict(os.environ), setsid=own)
        self.journal.write("helper", helper=pid)

    def _flood(self) -> None:
        total, width = self.faults.number("flood_lines"), self.faults.number("flood_line_bytes", 100)
        batch = range(self.flooded + 1, min(total, self.flooded + 200) + 1)
        if batch:
            self.flooded = batch[-1]
            write_all(
                1, b"".join(f"flood {i} of {total} ".encode().ljust(width - 1, b"x") + b"\n" for i in batch)
            )
            self.loop.after(0, self._flood)


class Lines(Stream):
    """The broker connection: text lines in both directions."""

    def __init__(
        self, loop: Loop, sock: _socket.socket, on_line: Callable[[str], None], on_end: Callable[[], None]
    ) -> None:
        super().__init__(loop, sock)
        self._on_line, self._on_end, self._in = on_line, on_end, b""

    def received(self, data: bytes) -> None:
        if not data:
            self.close()
            self._on_end()
            return
        *lines, self._in = (self._in + data).split(b"\n")
        for line in lines:
            if not self.closed:
                self._on_line(line.decode())


def broker_address(config: dict[str, dict[str, Scalar]]) -> str | int | None:
    """Where the broker socket is: a path, a port of the loopback interface, or nowhere."""
    table = config.get("Broker.Socket", {})
    if not table.get("Enabled", False):
        return None
    return str(table["Path"]) if table.get("Transport") == "unix" else int(table["Port"])


# -- core node -----------------------------------------------------------------------------------------------


class CoreState:
    """What a core is at; the texts appear in the ``sigterm`` record."""

    DIALLING = "dialling"
    LOADING = "loading"
    RUNNING = "running"
    CORE_READY = "core-ready"
    WAITING = "waiting for the data node"
    READY = "ready"
    HUNG = "hung"


class CoreNode(Program):
    """``fury start``."""

    def __init__(self, flags: dict[str, str], paths: Paths) -> None:
        super().__init__("core", "core", paths)
        self.flags = flags
        self.network = Network(paths.network)
        self.state = CoreState.DIALLING
        self.info: tuple[str, int] | None = None
        self.broker: Lines | None = None
        self.admin_path = ""
        self.http_path = "/rpc"
        self.flaps = 0
        self.first_block_done = False
        self.block_due = 0.0
        self.block_timer: Timer | None = None

    # start

    def open(self) -> None:
        self.config = self._rewrite_config()
        self.lock(
            f"{self.paths.state}/db.lock",
            "could not initialise the node: resource temporarily unavailable: database is locked",
        )
        passphrase = self.flags.get("nodewallet-passphrase-file")
        if passphrase is not None and not os.path.isfile(passphrase):
            raise NodeFailure(f"could not read passphrase file: open {passphrase}: no such file or directory")
        self.chain = Chain(self.paths.state)
        self.console.info("Starting node", f'{{"version":"{VERSION}","version-hash":"{COMMIT}"}}')
        self.loop.after(self.network.seconds("startup_ms", 0), self._dial)

    def _rewrite_config(self) -> dict[str, dict[str, Scalar]]:
        # Every start empties the file and writes it again, and does so before it takes the lock: that is why
        # a second copy hurts a running node even though the lock refuses it.
        try:
            text = read_text(self.paths.config)
        except OSError as error:
            raise NodeFailure(
                f"failed to read config: open {self.paths.config}: {os.strerror(error.errno or 0)}"
            ) from None
        with open(self.paths.config, "w", encoding="utf-8") as file:
            file.flush()
            file.write(text)
        return parse_flat_toml(text)

    def _dial(self) -> None:
        if self.stopping:
            return
        address = broker_address(self.config)
        if address is None:
            self._serve()
            return
        try:
            if isinstance(address, str):
                sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
                sock.connect(short_address(address))
            else:
                sock = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
                sock.connect(("127.0.0.1", address))
        except OSError:
            sock.close()
            retry = seconds_of(str(self.config["Broker.Socket"].get("DialRetryInterval", "5s")))
            self.loop.after(retry, self._dial)
            return
        self.broker = Lines(self.loop, sock, self._data_node_said, self._data_node_gone)
        self.broker.send(f"V {VERSION}\n".encode())
        self.journal.write("connected")
        if self.state == CoreState.DIALLING:
            self._serve()

    def _serve(self) -> None:
        admin = self.config.get("Admin.Server", {})
        default = os.environ.get("TMPDIR", "/tmp").rstrip("/") + f"/{BRAND}.sock"
        self.admin_path = self.flags.get("admin.server.socket-path") or str(admin.get("SocketPath", default))
        self.http_path = self.flags.get("admin.server.http-path") or str(admin.get("HTTPPath", "/rpc"))
        try:
            listen_unix(self.loop, self.admin_path, self.admin_path, self._accept_admin)
            port = int(self.config.get("API.REST", {}).get("Port", 0))
            if port:
                listen_tcp(self.loop, port, self._accept_rest)
        except OSError as error:
            self.console.write("FATAL", f"Failed to listen: {error.strerror or error}")
            self.journal.write("crash", reason=f"cannot listen: {error}", code=FATAL, signal=0, height=0)
            os._exit(FATAL)
        self.state = CoreState.LOADING
        self.journal.write("serving")
        self.console.info("Starting admin server", f'{{"socket-path":{quote(self.admin_path)}}}')
        delay = self.network.seconds("load_ms", 0)
        self.loop.after(delay, self._load) if delay else self._load()

    def _load(self) -> None:
        if self.stopping:
            return
        wanted = self._snapshot_flag()
        heights = self.chain.snapshot_heights()
        if wanted and wanted not in heights:
            self.unlink_sockets()
            raise NodeFailure(
                "could not initialize the snapshot engine: could not initialize the snapshot tree: "
                "could not load local snapshots into the tree: "
                f"no snapshot found for block height {wanted}"
            )
        height = wanted or (heights[-1] if heights else 0)
        deleted = [later for later in heights if later > height]
        for later in deleted:
            os.unlink(f"{self.chain.snapshots}/{later}")
        if height:
            snapshot = Snapshot.read(self.chain.snapshots, height)
            self.height, self.chain.height, self.chain.hash = height, height, snapshot.hash
            self.info = snapshot.info
            self.console.info(
                "loading state from snapshot",
                f'{{"block-height":{height},"version-taken":{quote(snapshot.version)},'
                f'"protocol-upgrade":{"true" if snapshot.upgrade else "false"}}}',
            )
        segment = self._latest_segment()
        self.journal.write(
            "loaded",
            height=height,
            flag=wanted,
            deleted=deleted,
            stored=self.chain.stored_height,
            segment=segment,
        )
        self._refuse_forked_chain(height)
        self.state = CoreState.RUNNING
        self._replay()

    def _snapshot_flag(self) -> int:
        text = self.flags.get("snapshot.load-from-block-height")
        if text is None:
            return int(self.config.get("Snapshot", {}).get("StartHeight", 0))
        return int(text)

    def _latest_segment(self) -> int:
        """Where the data node's history ends, for the checker to judge a load by; -1 without data node."""
        home = str(self.network.settings.get("data_node_home", ""))
        if not home:
            return -1
        return (read_segments(f"{home}/state/data-node") or [(0, 0, "", "")])[-1][1]

    def _refuse_forked_chain(self, height: int) -> None:
        # Blocks below the snapshot are not replayed, but the other nodes of a network would refuse them too.
        for stored in range(height, 0, -1):
            if self.network.expected_version(stored) != VERSION or stored not in self.chain.stored:
                return
            version, hash_ = self.chain.stored[stored]
            if version != VERSION:
                self._panic(
                    stored, app_hash(self.chain.stored.get(stored - 1, ("", ""))[1], stored, VERSION), hash_
                )

    def _panic(self, height: int, got: str, expected: str) -> NoReturn:
        text = f"block.AppHash does not match AppHash after replay. Got {got}, expected {expected}."
        self.journal.write("panic", height=height, reason=text)
        write_all(
            2,
            f"panic: {text}\n\ngoroutine 1 [running]:\nmain.main()\n\tcmd/{BRAND}/main.go:1 +0x1\n".encode(),
        )
        os._exit(PANIC)

    # blocks

    def _replay(self) -> None:
        for _ in range(50):
            if self.stopping or self.state != CoreState.RUNNING:
                return
            if self.height >= self.chain.stored_height:
                self._schedule_block()
                return
            self._execute(self.height + 1, "replay")
        self.loop.after(0, self._replay)

    def _schedule_block(self) -> None:
        period = self.network.seconds("block_ms", 50)
        self.block_due = max(self.block_due + period, time.monotonic())
        if not self.first_block_done:
            self.block_due = time.monotonic() + period
        self.block_timer = self.loop.at(self.block_due, self._next_block)

    def _next_block(self) -> None:
        self.faults.refresh()
        self.network.refresh()
        if self.faults.given("stall_at_height") and self.height >= self.faults.number("stall_at_height"):
            self._schedule_block()
            return
        self._sign(self.height + 1)
        self._execute(self.height + 1, "new")
        if self.state == CoreState.RUNNING:
            self._schedule_block()

    def _sign(self, height: int) -> None:
        home = self.flags.get("tendermint-home") or os.path.expandvars("$HOME/.cometbft")
        path = f"{os.path.expandvars(home)}/data/priv_validator_state.json"
        if self.network.settings.get("validator", True) and os.path.isdir(os.path.dirname(path)):
            body = f'"round": 0,\n  "step": 3,\n  "signature": "{os.getpid():08X}",\n  "signbytes": "00"'
            replace_file(path, f'{{\n  "height": "{height}",\n  {body}\n}}')

    def _execute(self, height: int, kind: str) -> None:
        hash_ = app_hash(self.chain.hash, height, VERSION)
        if kind == "replay" and hash_ != self.chain.stored[height][1]:
            self.chain.write(height, "mismatch", hash_)
            self._panic(height, hash_, self.chain.stored[height][1])
        self.chain.write(height, kind, hash_)
        self.height, self.chain.height, self.chain.hash = height, height, hash_
        self.info = self.network.accepted(height)
        if not self.first_block_done:
            self.first_block_done = True
            self.journal.write("first_block", height=height, kind=kind)
        if self.broker is not None:
            self.broker.send(f"B {height} {hash_}\n".encode())
        every = self.network.number("log_every", 10)
        if every and height % every == 0:
            self.console.info("Processed block", f'{{"height":{height}}}')
        if self.info[1] == height:
            self._reach_upgrade(height)
        elif height % self.network.number("snapshot_interval", 10) == 0:
            self._take_snapshot(height, upgrade=False)
        self.crash_at_height_if_due()

    def _take_snapshot(self, height: int, *, upgrade: bool) -> None:
        assert self.info is not None
        Snapshot(height, VERSION, upgrade, self.chain.hash, self.info).write(self.chain.snapshots)
        for old in self.chain.snapshot_heights()[: -self.network.number("keep_recent", 10)]:
            os.unlink(f"{self.chain.snapshots}/{old}")
        self.console.info("Snapshot taken", f'{{"height":{height}}}')

    # upgrade

    def _die_at_upgrade(self, moment: str) -> None:
        if self.faults.text("die_at_upgrade") == moment and self.faults.due("die_at_upgrade", 1):
            self.end_on_purpose(f"killed at the upgrade height {moment.replace('_', ' ')}", 0, signal.SIGKILL)

    def _reach_upgrade(self, height: int) -> None:
        self._die_at_upgrade("before_snapshot")
        self._take_snapshot(height, upgrade=True)
        self.state = CoreState.CORE_READY
        self.journal.write("core_ready", height=height)
        self.console.info(f"marking {BRAND} core as ready to shut down")
        self._die_at_upgrade("after_snapshot")
        self.loop.after(self.network.seconds("finalize_ms", 6), self._begin_block_after_upgrade)

    def _begin_block_after_upgrade(self) -> None:
        if self.state != CoreState.CORE_READY:
            return
        self._sign(self.height + 1)
        self._die_at_upgrade("before_ready")
        if broker_address(self.config) is None:
            self._become_ready()
            return
        self.state = CoreState.WAITING
        self.journal.write("waiting", height=self.height)
        self.console.info("waiting for data node to get ready for upgrade")
        if self.broker is not None:
            self.broker.send(f"U {self.height}\n".encode())

    def _data_node_said(self, line: str) -> None:
        if line == f"R {self.height}" and self.state == CoreState.WAITING:
            self._become_ready()

    def _data_node_gone(self) -> None:
        self.broker = None
        self.console.error("lost the connection to the data node")
        if self.state in (CoreState.LOADING, CoreState.RUNNING):
            self._dial()

    def _become_ready(self) -> None:
        self.state = CoreState.READY
        self.journal.write("ready", height=self.height)
        self.console.info(f"marking {BRAND} core and data node as ready to shut down")
        if self.faults.given("die_when_ready_ms"):
            delay = self.faults.number("die_when_ready_ms") / 1000
            self.loop.after(delay, lambda: self.end_on_purpose("killed while ready", 0, signal.SIGKILL))
        self._say_ready()

    def _say_ready(self) -> None:
        self.console.info("application is ready for shutdown")
        self.loop.after(1.0, self._say_ready)

    # end

    def terminated(self) -> None:
        self.faults.refresh()
        if self.stopping:
            return
        self.journal.write("sigterm", state=self.state, sigterm_ns=self.loop.sigterm_ns, height=self.height)
        if self.faults.flag("ignore_sigterm"):
            return
        self.stopping = True
        if self.block_timer is not None:
            self.block_timer.cancelled = True
        self.console.info("Caught signal", '{"name":"terminated"}')
        match self.state:
            case CoreState.CORE_READY | CoreState.WAITING:
                self.state = CoreState.HUNG
                self.console.info("Stopping blockchain server")
            case CoreState.READY:
                self._stop_after("ready_stop_ms", 10, self._end_ready)
            case _:
                self._stop_after("core_stop_ms", 0, lambda: self.finish(0, "SIGTERM"))

    def _stop_after(self, key: str, default: int, end: Callable[[], None]) -> None:
        slow = self.faults.number("stop_ms") / 1000 if self.faults.given("stop_ms") else None
        delay = self.network.seconds(key, default) if slow is None else slow
        self.loop.after(delay, end) if delay else end()

    def _end_ready(self) -> None:
        self.console.info(f"{BRAND.capitalize()} shutdown complete")
        self.unlink_sockets()
        self.journal.write(
            "stop", reason="SIGTERM when ready", code=-9, sigterm_ns=self.loop.sigterm_ns, height=self.height
        )
        os.kill(os.getpid(), signal.SIGKILL)

    def unlink_sockets(self) -> None:
        if self.admin_path:
            remove_file(self.admin_path)

    # servers

    def _accept_admin(self, sock: _socket.socket) -> None:
        HttpConnection(self.loop, sock, self._answer_admin)

    def _accept_rest(self, sock: _socket.socket) -> None:
        HttpConnection(self.loop, sock, self._answer_rest)

    def _answer_rest(self, connection: HttpConnection, request: HttpRequest) -> None:
        bodies = {
            "/statistics": f'{{"statistics":{{"blockHeight":"{self.height}","appVersion":"{VERSION}",'
            f'"appVersionHash":"{COMMIT}","chainId":"simulated","status":"CHAIN_STATUS_CONNECTED"}}}}',
            "/blockchain/height": f'{{"height":"{self.height}","chainId":"simulated"}}',
        }
        body = bodies.get(request.path)
        if request.method != "GET" or body is None:
            connection.respond(request, NOT_FOUND)
        else:
            connection.respond(
                request, HttpResponse(200, body.encode(), ("Content-Type", "application/json"))
            )

    def _status(self) -> str:
        info, ready = self.info, self.state == CoreState.READY
        tag, height = (info or ("", 0))[0], (info or ("", 0))[1]
        tag = self.faults.text("status_tag", tag)
        height = self.faults.number("status_height", height)
        match self.faults.text("status"):
            case "ready_without_info":
                return status_json(None, True)
            case "ready_empty_tag":
                return status_json(("", height), True)
            case "ready":
                return status_json((tag, height), True)
            case "not_ready":
                return status_json((tag, height), False)
            case "flapping":
                self.flaps += 1
                return status_json((tag, height), self.flaps % 2 == 1)
            case "withdrawn":
                return status_json(("", 0), False)
            case "null":
                return status_json(None, False)
            case _ if self.faults.given("status_tag") or self.faults.given("status_height"):
                return status_json((tag, height), ready)
            case _:
                return status_json(info, ready)

    def _answer_admin(self, connection: HttpConnection, request: HttpRequest) -> None:
        self.faults.refresh()
        response, raw_id = answer_admin(request, self.http_path, self._status)
        fault = self.faults.text("rpc")
        if not fault or self.height < self.faults.number("rpc_from_height"):
            connection.respond(request, response)
            return
        match fault:
            case "hang":
                pass
            case "slow":
                self._drip(connection, response.encode(request))
            case "close":
                whole = response.encode(request)
                connection.send(whole[: len(whole) - len(response.body) // 2 - 1], then_close=True)
            case "close_at_once":
                connection.close()
            case "stall":
                whole = response.encode(request)
                connection.send(whole[: len(whole) - len(response.body) // 2 - 1])
            case "http_500":
                connection.respond(request, plain(500, "internal error"))
            case "content_type":
                connection.respond(request, HttpResponse(200, response.body, ("Content-Type", "text/html")))
            case "wrong_id":
                body = response.body.replace(f'"id":{raw_id}'.encode(), b'"id":"somebody else"')
                connection.respond(request, HttpResponse(200, body, *response.headers))
            case "rpc_error":
                connection.respond(request, json_answer(f'"result":null,"error":"boom","id":{raw_id}'))
            case "null_result":
                connection.respond(request, json_answer(f'"result":null,"error":null,"id":{raw_id}'))
            case "garbage":
                connection.respond(request, HttpResponse(200, b"\x00\xff}{ not json", *response.headers))
            case "not_http":
                connection.send(b"\x00\x01\x02 SSH-2.0 who is there?\r\n\r\n", then_close=True)
            case "huge":
                self._send_huge(connection)
            case "deep":
                body = b"[" * 200_000 + b"]" * 200_000
                connection.respond(request, HttpResponse(200, body, *response.headers))
            case unknown:
                raise NodeFailure(f"simulated node: unknown value {unknown} of core.rpc", MISUSED)

    def _send_huge(self, connection: HttpConnection) -> None:
        size = self.faults.number("rpc_huge_bytes", 100_000_000)
        chunk = b"a" * 65536
        kind = "Content-Type: application/json; charset=utf-8"
        head = f"HTTP/1.1 200 OK\r\n{kind}\r\nContent-Length: {size + 2}\r\n\r\n"
        body = (chunk[: min(65536, size - start)] for start in range(0, size, 65536))
        connection.send(head.encode() + b'"', more=(part for parts in (body, iter([b'"'])) for part in parts))

    def _drip(self, connection: HttpConnection, data: bytes) -> None:
        if data and not connection.closed:
            connection.send(data[:1])
            delay = self.faults.number("rpc_slow_ms", 100) / 1000
            self.loop.after(delay, lambda: self._drip(connection, data[1:]))


# -- data node -----------------------------------------------------------------------------------------------


def read_segments(folder: str) -> list[tuple[int, int, str, str]]:
    """The history segments (from, to, id, previous id) of a data node, oldest first."""
    try:
        text = read_text(f"{index_folder(folder)}/segments.log")
    except OSError:
        return []
    rows = (line.split(" ") for line in text.split("\n")[:-1])
    return [(int(row[0]), int(row[1]), row[2], row[3]) for row in rows]


def index_folder(folder: str) -> str:
    return f"{folder}/networkhistory/store/index/index.db"


def append_segment(folder: str, to_height: int) -> int:
    """Add the segment that ends at ``to_height``; returns where it begins, 0 if it was there already."""
    segments = read_segments(folder)
    last_to, last_id = (segments[-1][1], segments[-1][2]) if segments else (0, "-")
    if to_height <= last_to:
        return 0
    os.makedirs(index_folder(folder), exist_ok=True)
    identity = "Qm" + app_hash("segment", to_height, last_id).lower()
    append_line(f"{index_folder(folder)}/segments.log", f"{last_to + 1} {to_height} {identity} {last_id}")
    return last_to + 1


class DataNode(Program):
    """``fury datanode start`` or ``data-node start``."""

    def __init__(self, paths: Paths) -> None:
        super().__init__("data_node", "datanode", paths)
        self.network = Network(paths.network)
        self.core: Lines | None = None
        self.at_upgrade = False
        self.unix_paths: list[str] = []
        os.makedirs(index_folder(paths.state), exist_ok=True)
        self.committed = f"{paths.state}/committed"

    def open(self) -> None:
        try:
            config = parse_flat_toml(read_text(self.paths.config))
        except OSError as error:
            raise NodeFailure(
                f"failed to read config: open {self.paths.config}: {os.strerror(error.errno or 0)}"
            ) from None
        self.lock(
            f"{index_folder(self.paths.state)}/LOCK",
            "failed to create network history service: resource temporarily unavailable",
        )
        try:
            self.height = int(read_text(self.committed))
        except (OSError, ValueError):
            self.height = 0
        self.console.info("Starting data node", f'{{"version":"{VERSION}","last-block":{self.height}}}')
        address = broker_address(config)
        self.loop.after(self.network.seconds("startup_ms", 0), lambda: self._listen(address))
        self.loop.after(self.network.seconds("api_ms", 0), self._serve_api)

    def _listen(self, address: str | int | None) -> None:
        if self.stopping or address is None:
            return
        try:
            if isinstance(address, str):
                listen_unix(self.loop, address, short_address(address), self._core_connected)
                self.unix_paths.append(address)
            else:
                listen_tcp(self.loop, address, self._core_connected)
        except OSError as error:
            raise NodeFailure(f"failed to listen on the broker socket: {error.strerror}") from None
        self.journal.write("serving")

    def _serve_api(self) -> None:
        if not self.stopping:
            path = f"{self.paths.state}/api.sock"
            listen_unix(self.loop, path, short_address(path), self._answer_api)
            self.unix_paths.append(path)

    def _answer_api(self, sock: _socket.socket) -> None:
        Stream(self.loop, sock).send(segment_answer(self.paths.state, live=True).encode(), then_close=True)

    def _core_connected(self, sock: _socket.socket) -> None:
        if self.core is not None:
            self.core.close()
        self.core = Lines(self.loop, sock, self._core_said, self._core_gone)
        self.journal.write("connected")

    def _core_gone(self) -> None:
        self.core = None
        self.console.info("the core node closed the event stream")

    def _core_said(self, line: str) -> None:
        self.faults.refresh()
        if self.stopping:
            return
        kind, _, rest = line.partition(" ")
        if kind == "V":
            if rest != VERSION:
                self.journal.write("mixed", core=rest)  # the real ones do not notice; the checker does
            return
        if self.at_upgrade:
            self._fail("received an event after the protocol upgrade was started")
        if kind == "B":
            height, _, hash_ = rest.partition(" ")
            self._process(int(height), hash_)
        else:
            self._prepare_upgrade(int(rest))

    def _fail(self, text: str) -> NoReturn:
        self.console.error(text)
        self.journal.write("error", reason=text, height=self.height)
        write_all(2, f"{text}\n".encode())
        self.unlink_sockets()
        os._exit(RETURNED_ERROR)

    def _process(self, height: int, hash_: str) -> None:
        if height <= self.height:
            return  # the core node replays what was processed before
        if height > self.height + 1:
            self._fail(
                f"block height on begin block, {height}, is too high, "
                f"the height of the last processed block is {self.height}"
            )
        self.height = height
        append_line(f"{self.paths.state}/processed.log", f"{height} {hash_} {os.getpid()}")
        if height % self.network.number("commit_every", 1) == 0:
            self._commit()
        if height % self.network.number("history_interval", 10) == 0:
            self._commit()
            self._create_segment(height)
        self.crash_at_height_if_due()

    def _commit(self) -> None:
        replace_file(self.committed, f"{self.height}\n")

    def _create_segment(self, to_height: int) -> None:
        from_height = append_segment(self.paths.state, to_height)
        if from_height:
            self.console.info(
                "created history segment", f'{{"from-height":{from_height},"to-height":{to_height}}}'
            )

    def _prepare_upgrade(self, height: int) -> None:
        self.at_upgrade = True
        self.journal.write("upgrade_started", height=height)
        self.console.info("protocol upgrade started", f'{{"last-block-height":{height}}}')
        if self.faults.text("at_upgrade") == "die":
            self.end_on_purpose("killed at the upgrade height", 0, signal.SIGKILL)
        self.loop.after(self.network.seconds("ready_ms", 0), lambda: self._say_ready(height))

    def _say_ready(self, height: int) -> None:
        if self.stopping:
            return
        self.faults.refresh()
        if self.faults.text("at_upgrade") == "never_ready":
            self.loop.after(0.02, lambda: self._say_ready(height))
            return
        self._commit()
        self._create_segment(height)
        self.console.info("datanode is ready for protocol upgrade")
        self.journal.write("ready", height=height)
        if self.core is not None:
            self.core.send(f"R {height}\n".encode())

    def terminated(self) -> None:
        self.faults.refresh()
        if self.stopping:
            return
        self.journal.write("sigterm", state="running", sigterm_ns=self.loop.sigterm_ns, height=self.height)
        if self.faults.flag("ignore_sigterm"):
            return
        self.stopping = True
        self.console.info("Caught signal", '{"name":"terminated"}')
        slow = self.faults.number("stop_ms", self.network.number("stop_ms", 0)) / 1000
        self.loop.after(slow, self._end) if slow else self._end()

    def _end(self) -> None:
        self._commit()
        self.finish(0, "SIGTERM")

    def unlink_sockets(self) -> None:
        for path in self.unix_paths:
            remove_file(path)


# -- one-shot commands ---------------------------------------------------------------------------------------


def segment_answer(folder: str, *, live: bool) -> str:
    segments = read_segments(folder)
    if not segments:
        return '{"error":"no history segments found"}\n'
    start, end, identity, previous = segments[-1]
    fields = f'"from_height":{start},"to_height":{end},"history_segment_id":"{identity}"'
    if previous != "-":
        fields += f',"previous_history_segment_id":"{previous}"'
    if live:
        fields += ',"database_version":1,"chain_id":"simulated"'
    return f'{{"LatestSegment":{{{fields}}}}}\n'


def ask_live_data_node(folder: str) -> str | None:
    try:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        sock.settimeout(5)
        sock.connect(short_address(f"{folder}/api.sock"))
        return sock.recv(65536).decode()
    except OSError:
        return None
    finally:
        sock.close()


def read_history(paths: Paths) -> str:
    if not os.path.isfile(paths.config):
        return f'{{"error":"failed to read config:open {paths.config}: no such file or directory"}}\n'
    answer = ask_live_data_node(paths.state)
    if answer is not None:
        return answer
    os.makedirs(index_folder(paths.state), exist_ok=True)
    fd = os.open(f"{index_folder(paths.state)}/LOCK", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return '{"error":"failed to open index: resource temporarily unavailable"}\n'
    return segment_answer(paths.state, live=False)


def history_command(flags: dict[str, str]) -> int:
    paths = Paths(flags.get("home"), "data-node")
    paths.make()
    faults = Faults("history", paths.faults, paths.counts)
    Journal(paths, "history").write("history", argv=sys.argv)
    if flags.get("output", "human") != "json":
        raise NodeFailure('output "human" is not script-friendly, use "json" instead')
    match faults.text("mode"):
        case "hang":
            time.sleep(3600)
        case "fail":
            write_all(1, b'{"error":"rpc error: code = Unavailable"}\n')
            return faults.number("exit_code", 1)
        case "garbage":
            write_all(1, b"\x00\xff no json at all {\n")
            return faults.number("exit_code", 0)
        case "silent":
            return faults.number("exit_code", 1)
        case "noisy":
            Console("datanode.history").info("opening the index")
            write_all(2, b"warning: something harmless\n")
    answer = read_history(paths)
    write_all(1, answer.encode())
    return 1 if answer.startswith('{"error"') else faults.number("exit_code", 0)


def version_command(flags: dict[str, str], title: str) -> int:
    faults = Faults("version")
    version = faults.text("value", VERSION)
    match faults.text("mode"):
        case "hang":
            time.sleep(3600)
        case "garbage":
            write_all(1, b"\x00\xff no json at all {\n")
            return faults.number("exit_code", 0)
        case "fail":
            write_all(2, b"version: something is wrong\n")
            return faults.number("exit_code", FATAL)
        case "noisy":
            Console("cli").info("reading the version")
            write_all(2, b"warning: something harmless\n")
    if flags.get("output", "human") == "json":
        write_all(1, f'{{"version":{quote(version)},"hash":"{COMMIT}"}}\n'.encode())
    else:
        write_all(1, f"{BRAND[:1].upper()}{BRAND[1:]} {title} {version} ({COMMIT})\n".encode())
    return faults.number("exit_code", 0)


# -- command line --------------------------------------------------------------------------------------------

START_FLAGS = frozenset(
    {"home", "tendermint-home", "network-url", "network", "nodewallet-passphrase-file", "output"}
)
VERSION_FLAGS = frozenset({"output"})
HISTORY_FLAGS = frozenset({"output", "home"})


def parse_flags(words: list[str], known: frozenset[str], *, dotted: bool = False) -> dict[str, str]:
    """``--flag value`` and ``--flag=value``, the last one wins; ``dotted`` flags set configuration keys."""
    flags: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise NodeFailure(f"unexpected argument {quote(word)}")
        name, equals, value = word[2:].partition("=")
        if name not in known and not (dotted and "." in name):
            raise NodeFailure(f"unknown flag `{name}'")
        if not equals:
            missing = not rest or rest[0].startswith("--")
            if missing and name in known:
                raise NodeFailure(f"expected argument for flag `--{name}'")
            value = "" if missing else rest.pop(0)
        flags[name] = value
    _check_height(flags.get("snapshot.load-from-block-height"))
    return flags


def _check_height(text: str | None) -> None:
    if text is not None and not text.removeprefix("-").isdigit():
        name = "--snapshot.load-from-block-height"
        raise NodeFailure(
            f"invalid argument for flag `{name}' (expected int64): "
            f"strconv.ParseInt: parsing {quote(text)}: invalid syntax"
        )


def main(arguments: list[str]) -> int:
    standalone = os.path.basename(sys.argv[0]).startswith("data-node")
    words = arguments[1:] if not standalone and arguments[:1] == ["datanode"] else arguments
    data_node = standalone or words is not arguments
    match words:
        case ["version", *rest]:
            return version_command(parse_flags(rest, VERSION_FLAGS), "Datanode CLI" if data_node else "CLI")
        case [("start" | "node"), *rest] if data_node:
            flags = parse_flags(rest, START_FLAGS, dotted=True)
            DataNode(Paths(flags.get("home"), "data-node")).start()
        case [("start" | "node"), *rest]:
            flags = parse_flags(rest, START_FLAGS, dotted=True)
            CoreNode(flags, Paths(flags.get("home"), "node")).start()
        case ["network-history", "latest-history-segment", *rest] if data_node:
            return history_command(parse_flags(rest, HISTORY_FLAGS))
        case [command, *_]:
            raise NodeFailure(f"Unknown command `{command}'")
    raise NodeFailure("Please specify one command")


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except NodeFailure as failure:
        write_all(2, f"{failure}\n".encode())
        code = failure.code
    except OSError as failure:
        if failure.errno != errno.ENOENT:
            raise
        write_all(2, f"{failure.strerror}: {failure.filename}\n".encode())
        code = RETURNED_ERROR
    os._exit(code)
