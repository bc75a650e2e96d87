"""The core against a small reference model, under every interleaving that Hypothesis thinks of.

The world (world.py) checks at each step: live generations per child <= 1, order of stopping, nothing starts
after stopping, the armed timers are exactly those that were armed and neither fired nor were cancelled. The
model below knows nothing of cycles and states; it predicts from the crashes alone who must be running in
the end and what the budget allows.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.actor.world import BOOM, World, child, supervisor
from visor_actors.actor import (
    ActorExited,
    Backoff,
    Degraded,
    Escalated,
    ExitReason,
    Intensity,
    OnExhausted,
    Recovered,
    Restart,
    RestartScheduled,
    Strategy,
)
from visor_actors.actor.decisions import ChildExited, ChildHung, ChildStarted
from visor_actors.actor.ledger import Phase

NAMES = ("a", "b", "c", "d")


class Budget:
    """The reference for the sliding window: a plain list, read from the definition."""

    def __init__(self, restarts: int, window: float) -> None:
        self.restarts = restarts
        self.window = window
        self.times: list[float] = []

    def exceeded_by(self, now: float) -> bool:
        return len([at for at in self.times if now - at <= self.window]) + 1 > self.restarts


class SupervisorMachine(RuleBasedStateMachine):
    @initialize(
        restarts=st.lists(st.sampled_from(Restart), min_size=0, max_size=4),
        strategy=st.sampled_from(Strategy),
        budget=st.integers(0, 4),
        base=st.sampled_from([0.0, 0.5]),
        on_exhausted=st.sampled_from(OnExhausted),
    )
    def build(
        self,
        restarts: list[Restart],
        strategy: Strategy,
        budget: int,
        base: float,
        on_exhausted: OnExhausted,
    ) -> None:
        self.backoff = Backoff(base=base, maximum=4.0, jitter=0.2, reset_after=20.0)
        specs = [
            child(name, restart, backoff=self.backoff, start_timeout=5.0, shutdown_timeout=3.0)
            for name, restart in zip(NAMES, restarts, strict=False)
        ]
        self.strategy = strategy
        self.escalates = on_exhausted is OnExhausted.ESCALATE
        intensity = Intensity(restarts=budget, window=10.0)
        self.world = World(
            supervisor(*specs, strategy=strategy, intensity=intensity, on_exhausted=on_exhausted)
        )
        self.budget = Budget(budget, 10.0)
        self.restart = {spec.id: spec.restart for spec in specs}
        self.may_be_down: set[str] = {name for name in self.restart if self._temporary(name)}
        self.degraded: set[str] = set()
        self.judged = 0

    # --- what may happen

    @precondition(lambda self: self.world.core.phase is Phase.NEW)
    @rule()
    def begin(self) -> None:
        self.world.begin()

    @precondition(lambda self: self.world.alive_in("starting", "stopping"))
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        self.world.ack(data.draw(st.sampled_from(self.world.alive_in("starting", "stopping"))))

    @precondition(lambda self: self.world.live)
    @rule(data=st.data(), reason=st.sampled_from([ExitReason.CRASHED, ExitReason.NORMAL]))
    def end(self, data: st.DataObject, reason: ExitReason) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.live)))
        state = self.world.states()[name]
        if state == "starting" and reason is ExitReason.NORMAL:
            reason = ExitReason.START_FAILED
        if state == "stopping":
            reason = ExitReason.REQUESTED
        self._note(name, state, reason)
        self.world.exit(name, reason)

    @precondition(lambda self: self.world.alive_in("running"))
    @rule(data=st.data())
    def hang(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.world.alive_in("running")))
        self._note(name, "running", ExitReason.HUNG)
        self.world.hang(name)

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.9, 5.0, 21.0]))
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule()
    def settle(self) -> None:
        self.world.settle()

    @precondition(lambda self: self.world.exits)
    @rule(data=st.data())
    def stale(self, data: st.DataObject) -> None:
        """What an old generation still reports changes nothing."""
        name, generation = data.draw(st.sampled_from(self.world.exits))
        before = (dict(self.world.live), len(self.world.events), dict(self.world.timers))
        self.world.feed(ChildStarted(name, generation))
        self.world.feed(ChildHung(name, generation, BOOM))
        self.world.feed(ChildExited(name, generation, ExitReason.CRASHED, BOOM))
        assert before == (dict(self.world.live), len(self.world.events), dict(self.world.timers))

    @rule(chance=st.integers(0, 9))
    def stop(self, chance: int) -> None:
        if chance == 0:
            self.world.stop()

    # --- the model

    def _note(self, name: str, state: str, reason: ExitReason) -> None:
        ends_for_good = self.restart[name] is Restart.TEMPORARY or (
            self.restart[name] is Restart.TRANSIENT and reason is ExitReason.NORMAL
        )
        if state != "stopping" and ends_for_good:
            self.may_be_down.add(name)

    @invariant()
    def the_budget_decides_as_the_definition_says(self) -> None:
        """Judge every new event: a restart was within the budget and its delay within bounds; giving up was
        due."""
        world = self.world
        for event, at in zip(world.events[self.judged :], world.told_at[self.judged :], strict=True):
            match event:
                case Escalated():
                    assert self.escalates
                    assert self.budget.exceeded_by(at)
                case Degraded():
                    assert not self.escalates
                    assert self.budget.exceeded_by(at)
                    self.degraded.add(event.child)
                    self.budget.times.clear()  # its siblings start afresh
                case Recovered():
                    self.degraded.remove(event.child)
                case RestartScheduled() if event.child in self.degraded:
                    assert event.delay == self.backoff.maximum
                case RestartScheduled():
                    assert not self.budget.exceeded_by(at)
                    self.budget.times.append(at)
                    nominal = min(4.0, self.backoff.base * 2.0 ** (event.attempt - 1))
                    assert 0.8 * nominal <= event.delay <= min(4.0, 1.2 * nominal)
            if isinstance(event, RestartScheduled):
                assert event.child in event.together
                if self.strategy is Strategy.ONE_FOR_ONE:
                    assert event.together == (event.child,)
                self.may_be_down -= {name for name in event.together if not self._temporary(name)}
        self.judged = len(world.events)

    def _temporary(self, name: str) -> bool:
        return self.restart[name] is Restart.TEMPORARY

    @invariant()
    def every_start_ends_in_exactly_one_exit(self) -> None:
        world = self.world
        alive = list(world.live.items())
        assert sorted(world.starts) == sorted(world.exits + alive)
        told = [(event.child, event.generation) for event in world.events if isinstance(event, ActorExited)]
        assert sorted(told) == sorted(world.exits)

    def teardown(self) -> None:
        """Left alone it quiesces: running, with everybody up who should be; or finished. Then it stops
        completely."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for _ in range(50):
            world.settle()
            world.advance(4.0)
        world.settle()
        self.the_budget_decides_as_the_definition_says()
        if world.core.phase is Phase.RUNNING:
            down = {name for name, state in world.states().items() if state != "running"}
            assert down <= self.may_be_down, (down, self.may_be_down)
            assert not world.timers, "somebody still waits for something"
        world.stop()
        world.settle()
        assert world.finished is not None
        assert not world.live
        assert not world.timers


TestSupervisor = SupervisorMachine.TestCase
TestSupervisor.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
