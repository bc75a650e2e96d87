"""Noticing that a file has changed, however an editor does it: by rename, in place, through links, or with
its folder.

The kernel watches folders (inotify), not files: a file that is replaced would take its watch along. Nothing
wakes up while nothing happens.
"""

from __future__ import annotations

import ctypes
import enum
import os
from collections.abc import Iterable
from pathlib import Path

import inotify_simple
from inotify_simple import flags

_MASK = (
    flags.CLOSE_WRITE
    | flags.MODIFY
    | flags.ATTRIB
    | flags.MOVED_TO
    | flags.MOVED_FROM
    | flags.CREATE
    | flags.DELETE
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
)
_COMPLETE = flags.CLOSE_WRITE | flags.MOVED_TO
_MOVED = flags.DELETE_SELF | flags.MOVE_SELF | flags.IGNORED | flags.UNMOUNT | flags.Q_OVERFLOW
_MOST_LINKS = 40
_NETWORK = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "ceph",
    "glusterfs",
    "afs",
    "fuse.sshfs",
    "fuse.glusterfs",
    "lustre",
)

# The library would otherwise look for libc with ldconfig or gcc: two processes in the start of visor, for a
# symbol that is in this process already.
inotify_simple._libc = ctypes.CDLL(None, use_errno=True)


class Change(enum.IntEnum):
    """What the events since the last look mean for the watched files."""

    NONE = 0
    BEGUN = 1  # something is being written or was removed: more is likely to follow
    COMPLETE = 2  # a writer closed the file, or another was moved into its place


class FileWatch:
    """Watches the files ``names`` in ``folder``, and every link on the way to them. Belongs to one thread.

    :attr:`fd` becomes readable when there is something to :meth:`read`. Raises OSError when the kernel has
    no more watches to give. Close it.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._paths = tuple(folder / name for name in names)
        self._folder = folder
        self._inotify = inotify_simple.INotify(nonblocking=True)
        self._watched: dict[int, frozenset[str]] = {}
        try:
            self.renew()
        except OSError:
            self._inotify.close()
            raise

    @property
    def fd(self) -> int:
        """The descriptor to wait for."""
        return int(self._inotify.fileno())

    @property
    def lost(self) -> bool:
        """Whether the folder itself is gone: :meth:`renew` it from time to time."""
        return not self._watched

    def renew(self) -> None:
        """Watch what the paths lead to now. To be called after every change: links may lead elsewhere
        since.
        """
        wanted: dict[int, set[str]] = {}
        for folder, names in watch_points(self._paths).items():
            try:
                wd = self._inotify.add_watch(folder, _MASK)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
            wanted.setdefault(wd, set()).update(names)
        for wd in self._watched.keys() - wanted.keys():
            try:
                self._inotify.rm_watch(wd)
            except OSError:
                continue  # the kernel has dropped it together with its folder
        self._watched = {wd: frozenset(names) for wd, names in wanted.items()}

    def read(self) -> Change:
        """Take all events there are, without waiting, and say what they mean."""
        change = Change.NONE
        for event in self._inotify.read(timeout=0):
            if event.mask & _MOVED:
                if event.wd == -1 or event.wd in self._watched:
                    change = max(change, Change.BEGUN)
            elif event.name in self._watched.get(event.wd, ()):
                change = max(change, Change.COMPLETE if event.mask & _COMPLETE else Change.BEGUN)
        return change

    def close(self) -> None:
        """Give the descriptor back. Safe to repeat."""
        self._inotify.close()


def watch_points(paths: Iterable[Path]) -> dict[Path, set[str]]:
    """Map each folder to watch to the names in it that matter: the files, and every link on the way to
    them.
    """
    points: dict[Path, set[str]] = {}
    for path in paths:
        _follow(Path(os.path.abspath(path)), points)
    return points


def _follow(path: Path, points: dict[Path, set[str]]) -> None:
    todo = list(path.parts[1:])
    here = Path("/")
    links = 0
    while todo:
        name = todo.pop(0)
        if name == "..":
            here = here.parent
            continue
        step = here / name
        try:
            target = os.readlink(step)
        except OSError:
            if not todo:
                points.setdefault(here, set()).add(name)
            here = step
            continue
        points.setdefault(here, set()).add(name)
        links += 1
        if links > _MOST_LINKS:
            return
        if target.startswith("/"):
            here = Path("/")
        todo = [part for part in Path(target).parts if part != "/"] + todo


def is_on_network(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether ``path`` lies on a file system whose changes by other machines the kernel does not tell of."""
    best, kind = "", ""
    real = os.path.realpath(path)
    try:
        lines = mountinfo.read_text(errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:
        fields = line.split()
        try:
            mount, file_system = fields[4], fields[fields.index("-") + 1]
        except (ValueError, IndexError):
            continue
        mount = mount.replace("\\040", " ")
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, file_system
    return kind in _NETWORK
