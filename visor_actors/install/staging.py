"""The place where a release is made: one folder and one lock per tag, below ``.visor/staging``.

The lock is held by the job's process through its open file: it is free the moment the process is gone,
whatever ended it. A finished folder leaves staging by one ``rename`` that replaces nothing, after everything
in it is on the disk.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from msgspec import Struct

from visor_actors.home.layout import HomeLayout
from visor_actors.install.errors import Busy, StorageFailed, storage_error
from visor_actors.install.messages import FailureKind

_RENAME_NOREPLACE = 1
_AT_FDCWD = -100
_POLL_SECONDS = 0.05
_KEPT_SECONDS = 14 * 24 * 3600


class DestinationExists(Exception):
    """The destination appeared while the release was being made. It is left as it is."""


class Holder(Struct, frozen=True, kw_only=True):
    """Who holds the lock of a release, as written into the lock file."""

    pid: int
    requested_by: str
    since: float

    def __str__(self) -> str:
        since = time.strftime("%H:%M:%S", time.localtime(self.since))
        return f"{self.requested_by} (process {self.pid}, since {since})"


class Staging:
    """The staging area of one tag. Use it as a context manager: the lock is taken on entry.

    ``part`` is the download, ``part_state`` what is needed to resume it, ``tree`` the folder being made.
    """

    def __init__(self, layout: HomeLayout, tag: str) -> None:
        name = quote(tag, safe="+").replace(".", "%2E") if tag.startswith(".") else quote(tag, safe="+")
        self.root = layout.staging
        self._parents = (layout.visor_dir, layout.staging)
        self.folder = self.root / name
        self.part = self.folder / "download.part"
        self.part_state = self.folder / "download.json"
        self.tree = self.folder / "tree"
        self._lock_path = self.root / f"{name}.lock"
        self._lock: int | None = None

    def acquire(self, *, requested_by: str, timeout: float) -> None:
        """Take the lock, waiting up to ``timeout`` seconds; :class:`Busy` says who holds it. Creates the
        folder.
        """
        try:
            for folder in (*self._parents, self.folder):
                folder.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_error(error, f"use {self.root}") from error
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = _read_holder(lock)
                    os.close(lock)
                    raise Busy(
                        FailureKind.BUSY,
                        f"this release is being installed already, by {holder or 'another process'}",
                        "wait for it to end; it is tried again",
                        retry_after=5.0,
                    ) from None
                time.sleep(_POLL_SECONDS)
        self._lock = lock
        record = {"pid": os.getpid(), "requested_by": requested_by, "since": time.time()}
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, json.dumps(record).encode(), 0)
            self.folder.mkdir(
                mode=0o700, exist_ok=True
            )  # its last holder may have removed it after our mkdir
            shutil.rmtree(self.tree, ignore_errors=True)
        except OSError as error:
            raise storage_error(error, f"use {self.root}") from error

    def new_tree(self) -> Path:
        """Return an empty folder to make the release in."""
        try:
            if self.tree.exists():
                shutil.rmtree(self.tree)
            self.tree.mkdir(mode=0o755)
            self.tree.chmod(0o755)
        except OSError as error:
            raise storage_error(error, f"create {self.tree}") from error
        return self.tree

    def discard_download(self) -> None:
        """Forget what was downloaded."""
        self.part.unlink(missing_ok=True)
        self.part_state.unlink(missing_ok=True)

    def publish(self, destination: Path) -> None:
        """Put everything of ``tree`` on the disk, then make it ``destination`` by one rename.

        Raises :class:`DestinationExists` when there is something already: it is never replaced.
        """
        try:
            _sync_tree(self.tree)
            _rename_without_replacing(self.tree, destination)
            _sync_folder(destination.parent)
            _sync_folder(self.folder)
        except FileExistsError:
            raise DestinationExists(str(destination)) from None
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise StorageFailed(
                    FailureKind.FILE_SYSTEM,
                    f"{self.root} and {destination.parent} are on different file systems",
                    "keep .visor and the upgrade folders on one file system: only there a rename is atomic",
                ) from error
            raise storage_error(error, f"move the release to {destination}") from error

    def clean_up(self) -> None:
        """Remove this tag's staging folder and those that nobody has touched for two weeks. Best effort."""
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            entries = list(os.scandir(self.root))
        except OSError:
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and time.time() - entry.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(entry.path, ignore_errors=True)

    def release(self) -> None:
        """Give the lock back. The lock file stays: removing it would let two jobs hold two different ones."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _read_holder(lock: int) -> Holder | None:
    try:
        record = json.loads(os.pread(lock, 4096, 0))
        return Holder(
            pid=int(record["pid"]), requested_by=str(record["requested_by"]), since=float(record["since"])
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _sync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            descriptor = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _sync_folder(Path(folder))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename_without_replacing(source: Path, destination: Path) -> None:
    """``rename`` that fails with FileExistsError; ``os.rename`` would silently replace an empty folder."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        result = libc.renameat2(
            _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(destination), _RENAME_NOREPLACE
        )
    except AttributeError:  # a C library without the call
        result, code = -1, errno.ENOSYS
    else:
        code = ctypes.get_errno()
    if result == 0:
        return
    if code not in (errno.ENOSYS, errno.EINVAL):  # not known to this kernel or file system
        raise OSError(code, os.strerror(code), str(destination))
    if os.path.lexists(destination):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination))
    os.rename(source, destination)
