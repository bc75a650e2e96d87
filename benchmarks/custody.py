"""What custody costs: crash to new exec, log capture, memory, and visor as a whole at start, stop and rest.

The first part drives a shim directly, the second a real ``visor-actors run``. The binaries are a child
written in C that stamps, on the monotonic clock, when it was executed and when it ended. Figures are
medians.

Usage: ``python benchmarks/custody.py [--rounds 30] [--rest 60] [--json FILE]``. Needs ``cc``.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from upgrade import Stamps as NodeStamps
from upgrade import compile_node, make_home, running

from visor_actors.node.custody_types import Exited, LaunchOrder, OutputFiles, Started
from visor_actors.node.shim_client import ShimConnection

HERE = Path(__file__).resolve().parent
VISOR = Path(sys.executable).with_name("visor-actors")
DEADLINE = 60.0
FLOOD_BYTES = 400 * 1000 * 1000
T = TypeVar("T")


class Stamps:
    """The file a child writes its stamps to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def read(self) -> list[tuple[str, int, int]]:
        lines = (line.split() for line in self.path.read_text().splitlines())
        return [(event, int(at), int(pid)) for event, at, pid in lines]

    def wait_for(self, event: str, count: int) -> tuple[int, int]:
        """Wait for the ``count``-th stamp of ``event``; return its time in nanoseconds and its pid."""
        limit = time.monotonic() + DEADLINE
        while time.monotonic() < limit:
            found = [(at, pid) for name, at, pid in self.read() if name == event]
            if len(found) >= count:
                return found[count - 1]
            time.sleep(0.002)
        raise TimeoutError(f"no {count}. {event}")


def next_message(connection: ShimConnection, kind: type[T]) -> tuple[T, int]:
    """The next message of ``kind`` and the monotonic time at which it was known here."""
    while select.select([connection], [], [], DEADLINE)[0]:
        for message in connection.receive():
            if isinstance(message, kind):
                return message, time.monotonic_ns()
    raise TimeoutError(kind.__name__)


def milliseconds(values: list[int]) -> dict[str, float]:
    """Median, smallest and largest of ``values`` (nanoseconds)."""
    return {
        "median_ms": round(statistics.median(values) / 1e6, 2),
        "min_ms": round(min(values) / 1e6, 2),
        "max_ms": round(max(values) / 1e6, 2),
    }


def pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(pid)


def cpu_seconds(pid: int) -> float:
    """Processor time of all living threads of ``pid``; finer than the clock ticks of its stat."""
    total = 0
    for schedule in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        total += int(schedule.read_text().split()[0])
    return total / 1e9


