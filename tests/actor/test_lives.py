"""Starts, deaths and restarts with real threads."""

from __future__ import annotations

import os
import threading

import pykka
import pytest

from tests.actor.trees import AT_ONCE, Bench, bench, faulty, raising, scripts, waiting
from visor_actors.actor import (
    Actor,
    ActorExited,
    ActorStarted,
    ActorSystem,
    Address,
    Backoff,
    ChildSpec,
    Context,
    Degraded,
    Escalated,
    ExitReason,
    Intensity,
    OutcomeKind,
    ReceiverDied,
    Recovered,
    Restart,
    RestartScheduled,
    SpecInvalid,
    Strategy,
    SupervisorSpec,
    SystemAlreadyRan,
)
from visor_actors.actor.actor_cell import ActorCell
from visor_actors.testing import FakeClock, FaultyActor, running
from visor_actors.testing.faulty import Action, Lived

DEADLY = [
    RuntimeError("boom"),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    MemoryError(),
    RecursionError("deep"),
]


def stopping(it: Bench, name: str) -> Action:
    """Return an action that ends the actor ``name`` as if it had called ``context.stop()`` itself."""

    def action() -> None:
        cell = it.cell(name)
        assert isinstance(cell, ActorCell)
        cell.context.stop()

    return action


def test_an_empty_tree_runs_until_it_is_stopped() -> None:
    with bench() as it:
        assert it.system.tree().state in ("down", "starting", "running")
        it.system.stop()
        assert it.run.outcome().kind is OutcomeKind.STOPPED


def test_children_start_in_order_and_stop_in_reverse_nested_ones_too() -> None:
    lives, (a, b, c, d) = scripts("a", "b", "c", "d")
    inner = SupervisorSpec(id="inner", children=(faulty(b), faulty(c)))
    with bench(faulty(a), inner, faulty(d), lives=lives) as it:
        it.started("d", 1)
    order = [(life.name, life.what) for life in lives.all(Lived)]
    assert order == [(name, "init") for name in "abcd"] + [(name, "terminate") for name in "dcba"]


def test_a_slow_init_delays_the_next_sibling() -> None:
    lives, (a, b) = scripts("a", "b")
    go = threading.Event()
    a.in_init.append(lambda: waiting(go))
    with bench(faulty(a), faulty(b), lives=lives) as it:
        it.events.wait_until(lambda: a.starts == 1)
        assert b.starts == 0
        go.set()
        it.started("b", 1)


@pytest.mark.parametrize("error", DEADLY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["handler", "init", "terminate", "injected"])
def test_whatever_is_raised_anywhere_one_actor_restarts_and_the_five_others_go_on(
    where: str, error: BaseException
) -> None:
    lives, (victim, *others) = scripts("victim", "a", "b", "c", "d", "e")
    with bench(*(faulty(script) for script in (*others, victim)), lives=lives) as it:
        it.started("victim", 1)
        match where:
            case "handler":
                it.do("victim", raising(error))
            case "init":
                victim.in_init.append(raising(error))
                it.do("victim", raising(ValueError("first")))
            case "terminate":
                victim.in_terminate.append(raising(error))
                it.do("victim", raising(ValueError("first")))
            case _:
                it.system.inject(Address("victim"), raising(error))
        generation = 3 if where == "init" else 2
        it.started("victim", generation)
        assert it.ask("victim", "alive") == "alive"
        for other in others:
            assert it.ask(other.name, other.name) == other.name
            assert other.starts == 1
        deaths = [event for event in it.events.all(ActorExited) if event.child == "victim"]
        assert [event.generation for event in deaths] == list(range(1, generation))
        assert all(event.failure is not None for event in deaths)
        assert victim.tripped is None
    assert it.run.outcome().kind is OutcomeKind.STOPPED


def test_an_exception_in_an_ask_ends_the_actor_and_the_ask_fails_with_its_cause() -> None:
    lives, (a,) = scripts("a")

    class Raising(FaultyActor):
        def handle(self, message: object) -> None:
            raise LookupError("no such thing")

    with bench(faulty(a, factory=lambda context: Raising(context, a)), lives=lives) as it:
        it.started("a", 1)
        with pytest.raises(ReceiverDied) as died:
            it.ask("a", "anything")
        assert [link.type_name for link in died.value.failure.chain()] == ["ReceiverDied", "LookupError"]
        it.started("a", 2)


def test_a_failed_first_start_rolls_back_in_reverse_and_builds_nothing_more() -> None:
    lives, (a, b, c, d) = scripts("a", "b", "c", "d")
    c.in_init.append(raising(OSError("no disk")))
    system = ActorSystem(SupervisorSpec(id="root", children=tuple(faulty(s) for s in (a, b, c, d))))
    outcome = system.run()
    assert outcome.kind is OutcomeKind.START_FAILED
    assert outcome.failure is not None
    assert [link.type_name for link in outcome.failure.chain()] == ["ChildStartFailed", "OSError"]
    ended = [life.name for life in lives.all(Lived) if life.what == "terminate"]
    assert ended == ["c", "b", "a"]
    assert d.starts == 0


