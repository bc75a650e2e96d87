"""Which alarms still wait for somebody."""

from __future__ import annotations

from visor_actors.actors.recorder import ALARMS_SHOWN, AlarmBook
from visor_actors.telemetry.events import Event, Severity


def alarm(name: str, message: str = "something is wrong", **fields: str) -> Event:
    return Event(name=name, message=message, severity=Severity.ALARM, next_step="mend it", fields=fields)


def answer(name: str, **fields: str) -> Event:
    return Event(name=name, message="all is well", fields=fields)


def names(book: AlarmBook) -> list[str]:
    return [one.name for one in book.alarms]


def test_only_alarms_are_kept_and_each_of_them_once_with_its_newest_time() -> None:
    book = AlarmBook()
    for event in (answer("node.started"), alarm("core.silent"), alarm("logs.dropped"), alarm("core.silent")):
        book(event)
    assert names(book) == ["logs.dropped", "core.silent"]


def test_an_alarm_goes_when_the_course_of_things_has_answered_it() -> None:
    book = AlarmBook()
    book(alarm("upgrade.preparation", tag="v2"))
    book(alarm("core.silent"))
    book(answer("upgrade.prepared", tag="v2"))
    assert names(book) == ["core.silent"]
    book(answer("core.answered"))
    assert names(book) == []


def test_an_answer_about_another_upgrade_answers_nothing() -> None:
    book = AlarmBook()
    book(alarm("upgrade.preparation", tag="v2"))
    book(answer("upgrade.confirmed", tag="v1"))
    assert names(book) == ["upgrade.preparation"]


def test_a_storm_of_alarms_keeps_the_newest() -> None:
    book = AlarmBook()
    for number in range(ALARMS_SHOWN + 5):
        book(alarm("logs.dropped", f"number {number}"))
    assert len(book.alarms) == ALARMS_SHOWN
    assert book.alarms[-1].message == f"number {ALARMS_SHOWN + 4}"
