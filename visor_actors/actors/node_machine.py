"""The node's life as a pure state machine: what to do when binaries start, end, or refuse to.

The machine knows slots, orders, a restart budget and a goal. It has no clock and does no I/O: events go in,
effects come out, and the lifecycle actor carries the effects out. It is level-triggered: after every event it
compares the goal with what the slots report and emits what is missing, so an event that is lost or comes
twice does no harm.

The rules it keeps:

* Nothing is decided before every slot has reported what it holds: a node that already runs is taken over, not
started.
* Any exit nobody asked for is a failure of the node, exit 0 too: the other binary is stopped gracefully, the
delay passes,
  the coordinator is asked, both start again.
* Failures are counted in a row; one more than the budget and the machine stops the node and gives up.
* Every start is preceded by a question to the coordinator; an answer to an older question is ignored.
* A stop takes effect at once, in whatever phase the node is.
"""

from __future__ import annotations

import enum

from msgspec import Struct, field

from visor_actors.actors.addresses import Slot
from visor_actors.actors.messages import NodePhase, Occasion, RunOrder, StopPurpose

# Events


class SlotReported(Struct, frozen=True):
    """A slot's shim says whether something runs in it. ``stopping``: somebody has ordered it to stop."""

    slot: Slot
    running: bool
    stopping: bool = False


class SlotLost(Struct, frozen=True):
    """Nobody can say at the moment what is in the slot."""

    slot: Slot
    problem: str


class SlotStarted(Struct, frozen=True):
    """What was ordered in the slot runs."""

    slot: Slot


class SlotRefused(Struct, frozen=True):
    """What was ordered in the slot could not be started."""

    slot: Slot
    problem: str


class SlotExited(Struct, frozen=True):
    """What ran in the slot has ended, with all its descendants. ``requested``: it did not fail, as somebody
    had asked for its end or the whole machine went down. ``how`` is for people.
    """

    slot: Slot
    requested: bool
    how: str


class Ordered(Struct, frozen=True):
    """The coordinator answered: run this. ``wanted`` are the slots its run configuration fills."""

    order: RunOrder
    wanted: frozenset[Slot]


class Held(Struct, frozen=True):
    """The coordinator answered: do not start."""

    ask: int
    reason: str


class LaunchPlanned(Struct, frozen=True):
    """The command lines are ready."""

    ask: int


class LaunchImpossible(Struct, frozen=True):
    """No command line can be made."""

    ask: int
    problem: str


class DelayPassed(Struct, frozen=True):
    """The restart delay is over."""


class NodeWedged(Struct, frozen=True):
    """The core runs but does not answer, and its budget is used up."""

    problem: str


class StableLongEnough(Struct, frozen=True):
    """The node has run for the time after which restarts are forgotten, or an upgrade was confirmed."""


class RecycleAsked(Struct, frozen=True):
    """Stop, then ask what to run."""

    reason: str


class StopAsked(Struct, frozen=True):
    """Stop for good."""

    reason: str


class BudgetChanged(Struct, frozen=True):
    """The configuration allows this many restarts in a row."""

    restarts_max: int


NodeEvent = (
    SlotReported
    | SlotLost
    | SlotStarted
    | SlotRefused
    | SlotExited
    | Ordered
    | Held
    | LaunchPlanned
    | LaunchImpossible
    | DelayPassed
    | NodeWedged
    | StableLongEnough
    | RecycleAsked
    | StopAsked
    | BudgetChanged
)

# Effects


class Ask(Struct, frozen=True):
    """Ask the coordinator what to run."""

    ask: int


class PlanLaunch(Struct, frozen=True):
    """Make the command lines for this order; LaunchPlanned or LaunchImpossible follows."""

    order: RunOrder
    wanted: frozenset[Slot]


class StartSlot(Struct, frozen=True):
    """Start what was planned for the slot."""

    slot: Slot


class StopSlot(Struct, frozen=True):
    """Stop what is in the slot, gracefully."""

    slot: Slot


class ArmDelay(Struct, frozen=True):
    """DelayPassed is to follow after the configured restart delay."""


class CancelDelay(Struct, frozen=True):
    """No DelayPassed, please."""


class Up(Struct, frozen=True):
    """Every wanted binary runs. ``attached``: it did so before this visor came."""

    attached: bool


class Down(Struct, frozen=True):
    """The node is no longer up; nothing should be expected of its RPC."""


class CountRestarts(Struct, frozen=True):
    """Keep this number of restarts in a row, durably enough to survive a kill."""

    restarts: int


class Failed(Struct, frozen=True):
    """The node failed; ``left`` more failures in a row are survived."""

    reason: str
    left: int


class Leave(Struct, frozen=True):
    """The node is down for good: visor ends."""

    purpose: StopPurpose
    reason: str


NodeEffect = (
    Ask
    | PlanLaunch
    | StartSlot
    | StopSlot
    | ArmDelay
    | CancelDelay
    | Up
    | Down
    | CountRestarts
    | Failed
    | Leave
)


