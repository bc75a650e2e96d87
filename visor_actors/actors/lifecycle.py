"""LifecycleActor: keeps the node up. The thin shell around
:class:`~visor_actors.actors.node_machine.NodeMachine`.

It turns messages into events of the machine and carries out the machine's effects. Its memory is small and
not needed for correctness: what runs is known by the shims, the count of restarts is in the journal, and what
should run is known by the upgrade coordinator, which it asks before every start.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

from visor_actors.actor import Actor, Context, JobDone, JobFailed
from visor_actors.actors.addresses import RPC_LISTENER, UPGRADE_COORDINATOR, Slot
from visor_actors.actors.config_watcher import ConfigChanged
from visor_actors.actors.launching import Launch, Launcher, LaunchFailed, describe_exit
from visor_actors.actors.messages import (
    AcknowledgeExit,
    BinaryExited,
    BinaryRefused,
    BinaryStarted,
    Budget,
    CoreAnswered,
    CoreSilent,
    DescribeNode,
    DescribeSlot,
    ForgetRestarts,
    HoldOrder,
    Listen,
    NodePhase,
    NodeState,
    Occasion,
    RecycleNode,
    RunOrder,
    SlotSeen,
    SlotUnreachable,
    StartBinary,
    StopBinary,
    StopListening,
    StopNode,
    StopPurpose,
    WarmUp,
    WhoRuns,
)
from visor_actors.actors.node_machine import (
    ArmDelay,
    Ask,
    BudgetChanged,
    CancelDelay,
    CountRestarts,
    DelayPassed,
    Down,
    Failed,
    Goal,
    Held,
    LaunchImpossible,
    LaunchPlanned,
    Leave,
    NodeEffect,
    NodeEvent,
    NodeMachine,
    NodeWedged,
    Ordered,
    PlanLaunch,
    RecycleAsked,
    SlotExited,
    SlotLost,
    SlotRefused,
    SlotReported,
    SlotStarted,
    StableLongEnough,
    StartSlot,
    StopAsked,
    StopSlot,
    Up,
)
from visor_actors.actors.reports import NodeReport
from visor_actors.actors.witnesses import LAST_EXIT_KEY
from visor_actors.actors.world import World
from visor_actors.home.errors import ConfigurationInvalid, JournalUnavailable
from visor_actors.home.journal import Journal, Json
from visor_actors.home.run_config import BinaryConfig, RunConfig, load_run_config
from visor_actors.node.custody_types import ExitRecord, RunningBinary
from visor_actors.node.height import StartKind, refused_height
from visor_actors.telemetry.events import Event, Severity

RESTARTS_KEY = "lifecycle.restarts"
INCARNATION_KEY = "lifecycle.core-incarnation"
CLEAN_KEY = "lifecycle.clean"
"""Whether the node's last end was asked for. Absent before the first start, and after a power cut ``false``.
"""
LIVED_KEY = "lifecycle.core-lived"
ASK_AGAIN_SECONDS = 1.0
FAILED_START = 255
"""With this code a node ends that cannot start, for whatever reason."""
AT_ONCE_SECONDS = 10.0
LIVED_SECONDS = 30.0
"""A core that lived this long has got somewhere, even if nobody saw it answer."""


@dataclass(frozen=True, slots=True)
class _Delay:
    """The restart delay is over."""


@dataclass(frozen=True, slots=True)
class _Stable:
    """The node has been up for ``restartsResetAfterSeconds``."""


@dataclass(frozen=True, slots=True)
class _AskAgain:
    """The coordinator may have missed the question, or have changed its mind."""


class LifecycleActor(Actor):
    """The node's lifecycle and restart budget; a child of the supervisor ``node``, started after the process
    actors.
    """

    def __init__(self, context: Context, *, world: World) -> None:
        super().__init__(context)
        self._world = world
        # Questions and orders are numbered beyond those of every earlier incarnation: none is taken for
        # another.
        self._machine = NodeMachine(
            restarts_max=world.settings.current.max_number_of_restarts, ask=context.generation * 1_000_000
        )
        self._launcher = Launcher(world)
        self._journal: Journal | None = None
        self._consumed: set[tuple[Slot, int]] = set()
        self._running: dict[Slot, RunningBinary] = {}
        self._incarnations: dict[Slot, int] = {}
        self._run_config: RunConfig | None = None
        self._launch: Launch | None = None
        self._planning: PlanLaunch | None = None
        self._listening_to: str | None = None
        self._starting: dict[Slot, int] = {}
        self._told: NodeState | None = None
        self._clean = True
        self._lived = 0
        self._refused_height: int | None = None

    def init(self) -> None:
        """Ask every slot what it holds; nothing is decided before all have answered."""
        try:
            self._journal = Journal.open(self._world.layout.journal)
            restarts = self._journal.get(RESTARTS_KEY)
            if isinstance(restarts, int):
                self._machine.restarts = restarts
            incarnation = self._journal.get(INCARNATION_KEY)
            if isinstance(incarnation, int):
                self._incarnations[Slot.CORE] = incarnation
            lived = self._journal.get(LIVED_KEY)
            if isinstance(lived, int):
                self._lived = lived
            self._clean = self._journal.get(CLEAN_KEY) is not False
        except JournalUnavailable as error:
            self._journal_failed(error)
        if self._world.intent.stop_reason is not None:
            self._advance(StopAsked(reason=self._world.intent.stop_reason))
        for slot in Slot:
            self.context.tell(slot.address, DescribeSlot())

    def terminate(self) -> None:
        """Let go of the journal. The node goes on."""
        if self._journal is not None:
            self._journal.close()

    def handle(self, message: object) -> None:
        """Turn one message into events of the machine."""
        match message:
            case SlotSeen():
                self._slot_seen(message)
            case SlotUnreachable(slot=slot, problem=problem):
                self._running.pop(slot, None)
                self._advance(SlotLost(slot=slot, problem=problem))
            case BinaryStarted(slot=slot, binary=binary):
                self._started(slot, binary)
            case BinaryRefused(slot=slot, problem=problem, next_step=next_step):
                self._emit(
                    "binary.refused",
                    f"the {slot.words} could not be started: {problem}",
                    severity=Severity.ERROR,
                    next_step=next_step,
                    slot=slot.value,
                )
                self._advance(SlotRefused(slot=slot, problem=problem))
            case BinaryExited(slot=slot, record=record):
                self._exited(slot, record)
            case RunOrder():
                self._ordered(message)
            case HoldOrder(ask=ask, reason=reason):
                self._advance(Held(ask=ask, reason=reason))
            case RecycleNode(reason=reason):
                self._emit("node.recycling", f"stopping the node: {reason}")
                self._advance(RecycleAsked(reason=reason))
            case StopNode(reason=reason):
                self._world.intent.stop_reason = reason
                self._emit("node.stopping", f"stopping the node for good: {reason}")
                self._advance(StopAsked(reason=reason))
            case CoreAnswered(core=core):
                if core == self._core():
                    self._count_lived(self._incarnations[Slot.CORE])
                    self._emit("core.answered", "the core is up and answers")
                    self._publish()
            case CoreSilent(core=core, problem=problem):
                self._wedged(core, problem)
            case DescribeNode():
                self._told = None
                self._publish()
            case WhoRuns():
                self._listening_to = None
                self._listen()
            case ForgetRestarts() | _Stable():
                self._advance(StableLongEnough())
            case ConfigChanged(config=config):
                self._advance(BudgetChanged(restarts_max=config.max_number_of_restarts))
            case _Delay():
                self._advance(DelayPassed())
            case _AskAgain():
                self._ask_again()
            case JobDone(key="launch", value=value):
                self._launch_planned(value)
            case JobFailed(key="launch", failure=failure):
                self._launch_planned(LaunchFailed(problem=failure.message))
            case _:
                pass

    # what the slots say

    def _slot_seen(self, seen: SlotSeen) -> None:
        for record in seen.exits:
            self._exited(seen.slot, record)
        if seen.running is not None:
            self._running[seen.slot] = seen.running
            self._count_incarnation(seen.slot, seen.running.incarnation)
            if seen.slot is Slot.CORE and self._world.now() - seen.running.started_at >= LIVED_SECONDS:
                self._count_lived(seen.running.incarnation)
        else:
            self._running.pop(seen.slot, None)
        running = seen.running
        stopping = running is not None and running.stopping
        self._advance(SlotReported(slot=seen.slot, running=running is not None, stopping=stopping))

    def _started(self, slot: Slot, binary: RunningBinary) -> None:
        self._running[slot] = binary
        self._count_incarnation(slot, binary.incarnation)
        self._emit(
            "binary.started",
            f"the {slot.words} runs, pid {binary.pid}",
            slot=slot.value,
            pid=binary.pid,
            incarnation=binary.incarnation,
        )
        self._advance(SlotStarted(slot=slot))

    def _exited(self, slot: Slot, record: ExitRecord) -> None:
        if self._consume(slot, record):
            self._running.pop(slot, None)
            self._count_incarnation(slot, record.incarnation)
            if slot is Slot.CORE:
                if record.ended_at - record.started_at >= LIVED_SECONDS:
                    self._count_lived(record.incarnation)
                self._refused_height = self._height_not_found(record)
                last: dict[str, Json] = {
                    "incarnation": record.incarnation,
                    "at": record.ended_at,
                    "code": record.code,
                    "requested": record.requested,
                    "lines": list(record.last_lines),
                }
                self._remember(LAST_EXIT_KEY, last)
            if not record.requested:
                self._remember_clean(clean=False)
            elif self._machine.goal is Goal.RECYCLE:
                self._remember_clean(clean=True)
            how = describe_exit(record)
            self._emit(
                "binary.exited",
                f"the {slot.words} (pid {record.pid}) {how}",
                severity=Severity.INFO if record.requested else Severity.ERROR,
                lines=record.last_lines,
                slot=slot.value,
                pid=record.pid,
                incarnation=record.incarnation,
                code=record.code,
                signal=record.signal,
                requested=record.requested,
                seconds=round(record.ended_at - record.started_at, 3),
                user_seconds=record.user_seconds,
                system_seconds=record.system_seconds,
                max_rss_kib=record.max_rss_kib,
            )
            self._advance(SlotExited(slot=slot, requested=record.requested, how=how))
        self.context.tell(slot.address, AcknowledgeExit(incarnation=record.incarnation))

    def _height_not_found(self, record: ExitRecord) -> int | None:
        """The snapshot height which this start did not find, as far as that can be known.

        Its last lines say so where they are captured. Elsewhere a core that ended at once with the exit code
        of a failed start is taken to have missed the height that history gave it; the next start does without
        it.
        """
        said = refused_height(record.last_lines)
        plan = self._launch.plan if self._launch is not None else None
        if said is not None or record.last_lines or plan is None or plan.height is None:
            return said
        at_once = record.ended_at - record.started_at < AT_ONCE_SECONDS
        from_history = plan.height != self._upgrade_height()
        return plan.height if record.code == FAILED_START and at_once and from_history else None

    def _upgrade_height(self) -> int | None:
        return self._machine.order.upgrade_height if self._machine.order is not None else None

    def _count_incarnation(self, slot: Slot, incarnation: int) -> None:
        if incarnation > self._incarnations.get(slot, 0):
            self._incarnations[slot] = incarnation
            if slot is Slot.CORE:
                # The coordinator tells from it whether a release has ever been started.
                self._remember(INCARNATION_KEY, incarnation)

    def _count_lived(self, incarnation: int) -> None:
        if incarnation > self._lived:
            self._lived = incarnation
            self._remember(LIVED_KEY, incarnation)

    def _remember_clean(self, *, clean: bool) -> None:
        if clean != self._clean:
            self._clean = clean
            self._remember(CLEAN_KEY, clean)

    def _consume(self, slot: Slot, record: ExitRecord) -> bool:
        """True the first time this exit is seen, by whichever visor."""
        if (slot, record.incarnation) in self._consumed:
            return False
        self._consumed.add((slot, record.incarnation))
        if self._journal is None:
            return True
        key = f"{record.incarnation}@{record.pid}@{record.started_at:.3f}"
        details = {"code": record.code, "signal": record.signal, "at": record.ended_at}
        try:
            return self._journal.consume_exit(slot.value, key, details)
        except JournalUnavailable as error:
            self._journal_failed(error)
            return True

    def _wedged(self, core: str, problem: str) -> None:
        if core != self._core():
            return
        self._emit(
            "core.silent",
            f"the core runs but has not answered within its budget: {problem}",
            severity=Severity.ALARM,
            next_step="visor restarts the node; look at the core's log for what it waited for",
        )
        self._advance(NodeWedged(problem=f"the core does not answer: {problem}"))

    # what the coordinator says

    def _ordered(self, order: RunOrder) -> None:
        machine = self._machine
        if order.ask != machine.ask or machine.order is not None:
            return
        try:
            run_config = load_run_config(order.folder)
        except (ConfigurationInvalid, OSError) as error:
            self._emit(
                "run-config.invalid",
                f"the run configuration of {order.folder.name} cannot be used: {error}",
                severity=Severity.ALARM,
                next_step="correct it; visor looks again every second",
            )
            self._advance(Held(ask=order.ask, reason=f"the run configuration of {order.folder} is invalid"))
            return
        self._run_config = run_config
        wanted = {Slot.CORE} if run_config.data_node is None else set(Slot)
        for slot in wanted:
            self.context.tell(slot.address, WarmUp())
        self._advance(Ordered(order=order, wanted=frozenset(wanted)))

    def _launch_planned(self, value: object) -> None:
        planning = self._planning
        if planning is None:
            return
        self._planning = None
        match value:
            case Launch():
                self._launch = value
                self._advance(LaunchPlanned(ask=planning.order.ask))
            case LaunchFailed(problem=problem):
                self._advance(LaunchImpossible(ask=planning.order.ask, problem=problem))
            case _:
                raise TypeError(f"a launch job returned {type(value).__name__}")

    # the machine

    def _advance(self, event: NodeEvent) -> None:
        for effect in self._machine.handle(event):
            self._carry_out(effect)
        self._publish()

    def _carry_out(self, effect: NodeEffect) -> None:
        match effect:
            case Ask():
                self.context.after(ASK_AGAIN_SECONDS, _AskAgain(), key="ask")
            case PlanLaunch():
                self._plan(effect)
            case StartSlot(slot=slot):
                self._start(slot)
            case StopSlot(slot=slot):
                self._stop(slot)
            case ArmDelay():
                self._delay()
            case CancelDelay():
                self.context.cancel("delay")
            case Up(attached=attached):
                self._up(attached=attached)
            case Down():
                self.context.cancel("stable")
                self._listen()
            case CountRestarts(restarts=restarts):
                self._remember(RESTARTS_KEY, restarts)
            case Failed(reason=reason, left=left):
                self._failed(reason, left)
            case Leave(purpose=purpose, reason=reason):
                self._leave(purpose, reason)

    def _ask_again(self) -> None:
        if self._machine.phase in (NodePhase.ASKING, NodePhase.HELD):
            self._told = None
            self._publish()
            self.context.after(ASK_AGAIN_SECONDS, _AskAgain(), key="ask")

    def _plan(self, effect: PlanLaunch) -> None:
        assert self._run_config is not None
        self._planning = effect
        launcher, run_config, order = self._launcher, self._run_config, effect.order
        kind = self._start_kind(order)
        refused = self._refused_height
        if not launcher.needs_history(run_config, kind):
            # Nothing to wait for: no query, no thread, so that a switch and a restart cost nothing here.
            self._launch_planned(launcher.plan(run_config, order, kind, refused_height=refused))
            return
        self.context.run_job(
            lambda token: launcher.plan(run_config, order, kind, refused_height=refused, cancel=token),
            key="launch",
        )

    def _start_kind(self, order: RunOrder) -> StartKind:
        if order.occasion is Occasion.FIRST_AFTER_UPGRADE:
            return StartKind.FIRST_AFTER_UPGRADE
        return StartKind.ORDINARY if self._clean else StartKind.AFTER_CRASH

    def _start(self, slot: Slot) -> None:
        assert self._launch is not None
        launch = self._launch
        self.context.tell(
            slot.address,
            StartBinary(
                order=launch.orders[slot],
                number=self._machine.ask,
                after=self._incarnations.get(slot, 0),
            ),
        )
        if self._starting.get(slot) == self._machine.ask:
            return  # said once more, to a slot that may have missed it
        self._starting[slot] = self._machine.ask
        # Until the node's end is asked for, a start that finds it down comes after a crash or a power cut.
        self._remember_clean(clean=False)
        why = f" ({launch.plan.reason})" if slot is Slot.CORE else ""
        self._emit(
            "binary.starting",
            f"starting the {slot.words} of {launch.folder.name}{why}",
            slot=slot.value,
            folder=launch.folder.name,
            height=launch.plan.height if slot is Slot.CORE else None,
        )
        if slot is Slot.CORE and launch.plan.warning is not None:
            self._emit(
                "node.snapshot-height",
                launch.plan.warning,
                severity=Severity.WARNING,
                next_step=launch.plan.next_step,
            )

    def _stop(self, slot: Slot) -> None:
        binary = self._binary_config(slot)
        number = signal.SIGTERM if binary is None or binary.stop_signal is None else binary.stop_signal
        timeout = self._world.settings.current.stop_signal_timeout_seconds
        self.context.tell(slot.address, StopBinary(signal=int(number), timeout=timeout))

    def _binary_config(self, slot: Slot) -> BinaryConfig | None:
        if self._run_config is None:
            return None
        return self._run_config.core if slot is Slot.CORE else self._run_config.data_node

    def _delay(self) -> None:
        seconds = self._world.settings.current.restarts_delay_seconds
        self._emit("node.restarting", f"starting the node again in {seconds:g} s", seconds=seconds)
        if seconds <= 0:
            # A timer of zero would only let other messages in first; nothing else can be meant.
            self._advance(DelayPassed())
        else:
            self.context.after(seconds, _Delay(), key="delay")

    def _up(self, *, attached: bool) -> None:
        order = self._machine.order
        folder = order.folder.name if order is not None else "?"
        how = "was found running" if attached else "is started"
        self._emit("node.up", f"the node of {folder} {how}", folder=folder, attached=attached)
        reset = self._world.settings.current.restarts_reset_after_seconds
        if reset > 0:
            self.context.after(reset, _Stable(), key="stable")
        self._listen(budget=Budget.FIRST_START if attached or self._machine.restarts == 0 else Budget.RESTART)

    def _remember(self, key: str, value: Json) -> None:
        if self._journal is not None:
            try:
                self._journal.put(key, value)
            except JournalUnavailable as error:
                self._journal_failed(error)

    def _failed(self, reason: str, left: int) -> None:
        self._emit(
            "node.failed",
            f"the node failed: {reason}; restarts left: {left}",
            severity=Severity.WARNING,
            reason=reason,
            restarts=self._machine.restarts,
            left=left,
        )

    def _leave(self, purpose: StopPurpose, reason: str) -> None:
        self._remember(RESTARTS_KEY, 0)
        if purpose is StopPurpose.SHUTDOWN:
            self._remember_clean(clean=True)
        self._world.intent.shims_may_leave = True
        match purpose:
            case StopPurpose.SHUTDOWN:
                self._emit("node.stopped", "the node is stopped and nothing of it is left")
                self._world.intent.depart(0, f"stopped: {reason}")
            case StopPurpose.GAVE_UP:
                message = f"gave up: {reason}; {self._machine.restarts_max} restarts did not help"
                next_step = (
                    "see `visor-actors history` for the exits, mend the cause, then `visor-actors run`"
                )
                self._emit("node.gave-up", message, severity=Severity.ALARM, next_step=next_step)
                self._world.intent.depart(1, message, next_step=next_step)

    # what others are told

    def _core(self) -> str | None:
        running = self._running.get(Slot.CORE)
        return f"{running.pid}@{running.start_ticks}" if running is not None else None

    def _listen(self, *, budget: Budget = Budget.FIRST_START) -> None:
        core = self._core() if self._machine.phase is NodePhase.RUNNING else None
        if core is None or self._run_config is None:
            if self._listening_to is not None:
                self.context.tell(RPC_LISTENER, StopListening())
            self._listening_to = None
            return
        if core == self._listening_to:
            return
        self._listening_to = core
        self.context.tell(
            RPC_LISTENER,
            Listen(
                core=core,
                brand=self._run_config.brand,
                socket_path=self._run_config.rpc.socket_path,
                http_path=self._run_config.rpc.http_path,
                core_home=self._launcher.core_home(self._run_config),
                budget=budget,
            ),
        )

    def _publish(self) -> None:
        machine = self._machine
        running = self._running.get(Slot.CORE)
        state = NodeState(
            phase=machine.phase,
            ask=machine.ask,
            core=self._core(),
            core_argv=running.argv if running is not None else (),
            core_incarnation=self._incarnations.get(Slot.CORE, 0),
            core_lived=self._lived,
            occupied=machine.occupied,
            failure=machine.failure,
        )
        if state != self._told:
            self._told = state
            self.context.tell(UPGRADE_COORDINATOR, state)
        self._world.board.publish(
            "node",
            NodeReport(
                phase=machine.phase.value,
                folder=machine.order.folder.name if machine.order is not None else None,
                brand=self._run_config.brand if self._run_config is not None else None,
                restarts=machine.restarts,
                restarts_max=machine.restarts_max,
                reason=machine.reason,
            ),
        )

    def _journal_failed(self, error: JournalUnavailable) -> None:
        self._emit(
            "journal.unavailable",
            f"the journal cannot be used: {error}",
            severity=Severity.ALARM,
            next_step="free disk space or mend the permissions of .visor; the node goes on meanwhile",
        )

    def _emit(
        self,
        name: str,
        message: str,
        *,
        severity: Severity = Severity.INFO,
        next_step: str | None = None,
        lines: tuple[str, ...] = (),
        **fields: str | int | float | bool | None,
    ) -> None:
        self._world.bus.emit(
            Event(
                name=name,
                message=message,
                severity=severity,
                next_step=next_step,
                lines=lines,
                fields=fields,
            )
        )
