"""Custody on real processes: the node survives whatever happens to visor and its shims, is never run twice,
and no exit is lost or counted twice.

That nothing runs twice is not asserted here: ``conftest.py`` watches it during every test.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.harness import Home, Visor, alive, make_home, toml, wait_for
from tests.e2e.processes import Frozen, command, kill_visor, shim_pid, start_ticks
from visor_actors.actors.reports import StatusReport
from visor_actors.home.lock import EXIT_LOCKED
from visor_actors.simulator import CoreFaults, read_records, write_faults


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home"


def events(home: Home, name: str, role: str = "core") -> int:
    return len(read_records(home.node_home, event=name, role=role))


def exits(home: Home) -> list[tuple[object, object, object]]:
    """What the history holds of the core's exits: pid, code, signal."""
    return [
        (entry.fields["pid"], entry.fields["code"], entry.fields["signal"])
        for entry in home.history("binary.exited")
        if entry.fields["slot"] == "core"
    ]


def wait_custody(visor: Visor, how: str, slot: str = "core") -> int:
    """Wait until the binary runs in this kind of custody; return its pid."""
    wait_for(
        lambda: (b := visor.binary(slot)) is not None and b.phase == "running" and b.custody == how,
        f"{slot} to be {how}\n{visor.tail()}",
    )
    return visor.wait_running(slot)[0]


def wait_status(visor: Visor, what: str, condition: object) -> StatusReport:
    assert callable(condition)
    found = wait_for(lambda: (s := visor.status()) is not None and condition(s) and s, what)
    assert isinstance(found, StatusReport)
    return found


def wait_restarted(visor: Visor, before: int) -> int:
    """Wait until another core runs than ``before``."""
    return int(
        wait_for(
            lambda: (pid := visor.running_pid()) not in (None, before) and pid,
            f"another core than {before}\n{visor.tail()}",
        )
    )


# visor is killed


def test_the_next_visor_attaches_to_the_same_node_and_learns_its_exit_code(root: Path) -> None:
    home = make_home(root, data_node=True)
    with Visor(home=home) as visor:
        pids = visor.wait_running("core", "data_node")
        since = [start_ticks(pid) for pid in pids]
        kill_visor(visor)
        height = home.report().blocks
        wait_for(lambda: home.report().blocks > height + 3, "blocks without a visor")
        visor.start()
        wait_custody(visor, "attached", "core")
        wait_custody(visor, "attached", "data_node")
        assert visor.wait_running("core", "data_node") == pids
        assert [start_ticks(pid) for pid in pids] == since
        write_faults(home.node_home, core=CoreFaults(crash_after_ms=1, crash_at_height=1, crash_exit_code=7))
        wait_restarted(visor, pids[0])
        assert (pids[0], 7, None) in wait_for(lambda: exits(home), "the exit in the history")


def test_a_visor_killed_while_the_node_starts_finds_it_again(root: Path) -> None:
    home = make_home(root, startup_ms=1500)
    with Visor(home=home) as visor:
        wait_for(lambda: events(home, "start"), "the start of the core")
        (start,) = read_records(home.node_home, event="start")
        kill_visor(visor)
        visor.start()
        assert visor.wait_running() == [start.pid]
        wait_status(visor, "an answer of the core", lambda s: s.rpc is not None and s.rpc.connected)
    assert events(home, "start") == 1


def test_a_visor_killed_while_the_node_stops_lets_it_end_and_starts_it_again(root: Path) -> None:
    home = make_home(root, core_stop_ms=1500)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running()
        wait_for(lambda: home.report().blocks > 3, "a node at work")
        visor.process.send_signal(signal.SIGTERM)
        wait_for(lambda: events(home, "sigterm"), "the node to be asked to stop")
        kill_visor(visor)
        visor.start()
        wait_restarted(visor, pid)
        status = wait_status(visor, "a status", lambda s: True)
        assert status.node.restarts == 0, "a stop that was asked for is no failure"
    assert read_records(home.node_home, event="stop")[0].details["code"] == 0


def test_a_visor_killed_during_the_restart_delay_does_not_forget_that_the_node_failed(root: Path) -> None:
    home = make_home(root)
    home.configure(restartsDelaySeconds=1.5)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running()
        os.kill(pid, signal.SIGKILL)
        wait_status(visor, "the restart delay", lambda s: s.node.phase == "waiting")
        kill_visor(visor)
        visor.start()
        wait_restarted(visor, pid)
        assert wait_status(visor, "a status", lambda s: True).node.restarts == 1
        assert exits(home) == [(pid, None, 9)], "one exit, told once"


