"""What the actor runtime tells, in the words of visor's events."""

from __future__ import annotations

from typing import get_args

import pytest

from visor_actors.actor import (
    AbandonedEnded,
    AbandonedLimitReached,
    ActorAbandoned,
    ActorEvent,
    ActorExited,
    ActorHung,
    ActorStarted,
    ActorStarting,
    CallbackFailed,
    DeadLetter,
    DeadLetterReason,
    Degraded,
    Escalated,
    EventsSuppressed,
    ExitReason,
    Failure,
    Recovered,
    RestartScheduled,
)
from visor_actors.actors.reports import AlarmReport, Board
from visor_actors.actors.supervision_events import SupervisionEvents, describe
from visor_actors.telemetry.events import Event, EventBus, Severity

WHY = Failure("ValueError", "a bug", "Traceback ...")
EVERY: tuple[ActorEvent, ...] = (
    ActorStarting(child="api", generation=2),
    ActorStarted(child="api", generation=2),
    ActorExited(child="api", generation=2, reason=ExitReason.CRASHED, failure=WHY),
    RestartScheduled(
        child="api",
        generation=2,
        reason=ExitReason.CRASHED,
        failure=WHY,
        delay=0.2,
        attempt=1,
        restarts=1,
        together=("api",),
    ),
    ActorHung(child="api", generation=2, message_type="Poll", seconds=21.0, stack="File ..."),
    ActorAbandoned(child="api", generation=2, reason=ExitReason.HUNG, abandoned=1),
    AbandonedEnded(child="api", generation=2, abandoned=0),
    AbandonedLimitReached(abandoned=9, limit=8),
    Escalated(supervisor="node", child="api", restarts=5, window=60.0, failure=WHY),
    Degraded(supervisor="root", child="api", delay=30.0, failure=WHY),
    Recovered(supervisor="root", child="api"),
    DeadLetter(child="api", message_type="Poll", reason=DeadLetterReason.INBOX_FULL, total=3),
    CallbackFailed(child="root", failure=WHY),
    EventsSuppressed(child="api", kind="ActorExited", count=40),
)


def test_every_event_of_the_runtime_is_covered_here() -> None:
    assert {type(one) for one in EVERY} == set(get_args(ActorEvent))


@pytest.mark.parametrize("event", EVERY, ids=lambda event: type(event).__name__)
def test_every_event_is_a_sentence_with_a_name_and_the_actor(event: ActorEvent) -> None:
    said = describe(event)
    assert said.name.startswith("actor.")
    assert len(said.message.split()) > 1
    assert "Failure(" not in said.message
    if said.name != "actor.abandoned-limit":
        assert said.fields["actor"] == getattr(event, "child", None)
    if said.severity >= Severity.ALARM:
        assert said.next_step, "an alarm says what to do"


@pytest.mark.parametrize(
    ("reason", "severity"),
    [
        (ExitReason.NORMAL, Severity.DEBUG),
        (ExitReason.REQUESTED, Severity.DEBUG),
        (ExitReason.CRASHED, Severity.ERROR),
        (ExitReason.START_FAILED, Severity.ERROR),
        (ExitReason.HUNG, Severity.ERROR),
        (ExitReason.ESCALATED, Severity.ERROR),
    ],
)
def test_an_end_that_was_wanted_is_a_detail_and_any_other_an_error_without_harm(
    reason: ExitReason, severity: Severity
) -> None:
    said = describe(ActorExited(child="api", generation=2, reason=reason, failure=WHY))
    assert said.severity is severity
    assert ("the node is not affected" in said.message) == (severity is Severity.ERROR)


def test_a_crash_carries_its_traceback_as_text() -> None:
    said = describe(EVERY[2])
    assert said.trouble is not None
    assert (said.trouble.type_name, said.trouble.traceback) == ("ValueError", "Traceback ...")


def test_a_hang_carries_where_the_thread_is() -> None:
    said = describe(EVERY[4])
    assert said.trouble is not None
    assert said.trouble.traceback == "File ..."


def test_a_degraded_actor_is_on_the_board_until_it_has_recovered() -> None:
    board, bus = Board(), EventBus()
    emitted: list[Event] = []
    bus.subscribe(emitted.append)
    events = SupervisionEvents(bus, board)
    events(Degraded(supervisor="root", child="api", delay=30.0, failure=WHY))
    events(Degraded(supervisor="root", child="installer", delay=30.0, failure=None))
    assert len(board.all(AlarmReport)) == 2
    events(Recovered(supervisor="root", child="api"))
    (left,) = board.all(AlarmReport)
    assert "installer" in left.message
    assert [one.name for one in emitted] == ["actor.degraded", "actor.degraded", "actor.recovered"]
