"""What end-to-end tests see of processes from outside, and how they run the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness import Home, Visor, alive


def stat_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def start_ticks(pid: int) -> int:
    """When ``pid`` started, in clock ticks since boot: with the pid it names one process for all time."""
    return int(stat_of(pid)[19])


def thread_count(pid: int) -> int:
    """How many threads ``pid`` has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def descriptors(pid: int) -> list[str]:
    """What each descriptor of ``pid`` refers to, by its kind; sorted."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        found.append(target.partition(":")[0] if target.startswith(("socket:", "pipe:")) else target)
    return sorted(found)


def zombies(parent: int) -> list[int]:
    """Children of ``parent`` that have ended and were not waited for."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = stat_of(int(name))
            if fields and fields[0] == "Z" and int(fields[1]) == parent:
                found.append(int(name))
    return found


def shim_pid(home: Home, slot: str = "core") -> int:
    """The living shim of a slot, as its lock file names it."""
    pid = int((home.root / ".visor" / "shims" / slot / "shim.lock").read_text().split()[0])
    assert alive(pid), f"the shim of {slot} (pid {pid}) does not live"
    return pid


def kill_visor(visor: Visor) -> None:
    """SIGKILL to main, and wait for its end."""
    visor.process.kill()
    visor.process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """Holds a process stopped by SIGSTOP while entered."""

    pid: int

    def __enter__(self) -> Frozen:
        os.kill(self.pid, signal.SIGSTOP)
        return self

    def __exit__(self, *_: object) -> None:
        if alive(self.pid):
            os.kill(self.pid, signal.SIGCONT)


def command(home: Home, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run ``visor-actors`` on ``home`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "visor_actors", *words, "--home", str(home.root)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