def switches(pid: int) -> int:
    """Context switches of all threads of ``pid``."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if "ctxt_switches" in line:
                total += int(line.split()[1])
    return total


def order(child: Path, stamps: Stamps, *arguments: str, output: OutputFiles) -> LaunchOrder:
    return LaunchOrder(
        executable=str(child),
        argv=(child.name, str(stamps.path), *arguments),
        env={},
        working_directory="/",
        output=output,
    )


# the shim alone


def measure_shim(folder: Path, child: Path, rounds: int) -> dict[str, object]:
    begin = time.monotonic_ns()
    connection = ShimConnection.open(folder / "slot", epoch=1, linger=1.0)
    ready = time.monotonic_ns() - begin
    output = OutputFiles(directory=folder / "logs", name="core")
    stamps = Stamps(folder / "stamps")
    told: list[int] = []
    renewed: list[int] = []
    started: list[int] = []
    exit_at = 0
    try:
        crash = order(child, stamps, "crash", output=output)
        for number in range(1, rounds + 2):
            before = time.monotonic_ns()
            connection.start(crash)
            message, _ = next_message(connection, Started)
            exec_at, pid = stamps.wait_for("exec", number)
            assert pid == message.binary.pid
            if number > 1:
                started.append(exec_at - before)
                renewed.append(exec_at - exit_at)
            time.sleep(0.02)
            os.kill(pid, signal.SIGUSR1)
            ended, at = next_message(connection, Exited)
            exit_at, _ = stamps.wait_for("exit", number)
            if number <= rounds:
                told.append(at - exit_at)
            connection.acknowledge(ended.record.incarnation)
        # Straight on, as visor does with no delay: start as soon as the exit is known.
        direct: list[int] = []
        connection.start(crash)
        next_message(connection, Started)
        for number in range(rounds + 2, 2 * rounds + 2):
            _, pid = stamps.wait_for("exec", number)
            time.sleep(0.02)
            os.kill(pid, signal.SIGUSR1)
            ended, _ = next_message(connection, Exited)
            connection.acknowledge(ended.record.incarnation)
            connection.start(crash)
            next_message(connection, Started)
            exec_at, last = stamps.wait_for("exec", number + 1)
            exit_at, _ = stamps.wait_for("exit", number)
            direct.append(exec_at - exit_at)
        os.kill(last, signal.SIGTERM)
        next_message(connection, Exited)
        return {
            "shim start to first answer": {"ms": round(ready / 1e6, 1)},
            "crash to exit known": milliseconds(told),
            "order to exec": milliseconds(started),
            "crash to new exec, shim and client only": milliseconds(direct),
            "log capture": measure_capture(connection, folder, child, stamps, rounds=5),
        }
    finally:
        connection.leave()
        connection.close()


def measure_capture(
    connection: ShimConnection, folder: Path, child: Path, stamps: Stamps, *, rounds: int
) -> dict[str, float]:
    rates: list[float] = []
    costs: list[float] = []
    for number in range(rounds):
        logs = folder / f"flood{number}"
        output = OutputFiles(directory=logs, name="core", max_bytes=100 * 1024 * 1024, keep=9)
        before = cpu_seconds(connection.hello.shim_pid)
        connection.start(order(child, stamps, "flood", str(FLOOD_BYTES), output=output))
        message, _ = next_message(connection, Exited)
        cost = cpu_seconds(connection.hello.shim_pid) - before
        pid = message.record.pid
        marks = {event: at for event, at, owner in stamps.read() if owner == pid}
        captured = sum(file.stat().st_size for file in logs.iterdir())
        if captured != FLOOD_BYTES:
            raise AssertionError(f"{FLOOD_BYTES - captured} bytes are missing")
        rates.append(FLOOD_BYTES / 1e6 / ((marks["flooded"] - marks["exec"]) / 1e9))
        costs.append(cost / (FLOOD_BYTES / 1e8))
        connection.acknowledge(message.record.incarnation)
        shutil.rmtree(logs)
    return {
        "mb_per_second": round(statistics.median(rates)),
        "cpu_seconds_per_100_mb": round(statistics.median(costs), 3),
        "bytes_lost": 0,
    }


# visor as a whole


class Visor:
    """A home whose core is a stamping child, and a ``run`` in it."""

    def __init__(self, folder: Path, child: Path) -> None:
        self.home = folder / "home"
        genesis = self.home / "genesis"
        genesis.mkdir(parents=True)
        shutil.copy(child, genesis / "node")
        self.stamps = Stamps(folder / "core")
        (self.home / "config.toml").write_text(
            "maxNumberOfRestarts = 1000000\nrestartsDelaySeconds = 0\npollIntervalSeconds = 2\n"
            "[autoInstall]\nenabled = false\n"
        )
        text = (
            'name = "genesis"\n[fury.binary]\npath = "node"\n'
            f'args = ["{self.stamps.path}", "crash"]\n'
            f'[fury.rpc]\nsocketPath = "{folder}/node.sock"\nhttpPath = "/rpc"\n'
        )
        (genesis / "run-config.toml").write_text(text)
        self.started_at = 0
        self.log = (folder / "visor.log").open("wb")
        self.process: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Start ``visor-actors run``; return its pid."""
        self.started_at = time.monotonic_ns()
        self.process = subprocess.Popen(
            [str(VISOR), "run", "--home", str(self.home)],
            stdout=self.log,
            stderr=self.log,
            stdin=subprocess.DEVNULL,
        )
        return self.process.pid

    def processes(self) -> list[int]:
        """Visor, its shims and the binaries: all that are started from or for this home."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.fsencode(self.home) in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        pids = [pid for event, _, pid in self.stamps.read() if event == "exec"]
        return found + [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def shims(self) -> list[int]:
        locks = self.home.glob(".visor/shims/*/shim.lock")
        return [int(lock.read_text().split()[0]) for lock in locks if lock.read_text().strip()]

    def stop(self) -> int:
        """Stop with SIGTERM; return the nanoseconds until nothing is left."""
        assert self.process is not None
        begin = time.monotonic_ns()
        self.process.terminate()
        self.process.wait()  # with a timeout it would look every 50 ms only
        while self.processes() and time.monotonic_ns() - begin < DEADLINE * 1e9:
            time.sleep(0.001)
        return time.monotonic_ns() - begin

    def clean_up(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for pid in self.processes():
            if pid != os.getpid():
                os.kill(pid, signal.SIGKILL)
        self.log.close()


def measure_run(folder: Path, child: Path, rounds: int) -> dict[str, object]:
    """``run`` to the first exec and stop to nothing left, each in a home of its own."""
    first: list[int] = []
    gone: list[int] = []
    for number in range(rounds):
        place = folder / f"run{number}"
        place.mkdir()
        visor = Visor(place, child)
        try:
            visor.run()
            at, _ = visor.stamps.wait_for("exec", 1)
            first.append(at - visor.started_at)
            time.sleep(0.3)
            gone.append(visor.stop())
        finally:
            visor.clean_up()
    return {"run to first exec": milliseconds(first), "stop to nothing left": milliseconds(gone)}


def measure_restarts(folder: Path, child: Path, rounds: int) -> dict[str, object]:
    folder.mkdir()
    visor = Visor(folder, child)
    stamps = visor.stamps
    gaps: list[int] = []
    try:
        visor.run()
        for number in range(1, rounds + 2):
            exec_at, pid = stamps.wait_for("exec", number)
            if number > 1:
                exit_at, _ = stamps.wait_for("exit", number - 1)
                gaps.append(exec_at - exit_at)
            time.sleep(0.1)
            os.kill(pid, signal.SIGUSR1)
        return {"crash to new exec": milliseconds(gaps)}
    finally:
        visor.clean_up()


def measure_rest(folder: Path, seconds: float) -> dict[str, object]:
    """Visor beside a core that answers its RPC, and a data node, when nothing happens."""
    folder.mkdir()
    binary = compile_node(folder.parent)
    home = make_home(folder, binary, 0, data_node=True)
    config = home / "config.toml"
    config.write_text(config.read_text().replace("pollIntervalSeconds = 0.5", "pollIntervalSeconds = 2"))
    with running(home, folder / "visor.log") as visor:
        answers = NodeStamps(folder / "stamps", visor)
        answers.wait("core", "v1.0.0", "asked")
        answers.wait("data_node", "v1.0.0", "exec")
        time.sleep(5.0)
        locks = home.glob(".visor/shims/*/shim.lock")
        everybody = [visor.pid, *(int(lock.read_text().split()[0]) for lock in locks)]
        cpu, switched = sum(map(cpu_seconds, everybody)), sum(map(switches, everybody))
        time.sleep(seconds)
        minute = 60.0 / seconds
        return {
            "main and two shims at rest": {
                "pss_mib": round(sum(map(pss_mib, everybody)), 1),
                "shim_pss_mib": round(max(map(pss_mib, everybody[1:])), 1),
                "cpu_ms_per_minute": round((sum(map(cpu_seconds, everybody)) - cpu) * 1000 * minute, 1),
                "context_switches_per_minute": round((sum(map(switches, everybody)) - switched) * minute),
            }
        }


# others, where they are installed


def supervisord(program: str, folder: Path, command: str) -> list[str]:
    (folder / "supervisord.conf").write_text(
        f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={folder}/pid\n"
        f"[program:core]\ncommand={command}\nautorestart=true\nstartsecs=0\nstdout_logfile=/dev/null\n"
    )
    return [program, "-c", str(folder / "supervisord.conf")]


def circusd(program: str, folder: Path, command: str) -> list[str]:
    (folder / "circus.ini").write_text(
        f"[circus]\nendpoint = ipc://{folder}/endpoint\npubsub_endpoint = ipc://{folder}/pubsub\n"
        f"statsd = false\n[watcher:core]\ncmd = {command}\nmax_retry = -1\n"
    )
    return [program, str(folder / "circus.ini")]


def runsv(program: str, folder: Path, command: str) -> list[str]:
    script = folder / "run"
    script.write_text(f"#!/bin/sh\nexec {command}\n")
    script.chmod(0o755)
    return [program, str(folder)]


PEER_STARTS = 4
PEERS: dict[str, Callable[[str, Path, str], list[str]]] = {
    "runsv": runsv,
    "supervisord": supervisord,
    "circusd": circusd,
}


def measure_peers(folder: Path, child: Path, rounds: int) -> dict[str, object]:
    """The same start and restart under others, in the same run."""
    figures: dict[str, object] = {}
    for name, prepare in PEERS.items():
        program = shutil.which(name)
        if program is None:
            print(f"{name} is not installed here")
            continue
        place = folder / name
        place.mkdir()
        stamps = Stamps(place / "stamps")
        command = prepare(program, place, f"{child} {stamps.path} crash")
        first: list[int] = []
        gaps: list[int] = []
        for crashes in (rounds, *[0] * PEER_STARTS):
            stamps.path.write_bytes(b"")
            begin = time.monotonic_ns()
            peer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                exec_at, pid = stamps.wait_for("exec", 1)
                first.append(exec_at - begin)
                for number in range(1, crashes + 1):
                    time.sleep(1.2)  # runit waits before it restarts what has run for less than a second
                    os.kill(pid, signal.SIGUSR1)
                    exec_at, pid = stamps.wait_for("exec", number + 1)
                    exit_at, _ = stamps.wait_for("exit", number)
                    gaps.append(exec_at - exit_at)
            finally:
                peer.terminate()
                try:
                    peer.wait(10)
                except subprocess.TimeoutExpired:
                    peer.kill()
                    peer.wait()
                for event, _, pid in stamps.read():
                    if event == "exec" and Path(f"/proc/{pid}/exe").exists():
                        os.kill(pid, signal.SIGKILL)
        figures[f"crash to new exec, {name}"] = milliseconds(gaps)
        figures[f"run to first exec, {name}"] = milliseconds(first)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--rest", type=float, default=60.0, help="seconds at rest")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    compiler = shutil.which("cc")
    if compiler is None:
        print("custody: skipped, there is no cc to compile the child with")
        return 0
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="visor-custody-") as name:
        folder = Path(name)
        child = folder / "stamping_child"
        subprocess.run([compiler, "-O2", "-o", str(child), str(HERE / "stamping_child.c")], check=True)
        parts: list[Callable[[], dict[str, object]]] = [lambda: measure_shim(folder, child, arguments.rounds)]
        if VISOR.exists():
            parts += [
                lambda: measure_run(folder, child, max(3, arguments.rounds // 3)),
                lambda: measure_restarts(folder / "restarts", child, arguments.rounds),
                lambda: measure_rest(folder / "rest", arguments.rest),
            ]
        else:
            print("visor-actors is not installed here: only the shim is measured")
        parts.append(lambda: measure_peers(folder, child, max(3, arguments.rounds // 3)))
        for part in parts:
            measured = part()
            figures.update(measured)
            for title, values in measured.items():
                print(f"{title}: {values}", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
