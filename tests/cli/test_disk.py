"""What can be known of a home when no visor runs."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from tests.cli.running import Runner
from visor_actors.cli.disk import read_disk
from visor_actors.home.layout import HomeLayout
from visor_actors.home.lock import HomeLock


def hold(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def record(slot: Path, *, pid: int, argv: list[str]) -> None:
    """Write what a shim saves of a running binary."""
    running = {
        "incarnation": 1,
        "pid": pid,
        "start_ticks": 1,
        "boot_id": "x",
        "executable": "vega",
        "argv": argv,
        "started_at": 1.5,
        "stopping": False,
    }
    (slot / "state.1").write_text(json.dumps({"serial": 1, "running": running, "end": 1}) + "\n")


def test_a_node_that_runs_without_visor_is_seen_and_named(run: Runner, layout: HomeLayout) -> None:
    core = layout.slot("core")
    fd = hold(core / "lock")
    try:
        record(core, pid=4321, argv=["vega", "start"])
        report = read_disk(layout)
        assert [(slot.slot, slot.held, slot.pid, slot.argv) for slot in report.slots] == [
            ("core", True, 4321, ("vega", "start"))
        ]
        ran = run("--home", layout.root, "status")
        assert "running without visor, pid 4321" in ran.out
        assert "takes it over without stopping it" in ran.out
        ran = run("--home", layout.root, "stop")
        assert ran.code == 1
        assert "but its node does: core (pid 4321)" in ran.err
    finally:
        os.close(fd)


def test_looking_takes_no_lock(layout: HomeLayout) -> None:
    fd = hold(layout.slot("core") / "lock")
    os.close(fd)
    read_disk(layout)
    again = os.open(layout.slot("core") / "lock", os.O_RDWR)
    try:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(again)


def test_what_a_shim_wrote_about_a_dead_node_is_not_believed(layout: HomeLayout) -> None:
    core = layout.slot("core")
    core.mkdir(parents=True)
    (core / "lock").touch()
    record(core, pid=1, argv=[])
    (slot,) = read_disk(layout).slots
    assert (slot.held, slot.pid) == (False, None)


def test_a_home_that_is_held_but_does_not_answer_is_told(run: Runner, layout: HomeLayout) -> None:
    with HomeLock.acquire(layout.root):
        ran = run("--home", layout.root, "status")
    assert ran.code == 1
    assert "it starts or ends" in ran.out


def test_broken_things_are_told_and_break_nothing(layout: HomeLayout) -> None:
    layout.slot("core").mkdir(parents=True)
    (layout.slot("core") / "state.0").write_text("{")
    layout.current.symlink_to("v9")
    layout.journal.write_text("this is no database, and long enough not to be taken for an empty one" * 20)
    report = read_disk(layout)
    assert report.current is not None
    assert any("v9" in problem for problem in report.problems)
    assert any("journal.db" in problem for problem in report.problems)


def test_a_folder_that_is_no_home_is_told(run: Runner, tmp_path: Path) -> None:
    ran = run("--home", tmp_path, "status")
    assert ran.code == 1
    assert "visor-actors init" in ran.out
