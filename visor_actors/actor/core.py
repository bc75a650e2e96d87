"""The decisions of a supervisor: a state machine without threads, clocks or I/O.

Theory of operation
-------------------
:meth:`SupervisorCore.handle` takes one input and the time and returns the effects to carry out, in order.
The rules:

1. *Order.* Children start in the order of the spec, each after the previous one has acknowledged; they stop
   in reverse, each after the next one has ended. A child that exceeds its time is abandoned, which counts as
   its exit.
2. *Generations.* Each start of a child has a new number. An input with another number than the current one is
   stale and changes nothing. Every start is followed by exactly one accepted exit.
3. *Cycles.* A restart is a cycle: stop the members that still run, wait the delay, start the members. With
   one_for_one the only member is the child that failed; with one_for_all every child; with rest_for_one
   those after it as well. A failure within a cycle starts the same cycle again, a failure outside may extend
   it. The first start is a cycle without a second chance: if it fails, whatever has started is stopped in
   reverse and the supervisor fails.
4. *Budget.* Every restart counts in the sliding window, failed attempts too; what falls while the cycle is
   stopping its members belongs to the same cycle. When the window is full the supervisor escalates (stops
   everything and fails with the chain of causes) or, if it may not, marks the child degraded and retries at
   the slowest delay until it is stable again.
5. *Stopping absorbs.* After Stop, Abort or an escalation nothing is started any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import assert_never

from visor_actors.actor.budget import RestartWindow, restart_delay
from visor_actors.actor.decisions import (
    AbandonChild,
    Abort,
    ArmTimer,
    Begin,
    CancelTimer,
    ChildExited,
    ChildHung,
    ChildStarted,
    Effect,
    Finished,
    Input,
    Publish,
    Ready,
    Reconfigure,
    RetireChild,
    StartChild,
    Stop,
    StopChild,
    TimerFired,
    TimerKey,
    TimerKind,
)
from visor_actors.actor.errors import SupervisorBug
from visor_actors.actor.events import (
    ActorEvent,
    ActorExited,
    ActorStarted,
    ActorStarting,
    Degraded,
    Escalated,
    ExitReason,
    Recovered,
    RestartScheduled,
)
from visor_actors.actor.failure import Failure
from visor_actors.actor.ledger import Child, Cycle, CyclePhase, Phase
from visor_actors.actor.lifecycle import LIVE, ChildState, Step, advance
from visor_actors.actor.spec import OnExhausted, Restart, Strategy, SupervisorSpec

_NEVER: Mapping[str, int] = {}


class SupervisorCore:
    """One supervisor's decisions. Not thread-safe: its owner calls :meth:`handle` from one thread.

    ``generations`` are the numbers the children had last (a supervisor that is restarted itself goes on
    counting).
    """

    def __init__(self, *, spec: SupervisorSpec, rng: Random, generations: Mapping[str, int] = _NEVER) -> None:
        self.spec = spec
        self.rng = rng
        self.phase = Phase.NEW
        self.children: dict[str, Child] = {}
        self._window = RestartWindow(spec.intensity)
        self._cycles: list[Cycle] = []
        self._cycle_numbers = 0
        self._armed: dict[TimerKey, None] = {}
        self._deferred: list[ChildExited] = []
        self._outcome = Finished(ExitReason.REQUESTED, None)
        self._effects: list[Effect] = []
        for child in spec.children:
            own = None if isinstance(child, SupervisorSpec) or child.intensity is None else child.intensity
            self.children[child.id] = Child(
                spec=child,
                backoff=child.backoff,
                window=None if own is None else RestartWindow(own),
                generation=generations.get(child.id, 0),
            )

    @property
    def armed(self) -> frozenset[TimerKey]:
        """The timers that have been armed and neither fired nor cancelled."""
        return frozenset(self._armed)

    def pending_restart(self, child: str) -> bool:
        """Return whether ``child`` is down and waits for its restart."""
        return (
            any(child in cycle.members and cycle.phase is CyclePhase.WAITING for cycle in self._cycles)
            and self.children[child].state is ChildState.DOWN
        )

    def handle(self, event: Input, now: float) -> list[Effect]:
        """Return what to do about ``event``, in order. ``now`` is in monotonic seconds. Raises
        SupervisorBug only."""
        match event:
            case Begin():
                self._begin()
            case ChildStarted():
                self._started(event)
            case ChildExited():
                self._exited(event, now)
            case ChildHung():
                self._hung(event, now)
            case TimerFired():
                self._fired(event.key, now)
            case Stop():
                self._stop(Finished(ExitReason.REQUESTED, None))
            case Abort():
                self._stop(Finished(ExitReason.CRASHED, event.failure))
            case Reconfigure():
                self._reconfigure(event)
            case _:
                assert_never(event)
        if self._deferred and self.phase is Phase.RUNNING:
            self._judge_deferred(now)
        effects, self._effects = self._effects, []
        return effects

    # --- inputs

    def _begin(self) -> None:
        if self.phase is Phase.STOPPING or self.phase is Phase.FINISHED:
            return  # stopped before it began
        if self.phase is not Phase.NEW:
            raise SupervisorBug(self.spec.id, self.phase, Begin())
        self.phase = Phase.STARTING
        self._proceed(self._new_cycle("", list(self.children), CyclePhase.STARTING))

    def _started(self, event: ChildStarted) -> None:
        child = self._current(event.child, event.generation)
        if child is None:
            return
        stopping = child.state is ChildState.STOPPING
        self._step(child, Step.STARTED)
        if stopping:
            return
        self._disarm(TimerKey(TimerKind.START, event.child, event.generation))
        self._publish(ActorStarted(child=event.child, generation=event.generation))
        if child.attempts or child.degraded:
            self._arm(TimerKey(TimerKind.STABLE, event.child, event.generation), child.backoff.reset_after)
        for cycle in self._cycles_of(event.child):
            self._proceed(cycle)

    def _exited(self, event: ChildExited, now: float) -> None:
        child = self._current(event.child, event.generation)
        if child is None:
            return
        asked = child.state is ChildState.STOPPING
        starting = child.state is ChildState.STARTING
        self._step(child, Step.EXITED)
        self._gone(child, event, asked=asked, starting=starting, now=now)

    def _hung(self, event: ChildHung, now: float) -> None:
        child = self._current(event.child, event.generation)
        if child is None or child.state is not ChildState.RUNNING:
            return  # while starting and stopping other deadlines hold
        self._abandon(child, ExitReason.HUNG, event.failure, now)

    def _fired(self, key: TimerKey, now: float) -> None:
        if key not in self._armed:
            return
        del self._armed[key]
        match key.kind:
            case TimerKind.START:
                child = self.children[key.child]
                failure = Failure("StartTimedOut", f"init took more than {child.spec.start_timeout:g} s")
                self._abandon(child, ExitReason.START_TIMED_OUT, failure, now)
            case TimerKind.STOP:
                child = self.children[key.child]
                failure = Failure("StopTimedOut", f"it did not stop within {child.spec.shutdown_timeout:g} s")
                self._abandon(child, ExitReason.STOP_TIMED_OUT, failure, now)
            case TimerKind.RESTART:
                for cycle in self._cycles:
                    if cycle.timer == key:
                        cycle.timer = None
                        cycle.phase = CyclePhase.STARTING
                        self._proceed(cycle)
                        break
            case TimerKind.STABLE:
                child = self.children[key.child]
                child.attempts = 0
                if child.degraded:
                    child.degraded = False
                    self._publish(Recovered(supervisor=self.spec.id, child=key.child))
            case _:
                assert_never(key.kind)

    def _stop(self, outcome: Finished) -> None:
        if self.phase in (Phase.STOPPING, Phase.FINISHED):
            return
        self.phase = Phase.STOPPING
        self._outcome = outcome
        self._cycles.clear()
        self._deferred.clear()
        for key in list(self._armed):
            if key.kind in (TimerKind.RESTART, TimerKind.STABLE):
                self._disarm(key)
        self._stop_next()

    def _reconfigure(self, event: Reconfigure) -> None:
        self._window.intensity = event.intensity
        for name, settings in event.children.items():
            child = self.children.get(name)
            if child is None:
                continue
            child.backoff = settings.backoff
            if settings.intensity is None:
                child.window = None
            elif child.window is None:
                child.window = RestartWindow(settings.intensity)
            else:
                child.window.intensity = settings.intensity

    # --- exits

    def _abandon(self, child: Child, reason: ExitReason, failure: Failure, now: float) -> None:
        asked = child.state is ChildState.STOPPING
        starting = child.state is ChildState.STARTING
        self._step(child, Step.ABANDONED)
        self._effects.append(AbandonChild(child.spec.id, child.generation, reason))
        event = ChildExited(child.spec.id, child.generation, reason, failure)
        self._gone(child, event, asked=asked, starting=starting, now=now)

    def _gone(self, child: Child, event: ChildExited, *, asked: bool, starting: bool, now: float) -> None:
        """One incarnation is over, whether it said so or was given up."""
        name = event.child
        for kind in (TimerKind.START, TimerKind.STOP, TimerKind.STABLE):
            self._disarm(TimerKey(kind, name, event.generation))
        if event.failure is not None:
            child.failure = event.failure
        self._publish(
            ActorExited(child=name, generation=event.generation, reason=event.reason, failure=event.failure)
        )
        if self.phase is Phase.STOPPING:
            self._stop_next()
            return
        if asked:
            if child.spec.restart is Restart.TEMPORARY:
                self._retire(child)
            for cycle in self._cycles_of(name):
                self._proceed(cycle)
            return
        if self.phase is Phase.STARTING:
            if starting:
                cause = Failure("ChildStartFailed", f"{name} could not be started", cause=event.failure)
                self._stop(Finished(ExitReason.START_FAILED, cause))
            else:
                self._deferred.append(event)  # judged when the first start is over
            return
        self._judge(child, event, now)

    def _judge(self, child: Child, event: ChildExited, now: float) -> None:
        restart = child.spec.restart
        if restart is Restart.TEMPORARY:
            self._retire(child)
        elif restart is Restart.PERMANENT or event.reason is not ExitReason.NORMAL:
            self._restart(child, event, now)
            return
        for cycle in self._cycles_of(event.child):
            cycle.members.remove(event.child)  # it is done; its group goes on without it
            self._proceed(cycle)

    def _judge_deferred(self, now: float) -> None:
        deferred, self._deferred = self._deferred, []
        # Temporary ones first: else the restart of a group would bring them back.
        for exited in sorted(deferred, key=lambda it: not self._is_temporary(it.child)):
            child = self.children[exited.child]
            fell = child.generation == exited.generation and child.state is ChildState.DOWN
            if fell and self.phase is Phase.RUNNING and not self._cycles_of(exited.child):
                self._judge(child, exited, now)

    def _restart(self, child: Child, event: ChildExited, now: float) -> None:
        name = event.child
        cycle = next(iter(self._cycles_of(name)), None)
        if cycle is not None and cycle.phase is CyclePhase.STOPPING:
            self._proceed(cycle)  # it fell while its group was being stopped: the same cycle
            return
        budget = child.window or self._window
        degraded = child.degraded
        if not degraded and not budget.admits(now):
            if self.spec.on_exhausted == OnExhausted.ESCALATE:
                self._escalate(name, budget, event.failure)
                return
            child.degraded = True
            budget.clear()  # its siblings keep a budget of their own
            self._publish(
                Degraded(
                    supervisor=self.spec.id, child=name, delay=child.backoff.maximum, failure=event.failure
                )
            )
        child.attempts += 1
        child.restarts += 1
        if child.degraded:
            delay = child.backoff.maximum
        else:
            delay = restart_delay(child.backoff, child.attempts, self.rng)
        cycle = self._join(cycle, name)
        cycle.culprit = name
        cycle.delay = delay
        cycle.phase = CyclePhase.STOPPING
        self._publish(
            RestartScheduled(
                child=name,
                generation=event.generation,
                reason=event.reason,
                failure=event.failure,
                delay=delay,
                attempt=child.attempts,
                restarts=child.restarts,
                together=tuple(cycle.members),
            )
        )
        self._proceed(cycle)

    def _escalate(self, name: str, budget: RestartWindow, failure: Failure | None) -> None:
        intensity = budget.intensity
        limit = f"{intensity.restarts} restarts within {intensity.window:g} s"
        exhausted = Failure(
            "RestartBudgetExhausted",
            f"{name} failed more often than {self.spec.id} allows: {limit}",
            cause=failure,
        )
        self._publish(
            Escalated(
                supervisor=self.spec.id,
                child=name,
                restarts=intensity.restarts,
                window=intensity.window,
                failure=exhausted,
            )
        )
        self._stop(Finished(ExitReason.ESCALATED, exhausted))

    # --- cycles

    def _new_cycle(self, culprit: str, members: list[str], phase: CyclePhase) -> Cycle:
        self._cycle_numbers += 1
        cycle = Cycle(number=self._cycle_numbers, culprit=culprit, members=members, phase=phase)
        self._cycles.append(cycle)
        return cycle

    def _join(self, cycle: Cycle | None, name: str) -> Cycle:
        """Return the cycle that restarts ``name`` and whoever goes with it."""
        group = self._group(name)
        if cycle is None and self.spec.strategy is not Strategy.ONE_FOR_ONE and self._cycles:
            cycle = self._cycles[0]
        if cycle is None:
            return self._new_cycle(name, group, CyclePhase.STOPPING)
        if cycle.timer is not None:
            self._disarm(cycle.timer)
            cycle.timer = None
        wanted = {*cycle.members, *group}
        cycle.members = [member for member in self.children if member in wanted]
        return cycle

    def _group(self, name: str) -> list[str]:
        names = list(self.children)
        match self.spec.strategy:
            case Strategy.ONE_FOR_ONE:
                group = [name]
            case Strategy.ONE_FOR_ALL:
                group = names
            case Strategy.REST_FOR_ONE:
                group = names[names.index(name) :]
            case _:
                assert_never(self.spec.strategy)
        return [member for member in group if self.children[member].state is not ChildState.RETIRED]

    def _cycles_of(self, name: str) -> list[Cycle]:
        return [cycle for cycle in self._cycles if name in cycle.members]

    def _proceed(self, cycle: Cycle) -> None:
        """Do the next step of ``cycle``, if it need not wait."""
        members = [self.children[name] for name in cycle.members]
        if cycle.phase is CyclePhase.STOPPING:
            for child in reversed(members):
                if child.state in LIVE:
                    self._order_stop(child)
                    return
            cycle.phase = CyclePhase.WAITING
            if cycle.delay > 0:
                cycle.timer = TimerKey(TimerKind.RESTART, cycle.culprit, cycle.number)
                self._arm(cycle.timer, cycle.delay)
                return
            cycle.phase = CyclePhase.STARTING
        if cycle.phase is CyclePhase.WAITING:
            return
        for child in members:
            if child.state is ChildState.STARTING:
                return
            if child.state is ChildState.DOWN and not self._is_deferred(child):
                self._start(child)
                return
        self._cycles.remove(cycle)
        if self.phase is Phase.STARTING:
            self.phase = Phase.RUNNING
            self._effects.append(Ready())

    def _is_deferred(self, child: Child) -> bool:
        return any(exited.child == child.spec.id for exited in self._deferred)

    # --- children

    def _start(self, child: Child) -> None:
        child.generation += 1
        self._step(child, Step.START)
        name = child.spec.id
        self._publish(ActorStarting(child=name, generation=child.generation))
        self._arm(TimerKey(TimerKind.START, name, child.generation), child.spec.start_timeout)
        self._effects.append(StartChild(name, child.generation))

    def _order_stop(self, child: Child) -> None:
        if child.state is ChildState.STOPPING:
            return
        self._step(child, Step.STOP)
        name = child.spec.id
        self._disarm(TimerKey(TimerKind.START, name, child.generation))
        self._disarm(TimerKey(TimerKind.STABLE, name, child.generation))
        self._arm(TimerKey(TimerKind.STOP, name, child.generation), child.spec.shutdown_timeout)
        self._effects.append(StopChild(name, child.generation))

    def _stop_next(self) -> None:
        for child in reversed(self.children.values()):
            if child.state in LIVE:
                self._order_stop(child)
                return
        self.phase = Phase.FINISHED
        self._effects.append(self._outcome)

    def _is_temporary(self, name: str) -> bool:
        return self.children[name].spec.restart is Restart.TEMPORARY

    def _retire(self, child: Child) -> None:
        self._step(child, Step.RETIRE)
        self._effects.append(RetireChild(child.spec.id))

    # --- helpers

    def _current(self, name: str, generation: int) -> Child | None:
        child = self.children.get(name)
        if child is None or child.generation != generation or child.state not in LIVE:
            return None
        return child

    def _step(self, child: Child, step: Step) -> None:
        child.state = advance(child.spec.id, child.state, step)

    def _arm(self, key: TimerKey, delay: float) -> None:
        self._armed[key] = None
        self._effects.append(ArmTimer(key, delay))

    def _disarm(self, key: TimerKey) -> None:
        if key in self._armed:
            del self._armed[key]
            self._effects.append(CancelTimer(key))

    def _publish(self, event: ActorEvent) -> None:
        self._effects.append(Publish(event))
