"""LifecycleActor: keeps the node up. The thin shell around
:class:`~visor_actors.actors.node_machine.NodeMachine`.

It turns messages into events of the machine and carries out the machine's effects. Its memory is small and
not needed for correctness: what runs is known by the shims, the count of restarts is in the journal, and what
should run is known by the upgrade coordinator, which it asks before every start.
"""

from __future__ import annotations

import os
import signal

from msgspec import Struct

from visor_actors.actor import Actor, Context, JobDone, JobFailed
from visor_actors.actors.addresses import RPC_LISTENER, UPGRADE_COORDINATOR, Slot
from visor_actors.actors.afterwards import Afterwards
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
from visor_actors.actors.node_memory import NodeMemory
from visor_actors.actors.node_voice import START_AGAIN, NodeVoice, exit_event
from visor_actors.actors.reports import NodeReport
from visor_actors.actors.world import World
from visor_actors.home.errors import ConfigurationInvalid
from visor_actors.home.run_config import BinaryConfig, RunConfig, load_run_config
from visor_actors.node.custody_types import ExitRecord, RunningBinary
from visor_actors.node.height import StartKind, refused_height
from visor_actors.telemetry.events import Event

ASK_AGAIN_SECONDS = 1.0
TELL_SECONDS = 0.2
"""A start that is on its way for longer than this keeps nobody waiting for the news any more."""
_ON_ITS_WAY = (NodePhase.ASKING, NodePhase.PLANNING, NodePhase.STARTING)
FAILED_START = 255
"""With this code a node ends that cannot start, for whatever reason."""
AT_ONCE_SECONDS = 10.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
LIVED_SECONDS = 30.0
"""A core that lived this long has got somewhere, even if nobody saw it answer."""


class _Delay(Struct, frozen=True):
    """The restart delay is over."""


class _Stable(Struct, frozen=True):
    """The node has been up for ``restartsResetAfterSeconds``."""


class _Tell(Struct, frozen=True):
    """A start has been on its way for long enough: tell what there is to tell."""


