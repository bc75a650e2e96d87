"""History, alarms and alert hook: none of them holds up whoever emits, none loses what it has taken."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from visor_actors.actors.recorder import ALARMS_SHOWN, ALERTS_WAITING, AlarmBook, AlertHook, HistoryWriter
from visor_actors.home.journal import Journal
from visor_actors.home.layout import HomeLayout
from visor_actors.home.settings import Hook
from visor_actors.telemetry.events import Event, Scalar, Severity

DEADLINE = 20.0


def event(name: str, severity: Severity = Severity.INFO, message: str = "said", **fields: Scalar) -> Event:
    return Event(name=name, message=message, severity=severity, fields=fields)


def alarm(name: str, message: str = "said", **fields: Scalar) -> Event:
    return event(name, Severity.ALARM, message, **fields)


@pytest.fixture
def layout(tmp_path: Path) -> HomeLayout:
    layout = HomeLayout(tmp_path)
    layout.prepare_private()
    return layout


def written(layout: HomeLayout) -> list[str]:
    with Journal.open_reader(layout.journal) as journal:
        return [entry.name for entry in journal.events()]


def test_the_history_has_everything_that_was_emitted_before_the_end_in_order(layout: HomeLayout) -> None:
    history = HistoryWriter(layout)
    history.start()
    names = [f"one.{number}" for number in range(200)]
    for name in names:
        history(event(name))
    history.finish(DEADLINE)
    assert written(layout) == names
    assert history.lost == 0


def test_details_and_what_another_writes_are_not_in_it(layout: HomeLayout) -> None:
    history = HistoryWriter(layout, written_elsewhere=frozenset({"binary.exited"}))
    history.start()
    for one in (event("a.detail", Severity.DEBUG), event("binary.exited"), event("node.up")):
        history(one)
    history.finish(DEADLINE)
    assert written(layout) == ["node.up"]


def test_a_journal_that_cannot_be_written_costs_history_and_nothing_else(layout: HomeLayout) -> None:
    layout.journal.mkdir()
    history = HistoryWriter(layout)
    history.start()
    history(event("lost.one"))
    deadline = time.monotonic() + DEADLINE
    while not history.lost:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    layout.journal.rmdir()
    history(event("kept.one"))
    history.finish(DEADLINE)
    assert written(layout) == ["kept.one"]
    assert history.lost == 1


def test_a_history_that_was_never_started_ends_at_once(layout: HomeLayout) -> None:
    HistoryWriter(layout).finish(0.1)


def test_an_alarm_is_kept_once_with_its_newest_time() -> None:
    book = AlarmBook()
    first, second = alarm("upgrade.hold"), alarm("upgrade.hold")
    book(first)
    book(alarm("shim.unreachable"))
    book(second)
    assert [one.name for one in book.alarms] == ["shim.unreachable", "upgrade.hold"]
    assert book.alarms[-1].at == second.at


def test_what_is_no_alarm_is_not_kept_and_the_newest_ones_are() -> None:
    book = AlarmBook()
    book(event("node.up", Severity.ERROR))
    for number in range(ALARMS_SHOWN + 5):
        book(alarm(f"one.{number}"))
    assert len(book.alarms) == ALARMS_SHOWN
    assert book.alarms[0].name == "one.5"


def test_an_answered_alarm_goes_and_that_of_another_actor_stays() -> None:
    book = AlarmBook()
    book(alarm("actor.degraded", actor="installer"))
    book(alarm("actor.degraded", "another", actor="api"))
    book(event("actor.recovered", actor="installer"))
    assert [one.message for one in book.alarms] == ["another"]
    book(alarm("binary.slot-held"))
    book(event("node.up"))
    assert [one.name for one in book.alarms] == ["actor.degraded"]


def hook_that_writes(path: Path) -> Hook:
    script = f'echo "$VISOR_ALERT|$VISOR_ALERT_MESSAGE|$VISOR_ALERT_NEXT_STEP" >> "{path}"'
    return Hook(argv=("/bin/sh", "-c", script), timeout_seconds=DEADLINE)


def test_the_alert_hook_is_told_of_alarms_and_of_nothing_else(tmp_path: Path) -> None:
    said = tmp_path / "said"
    alerts = AlertHook(lambda: hook_that_writes(said), lambda _: None)
    alerts(event("node.failed", Severity.ERROR))
    alerts(Event(name="disk.full", message="no room", severity=Severity.ALARM, next_step="make some"))
    alerts.finish(DEADLINE)
    assert said.read_text() == "disk.full|no room|make some\n"


def test_without_a_hook_there_is_no_thread() -> None:
    before = threading.active_count()
    alerts = AlertHook(lambda: None, lambda _: None)
    alerts(alarm("disk.full"))
    assert threading.active_count() == before
    alerts.finish(DEADLINE)


def test_a_hook_that_fails_is_a_warning_and_no_further_alarm(tmp_path: Path) -> None:
    reported: list[Event] = []
    failing = Hook(argv=("/bin/sh", "-c", "echo why; exit 3"), timeout_seconds=DEADLINE)
    alerts = AlertHook(lambda: failing, reported.append)
    alerts(alarm("disk.full"))
    alerts.finish(DEADLINE)
    (failed,) = reported
    assert (failed.name, failed.severity) == ("hook.alert-failed", Severity.WARNING)
    assert failed.lines == ("why",)


def test_alarms_that_come_too_fast_hold_up_nobody(tmp_path: Path) -> None:
    """The first one's hook waits until all are emitted: emitting does not wait for it."""
    fifo, said = tmp_path / "go", tmp_path / "said"
    os.mkfifo(fifo)
    script = f'read go < "{fifo}"; echo "$VISOR_ALERT" >> "{said}"'
    alerts = AlertHook(lambda: Hook(argv=("/bin/sh", "-c", script), timeout_seconds=DEADLINE), lambda _: None)
    for number in range(ALERTS_WAITING * 3):
        alerts(alarm(f"one.{number}"))
    deadline = time.monotonic() + DEADLINE
    finisher = threading.Thread(target=alerts.finish, args=(DEADLINE,))
    finisher.start()
    while finisher.is_alive():
        assert time.monotonic() < deadline
        try:
            with open(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK), "w") as go:
                go.write("go\n")
        except (OSError, BrokenPipeError):
            time.sleep(0.005)  # nobody reads yet
    finisher.join()
    assert said.read_text().splitlines()[0] == "one.0"
    assert len(said.read_text().splitlines()) <= ALERTS_WAITING + 1, "what came too fast is dropped"
