"""The upgrades of the journal: one write an arrow, nothing lost when a write or the file is."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from visor_actors.actors.ledger import JournalKeeper, Ledger, LedgerFenced
from visor_actors.actors.upgrade_machine import COMMITTED, ImpossibleTransition, State
from visor_actors.home.journal import Journal, JournalUnavailable
from visor_actors.testing.failpoints import FailpointReached, arm


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Journal.open(path) as journal:
        yield Ledger(journal, now=lambda: 5.0)


@pytest.fixture
def failpoints() -> Iterator[None]:
    yield
    arm("")


def states(path: Path, tag: str = "v2.0.0", height: int = 40) -> list[str]:
    with Journal.open_reader(path) as journal:
        return [state for state, _, _ in journal.upgrade_log(tag, height)]


def test_every_arrow_is_in_the_journal_with_its_folder_and_notes(ledger: Ledger, path: Path) -> None:
    entry = ledger.add("v2.0.0", 40, "the-folder")
    for state in (State.PREPARING, State.PREPARED, *COMMITTED[:4]):
        entry = ledger.advance(entry, state)
    ledger.advance(entry, State.STARTING, core_incarnation=7)
    with Journal.open(path) as journal:
        (again,) = Ledger(journal, now=lambda: 9.0).entries
    assert again.upgrade.state is State.STARTING
    assert again.folder == "the-folder"
    assert again.detail["core_incarnation"] == 7
    assert states(path) == [
        "announced",
        "preparing",
        "prepared",
        "ready",
        "stopping",
        "stopped",
        "switched",
        "starting",
    ]
    assert ledger.steps(again)[0] == ("announced", 5.0)


def test_an_arrow_that_does_not_exist_is_not_written(ledger: Ledger, path: Path) -> None:
    entry = ledger.add("v2.0.0", 40, "v2.0.0")
    with pytest.raises(ImpossibleTransition):
        ledger.advance(entry, State.CONFIRMED)
    assert states(path) == ["announced"]


def test_the_committed_upgrade_comes_before_the_pending_one_and_the_lowest_height_first(
    ledger: Ledger,
) -> None:
    assert ledger.active() is None
    assert ledger.linked() is None
    later = ledger.add("v3.0.0", 90, "v3.0.0")
    assert ledger.active() == later
    earlier = ledger.add("v2.0.0", 40, "v2.0.0")
    assert ledger.active() == earlier
    later = ledger.advance(later, State.READY)
    assert ledger.active() == later
    for state in (State.STOPPING, State.STOPPED, State.SWITCHED):
        later = ledger.advance(later, state)
    assert ledger.linked() == later
    assert [entry.upgrade.height for entry in ledger.entries] == [40, 90]


def test_an_upgrade_that_is_accepted_again_takes_the_folder_of_now(ledger: Ledger) -> None:
    entry = ledger.advance(ledger.add("v2.0.0", 40, "old"), State.WITHDRAWN)
    assert ledger.active() is None
    again = ledger.add(*entry.key, "new")
    assert again.folder == "new"
    assert again.upgrade.state is State.ANNOUNCED


def test_a_write_that_fails_leaves_the_entry_what_it_was(ledger: Ledger, path: Path) -> None:
    entry = ledger.add("v2.0.0", 40, "v2.0.0")
    version = ledger.version
    with sqlite3.connect(path) as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON upgrade_log BEGIN SELECT RAISE(FAIL, 'full'); END"
        )
    other.close()
    with pytest.raises(JournalUnavailable):
        ledger.advance(entry, State.READY)
    assert ledger.get("v2.0.0", 40) == entry
    assert ledger.version == version
    assert states(path) == ["announced"]


def test_a_coordinator_that_was_given_up_writes_nothing_any_more(path: Path) -> None:
    given_up = False
    with Journal.open(path) as journal:
        ledger = Ledger(journal, now=lambda: 5.0, fenced=lambda: given_up)
        entry = ledger.add("v2.0.0", 40, "v2.0.0")
        given_up = True
        with pytest.raises(LedgerFenced):
            ledger.advance(entry, State.READY)
    assert states(path) == ["announced"]


@pytest.mark.usefixtures("failpoints")
def test_a_failpoint_lies_on_either_side_of_every_write(ledger: Ledger, path: Path) -> None:
    entry = ledger.add("v2.0.0", 40, "v2.0.0")
    arm("upgrade.ready.before=raise; upgrade.ready=raise")
    with pytest.raises(FailpointReached, match=r"upgrade\.ready\.before"):
        ledger.advance(entry, State.READY)
    assert states(path) == ["announced"]
    with pytest.raises(FailpointReached, match=r"upgrade\.ready$"):
        ledger.advance(entry, State.READY)
    assert states(path) == ["announced", "ready"]


# the file


@pytest.fixture
def keeper(path: Path) -> Iterator[JournalKeeper]:
    keeper = JournalKeeper(path, now=lambda: 5.0)
    yield keeper
    keeper.close()


def opened(keeper: JournalKeeper) -> Ledger:
    keeper.attend(0.0)
    assert keeper.ledger is not None
    return keeper.ledger


def test_an_open_journal_stays_open(keeper: JournalKeeper) -> None:
    ledger = opened(keeper)
    assert keeper.attend(1.0) is None
    assert keeper.ledger is ledger


def test_a_deleted_file_is_written_anew_from_memory(keeper: JournalKeeper, path: Path) -> None:
    opened(keeper).add("v2.0.0", 40, "v2.0.0")
    for file in path.parent.glob("journal.db*"):
        file.unlink()
    assert keeper.attend(1.0) == "the journal's file was deleted or replaced"
    assert states(path) == ["announced"]
    opened(keeper).add("v3.0.0", 90, "v3.0.0")
    assert states(path, "v3.0.0", 90) == ["announced"]


def test_a_damaged_file_is_set_aside_and_written_anew(keeper: JournalKeeper, path: Path) -> None:
    ledger = opened(keeper)
    ledger.add("v2.0.0", 40, "v2.0.0")
    for wal in path.parent.glob("journal.db-*"):
        wal.unlink()
    path.write_bytes(b"no database " * 1000)
    keeper.doubt(2.0)
    assert keeper.attend(1.0) is None, "it is not tried again before its time"
    trouble = keeper.attend(2.0)
    assert trouble is not None
    assert "damaged" in trouble
    assert states(path) == ["announced"]


def test_a_file_that_cannot_be_opened_leaves_what_is_known_in_memory(
    keeper: JournalKeeper, path: Path
) -> None:
    entry = opened(keeper).add("v2.0.0", 40, "v2.0.0")
    for file in path.parent.glob("journal.db*"):
        file.unlink()
    path.mkdir()
    with pytest.raises(JournalUnavailable):
        keeper.attend(1.0)
    assert keeper.ledger is not None
    assert keeper.ledger.get("v2.0.0", 40) == entry
    os.rmdir(path)
    keeper.attend(2.0)
    assert states(path) == ["announced"]