@pytest.mark.parametrize("moment", ["ready", "stopping", "starting"])
def test_a_visor_killed_during_a_switch_finishes_it(root: Path, moment: str) -> None:
    home = make_home(root, upgrades=[("v2.0.0", 30)], block_ms=25, data_node=True, data_node_stop_ms=700)
    seen = {
        "ready": lambda: events(home, "ready"),
        "stopping": lambda: events(home, "sigterm", "data_node"),
        "starting": lambda: events(home, "start") == 2,
    }[moment]
    with Visor(home=home) as visor:
        wait_for(seen, moment)
        kill_visor(visor)
        visor.start()
        visor.wait_upgraded("v2.0.0")
        wait_for(lambda: home.report().blocks > 35, "blocks of v2.0.0")
    report = home.report()
    assert [(one.version, one.first) for one in report.versions] == [("v1.0.0", 1), ("v2.0.0", 31)]


def test_an_exit_while_no_visor_runs_is_counted_exactly_once(root: Path) -> None:
    home = make_home(root)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running()
        kill_visor(visor)
        write_faults(home.node_home, core=CoreFaults(crash_at_height=1, crash_exit_code=7))
        wait_for(lambda: not alive(pid), "the core to crash")
        for _ in range(2):
            visor.start()
            wait_restarted(visor, pid)
            assert wait_status(visor, "a status", lambda s: True).node.restarts == 1
            assert wait_for(lambda: exits(home), "the exit in the history") == [(pid, 7, None)]
            kill_visor(visor)
        visor.start()
        visor.wait_running()


# a shim is killed


def test_the_node_of_a_killed_shim_is_adopted_and_its_end_is_noticed(root: Path) -> None:
    home = make_home(root, data_node=True)
    with Visor(home=home) as visor:
        core, data_node = visor.wait_running("core", "data_node")
        since = start_ticks(core)
        os.kill(shim_pid(home), signal.SIGKILL)
        assert wait_custody(visor, "adopted") == core
        assert start_ticks(core) == since
        assert visor.binary("data_node").pid == data_node  # type: ignore[union-attr]  # it was there
        os.kill(core, signal.SIGKILL)
        wait_restarted(visor, core)
        assert (core, None, None) in wait_for(lambda: exits(home), "the exit"), "nobody could see how"
        assert wait_status(visor, "a status", lambda s: True).node.restarts == 1


def test_with_visor_and_shims_killed_the_node_is_adopted_by_the_next_visor(root: Path) -> None:
    home = make_home(root, data_node=True)
    with Visor(home=home) as visor:
        pids = visor.wait_running("core", "data_node")
        shims = [shim_pid(home, "core"), shim_pid(home, "data_node")]
        kill_visor(visor)
        for shim in shims:
            os.kill(shim, signal.SIGKILL)
        height = home.report().blocks
        wait_for(lambda: home.report().blocks > height + 3, "blocks with nobody around")
        visor.start()
        assert [wait_custody(visor, "adopted", slot) for slot in ("core", "data_node")] == pids
        visor.process.send_signal(signal.SIGTERM)
        assert visor.process.wait(60) == 0
        assert visor.leftovers() == [], "what was adopted is stopped like anything else"
    assert [one.details["code"] for one in read_records(home.node_home, event="stop", role="core")] == [0]


def test_a_shim_killed_again_and_again_never_costs_the_node(root: Path) -> None:
    home = make_home(root)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running()
        for _ in range(5):
            shim = shim_pid(home)
            os.kill(shim, signal.SIGKILL)
            wait_status(
                visor,
                "a successor of the shim",
                lambda s, shim=shim: s.binaries[0].shim_pid not in (None, shim) and s.binaries[0].pid == pid,
            )
        assert alive(pid)


def test_a_shim_that_dies_with_the_order_to_start_does_not_keep_the_node_down(root: Path) -> None:
    home = make_home(root)
    home.configure(restartsDelaySeconds=1)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running()
        os.kill(pid, signal.SIGKILL)
        wait_status(visor, "the restart delay", lambda s: s.node.phase == "waiting")
        with Frozen(pid=shim_pid(home)) as frozen:
            wait_status(visor, "the order to start", lambda s: s.binaries[0].phase == "starting")
            os.kill(frozen.pid, signal.SIGKILL)
        wait_restarted(visor, pid)
        assert exits(home) == [(pid, None, 9)]


# two visors, and none


def test_a_second_visor_on_the_home_says_who_holds_it_and_leaves(root: Path) -> None:
    home = make_home(root)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running()
        second = command(home, "run")
        assert second.returncode == EXIT_LOCKED
        assert str(visor.process.pid) in second.stderr
        assert visor.running_pid() == pid


