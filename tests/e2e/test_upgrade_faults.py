"""Upgrades in a hostile world: what the network says, what the operator provides, how the core dies."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from tests.e2e.conftest import Judgement
from tests.e2e.harness import Home, Visor, alive, make_home, wait_for
from tests.e2e.upgrading import (
    SWITCH,
    alarms,
    assert_each_once,
    free_port,
    started,
    state_of,
    steps,
    wait_alarm,
    wait_event,
    wait_heard,
    wait_other_core,
    wait_state,
)
from visor_actors.actors.control import ControlRefused
from visor_actors.simulator import (
    CoreFaults,
    DataNodeFaults,
    ProblemKind,
    Upgrade,
    build_binary,
    set_upgrades,
    write_faults,
)
from visor_actors.simulator.faults import RpcFault

FLAG = "--snapshot.load-from-block-height"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home"


def ahead(home: Home, blocks: int) -> int:
    """A height ``blocks`` from now."""
    return home.report().blocks + blocks


def vote(home: Home, tag: str, height: int, *done: tuple[str, int]) -> None:
    """The network votes for ``tag`` at ``height``, at once; ``done`` are the upgrades of before."""
    past = [Upgrade(tag=name, height=at, accepted_at=1) for name, at in done]
    set_upgrades(home.node_home, [*past, Upgrade(tag=tag, height=height, accepted_at=1)])


# what the network says


def test_only_a_credible_ready_starts_a_switch(root: Path) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 20)], block_ms=25)
    with Visor(home=home) as visor:
        visor.wait_upgraded("v2.0.0")
        pid = visor.wait_running("core")
        for faults, words in (
            (CoreFaults(status="ready_without_info"), "names no release"),
            (CoreFaults(status="ready_empty_tag"), "names no release"),
            (CoreFaults(status="ready", status_tag="v1.9.0", status_height=10**6), "older than v2.0.0"),
            (CoreFaults(status="ready", status_tag="v2.0.0", status_height=20), "runs already"),
            (CoreFaults(status="ready", status_tag="v4.0.0", status_height=7), "at height 20 is done"),
        ):
            write_faults(home.node_home, core=faults)
            wait_alarm(visor, words)
        assert visor.wait_running("core") == pid
        assert len(alarms(home)) == 4, "a state that lasts is said once"
        write_faults(home.node_home)
    assert_each_once(home, ("v2.0.0", 20))


def test_withdrawn_changed_and_repeated_announcements_are_told_apart(root: Path) -> None:
    home = make_home(root, block_ms=25)
    for tag in ("v2.0.0", "v3.0.0", "v4.0.0"):
        home.add_release(tag, tag)
    with Visor(home=home) as visor:
        visor.wait_running("core")
        vote(home, "v2.0.0", 9000)
        wait_state(visor, "v2.0.0", "prepared")
        set_upgrades(home.node_home, [])
        wait_state(visor, "v2.0.0", "withdrawn")
        vote(home, "v2.0.0", 9000)
        wait_state(visor, "v2.0.0", "prepared")
        vote(home, "v3.0.0", 9000)
        wait_state(visor, "v3.0.0", "prepared")
        assert state_of(home, "v2.0.0") == "superseded"
        height = ahead(home, 40)
        vote(home, "v4.0.0", height)
        visor.wait_upgraded("v4.0.0")
    assert home.upgrade_states() == {"v2.0.0": "superseded", "v3.0.0": "superseded", "v4.0.0": "confirmed"}
    assert home.report().problems == ()


def test_an_old_core_that_takes_long_to_die_starts_no_second_switch(root: Path) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 20)], block_ms=25, ready_stop_ms=1500)
    with Visor(home=home) as visor:
        visor.wait_upgraded("v2.0.0")
        status = visor.status()
        assert status is not None
        assert status.node.restarts == 0, "a ready core that ends by its own SIGKILL has not failed"
    assert_each_once(home, ("v2.0.0", 20))
    assert [entry for entry in home.history("binary.exited") if entry.fields["signal"] == 9]


def test_a_height_that_passes_without_readiness_is_an_alarm(root: Path) -> None:
    home = make_home(root, block_ms=25, rest_port=free_port())
    home.add_release("v2.0.0", "v2.0.0")
    with Visor(home=home) as visor:
        pid = visor.wait_running("core")
        height = ahead(home, 20)
        lie = CoreFaults(status="not_ready", status_tag="v2.0.0", status_height=height)
        write_faults(home.node_home, core=lie)
        wait_alarm(visor, f"height {height} of the upgrade to v2.0.0 has passed")
        assert visor.wait_running("core") == pid
    assert home.current() == "genesis"


# visor comes and goes


def test_a_pending_upgrade_survives_stops_kills_and_crashed_actors(root: Path) -> None:
    home = make_home(root, block_ms=25)
    home.add_release("v2.0.0", "v2.0.0")
    with Visor(home=home) as visor:
        visor.wait_running("core")
        vote(home, "v2.0.0", 9000)
        wait_state(visor, "v2.0.0", "prepared")
        visor.process.send_signal(signal.SIGTERM)
        assert visor.process.wait(30) == 0
        visor.start()  # the core ended in order, so its height is not done and it may be started again
        (pid,) = visor.wait_running("core")
        visor.process.kill()
        visor.process.wait()
        assert alive(pid)
        visor.start()
        assert visor.wait_running("core") == [pid], "a node that runs needs no witness"
        for actor in ("lifecycle", "process:core", "upgrade-coordinator", "rpc-listener"):
            visor.kill_actor(actor, "crash")
            assert visor.wait_running("core") == [pid], f"{actor} took the node along"
        assert steps(home)["v2.0.0", 9000] == ("announced", "preparing", "prepared"), "announced once"
        height = ahead(home, 40)
        vote(home, "v2.0.0", height)
        visor.wait_upgraded("v2.0.0")
    assert alarms(home) == []
    assert steps(home)["v2.0.0", height][-6:] == SWITCH
    assert home.report().problems == ()


def test_a_core_that_dies_while_no_visor_runs_is_judged_by_the_next_one(root: Path) -> None:
    home = make_home(root, block_ms=25, data_node=True, tendermint_home=root.parent / "tm")
    home.add_release("v2.0.0", "v2.0.0")
    with Visor(home=home) as visor:
        core, data_node = visor.wait_running("core", "data_node")
        vote(home, "v2.0.0", 9000)
        wait_state(visor, "v2.0.0", "prepared")
        # Far from the height: the validator was signing until its end.
        visor.process.kill()
        visor.process.wait()
        os.kill(core, signal.SIGKILL)
        visor.start()
        wait_other_core(visor, core)
        assert not alive(data_node), "a part of a node is no node"
        wait_event(visor, "upgrade.witnesses", beyond=0)
        assert "the validator was signing" in home.history("upgrade.witnesses")[0].message
        # At the height, before anybody saw it ready.
        write_faults(home.node_home, core=CoreFaults(die_at_upgrade="before_ready"))
        height = ahead(home, 60)
        vote(home, "v2.0.0", height)
        wait_for(lambda: ("v2.0.0", height) in steps(home), "the vote to be seen")
        visor.process.kill()
        visor.process.wait()
        (core,) = [record.pid for record in home.starts() if record.event == "start"][-1:]
        wait_for(lambda: not alive(core), "the core's end")
        visor.start()
        visor.wait_upgraded("v2.0.0")
    assert [(one.version, one.last) for one in home.report().versions[:-1]] == [("v1.0.0", height)]
    assert len(started(home)) == 3


# the folder


def test_a_missing_folder_is_an_alarm_and_is_taken_as_soon_as_it_is_complete(root: Path) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 30)], block_ms=25, provide=False)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running("core")
        alarm = wait_alarm(visor, f"the folder {home.root / 'v2.0.0'} is missing")
        assert alarm.next_step is not None
        assert "run-config.toml" in alarm.next_step
        wait_state(visor, "v2.0.0", "ready")
        assert visor.wait_running("core") == [pid], "the old node stays up while its successor is awaited"
        # Provided late, file by file, and half a file at first.
        folder = home.root / "v2.0.0"
        folder.mkdir()
        (folder / "run-config.toml").write_text(home.run_config("v2.0.0")[:40])
        wait_alarm(visor, "run-config.toml")
        (folder / "run-config.toml").write_text(home.run_config("v2.0.0"))
        wait_alarm(visor, f"there is no {folder / 'fury'}")
        binary = build_binary(root.parent / "built" / "fury", version="v2.0.0").read_bytes()
        (folder / "fury").write_bytes(binary[: len(binary) // 2])
        wait_alarm(visor, "is not executable")
        assert visor.wait_running("core") == [pid]
        (folder / "fury").write_bytes(binary)
        (folder / "fury").chmod(0o755)
        visor.wait_upgraded("v2.0.0")
    assert_each_once(home, ("v2.0.0", 30))


def foreign_executable(path: Path) -> None:
    """An ELF file for a machine that this one is not."""
    machine = 243 if os.uname().machine != "riscv64" else 62
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + machine.to_bytes(2, "little")
    path.write_bytes(head + (1).to_bytes(4, "little") + bytes(40))
    path.chmod(0o755)


def test_a_binary_that_cannot_be_the_release_is_never_switched_to(root: Path) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 30)], block_ms=25, provide=False)
    home.add_release("v2.0.0", "v2.0.1")
    binary = home.root / "v2.0.0" / "fury"
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running("core")
        wait_alarm(visor, "is version v2.0.1, wanted is exactly v2.0.0")
        binary.chmod(0o644)
        wait_alarm(visor, "is not executable")
        foreign_executable(binary)
        wait_alarm(visor, "this machine needs an ELF executable")
        wait_state(visor, "v2.0.0", "ready")
        assert visor.wait_running("core") == [pid]
        build_binary(binary, version="v2.0.0")
        visor.wait_upgraded("v2.0.0")
    assert_each_once(home, ("v2.0.0", 30))


def test_a_prepared_folder_that_changes_is_checked_again_and_the_mapping_may_change_too(root: Path) -> None:
    home = make_home(root, block_ms=25)
    home.add_release("v2.0.0", "v2.0.0")
    with Visor(home=home) as visor:
        visor.wait_running("core")
        vote(home, "v2.0.0", 9000)
        wait_state(visor, "v2.0.0", "prepared")
        build_binary(home.root / "v2.0.0" / "fury", version="v2.0.1")
        wait_alarm(visor, "is version v2.0.1")
        wait_state(visor, "v2.0.0", "preparing")
        home.add_release("elsewhere", "v2.0.0")
        home.configure(upgradeFolders={"v2.0.0": "elsewhere"})
        wait_state(visor, "v2.0.0", "prepared")
        vote(home, "v2.0.0", ahead(home, 30))
        visor.wait_upgraded("v2.0.0")
    assert home.current() == "elsewhere"
    assert home.report().problems == ()


def test_a_new_core_that_crashes_is_restarted_and_the_old_one_never(root: Path) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 30)], block_ms=25)
    home.configure(maxNumberOfRestarts=1, restartsDelaySeconds=0.05)
    write_faults(home.node_home, core=CoreFaults(crash_at_height=31, crash_exit_code=3, crash_times=3))
    with Visor(home=home) as visor:
        # Answers come before its first block, so it may be confirmed or not when it dies: both must do.
        wait_for(lambda: visor.process.poll() is not None, f"visor to give up\n{visor.tail()}")
        assert visor.process.returncode == 1
        visor.start()
        visor.wait_upgraded("v2.0.0")
        wait_for(lambda: home.report().blocks > 35, "blocks of v2.0.0")
    assert_each_once(home, ("v2.0.0", 30))


# the link


@dataclass(frozen=True)
class Link:
    """The link ``current`` and the ways to break it."""

    home: Home

    @property
    def path(self) -> Path:
        return self.home.root / "current"

    def remove(self) -> None:
        if self.path.is_dir() and not self.path.is_symlink():
            self.path.rmdir()
        else:
            self.path.unlink()

    def point_to(self, target: str) -> None:
        self.remove()
        self.path.symlink_to(target)

    def become_a_folder(self) -> None:
        self.remove()
        self.path.mkdir()


def test_a_broken_link_is_mended_from_the_journal_or_refused_with_words(root: Path) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 20)], block_ms=25)
    link = Link(home)
    mended: tuple[Callable[[], None], ...] = (link.remove, lambda: link.point_to("nowhere"))
    refused: tuple[tuple[Callable[[], None], str], ...] = (
        (lambda: link.point_to("genesis"), "`current` leads to genesis, but the node was upgraded to v2.0.0"),
        (lambda: link.point_to(str(root.parent)), "`current` leads out of the home"),
        (link.become_a_folder, "is not a link but a file or folder of its own"),
    )
    with Visor(home=home) as visor:
        visor.wait_upgraded("v2.0.0")
        for breaking in mended:
            (before,) = visor.wait_running("core")
            breaking()
            visor.client.restart(None)
            wait_other_core(visor, before)
            assert home.current() == "v2.0.0"
        for breaking, words in refused:
            (before,) = visor.wait_running("core")
            breaking()
            visor.client.restart(None)
            wait_alarm(visor, words)
            assert not alive(before), "only after a stop is anybody asked"
            link.point_to("v2.0.0")
            wait_other_core(visor, before)
    assert_each_once(home, ("v2.0.0", 20))


# the disk


def test_a_ready_that_cannot_be_journalled_leaves_the_node_up(root: Path) -> None:
    home = make_home(root, block_ms=25)
    home.add_release("v2.0.0", "v2.0.0")
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running("core")
        height = ahead(home, 40)
        vote(home, "v2.0.0", height)
        wait_state(visor, "v2.0.0", "prepared")
        everything = resource.RLIM_INFINITY
        resource.prlimit(visor.process.pid, resource.RLIMIT_FSIZE, (0, everything))
        wait_for(lambda: (s := visor.status()) and s.rpc and s.rpc.ready, "the core to be ready")
        wait_for(
            lambda: any("cannot be used" in alarm.message for alarm in visor.client.status().alarms),
            f"an alarm\n{visor.tail()}",
        )
        assert visor.running_pid() == pid
        assert state_of(home, "v2.0.0") == "prepared"
        resource.prlimit(visor.process.pid, resource.RLIMIT_FSIZE, (everything, everything))
        visor.wait_upgraded("v2.0.0")
    assert_each_once(home, ("v2.0.0", height))


def test_a_lost_or_damaged_journal_is_an_alarm_and_upgrades_go_on(root: Path) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 20)], block_ms=25)
    journal = home.root / ".visor" / "journal.db"
    with Visor(home=home) as visor:
        visor.wait_upgraded("v2.0.0")
        visor.process.send_signal(signal.SIGTERM)
        assert visor.process.wait(30) == 0
        for wal in journal.parent.glob("journal.db-*"):
            wal.unlink()
        journal.write_bytes(b"no database" * 1000)
        visor.start()
        wait_alarm(visor, "the journal was damaged", "journal.*")
        (pid,) = visor.wait_running("core")
        assert home.current() == "v2.0.0", "what runs is taken from the link"

        # Gone while visor runs: it is written anew from memory.
        home.add_release("v3.0.0", "v3.0.0")
        vote(home, "v3.0.0", 9000, ("v2.0.0", 20))
        wait_state(visor, "v3.0.0", "prepared")
        for file in journal.parent.glob("journal.db*"):
            file.unlink()
        wait_state(visor, "v3.0.0", "prepared")
        assert visor.wait_running("core") == [pid]
        height = ahead(home, 30)
        vote(home, "v3.0.0", height, ("v2.0.0", 20))
        visor.wait_upgraded("v3.0.0")

        visor.process.send_signal(signal.SIGTERM)
        assert visor.process.wait(30) == 0
        for file in journal.parent.glob("journal.db*"):
            file.unlink()
        visor.start()
        wait_alarm(visor, "the journal is gone", "journal.*")
        visor.wait_running("core")
        assert home.current() == "v3.0.0"
    assert home.report().problems == ()


# how the core dies before anybody saw it ready


def test_the_validators_signature_tells_that_the_height_is_done(root: Path) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 30)], block_ms=25, tendermint_home=root.parent / "tm")
    write_faults(home.node_home, core=CoreFaults(die_at_upgrade="before_ready"))
    with Visor(home=home) as visor:
        visor.wait_upgraded("v2.0.0")
    assert_each_once(home, ("v2.0.0", 30))
    assert "the validator has signed block 31" in home.history("upgrade.witnesses")[0].message


def test_the_cores_log_tells_that_the_height_is_done(root: Path) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 30)], block_ms=25, validator=False)
    home.configure(logs={"mode": "files"})
    write_faults(home.node_home, core=CoreFaults(die_at_upgrade="after_snapshot"))
    with Visor(home=home) as visor:
        visor.wait_upgraded("v2.0.0")
    assert_each_once(home, ("v2.0.0", 30))
    assert "snapshot of height 30 was taken" in home.history("upgrade.witnesses")[0].message


def test_the_rest_server_told_that_the_height_is_done(root: Path) -> None:
    home = make_home(
        root,
        upgrades=[("v2.0.0", 30)],
        block_ms=25,
        validator=False,
        rest_port=free_port(),
        finalize_ms=3000,
    )
    write_faults(home.node_home, core=CoreFaults(die_at_upgrade="before_ready"))
    with Visor(home=home) as visor:
        visor.wait_upgraded("v2.0.0")
    assert_each_once(home, ("v2.0.0", 30))
    assert "the core was at height 30" in home.history("upgrade.witnesses")[0].message


@pytest.mark.parametrize("way", ["not done, says the operator", "done, says the operator"])
def test_without_a_witness_the_node_is_held_until_the_operator_decides(root: Path, way: str) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 30)], block_ms=25, validator=False)
    moment = "before_snapshot" if way.startswith("not") else "after_snapshot"
    write_faults(home.node_home, core=CoreFaults(die_at_upgrade=moment))  # type: ignore[arg-type]  # one of two
    with Visor(home=home) as visor:
        alarm = wait_alarm(visor, "no witness can tell whether height 30 is done")
        assert alarm.next_step is not None
        assert "resume" in alarm.next_step
        status = visor.status()
        assert status is not None
        assert status.node.phase == "held"
        assert len(started(home)) == 1, "nothing is started meanwhile"
        if way.startswith("not"):
            visor.client.resume(None)
        else:
            (home.root / "link").symlink_to("v2.0.0")
            (home.root / "link").rename(home.root / "current")
        visor.wait_upgraded("v2.0.0")
    assert_each_once(home, ("v2.0.0", 30))


def test_a_data_node_that_dies_at_the_height_does_not_bring_the_old_core_back(
    root: Path, judgement: Judgement
) -> None:
    # A core that waits for its data node hangs when it is asked to stop; there is no other way to end it.
    judgement.expect(ProblemKind.HUNG_AT_UPGRADE)
    home = make_home(
        root, upgrades=[("v2.0.0", 30)], block_ms=25, data_node=True, tendermint_home=root.parent / "tm"
    )
    home.configure(stopSignalTimeoutSeconds=1)
    write_faults(home.node_home, data_node=DataNodeFaults(at_upgrade="die"))
    with Visor(home=home) as visor:
        wait_state(visor, "v2.0.0", *SWITCH)
        write_faults(home.node_home)
        visor.wait_upgraded("v2.0.0")
        wait_for(lambda: home.report().blocks > 35, f"blocks of v2.0.0\n{visor.tail()}")
    assert [(one.version, one.first) for one in home.report().versions] == [("v1.0.0", 1), ("v2.0.0", 31)]


# hooks and holds


def hook(path: Path, body: str) -> list[str]:
    path.write_text(f"import os, sys, time\n{body}\n")
    return [sys.executable, "-S", str(path)]


def test_hooks_and_holds_stand_before_the_stop_and_resume_lets_it_go_on(root: Path) -> None:
    home = make_home(root, block_ms=25)
    for tag in ("v2.0.0", "v3.0.0", "v4.0.0"):
        home.add_release(tag, tag)
    out = root.parent / "out"
    write = f"""
