"""Commands that wait for what they asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from tests.api.fake_visor import FakeVisor
from tests.cli.running import Runner
from visor_actors.actors.control import StopMode
from visor_actors.actors.reports import InstallReport, UpgradeReport
from visor_actors.home.layout import HomeLayout


@pytest.fixture
def stand_in() -> Iterator[subprocess.Popen[bytes]]:
    """A process that plays visor's main: it ends when its input does."""
    process = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    yield process
    process.kill()
    process.communicate()


def test_stop_returns_when_visor_has_ended(
    run: Runner, layout: HomeLayout, served: FakeVisor, stand_in: subprocess.Popen[bytes]
) -> None:
    served.report = replace(served.report, pid=stand_in.pid)
    assert stand_in.stdin is not None
    served.on_command = stand_in.stdin.close
    ran = run("--home", layout.root, "stop")
    assert (ran.code, ran.out) == (0, "visor and the node have ended\n")
    assert served.commands == [("stop", StopMode.STOP)]
    assert stand_in.wait(20) is not None


def test_stop_with_detach_says_that_the_node_goes_on(
    run: Runner, layout: HomeLayout, served: FakeVisor, stand_in: subprocess.Popen[bytes]
) -> None:
    served.report = replace(served.report, pid=stand_in.pid)
    assert stand_in.stdin is not None
    served.on_command = stand_in.stdin.close
    ran = run("--home", layout.root, "stop", "--detach", "--output", "json")
    document = json.loads(ran.out)
    assert (document["mode"], document["ended"], document["pid"]) == ("detach", True, stand_in.pid)
    assert served.commands == [("stop", StopMode.DETACH)]


def test_stop_gives_up_waiting_at_its_timeout(
    run: Runner, layout: HomeLayout, served: FakeVisor, stand_in: subprocess.Popen[bytes]
) -> None:
    served.report = replace(served.report, pid=stand_in.pid)
    ran = run("--home", layout.root, "stop", "--timeout", "0.1")
    assert ran.code == 1
    assert "has not ended within 0.1 seconds" in ran.err


def test_restart_returns_when_the_new_binary_runs(run: Runner, layout: HomeLayout, served: FakeVisor) -> None:
    core = served.report.binaries[0]

    def restarted() -> None:
        served.report = replace(served.report, binaries=(replace(core, phase="starting", pid=None),))
        threading.Timer(
            0.05, lambda: _set_binaries(served, (replace(core, pid=4321, started_at=core.started_at),))
        ).start()

    served.on_command = restarted
    ran = run("--home", layout.root, "restart", "core")
    assert (ran.code, ran.out) == (0, "restarted: core is now pid 4321\n")
    assert served.commands == [("restart", "core")]


def _set_binaries(visor: FakeVisor, binaries: tuple[object, ...]) -> None:
    visor.report = replace(visor.report, binaries=binaries)


def test_restart_says_when_the_node_does_not_come_up(
    run: Runner, layout: HomeLayout, served: FakeVisor
) -> None:
    ran = run("--home", layout.root, "restart", "--timeout", "0.1")
    assert ran.code == 1
    assert "did not come up again within 0.1 seconds" in ran.err


def installing(visor: FakeVisor, install: InstallReport | None, upgrade: UpgradeReport) -> None:
    visor.report = replace(visor.report, install=install, upgrade=upgrade)
    visor.known = (upgrade,)


def test_prepare_follows_the_running_visor_until_the_release_is_ready(
    run: Runner, layout: HomeLayout, served: FakeVisor
) -> None:
    upgrade = UpgradeReport(tag="v1", height=10, state="preparing", folder="v1")
    install = InstallReport(tag="v1", phase="downloading", done=1, total=2)
    installing(served, install, upgrade)

    def done() -> None:
        (layout.root / "v1").mkdir()
        installing(served, None, replace(upgrade, state="prepared", prepared=True))

    timer = threading.Timer(0.1, done)
    served.on_command = timer.start
    ran = run("--home", layout.root, "prepare", "v1", "--output", "json")
    timer.join()
    assert json.loads(ran.out) == {"tag": "v1", "folder": "v1", "by": "visor", "verification": None}


def test_prepare_says_why_a_release_could_not_be_prepared(
    run: Runner, layout: HomeLayout, served: FakeVisor
) -> None:
    failed = InstallReport(tag="v1", phase="failed", problem="the digest is wrong")
    upgrade = UpgradeReport(tag="v1", height=10, state="preparing")
    served.report = replace(served.report, install=None)
    served.on_command = lambda: installing(served, failed, upgrade)
    ran = run("--home", layout.root, "prepare", "v1")
    assert ran.code == 1
    assert "v1 could not be prepared: the digest is wrong" in ran.err
    assert "next:" in ran.err


def test_prepare_does_not_take_an_earlier_failure_for_the_answer(
    run: Runner, layout: HomeLayout, served: FakeVisor
) -> None:
    failed = InstallReport(tag="v1", phase="failed", problem="no connection")
    upgrade = UpgradeReport(tag="v1", height=10, state="preparing", problem="no connection")
    installing(served, failed, upgrade)

    def done() -> None:
        (layout.root / "v1").mkdir()
        installing(served, None, replace(upgrade, state="prepared", prepared=True, problem=None))

    timer = threading.Timer(0.3, done)
    served.on_command = timer.start
    ran = run("--home", layout.root, "prepare", "v1")
    timer.join()
    assert ran.code == 0, ran.err


def test_prepare_of_what_cannot_be_prepared_ends(
    run: Runner, layout: HomeLayout, served: FakeVisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visor_actors.cli.preparing._SETTLE_SECONDS", 0.1)
    upgrade = UpgradeReport(tag="v1", height=10, state="preparing", problem="no asset", next_step="wait")
    installing(served, None, upgrade)
    ran = run("--home", layout.root, "prepare", "v1")
    assert ran.code == 1
    assert "no asset" in ran.err
    assert "next:  wait" in ran.err


def test_no_command_leaves_a_descriptor_behind(run: Runner, layout: HomeLayout, served: FakeVisor) -> None:
    run("--home", layout.root, "status")
    before = len(os.listdir("/proc/self/fd"))
    for arguments in (("status",), ("tree",), ("restart", "--no-wait"), ("stop", "--no-wait"), ("history",)):
        run("--home", layout.root, *arguments)
    assert len(os.listdir("/proc/self/fd")) == before
