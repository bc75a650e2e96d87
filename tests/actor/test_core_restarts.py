from __future__ import annotations

import random

import pytest

from tests.actor.world import World, child, supervisor, tree
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
from visor_actors.actor.budget import restart_delay
from visor_actors.actor.decisions import ChildSettings, Reconfigure, TimerFired, TimerKey, TimerKind

SLOW = Backoff(base=1.0, maximum=8.0, jitter=0.0, reset_after=60.0)


# --- strategies


def test_one_for_one_leaves_the_siblings_alone() -> None:
    world = tree("a", "b", "c").up()
    world.crash("b")
    world.settle()
    assert world.live == {"a": 1, "b": 2, "c": 1}


def test_one_for_all_stops_the_others_in_reverse_and_starts_all_in_order() -> None:
    world = tree("a", "b", "c", strategy=Strategy.ONE_FOR_ALL).up()
    world.clear_log()
    world.crash("b")
    assert world.log == ["stop c"]
    world.settle()
    assert world.log == ["stop c", "stop a", "start a", "start b", "start c"]
    assert world.live == {"a": 2, "b": 2, "c": 2}


def test_rest_for_one_restarts_the_failed_one_and_those_after_it() -> None:
    world = tree("a", "b", "c", strategy=Strategy.REST_FOR_ONE).up()
    world.clear_log()
    world.crash("b")
    world.settle()
    assert world.log == ["stop c", "start b", "start c"]
    assert world.live == {"a": 1, "b": 2, "c": 2}


def test_two_children_that_crash_in_the_same_tick_cause_one_cycle() -> None:
    world = tree("a", "b", "c", strategy=Strategy.ONE_FOR_ALL, restarts=1).up()
    world.crash("a")
    world.crash("b")
    world.settle()
    assert world.live == {"a": 2, "b": 2, "c": 2}
    assert len(world.of(RestartScheduled)) == 1


def test_a_second_child_that_fails_during_a_group_restart_restarts_the_group() -> None:
    world = tree("a", "b", "c", strategy=Strategy.ONE_FOR_ALL).up()
    world.crash("a")
    world.exit("c", ExitReason.REQUESTED)
    world.exit("b", ExitReason.REQUESTED)
    world.ack("a")
    world.clear_log()
    world.exit("b", ExitReason.START_FAILED)
    assert world.log == ["stop a"]
    world.settle()
    assert world.log == ["stop a", "start a", "start b", "start c"]
    assert len(world.of(RestartScheduled)) == 2


def test_a_failure_while_the_rest_is_starting_restarts_all_of_the_rest() -> None:
    world = tree("a", "b", "c", "d", strategy=Strategy.REST_FOR_ONE).up()
    world.crash("b")
    world.exit("d", ExitReason.REQUESTED)
    world.exit("c", ExitReason.REQUESTED)
    world.ack("b")
    world.clear_log()
    world.exit("c", ExitReason.START_FAILED)
    world.settle()
    assert world.log == ["stop b", "start b", "start c", "start d"]
    assert world.live == {"a": 1, "b": 3, "c": 3, "d": 2}
    assert len(world.of(RestartScheduled)) == 2


def test_an_earlier_child_that_fails_during_a_delay_joins_the_cycle() -> None:
    specs = [child(name, backoff=SLOW) for name in "abc"]
    world = World(supervisor(*specs, strategy=Strategy.REST_FOR_ONE)).up()
    world.crash("b")
    world.settle()
    assert world.waiting() == ["b"]
    world.clear_log()
    world.crash("a")
    world.settle()
    assert world.waiting() == ["a"]
    world.advance(1.0)
    world.settle()
    assert world.log == ["start a", "start b", "start c"]


def test_a_member_that_will_not_stop_is_abandoned_and_the_group_goes_on() -> None:
    specs = [child("a"), child("b"), child("c", shutdown_timeout=1.0)]
    world = World(supervisor(*specs, strategy=Strategy.ONE_FOR_ALL)).up()
    world.crash("a")
    world.advance(1.0)
    world.settle()
    assert world.live == {"a": 2, "b": 2, "c": 2}


def test_a_transient_member_that_has_finished_does_not_loop_in_its_group() -> None:
    specs = [child("a"), child("b", Restart.TRANSIENT), child("c"), child("d", Restart.TEMPORARY)]
    world = World(supervisor(*specs, strategy=Strategy.ONE_FOR_ALL)).up()
    world.crash("a")
    for name in "dcb":
        world.exit(name, ExitReason.REQUESTED)
    world.ack("a")
    world.ack("b")
    world.exit("b", ExitReason.NORMAL)
    world.settle()
    assert world.live == {"a": 2, "c": 2}
    assert world.retired == {"d"}


