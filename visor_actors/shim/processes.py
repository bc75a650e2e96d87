"""Processes as /proc shows them: who is who, and who holds a lock."""

import os

from visor_actors.shim.lean import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from visor_actors.shim.lean import Record


class ProcessStat:
    """What /proc says of one process: enough to know whether it is the one we think it is."""

    __slots__ = ("parent", "session", "start_ticks", "state")

    def __init__(self, pid: int) -> None:
        fields = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
        self.state = fields[0]
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.start_ticks = int(fields[19])


def executable_of(pid: int) -> "str | None":
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return None


def image_of(pid: int) -> "list[int] | None":
    """The executable file of ``pid`` as [device, inode]; None if that may not be read or it has ended."""
    try:
        status = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return None
    return [status.st_dev, status.st_ino]


def all_pids() -> "list[int]":
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def has_in_environment(pid: int, variable: str) -> bool:
    """Was ``pid`` started with ``variable`` (``NAME=value``) in its environment?"""
    try:
        return f"\0{variable}\0" in "\0" + read_text(f"/proc/{pid}/environ")
    except OSError:
        return False


def lock_holder_kind(pid: int, lock: os.stat_result) -> str:
    """How ``pid`` holds the lock file: ``"inherited"``, ``"own"`` (it took the lock itself) or ``""`` (not
    at all).
    """
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return ""
    for name in names:
        try:
            status = os.stat(f"/proc/{pid}/fd/{name}")
            if (status.st_dev, status.st_ino) != (lock.st_dev, lock.st_ino):
                continue
            for line in read_text(f"/proc/{pid}/fdinfo/{name}").splitlines():
                words = line.split()  # lock: 1: FLOCK ADVISORY WRITE <pid that took it> 08:01:42 0 EOF
                if len(words) > 5 and words[0] == "lock:" and words[2] == "FLOCK":
                    return "own" if words[5] == str(pid) else "inherited"
        except (OSError, ValueError):
            continue
    return ""


def become_subreaper() -> None:
    """Have orphaned descendants of the binary become our children (prctl 36), so that none escapes."""
    try:
        import _ctypes

        library: Any = _ctypes  # the C half of ctypes, a tenth of its cost; takes None where stubs say str
        library.call_function(library.dlsym(library.dlopen(None, os.RTLD_NOW), "prctl"), (36, 1, 0, 0, 0))
    except (ImportError, AttributeError, OSError):
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def find_lock_holder(path: str = "lock") -> "Record":
    """Name whoever holds the lock file ``path``; the slot's, if not said."""
    lock = os.stat(path)
    what = "the slot's lock" if path == "lock" else path
    for pid in all_pids():
        if pid != os.getpid() and lock_holder_kind(pid, lock):
            executable = executable_of(pid) or "unknown"
            problem = f"{what} is held by pid {pid} ({executable})"
            return {"pid": pid, "executable": executable, "problem": problem}
    problem = f"{what} is held by a process that cannot be seen from here (another container or user)"
    return {"pid": None, "executable": None, "problem": problem}
