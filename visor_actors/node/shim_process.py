"""Shims as processes: starting one, reaping those that were our children, ending one that does not answer."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent.parent / "shim" / "main.py"

# What a shim needs of our environment. Not all of it: that may hold secrets, and shims live long.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "TZ")

LINGER_SECONDS = 30.0
"""How long a shim stays when its slot is vacant and nobody is attached."""

_lock = threading.Lock()
_children: set[int] = set()
_warm: dict[Path, socket.socket] = {}


def warm_up_shim(slot_dir: Path) -> None:
    """Have a shim of the slot come up beside what the caller goes on with, unless one lives. Never raises.

    Whatever fails here fails again, and is told, when the slot is attached to.
    """
    with contextlib.suppress(OSError):
        slot_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if find_shim(slot_dir) is None:
            connection = launch_shim(slot_dir, linger=LINGER_SECONDS)
            with _lock:
                former, _warm[slot_dir] = _warm.get(slot_dir), connection
            if former is not None:
                former.close()


def take_warm_shim(slot_dir: Path) -> socket.socket | None:
    """The first connection of the shim that :func:`warm_up_shim` has started, once; None if there is none."""
    with _lock:
        return _warm.pop(slot_dir, None)


def launch_shim(slot_dir: Path, *, linger: float) -> socket.socket:
    """Start a shim for the slot; return our end of its first connection.

    It leads a session of its own and inherits nothing but that connection. If another shim serves the slot
    already it ends at once, seen as end of file. Raises OSError if no process can be started.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        reap_shims()
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", str(PROGRAM), str(slot_dir), str(linger)],
            {name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            ],
            setsigmask=(),
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    with _lock:
        _children.add(pid)
    ours.setblocking(False)
    return ours


def reap_shims() -> None:
    """Collect shims of ours that have ended. Never blocks; may be called from any thread."""
    with _lock:
        for pid in list(_children):
            try:
                ended = os.waitpid(pid, os.WNOHANG)[0] == pid
            except ChildProcessError:
                ended = True  # somebody else reaped it
            if ended:
                _children.discard(pid)


def own_shims() -> frozenset[int]:
    """The pids of shims that this process started and that have not been reaped."""
    reap_shims()
    with _lock:
        return frozenset(_children)


def find_shim(slot_dir: Path) -> int | None:
    """Return the pid of the living shim that wrote ``shim.lock`` last, None if there is none."""
    try:
        pid, start_ticks = (int(word) for word in (slot_dir / "shim.lock").read_text().split())
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return pid if int(fields[19]) == start_ticks and fields[0] not in "ZX" else None


def end_unresponsive_shim(slot_dir: Path, *, timeout: float = 5.0) -> bool:
    """End the slot's shim with SIGKILL, as a last resort against one that does not answer; return whether
    it is gone.

    The binary goes on: the next attach starts a shim that adopts it, at the price that its exit status will
    be unknown.
    """
    pid = find_shim(slot_dir)
    if pid is None:
        return True
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        if find_shim(slot_dir) != pid:
            return True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        ready = select.poll()
        ready.register(pidfd, select.POLLIN)
        return bool(ready.poll(timeout * 1000))
    finally:
        os.close(pidfd)
        reap_shims()