def test_visors_started_at_the_same_moment_run_one_node(root: Path) -> None:
    home = make_home(root)
    visors = [Visor(home=home) for _ in range(4)]
    for visor in visors:
        visor.start()
    try:
        wait_for(lambda: sum(v.process.poll() is None for v in visors) == 1, "all visors but one to leave")
        (winner,) = [visor for visor in visors if visor.process.poll() is None]
        winner.wait_running()
        wait_for(lambda: events(home, "start"), "the core to write down its start")
        codes = [visor.process.returncode for visor in visors if visor is not winner]
        assert codes == [EXIT_LOCKED] * 3
    finally:
        for visor in visors:
            visor.end()
    assert events(home, "start") == 1


@pytest.mark.parametrize("way", ["onExit", "stop --detach"])
def test_visor_itself_is_replaced_while_the_node_goes_on(root: Path, way: str) -> None:
    home = make_home(root, data_node=True)
    home.configure(onExit="detach" if way == "onExit" else "stop")
    with Visor(home=home) as visor:
        pids = visor.wait_running("core", "data_node")
        for _ in range(2):
            if way == "onExit":
                visor.process.send_signal(signal.SIGTERM)
            else:
                assert command(home, "stop", "--detach").returncode == 0
            assert visor.process.wait(60) == 0
            assert all(alive(pid) for pid in pids)
            visor.start()
            assert visor.wait_running("core", "data_node") == pids
        assert command(home, "stop").returncode == 0
        assert visor.process.wait(60) == 0
        assert visor.leftovers() == []


# visor or a shim is stopped, not ended


def test_a_stopped_visor_holds_its_home_and_notices_afterwards_what_happened(root: Path) -> None:
    home = make_home(root)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running()
        with Frozen(pid=visor.process.pid):
            assert command(home, "run").returncode == EXIT_LOCKED
            write_faults(home.node_home, core=CoreFaults(crash_at_height=1, crash_exit_code=7))
            wait_for(lambda: not alive(pid), "the core to crash")
        wait_restarted(visor, pid)
        assert wait_for(lambda: exits(home), "the exit in the history") == [(pid, 7, None)]


def test_a_stopped_shim_tells_an_exit_once_it_goes_on(root: Path) -> None:
    home = make_home(root)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running()
        with Frozen(pid=shim_pid(home)):
            os.kill(pid, signal.SIGKILL)
            wait_status(visor, "the core's silence", lambda s: s.rpc is not None and not s.rpc.connected)
        wait_restarted(visor, pid)
        assert wait_for(lambda: exits(home), "the exit in the history") == [(pid, None, 9)]


def test_a_visor_that_finds_its_shim_stopped_says_so_and_goes_on_with_it(root: Path) -> None:
    home = make_home(root)
    with Visor(home=home) as visor:
        (pid,) = visor.wait_running()
        kill_visor(visor)
        with Frozen(pid=shim_pid(home)) as frozen:
            visor.start()
            status = wait_status(visor, "an alarm", lambda s: s.alarms)
            assert f"kill -CONT {frozen.pid}" in (status.alarms[0].next_step or "")
            assert alive(pid)
        assert wait_custody(visor, "attached") == pid


# stops at any moment


def test_a_stop_during_the_restart_delay_takes_effect_at_once(root: Path) -> None:
    home = make_home(root)
    home.configure(restartsDelaySeconds=3600)
    with Visor(home=home) as visor:
        wait_for(lambda: events(home, "serving"), "a node at work")
        (pid,) = visor.wait_running()
        os.kill(pid, signal.SIGKILL)
        wait_status(visor, "the restart delay", lambda s: s.node.phase == "waiting")
        visor.process.send_signal(signal.SIGTERM)
        assert visor.process.wait(60) == 0
    assert events(home, "start") == 1


def test_a_stop_right_after_the_spawn_leaves_nothing(root: Path) -> None:
    home = make_home(root, data_node=True)
    slots = root / ".visor" / "shims"
    with Visor(home=home) as visor:
        wait_for(
            lambda: any(b'"running":{' in file.read_bytes() for file in slots.glob("core/state.?")),
            "the core's start to be on record",
        )
        visor.process.send_signal(signal.SIGTERM)
        assert visor.process.wait(60) == 0
        assert visor.leftovers() == []