def test_a_factory_that_raises_is_a_failed_start() -> None:
    def factory(context: Context) -> Actor:
        raise SystemExit("not today")

    outcome = ActorSystem(SupervisorSpec(id="root", children=(ChildSpec(id="a", factory=factory),))).run()
    assert outcome.kind is OutcomeKind.START_FAILED


def test_a_thread_that_cannot_be_started_is_a_failed_start_and_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lives, (a, b) = scripts("a", "b")
    with bench(faulty(a), faulty(b), lives=lives) as it:
        it.started("b", 1)
        start = threading.Thread.start
        refused: list[str] = []

        def refuse_once(thread: threading.Thread) -> None:
            if thread.name.startswith("a#") and not refused:
                refused.append(thread.name)
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse_once)
        it.do("a", raising(RuntimeError("boom")))
        it.started("a", 3)
        assert refused == ["a#2"]
        assert it.exited("a", 2).reason is ExitReason.START_FAILED


@pytest.mark.parametrize("restart", list(Restart))
@pytest.mark.parametrize("how", ["normal", "crash", "exit", "hang"])
def test_who_comes_back_after_which_end(restart: Restart, how: str) -> None:
    lives, (a, b) = scripts("a", "b")
    clock, go, hanging = FakeClock(), threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        waiting(go)

    with bench(faulty(a, restart=restart, heartbeat=10.0), faulty(b), lives=lives, clock=clock) as it:
        it.started("b", 1)
        match how:
            case "normal":
                it.system.inject(Address("a"), stopping(it, "a"))
                reason = ExitReason.NORMAL
            case "hang":
                it.do("a", hang)
                waiting(hanging)
                clock.advance(11.0)
                reason = ExitReason.HUNG
            case _:
                it.do("a", raising(RuntimeError("boom") if how == "crash" else SystemExit(1)))
                reason = ExitReason.CRASHED
        assert it.exited("a", 1).reason is reason
        go.set()
        comes_back = restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and how != "normal")
        if comes_back:
            it.started("a", 2)
            assert a.starts == 2
        else:
            assert it.ask("b", "still here") == "still here"
            assert it.system.tree().children[0].state == (
                "retired" if restart is Restart.TEMPORARY else "down"
            )
            with pytest.raises(ReceiverDied):
                it.ask("a", "gone")


def test_a_group_restart_replaces_the_group_without_overlap() -> None:
    lives, (a, b, c) = scripts("a", "b", "c")
    with bench(*map(faulty, (a, b, c)), lives=lives, strategy=Strategy.ONE_FOR_ALL) as it:
        it.started("c", 1)
        it.do("b", raising(RuntimeError("boom")))
        for name in "abc":
            it.started(name, 2)
        assert not [script for script in (a, b, c) if script.tripped]


def test_an_escalation_reaches_the_parent_with_the_chain_of_causes() -> None:
    lives, (a,) = scripts("a")
    inner = SupervisorSpec(
        id="inner", children=(faulty(a),), intensity=Intensity(restarts=1, window=60.0), backoff=AT_ONCE
    )
    with bench(inner, lives=lives, intensity=Intensity(restarts=1, window=60.0)) as it:
        for generation in range(1, 5):
            it.started("a", generation)
            it.do("a", raising(RuntimeError(f"boom {generation}")))
        outcome = it.run.outcome()
    assert outcome.kind is OutcomeKind.ESCALATED
    assert outcome.failure is not None
    chain = [link.type_name for link in outcome.failure.chain()]
    assert chain == ["RestartBudgetExhausted", "RestartBudgetExhausted", "RuntimeError"]
    assert it.events.count(Escalated) == 3


def test_a_root_that_may_only_degrade_goes_on_and_says_so_until_it_has_recovered() -> None:
    lives, (a, b) = scripts("a", "b")
    clock = FakeClock()
    backoff = Backoff(base=1.0, maximum=30.0, jitter=0.0, reset_after=60.0)
    children = (faulty(a, backoff=backoff), faulty(b))
    budget = Intensity(restarts=1, window=600.0)
    with bench(*children, lives=lives, clock=clock, intensity=budget, on_exhausted="degrade") as it:
        it.started("b", 1)
        for generation, delay in ((1, 1.0), (2, 30.0), (3, 30.0)):
            it.do("a", raising(RuntimeError("boom")))
            scheduled = it.events.expect(RestartScheduled)
            assert scheduled.delay == delay
            clock.advance(delay)
            it.started("a", generation + 1)
        assert it.events.count(Degraded) == 1
        assert it.system.tree().children[0].degraded
        assert b.starts == 1
        clock.advance(60.0)
        it.events.expect(Recovered)
        assert not it.system.tree().children[0].degraded