# --- intensity


def test_crashes_further_apart_than_the_window_never_escalate() -> None:
    world = tree("a", restarts=2, window=10.0).up()
    for _ in range(50):
        world.advance(5.1)
        world.crash("a")
        world.settle()
    assert world.finished is None


def test_one_crash_more_than_the_budget_escalates_with_the_chain_of_causes() -> None:
    world = tree("a", "b", restarts=3).up()
    for _ in range(3):
        world.crash("a")
        world.settle()
    assert not world.gave_up()
    world.crash("a")
    world.settle()
    assert world.finished is not None
    assert world.finished.reason is ExitReason.ESCALATED
    assert world.finished.failure is not None
    assert [link.type_name for link in world.finished.failure.chain()] == ["RestartBudgetExhausted", "Boom"]
    assert len(world.of(Escalated)) == 1
    assert world.log[-1] == "stop b"


def test_with_an_intensity_of_0_the_first_crash_escalates() -> None:
    world = tree("a", restarts=0).up()
    world.crash("a")
    assert world.finished is not None
    assert world.finished.reason is ExitReason.ESCALATED


def test_failed_restart_attempts_count() -> None:
    world = tree("a", restarts=3).up()
    world.crash("a")
    for _ in range(3):
        world.exit("a", ExitReason.START_FAILED)
    assert world.finished is not None
    assert world.finished.reason is ExitReason.ESCALATED


def test_a_child_with_a_budget_of_its_own_does_not_use_up_its_siblings() -> None:
    own = Intensity(restarts=10, window=60.0)
    spec = supervisor(child("a", intensity=own), child("b"), intensity=Intensity(restarts=1, window=60.0))
    world = World(spec).up()
    for name in ("a", "a", "a", "b"):
        world.crash(name)
        world.settle()
    assert world.finished is None
    world.crash("b")
    assert world.finished is None  # it waits for a to stop
    world.settle()
    assert world.finished is not None


def test_settings_change_budget_and_delay_of_a_running_supervisor() -> None:
    world = tree("a", restarts=1).up()
    world.feed(Reconfigure(Intensity(restarts=3, window=60.0), {"a": ChildSettings(SLOW, None)}))
    for _ in range(3):
        world.crash("a")
        world.advance(10.0)
        world.settle()
    assert world.finished is None
    assert world.delays() == [1.0, 2.0, 4.0]
    world.crash("a")
    assert world.finished is not None


def test_settings_change_a_budget_of_its_own_and_what_was_counted_still_counts() -> None:
    own = Intensity(restarts=3, window=60.0)
    world = World(supervisor(child("a", intensity=own), intensity=Intensity(restarts=99))).up()
    for _ in range(2):
        world.crash("a")
        world.settle()
    at_once = world.spec.children[0].backoff
    less = ChildSettings(at_once, Intensity(restarts=2, window=60.0))
    world.feed(Reconfigure(Intensity(restarts=99), {"a": less}))
    world.crash("a")
    assert world.finished is not None


# --- delays


def test_the_delay_doubles_up_to_its_maximum() -> None:
    world = World(supervisor(child("a", backoff=SLOW), intensity=Intensity(restarts=99))).up()
    for _ in range(6):
        world.crash("a")
        assert world.live == {}
        world.advance(8.0)
        world.settle()
    assert world.delays() == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_jitter_stays_within_its_bounds() -> None:
    jittery = Backoff(base=1.0, maximum=100.0, jitter=0.25, reset_after=1e9)
    world = World(supervisor(child("a", backoff=jittery), intensity=Intensity(restarts=99))).up()
    for _ in range(6):
        world.crash("a")
        world.advance(world.delays()[-1])
        world.settle()
    for attempt, delay in enumerate(world.delays()):
        assert 0.75 * 2**attempt <= delay <= min(100.0, 1.25 * 2**attempt)
    assert world.delays() != [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]


def test_no_jitter_makes_a_delay_longer_than_the_maximum() -> None:
    backoff = Backoff(base=1.0, maximum=8.0, jitter=1.0)
    rng = random.Random(1)
    delays = [restart_delay(backoff, attempt, rng) for attempt in range(1, 200)]
    assert max(delays) == 8.0
    assert min(delays) >= 0.0


def test_the_delay_has_its_maximum_however_often_a_child_fails() -> None:
    backoff = Backoff(base=0.2, maximum=30.0, jitter=0.0)
    assert restart_delay(backoff, 100_000, random.Random(1)) == 30.0