def note(*words):
    with open({str(out)!r}, "a") as file:
        print(*words, file=file)
tag, height = os.environ["VISOR_UPGRADE_TAG"], os.environ["VISOR_UPGRADE_HEIGHT"]
"""
    before = hook(
        root.parent / "before.py", f"{write}note('before', tag, height)\nprint('no room')\nsys.exit(3)"
    )
    after = hook(root.parent / "after.py", f"{write}note('after', tag)")
    hanging = hook(root.parent / "hang.py", "time.sleep(600)")
    done: list[tuple[str, int]] = []

    def next_upgrade(visor: Visor, tag: str) -> None:
        done.append((tag, ahead(home, 40)))
        vote(home, *done[-1], *done[:-1])
        wait_state(visor, tag, "prepared")

    home.configure(hooks={"preUpgrade": before, "postUpgrade": after})
    with Visor(home=home) as visor:
        visor.wait_running("core")
        next_upgrade(visor, "v2.0.0")
        wait_alarm(visor, "ended with exit code 3", "hook.*")
        assert home.history("hook.failed")[0].lines == ("no room",)
        (pid,) = visor.wait_running("core")
        assert state_of(home, "v2.0.0") == "ready", "a failing hook holds the switch"
        visor.kill_actor("upgrade-coordinator", "crash")
        assert visor.wait_running("core") == [pid]
        visor.client.resume("v2.0.0")
        visor.wait_upgraded("v2.0.0")
        wait_for(lambda: out.read_text().count("after v2.0.0"), "the hook after")
        assert out.read_text().splitlines().count(f"before v2.0.0 {done[0][1]}") == 1

        with pytest.raises(ControlRefused, match="nothing is held"):
            visor.client.resume(None)
        with pytest.raises(ControlRefused, match=r"no upgrade to v9\.9\.9"):
            visor.client.hold("v9.9.9")
        home.configure(hooks={"preUpgrade": hanging, "preUpgradeTimeoutSeconds": 0.5})
        next_upgrade(visor, "v3.0.0")
        wait_alarm(visor, "did not end within", "hook.*")
        visor.client.resume(None)
        visor.wait_upgraded("v3.0.0")

        home.configure(stopDelaySeconds=0.2)
        next_upgrade(visor, "v4.0.0")
        visor.client.hold(None)
        wait_alarm(visor, "the upgrade to v4.0.0 is held")
        (pid,) = visor.wait_running("core")
        with pytest.raises(ControlRefused, match=r"v2\.0\.0"):
            visor.client.resume("v2.0.0")
        # A core that flickers before the switch is allowed starts none by itself.
        write_faults(home.node_home, core=CoreFaults(status="flapping"))
        assert visor.wait_running("core") == [pid]
        write_faults(home.node_home)
        visor.client.resume("v4.0.0")
        visor.wait_upgraded("v4.0.0")
        wait_event(visor, "upgrade.delayed", beyond=0)
    assert_each_once(home, *done)


# the height's flag


def test_the_operators_own_snapshot_flag_is_respected_in_both_spellings(root: Path) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 20), ("v3.0.0", 60)], block_ms=25)
    for tag, own in (("v2.0.0", f'"{FLAG}", "20"'), ("v3.0.0", f'"{FLAG}=60"')):
        path = home.root / tag / "run-config.toml"
        path.write_text(
            path.read_text().replace('args" = [', f'args" = [{own}, ').replace("args = [", f"args = [{own}, ")
        )
        text = path.read_text().replace(f'{own}, "start"', f'"start", {own}')
        path.write_text(text)
    with Visor(home=home) as visor:
        visor.wait_upgraded("v3.0.0")
    first, second, third = started(home)
    assert not any(argument.startswith(FLAG) for argument in first)
    assert second[second.index(FLAG) + 1] == "20"
    assert [argument for argument in second if argument.startswith(FLAG)] == [FLAG]
    assert [argument for argument in third if argument.startswith(FLAG)] == [f"{FLAG}=60"]
    assert_each_once(home, ("v2.0.0", 20), ("v3.0.0", 60))


# the RPC


def test_a_core_that_never_answers_blocks_nothing_and_garbage_harms_nothing(root: Path) -> None:
    home = make_home(root, block_ms=25)
    home.add_release("v2.0.0", "v2.0.0")
    home.configure(maxNumberOfRestartConnectionRetries=10_000)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running("core")
        vote(home, "v2.0.0", 9000)
        wait_state(visor, "v2.0.0", "prepared")
        for number, fault in enumerate(get_args(RpcFault)):
            write_faults(home.node_home, core=CoreFaults(rpc=fault, rpc_slow_ms=50))
            wait_event(visor, "rpc.silent", beyond=number)
            assert visor.client.upgrades()[0].state == "prepared", "others are served meanwhile"
            write_faults(home.node_home)
            wait_heard(visor)
        assert visor.wait_running("core") == [pid]
        height = ahead(home, 30)
        vote(home, "v2.0.0", height)
        visor.wait_upgraded("v2.0.0")
    assert home.report().problems == ()


def test_a_node_that_stops_answering_is_restarted_within_the_budget(root: Path) -> None:
    home = make_home(root, block_ms=25)
    home.configure(maxNumberOfRestartConnectionRetries=5)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running("core")
        wait_heard(visor)
        write_faults(home.node_home, core=CoreFaults(rpc="hang"))
        wait_for(lambda: not alive(pid), f"the silent core to be stopped\n{visor.tail()}")
        write_faults(home.node_home)
        wait_other_core(visor, pid)
        wait_heard(visor)
        status = visor.status()
        assert status is not None
        assert status.node.restarts == 1
        wait_alarm(visor, "has not answered within its budget", "core.silent")
    assert home.report().problems == ()


def test_an_absolute_link_as_the_original_visor_makes_it_is_read_and_replaced(root: Path) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 20)], block_ms=25)
    (home.root / "current").symlink_to(home.root / "genesis")
    with Visor(home=home) as visor:
        visor.wait_upgraded("v2.0.0")
    assert home.current() == "v2.0.0", "and replaced by a relative one"
    assert_each_once(home, ("v2.0.0", 20))
