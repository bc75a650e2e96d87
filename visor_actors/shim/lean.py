"""What the shim uses instead of larger standard modules: every shim pays for what it imports.

``_socket``, ``_signal`` and ``_json`` are the C halves of the modules without the underscore. Their Python
halves (and enum, re, functools behind them) would cost 3 MiB and 20 ms of start in every shim.
"""

import os

# ruff: noqa: SIM105  # contextlib.suppress would cost 1 MiB of memory in every shim

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from collections.abc import Callable
    from typing import Any

    Record = dict[str, Any]  # one JSON object, on the wire or in a state file
else:
    import _signal as signal
    import _socket as socket

    Callable = Any = Record = None

__all__ = ["Record", "decode", "encode", "note", "pair", "read_text", "signal", "socket"]


def _codec() -> "tuple[Callable[[str], Any], Callable[[object], str]]":
    try:
        import _json

        class Context:
            strict = True
            object_hook = object_pairs_hook = None
            parse_float, parse_int, parse_constant = float, int, float
            memo: "dict[str, str]" = {}  # noqa: RUF012  # the scanner's own field, cleared by it

        scan: Any = _json.make_scanner(Context)  # type: ignore[arg-type]  # reads attributes only
        make: Any = _json.make_encoder  # its annotations know less than it takes
        encoder = make(None, None, _json.encode_basestring_ascii, None, ":", ",", False, False, False)
        return (lambda text: scan(text, 0)[0]), (lambda value: "".join(encoder(value, 0)))
    except (
        ImportError,
        AttributeError,
        TypeError,
    ):  # another Python than those we know: pay for the whole module
        import json

        return json.loads, json.dumps


_loads, _dumps = _codec()


def encode(record: "Record") -> bytes:
    return (_dumps(record) + "\n").encode("ascii")


def decode(line: bytes) -> "Record":
    """Return the JSON object in ``line``; raise ValueError for anything else."""
    try:
        value = _loads(line.decode("utf-8"))
    except (
        StopIteration,
        RecursionError,
        SystemError,
    ) as error:  # SystemError: what it raises needs all of json
        raise ValueError("not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def read_text(path: str) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        data = os.read(fd, 16384)  # mostly all of it
        while more := os.read(fd, 65536) if len(data) >= 4096 else b"":
            data += more
        return data.decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)


def note(text: str) -> None:
    """Write a line to shim.err, if that is possible: a full disk must not keep us from telling an exit."""
    try:
        os.write(2, text[:2000].encode("utf-8", "replace") + b"\n")
    except OSError:
        pass


def pair() -> "tuple[socket.socket, socket.socket]":
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
