"""ProcessActor: one binary's custody from visor's side. It talks to one shim and decides nothing.

On start it attaches to the slot's shim, or has one started, and says what it found. When the shim dies the
actor attaches to a successor, which adopts the node. When the actor dies the node and its shim go on; its
successor attaches again, with a higher epoch, so that nothing the dead one may still send is obeyed.
"""

from __future__ import annotations

import os
import time

from msgspec import Struct
from msgspec.structs import replace

from visor_actors.actor import Actor, Context
from visor_actors.actors.addresses import LIFECYCLE, Slot
from visor_actors.actors.messages import (
    AcknowledgeExit,
    BinaryExited,
    BinaryRefused,
    BinaryStarted,
    DescribeSlot,
    SlotSeen,
    SlotUnreachable,
    StartBinary,
    StopBinary,
    WarmUp,
)
from visor_actors.actors.reports import BinaryReport, ExitReport
from visor_actors.actors.shim_patience import OVERDUE_SECONDS, ShimPatience
from visor_actors.actors.world import World
from visor_actors.home.errors import HomeUnusable
from visor_actors.home.lock import HomeLock, HomeLocked
from visor_actors.node.custody_errors import ShimGone, ShimReplaced, ShimUnavailable, ShimUnresponsive
from visor_actors.node.custody_types import (
    Exited,
    ExitRecord,
    LogsDropped,
    Refused,
    RunningBinary,
    ShimMessage,
    Started,
    StartRefused,
    StopProgress,
    StopStep,
)
from visor_actors.node.shim_client import ShimConnection
from visor_actors.telemetry.events import Event, Severity

RECONNECT_SECONDS = 0.5
"""How long to wait before a shim that could not be reached is tried again."""
HELD_SECONDS = 2.0
"""How often to look whether whoever holds the slot's lock is gone."""
OPEN_TIMEOUT_SECONDS = 5.0
LEAVE_SECONDS = 1.0


class _ShimReadable(Struct, frozen=True):
    """The shim said something, or is gone."""


class _Overdue(Struct, frozen=True):
    """The shim has not done what it was told to do."""


class _Connect(Struct, frozen=True):
    """Attach to the shim, starting one if need be."""


