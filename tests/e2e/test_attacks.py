"""What attacks on the promises have found: each test is one that visor once did not withstand."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.harness import Home, Visor, alive, make_home, wait_for
from visor_actors.actors.acceptance import STANDS_KEY
from visor_actors.home.journal import Journal, Json
from visor_actors.simulator import set_upgrades


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home"


def wait_blocks(home: Home, count: int) -> None:
    wait_for(lambda: home.report().blocks >= count, f"block {count}")


def wait_event(home: Home, name: str, words: str) -> None:
    wait_for(lambda: any(words in entry.message for entry in home.history(name)), f"{name}: {words}")


def fact(home: Home, key: str) -> Json:
    with Journal.open_reader(home.root / ".visor" / "journal.db") as journal:
        return journal.get(key)


def restarted(home: Home, times: int) -> bool:
    return starts(home) > times


def starts(home: Home) -> int:
    return len([record for record in home.starts() if record.event == "start"])


# the old binary, its height done


def test_a_ready_core_whose_release_cannot_name_a_folder_is_not_started_again(root: Path) -> None:
    home = make_home(root, upgrades=[("feature/x", 30)], block_ms=25, provide=False)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running("core")
        wait_event(home, "upgrade.preparation", "cannot name an upgrade folder")
        wait_event(home, "upgrade.ready", "feature/x")
        os.kill(pid, signal.SIGKILL)
        wait_event(home, "upgrade.hold", "the old node must not run")
        home.add_release("next", "feature/x")
        home.configure(upgradeFolders={"feature/x": "next"})
        visor.wait_upgraded("feature/x")
    assert home.report().problems == ()
    assert home.current() == "next"


@pytest.mark.parametrize("resumed", [False, True], ids=["held", "resumed"])
def test_a_ready_core_whose_release_is_refused_is_not_started_again(root: Path, resumed: bool) -> None:
    home = make_home(root, upgrades=[("v0.9.0", 30)], block_ms=25, provide=False)
    home.add_release("v1.0.0", "v1.0.0")
    (root / "current").symlink_to("v1.0.0")
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running("core")
        wait_event(home, "upgrade.suspicious", "older than v1.0.0")
        wait_for(lambda: fact(home, STANDS_KEY), "the readiness to be on record")
        visor.process.kill()  # the next visor must know it too
        visor.process.wait()
        os.kill(pid, signal.SIGKILL)
        visor.start()
        wait_event(home, "upgrade.hold", "must not go on")
        assert starts(home) == 1
        if resumed:
            visor.client.resume(None)
            wait_for(partial(restarted, home, 1), "the start all the same")


def test_a_readiness_that_the_journal_does_not_take_keeps_the_old_binary_down(root: Path) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 60)], block_ms=25)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running("core")
        journal = sqlite3.connect(root / ".visor" / "journal.db", isolation_level=None)
        journal.execute("BEGIN IMMEDIATE")  # as good as a full disk: nothing can be written
        try:
            wait_blocks(home, 60)
            wait_for(lambda: "no upgrade step is taken" in visor.log.read_text(), "the alarm")
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: (s := visor.status()) is not None and s.node.phase == "held", "the node held")
        finally:
            journal.close()
        visor.wait_upgraded("v2.0.0")
    assert home.report().problems == ()


# never twice


def kill_all_of_visor(visor: Visor) -> None:
    """SIGKILL to visor and its shims; the node goes on."""
    binary = visor.binary()
    assert binary is not None
    assert binary.shim_pid is not None
    visor.process.kill()
    visor.process.wait()
    os.kill(binary.shim_pid, signal.SIGKILL)


@pytest.mark.parametrize("lost", [".visor", ".visor/shims", ".visor/shims/core"])
def test_a_visor_that_has_lost_all_memory_starts_no_second_copy(root: Path, lost: str) -> None:
    home = make_home(root, block_ms=25)
    home.configure(maxNumberOfRestarts=1)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running("core")
        kill_all_of_visor(visor)
        shutil.rmtree(root / lost)
        visor.start()
        assert visor.process.wait(60) == 1
        assert f"is held by pid {pid}" in visor.tail(), "the refusal names who runs"
        assert alive(pid)
    assert starts(home) == 1


def test_a_copy_of_a_home_neither_adopts_nor_repeats_the_node(root: Path) -> None:
    home = make_home(root, block_ms=25)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running("core")
        sockets = shutil.ignore_patterns("*.sock")
        shutil.copytree(root, root.parent / "copy", symlinks=True, ignore=sockets)
        copy = Home(root=root.parent / "copy", chain=home.chain)
        copy.configure(maxNumberOfRestarts=1)
        with Visor(home=copy) as second:
            assert second.process.wait(60) == 1
            assert f"is held by pid {pid}" in second.tail()
        # The end of a visor's test ends what is left of its home and its node: the first one starts anew.
    assert all("adopted" not in entry.message for entry in copy.history())


def test_a_node_whose_slot_was_deleted_is_restarted_and_upgraded_all_the_same(root: Path) -> None:
    home = make_home(root, block_ms=25)
    home.add_release("v2.0.0", "v2.0.0")
    with Visor(home=home) as visor:
        visor.wait_running("core")
        for times in (1, 2, 3):
            wait_blocks(home, home.report().blocks + 5)
            if times == 3:
                shutil.rmtree(root / ".visor")
            os.kill(home.starts()[-1].pid, signal.SIGKILL)
            wait_for(partial(restarted, home, times), "a restart")
        set_upgrades(home.node_home, [("v2.0.0", home.report().blocks + 40)])
        visor.wait_upgraded("v2.0.0")
    assert home.report().problems == ()
    assert starts(home) == 5


def test_a_visor_whose_home_was_taken_over_leaves_it_to_the_other(root: Path) -> None:
    home = make_home(root, block_ms=25)
    with Visor(home=home) as first:
        (pid,) = first.wait_running("core")
        (root / ".visor" / "visor.lock").unlink()
        with Visor(home=home) as second:
            assert first.process.wait(60) == 75
            assert second.wait_running("core") == [pid]
    assert starts(home) == 1


# visor's surroundings


def test_a_node_is_started_again_for_good_after_the_reader_of_its_output_has_gone(root: Path) -> None:
    home = make_home(root, block_ms=25)
    reader, writer = os.pipe()
    with Visor(home=home, output=writer) as visor:
        os.close(writer)
        visor.wait_running("core")
        wait_blocks(home, 5)
        os.close(reader)
        wait_event(home, "logs.reader-gone", "goes to")
        wait_blocks(home, home.report().blocks + 30)
        assert starts(home) == 2, "one SIGPIPE, then it is out of reach"
        assert visor.process.poll() is None
    assert "Processed block" in (root / ".visor" / "logs" / "core.log").read_text()
