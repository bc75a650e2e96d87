"""The binary of a slot, and telling it and its descendants from everything else that runs."""

# ruff: noqa: SIM105  # contextlib.suppress would cost 1 MiB of memory in every shim

import os
import time

from visor_actors.shim.gate import Gate, find_gate
from visor_actors.shim.lean import signal
from visor_actors.shim.order import MARKER
from visor_actors.shim.processes import (
    ProcessStat,
    all_pids,
    executable_of,
    image_of,
    is_our_trouble,
    variable_of,
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
        self.home_gate: Gate | None = None  # the second gate, in the node's own home

    def signal(self, number: int) -> None:
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except (ProcessLookupError, PermissionError):
                pass  # ended; or, with set-user-id, not ours to signal

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
            "earlier_boot": False,
        }


class Unidentified(Exception):
    """A process lives where the binary ran, and nothing proves that it is the binary."""

    def __init__(self, pid: int) -> None:
        executable = executable_of(pid)
        problem = f"pid {pid} ({executable or 'unknown'}) is where the binary ran, but may be something else"
        super().__init__(problem)
        self.holder: Record = {"pid": pid, "executable": executable, "problem": problem}


def leftovers(binary: Binary, gate: "Gate") -> "list[int]":
    """The descendants of the ended ``binary`` that live. Raises OSError if that cannot be found out now."""
    found = []
    for pid in all_pids():
        try:
            if is_leftover(binary, pid, gate):
                found.append(pid)
        except (IndexError, ValueError):
            continue
        except OSError as error:
            if is_our_trouble(error):
                raise
    return found


def is_leftover(binary: Binary, pid: int, gate: "Gate") -> bool:
    """Is ``pid`` a descendant of the ended ``binary``?

    As its parent and subreaper we have them all as children, sooner or later. Of an adopted binary they are
    those that prove it, by its marker in their environment or by holding the slot's lock (``gate``) without
    having taken it.
    Its session or group prove nothing: these numbers may have been used again since it ended.
    """
    if pid == os.getpid():
        return False
    status = ProcessStat(pid)
    if status.state in "ZX":
        return False
    if binary.own or status.parent == os.getpid():
        return status.parent == os.getpid()
    return marks(binary.record, pid) or gate.held_by(pid) == "inherited"


def find_home_gate(record: "Record") -> "Gate | None":
    """The second gate of an adopted binary, if it is still where it was."""
    kept = record.get("home_lock")  # absent in the records of an earlier release
    if not kept:
        return None
    path, *identity = kept
    try:
        gate = find_gate(path, f"the lock {path} of the node's own home")
    except OSError:
        return None
    if gate.identity == identity:
        return gate
    gate.close()
    return None


def holds_home(binary: Binary) -> bool:
    """Is the gate in the node's own home still held by something of ``binary``?

    Once ours have let go of it, another visor on the same node may have taken it: that is not ours to wait
    for, nor to end. Whoever does not prove to be another's counts as ours.
    """
    gate = binary.home_gate
    if gate is None or gate.is_free():
        return False
    pid = gate.holder()["pid"]
    return pid is None or variable_of(pid, MARKER) in (None, binary.record["marker"])


def marks(record: "Record", pid: int) -> bool:
    """Does ``pid`` descend from the incarnation of ``record``, by its environment?"""
    return variable_of(pid, MARKER) == str(record["marker"])


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
        except (IndexError, ValueError):
            continue
        except OSError as error:
            if is_our_trouble(error):
                raise
    if found:
        record["start_ticks"], record["pid"] = min(found)  # its descendants are younger
    return bool(found)


def identify(record: "Record", gate: "Gate") -> int:
    """Return a pidfd of the recorded process, -1 if it has ended. Raise Unidentified if neither is sure,
    OSError if it cannot be found out now.
    """
    pid = record["pid"]
    try:
        pidfd = os.pidfd_open(pid)  # first: what we read then is of this very process, or it has ended
    except ProcessLookupError:
        return -1
    try:
        status = ProcessStat(pid)
    except OSError as error:
        os.close(pidfd)
        if is_our_trouble(error):
            raise
        return -1
    if status.start_ticks != record["start_ticks"]:
        os.close(pidfd)
        return -1  # the pid was used again: ours has ended
    image = image_of(pid)
    try:
        # A wrapper script replaces itself by another executable, so what it inherited counts as well.
        if (
            status.state in "ZX"
            or image is None
            or image == record["image"]
            or marks(record, pid)
            or gate.held_by(pid) == "inherited"
        ):
            return pidfd
    except OSError:
        os.close(pidfd)
        raise
    os.close(pidfd)
    raise Unidentified(pid)
