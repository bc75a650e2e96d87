"""The binary of the slot: starting, stopping and ending it, and finding it again.

At any time the slot is vacant, or there is one :class:`Binary`: running, or ended with leftovers that are
still being ended. An exit is told when nothing of it is left and the slot's lock is free, never earlier.
"""

# contextlib.suppress would cost 1 MiB of memory in every shim

import fcntl
import os
import select
import time

from visor_actors.shim.binary import Binary, Unidentified, complete, identify, is_leftover, leftovers
from visor_actors.shim.capture import Capture
from visor_actors.shim.explain import Refusal
from visor_actors.shim.lean import note, signal
from visor_actors.shim.order import Order
from visor_actors.shim.processes import (
    ProcessStat,
    find_lock_holder,
    image_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from visor_actors.shim.lean import Record
    from visor_actors.shim.loop import Loop
    from visor_actors.shim.state import State

DROP_REPORT_SECONDS = 1.0
BUSY_SECONDS = 0.005  # output that comes faster than this is looked at no more often than this


class Custody:
    """Owns the slot. ``tell`` sends to the client; ``vacated`` is called whenever the slot has become
    vacant.
    """

    def __init__(
        self, loop: "Loop", state: "State", tell: "Callable[[Record], None]", vacated: "Callable[[], None]"
    ) -> None:
        self.binary: Binary | None = None
        self.held: Record | None = None  # who else holds the slot, when examined last
        self._loop = loop
        self._state = state
        self._tell = tell
        self._vacated = vacated
        self._capture: Capture | None = None
        self._last_move = 0.0
        folder = os.stat(".")
        self._folder = [folder.st_dev, folder.st_ino]
        os.close(os.open("lock", os.O_RDWR | os.O_CREAT, 0o600))  # from here on it exists

    # what others may ask

    def describe(self) -> "Record | None":
        """The binary as clients are told of it; None while the slot is vacant or a start is not through
        yet.
        """
        binary = self.binary
        if binary is None:
            return None
        shown = ("incarnation", "pid", "start_ticks", "boot_id", "executable", "argv", "started_at")
        told = {key: binary.record[key] for key in shown}
        told["adopted"] = not binary.own
        told["stopping"] = bool(binary.record["stopping"] or binary.pidfd < 0)
        return told

    def save(self) -> None:
        """Write the state; where that fails now (a full disk), try again until it succeeds."""
        self._loop.cancel("save")
        try:
            self._state.save()
        except OSError as error:
            note(f"the state cannot be written: {error}")
            self._loop.after(1.0, "save", self.save)

    def save_soon(self) -> None:
        """Write the state unless something writes it anyway within 20 ms: an acknowledgement is mostly
        followed by a start.
        """
        self._state.dirty = True
        self._loop.after(0.02, "save", self.save)

    # starting

    def start(self, request: int, wanted: "Record", passed: "list[int]", after: int = 0) -> None:
        """Start a binary as ``wanted``, numbered beyond ``after``, with ``passed`` as stdout and stderr.
        Raise Refusal if it cannot be.
        """
        if self.binary is not None:
            raise Refusal("running", f"pid {self.binary.pid} already runs in this slot", "stop it first")
        order = Order(wanted)
        opened: list[int] = []
        try:
            if self._state.running is not None:
                self.examine_slot()  # somebody unidentified was there; it may have ended meanwhile
            lock = self._take_lock() if self._state.running is None else -1
            opened.append(lock)
            if lock < 0:
                self.examine_slot()
                problem = self.held["problem"] if self.held else "what ran before has not ended yet"
                raise Refusal("held", str(problem), "end that process if it is not wanted, then start again")
            self.held = None
            locks = [fd for fd in (lock, order.take_home_lock()) if fd >= 0]
            opened += locks[1:]
            self._state.incarnation = max(self._state.incarnation, after)
            null = os.open("/dev/null", os.O_RDWR)
            opened.append(null)
            out, err = passed if len(passed) == 2 else (null, null)
            if order.output is not None:
                out = err = self._open_output(order)
                opened.append(out)
            self._launch(order, locks, null, out, err)
            self._tell({"is": "started", "request": request, "binary": self.describe()})
        except OSError as error:
            problem = f"the start failed: {error}"
            raise Refusal("resources", problem, "check the disk, memory and limits") from None
        finally:
            for fd in opened:
                if fd >= 0:
                    os.close(fd)
            if self.binary is None:
                self._end_capture()

    def _take_lock(self) -> int:
        """Return a descriptor that holds the slot's lock, or -1."""
        fd = os.open("lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return -1
        return fd

    def _lock_is_free(self) -> bool:
        """A lock that was deleted, with its folder perhaps, is free; one that cannot be looked at is not."""
        try:
            fd = os.open("lock", os.O_RDONLY)
        except OSError as error:
            return isinstance(error, FileNotFoundError)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _launch(self, order: Order, locks: "list[int]", null: int, out: int, err: int) -> Binary:
        # Rule: on record before it runs. Its pid is not known then; its marker is, and it holds the lock.
        record: Record = {
            "incarnation": self._state.incarnation + 1,
            "pid": 0,
            "start_ticks": 0,
            "boot_id": self._state.boot_id,
            "executable": order.executable,
            "argv": order.argv,
            "started_at": time.time(),
            "stopping": False,
            "image": None,
            "marker": os.urandom(8).hex(),
            "output": order.output,
            "folder": self._folder,
        }
        self._state.incarnation += 1
        self._state.running = record
        pid = 0
        try:
            self._state.save()
            pid = order.launch(record["marker"], null, out, err, locks)
            pidfd = os.pidfd_open(pid)
            record["pid"], record["start_ticks"] = pid, ProcessStat(pid).start_ticks
        except (Refusal, OSError):
            if pid:
                os.kill(pid, signal.SIGKILL)  # not to be watched, so not to be kept
                os.waitpid(pid, 0)
            self._state.running = None
            self.save()
            raise
        self._loop.cancel("linger")
        binary = self.binary = Binary(record, pidfd, own=True)
        self._loop.watch(pidfd, lambda _: self._on_leader(binary))
        record["image"] = image_of(pid)
        self.save()
        return binary

    def refuse(self, request: int, refusal: Refusal) -> None:
        """Tell the client that its start was not carried out."""
        told = {"kind": refusal.kind, "problem": refusal.problem, "next_step": refusal.next_step}
        self._tell({"is": "start-refused", "request": request, **told})

    # stopping

    def stop(self, request: int, number: int, timeout: float) -> None:
        """Signal the leader; SIGKILL to all after ``timeout`` seconds. A newer stop replaces an older one."""
        binary = self.binary
        if binary is None:
            self._tell({"is": "progress", "request": request, "step": "nothing-runs", "detail": ""})
            return
        binary.stop_request = request
        if binary.pidfd < 0:
            self._progress(binary, "leftovers", "it has ended; what it left behind is being ended")
            return
        binary.record["stopping"] = True
        self._loop.after(timeout, "stop", lambda: self._kill(binary))
        binary.signal(number)
        try:
            if ProcessStat(binary.pid).state in "tT":
                binary.signal(signal.SIGCONT)  # a stopped process cannot act on the signal otherwise
        except (OSError, IndexError):
            pass
        self._progress(binary, "signalled", f"signal {number} to pid {binary.pid}")
        self.save_soon()

    def _kill(self, binary: Binary) -> None:
        if self.binary is binary and binary.pidfd >= 0:
            binary.kill()
            self._progress(binary, "killed", f"SIGKILL to pid {binary.pid}")

    def _progress(self, binary: Binary, step: str, detail: str) -> None:
        self._tell({"is": "progress", "request": binary.stop_request, "step": step, "detail": detail})

    # ending

    def _on_leader(self, binary: Binary) -> None:
        if self.binary is not binary or binary.pidfd < 0:
            return
        record = binary.exit_record()
        if binary.own:
            if os.waitid(os.P_PID, binary.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return
            binary.kill()
            _, status, usage = os.wait4(binary.pid, 0)
            record["known"] = True
            if os.WIFSIGNALED(status):
                record["signal"] = os.WTERMSIG(status)
            else:
                record["code"] = os.WEXITSTATUS(status)
            record["user_seconds"], record["system_seconds"] = usage.ru_utime, usage.ru_stime
            record["max_rss_kib"] = usage.ru_maxrss
        self._loop.unwatch(binary.pidfd)
        self._loop.cancel("stop")
        os.close(binary.pidfd)
        binary.pidfd = -1
        self._leader_gone(binary, record)

    def _leader_gone(self, binary: Binary, record: "Record") -> None:
        """If nothing else is left of it (the rule), say so at once; otherwise end that first."""
        if self._capture is not None:
            self._capture.drain()
            record["last_lines"] = self._capture.last_lines() or record["last_lines"]
            self._report_dropped()
        self._state.ended = record
        if self._nothing_left(binary):
            self._settle(record)
        else:
            self.save()
            self._sweep(binary, record)

    def _settle(self, record: "Record") -> None:
        self._state.add_exit(record)
        self._state.ended = self._state.running = self.binary = None
        self.save()
        self._tell({"is": "exited", "record": record})
        self._end_capture()
        self._vacated()

    def _nothing_left(self, binary: Binary) -> bool:
        return not self.reap() and self._lock_is_free() and (binary.own or not leftovers(binary))

    def _sweep(self, binary: Binary, record: "Record") -> None:
        """End what the binary left behind; again and again, until nothing is left."""
        if self.binary is not binary:
            return
        for pid in leftovers(binary):
            try:
                pidfd = os.pidfd_open(pid)
                try:
                    if is_leftover(binary, pid):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)
            except (OSError, IndexError):
                continue
        if self._nothing_left(binary):
            self._settle(record)
            return
        binary.sweeps += 1
        if binary.sweeps == 8 or binary.sweeps % 64 == 0:
            free = self._lock_is_free()
            self._progress(
                binary, "leftovers", "descendants do not end" if free else find_lock_holder()["problem"]
            )
        delay = min(0.2, 0.001 * 2 ** min(binary.sweeps, 8))
        self._loop.after(delay, "sweep", lambda: self._sweep(binary, record))

    def reap(self) -> bool:
        """Reap children other than the leader; return whether any child is still there."""
        binary = self.binary
        leader = binary.pid if binary is not None and binary.own and binary.pidfd >= 0 else 0
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return False
            if ended is None or ended.si_pid == leader:
                return True
            os.waitpid(ended.si_pid, os.WNOHANG)

    # finding the slot as another shim left it

    def examine_slot(self) -> None:
        """Find out what is here: nothing, a binary to adopt, its leftovers, or something nobody can
        identify.
        """
        if self.binary is not None:
            return
        self.held = None
        record = self._state.running
        if record is not None and record.get("folder", self._folder) != self._folder:
            # This folder is a copy of that one; what ran there is not ours to adopt, nor to end.
            record = self._state.running = self._state.ended = None
        if record is not None and not record["pid"] and not complete(record):
            # A shim died while it started this one. If the lock is free it never ran, or not any more; if
            # not, it is on its way.
            record = None
            if self._lock_is_free():
                self._state.running = None
        if record is None:
            self.held = None if self._lock_is_free() else find_lock_holder()
            return
        try:
            pidfd = self._find(record)
        except Unidentified as unidentified:
            self.held = unidentified.holder
            return
        binary = self.binary = Binary(record, pidfd, own=False)
        if record["output"] and self._capture is None:
            try:
                self._watch_capture(Capture(record["output"]))
            except (OSError, KeyError, ValueError) as error:
                note(f"output not captured: {error}")
        if pidfd >= 0:
            self._loop.watch(pidfd, lambda _: self._on_leader(binary))
        else:
            self._leader_gone(binary, self._state.ended or binary.exit_record())

    def _find(self, record: "Record") -> int:
        """Return a pidfd of the recorded process, or -1 if it has ended. Raise Unidentified if neither is
        sure.
        """
        if record["boot_id"] != self._state.boot_id or self._state.ended is not None:
            return -1
        return identify(record)

    # output

    def _open_output(self, order: Order) -> int:
        """Prepare the capture and return the binary's end of it."""
        self._end_capture()
        try:
            capture = Capture(order.output or {})
            self._watch_capture(capture)
            capture.open_file()
            out = os.open("output", os.O_RDWR)
            if order.identity is not None:
                os.fchown(out, order.identity[0], order.identity[1])
        except (OSError, KeyError, ValueError) as error:
            problem = f"the log cannot be opened: {error}"
            raise Refusal("output", problem, "check the log folder") from None
        return out

    def _watch_capture(self, capture: Capture) -> None:
        self._capture = capture
        self._loop.watch(capture.fifo, lambda _: self._on_output(capture))

    def _on_output(self, capture: Capture) -> None:
        now = time.monotonic()
        moved = capture.move()
        if moved < 65536 and now - self._last_move < BUSY_SECONDS:
            # Many small writes: look again in a moment, not at each of them. The pipe holds 1 MiB meanwhile.
            self._loop.modify(capture.fifo, 0)
            self._loop.after(BUSY_SECONDS, "output", lambda: self._loop.modify(capture.fifo, select.EPOLLIN))
        self._last_move = now
        if capture.dropped and not self._loop.armed("dropped"):
            self._loop.after(DROP_REPORT_SECONDS, "dropped", self._report_dropped)

    def _report_dropped(self) -> None:
        capture = self._capture
        self._loop.cancel("dropped")
        if capture is not None and capture.dropped:
            told, capture.dropped = capture.dropped, 0
            told_of = {"bytes": told, "total": capture.dropped_total, "problem": capture.problem}
            self._tell({"is": "dropped", **told_of})

    def _end_capture(self) -> None:
        if self._capture is not None:
            self._loop.unwatch(self._capture.fifo)
            self._loop.cancel("output")
            self._capture.close()
            self._capture = None