class ProcessActor(Actor):
    """The actor of one slot. Runs in its own thread; blocks for at most ``OPEN_TIMEOUT_SECONDS`` while
    attaching.
    """

    def __init__(self, context: Context, *, world: World, slot: Slot) -> None:
        super().__init__(context)
        self._world = world
        self._slot = slot
        self._shim: ShimConnection | None = None
        self._running: RunningBinary | None = None
        self._unacknowledged: dict[int, ExitRecord] = {}
        self._phase = "stopped"
        self._last_exit: ExitReport | None = None
        self._problem: str | None = None
        self._carried_out: int | None = None
        self._after = 0
        self._patience = ShimPatience(world.layout.slot(slot), world.monotonic, greeting=OPEN_TIMEOUT_SECONDS)
        self._stop_seconds = 0.0
        self._unguarded: str | None = None

    def init(self) -> None:
        """Attach, unless nothing ever ran here: then there is no shim to look for."""
        if self._slot is Slot.CORE or self._world.layout.slot(self._slot).exists():
            self.context.tell(self.context.address, _Connect())
        else:
            self._describe()

    def handle(self, message: object) -> None:
        """Obey the lifecycle, and pass on what the shim says."""
        match message:
            case _Connect():
                if self._shim is None:
                    self._connect()
            case _ShimReadable():
                self._receive()
            case _Overdue():
                self._lost("it does not do what it was told")
            case DescribeSlot():
                self._describe()
            case WarmUp():
                self._connect_if_needed()
            case StartBinary():
                self._start(message)
            case StopBinary():
                self._stop(message)
            case AcknowledgeExit(incarnation=incarnation):
                self._acknowledge(incarnation)
            case _:
                pass

    def terminate(self) -> None:
        """Detach: the node and its shim do not notice. Only when the node is down for good the shim may leave
        too.
        """
        if self._shim is not None:
            if self._world.intent.shims_may_leave:
                self._shim.leave_and_wait(LEAVE_SECONDS)  # so that nothing is left when visor ends
            self._shim.close()
            self._shim = None

    # the connection

    def _connect_if_needed(self) -> bool:
        if self._shim is None:
            self._connect()
        return self._shim is not None

    def _connect(self) -> None:
        if self.context.fenced:
            return  # hung and back again: the connection belongs to the successor
        # Nanoseconds since boot: greater for every later incarnation, in every later visor, whatever the
        # clock does; shims do not outlive the boot either.
        epoch = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        try:
            self._shim = ShimConnection.open(
                self._world.layout.slot(self._slot), epoch=epoch, timeout=OPEN_TIMEOUT_SECONDS
            )
        except ShimUnavailable as error:
            self._unreachable(str(error), error.next_step)
            if isinstance(error, ShimUnresponsive):
                self._end_unresponsive()
            return
        self._patience.answered()
        hello = self._shim.hello
        self.context.watch(self._shim.fileno(), _ShimReadable())
        self._running = hello.running
        self._unacknowledged.update((record.incarnation, record) for record in hello.exits)
        if not hello.tells_of_a_start(after=self._after):
            self._carried_out = None  # it went down with its shim: let it be repeated
        self._phase = "stopped"
        if hello.running is not None:
            self._phase = "stopping" if hello.running.stopping else "running"
            name, how = ("adopted", "adopted") if hello.running.adopted else ("attached", "attached to")
            words = f"{how} the running {self._slot.words}, pid {hello.running.pid}"
            self._emit(f"binary.{name}", words, pid=hello.running.pid)
        if hello.held_by is not None:
            self._held(hello.held_by.problem)
        else:
            self._problem = None
        self._describe()

    def _held(self, problem: str) -> None:
        if problem != self._problem:
            self._emit(
                "binary.slot-held",
                f"the {self._slot.words} is not started: {problem}",
                severity=Severity.ALARM,
                next_step="end the process that holds the slot, or wait for it; visor goes on by itself",
            )
        self._problem = problem
        self._drop_connection()
        self.context.after(HELD_SECONDS, _Connect(), key="connect")

    def _unreachable(self, problem: str, next_step: str | None) -> None:
        if problem != self._problem:
            self._emit(
                "shim.unreachable",
                f"the shim of the {self._slot.words} cannot be reached: {problem}",
                severity=Severity.ALARM,
                next_step=next_step,
            )
        self._problem = problem
        self._phase = "unreachable"
        self._publish()
        self.context.tell(LIFECYCLE, SlotUnreachable(slot=self._slot, problem=problem))
        self.context.after(RECONNECT_SECONDS, _Connect(), key="connect")

    def _end_unresponsive(self) -> None:
        if self._patience.exhausted():
            gone = self._patience.end()
            self._emit(
                "shim.ended",
                f"the shim of the {self._slot.words} did nothing any more and was "
                + ("ended; the node goes on" if gone else "killed, but does not end"),
                severity=Severity.ERROR,
            )

    def _expect(self, seconds: float) -> None:
        """The shim has that long to show that it does what it was told."""
        self.context.after(seconds + OVERDUE_SECONDS, _Overdue(), key="overdue")

    def _drop_connection(self) -> None:
        self.context.cancel("overdue")
        if self._shim is not None:
            self.context.unwatch(self._shim.fileno())
            self._shim.close()
            self._shim = None

    def _lost(self, problem: str) -> None:
        self._drop_connection()
        if self.context.fenced:
            return
        self._emit(
            "shim.lost",
            f"the connection to the shim of the {self._slot.words} is lost: {problem}; attaching again",
            severity=Severity.WARNING,
        )
        self._connect()

    def _replaced(self, problem: str) -> None:
        """Somebody newer has the slot: another visor, if the home's lock was deleted; to it we leave."""
        self._drop_connection()
        try:
            HomeLock.acquire(self._world.layout.root).release()
        except HomeLocked as locked:
            if locked.holder is not None and locked.holder.pid != os.getpid():
                if not self.context.fenced:
                    self._world.intent.depart(locked.exit_code, f"{locked}; the node is left to it")
                return
        except HomeUnusable as error:
            problem = f"{problem}; {error}"
        self._emit(
            "shim.lost",
            f"the connection to the shim of the {self._slot.words} is lost: {problem}",
            severity=Severity.WARNING,
        )
        self.context.after(RECONNECT_SECONDS, _Connect(), key="connect")

    # what the shim says

    def _receive(self) -> None:
        if self._shim is None:
            return
        try:
            messages = self._shim.receive()
        except ShimReplaced as error:
            self._replaced(str(error))
            return
        except ShimGone as error:
            self._lost(str(error))
            return
        for message in messages:
            self._note_progress(message)
            match message:
                case Started(binary=binary, unguarded=unguarded):
                    self._running, self._phase = binary, "running"
                    self._say_unguarded(unguarded)
                    self.context.tell(LIFECYCLE, BinaryStarted(slot=self._slot, binary=binary))
                case StartRefused(problem=problem, next_step=next_step):
                    self._phase = "stopped"
                    self.context.tell(
                        LIFECYCLE, BinaryRefused(slot=self._slot, problem=problem, next_step=next_step)
                    )
                case Exited(record=record):
                    self._exited(record)
                case StopProgress(step=StopStep.NOTHING_RUNS):
                    self._running, self._phase = None, "stopped"
                    self._describe()
                case StopProgress(step=StopStep.SIGNALLED):
                    self._stopping()
                case StopProgress(step=step, detail=detail):
                    self._emit(
                        f"binary.stop-{step.value}",
                        f"stopping the {self._slot.words}: {detail or step.value}",
                        severity=Severity.WARNING,
                    )
                case LogsDropped(dropped=dropped, total=total, problem=problem):
                    self._emit(
                        "logs.dropped",
                        f"{dropped} bytes of the {self._slot.words}'s output were dropped: {problem}",
                        severity=Severity.ALARM,
                        next_step="free disk space; the node itself is not affected",
                        dropped=dropped,
                        total=total,
                    )
                case Refused(problem=problem):
                    self._emit("shim.refused", f"the shim refused: {problem}", severity=Severity.ERROR)
        self._publish()

    def _say_unguarded(self, reason: str | None) -> None:
        if reason is not None and reason != self._unguarded:
            self._emit(
                "binary.unguarded",
                f"the {self._slot.words} runs without a lock in its own home: {reason}",
                severity=Severity.WARNING,
                next_step="let its arguments name a home (--home) that visor can write to, and run no second "
                "visor on this node",
            )
        self._unguarded = reason

    def _note_progress(self, message: ShimMessage) -> None:
        """A shim that shows progress is left alone: what takes its time is the binary."""
        match message:
            case StopProgress(step=StopStep.SIGNALLED):
                self._expect(self._stop_seconds)
            case Started() | StartRefused() | Exited() | StopProgress():
                self.context.cancel("overdue")
            case LogsDropped() | Refused():
                pass

    def _stopping(self) -> None:
        self._phase = "stopping"
        if self._running is not None:
            self._running = replace(self._running, stopping=True)

    def _exited(self, record: ExitRecord) -> None:
        self._running, self._phase = None, "stopped"
        self._unacknowledged[record.incarnation] = record
        self._last_exit = ExitReport(
            code=record.code,
            signal=record.signal,
            requested=record.requested,
            at=record.ended_at,
            lines=record.last_lines,
        )
        self.context.tell(LIFECYCLE, BinaryExited(slot=self._slot, record=record))

    # what the lifecycle wants

    def _start(self, message: StartBinary) -> None:
        if message.number == self._carried_out or not self._connect_if_needed():
            return
        assert self._shim is not None
        self._carried_out, self._after = message.number, message.after
        try:
            self._shim.start(message.order, after=message.after)
        except ShimGone as error:
            self._lost(str(error))
            return
        self._expect(0.0)
        self._phase = "starting"
        self._publish()

    def _stop(self, message: StopBinary) -> None:
        if self._shim is None:
            # Whoever attaches next finds the node running and the lifecycle says stop again.
            self._describe()
            return
        try:
            self._shim.stop(signal=message.signal, timeout=message.timeout)
        except ShimGone as error:
            self._lost(str(error))
            return
        self._stop_seconds = message.timeout
        self._expect(0.0)
        self._stopping()
        self._publish()

    def _acknowledge(self, incarnation: int) -> None:
        self._unacknowledged.pop(incarnation, None)
        if self._shim is None:
            return
        try:
            self._shim.acknowledge(incarnation)
        except ShimGone as error:
            self._lost(str(error))

    # what others are told

    def _describe(self) -> None:
        self._publish()
        if self._problem is not None and self._shim is None:
            self.context.tell(LIFECYCLE, SlotUnreachable(slot=self._slot, problem=self._problem))
            return
        if self._shim is None and self._slot is Slot.CORE:
            return  # the connection is being made; it describes the slot when it stands
        self.context.tell(
            LIFECYCLE,
            SlotSeen(
                slot=self._slot,
                running=self._running,
                exits=tuple(self._unacknowledged.values()),
                shim_pid=self._shim.hello.shim_pid if self._shim is not None else None,
            ),
        )

    def _publish(self) -> None:
        running = self._running
        custody = "none" if running is None else "adopted" if running.adopted else "attached"
        self._world.board.publish(
            f"binary:{self._slot.value}",
            BinaryReport(
                slot=self._slot.value,
                phase=self._phase,
                custody=custody,
                pid=running.pid if running is not None else None,
                shim_pid=self._shim.hello.shim_pid if self._shim is not None else None,
                started_at=running.started_at if running is not None else None,
                argv=running.argv if running is not None else (),
                last_exit=self._last_exit,
                problem=self._problem,
            ),
        )

    def _emit(
        self,
        name: str,
        message: str,
        *,
        severity: Severity = Severity.INFO,
        next_step: str | None = None,
        **fields: str | int | float | bool | None,
    ) -> None:
        self._world.bus.emit(
            Event(
                name=name,
                message=message,
                severity=severity,
                next_step=next_step,
                fields={"slot": self._slot.value, **fields},
            )
        )
