from __future__ import annotations

import pytest

from tests.actor.world import BOOM, World, child, supervisor, tree
from visor_actors.actor import ActorExited, ActorStarted, ExitReason, Restart, Strategy, SupervisorBug
from visor_actors.actor.decisions import Begin, ChildExited, ChildStarted
from visor_actors.actor.ledger import Phase
from visor_actors.actor.lifecycle import TRANSITIONS, ChildState, Step, advance


def test_an_empty_supervisor_is_ready_at_once_and_stops_at_once() -> None:
    world = tree().begin()
    assert world.ready
    world.stop()
    assert world.finished is not None
    assert world.finished.reason is ExitReason.REQUESTED


def test_the_next_sibling_starts_when_the_previous_one_has_acknowledged() -> None:
    world = tree("a", "b").begin()
    assert world.log == ["start a"]
    world.advance(5.0)
    assert world.log == ["start a"]
    world.ack("a")
    assert world.log == ["start a", "start b"]
    assert not world.ready
    world.ack("b")
    assert world.ready


def test_a_failed_first_start_stops_the_started_in_reverse_and_never_builds_the_rest() -> None:
    world = tree("a", "b", "c", "d").begin()
    world.ack("a")
    world.ack("b")
    world.clear_log()
    world.exit("c", ExitReason.START_FAILED)
    assert world.log == ["stop b"]
    world.exit("b", ExitReason.REQUESTED)
    assert world.log == ["stop b", "stop a"]
    world.exit("a", ExitReason.REQUESTED)
    assert world.finished is not None
    assert world.finished.reason is ExitReason.START_FAILED
    assert world.finished.failure is not None
    assert [link.type_name for link in world.finished.failure.chain()] == ["ChildStartFailed", "Boom"]
    assert ("d", 1) not in world.starts
    assert not world.ready


def test_an_init_past_its_timeout_is_abandoned_and_its_late_acknowledgement_ignored() -> None:
    world = World(supervisor(child("a"), child("b", start_timeout=3.0))).begin()
    world.ack("a")
    world.advance(3.0)
    assert world.log == ["start a", "start b", "abandon b", "stop a"]
    world.feed(ChildStarted("b", 1))
    assert world.states()["b"] == "down"
    world.settle()
    assert world.finished is not None
    assert world.finished.reason is ExitReason.START_FAILED


def test_children_stop_in_reverse_order_each_after_the_next_one_has_ended() -> None:
    world = tree("a", "b", "c").up()
    world.clear_log()
    world.stop()
    assert world.log == ["stop c"]
    world.exit("c", ExitReason.REQUESTED)
    assert world.log == ["stop c", "stop b"]
    world.settle()
    assert world.log == ["stop c", "stop b", "stop a"]
    assert world.finished is not None
    assert not world.timers


def test_a_child_that_will_not_stop_is_abandoned_and_the_others_still_stop() -> None:
    world = World(supervisor(child("a"), child("b", shutdown_timeout=2.0), child("c"))).up()
    world.clear_log()
    world.stop()
    world.exit("c", ExitReason.REQUESTED)
    world.advance(2.0)
    assert world.log == ["stop c", "stop b", "abandon b", "stop a"]
    world.settle()
    assert world.finished is not None
    exits = [event for event in world.events if isinstance(event, ActorExited) and event.child == "b"]
    assert [event.reason for event in exits] == [ExitReason.STOP_TIMED_OUT]


def test_stopping_while_a_child_is_starting_stops_it_too() -> None:
    world = tree("a", "b").begin()
    world.ack("a")
    world.stop()
    assert world.log[-1] == "stop b"
    world.feed(ChildStarted("b", 1))  # the acknowledgement crossed the order
    assert world.states()["b"] == "stopping"
    world.settle()
    assert world.finished is not None
    assert world.finished.reason is ExitReason.REQUESTED


def test_stopping_before_the_beginning_starts_nothing() -> None:
    world = tree("a")
    world.stop()
    assert world.finished is not None
    world.begin()
    assert world.log == []


def test_beginning_twice_is_a_bug_and_says_which_state_it_met() -> None:
    world = tree("a").up()
    with pytest.raises(SupervisorBug) as bug:
        world.feed(Begin())
    assert bug.value.state is Phase.RUNNING


def test_stopping_absorbs_everything_else() -> None:
    world = tree("a", "b").up()
    world.stop()
    world.stop()
    world.abort()
    world.crash("a")
    world.settle()
    assert world.finished is not None
    assert world.finished.reason is ExitReason.REQUESTED
    assert len(world.starts) == 2


