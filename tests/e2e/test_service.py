"""What visor owes to whoever started it: word to a service manager, and an init's duties as pid 1."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.harness import Home, Visor, alive, make_home, wait_for
from tests.e2e.processes import command, kill_visor, zombies
from visor_actors.simulator import CoreFaults, read_records, write_faults


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home"


@dataclass(kw_only=True)
class ServiceManager:
    """Listens where ``NOTIFY_SOCKET`` points. ``told``: what was said, as (monotonic seconds, variables)."""

    address: str
    told: list[tuple[float, dict[str, str]]] = field(default_factory=list)

    def __enter__(self) -> ServiceManager:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(0.1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="service-manager", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                continue
            variables = dict(line.split("=", 1) for line in data.decode().splitlines())
            self.told.append((time.monotonic(), variables))

    def values(self, name: str) -> list[str]:
        """Everything that was said of one variable."""
        return [variables[name] for _, variables in self.told if name in variables]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    with ServiceManager(address=str(tmp_path / "notify")) as listening:
        yield listening


def managed(home: Home, manager: ServiceManager, **environment: str) -> Visor:
    return Visor(home=home, environment={"NOTIFY_SOCKET": manager.address, **environment})


def test_the_service_manager_hears_of_readiness_state_and_end(root: Path, manager: ServiceManager) -> None:
    home = make_home(root)
    home.configure(stopSignalTimeoutSeconds=10)
    with managed(home, manager) as visor:
        visor.wait_running()
        wait_for(lambda: manager.values("READY"), "READY")
        wait_for(lambda: any("node" in text for text in manager.values("STATUS")), "a status in words")
        assert not manager.values("STOPPING")
        visor.process.send_signal(signal.SIGTERM)
        assert visor.process.wait(60) == 0
    wait_for(lambda: manager.values("STOPPING"), "STOPPING")
    assert int(manager.values("EXTEND_TIMEOUT_USEC")[0]) >= 10_000_000, "a stop has its whole time"
    assert manager.values("READY") == ["1"], "said once"


def test_a_stop_asked_for_on_the_command_line_is_announced_as_well(
    root: Path, manager: ServiceManager
) -> None:
    home = make_home(root)
    with managed(home, manager) as visor:
        visor.wait_running()
        assert command(home, "stop").returncode == 0
        assert visor.process.wait(60) == 0
    wait_for(lambda: manager.values("STOPPING"), "STOPPING")
    assert manager.values("EXTEND_TIMEOUT_USEC")


def test_a_killed_visor_announces_nothing_so_that_it_is_started_again(
    root: Path, manager: ServiceManager
) -> None:
    home = make_home(root)
    with managed(home, manager) as visor:
        visor.wait_running()
        wait_for(lambda: manager.values("READY"), "READY")
        kill_visor(visor)
        assert not manager.values("STOPPING")
        visor.start()
        wait_for(lambda: len(manager.values("READY")) == 2, "READY of the next one")
        assert not manager.values("STOPPING")


def test_the_watchdog_is_fed_by_the_root_and_by_nobody_else(root: Path, manager: ServiceManager) -> None:
    home = make_home(root)
    with managed(home, manager, WATCHDOG_USEC="200000", VISOR_HANG_SECONDS="1.5") as visor:
        wait_for(lambda: len(manager.values("WATCHDOG")) > 5, "the watchdog to be fed")
        visor.inject("root", "hang")
        hung_at = time.monotonic()
        wait_for(
            lambda: [at for at, said in manager.told if "WATCHDOG" in said and at > hung_at + 1.5],
            "the watchdog to be fed again",
        )
    fed = [at for at, said in manager.told if "WATCHDOG" in said]
    longest = max(later - earlier for earlier, later in pairwise(fed))
    assert longest > 1.0, "while the root hung nobody said that all is well"


def test_a_service_manager_that_is_gone_harms_nobody(root: Path, tmp_path: Path) -> None:
    home = make_home(root)
    nowhere = {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "100000"}
    with Visor(home=home, environment=nowhere) as visor:
        visor.wait_running()
        visor.process.send_signal(signal.SIGTERM)
        assert visor.process.wait(60) == 0


# pid 1

UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child=KILL")


def namespaces() -> str | None:
    """Why no pid namespace can be made here, None if one can."""
    try:
        made = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return None if made.returncode == 0 else made.stderr.strip()


class FirstProcess(Visor):
    """A visor that is pid 1 of a pid namespace. ``process`` is the one that waits for it."""

    def start(self) -> None:
        """Start it."""
        self.log = self.home.root.parent / "visor-0.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*UNSHARE, sys.executable, "-m", "visor_actors", "run", "--home", str(self.home.root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "VISOR_TESTING": "1"},
            )

    @property
    def main(self) -> int:
        """Visor's pid, seen from outside."""
        waiting = self.process.pid
        return int(Path(f"/proc/{waiting}/task/{waiting}/children").read_text().split()[0])

    def outside(self, pid: int) -> int:
        """The pid outside of what is ``pid`` inside."""
        for name in os.listdir("/proc"):
            try:
                lines = Path(f"/proc/{name}/status").read_text().splitlines()
            except OSError:
                continue
            numbers = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
            if len(numbers) == 2 and int(numbers[1]) == pid and int(name) in self._inside():
                return int(name)
        raise LookupError(pid)

    def _inside(self) -> set[int]:
        mine = os.readlink(f"/proc/{self.main}/ns/pid")
        found = set()
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    if os.readlink(f"/proc/{name}/ns/pid") == mine:
                        found.add(int(name))
                except OSError:
                    continue
        return found


@pytest.fixture
def first(root: Path) -> Iterator[FirstProcess]:
    problem = namespaces()
    if problem is not None:
        pytest.skip(f"no pid namespace can be made here: {problem}")
    visor = FirstProcess(home=make_home(root))
    visor.start()
    try:
        yield visor
    finally:
        if visor.process.poll() is None:
            os.kill(visor.main, signal.SIGTERM)
            visor.process.wait(60)
        visor.end()


def test_as_pid_1_it_takes_sigterm_as_the_wish_to_stop_gracefully(first: FirstProcess) -> None:
    first.wait_running()
    wait_for(lambda: first.home.report().blocks > 3, "a node at work")
    os.kill(first.main, signal.SIGTERM)
    assert first.process.wait(60) == 0
    (stop,) = read_records(first.home.node_home, event="stop")
    assert stop.details["code"] == 0, "the node had its graceful stop"


def test_as_pid_1_it_collects_orphans_and_takes_the_exits_of_its_own(first: FirstProcess) -> None:
    (inner,) = first.wait_running()
    main, core = first.main, first.outside(inner)
    status = first.status()
    assert status is not None
    shim = status.binaries[0].shim_pid
    assert shim is not None
    os.kill(first.outside(shim), signal.SIGKILL)  # now the core is an orphan, and pid 1 its parent
    wait_for(lambda: (b := first.binary()) is not None and b.custody == "adopted", "the adoption")
    os.kill(core, signal.SIGKILL)
    wait_for(lambda: first.running_pid() not in (None, inner), "another core")
    wait_for(lambda: core not in zombies(main), "the orphan to be collected")
    assert not alive(core)
    write_faults(first.home.node_home, core=CoreFaults(crash_at_height=1, crash_exit_code=7))
    wait_for(
        lambda: [entry for entry in first.home.history("binary.exited") if entry.fields["code"] == 7],
        "the exit code of a core whose shim waits for it",
    )
