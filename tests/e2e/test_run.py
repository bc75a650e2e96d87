"""The main job on real processes: a first start, upgrades, restarts, reloads and stops."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.e2e.harness import Home, Visor, alive, make_home, wait_for
from visor_actors.simulator import CoreFaults, DataNodeFaults, set_upgrades, write_faults

FLAG = "--snapshot.load-from-block-height"


def started(home: Home, role: str = "core") -> list[tuple[str, ...]]:
    return [record.argv for record in home.starts(role) if record.event == "start"]


def flagged(argv: tuple[str, ...]) -> bool:
    return any(argument.startswith(FLAG) for argument in argv)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_first_start_links_genesis_and_runs_it(root: Path) -> None:
    home = make_home(root)
    with Visor(home=home) as visor:
        visor.wait_running("core")
        assert home.current() == "genesis"
        status = wait_for(visor.status, "a status")
        assert status.alarms == (), "nothing is missing that was never there"
    assert visor.process.returncode == 0
    assert home.report().problems == ()


@pytest.mark.parametrize("data_node", [False, True], ids=["core only", "with data node"])
def test_two_upgrades_in_a_row_leave_an_intact_chain(root: Path, data_node: bool) -> None:
    home = make_home(
        root, upgrades=[("v2.0.0", 40), ("v3.0.0", 90)], block_ms=25, data_node=data_node, validator=False
    )
    with Visor(home=home) as visor:
        visor.wait_upgraded("v3.0.0")
        wait_for(lambda: home.report().blocks > 95, "blocks of v3.0.0")
    report = home.report()
    assert report.problems == (), visor.tail()
    assert [(one.version, one.last) for one in report.versions[:-1]] == [("v1.0.0", 40), ("v2.0.0", 90)]
    assert home.current() == "v3.0.0"
    assert len(started(home)) == 3, "one start a release"


def test_a_release_is_found_in_the_folder_it_is_mapped_to(root: Path) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 40)], block_ms=25, provide=False)
    home.add_release("the-next-one", "v2.0.0")
    home.configure(upgradeFolders={"v2.0.0": "the-next-one"})
    with Visor(home=home) as visor:
        visor.wait_upgraded("v2.0.0")
    assert home.current() == "the-next-one"
    assert home.report().problems == ()


@pytest.mark.parametrize("brand", ["vega", "zeta"])
def test_every_brand_is_upgraded(root: Path, brand: str) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 40)], block_ms=25, brand=brand)
    with Visor(home=home) as visor:
        visor.wait_upgraded("v2.0.0")
    assert home.report().problems == ()


def test_the_snapshot_height_is_passed_once_and_not_again_after_a_crash(root: Path) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 40)], block_ms=25)
    with Visor(home=home) as visor:
        visor.wait_upgraded("v2.0.0")
        wait_for(lambda: home.report().blocks > 60, "blocks of v2.0.0")
        (pid,) = visor.wait_running("core")
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(started(home)) == 3, f"a restart\n{visor.tail()}")
        wait_for(lambda: visor.running_pid() not in (None, pid), "the new core")
        wait_for(lambda: home.report().blocks > 70, "blocks after the crash")
    first, after_upgrade, after_crash = started(home)
    assert not flagged(first)
    assert f"{FLAG}=40" in after_upgrade
    assert not flagged(after_crash)
    assert home.report().problems == ()


def test_a_data_node_gets_its_whole_graceful_stop_during_an_upgrade(root: Path) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 40)], block_ms=25, data_node=True, data_node_stop_ms=1500)
    with Visor(home=home) as visor:
        visor.wait_upgraded("v2.0.0")
    stops = [record for record in home.starts("data_node") if record.event == "stop"]
    assert stops[0].details.get("code", 0) == 0, stops
    assert home.report().problems == ()


def test_a_failed_binary_is_restarted_as_often_as_configured_and_then_visor_gives_up(root: Path) -> None:
    home = make_home(root)
    home.configure(maxNumberOfRestarts=2, restartsDelaySeconds=0.05)
    write_faults(home.node_home, core=CoreFaults(crash_at_height=3, crash_exit_code=7, crash_times=0))
    with Visor(home=home) as visor:
        assert wait_for(lambda: visor.process.poll() is not None, "visor to give up")
        assert visor.process.returncode == 1
        assert "gave up" in visor.tail()
        assert "history" in visor.tail(), "the last words say where to look"
    assert len(started(home)) == 3, "the first start and two restarts"
    assert visor.leftovers() == []


def test_a_binary_that_ends_with_exit_code_0_is_noticed_and_restarted(root: Path) -> None:
    home = make_home(root)
    write_faults(home.node_home, core=CoreFaults(crash_at_height=5, crash_exit_code=0))
    with Visor(home=home) as visor:
        wait_for(lambda: len(started(home)) == 2, f"a restart\n{visor.tail()}")
        wait_for(lambda: home.report().blocks > 10, "blocks after the restart")
    assert any(entry.name == "node.failed" for entry in home.history())


def test_when_the_data_node_fails_both_binaries_are_restarted(root: Path) -> None:
    home = make_home(root, data_node=True)
    with Visor(home=home) as visor:
        core, data_node = visor.wait_running("core", "data_node")
        os.kill(data_node, signal.SIGKILL)
        wait_for(
            lambda: (
                visor.running_pid("core") not in (None, core)
                and visor.running_pid("data_node") not in (None, data_node)
            ),
            "both to run again",
        )
        assert not alive(core)
    assert home.report().problems == ()


@pytest.mark.parametrize("way", ["in place", "by rename"])
def test_a_changed_configuration_takes_effect_while_running(root: Path, way: str) -> None:
    home = make_home(root)
    home.configure(maxNumberOfRestarts=3)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running("core")
        if way == "by rename":
            before = (root / "config.toml").read_text()
            home.configure(maxNumberOfRestarts=9)
            after = (root / "config.toml").read_text()
            home.write_config(before)
            (root / "config.toml.new").write_text(after)
            (root / "config.toml.new").rename(root / "config.toml")
        else:
            home.configure(maxNumberOfRestarts=9)
        wait_for(lambda: (s := visor.status()) is not None and s.node.restarts_max == 9, "the new budget")
        assert visor.running_pid() == pid, "the node does not notice"


def test_a_bad_configuration_is_reported_and_the_last_good_one_stays(root: Path) -> None:
    home = make_home(root)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running("core")
        home.write_config('maxNumberOfRestart = 3\npollIntervalSeconds = "often"\n')
        status = wait_for(
            lambda: (s := visor.status()) is not None and s.config is not None and s.config.problem and s,
            "the refusal",
        )
        assert "maxNumberOfRestarts" in status.config.problem, "the misspelt key gets a suggestion"
        assert "pollIntervalSeconds" in status.config.problem, "all problems at once"
        assert visor.running_pid() == pid


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_stops_everything_gracefully_and_leaves_nothing_behind(root: Path, name: str) -> None:
    home = make_home(root, data_node=True)
    with Visor(home=home) as visor:
        pids = visor.wait_running("core", "data_node")
        wait_for(lambda: home.report().blocks > 3, "a node at work")
        visor.process.send_signal(signal.Signals[name])
        assert visor.process.wait(30) == 0
        assert not any(alive(pid) for pid in pids)
        assert visor.leftovers() == [], "no shim is left either"
    stops = [record for record in (*home.starts("core"), *home.starts("data_node")) if record.event == "stop"]
    assert len(stops) == 2, "both had their graceful stop"


ACTORS = (
    "config-watcher",
    "node",
    "process:core",
    "process:data_node",
    "lifecycle",
    "installer",
    "rpc-listener",
    "upgrade-coordinator",
    "api",
)


def test_the_node_notices_nothing_when_any_actor_dies(root: Path) -> None:
    home = make_home(root, block_ms=25, data_node=True)
    home.add_release("v2.0.0", "v2.0.0")
    with Visor(home=home) as visor:
        pids = visor.wait_running("core", "data_node")
        for actor in ACTORS:
            visor.kill_actor(actor, "crash")
            assert visor.wait_running("core", "data_node") == pids, f"{actor} took the node along"
        set_upgrades(home.node_home, [("v2.0.0", home.report().blocks + 40)])
        visor.wait_upgraded("v2.0.0")
    assert home.report().problems == ()


def test_a_data_node_that_ignores_sigterm_is_killed_after_its_time(root: Path) -> None:
    home = make_home(root, data_node=True)
    home.configure(stopSignalTimeoutSeconds=0.5)
    write_faults(home.node_home, data_node=DataNodeFaults(ignore_sigterm=True))
    with Visor(home=home) as visor:
        _, data_node = visor.wait_running("core", "data_node")
        visor.process.send_signal(signal.SIGTERM)
        assert visor.process.wait(30) == 0
        assert not alive(data_node)
