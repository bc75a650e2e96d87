"""Telling the service manager how visor is: sd_notify's messages, without its library.

Everything is a no-op where ``NOTIFY_SOCKET`` is not set, that is, outside of systemd and without
``Type=notify``.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Self

# What speaks to visor and must not reach the node: a node that wrote READY=1 or took sockets would confuse
# all.
PRIVATE_VARIABLES = frozenset(
    ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
)


def without_service_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` without what the service manager means for visor alone."""
    return {name: value for name, value in environment.items() if name not in PRIVATE_VARIABLES}


class ServiceNotifier:
    """Sends datagrams to the service manager. Never raises and never blocks; may be used from any thread.

    ``watchdog_seconds`` is how often at the latest :meth:`watchdog` must be called (half of what the
    manager allows), None if no watchdog is set for this process.
    """

    def __init__(self, address: str | None, *, watchdog_seconds: float | None = None) -> None:
        self.watchdog_seconds = watchdog_seconds
        self._address = address
        self._socket: socket.socket | None = None
        if address:
            if address.startswith("@"):
                self._address = "\0" + address[1:]
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> ServiceNotifier:
        """Make the notifier that ``environment`` asks for."""
        address = environment.get("NOTIFY_SOCKET")
        seconds = None
        with contextlib.suppress(ValueError):
            allowed = int(environment.get("WATCHDOG_USEC", "0")) / 1e6
            addressee = environment.get("WATCHDOG_PID")
            if allowed > 0 and (not addressee or int(addressee) == os.getpid()):
                seconds = allowed / 2
        usable = address if address and address[0] in "/@" else None
        return cls(usable, watchdog_seconds=seconds if usable else None)

    @property
    def enabled(self) -> bool:
        """Is anybody listening?"""
        return self._socket is not None

    def ready(self, status: str = "") -> None:
        """Visor is up: its actors run and answer. The node may still be starting."""
        self._send(READY="1", STATUS=status)

    def status(self, text: str) -> None:
        """Show ``text`` (one line) in ``systemctl status``."""
        self._send(STATUS=text)

    def stopping(self, status: str = "") -> None:
        """Visor ends on purpose. A crash says nothing, which is how the manager tells them apart."""
        self._send(STOPPING="1", STATUS=status)

    def watchdog(self) -> None:
        """Visor is alive."""
        self._send(WATCHDOG="1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for ``seconds`` more, from now, for the start or the stop under way."""
        self._send(EXTEND_TIMEOUT_USEC=str(int(seconds * 1e6)))

    def close(self) -> None:
        """Close the socket; later messages go nowhere."""
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, **fields: str) -> None:
        sock = self._socket
        if sock is None:
            return
        lines = [f"{name}={' '.join(value.split())}" for name, value in fields.items() if value]
        # A manager that is away or busy is no reason to fail; the next message may get through.
        with contextlib.suppress(OSError):
            sock.sendto("\n".join(lines).encode("utf-8", "replace")[:4096], self._address or "")