def test_aborting_stops_the_children_in_reverse_and_keeps_the_cause() -> None:
    world = tree("a", "b").up()
    world.clear_log()
    world.abort()
    world.settle()
    assert world.log == ["stop b", "stop a"]
    assert world.finished is not None
    assert (world.finished.reason, world.finished.failure) == (ExitReason.CRASHED, BOOM)


def test_a_child_that_falls_while_a_later_one_is_starting_is_restarted_after_the_first_start() -> None:
    world = tree("a", "b").begin()
    world.ack("a")
    world.crash("a")
    assert world.log == ["start a", "start b"]
    world.ack("b")
    assert world.ready
    assert world.log == ["start a", "start b", "start a"]
    world.settle()
    assert set(world.states().values()) == {"running"}


def test_a_temporary_child_that_ends_during_the_first_start_is_not_brought_back_by_its_group() -> None:
    children = (child("a"), child("b", Restart.TEMPORARY), child("c"))
    world = World(supervisor(*children, strategy=Strategy.ONE_FOR_ALL)).begin()
    world.ack("a")
    world.ack("b")
    world.crash("a")
    world.exit("b", ExitReason.NORMAL)
    world.ack("c")
    world.settle()
    assert world.live == {"a": 2, "c": 2}
    assert world.retired == {"b"}


@pytest.mark.parametrize(
    ("restart", "reason", "restarted"),
    [
        (Restart.PERMANENT, ExitReason.NORMAL, True),
        (Restart.PERMANENT, ExitReason.CRASHED, True),
        (Restart.PERMANENT, ExitReason.ESCALATED, True),
        (Restart.TRANSIENT, ExitReason.NORMAL, False),
        (Restart.TRANSIENT, ExitReason.CRASHED, True),
        (Restart.TRANSIENT, ExitReason.ESCALATED, True),
        (Restart.TEMPORARY, ExitReason.NORMAL, False),
        (Restart.TEMPORARY, ExitReason.CRASHED, False),
    ],
)
def test_who_is_restarted_after_which_exit(restart: Restart, reason: ExitReason, restarted: bool) -> None:
    world = World(supervisor(child("a", restart))).up()
    world.exit("a", reason)
    assert ("a" in world.live) is restarted
    assert ("a" in world.retired) is (restart is Restart.TEMPORARY)


@pytest.mark.parametrize("restart", [Restart.PERMANENT, Restart.TRANSIENT])
@pytest.mark.parametrize("how", ["raises", "takes too long"])
def test_an_init_that_fails_at_a_restart_is_an_abnormal_exit(restart: Restart, how: str) -> None:
    world = World(supervisor(child("a", restart, start_timeout=3.0))).up()
    world.crash("a")
    if how == "raises":
        world.exit("a", ExitReason.START_FAILED)
    else:
        world.advance(3.0)
        assert world.log[-2:] == ["abandon a", "start a"]
    assert world.live == {"a": 3}


@pytest.mark.parametrize("restart", list(Restart))
def test_a_hang_is_an_abnormal_exit(restart: Restart) -> None:
    world = World(supervisor(child("a", restart))).up()
    world.hang("a")
    assert world.log[1] == "abandon a"
    assert ("a" in world.live) is (restart is not Restart.TEMPORARY)


def test_a_child_that_is_starting_or_stopping_does_not_count_as_hung() -> None:
    world = tree("a").begin()
    world.hang("a")
    assert world.states()["a"] == "starting"
    world.ack("a")
    world.stop()
    world.hang("a")
    assert world.states()["a"] == "stopping"
    world.settle()
    reasons = [event.reason for event in world.events if isinstance(event, ActorExited)]
    assert reasons == [ExitReason.REQUESTED]


def test_an_exit_of_an_old_generation_is_ignored() -> None:
    world = tree("a").up()
    world.hang("a")
    world.settle()
    before = len(world.events)
    world.feed(ChildExited("a", 1, ExitReason.CRASHED, BOOM))
    assert world.live == {"a": 2}
    assert len(world.events) == before


def test_every_transition_that_is_not_in_the_table_raises() -> None:
    for state in ChildState:
        for step in Step:
            if (state, step) in TRANSITIONS:
                assert advance("a", state, step) is TRANSITIONS[state, step]
            else:
                with pytest.raises(SupervisorBug, match=f"{state}.*{step}"):
                    advance("a", state, step)


def test_an_acknowledged_start_is_told_once() -> None:
    world = tree("a").up()
    world.feed(ChildExited("a", 7, ExitReason.CRASHED, BOOM))
    assert len(world.of(ActorStarted)) == 1
