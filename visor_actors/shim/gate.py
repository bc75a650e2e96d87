"""A gate: a lock file that a binary and all its descendants hold, by having inherited it."""

import errno
import fcntl
import os
import stat

from visor_actors.shim.lean import read_text
from visor_actors.shim.processes import all_pids, executable_of, is_our_trouble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from visor_actors.shim.lean import Record

ABOVE = 10  # what is to be inherited waits beyond the numbers that it and others become in the binary
SAFE = os.O_NOFOLLOW | os.O_NONBLOCK  # in somebody else's folder anything may bear the name


class Gate:
    """A lock file, open and not locked by us.

    What is asked of it is asked of that very file, whatever becomes of its name or its folder, and needs no
    new descriptor. Made by :func:`make_gate` and :func:`find_gate`.
    """

    def __init__(self, fd: int, mode: int, path: str, title: str) -> None:
        self.path = path
        self.title = title
        self._fd = fd
        self._mode = mode
        self._status = os.fstat(fd)

    @property
    def identity(self) -> "list[int]":
        """[device, inode]"""
        return [self._status.st_dev, self._status.st_ino]

    def is_named(self) -> bool:
        """Does the path still lead to this file?"""
        try:
            return os.path.samestat(os.stat(self.path, follow_symlinks=False), self._status)
        except OSError:
            return False

    def close(self) -> None:
        os.close(self._fd)

    def is_free(self) -> bool:
        """Whether nobody holds it; False where that cannot be found out."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        except OSError:
            return False
        return True

    def take(self) -> int:
        """Return a descriptor that holds the lock, to be inherited; -1 if somebody else holds it. Raises
        OSError.

        A descriptor opened anew: those that are copied share their lock, and ours must not keep it.
        """
        fd = os.open(f"/proc/self/fd/{self._fd}", self._mode)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ABOVE)
        except BlockingIOError:
            return -1
        finally:
            os.close(fd)

    def held_by(self, pid: int) -> str:
        """How ``pid`` holds it: ``"inherited"``, ``"own"`` (it took the lock itself) or ``""`` (not)."""
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError as error:
            if is_our_trouble(error):
                raise
            return ""
        for name in names:
            try:
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), self._status):
                    kind = _kind(pid, name)
                    if kind:
                        return kind
            except OSError as error:
                if is_our_trouble(error):
                    raise
        return ""

    def holder(self) -> "Record":
        """Name whoever holds it. Raises OSError if /proc cannot be read."""
        for pid in all_pids():
            if pid != os.getpid() and self.held_by(pid):
                executable = executable_of(pid) or "unknown"
                problem = f"{self.title} is held by pid {pid} ({executable})"
                return {"pid": pid, "executable": executable, "problem": problem}
        problem = (
            f"{self.title} is held by a process that cannot be seen from here (another container or user)"
        )
        return {"pid": None, "executable": None, "problem": problem}


def make_gate(path: str, title: str, owner: "tuple[int, int] | None" = None) -> Gate:
    """Open the lock file ``path``, making it if need be, for ``owner`` (uid and gid). Raises OSError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | SAFE, 0o600)
    except FileExistsError:
        return find_gate(path, title)
    if owner is not None:
        os.fchown(fd, owner[0], owner[1])  # a new file only: no other is ours to give away
    return Gate(fd, os.O_RDWR, path, title)


def find_gate(path: str, title: str) -> Gate:
    """Open the lock file ``path``, which must be there. Raises OSError."""
    mode = os.O_RDWR
    try:
        fd = os.open(path, mode | SAFE)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        mode = os.O_RDONLY  # a lock needs no more on a local file system
        fd = os.open(path, mode | SAFE)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return Gate(fd, mode, path, title)


def _kind(pid: int, name: str) -> str:
    for line in read_text(f"/proc/{pid}/fdinfo/{name}").splitlines():
        words = line.split()  # lock: 1: FLOCK ADVISORY WRITE <pid that took it> 08:01:42 0 EOF
        if len(words) > 5 and words[0] == "lock:" and words[2] == "FLOCK":
            return "own" if words[5] == str(pid) else "inherited"
    return ""
