"""One HTTP/1.1 reply, parsed from bytes as they come. No I/O, no clock: the callers own the socket and the
deadline.

A node's servers are ordinary ones, but a socket path can lead anywhere and a node can be ill, so everything
is bounded (head, body, number of header lines) and whatever is not plainly a reply is refused with words.
Known framings: ``Content-Length``, ``chunked``, and a body that ends with the connection. Compressed bodies
are never asked for.
"""

from __future__ import annotations

import enum

from msgspec import Struct

MAX_HEAD = 16 * 1024
MAX_HEADER_LINES = 100
MAX_INTERIM_REPLIES = 4
_MAX_CHUNK_LINE = 256


class ReplyMalformed(Exception):
    """The bytes are no HTTP/1.1 reply; the message says in which way."""


class ReplyTooLarge(Exception):
    """Head or body are beyond their limit (in bytes)."""

    def __init__(self, part: str, limit: int) -> None:
        super().__init__(f"the {part} is larger than {limit} bytes")
        self.limit = limit


class ReplyCutShort(Exception):
    """The connection ended inside the reply; ``received`` bytes of it had come."""

    def __init__(self, received: int) -> None:
        super().__init__(f"the connection ended after {received} bytes of a reply")
        self.received = received


class Reply(Struct, frozen=True, kw_only=True):
    """A whole reply. ``headers`` have lower-case names. ``reusable``: the connection may carry another
    request."""

    status: int
    headers: dict[str, str]
    body: bytes
    reusable: bool

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case; empty when there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class _Framing(enum.Enum):
    LENGTH = "length"
    CHUNKED = "chunked"
    TO_THE_END = "to the end"


