from __future__ import annotations

import json

import click
import pytest

from tests.api.fake_visor import NOON
from tests.cli.running import Runner
from tests.cli.samples import write_history
from tests.cli.terminal_session import Session
from visor_actors.cli.history import parse_since
from visor_actors.home.journal import Journal
from visor_actors.home.layout import HomeLayout
from visor_actors.telemetry.events import Event


def names(run: Runner, layout: HomeLayout, *arguments: str) -> list[str]:
    ran = run("--home", layout.root, "history", "--output", "json", *arguments)
    assert ran.code == 0
    return [event["name"] for event in json.loads(ran.out)["events"]]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), ["visor.started", "binary.exited", "upgrade.missing", "upgrade.confirmed"]),
        (("-n", "1"), ["upgrade.confirmed"]),
        (("--kind", "upgrades"), ["upgrade.missing", "upgrade.confirmed"]),
        (("--kind", "binaries"), ["binary.exited"]),
        (("--name", "visor.started"), ["visor.started"]),
        (("--alarms",), ["upgrade.missing"]),
        (("--since", "2026-01-01 12:05:00"), ["upgrade.confirmed"]),
        (("--since", "1s"), []),
    ],
)
def test_filters(run: Runner, layout: HomeLayout, arguments: tuple[str, ...], wanted: list[str]) -> None:
    write_history(layout)
    assert names(run, layout, *arguments) == wanted


def test_a_home_without_a_journal_has_no_history(run: Runner, layout: HomeLayout) -> None:
    assert names(run, layout) == []
    assert not layout.journal.exists()


def test_reading_the_history_changes_nothing_in_the_home(run: Runner, layout: HomeLayout) -> None:
    write_history(layout)
    before = layout.journal.read_bytes()
    run("--home", layout.root, "history")
    assert layout.journal.read_bytes() == before


def test_following_shows_what_happens_next(layout: HomeLayout) -> None:
    write_history(layout)
    with Session(layout.root, "history", "--follow", "-n", "1", COLUMNS="200") as session:
        session.until(lambda text: "v0.75.0 runs" in text)
        with Journal.open(layout.journal) as journal:
            journal.append_event(Event(name="binary.started", message="core runs again"))
        text = session.until(lambda text: "core runs again" in text)
        assert text.count("v0.75.0 runs") == 1
        session.interrupt()
        assert session.finish() == 0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("90s", NOON - 90),
        ("1.5h", NOON - 5400),
        ("7d", NOON - 7 * 86400),
        ("2026-01-01", NOON - 43200),
        ("2026-01-01 12:00", NOON),
        ("2026-01-01T12:00:05", NOON + 5),
    ],
)
def test_spans_and_dates_are_understood(text: str, wanted: float) -> None:
    assert parse_since(text, NOON) == wanted


@pytest.mark.parametrize("text", ["", "h", "yesterday", "1y", "2026-13-01", "-5m", "1.2.3h"])
def test_anything_else_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.UsageError):
        parse_since(text, NOON)
