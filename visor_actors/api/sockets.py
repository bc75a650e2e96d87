"""The sockets of the control API: private unix sockets under paths of any length, and TCP.

A unix socket's address holds 107 bytes, a home may be longer: so both ends open the folder and address
the socket through ``/proc/self/fd``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path
from typing import Self

from msgspec import Struct

BACKLOG = 256
_LISTENER = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_UCRED = struct.Struct("3i")


class TcpAddress(Struct, frozen=True, kw_only=True):
    """Where to listen. ``host`` is an address or a name, an IPv6 address without its brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address in ``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT`` (everywhere). Raises
        ValueError."""
        host, colon, port = text.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(f"{text!r} is no address; write HOST:PORT, for example 127.0.0.1:9464")
        return cls(host=host.removeprefix("[").removesuffix("]"), port=int(port))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        import ipaddress

        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class PrivateSocket:
    """A listening unix socket that only its owner can open, in place of whatever socket was there before."""

    def __init__(self, path: Path) -> None:
        """Bind and listen at ``path``. Its folder must exist. Raises OSError.

        Only for the holder of the home's lock: a socket that is there already is taken for a dead visor's."""
        self.path = path
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.listener = socket.socket(socket.AF_UNIX, _LISTENER)
        temporary = f"{path.name}.{os.getpid()}"
        try:
            self._unlink(temporary, folder)
            self.listener.bind(f"/proc/self/fd/{folder}/{temporary}")
            os.chmod(temporary, 0o600, dir_fd=folder)
            self.listener.listen(BACKLOG)
            # Listening first and renaming last: whoever finds the name can connect.
            os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
            self._identity = (found.st_dev, found.st_ino)
        except BaseException:
            self.listener.close()
            self._unlink(temporary, folder)
            raise
        finally:
            os.close(folder)

    def close(self) -> None:
        """Stop listening and remove the socket file if it is still ours. Never raises."""
        self.listener.close()
        try:
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == self._identity:
                os.unlink(self.path)
        except OSError:
            # Gone already, or the home became read-only: the next visor replaces it either way.
            pass

    @staticmethod
    def _unlink(name: str, folder: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def listen_tcp(address: TcpAddress) -> socket.socket:
    """Return a non-blocking listener. Raises OSError."""
    family = socket.AF_INET6 if ":" in address.host or not address.host else socket.AF_INET
    if address.host == "localhost":
        family = socket.AF_INET
    listener = socket.socket(family, _LISTENER)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if not address.host else 1)
        listener.bind((address.host or "::", address.port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def connect_private(path: Path, timeout: float) -> socket.socket:
    """Return a connection to the unix socket at ``path``; ``timeout`` seconds hold for it and all that
    follows.

    Raises OSError: FileNotFoundError and ConnectionRefusedError mean that nobody serves it."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(timeout)
        connection.connect(f"/proc/self/fd/{folder}/{path.name}")
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(folder)
    return connection


def peer_is_ours(connection: socket.socket) -> bool:
    """Whether the other end of a unix connection runs as our user or as root."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(credentials)
    return uid in (0, os.geteuid())