class _AskAgain(Struct, frozen=True):
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
        self._afterwards = Afterwards()
        self._will_tell = False
        self._voice = NodeVoice(self._emit)
        self._memory = NodeMemory(world.layout.journal, self._voice.journal_failed)
        self._running: dict[Slot, RunningBinary] = {}
        self._run_config: RunConfig | None = None
        self._launch: Launch | None = None
        self._planning: PlanLaunch | None = None
        self._listening_to: str | None = None
        self._starting: dict[Slot, int] = {}
        self._told: NodeState | None = None
        self._refused_height: int | None = None

    def init(self) -> None:
        """Ask every slot what it holds; nothing is decided before all have answered."""
        self._memory.open()
        self._machine.restarts = self._memory.restarts
        if self._world.intent.stop_reason is not None:
            self._advance(StopAsked(reason=self._world.intent.stop_reason))
        for slot in Slot:
            self.context.tell(slot.address, DescribeSlot())
        self._afterwards.catch_up()

    def terminate(self) -> None:
        """Let go of the journal. The node goes on."""
        self._memory.close()
        self._afterwards.catch_up()

    def handle(self, message: object) -> None:
        """Turn one message into events of the machine. First act, then tell."""
        self._take_in(message)
        if not self._afterwards:
            return
        if self._machine.phase in _ON_ITS_WAY and not isinstance(message, _Tell):
            if not self._will_tell:  # counted from the first, so that no row of messages puts it off for ever
                self._will_tell = True
                self.context.after(TELL_SECONDS, _Tell(), key="tell")
        else:
            self._will_tell = False
            self.context.cancel("tell")
            self._afterwards.catch_up()

    def _take_in(self, message: object) -> None:
        match message:
            case SlotSeen():
                self._slot_seen(message)
            case SlotUnreachable(slot=slot, problem=problem):
                self._running.pop(slot, None)
                self._advance(SlotLost(slot=slot, problem=problem))
            case BinaryStarted(slot=slot, binary=binary):
                self._started(slot, binary)
            case BinaryRefused(slot=slot, problem=problem, next_step=next_step):
                self._voice.refused(slot, problem, next_step)
                self._advance(SlotRefused(slot=slot, problem=problem))
            case BinaryExited(slot=slot, record=record):
                self._exited(slot, record)
            case RunOrder():
                self._ordered(message)
            case HoldOrder(ask=ask, reason=reason):
                self._advance(Held(ask=ask, reason=reason))
            case RecycleNode(reason=reason):
                self._voice.recycling(reason)
                self._afterwards.catch_up()  # the history tells why before it tells of the exits
                self._advance(RecycleAsked(reason=reason))
            case StopNode(reason=reason):
                self._world.intent.stop_reason = reason
                self._voice.stopping(reason)
                self._afterwards.catch_up()
                self._advance(StopAsked(reason=reason))
            case CoreAnswered(core=core):
                if core == self._core():
                    self._memory.core_got_somewhere(self._memory.incarnation(Slot.CORE))
                    self._voice.answered()
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
            self._memory.saw_incarnation(seen.slot, seen.running.incarnation)
            if seen.slot is Slot.CORE and self._age(seen.running) >= LIVED_SECONDS:
                self._memory.core_got_somewhere(seen.running.incarnation)
        else:
            self._running.pop(seen.slot, None)
        running = seen.running
        stopping = running is not None and running.stopping
        self._advance(SlotReported(slot=seen.slot, running=running is not None, stopping=stopping))

    def _started(self, slot: Slot, binary: RunningBinary) -> None:
        self._running[slot] = binary
        self._memory.saw_start(slot, binary.incarnation)
        self._voice.started(slot, binary)
        self._advance(SlotStarted(slot=slot))

    def _exited(self, slot: Slot, record: ExitRecord) -> None:
        if not self._memory.has_consumed(slot, record):
            event = exit_event(slot, record)
            with self._memory.consuming(slot, record, event):
                effects = self._take_exit(slot, record)
            # Only now: whoever is told looks into the journal for what this exit has shown.
            self._emit(event)
            self._carry_out_all(effects)
        acknowledgement = AcknowledgeExit(incarnation=record.incarnation)
        self._afterwards.do(lambda: self.context.tell(slot.address, acknowledgement))

    def _take_exit(self, slot: Slot, record: ExitRecord) -> list[NodeEffect]:
        memory = self._memory
        lived = self._lived(slot, record)
        self._running.pop(slot, None)
        memory.saw_incarnation(slot, record.incarnation)
        if slot is Slot.CORE:
            if lived >= LIVED_SECONDS:
                memory.core_got_somewhere(record.incarnation)
            self._refused_height = self._height_not_found(record, lived)
            memory.core_exited(record)
        if not record.requested:
            memory.ended(clean=False)
        elif self._machine.goal is Goal.RECYCLE:
            memory.ended(clean=True)
        how = describe_exit(record)
        effects = self._machine.handle(SlotExited(slot=slot, requested=not record.is_failure, how=how))
        memory.count_restarts(self._machine.restarts)
        return effects

    def _age(self, binary: RunningBinary) -> float:
        """How long the binary has lived, by a clock that nobody sets."""
        return self._world.since_boot() - binary.start_ticks / TICKS_PER_SECOND

    def _lived(self, slot: Slot, record: ExitRecord) -> float:
        running = self._running.get(slot)
        if running is not None and running.incarnation == record.incarnation:
            return self._age(running)
        return record.ended_at - record.started_at  # it ended while no visor looked

    def _height_not_found(self, record: ExitRecord, lived: float) -> int | None:
        """The snapshot height which this start did not find, as far as that can be known.

        Its last lines say so where they are captured. Elsewhere a core that ended at once with the exit code
        of a failed start is taken to have missed the height that history gave it; the next start does without
        it.
        """
        said = refused_height(record.last_lines)
        plan = self._launch.plan if self._launch is not None else None
        if said is not None or record.last_lines or plan is None or plan.height is None:
            return said
        at_once = lived < AT_ONCE_SECONDS
        from_history = plan.height != self._upgrade_height()
        return plan.height if record.code == FAILED_START and at_once and from_history else None

    def _upgrade_height(self) -> int | None:
        return self._machine.order.upgrade_height if self._machine.order is not None else None

    def _wedged(self, core: str, problem: str) -> None:
        if core != self._core():
            return
        self._voice.silent(problem)
        self._advance(NodeWedged(problem=f"the core does not answer: {problem}"))

    # what the coordinator says

    def _ordered(self, order: RunOrder) -> None:
        machine = self._machine
        if order.ask != machine.ask or machine.order is not None:
            return
        try:
            run_config = load_run_config(order.folder)
        except (ConfigurationInvalid, OSError) as error:
            self._voice.run_config_invalid(order.folder, error)
            self._advance(Held(ask=order.ask, reason=f"the run configuration of {order.folder} is invalid"))
            return
        self._run_config = run_config
        wanted = {Slot.CORE} if run_config.data_node is None else set(Slot)
        for slot in wanted - self._starting.keys():
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
        self._carry_out_all(self._machine.handle(event))

    def _carry_out_all(self, effects: list[NodeEffect]) -> None:
        for effect in effects:
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
                self._memory.count_restarts(restarts)
            case Failed(reason=reason, left=left):
                self._voice.failed(reason, restarts=self._machine.restarts, left=left)
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
        return StartKind.ORDINARY if self._memory.clean else StartKind.AFTER_CRASH

    def _start(self, slot: Slot) -> None:
        assert self._launch is not None
        launch = self._launch
        self.context.tell(
            slot.address,
            StartBinary(
                order=launch.orders[slot],
                number=self._machine.ask,
                after=self._memory.incarnation(slot),
            ),
        )
        if self._starting.get(slot) == self._machine.ask:
            return  # said once more, to a slot that may have missed it
        self._starting[slot] = self._machine.ask
        # Until the node's end is asked for, a start that finds it down comes after a crash or a power cut.
        self._memory.ended(clean=False)
        self._voice.starting(slot, launch)

    def _stop(self, slot: Slot) -> None:
        binary = self._binary_config(slot)
        number = signal.SIGTERM if binary is None or binary.stop_signal is None else binary.stop_signal
        timeout = self._world.settings.current.stop_signal_timeout_seconds
        self.context.tell(slot.address, StopBinary(signal=int(number), timeout=timeout))

    def _binary_config(self, slot: Slot) -> BinaryConfig | None:
        run_config = self._run_config or self._linked_run_config()
        if run_config is None:
            return None
        return run_config.core if slot is Slot.CORE else run_config.data_node

    def _linked_run_config(self) -> RunConfig | None:
        """What `current` says, before the coordinator has said anything: a stop may come first, of a node
        that was started by an earlier visor, and it is to get its own signal all the same.
        """
        try:
            return load_run_config(self._world.layout.current)
        except (ConfigurationInvalid, OSError):
            return None

    def _delay(self) -> None:
        seconds = self._world.settings.current.restarts_delay_seconds
        self._voice.restarting(seconds)
        if seconds <= 0:
            # A timer of zero would only let other messages in first; nothing else can be meant.
            self._advance(DelayPassed())
        else:
            self.context.after(seconds, _Delay(), key="delay")

    def _up(self, *, attached: bool) -> None:
        order = self._machine.order
        folder = order.folder.name if order is not None else "?"
        self._voice.up(folder, attached=attached)
        reset = self._world.settings.current.restarts_reset_after_seconds
        if reset > 0:
            self.context.after(reset, _Stable(), key="stable")
        self._listen(budget=Budget.FIRST_START if attached or self._machine.restarts == 0 else Budget.RESTART)

    def _leave(self, purpose: StopPurpose, reason: str) -> None:
        self._memory.count_restarts(0)
        if purpose is StopPurpose.SHUTDOWN:
            self._memory.ended(clean=True)
        self._world.intent.shims_may_leave = True
        match purpose:
            case StopPurpose.SHUTDOWN:
                self._voice.stopped()
                self._world.intent.depart(0, f"stopped: {reason}")
            case StopPurpose.GAVE_UP:
                message = f"gave up: {reason}; {self._machine.restarts_max} restarts did not help"
                self._voice.gave_up(message)
                self._world.intent.depart(1, message, next_step=START_AGAIN)

    # what others are told

    def _emit(self, event: Event) -> None:
        self._afterwards.do(lambda: self._world.bus.emit(event))

    def _core(self) -> str | None:
        running = self._running.get(Slot.CORE)
        return f"{running.pid}@{running.start_ticks}" if running is not None else None

    def _listen(self, *, budget: Budget = Budget.FIRST_START) -> None:
        core = self._core() if self._machine.phase is NodePhase.RUNNING else None
        if core is None or self._run_config is None:
            if self._listening_to is not None:
                self._afterwards.do(lambda: self.context.tell(RPC_LISTENER, StopListening()))
            self._listening_to = None
            return
        if core == self._listening_to:
            return
        self._listening_to = core
        listen = Listen(
            core=core,
            brand=self._run_config.brand,
            socket_path=self._run_config.rpc.socket_path,
            http_path=self._run_config.rpc.http_path,
            core_home=self._launcher.core_home(self._run_config),
            budget=budget,
        )
        self._afterwards.do(lambda: self.context.tell(RPC_LISTENER, listen))

    def _publish(self) -> None:
        machine = self._machine
        if machine.phase is NodePhase.STARTING:
            self._afterwards.do(self._tell_coordinator)
        else:
            self._tell_coordinator()
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

    def _tell_coordinator(self) -> None:
        """Tell how things are now, unless it was told just that."""
        machine = self._machine
        running = self._running.get(Slot.CORE)
        state = NodeState(
            phase=machine.phase,
            ask=machine.ask,
            core=self._core(),
            core_argv=running.argv if running is not None else (),
            core_incarnation=self._memory.incarnation(Slot.CORE),
            core_lived=self._memory.core_lived,
            occupied=machine.occupied,
            failure=machine.failure,
        )
        if state != self._told:
            self._told = state
            self.context.tell(UPGRADE_COORDINATOR, state)