def test_core_and_data_node_stop_side_by_side_each_with_its_whole_time(root: Path) -> None:
    home = make_home(root, data_node=True, core_stop_ms=900, data_node_stop_ms=900)
    home.configure(stopSignalTimeoutSeconds=30)
    with Visor(home=home) as visor:
        visor.wait_running("core", "data_node")
        wait_for(lambda: home.report().blocks > 3, "a node at work")
        visor.process.send_signal(signal.SIGTERM)
        assert visor.process.wait(60) == 0
    asked = [read_records(home.node_home, event="sigterm", role=one)[0] for one in ("core", "data_node")]
    ended = [read_records(home.node_home, event="stop", role=one)[0] for one in ("core", "data_node")]
    assert max(one.mono_ns for one in asked) < min(one.mono_ns for one in ended), "both were asked at once"
    assert [one.details["code"] for one in ended] == [0, 0]


def test_helpers_that_the_node_leaves_behind_end_with_it(root: Path) -> None:
    home = make_home(root)
    write_faults(home.node_home, core=CoreFaults(helper_seconds=600, helper_session="own"))
    with Visor(home=home) as visor:
        visor.wait_running()
        (record,) = wait_for(lambda: read_records(home.node_home, event="helper"), "the helper")
        helper = int(record.details["helper"])
        assert alive(helper)
        visor.process.send_signal(signal.SIGTERM)
        assert visor.process.wait(60) == 0
        assert not alive(helper)


# crash loops


def test_a_crash_loop_keeps_its_delay_and_its_budget(root: Path) -> None:
    home = make_home(root)
    home.configure(maxNumberOfRestarts=2, restartsDelaySeconds=0.4)
    write_faults(home.node_home, core=CoreFaults(crash_after_ms=1, crash_times=0))
    with Visor(home=home) as visor:
        assert visor.process.wait(60) == 1
    starts = [record.mono_ns for record in read_records(home.node_home, event="start")]
    crashes = [record.mono_ns for record in read_records(home.node_home, event="crash")]
    assert len(starts) == 3, "the first start and two restarts"
    pauses = [start - crash for crash, start in zip(crashes, starts[1:], strict=False)]
    assert all(pause >= 0.4e9 for pause in pauses), "each restart waits for its delay"


def test_restarts_are_forgotten_after_the_healthy_time(root: Path) -> None:
    home = make_home(root)
    home.configure(maxNumberOfRestarts=1, restartsResetAfterSeconds=0.5, restartsDelaySeconds=0)
    with Visor(home=home) as visor:
        for _ in range(3):
            (pid,) = visor.wait_running()
            wait_status(visor, "the count to be zero", lambda s: s.node.restarts == 0)
            os.kill(pid, signal.SIGKILL)
            wait_restarted(visor, pid)


# what the run configuration says of a binary

SCRIPT = """\
#!/bin/sh
trap 'echo told > told; exit 0' USR1
{ echo "variable $WANTED"; echo "folder $(pwd)"; echo "files $(ulimit -n)"; echo "args $*"
  echo "private ${NOTIFY_SOCKET-none}"; } > said.new
mv said.new said
while :; do sleep 0.05; done
"""


def run_script(home: Home, text: str, **binary: object) -> Path:
    """Make the home run a shell script instead of a node."""
    path = home.root / "genesis" / "script"
    path.write_text(text)
    path.chmod(0o755)
    run_config = {
        "name": "genesis",
        "fury": {
            "binary": {"path": "script", "args": ["start"], **binary},
            "rpc": {"socketPath": str(home.chain.socket_path), "httpPath": "/rpc"},
        },
    }
    (home.root / "genesis" / "run-config.toml").write_text(toml(run_config))
    return path


def test_a_binary_gets_its_environment_folder_limits_and_stop_signal(root: Path, tmp_path: Path) -> None:
    home = make_home(root)
    folder = tmp_path / "work"
    folder.mkdir()
    run_script(
        home,
        SCRIPT,
        env={"WANTED": "a value; with $signs"},
        workingDirectory=str(folder),
        limits={"nofile": 77},
        stopSignal="SIGUSR1",
    )
    with Visor(home=home, environment={"NOTIFY_SOCKET": "/nowhere", "SENTRY_DSN": ""}) as visor:
        visor.wait_running()
        said = folder / "said"
        wait_for(said.exists, "the script's report")
        assert said.read_text().splitlines() == [
            "variable a value; with $signs",
            f"folder {folder}",
            "files 77",
            "args start",
            "private none",
        ]
        visor.process.send_signal(signal.SIGTERM)
        assert visor.process.wait(60) == 0
    assert (folder / "told").read_text() == "told\n", "it was asked by the signal it wants"