class Goal(enum.Enum):
    """What the machine works towards."""

    UP = "up"
    RECYCLE = "recycle"
    RECOVER = "recover"
    DOWN = "down"


class SlotStatus(enum.Enum):
    """What is known of a slot."""

    UNKNOWN = "unknown"
    VACANT = "vacant"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


_OCCUPIED = (SlotStatus.STARTING, SlotStatus.RUNNING, SlotStatus.STOPPING)


class NodeMachine(Struct, kw_only=True):
    """The state, and :meth:`handle` to move it on. Owned by one thread."""

    restarts_max: int
    restarts: int = 0
    ask: int = 0
    goal: Goal = Goal.UP
    phase: NodePhase = NodePhase.UNKNOWN
    reason: str | None = None
    failure: str | None = None
    order: RunOrder | None = None
    wanted: frozenset[Slot] = frozenset()
    slots: dict[Slot, SlotStatus] = field(default_factory=lambda: dict.fromkeys(Slot, SlotStatus.UNKNOWN))
    _purpose: StopPurpose = StopPurpose.SHUTDOWN
    _launched: bool = False
    _repeated: set[Slot] = field(default_factory=set)
    _was_up: bool = False

    def handle(self, event: NodeEvent) -> list[NodeEffect]:
        """Take ``event`` in; return what is to be done, in order."""
        effects: list[NodeEffect] = []
        match event:
            case SlotReported(slot=slot, running=running, stopping=stopping):
                self._report(slot, running, effects)
                if stopping:
                    self._finish_stop(slot, effects)
            case SlotLost(slot=slot):
                self.slots[slot] = SlotStatus.UNKNOWN
            case SlotStarted(slot=slot):
                if self.slots[slot] is not SlotStatus.STOPPING:
                    self.slots[slot] = SlotStatus.RUNNING
            case SlotRefused(slot=slot, problem=problem):
                self.slots[slot] = SlotStatus.VACANT
                self._fail(f"the {slot.words} could not be started: {problem}", effects)
            case SlotExited(slot=slot, requested=requested, how=how):
                self.slots[slot] = SlotStatus.VACANT
                if requested:
                    self._finish_stop(slot, effects)
                else:
                    self._fail(f"the {slot.words} {how}", effects)
            case Ordered(order=order, wanted=wanted):
                if order.ask == self.ask and self.goal is Goal.UP and self.order is None:
                    self.order, self.wanted = order, wanted
            case Held(ask=ask, reason=reason):
                if ask == self.ask and self.goal is Goal.UP and self.order is None:
                    self.phase, self.reason = NodePhase.HELD, reason
            case LaunchPlanned(ask=ask):
                self._launch(ask, effects)
            case LaunchImpossible(ask=ask, problem=problem):
                if ask == self.ask and self.phase is NodePhase.PLANNING:
                    self._fail(problem, effects)
            case DelayPassed():
                if self.phase is NodePhase.WAITING:
                    self._begin_asking()
            case NodeWedged(problem=problem):
                if self.phase in (NodePhase.RUNNING, NodePhase.STARTING):
                    self._fail(problem, effects)
            case StableLongEnough():
                self._count(0, effects)
            case RecycleAsked(reason=reason):
                self._recycle(reason, effects)
            case StopAsked(reason=reason):
                self._go_down(StopPurpose.SHUTDOWN, reason, effects)
            case BudgetChanged(restarts_max=restarts_max):
                self.restarts_max = restarts_max
        self._settle(effects)
        return effects

    @property
    def occupied(self) -> bool:
        """True while anything is in a slot."""
        return any(status in _OCCUPIED for status in self.slots.values())

    def _known(self) -> bool:
        return SlotStatus.UNKNOWN not in self.slots.values()

    def _report(self, slot: Slot, running: bool, effects: list[NodeEffect]) -> None:
        self.slots[slot] = SlotStatus.RUNNING if running else SlotStatus.VACANT
        if running or self.goal is not Goal.UP or slot not in self.wanted:
            return
        if self.phase is NodePhase.STARTING and slot not in self._repeated:
            # The report may have been written before the order was read, or the order was lost with whoever
            # was to carry it out. It bears a number, so saying it once more is safe.
            self._repeated.add(slot)
            self.slots[slot] = SlotStatus.STARTING
            effects.append(StartSlot(slot=slot))
        elif self.phase in (NodePhase.STARTING, NodePhase.RUNNING):
            self._fail(f"the {slot.words} is gone and left no record of how it ended", effects)

    def _launch(self, ask: int, effects: list[NodeEffect]) -> None:
        if ask != self.ask or self.phase is not NodePhase.PLANNING:
            return
        if self.occupied or not self._known():
            # What has turned up meanwhile is taken over, or ended, like anything found; and where nobody can
            # say what is there, nothing is started.
            self._begin_asking()
            return
        self._launched = True
        self._repeated.clear()
        self.phase = NodePhase.STARTING
        for slot in Slot:
            if slot in self.wanted:
                self.slots[slot] = SlotStatus.STARTING
                effects.append(StartSlot(slot=slot))

    def _fail(self, reason: str, effects: list[NodeEffect]) -> None:
        """One failure of the node; a second one while the first is being dealt with is part of it."""
        if self.goal in (Goal.DOWN, Goal.RECOVER):
            return
        if self.goal is Goal.RECYCLE:
            return  # it was on its way down anyway: what matters is that it is down
        self._count(self.restarts + 1, effects)
        self.failure = reason
        effects.append(Failed(reason=reason, left=max(0, self.restarts_max - self.restarts)))
        if self.restarts > self.restarts_max:
            self._go_down(StopPurpose.GAVE_UP, reason, effects)
        else:
            self.goal, self.reason, self.phase = Goal.RECOVER, reason, NodePhase.STOPPING

    def _finish_stop(self, slot: Slot, effects: list[NodeEffect]) -> None:
        """What ran in the slot stops or has stopped by an order that is not this machine's, but of a visor or
        a lifecycle before it. Have that finished; then the node starts again.
        """
        if self.goal is Goal.UP and (self.occupied or self.phase in (NodePhase.STARTING, NodePhase.RUNNING)):
            self._recycle(f"the {slot.words} had been asked to stop before", effects)

    def _recycle(self, reason: str, effects: list[NodeEffect]) -> None:
        if self.goal is Goal.DOWN:
            return
        if self.phase is NodePhase.WAITING:
            effects.append(CancelDelay())
        self.goal, self.reason, self.phase = Goal.RECYCLE, reason, NodePhase.STOPPING

    def _go_down(self, purpose: StopPurpose, reason: str, effects: list[NodeEffect]) -> None:
        if self.goal is Goal.DOWN:
            return
        if self.phase is NodePhase.WAITING:
            effects.append(CancelDelay())
        self.goal, self.reason, self.phase = Goal.DOWN, reason, NodePhase.STOPPING
        self._purpose = purpose

    def _count(self, restarts: int, effects: list[NodeEffect]) -> None:
        if restarts != self.restarts:
            self.restarts = restarts
            effects.append(CountRestarts(restarts=restarts))

    def _begin_asking(self) -> None:
        self.goal, self.order, self._launched = Goal.UP, None, False
        self.ask += 1
        self.phase = NodePhase.ASKING

    def _settle(self, effects: list[NodeEffect]) -> None:
        """Emit what is missing between the goal and what the slots report."""
        match self.goal:
            case Goal.UP:
                self._settle_up(effects)
            case Goal.RECYCLE | Goal.RECOVER | Goal.DOWN:
                self._settle_down(effects)
        up = self.phase is NodePhase.RUNNING
        if up != self._was_up:
            self._was_up = up
            effects.append(Up(attached=not self._launched) if up else Down())

    def _settle_up(self, effects: list[NodeEffect]) -> None:
        if not self._known():
            return
        if self.phase is NodePhase.UNKNOWN:
            self._begin_asking()
        if self.phase is NodePhase.ASKING and self.order is None:
            effects.append(Ask(ask=self.ask))
        if self.order is None:
            return
        running = {slot for slot, status in self.slots.items() if status is SlotStatus.RUNNING}
        if self.phase in (NodePhase.ASKING, NodePhase.HELD):
            if running >= self.wanted:
                self.phase, self.reason = NodePhase.RUNNING, None
            elif self.occupied:
                missing = ", ".join(slot.words for slot in Slot if slot in self.wanted - running)
                self._fail(f"only a part of the node runs; missing: {missing}", effects)
                self._settle_down(effects)
            elif self.order.occasion is Occasion.TAKE_OVER:
                # What was to be taken over is gone, and nobody has decided what to start instead.
                self._begin_asking()
                effects.append(Ask(ask=self.ask))
            else:
                self.phase = NodePhase.PLANNING
                effects.append(PlanLaunch(order=self.order, wanted=self.wanted))
        elif self.phase is NodePhase.STARTING and running >= self.wanted:
            self.phase, self.reason = NodePhase.RUNNING, None

    def _settle_down(self, effects: list[NodeEffect]) -> None:
        for slot, status in self.slots.items():
            if status in (SlotStatus.STARTING, SlotStatus.RUNNING):
                self.slots[slot] = SlotStatus.STOPPING
                effects.append(StopSlot(slot=slot))
        if self.occupied or not self._known():
            return
        match self.goal:
            case Goal.RECYCLE:
                self._begin_asking()
                self.reason = None
                effects.append(Ask(ask=self.ask))
            case Goal.RECOVER if self.phase is not NodePhase.WAITING:
                self.phase = NodePhase.WAITING
                effects.append(ArmDelay())
            case Goal.DOWN if self.phase not in (NodePhase.STOPPED, NodePhase.GAVE_UP):
                given_up = self._purpose is StopPurpose.GAVE_UP
                self.phase = NodePhase.GAVE_UP if given_up else NodePhase.STOPPED
                effects.append(Leave(purpose=self._purpose, reason=self.reason or ""))
