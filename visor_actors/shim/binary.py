"""The binary of a slot, and telling it and its descendants from everything else that runs."""

# ruff: noqa: SIM105  # contextlib.suppress would cost 1 MiB of memory in every shim

import os
import time

from visor_actors.shim.lean import signal
from visor_actors.shim.order import MARKER
from visor_actors.shim.processes import (
    ProcessStat,
    all_pids,
    executable_of,
    has_in_environment,
    image_of,
    lock_holder_kind,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from visor_actors.shim.lean import Record


class Binary:
    """One live incarnation, or one whose leftovers are being ended. ``record`` is what is saved of it."""

    def __init__(self, record: "Record", pidfd: int, *, own: bool) -> None:
        self.record = record
        self.pid = int(record["pid"])
        self.pidfd = pidfd  # -1 once the leader has ended
        self.own = own  # our child: its exit status is ours to collect
        self.stop_request: int | None = None
        self.sweeps = 0

    def signal(self, number: int) -> None:
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                pass

    def kill(self) -> None:
        """SIGKILL to the leader and its group. Of an adopted binary, the group is left to the sweep.

        The number of the group is safe while our child is not reaped: it cannot be used again.
        """
        self.signal(signal.SIGKILL)
        if self.own:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass

    def exit_record(self) -> "Record":
        """An exit of which nothing is known yet."""
        return {
            "incarnation": self.record["incarnation"],
            "pid": self.pid,
            "code": None,
            "signal": None,
            "known": False,
            "requested": bool(self.record["stopping"]),
            "started_at": self.record["started_at"],
            "ended_at": time.time(),
            "user_seconds": 0.0,
            "system_seconds": 0.0,
            "max_rss_kib": 0,
            "last_lines": [],
        }


class Unidentified(Exception):
    """A process lives where the binary ran, and nothing proves that it is the binary."""

    def __init__(self, pid: int) -> None:
        executable = executable_of(pid)
        problem = f"pid {pid} ({executable or 'unknown'}) is where the binary ran, but may be something else"
        super().__init__(problem)
        self.holder: Record = {"pid": pid, "executable": executable, "problem": problem}


def leftovers(binary: Binary) -> "list[int]":
    """The descendants of the ended ``binary`` that live."""
    found = []
    for pid in all_pids():
        try:
            if is_leftover(binary, pid):
                found.append(pid)
        except (OSError, IndexError, ValueError):
            continue
    return found


def is_leftover(binary: Binary, pid: int) -> bool:
    """Is ``pid`` a descendant of the ended ``binary``?

    As its parent and subreaper we have them all as children, sooner or later. Of an adopted binary they are
    those that prove it, by its marker in their environment or by holding the lock without having taken it.
    Its session or group prove nothing: these numbers may have been used again since it ended.
    """
    if pid == os.getpid():
        return False
    status = ProcessStat(pid)
    if status.state in "ZX":
        return False
    if binary.own or status.parent == os.getpid():
        return status.parent == os.getpid()
    return marks(binary.record, pid) or lock_holder_kind(pid, os.stat("lock")) == "inherited"


def marks(record: "Record", pid: int) -> bool:
    """Does ``pid`` descend from the incarnation of ``record``, by its environment?"""
    return has_in_environment(pid, f"{MARKER}={record['marker']}")


def complete(record: "Record") -> bool:
    """Find the process of a ``record`` that was saved before its process was there; return whether there is
    one.
    """
    found = []
    for pid in all_pids():
        try:
            status = ProcessStat(pid)
            if status.session == pid and status.state not in "ZX" and marks(record, pid):
                found.append((status.start_ticks, pid))
        except (OSError, IndexError, ValueError):
            continue
    if found:
        record["start_ticks"], record["pid"] = min(found)  # its descendants are younger
    return bool(found)


def identify(record: "Record") -> int:
    """Return a pidfd of the recorded process, -1 if it has ended. Raise Unidentified if neither is sure."""
    pid = record["pid"]
    try:
        pidfd = os.pidfd_open(pid)  # first: what we read then is of this very process, or it has ended
    except ProcessLookupError:
        return -1
    try:
        status = ProcessStat(pid)
    except OSError:
        os.close(pidfd)
        return -1
    if status.start_ticks != record["start_ticks"]:
        os.close(pidfd)
        return -1  # the pid was used again: ours has ended
    image = image_of(pid)
    # A wrapper script replaces itself by another executable, so what it inherited counts as well.
    if (
        status.state in "ZX"
        or image is None
        or image == record["image"]
        or marks(record, pid)
        or lock_holder_kind(pid, os.stat("lock")) == "inherited"
    ):
        return pidfd
    os.close(pidfd)
    raise Unidentified(pid)
