"""The journal: what it remembers, and what it does when the disk, the file or the process fails."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from visor_actors.home import journal as journal_module
from visor_actors.home.errors import JournalUnavailable
from visor_actors.home.journal import Journal, UpgradeRow
from visor_actors.telemetry.events import Event, Severity, Trouble


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal.open(path) as opened:
        yield opened


def row(state: str, *, tag: str = "v1", height: int = 10, **detail: journal_module.Json) -> UpgradeRow:
    return UpgradeRow(tag=tag, height=height, state=state, folder=tag, detail=detail, updated_at=5.0)


def test_an_upgrade_is_remembered_with_every_step(path: Path, journal: Journal) -> None:
    journal.write_upgrade(row("announced"), durable=True)
    journal.write_upgrade(row("preparing", attempt=1), durable=False)
    journal.write_upgrade(row("announced", tag="v2", height=20), durable=True)
    journal.write_upgrade(row("ready", attempt=1), durable=True)

    with Journal.open(path) as again:
        assert again.upgrade("v1", 10) == row("ready", attempt=1)
        assert again.upgrade("v1", 11) is None
        assert [(one.tag, one.state) for one in again.upgrades()] == [("v1", "ready"), ("v2", "announced")]
        assert [(state, dict(detail)) for state, _, detail in again.upgrade_log("v1", 10)] == [
            ("announced", {}),
            ("preparing", {"attempt": 1}),
            ("ready", {"attempt": 1}),
        ]
        assert again.set_aside is None


def test_values_are_remembered_replaced_and_forgotten(path: Path, journal: Journal) -> None:
    journal.put("height", 2**62)
    journal.put("nested", {"a": [1, None, "ü"]}, durable=True)
    journal.put("height", 7)
    with Journal.open(path) as again:
        assert again.get("height") == 7
        assert again.get("nested") == {"a": [1, None, "ü"]}
        assert again.get("nothing") is None
    journal.put("height", None)
    assert journal.get("height") is None


def test_an_exit_is_consumed_exactly_once_whoever_tries(path: Path, journal: Journal) -> None:
    assert journal.consume_exit("core", "boot:1", {"code": 1})
    assert not journal.consume_exit("core", "boot:1", {"code": 1})
    assert journal.consume_exit("data_node", "boot:1", {"code": 1})
    with Journal.open(path) as again:
        assert not again.consume_exit("core", "boot:1", {})
        assert [(key, dict(record)) for key, _, record in again.exits("core")] == [("boot:1", {"code": 1})]


def test_of_many_consumers_at_once_one_wins(path: Path, journal: Journal) -> None:
    wins: list[str] = []
    barrier = threading.Barrier(8)

    def consume() -> None:
        with Journal.open(path) as mine:
            barrier.wait(20)
            for number in range(20):
                if mine.consume_exit("core", str(number), {}):
                    wins.append(str(number))

    threads = [threading.Thread(target=consume) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins, key=int) == [str(number) for number in range(20)]


def test_the_history_is_filtered_and_its_newest_entries_come_oldest_first(journal: Journal) -> None:
    for number in range(5):
        journal.append_event(Event(name="node.started", message=str(number), at=float(number)))
    journal.append_event(
        Event(
            name="node.exited",
            message="core ended",
            severity=Severity.ALARM,
            next_step="look",
            fields={"code": 2, "slot": "core"},
            lines=("panic", "goroutine"),
            trouble=Trouble(type_name="ValueError", message="bad", traceback="..."),
            at=10.0,
        )
    )
    journal.append_event(Event(name="nodes.other", message="x", at=11.0))

    assert [one.message for one in journal.events(limit=2)] == ["core ended", "x"]
    assert [one.message for one in journal.events(name="node.started", since=1.0, until=2.0)] == ["1", "2"]
    assert [one.name for one in journal.events(name="node.*", least_severity=Severity.ERROR)] == [
        "node.exited"
    ]
    (alarm,) = journal.events(least_severity=50)
    assert (alarm.fields["code"], alarm.lines, alarm.next_step) == (2, ("panic", "goroutine"), "look")
    assert alarm.trouble == "ValueError: bad"
    assert [one.name for one in journal.events(after_id=alarm.id)] == ["nodes.other"]
    assert journal.events(name="node.nothing") == ()


def test_the_history_is_bounded(monkeypatch: pytest.MonkeyPatch, journal: Journal) -> None:
    monkeypatch.setattr(journal_module, "KEEP_EVENTS", 100)
    for number in range(600):
        journal.append_event(Event(name="a", message=str(number)))
    kept = journal.events()
    assert len(kept) < 100 + 256
    assert kept[-1].message == "599"


def test_a_corrupt_file_is_set_aside_and_a_new_one_begun(path: Path) -> None:
    with Journal.open(path) as journal:
        journal.put("a", 1)
    path.write_bytes(b"this is no database" * 1000)

    with Journal.open(path, clock=lambda: 0.0) as journal:
        assert journal.set_aside == path.with_name("journal.db.corrupt-19700101T000000Z")
        assert journal.get("a") is None
        journal.put("a", 2, durable=True)
    assert journal.set_aside.read_bytes().startswith(b"this is no database")
    path.write_bytes(b"again" * 1000)
    with Journal.open(path, clock=lambda: 0.0) as journal:
        assert journal.set_aside == path.with_name("journal.db.corrupt-19700101T000000Z-2")


@pytest.mark.parametrize("before", [None, b"garbage" * 1000])
def test_of_many_that_open_at_once_all_get_the_same_journal(path: Path, before: bytes | None) -> None:
    if before is not None:
        path.write_bytes(before)
    barrier = threading.Barrier(8)
    aside: list[Path | None] = []

    def open_and_write(number: int) -> None:
        barrier.wait(20)
        with Journal.open(path) as mine:
            aside.append(mine.set_aside)
            mine.put(f"key-{number}", number)

    threads = [threading.Thread(target=open_and_write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([one for one in aside if one is not None]) == (0 if before is None else 1)
    with Journal.open(path) as journal:
        assert [journal.get(f"key-{number}") for number in range(8)] == list(range(8))


@pytest.mark.parametrize("keep", [0, 50, 1000, 4096, 6000])
def test_a_truncated_file_never_keeps_visor_from_starting(path: Path, keep: int) -> None:
    with Journal.open(path) as journal:
        for number in range(200):
            journal.put(f"key-{number}", "x" * 100)
    os.truncate(path, keep)
    with Journal.open(path) as journal:
        journal.put("works", True, durable=True)
        assert journal.get("works") is True


def test_damage_in_the_middle_is_found_at_the_next_start(path: Path) -> None:
    with Journal.open(path) as journal:
        for number in range(500):
            journal.put(f"key-{number}", "x" * 100)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    with Journal.open(path) as journal:
        assert journal.set_aside is not None


def test_a_reader_never_sets_anything_aside(path: Path) -> None:
    with pytest.raises(JournalUnavailable):
        Journal.open_reader(path)
    assert not path.exists()
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(JournalUnavailable):
        Journal.open_reader(path)
    assert path.read_bytes().startswith(b"garbage")


def test_a_reader_reads_beside_a_writer_and_cannot_write(path: Path, journal: Journal) -> None:
    journal.put("a", 1)
    with Journal.open_reader(path) as reader:
        assert reader.get("a") == 1
        journal.put("a", 2)
        assert reader.get("a") == 2
        with pytest.raises(JournalUnavailable):
            reader.put("a", 3)


def test_a_journal_of_a_newer_visor_is_refused_and_kept(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalUnavailable, match="newer visor"):
        Journal.open(path)
    assert path.exists()


def test_a_full_disk_raises_and_leaves_the_journal_usable(path: Path, journal: Journal) -> None:
    journal.put("before", 1)
    size = max(file.stat().st_size for file in path.parent.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(JournalUnavailable) as raised:
            journal.put("big", "x" * 10_000_000)
        assert "disk" in raised.value.next_step
        assert journal.get("before") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    journal.put("after", 2, durable=True)
    assert journal.get("after") == 2


def test_a_place_that_cannot_be_written_is_unavailable_and_no_crash() -> None:
    with pytest.raises(JournalUnavailable):
        Journal.open(Path("/proc/journal.db"))
    with pytest.raises(JournalUnavailable):
        Journal.open(Path("/nowhere/at/all/journal.db"))


def test_a_folder_in_the_place_of_the_file_is_unavailable(path: Path) -> None:
    path.mkdir()
    with pytest.raises(JournalUnavailable):
        Journal.open(path)


def test_a_file_that_somebody_holds_is_available_again_later(path: Path, journal: Journal) -> None:
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalUnavailable, match="locked"):
        journal.put("a", 1)
    holder.execute("ROLLBACK")
    holder.close()
    journal.put("a", 1)


def test_the_file_is_private(path: Path, journal: Journal) -> None:
    journal.put("a", 1)
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_killed_in_the_middle_of_writing_nothing_acknowledged_is_lost(path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from visor_actors.home.journal import Journal, UpgradeRow\n"
        "journal = Journal.open(pathlib.Path(sys.argv[1]))\n"
        "number = (journal.get('number') or 0) + 1\n"
        "while True:\n"
        "    journal.write_upgrade(UpgradeRow(tag='v', height=1, state=str(number)),"
        " durable=not number % 3)\n"
        "    journal.put('number', number)\n"
        "    print(number, flush=True)\n"
        "    number += 1\n"
    )
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for _ in range(25):
                acknowledged = int(child.stdout.readline())
            child.kill()
        with Journal.open(path) as journal:
            assert journal.set_aside is None
            number = journal.get("number")
            assert isinstance(number, int)
            assert number >= acknowledged
            upgrade = journal.upgrade("v", 1)
            assert upgrade is not None
            assert int(upgrade.state) in (number, number + 1)
            assert journal.upgrade_log("v", 1)[-1][0] == upgrade.state


def test_names_with_signs_that_mean_something_in_urls_are_only_names(tmp_path: Path) -> None:
    folder = tmp_path / "a?mode=memory&b#c%20d ü"
    folder.mkdir()
    with Journal.open(folder / "journal.db") as journal:
        journal.put("a", 1)
    assert (folder / "journal.db").stat().st_size > 0


def test_a_row_that_cannot_be_written_as_json_changes_nothing(journal: Journal) -> None:
    journal.write_upgrade(row("announced"), durable=False)
    bad = msgspec.structs.replace(row("ready"), detail={"x": object()})
    with pytest.raises(TypeError):
        journal.write_upgrade(bad, durable=True)
    assert journal.upgrade("v1", 10) == row("announced")
    json.dumps(dict(journal.upgrade("v1", 10).detail))  # type: ignore[union-attr]  # it was just compared
