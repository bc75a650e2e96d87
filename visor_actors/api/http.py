"""The little HTTP/1.1 that the control API speaks: requests in, responses out. No sockets, no clock.

One request a connection, closed after the response: every HTTP client understands that, and it leaves no idle
connections to keep books on. The stdlib's http.server would cost main 8 MiB, a quarter of its budget.

    HttpProblem    a request that cannot be served; ``status`` and ``problem`` make the response
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 64 * 1024

_REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"})


class HttpProblem(Exception):
    """The request is refused with ``status``; ``problem`` is one sentence for its sender."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status
        self.problem = problem


class Request(Struct, frozen=True, kw_only=True):
    """One complete request. Header names are in lower case; ``path`` has no query."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Response(Struct, frozen=True, kw_only=True):
    """One complete response."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class RequestReader:
    """Puts one request together from the bytes as they arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Request | None = None
        self._body_length = 0

    def feed(self, data: bytes) -> Request | None:
        """Take in ``data``; return the request once it is complete, until then None.

        Bytes after the end of the request are ignored. Raises HttpProblem as soon as it is clear that the
        request will not be served; the reader is of no use after that."""
        self._buffer += data
        if self._head is None:
            end, gap = _end_of_head(self._buffer)
            if end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise HttpProblem(431, f"the request's head is longer than {MAX_HEAD_BYTES} bytes")
                return None
            if end > MAX_HEAD_BYTES:
                raise HttpProblem(431, f"the request's head is longer than {MAX_HEAD_BYTES} bytes")
            self._head = _parse_head(bytes(self._buffer[:end]))
            self._body_length = _body_length(self._head)
            del self._buffer[: end + gap]
        if len(self._buffer) < self._body_length:
            return None
        head = self._head
        return Request(
            method=head.method,
            path=head.path,
            query=head.query,
            headers=head.headers,
            body=bytes(self._buffer[: self._body_length]),
        )


def _end_of_head(buffer: bytearray) -> tuple[int, int]:
    end = buffer.find(b"\r\n\r\n")
    bare = buffer.find(b"\n\n")
    if bare >= 0 and (end < 0 or bare < end):
        return bare, 2
    return end, 4


def _parse_head(head: bytes) -> Request:
    try:
        lines = head.decode("ascii").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError:
        raise HttpProblem(400, "the request's head is not ASCII") from None
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/"):
        raise HttpProblem(400, "the first line is no HTTP request line")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise HttpProblem(505, "only HTTP/1.1 is served")
    if method not in _METHODS:
        raise HttpProblem(501, "unknown method")
    if not target.startswith("/"):
        raise HttpProblem(400, "the request target must be a path")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise HttpProblem(400, "malformed header line")
        key = name.lower()
        if key == "content-length" and headers.get(key, value.strip()) != value.strip():
            raise HttpProblem(400, "two different content lengths")
        headers[key] = value.strip()
    path, _, query = target.partition("?")
    return Request(method=method, path=path, query=query, headers=headers)


def _body_length(request: Request) -> int:
    if "transfer-encoding" in request.headers:
        raise HttpProblem(411, "send a Content-Length; chunked bodies are not served")
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise HttpProblem(400, "Content-Length is no number")
    if len(length) > 10 or int(length) > MAX_BODY_BYTES:
        raise HttpProblem(413, f"bodies are limited to {MAX_BODY_BYTES} bytes")
    return int(length)


def render_response(response: Response, *, with_body: bool = True) -> bytes:
    """Return the bytes of ``response``; without its body they answer HEAD."""
    lines = [
        f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Unknown')}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        *(f"{name}: {value}" for name, value in response.headers),
    ]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
    return head + response.body if with_body else head


def render_request(method: str, path: str, body: bytes | None) -> bytes:
    """Return the bytes of a request as our own client sends it."""
    lines = [f"{method} {path} HTTP/1.1", "Host: visor", "Connection: close"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + (body or b"")


def parse_response(data: bytes) -> Response:
    """Return the response that ``data``, everything up to the end of the connection, holds.

    Raises HttpProblem with status 0 if it is cut short or no HTTP at all."""
    head, gap, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ", 2)
    if (
        not gap
        or len(parts) < 2
        or not parts[0].startswith("HTTP/1.")
        or not (parts[1].isascii() and parts[1].isdigit())
    ):
        raise HttpProblem(0, "the answer is no HTTP response")
    headers = tuple(
        (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])
    )
    known = dict(headers)
    if known.get("content-length", str(len(body))) != str(len(body)):
        raise HttpProblem(0, "the answer was cut short")
    kind = known.get("content-type", "application/octet-stream")
    return Response(status=int(parts[1]), body=body, content_type=kind, headers=headers)
