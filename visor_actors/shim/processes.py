"""Processes as /proc shows them: who is who."""

import errno
import os

from visor_actors.shim.lean import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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


def is_our_trouble(error: OSError) -> bool:
    """Does ``error`` say that we can see nothing now, not that what we looked at is gone or closed to us?"""
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def variable_of(pid: int, name: str) -> "str | None":
    """The value of ``name`` in the environment that ``pid`` was started with, None if it had none or may not
    be asked.
    """
    try:
        environment = "\0" + read_text(f"/proc/{pid}/environ")
    except OSError as error:
        if is_our_trouble(error):
            raise
        return None
    _, found, rest = environment.partition(f"\0{name}=")
    return rest.partition("\0")[0] if found else None


def become_subreaper() -> None:
    """Have orphaned descendants of the binary become our children (prctl 36), so that none escapes."""
    try:
        import _ctypes

        library: Any = _ctypes  # the C half of ctypes, a tenth of its cost; takes None where stubs say str
        library.call_function(library.dlsym(library.dlopen(None, os.RTLD_NOW), "prctl"), (36, 1, 0, 0, 0))
    except (ImportError, AttributeError, OSError):
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
