"""What a node keeps on disk, and what ruins it."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.simulator.harness import DEADLINE, Nodes, connect, end, height_of, reach, seen, wait_for
from visor_actors.simulator import (
    CoreFaults,
    Problem,
    ProblemKind,
    SimulatedChain,
    check_chain,
    init_chain,
    read_records,
    write_faults,
)


def kinds(problems: Iterable[Problem]) -> set[ProblemKind]:
    return {problem.kind for problem in problems}


def snapshots(chain: SimulatedChain) -> list[int]:
    folder = chain.home / "state" / "node" / "snapshots"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def upgrade_to_height(home: Path, old: Path, nodes: Nodes, height: int = 12) -> SimulatedChain:
    """A chain whose old version stopped at its upgrade height."""
    chain = init_chain(home, block_ms=3, upgrades=[("v2", height)], snapshot_interval=5)
    core = nodes.start_core(old, chain)
    seen(home, "ready")
    end(core)
    return chain


def test_a_second_copy_is_refused_by_the_lock_but_has_emptied_the_configuration_first(
    home: Path, old: Path, nodes: Nodes
) -> None:
    chain = init_chain(home, block_ms=5)
    config = home / "config" / "node" / "config.toml"
    core = nodes.start_core(old, chain)
    reach(chain, 1)
    before = config.stat()
    second = nodes.start_core(old, chain)
    assert second.wait(DEADLINE) == 255
    assert "database is locked" in nodes.err(second)
    assert config.stat().st_mtime_ns > before.st_mtime_ns
    assert config.stat().st_ino == before.st_ino
    assert core.poll() is None
    assert read_records(home, event="refused")[0].details["holder"] == core.pid
    assert kinds(check_chain(home).problems) == {ProblemKind.TWO_PROCESSES}


def test_the_lock_is_free_as_soon_as_the_holder_is_dead(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=5)
    for _ in range(3):
        core = nodes.start_core(old, chain)
        reach(chain, height_of(chain) + 2)
        core.kill()
        core.wait(DEADLINE)
    assert check_chain(home).problems == ()
    assert check_chain(home).starts == 3


def test_sigkill_leaves_a_dead_socket_and_the_next_start_replaces_it(
    home: Path, old: Path, nodes: Nodes
) -> None:
    chain = init_chain(home, block_ms=5)
    core = nodes.start_core(old, chain)
    reach(chain, 1)
    core.kill()
    core.wait(DEADLINE)
    with pytest.raises(ConnectionRefusedError):
        connect(chain.socket_path)
    again = nodes.start_core(old, chain)
    seen(home, "loaded", pid=again.pid)
    connect(chain.socket_path).close()
    assert end(again) == 0
    assert not chain.socket_path.exists()


def test_a_restart_goes_on_where_the_chain_was(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=3, snapshot_interval=10)
    core = nodes.start_core(old, chain)
    reach(chain, 14)
    core.kill()
    core.wait(DEADLINE)
    stopped_at = height_of(chain)
    again = nodes.start_core(old, chain)
    reach(chain, stopped_at + 5)
    assert end(again) == 0
    report = check_chain(home)
    assert (report.problems, report.blocks) == ((), height_of(chain))
    assert report.executions > report.blocks  # those after the snapshot were replayed


def test_a_snapshot_height_must_exist_exactly(home: Path, old: Path, nodes: Nodes) -> None:
    chain = upgrade_to_height(home, old, nodes)
    core = nodes.start_core(old, chain, "--snapshot.load-from-block-height", "11")
    assert core.wait(DEADLINE) == 255
    assert nodes.err(core) == (
        "could not initialize the snapshot engine: could not initialize the snapshot tree: "
        "could not load local snapshots into the tree: no snapshot found for block height 11\n"
    )
    assert kinds(check_chain(home).problems) == {ProblemKind.SNAPSHOT_MISSING}


@pytest.mark.parametrize(
    "flag", [("--snapshot.load-from-block-height", "12"), ("--snapshot.load-from-block-height=12",), ()]
)
def test_the_new_version_starts_from_the_upgrade_height_with_and_without_the_flag(
    home: Path, old: Path, new: Path, nodes: Nodes, flag: tuple[str, ...]
) -> None:
    chain = upgrade_to_height(home, old, nodes)
    core = nodes.start_core(new, chain, *flag)
    reach(chain, 20)
    assert end(core) == 0
    assert check_chain(home).problems == ()
    assert read_records(home, event="loaded")[-1].details["flag"] == (12 if flag else 0)


def test_loading_an_older_snapshot_deletes_the_later_ones_and_is_reported(
    home: Path, old: Path, new: Path, nodes: Nodes
) -> None:
    chain = upgrade_to_height(home, old, nodes)
    write_faults(home, core=CoreFaults(stall_at_height=26))
    core = nodes.start_core(new, chain)
    reach(chain, 26)
    end(core)
    assert snapshots(chain)[-1] >= 25
    (home / "state" / "node" / "snapshots" / "999").write_text("")  # no replay brings this one back
    again = nodes.start_core(new, chain, "--snapshot.load-from-block-height", "12")
    loaded = seen(home, "loaded", pid=again.pid)
    assert loaded.details["deleted"][:2] == [15, 20]
    assert 999 not in snapshots(chain)
    end(again)
    assert kinds(check_chain(home).problems) == {ProblemKind.SNAPSHOTS_LOST}


def test_only_the_latest_snapshots_are_kept(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=2, snapshot_interval=2, keep_recent=3)
    nodes.start_core(old, chain)
    reach(chain, 13)
    assert wait_for(lambda: len(snapshots(chain)) <= 4)
    assert min(snapshots(chain)) >= 8


@pytest.mark.parametrize("flag", [(), ("--snapshot.load-from-block-height", "12")])
def test_an_old_version_past_its_height_is_happy_and_ruins_the_chain_for_the_new_one(
    home: Path, old: Path, new: Path, nodes: Nodes, flag: tuple[str, ...]
) -> None:
    chain = upgrade_to_height(home, old, nodes)
    core = nodes.start_core(old, chain)
    reach(chain, 14)
    assert end(core) == 0
    upgraded = nodes.start_core(new, chain, *flag)
    assert upgraded.wait(DEADLINE) == 2
    assert nodes.err(upgraded).startswith("panic: block.AppHash does not match AppHash after replay. Got ")
    assert chain.socket_path.exists()
    found = kinds(check_chain(home).problems)
    assert {ProblemKind.WRONG_VERSION, ProblemKind.STATE_MISMATCH} <= found
    back = nodes.start_core(old, chain)
    reach(chain, height_of(chain) + 2)
    assert end(back) == 0


def test_the_ruin_outlasts_later_snapshots_of_the_old_version(
    home: Path, old: Path, new: Path, nodes: Nodes
) -> None:
    chain = upgrade_to_height(home, old, nodes)
    core = nodes.start_core(old, chain)
    reach(chain, 21)
    end(core)
    assert nodes.start_core(new, chain).wait(DEADLINE) == 2


def test_a_third_version_starts_as_well_and_is_reported(
    home: Path, old: Path, releases: dict[str, Path], nodes: Nodes
) -> None:
    chain = upgrade_to_height(home, old, nodes)
    core = nodes.start_core(releases["v3"], chain)
    reach(chain, 14)
    assert end(core) == 0
    assert ProblemKind.WRONG_VERSION in kinds(check_chain(home).problems)


@pytest.mark.parametrize("moment", ["before_snapshot", "after_snapshot", "before_ready"])
def test_a_core_may_die_at_its_height_before_anybody_saw_it_ready(
    home: Path, old: Path, new: Path, nodes: Nodes, moment: str
) -> None:
    tendermint = home.parent / "tm"
    chain = init_chain(
        home, block_ms=3, upgrades=[("v2", 12)], snapshot_interval=5, tendermint_home=tendermint
    )
    write_faults(home, core=CoreFaults(die_at_upgrade=moment))  # type: ignore[arg-type]  # parametrised literal
    core = nodes.start_core(old, chain)
    assert core.wait(DEADLINE) == -signal.SIGKILL
    signed = (tendermint / "data" / "priv_validator_state.json").read_text()
    assert f'"height": "{13 if moment == "before_ready" else 12}"' in signed
    assert not read_records(home, event="ready")
    again = nodes.start_core(old if moment == "before_snapshot" else new, chain)
    if moment == "before_snapshot":
        seen(home, "ready", pid=again.pid)  # the replay of the height gets there again
    else:
        reach(chain, 14)
    end(again)
    assert check_chain(home).problems == ()


def test_the_checker_sees_a_missing_block(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=2)
    core = nodes.start_core(old, chain)
    reach(chain, 8)
    end(core)
    log = home / "state" / "node" / "blocks.log"
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if line[:2] != "4 "))
    assert kinds(check_chain(home).problems) == {ProblemKind.GAP}


def test_a_home_without_a_chain_is_sound(home: Path) -> None:
    init_chain(home, upgrades=[("v2", 5)])
    report = check_chain(home)
    assert (report.blocks, report.problems, report.versions) == (0, (), ())


def test_without_a_configuration_the_core_refuses_to_start(home: Path, old: Path, nodes: Nodes) -> None:
    core = nodes.start(old, "start", "--home", str(home))
    assert core.wait(DEADLINE) == 255
    assert nodes.err(core).startswith("failed to read config: open ")


def test_a_missing_passphrase_file_is_an_error(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home)
    core = nodes.start_core(old, chain, "--nodewallet-passphrase-file", str(home / "none"))
    assert core.wait(DEADLINE) == 255
    assert "no such file" in nodes.err(core)


def test_an_admin_socket_that_cannot_be_bound_is_fatal(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, socket_path=home / "missing" / "fury.sock")
    core = nodes.start_core(old, chain)
    assert core.wait(DEADLINE) == 1