class ReplyReader:
    """Collects one reply: :meth:`feed` what was received until it returns the reply, :meth:`end` when the
    peer closed."""

    def __init__(self, *, max_body: int, max_head: int = MAX_HEAD) -> None:
        self._max_body = max_body
        self._max_head = max_head
        self._received = 0
        self._buffer = bytearray()
        self._body = bytearray()
        self._status: int | None = None
        self._headers: dict[str, str] = {}
        self._persistent = False
        self._framing = _Framing.TO_THE_END
        self._left = 0  # bytes left of the body, or of the current chunk
        self._interim = 0
        self._in_chunk = False
        self._in_trailer = False
        self._trailer = 0

    @property
    def received(self) -> int:
        """Bytes of the reply so far."""
        return self._received

    def feed(self, data: bytes) -> Reply | None:
        """Take received bytes; return the reply once it is whole.

        Raises :class:`ReplyMalformed` or :class:`ReplyTooLarge`; after either, and after a reply, the reader
        is spent.
        """
        self._received += len(data)
        self._buffer += data
        while self._status is None:
            if not self._take_head():
                return None
        match self._framing:
            case _Framing.LENGTH:
                return self._take_length()
            case _Framing.CHUNKED:
                return self._take_chunks()
            case _Framing.TO_THE_END:
                if len(self._buffer) > self._max_body:
                    raise ReplyTooLarge("body", self._max_body)
                return None

    def end(self) -> Reply:
        """The peer closed the connection: return the reply if that is how it ends, else raise
        :class:`ReplyCutShort`."""
        if self._status is None or self._framing is not _Framing.TO_THE_END:
            raise ReplyCutShort(self._received)
        return Reply(status=self._status, headers=self._headers, body=bytes(self._buffer), reusable=False)

    def _take_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if not b"HTTP/1.".startswith(self._buffer[:7]):
                raise ReplyMalformed(f"not HTTP: it starts with {bytes(self._buffer[:20])!r}")
            if len(self._buffer) > self._max_head:
                raise ReplyTooLarge("head", self._max_head)
            return False
        if end > self._max_head:
            raise ReplyTooLarge("head", self._max_head)
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        version, status = _status_line(lines[0])
        if 100 <= status < 200:
            self._interim += 1
            if status == 101 or self._interim > MAX_INTERIM_REPLIES:
                raise ReplyMalformed(f"an unexpected interim reply {status}")
            return True
        self._headers = _header_lines(lines[1:])
        connection = self._headers.get("connection", "").lower()
        self._persistent = version == 1 and "close" not in connection
        self._frame(status)
        self._status = status
        return True

    def _frame(self, status: int) -> None:
        if self._headers.get("content-encoding", "identity").lower() != "identity":
            raise ReplyMalformed(
                f"a content encoding nobody asked for: {self._headers['content-encoding'][:40]!r}"
            )
        coding = self._headers.get("transfer-encoding")
        length = self._headers.get("content-length")
        if status in (204, 304):
            self._framing = _Framing.LENGTH
        elif coding is not None:
            if coding.strip().lower() != "chunked" or length is not None:
                raise ReplyMalformed(f"a framing that cannot be trusted: transfer encoding {coding[:40]!r}")
            self._framing = _Framing.CHUNKED
        elif length is not None:
            if not (length.isascii() and length.isdigit()) or len(length) > 18:
                raise ReplyMalformed(f"a content length that is no number: {length[:40]!r}")
            self._framing = _Framing.LENGTH
            self._left = int(length)
            if self._left > self._max_body:
                raise ReplyTooLarge("body", self._max_body)

    def _take_length(self) -> Reply | None:
        if len(self._buffer) < self._left:
            return None
        self._body += self._buffer[: self._left]
        del self._buffer[: self._left]
        return self._whole()

    def _take_chunks(self) -> Reply | None:
        while True:
            if self._in_chunk:
                if len(self._buffer) < self._left + 2:
                    return None
                if self._buffer[self._left : self._left + 2] != b"\r\n":
                    raise ReplyMalformed("a chunk longer than it says")
                self._body += self._buffer[: self._left]
                del self._buffer[: self._left + 2]
                self._in_chunk = False
            line = self._take_line()
            if line is None:
                return None
            if self._in_trailer:
                self._trailer += len(line) + 2
                if self._trailer > self._max_head:
                    raise ReplyTooLarge("trailer", self._max_head)
                if not line:
                    return self._whole()
                continue
            self._left = _chunk_size(line)
            if len(self._body) + self._left > self._max_body:
                raise ReplyTooLarge("body", self._max_body)
            if self._left:
                self._in_chunk = True
            else:
                self._in_trailer = True

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > (self._max_head if self._in_trailer else _MAX_CHUNK_LINE):
                raise ReplyMalformed("a chunk line without an end")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _whole(self) -> Reply:
        assert self._status is not None
        return Reply(
            status=self._status,
            headers=self._headers,
            body=bytes(self._body),
            # Bytes beyond the reply answer nothing we asked: such a connection is not used again.
            reusable=self._persistent and not self._buffer,
        )


def _status_line(line: bytes) -> tuple[int, int]:
    """Return the minor HTTP version and the status code."""
    version, _, rest = line.partition(b" ")
    code = rest[:3]
    if (
        version not in (b"HTTP/1.1", b"HTTP/1.0")
        or not code.isdigit()
        or len(code) != 3
        or rest[3:4] not in (b"", b" ")
    ):
        raise ReplyMalformed(f"not HTTP: it starts with {line[:20]!r}")
    return (1 if version == b"HTTP/1.1" else 0), int(code)


def _header_lines(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_HEADER_LINES:
        raise ReplyTooLarge("head", MAX_HEAD)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip() or b"\n" in line:
            raise ReplyMalformed(f"a header line that is none: {line[:40]!r}")
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        if key in headers:
            if key in ("content-length", "transfer-encoding") and headers[key] != text:
                raise ReplyMalformed(f"two different {key} headers")
            if key not in ("content-length", "transfer-encoding"):
                text = f"{headers[key]}, {text}"
        headers[key] = text
    return headers


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or len(digits) > 15 or any(byte not in b"0123456789abcdefABCDEF" for byte in digits):
        raise ReplyMalformed(f"a chunk size that is none: {line[:20]!r}")
    return int(digits, 16)
