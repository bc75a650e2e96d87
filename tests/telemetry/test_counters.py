"""Counting events from many threads."""

from __future__ import annotations

import threading

from visor_actors.telemetry.counters import EventCounters
from visor_actors.telemetry.events import Event, Severity


def test_every_event_is_counted_once_by_name_and_severity() -> None:
    counters = EventCounters()

    def count() -> None:
        for _ in range(500):
            counters.record(Event(name="a", message="", severity=Severity.ALARM))
            counters.record(Event(name="b", message=""))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counters.add("c", 3)
    assert counters.by_name() == {"a": 2000, "b": 2000, "c": 3}
    assert counters.by_severity()[Severity.ALARM] == 2000
    assert counters.by_severity()[Severity.DEBUG] == 0
    assert counters.get("nothing") == 0


def test_names_without_end_do_not_fill_the_memory() -> None:
    counters = EventCounters(most=10)
    for number in range(100):
        counters.record(Event(name=f"name-{number}", message=""))
    assert len(counters.by_name()) == 11
    assert counters.get("other") == 90
