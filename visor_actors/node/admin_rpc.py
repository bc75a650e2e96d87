"""The admin RPC of a core node: one kept HTTP/1.1 connection over its unix socket, and hard deadlines.

What goes wrong is drawn in :mod:`visor_actors.node.admin_errors`, whose classes are exported here too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

from visor_actors import __version__
from visor_actors.node.admin_errors import (
    Absent,
    AdminRpcError,
    BadStatus,
    Denied,
    Dropped,
    Malformed,
    NotASocket,
    Refused,
    RpcFailed,
    TimedOut,
    TooLarge,
    Unreachable,
    WrongId,
)
from visor_actors.node.bounded_json import JsonRefused
from visor_actors.node.http_reply import Reply, ReplyCutShort, ReplyMalformed, ReplyReader, ReplyTooLarge
from visor_actors.node.upgrade_status import (
    Release,
    UpgradeStatus,
    parse_reply,
    parse_status,
    request_body,
)

__all__ = [
    "Absent",
    "AdminRpcClient",
    "AdminRpcError",
    "BadStatus",
    "Denied",
    "Dropped",
    "Malformed",
    "NotASocket",
    "Refused",
    "Release",
    "RpcFailed",
    "TimedOut",
    "TooLarge",
    "Unreachable",
    "UpgradeStatus",
    "WrongId",
]

_RECEIVE = 16 * 1024
_MAX_SUN_PATH = 107
_MAX_SHOWN = 300


class AdminRpcClient:
    """Asks one core for its upgrade status. For one thread; cheap to poll with; opens nothing until it is
    asked.

    The connection is kept between questions and re-opened when the node has closed it meanwhile (the question
    is asked once more then; it changes nothing in the node). After any error it is closed, so a late answer
    is never read.

    ``connect_timeout``: seconds until the node must have accepted; ``answer_timeout``: until the first byte
    of the answer; ``total_timeout``: for the whole call, however slowly the bytes come. ``max_body`` in
    bytes.
    """

    def __init__(
        self,
        socket_path: Path,
        http_path: str,
        *,
        brand: str = "",
        connect_timeout: float = 1.0,
        answer_timeout: float = 2.0,
        total_timeout: float = 5.0,
        max_body: int = 64 * 1024,
    ) -> None:
        self.socket_path = Path(socket_path)
        self.brand = brand
        self._connect_timeout = connect_timeout
        self._answer_timeout = answer_timeout
        self._total_timeout = total_timeout
        self._max_body = max_body
        self._head = _request_head(http_path)
        self._socket: socket.socket | None = None

    def upgrade_status(self) -> UpgradeStatus:
        """Ask once. Blocks for at most ``total_timeout`` seconds; raises :class:`AdminRpcError`."""
        request_id = int.from_bytes(os.urandom(8), "big") >> 1
        try:
            return self._understand(self._ask(request_body(request_id)), request_id)
        except BaseException:
            self.close()
            raise

    @property
    def peer_pid(self) -> int | None:
        """The pid of the process that opened the listening socket, while a connection is kept; None
        otherwise."""
        if self._socket is None:
            return None
        try:
            credentials = self._socket.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
            )
        except OSError:
            return None
        pid: int = struct.unpack("3i", credentials)[0]
        return pid or None

    def close(self) -> None:
        """Close the kept connection, if any. The next question opens a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> AdminRpcClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, body: bytes) -> Reply:
        request = b"%s%d\r\n\r\n%s" % (self._head, len(body), body)
        deadline = monotonic() + self._total_timeout
        kept = self._socket is not None
        try:
            reply = self._exchange(request, deadline)
        except Dropped as problem:
            # A kept connection may have died with the previous core, or of old age: that says nothing of
            # this one.
            if not kept or problem.received:
                raise
            self.close()
            reply = self._exchange(request, deadline)
        if not reply.reusable:
            self.close()
        return reply

    def _understand(self, reply: Reply, request_id: int) -> UpgradeStatus:
        if reply.status != 200:
            text = reply.body[:_MAX_SHOWN].decode("utf-8", "replace").strip()
            raise BadStatus(self.socket_path, reply.status, _one_line(text))
        if reply.media_type != "application/json":
            shown = _one_line(reply.media_type[:40]) or "nothing"
            raise Malformed(self.socket_path, f"its content type is {shown}, not application/json")
        try:
            answer = parse_reply(reply.body)
            if isinstance(answer.id, bool) or not isinstance(answer.id, int) or answer.id != request_id:
                raise WrongId(self.socket_path, request_id, _one_line(repr(answer.id)[:60]))
            if answer.error is not None:
                raise RpcFailed(self.socket_path, _one_line(answer.error[:_MAX_SHOWN]))
            return parse_status(answer.result)
        except JsonRefused as problem:
            raise Malformed(self.socket_path, str(problem)) from None

    def _exchange(self, request: bytes, deadline: float) -> Reply:
        if self._socket is None:
            self._socket = self._connect(deadline)
        connection = self._socket
        reader = ReplyReader(max_body=self._max_body)
        answer_deadline = min(deadline, monotonic() + self._answer_timeout)
        try:
            self._limit(connection, answer_deadline, "answer")
            connection.sendall(request)
            while True:
                self._limit(connection, deadline if reader.received else answer_deadline, _phase(reader))
                data = connection.recv(_RECEIVE)
                reply = reader.feed(data) if data else reader.end()
                if reply is not None:
                    return reply
        except TimeoutError:
            raise self._timed_out(_phase(reader)) from None
        except (ConnectionError, ReplyCutShort):
            raise Dropped(self.socket_path, reader.received) from None
        except ReplyMalformed as problem:
            raise Malformed(self.socket_path, str(problem)) from None
        except ReplyTooLarge as problem:
            raise TooLarge(self.socket_path, problem.limit) from None
        except OSError as error:
            raise Unreachable(self.socket_path, error) from None

    def _limit(self, connection: socket.socket, deadline: float, phase: str) -> None:
        left = deadline - monotonic()
        if left <= 0:
            raise self._timed_out(phase)
        connection.settimeout(left)

    def _timed_out(self, phase: str) -> TimedOut:
        match phase:
            case "connect":
                seconds = min(self._connect_timeout, self._total_timeout)
            case "answer":
                seconds = min(self._answer_timeout, self._total_timeout)
            case _:
                seconds = self._total_timeout
        return TimedOut(self.socket_path, phase, seconds)

    def _connect(self, deadline: float) -> socket.socket:
        timeout = min(self._connect_timeout, deadline - monotonic())
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            # A full backlog makes a unix connect block in the kernel, where only the send timeout can end it;
            # a non-blocking connect would fail at once and could not be waited for.
            seconds, fraction = divmod(max(timeout, 0.001), 1)
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), int(fraction * 1e6))
            )
            with _address(self.socket_path) as address:
                connection.connect(address)
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError):
                raise self._connect_problem(error) from None
            raise
        return connection

    def _connect_problem(self, error: OSError) -> AdminRpcError:
        match error.errno:
            case errno.ENOENT | errno.ENOTDIR:
                return Absent(self.socket_path)
            case errno.EAGAIN | errno.ETIMEDOUT:
                return self._timed_out("connect")
            case errno.EACCES | errno.EPERM:
                return Denied(self.socket_path)
            case errno.EPROTOTYPE:
                return NotASocket(self.socket_path, "a socket of another type")
            case errno.ECONNREFUSED:
                found = _what_is(self.socket_path)
                return Refused(self.socket_path) if found is None else NotASocket(self.socket_path, found)
            case _:
                return Unreachable(self.socket_path, error)


def _request_head(http_path: str) -> bytes:
    """The head up to the length's value. The bytes are those of the node's own tools, under our own name.

    They also offer gzip; no admin server compresses, and an answer we did not ask to be compressed needs no
    unpacking.
    """
    return (
        f"POST {http_path} HTTP/1.1\r\n"
        "Host: unix\r\n"
        f"User-Agent: visor-actors/{__version__}\r\n"
        "Content-Type: application/json\r\n"
        "Content-Length: "
    ).encode()


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """Yield a text under which ``path`` can be connected to, however long it is."""
    if len(os.fsencode(path)) <= _MAX_SUN_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{folder}/{path.name}"
        if len(os.fsencode(short)) > _MAX_SUN_PATH:
            raise OSError(errno.ENAMETOOLONG, "the name of the socket alone is too long")
        yield short
    finally:
        os.close(folder)


def _what_is(path: Path) -> str | None:
    """What ``path`` is when it is no socket, in words; None for a socket or when it is gone."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if stat.S_ISSOCK(mode):
        return None
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a regular file" if stat.S_ISREG(mode) else "a special file"


def _phase(reader: ReplyReader) -> str:
    return "reply" if reader.received else "answer"


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text).strip()