def test_the_row_starts_again_after_stable_time() -> None:
    world = World(supervisor(child("a", backoff=SLOW))).up()
    world.crash("a")
    world.advance(1.0)
    world.settle()
    world.advance(60.0)
    world.crash("a")
    assert world.delays() == [1.0, 1.0]


def test_a_reset_that_has_become_stale_does_nothing() -> None:
    world = World(supervisor(child("a", backoff=SLOW))).up()
    world.crash("a")
    world.advance(1.0)
    world.settle()
    world.advance(59.0)
    world.crash("a")
    world.feed(TimerFired(TimerKey(TimerKind.STABLE, "a", 2)))
    world.advance(2.0)
    world.settle()
    world.crash("a")
    assert world.delays() == [1.0, 2.0, 4.0]


def test_stopping_during_a_delay_is_immediate_and_nothing_starts_late() -> None:
    world = World(supervisor(child("a", backoff=SLOW))).up()
    world.crash("a")
    world.clear_log()
    world.stop()
    assert world.finished is not None
    assert not world.timers
    world.advance(1000.0)
    world.feed(TimerFired(TimerKey(TimerKind.RESTART, "a", 2)))
    assert world.log == []


# --- degraded


def degradable(**changes: object) -> World:
    return World(
        supervisor(
            child("a", backoff=SLOW),
            child("b", backoff=SLOW),
            intensity=Intensity(restarts=1, window=600.0),
            on_exhausted=OnExhausted.DEGRADE,
            **changes,
        )
    )


def test_a_supervisor_that_may_not_escalate_keeps_trying_at_the_slowest_delay() -> None:
    world = degradable().up()
    for _ in range(20):
        world.crash("a")
        world.advance(8.0)
        world.settle()
    assert world.finished is None
    assert world.delays() == [1.0, *[8.0] * 19]
    assert len(world.of(Degraded)) == 1
    assert world.core.children["a"].degraded


def test_a_degraded_child_recovers_when_it_is_stable() -> None:
    world = degradable().up()
    for _ in range(2):
        world.crash("a")
        world.advance(8.0)
        world.settle()
    world.advance(59.0)
    assert not world.of(Recovered)
    world.advance(1.0)
    assert world.of(Recovered) == [Recovered(supervisor="sup", child="a")]
    assert not world.core.children["a"].degraded


def test_siblings_of_a_degraded_child_keep_their_fast_restarts() -> None:
    world = degradable().up()
    for _ in range(2):
        world.crash("a")
        world.advance(8.0)
        world.settle()
    world.crash("b")
    assert world.delays()[-1] == 1.0
    assert not world.core.children["b"].degraded


def test_degrading_with_an_intensity_of_0_retries_slowly_from_the_first_crash() -> None:
    world = World(
        supervisor(child("a", backoff=SLOW), intensity=Intensity(restarts=0), on_exhausted="degrade")
    ).up()
    world.crash("a")
    assert world.delays() == [8.0]


# --- nesting


@pytest.mark.parametrize(("outer", "inner"), [(0, 0), (1, 0), (0, 2), (2, 3)])
def test_nested_budgets_multiply_exactly(outer: int, inner: int) -> None:
    """The inner supervisor is played by the test: it lives as long as its own core allows."""
    at_once = Backoff(base=0.0, maximum=0.0)
    below = supervisor(child("x"), id="inner", backoff=at_once)
    parent = World(supervisor(below, intensity=Intensity(restarts=outer))).up()
    crashes = 0
    while parent.finished is None:
        nested = World(supervisor(child("x"), intensity=Intensity(restarts=inner))).up()
        while nested.finished is None:
            crashes += 1
            nested.crash("x")
            nested.settle()
        parent.exit("inner", nested.finished.reason, nested.finished.failure)
        parent.settle()
    assert crashes == (outer + 1) * (inner + 1)
    assert parent.finished.failure is not None
    links = [link.type_name for link in parent.finished.failure.chain()]
    assert links == ["RestartBudgetExhausted", "RestartBudgetExhausted", "Boom"]


def test_each_generation_has_exactly_one_exit_event() -> None:
    world = tree("a", "b", strategy=Strategy.ONE_FOR_ALL).up()
    world.crash("a")
    world.settle()
    world.hang("b")
    world.settle()
    world.stop()
    world.settle()
    told = [(event.child, event.generation) for event in world.events if isinstance(event, ActorExited)]
    assert sorted(told) == sorted(world.starts)