def test_stopping_during_a_restart_delay_is_immediate() -> None:
    lives, (a,) = scripts("a")
    clock = FakeClock()
    slow = Backoff(base=1000.0, maximum=1000.0, jitter=0.0)
    with bench(faulty(a, backoff=slow), lives=lives, clock=clock) as it:
        it.started("a", 1)
        it.do("a", raising(RuntimeError("boom")))
        it.events.expect(RestartScheduled)
        it.events.wait_until(lambda: it.system.tree().children[0].state == "waiting")
    assert it.run.outcome().kind is OutcomeKind.STOPPED
    assert a.starts == 1


def test_a_supervisor_that_crashes_stops_its_children_in_order_and_is_restarted() -> None:
    lives, (a, b, c) = scripts("a", "b", "c")
    inner = SupervisorSpec(id="inner", children=(faulty(a), faulty(b)), backoff=AT_ONCE)
    with bench(inner, faulty(c), lives=lives) as it:
        it.started("c", 1)
        it.system.inject(Address("inner"), raising(SystemExit(1)))
        it.started("inner", 2)
        assert it.exited("inner", 1).reason is ExitReason.CRASHED
        assert it.ask("a", 1) == 1
        assert [life.name for life in lives.all(Lived) if life.what == "terminate"] == ["b", "a"]
        assert c.starts == 1
        assert not [script for script in (a, b, c) if script.tripped]
        generations = [event.generation for event in it.events.all(ActorStarted) if event.child == "a"]
        assert generations == [1, 2]


def test_a_root_that_crashes_stops_everything_and_says_why() -> None:
    lives, (a,) = scripts("a")
    with bench(faulty(a), lives=lives) as it:
        it.started("a", 1)
        it.system.inject(Address("root"), raising(ValueError("the root")))
        outcome = it.run.outcome()
    assert outcome.kind is OutcomeKind.CRASHED
    assert outcome.failure is not None
    assert outcome.failure.message == "the root"
    assert lives.all(Lived)[-1].what == "terminate"


def test_a_system_runs_once() -> None:
    system = ActorSystem(SupervisorSpec(id="root"))
    with running(system):
        pass
    with pytest.raises(SystemAlreadyRan):
        system.run()


def test_stopping_before_running_starts_nothing() -> None:
    _, (a,) = scripts("a")
    system = ActorSystem(SupervisorSpec(id="root", children=(faulty(a),)))
    system.stop()
    assert system.run().kind is OutcomeKind.STOPPED
    assert a.starts == 0


def test_every_fault_of_a_spec_is_named_with_its_field() -> None:
    _, (a,) = scripts("a")
    bad = faulty(
        a,
        restart="often",
        factory=None,
        start_timeout=0,
        shutdown_timeout=-1,
        heartbeat=0,
        capacity=0,
        backoff=Backoff(base=-1.0, maximum=-2.0, jitter=2.0, reset_after=0.0),
        intensity=Intensity(restarts=-1, window=0.0),
    )
    root = SupervisorSpec(
        id="root",
        children=(bad, faulty(a), SupervisorSpec(id="")),
        strategy="all",  # type: ignore[arg-type]  # a fault on purpose
        on_exhausted="panic",  # type: ignore[arg-type]  # a fault on purpose
    )
    with pytest.raises(SpecInvalid) as invalid:
        ActorSystem(root)
    text = "\n".join(invalid.value.problems)
    for field in (
        "restart",
        "factory",
        "start_timeout",
        "shutdown_timeout",
        "heartbeat",
        "capacity",
        "backoff.base",
        "backoff.maximum",
        "backoff.jitter",
        "backoff.reset_after",
        "intensity.restarts",
        "intensity.window",
    ):
        assert f"a: {field}" in text
    assert "root: strategy" in text
    assert "root: on_exhausted" in text
    assert "'a': used twice" in text
    assert "id ''" in text


def test_100_restarts_of_each_kind_leave_no_thread_and_no_descriptor_behind() -> None:
    lives, (a, b) = scripts("a", "b")
    watched = os.eventfd(0)

    class Watching(FaultyActor):
        def init(self) -> None:
            super().init()
            self.context.watch(watched, "never")

    with bench(faulty(a, factory=lambda context: Watching(context, a)), faulty(b), lives=lives) as it:
        it.started("b", 1)
        before = (threading.active_count(), len(os.listdir("/proc/self/fd")))
        for number in range(100):
            it.lived("a", "init", number + 1)
            it.do("a", raising(RuntimeError("boom") if number % 2 else SystemExit()))
        it.lived("a", "init", 101)
        assert it.ask("a", 1) == 1
        it.events.wait_until(lambda: threading.active_count() == before[0])
        assert len(os.listdir("/proc/self/fd")) == before[1]
        assert b.starts == 1
    os.close(watched)


def test_nothing_of_this_package_is_in_pykkas_registry() -> None:
    lives, (a,) = scripts("a")
    with bench(faulty(a), lives=lives) as it:
        it.started("a", 1)
        assert pykka.ActorRegistry.get_all() == []
        pykka.ActorRegistry.stop_all()
        assert it.ask("a", 1) == 1
