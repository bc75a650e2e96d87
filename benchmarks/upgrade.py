"""How long an upgrade takes: from *ready* to SIGTERM, and from the old core's exit to the new core's exec.

A real ``visor-actors run`` takes a node written in C through a row of upgrades. The node stamps, on the
monotonic clock, when it became ready, when SIGTERM arrived, when it ended, and as its very first act when its
successor was executed. Every folder is prepared before *ready*, as on a real network, where acceptance comes
hours earlier.

Usage: ``python benchmarks/upgrade.py [--rounds 15] [--json FILE]``. Needs ``cc``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
VISOR = Path(sys.executable).with_name("visor-actors")
DEADLINE = 60.0
SETTLED = 0.5  # seconds after the last version probe, in which the preparation is journalled

CONFIG = """\
maxNumberOfRestarts = 0
pollIntervalSeconds = 0.5
stopSignalTimeoutSeconds = 15

[autoInstall]
enabled = false
"""

RUN_CONFIG = """\
name = "{name}"

[fury.binary]
path = "node"
args = ["start", "--home", "{node}", "--admin-socket", "{socket}"]

[fury.rpc]
socketPath = "{socket}"
httpPath = "/rpc"
"""

DATA_NODE = """
[data_node.binary]
path = "node"
args = ["datanode", "start", "--home", "{node}"]
"""


@dataclass(frozen=True, slots=True)
class Stamp:
    """One line of the stamps file; ``at`` in nanoseconds of the monotonic clock."""

    role: str
    version: str
    event: str
    at: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One upgrade, in milliseconds. ``down``: from the last end of an old binary to the new core's exec."""

    ready_to_term: float
    exit_to_exec: float
    down: float
    ready_to_answer: float


class Stamps:
    """Reads the stamps as the node writes them."""

    def __init__(self, path: Path, visor: subprocess.Popen[bytes]) -> None:
        self._path = path
        self._visor = visor

    def all(self) -> list[Stamp]:
        """Every stamp so far."""
        text = self._path.read_text() if self._path.exists() else ""
        stamps = []
        for line in text.splitlines():
            role, version, event, at, pid = line.split()
            stamps.append(Stamp(role, version, event, int(at), int(pid)))
        return stamps

    def wait(self, role: str, version: str, event: str) -> Stamp:
        """Wait until the event is stamped and return it."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            for stamp in self.all():
                if (stamp.role, stamp.version, stamp.event) == (role, version, event):
                    return stamp
            if self._visor.poll() is not None:
                raise SystemExit(f"visor ended with {self._visor.returncode} before {role} {version} {event}")
            time.sleep(0.01)
        raise SystemExit(f"{role} {version} was never stamped {event!r}")


def compile_node(folder: Path) -> Path:
    """Compile the C node into ``folder``."""
    binary = folder / "node"
    subprocess.run(
        ["cc", "-O2", "-Wall", "-Wno-format-truncation", "-o", str(binary), str(HERE / "stamping_node.c")],
        check=True,
    )
    return binary


def make_home(folder: Path, binary: Path, rounds: int, *, data_node: bool) -> Path:
    """Make a visor home with ``genesis`` and a prepared folder for each upgrade."""
    home, node = folder / "home", folder / "node"
    home.mkdir(mode=0o700)
    settings = node / "config" / "node" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text('[API.REST]\nIP = "127.0.0.1"\nPort = 1\n')  # a node without REST
    (home / "config.toml").write_text(CONFIG)
    for name in ("genesis", *(f"v1.0.{number}" for number in range(1, rounds + 1))):
        (home / name).mkdir()
        shutil.copy2(binary, home / name / "node")
        text = RUN_CONFIG + (DATA_NODE if data_node else "")
        (home / name / "run-config.toml").write_text(
            text.format(name=name, node=node, socket=folder / "core.sock")
        )
    return home


@contextmanager
def running(home: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run visor on ``home``; stop it, and the node with it, at the end."""
    with log.open("wb") as output:
        visor = subprocess.Popen([str(VISOR), "run", "--home", str(home)], stdout=output, stderr=output)
        try:
            yield visor
        except BaseException:
            print(log.read_text(errors="replace")[-4000:], file=sys.stderr)
            raise
        finally:
            visor.send_signal(signal.SIGTERM)
            try:
                visor.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                visor.kill()
                visor.wait()


def upgrade(stamps: Stamps, number: int, *, data_node: bool) -> Round:
    """Take the node from v1.0.(number - 1) to v1.0.number and measure it."""
    old, new = f"v1.0.{number - 1}", f"v1.0.{number}"
    core = stamps.wait("core", old, "asked")
    os.kill(core.pid, signal.SIGUSR1)
    for role in ("core", "data_node") if data_node else ("core",):
        stamps.wait(role, new, "version")
    time.sleep(SETTLED + random.uniform(0.0, 0.1))  # so that ready falls anywhere between two polls
    os.kill(core.pid, signal.SIGUSR2)
    answered = stamps.wait("core", new, "asked")
    at = {(stamp.role, stamp.version, stamp.event): stamp.at for stamp in stamps.all()}
    started = at["core", new, "exec"]
    ends = [at[role, old, "exit"] for role in ("core", "data_node") if (role, old, "exit") in at]
    return Round(
        ready_to_term=(at["core", old, "term"] - at["core", old, "ready"]) / 1e6,
        exit_to_exec=(started - at["core", old, "exit"]) / 1e6,
        down=(started - max(ends)) / 1e6,
        ready_to_answer=(answered.at - at["core", old, "ready"]) / 1e6,
    )


def measure(binary: Path, rounds: int, *, data_node: bool) -> list[Round]:
    """Run one visor through ``rounds`` upgrades."""
    with tempfile.TemporaryDirectory(prefix="visor-bench-", dir="/tmp") as name:
        folder = Path(name)
        home = make_home(folder, binary, rounds, data_node=data_node)
        with running(home, folder / "visor.log") as visor:
            stamps = Stamps(folder / "stamps", visor)
            return [upgrade(stamps, number, data_node=data_node) for number in range(1, rounds + 1)]


def show(title: str, values: list[float], budget: float | None) -> None:
    """Print one figure."""
    low, high = min(values), max(values)
    limit = "" if budget is None else f"   at most {budget:g}"
    print(f"  {title:<34} {statistics.median(values):8.2f} ms  ({low:.2f} to {high:.2f}){limit}")


def main() -> None:
    """Measure a core alone and a core with a data node."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if shutil.which("cc") is None:
        raise SystemExit("this benchmark needs a C compiler (cc)")
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="visor-bench-") as name:
        binary = compile_node(Path(name))
        for title, data_node in (("core alone", False), ("core and data node", True)):
            rounds = measure(binary, options.rounds, data_node=data_node)
            print(f"upgrade, {title}: median of {len(rounds)}, load {os.getloadavg()[0]:.1f}")
            show("ready visible -> SIGTERM", [each.ready_to_term for each in rounds], 100)
            show("old core's exit -> new core's exec", [each.exit_to_exec for each in rounds], 10)
            show("last old exit -> new core's exec", [each.down for each in rounds], None)
            show("ready visible -> new core asked", [each.ready_to_answer for each in rounds], None)
            figures[title] = {
                "ready_to_term_ms": statistics.median(each.ready_to_term for each in rounds),
                "exit_to_exec_ms": statistics.median(each.exit_to_exec for each in rounds),
                "down_ms": statistics.median(each.down for each in rounds),
                "ready_to_answer_ms": statistics.median(each.ready_to_answer for each in rounds),
            }
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
