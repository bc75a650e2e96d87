"""Named places where a test can make visor die, raise or hang. Off, and one dictionary look-up, in
production.

A failpoint is armed through the environment of the process, before it starts::

    VISOR_FAILPOINTS="upgrade.ready=kill; upgrade.switched=raise:2; journal.write=hang:1:30"

Each entry is ``name=action[:count[:seconds]]``: ``kill`` sends SIGKILL to this process, ``raise`` raises
:class:`FailpointReached`, ``hang`` sleeps ``seconds`` (default 3600), ``delay`` sleeps ``seconds`` and goes
on. ``count`` (default 1) is how many times it fires; ``0`` means always. With ``VISOR_FAILPOINTS_ONCE``
naming a folder, an entry that has fired there leaves a file behind and never fires again, in no later
process either: so a killed main does not die again at the same place.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path


class FailpointReached(Exception):
    """Raised at a failpoint armed with ``raise``."""


class _Armed:
    __slots__ = ("action", "left", "seconds")

    def __init__(self, action: str, count: int, seconds: float) -> None:
        self.action = action
        self.left = count if count > 0 else -1
        self.seconds = seconds


_lock = threading.Lock()
_armed: dict[str, _Armed] = {}


def arm(specification: str) -> None:
    """Replace what is armed by ``specification`` (syntax: see the module; empty: nothing)."""
    armed: dict[str, _Armed] = {}
    for entry in specification.split(";"):
        name, _, action = entry.strip().partition("=")
        if not name:
            continue
        kind, _, rest = action.partition(":")
        count, _, seconds = rest.partition(":")
        if kind not in ("kill", "raise", "hang", "delay"):
            raise ValueError(f"failpoint {name}: unknown action {kind!r}; one of kill, raise, hang, delay")
        armed[name] = _Armed(kind, int(count or 1), float(seconds or 3600.0))
    with _lock:
        _armed.clear()
        _armed.update(armed)


def failpoint(name: str) -> None:
    """Do here what is armed for ``name``; normally nothing."""
    if _armed:
        _fire(name)


def _fire(name: str) -> None:
    with _lock:
        entry = _armed.get(name)
        if entry is None or entry.left == 0 or not _first_time(name):
            return
        entry.left -= 1
    match entry.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise FailpointReached(name)
        case _:
            time.sleep(entry.seconds)


def _first_time(name: str) -> bool:
    folder = os.environ.get("VISOR_FAILPOINTS_ONCE")
    if not folder:
        return True
    try:
        os.close(os.open(Path(folder) / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True


arm(os.environ.get("VISOR_FAILPOINTS", ""))
