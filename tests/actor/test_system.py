"""The way in from outside: settings, the picture of the tree, events."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tests.actor.trees import AT_ONCE, bench, faulty, raising, scripts, waiting
from visor_actors.actor import (
    EVERYWHERE,
    ActorEvent,
    ActorExited,
    ActorStarted,
    ActorSystem,
    Address,
    Backoff,
    EventsSuppressed,
    Intensity,
    NodeSnapshot,
    OutcomeKind,
    Recovered,
    RestartScheduled,
    SpecInvalid,
    SupervisionSettings,
    SupervisorSpec,
)
from visor_actors.actor.publisher import BURST, PERIOD, Publisher, Throttle
from visor_actors.actor.supervisor_cell import SupervisorCell
from visor_actors.testing import FakeClock, Probe, running
from visor_actors.testing.faulty import Lived

BOOM = raising(RuntimeError("boom"))


def node(tree: NodeSnapshot, name: str) -> NodeSnapshot:
    """Return the node ``name`` of ``tree``."""
    if tree.id == name:
        return tree
    for child in tree.children:
        try:
            return node(child, name)
        except LookupError:
            continue
    raise LookupError(name)


# --- settings


def test_a_reload_changes_delay_and_budget_of_the_running_tree() -> None:
    lives, (a,) = scripts("a")
    clock = FakeClock()
    inner = SupervisorSpec(id="inner", children=(faulty(a),), intensity=Intensity(restarts=1, window=60.0))
    with bench(inner, lives=lives, clock=clock) as it:
        it.started("inner", 1)
        it.system.reconfigure(
            {
                EVERYWHERE: SupervisionSettings(delay_seconds=1.0, max_delay_seconds=4.0),
                "inner": SupervisionSettings(max_restarts=10, window_seconds=1000.0),
            }
        )
        supervisor = it.cell("inner")
        assert isinstance(supervisor, SupervisorCell)
        it.events.wait_until(lambda: supervisor.core.children["a"].backoff.base == 1.0)
        for generation in range(1, 5):
            it.do("a", BOOM)
            delay = it.events.expect(RestartScheduled).delay
            nominal = min(4.0, 2.0 ** (generation - 1))
            assert 0.9 * nominal <= delay <= 1.1 * nominal
            clock.advance(delay)
            it.started("a", generation + 1)
        assert node(it.system.tree(), "a").restarts == 4


def test_settings_outlive_the_supervisor_that_got_them() -> None:
    lives, (a,) = scripts("a")
    inner = SupervisorSpec(
        id="inner", children=(faulty(a),), intensity=Intensity(restarts=0), backoff=AT_ONCE
    )
    with bench(inner, lives=lives) as it:
        it.started("inner", 1)
        it.system.reconfigure({"inner": SupervisionSettings(max_restarts=3, delay_seconds=0.0)})
        it.system.inject(Address("inner"), raising(ValueError("restart me")))
        it.started("inner", 2)
        it.do("a", BOOM)
        it.started("a", 3)
        assert node(it.system.tree(), "inner").generation == 2


def test_an_actor_can_be_given_a_budget_of_its_own() -> None:
    lives, (a, b) = scripts("a", "b")
    with bench(faulty(a), faulty(b), lives=lives, intensity=Intensity(restarts=0)) as it:
        it.started("b", 1)
        it.system.reconfigure({"a": SupervisionSettings(max_restarts=2)})
        for generation in (1, 2):
            it.do("a", BOOM)
            it.started("a", generation + 1)
        it.do("b", BOOM)
        assert it.run.outcome().kind is OutcomeKind.ESCALATED


@pytest.mark.parametrize(
    "settings",
    [
        {"nobody": SupervisionSettings(max_restarts=1)},
        {"a": SupervisionSettings(max_restarts=-1)},
        {EVERYWHERE: SupervisionSettings(window_seconds=0.0)},
        {EVERYWHERE: SupervisionSettings(delay_seconds=-1.0)},
    ],
)
def test_settings_that_cannot_be_are_refused_and_change_nothing(
    settings: dict[str, SupervisionSettings],
) -> None:
    lives, (a,) = scripts("a")
    with bench(faulty(a), lives=lives) as it:
        it.started("a", 1)
        with pytest.raises(SpecInvalid):
            it.system.reconfigure(settings)
        it.do("a", BOOM)
        assert it.events.expect(RestartScheduled).delay == 0.0


# --- the picture of the tree


def test_the_tree_shows_states_generations_failures_and_what_takes_long() -> None:
    lives, (a, b, c) = scripts("a", "b", "c")
    clock, go = FakeClock(), threading.Event()
    inner = SupervisorSpec(id="inner", children=(faulty(b),))
    slow = Backoff(base=100.0, maximum=100.0)
    with bench(faulty(a), inner, faulty(c, backoff=slow), lives=lives, clock=clock) as it:
        it.started("c", 1)
        it.do("a", BOOM)
        it.started("a", 2)
        it.do("c", BOOM)
        it.events.expect(RestartScheduled, lambda event: event.child == "c")
        it.do("b", lambda: waiting(go))
        it.lives.wait_until(lambda: node(it.system.tree(), "b").busy_seconds is not None)
        it.system.tell(Address("b"), "waits")
        clock.advance(3.0)
        tree = it.system.tree()
        shown = {name: node(tree, name) for name in ("root", "a", "inner", "b", "c")}
        assert {name: shown[name].state for name in shown} == {
            "root": "running",
            "a": "running",
            "inner": "running",
            "b": "running",
            "c": "waiting",
        }
        assert (shown["a"].generation, shown["a"].restarts) == (2, 1)
        assert shown["a"].last_failure is not None
        assert shown["a"].last_failure.message == "boom"
        assert shown["b"].busy_seconds == 3.0
        assert shown["b"].inbox_depth == 1
        assert shown["inner"].kind == "supervisor"
        go.set()


# --- events


def test_a_handler_that_raises_harms_nobody_and_is_counted() -> None:
    seen = Probe()

    def handler(event: ActorEvent) -> None:
        seen.record(event)
        raise SystemExit("handler")

    _, (a,) = scripts("a")
    system = ActorSystem(SupervisorSpec(id="root", children=(faulty(a),)), on_event=handler)
    with running(system) as run:
        seen.expect(ActorStarted)
        system.stop()
        assert run.outcome().kind is OutcomeKind.STOPPED
    assert system.handler_failures == len(seen.all(object)) > 2


def test_a_handler_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visor_actors.actor.publisher._FLUSH_TIMEOUT", 0.01)
    go = threading.Event()
    _, (a,) = scripts("a")
    system = ActorSystem(SupervisorSpec(id="root", children=(faulty(a),)), on_event=lambda event: waiting(go))
    with running(system) as run:
        Probe().wait_until(lambda: a.starts == 1)
        system.tell(Address("a"), "works")
        Probe().wait_until(lambda: len(a.probe.all(object)) == 2)
        system.stop()
        assert run.outcome().kind is OutcomeKind.STOPPED
    go.set()


def test_what_a_hanging_handler_misses_is_counted_and_the_tree_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("visor_actors.actor.publisher.QUEUE_LIMIT", 10)
    go, hanging = threading.Event(), threading.Event()

    def handler(event: ActorEvent) -> None:
        hanging.set()
        waiting(go)

    _, (a,) = scripts("a")
    system = ActorSystem(SupervisorSpec(id="root", children=(faulty(a),)), on_event=handler)
    with running(system):
        waiting(hanging)
        Probe().wait_until(lambda: a.starts == 1)
        for _ in range(100):
            system.tell(Address("nobody"), "lost")
        assert system.lost_events >= 90
        assert system.dead_letters == 100
        assert system.ask(Address("a"), 1, timeout=20.0) == 1
        go.set()


def test_a_crash_loop_is_told_in_full_at_first_and_then_summed_up() -> None:
    lives, (a,) = scripts("a")
    with bench(faulty(a), lives=lives) as it:
        for generation in range(1, 101):
            it.lived("a", "init", generation)
            it.do("a", BOOM)
        it.lived("a", "init", 101)
    told = it.events.count(ActorExited)
    suppressed = [event.count for event in it.events.all(EventsSuppressed) if event.kind == "ActorExited"]
    assert told == 30
    assert told + sum(suppressed) == 101


def test_what_was_held_back_is_summed_up_each_period_while_the_tree_runs() -> None:
    told, clock = Probe(), FakeClock()
    publisher = Publisher(told.record, clock)
    publisher.start()
    for period in (1, 2):
        for _ in range(BURST + 5):
            publisher.publish(ActorStarted(child="a", generation=1))
        publisher.publish(Recovered(supervisor="root", child="a"))
        told.expect(Recovered)
        assert told.count(ActorStarted) == period * BURST
        clock.advance(PERIOD)
        assert told.expect(EventsSuppressed) == EventsSuppressed(child="a", kind="ActorStarted", count=5)
    for child in ("a", "b"):  # the account of b is opened half a period later
        for _ in range(BURST + 1):
            publisher.publish(ActorStarted(child=child, generation=1))
        publisher.publish(Recovered(supervisor="root", child=child))
        told.expect(Recovered)
        clock.advance(PERIOD / 2)
    assert told.expect(EventsSuppressed).child == "a"
    clock.advance(PERIOD)
    assert told.expect(EventsSuppressed).child == "b"
    publisher.stop()
    assert told.count(EventsSuppressed) == 4


def test_the_rate_limit_is_per_child_and_kind_and_starts_again_after_its_period() -> None:
    throttle = Throttle(burst=2, period=60.0)
    passed = [throttle.admit("Exited", "a", now) for now in (0.0, 1.0, 2.0, 3.0)]
    assert passed == [True, True, False, False]
    assert throttle.admit("Exited", "b", 3.0)
    assert throttle.admit("Started", "a", 3.0)
    assert throttle.expired(59.0) == []
    assert throttle.expired(60.0) == [EventsSuppressed(child="a", kind="Exited", count=2)]
    assert throttle.admit("Exited", "a", 61.0)


def test_a_keyboard_interrupt_of_the_waiting_root_stops_the_tree_in_order() -> None:
    lives, (a, b) = scripts("a", "b")
    events = Probe()
    system = ActorSystem(SupervisorSpec(id="root", children=(faulty(a), faulty(b))), on_event=events)
    main = threading.get_ident()

    def interrupt() -> None:
        events.expect(ActorStarted, lambda event: event.child == "b")
        signal.pthread_kill(main, signal.SIGINT)

    # Without a wake-up descriptor a signal that comes just before the root falls asleep is noticed at its
    # next message.
    reader, writer = os.pipe2(os.O_NONBLOCK)
    system.watch(reader, lambda: None)
    before = signal.set_wakeup_fd(writer)
    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    try:
        outcome = system.run()
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
    interrupter.join()
    assert outcome.kind is OutcomeKind.CRASHED
    assert outcome.failure is not None
    assert outcome.failure.type_name == "KeyboardInterrupt"
    assert [life.name for life in lives.all(Lived) if life.what == "terminate"] == ["b", "a"]
