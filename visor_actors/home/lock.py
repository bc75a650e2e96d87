"""One visor per home: a kernel lock on ``.visor/visor.lock``, held for as long as the process lives."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct
from msgspec.structs import asdict

from visor_actors.home.errors import HomeError, HomeUnusable

EXIT_LOCKED = 75


class LockHolder(Struct, frozen=True, kw_only=True):
    """The visor that holds a home, as it wrote itself into the lock file. ``since`` is Unix time in
    seconds.
    """

    pid: int
    command: str
    host: str
    since: float


class HomeLocked(HomeError):
    """Another visor holds the home. ``holder`` is None where it did not say who it is."""

    exit_code = EXIT_LOCKED

    def __init__(self, root: Path, holder: LockHolder | None) -> None:
        if holder is None:
            message = f"{root} is held by another visor"
            next_step = f"find it with `fuser {root}/.visor/visor.lock` and stop it, or wait for it to end"
        else:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
            message = f"{root} is held by the visor with pid {holder.pid} on {holder.host} since {since}"
            next_step = f"stop it with `visor-actors stop --home {root}`, or wait for it to end"
        super().__init__(message, next_step=next_step)
        self.root = root
        self.holder = holder


class HomeLock:
    """Holds the lock until :meth:`release` or the end of the process, however it ends. Not inherited by
    children.

    ``flock`` and not a pid file: the kernel frees it when the process dies, and no stale file can lock
    anybody out.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def acquire(cls, root: Path) -> HomeLock:
        """Take the lock of the home ``root`` without waiting, creating ``.visor`` where needed.

        Raises :class:`HomeLocked`, naming the holder, or :class:`HomeUnusable` if the lock file cannot be
        made.
        """
        path = root / ".visor" / "visor.lock"
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HomeUnusable(
                f"cannot open {path}: {error.strerror}", next_step=f"let visor write to {path.parent}"
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _read_holder(fd)
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise HomeLocked(root, holder) from None
            raise HomeUnusable(
                f"cannot lock {path}: {error.strerror}", next_step="keep the home on a local file system"
            ) from error
        _write_holder(fd)
        return cls(fd)

    def release(self) -> None:
        """Free the home. May be called more than once."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _write_holder(fd: int) -> None:
    command = Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
    holder = LockHolder(
        pid=os.getpid(),
        command=command.decode("utf-8", "replace")[:400],
        host=os.uname().nodename,
        since=time.time(),
    )
    # Who holds it is a courtesy to the next one; a full disk must not keep visor from starting.
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(asdict(holder)).encode(), 0)


def _read_holder(fd: int) -> LockHolder | None:
    try:
        fields = json.loads(os.pread(fd, 4096, 0))
        return LockHolder(
            pid=int(fields["pid"]),
            command=str(fields["command"]),
            host=str(fields["host"]),
            since=float(fields["since"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
