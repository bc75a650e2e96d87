"""The binary of the slot: starting, stopping and ending it, and finding it again.

At any time the slot is vacant, or there is one :class:`Binary`: running, or ended with leftovers that are
still being ended. An exit is told when nothing of it is left and its locks are free, never earlier. Once a
binary has ended, whatever fails is tried again: an exit is never lost.
"""

# contextlib.suppress would cost 1 MiB of memory in every shim

import os
import sys
import time

from visor_actors.shim.binary import (
    Binary,
    Unidentified,
    complete,
    find_home_gate,
    holds_home,
    identify,
    is_leftover,
    leftovers,
)
from visor_actors.shim.explain import Refusal
from visor_actors.shim.gate import Gate, make_gate
from visor_actors.shim.lean import note, signal
from visor_actors.shim.order import Order
from visor_actors.shim.output import Output
from visor_actors.shim.processes import ProcessStat, image_of, is_our_trouble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from visor_actors.shim.lean import Record
    from visor_actors.shim.loop import Loop
    from visor_actors.shim.state import State


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
        self._output = Output(loop, tell)
        self._gate = make_gate("lock", "the slot's lock")

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
        Raise Refusal if it cannot be, whatever the reason.
        """
        if self.binary is not None:
            if self.binary.pidfd < 0:
                problem = f"what pid {self.binary.pid} has left behind is still being ended"
                raise Refusal("running", problem, "wait, or end those processes")
            raise Refusal("running", f"pid {self.binary.pid} already runs in this slot", "stop it first")
        opened: list[int] = []
        home_gate: Gate | None = None
        try:
            order = Order(wanted)
            locks = opened[:] = [self._take_lock()]
            self.held = None
            home_gate, second, unguarded = self._take_home_lock(order)
            if home_gate is not None:
                locks.append(second)
            self._state.incarnation = max(self._state.incarnation, after)
            opened = [*locks, os.open("/dev/null", os.O_RDWR)]
            null = opened[-1]
            out, err = passed if len(passed) == 2 else (null, null)
            if order.output is not None:
                out = err = self._output.open(order)
                opened.append(out)
            self._launch(order, home_gate, locks, null, out, err)
        except OSError as error:
            problem = f"the start failed: {error}"
            raise Refusal("resources", problem, "check the disk, memory and limits") from None
        except Refusal:
            raise
        except Exception as error:
            sys.excepthook(*sys.exc_info())
            raise Refusal("unknown", f"the shim failed: {error!r}", "report this as a bug") from None
        finally:
            for fd in opened:
                os.close(fd)
            if self.binary is None:
                self._output.end()
                if home_gate is not None:
                    home_gate.close()
        self._tell({"is": "started", "request": request, "binary": self.describe(), "unguarded": unguarded})

    def _take_lock(self) -> int:
        """Return a descriptor that holds the slot's lock; raise Refusal if something has it, or may have."""
        if self._state.running is not None:
            self.examine_slot()  # somebody unidentified was there; it may have ended meanwhile
        if not self._gate.is_named() and self._gate.is_free():
            former, self._gate = self._gate, make_gate("lock", self._gate.title)  # it was deleted
            former.close()
        lock = self._gate.take() if self._state.running is None else -1
        if lock < 0:
            self.examine_slot()
            problem = self.held["problem"] if self.held else "what ran before has not ended yet"
            raise _held(str(problem))
        return lock

    def _take_home_lock(self, order: Order) -> "tuple[Gate | None, int, str | None]":
        """Take the lock in the node's own home: return it with a descriptor that holds it, or say why
        there is none. Raise Refusal if somebody else has it.

        It is the gate where the slot's lock is none: between two copies of visor's home, and when the slot's
        folder was deleted under a running binary.
        """
        if not order.home_lock:
            return None, -1, "its arguments name no home folder (--home)"
        gate = None
        try:
            path = os.path.join(order.directory, order.home_lock)
            gate = make_gate(path, f"the lock {path} of the node's own home", order.owner)
            lock = gate.take()
        except OSError as error:
            if gate is not None:
                gate.close()
            if is_our_trouble(error):
                raise
            return None, -1, f"{path}: {error.strerror}"
        if lock >= 0:
            return gate, lock, None
        try:
            raise _held(f"the node runs already: {gate.holder()['problem']}")
        finally:
            gate.close()

    def _launch(
        self, order: Order, home_gate: "Gate | None", locks: "list[int]", null: int, out: int, err: int
    ) -> None:
        # Rule: on record before it runs. Its pid is not known then; its marker is, and it holds the locks.
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
            "home_lock": None if home_gate is None else [home_gate.path, *home_gate.identity],
        }
        self._state.incarnation += 1
        self._state.running = record
        pid, pidfd = 0, -1
        try:
            self._state.save()
            pid = order.launch(record["marker"], null, out, err, locks)
            pidfd = os.pidfd_open(pid)
            record["pid"], record["start_ticks"] = pid, ProcessStat(pid).start_ticks
            binary = Binary(record, pidfd, own=True)
            self._loop.watch(pidfd, lambda _: self._on_leader(binary))
        except BaseException:
            if pid:
                os.killpg(pid, signal.SIGKILL)  # not to be watched, so not to be kept
                os.waitpid(pid, 0)
            if pidfd >= 0:
                os.close(pidfd)
            self._state.running = None
            self.save()
            raise
        self._loop.cancel("linger")
        binary.home_gate = home_gate
        self.binary = binary
        record["image"] = image_of(pid)
        self.save()

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
        self._state.ended = record
        self._sweep_soon(binary, record)
        try:
            self._output.finish(record)
            if self._nothing_left(binary):
                self._settle(record)
                return
        except OSError as error:
            note(f"the end of pid {binary.pid}: {error}; trying again")
        self.save()
        self._sweep(binary, record)

    def _settle(self, record: "Record") -> None:
        self._loop.cancel("sweep")
        if self.binary is not None and self.binary.home_gate is not None:
            self.binary.home_gate.close()
        self._state.add_exit(record)
        self._state.ended = self._state.running = self.binary = None
        self.save()
        self._tell({"is": "exited", "record": record})
        self._output.end()
        self._vacated()

    def _nothing_left(self, binary: Binary) -> bool:
        """Raises OSError if it cannot be found out now."""
        return (
            not self.reap()
            and self._gate.is_free()
            and not holds_home(binary)
            and (binary.own or not leftovers(binary, self._gate))
        )

    def _sweep_soon(self, binary: Binary, record: "Record") -> None:
        delay = min(0.2, 0.001 * 2 ** min(binary.sweeps, 8))
        self._loop.after(delay, "sweep", lambda: self._sweep(binary, record))

    def _sweep(self, binary: Binary, record: "Record") -> None:
        """End what the binary left behind; again and again, until nothing is left."""
        if self.binary is not binary:
            return
        binary.sweeps += 1
        self._sweep_soon(binary, record)  # before anything that may fail
        try:
            for pid in leftovers(binary, self._gate):
                self._end_leftover(binary, pid)
            if self._nothing_left(binary):
                self._settle(record)
                return
            problem = self._what_is_left(binary)
        except OSError as error:
            problem = f"whether anything is left cannot be found out: {error}"
        if binary.sweeps == 8 or binary.sweeps % 64 == 0:
            note(f"the end of pid {binary.pid}: {problem}")
            self._progress(binary, "leftovers", problem)

    def _end_leftover(self, binary: Binary, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if is_leftover(binary, pid, self._gate):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except (OSError, IndexError):
            pass
        finally:
            os.close(pidfd)

    def _what_is_left(self, binary: Binary) -> str:
        if not self._gate.is_free():
            return str(self._gate.holder()["problem"])
        if binary.home_gate is not None and not binary.home_gate.is_free():
            return str(binary.home_gate.holder()["problem"])
        return "descendants do not end"

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
        if record is not None and not record["pid"] and not complete(record):
            # A shim died while it started this one. If the lock is free it never ran, or not any more; if
            # not, it is on its way.
            record = None
            if self._gate.is_free():
                self._state.running = None
        if record is None:
            self.held = None if self._gate.is_free() else self._gate.holder()
            return
        try:
            pidfd = self._find(record)
        except Unidentified as unidentified:
            self.held = unidentified.holder
            return
        binary = self.binary = Binary(record, pidfd, own=False)
        binary.home_gate = find_home_gate(record)
        self._output.resume(record["output"])
        if pidfd >= 0:
            self._loop.watch(pidfd, lambda _: self._on_leader(binary))
        else:
            ended = binary.exit_record()
            ended["earlier_boot"] = record["boot_id"] != self._state.boot_id
            self._leader_gone(binary, self._state.ended or ended)

    def _find(self, record: "Record") -> int:
        """Return a pidfd of the recorded process, or -1 if it has ended. Raise Unidentified if neither is
        sure.
        """
        if record["boot_id"] != self._state.boot_id or self._state.ended is not None:
            return -1
        return identify(record, self._gate)


def _held(problem: str) -> Refusal:
    return Refusal("held", problem, "end that process if it is not wanted, then start again")