def broken(home: Home, how: str) -> str:
    """Break the binary of ``home``; return what visor should say."""
    path = home.root / "genesis" / home.brand
    match how:
        case "missing":
            path.unlink()
            return "does not exist"
        case "not executable":
            path.chmod(0o644)
            return "not executable"
        case "another architecture":
            header = bytearray(Path("/bin/sleep").read_bytes())
            header[18:20] = (0x16).to_bytes(2, "little")  # EM_S390
            path.write_bytes(header)
            return "is built for"
        case "no interpreter":
            path.write_text("#!/no/such/interpreter\n")
            return "interpreter"
        case _:
            raise ValueError(how)


@pytest.mark.parametrize("how", ["missing", "not executable", "another architecture", "no interpreter"])
def test_a_binary_that_cannot_be_started_is_explained_in_words(root: Path, how: str) -> None:
    home = make_home(root)
    home.configure(maxNumberOfRestarts=1, restartsDelaySeconds=0.05)
    words = broken(home, how)
    with Visor(home=home) as visor:
        assert visor.process.wait(60) == 1
        last = visor.log.read_text().splitlines()[-2]
    assert words in last, last
    assert str(root / "genesis" / home.brand) in last, "it is said which file"
    assert "Errno" not in last


# output

LINES = 20_000


def flood_lines(text: str) -> list[int]:
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("flood ")]


def flood(home: Home) -> None:
    write_faults(home.node_home, core=CoreFaults(flood_lines=LINES, flood_line_bytes=100))


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_inherited_output_survives_a_killed_visor_without_a_line_lost(
    root: Path, tmp_path: Path, kind: str
) -> None:
    home = make_home(root)
    flood(home)
    log = tmp_path / "output"
    visor = Visor(home=home)
    with log.open("wb") as file:
        if kind == "file":
            reader = None
            visor.output = file.fileno()
            visor.start()
        else:
            reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
            assert reader.stdin is not None
            with reader.stdin as pipe:
                visor.output = pipe.fileno()
                visor.start()
    try:
        wait_for(lambda: "flood" in log.read_text(errors="replace"), "the flood to begin")
        kill_visor(visor)
        visor.output = None
        wait_for(lambda: len(flood_lines(log.read_text(errors="replace"))) == LINES, "every line")
        assert flood_lines(log.read_text(errors="replace")) == list(range(1, LINES + 1))
        visor.start()
        visor.wait_running()
    finally:
        visor.end()
        if reader is not None:
            reader.wait()
    assert events(home, "start") == 1, "the node did not notice"


def test_output_in_files_loses_no_line_when_visor_and_shim_are_killed(root: Path) -> None:
    home = make_home(root)
    home.configure(logs={"mode": "files", "maxSizeMiB": 1, "keep": 10})
    flood(home)
    logs = root / ".visor" / "logs"

    def written() -> list[int]:
        rotated = (logs / f"core.log.{number}" for number in range(10, 0, -1))
        files = [path for path in (*rotated, logs / "core.log") if path.exists()]
        return [number for path in files for number in flood_lines(path.read_text(errors="replace"))]

    with Visor(home=home) as visor:
        wait_for(lambda: (logs / "core.log").exists(), "the log")
        shim = shim_pid(home)
        kill_visor(visor)
        visor.start()
        (pid,) = visor.wait_running()
        os.kill(shim, signal.SIGKILL)
        wait_custody(visor, "adopted")
        wait_for(lambda: len(written()) >= LINES, "every line")
        assert written() == list(range(1, LINES + 1))
        shown = command(home, "logs", "core", "-n", "3")
        assert shown.returncode == 0
        assert len(shown.stdout.splitlines()) == 3
        write_faults(home.node_home, core=CoreFaults(crash_at_height=1, crash_exit_code=7))
        wait_restarted(visor, pid)
        (entry,) = wait_for(lambda: home.history("binary.exited"), "the exit")
        assert any("simulated crash" in line for line in entry.lines), "the last lines go with the event"


def test_a_visor_reaches_a_shim_whose_socket_was_deleted(root: Path) -> None:
    home = make_home(root)
    with Visor(home=home) as visor:
        pids = visor.wait_running("core")
        (root / ".visor" / "shims" / "core" / "shim.sock").unlink()
        kill_visor(visor)
        visor.start()
        wait_custody(visor, "attached")
        assert visor.wait_running("core") == pids


def test_a_node_that_cannot_have_a_lock_in_its_own_home_runs_and_the_history_says_so_once(root: Path) -> None:
    home = make_home(root)
    (home.node_home / ".visor-core.lock").mkdir(parents=True)
    with Visor(home=home) as visor:
        for _ in range(2):
            (pid,) = visor.wait_running("core")
            os.kill(pid, signal.SIGKILL)
            wait_restarted(visor, pid)
    (entry,) = home.history("binary.unguarded")
    assert ".visor-core.lock" in entry.message
