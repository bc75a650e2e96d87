"""A journal with a history in it."""

from __future__ import annotations

from tests.api.fake_visor import NOON
from visor_actors.home.journal import Journal, UpgradeRow
from visor_actors.home.layout import HomeLayout
from visor_actors.telemetry.events import Event, Severity, Trouble


def write_history(layout: HomeLayout) -> None:
    """An upgrade, a crash and an alarm."""
    with Journal.open(layout.journal) as journal:
        for state, at in (("announced", NOON), ("prepared", NOON + 60), ("confirmed", NOON + 600)):
            journal.write_upgrade(
                UpgradeRow(tag="v0.75.0", height=800, state=state, folder="v0.75.0", updated_at=at),
                durable=False,
            )
        for event in (
            Event(name="visor.started", message="visor 0.1.0 runs", at=NOON),
            Event(
                name="binary.exited",
                message="core ended with signal 9",
                severity=Severity.ERROR,
                fields={"slot": "core", "signal": 9},
                lines=("last words", "panic: out of memory"),
                at=NOON + 30,
            ),
            Event(
                name="upgrade.missing",
                message="v0.76.0 is not in place",
                severity=Severity.ALARM,
                next_step="visor-actors prepare v0.76.0",
                trouble=Trouble(type_name="ReleaseMissing", message="no such release"),
                at=NOON + 40,
            ),
            Event(name="upgrade.confirmed", message="v0.75.0 runs", severity=Severity.WARNING, at=NOON + 600),
        ):
            journal.append_event(event)
