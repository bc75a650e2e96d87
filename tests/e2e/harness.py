"""A whole visor on a whole home, as processes: what every end-to-end test starts from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from visor_actors.actor import NodeSnapshot
from visor_actors.actors.control import ControlRefused, Fault
from visor_actors.actors.reports import BinaryReport, StatusReport
from visor_actors.api.client import ClientError, ControlClient
from visor_actors.home.errors import JournalUnavailable
from visor_actors.home.journal import HistoryEntry, Journal
from visor_actors.simulator import (
    ChainReport,
    ProcessRecord,
    SimulatedChain,
    build_binary,
    check_chain,
    init_chain,
    read_records,
)

T = TypeVar("T")
DEADLINE = 60.0
"""Seconds that anything may take on a busy machine before a test gives up."""


def wait_for(condition: Callable[[], object], what: str, *, timeout: float = DEADLINE) -> Any:
    """Return what ``condition`` returns once it is true; fail the test after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"still waiting after {timeout:g} s: {what}")


def alive(pid: int) -> bool:
    """Whether ``pid`` is a process that has not ended (a zombie has)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@dataclass(kw_only=True)
class Home:
    """A visor home with a simulated network behind it."""

    root: Path
    chain: SimulatedChain
    brand: str = "fury"
    data_node: bool = False
    extra_core_args: tuple[str, ...] = ()

    @property
    def node_home(self) -> Path:
        return self.chain.home

    def configure(self, **settings: object) -> None:
        """Write config.toml with what tests want: quick polls, no delays, and ``settings`` on top."""
        values: dict[str, object] = {
            "pollIntervalSeconds": 0.2,
            "restartsDelaySeconds": 0.1,
            "stopSignalTimeoutSeconds": 10,
            "maxNumberOfFirstConnectionRetries": 500,
            "maxNumberOfRestartConnectionRetries": 100,
            "autoInstall": {"enabled": False},
        }
        values.update(settings)
        self.write_config(toml(values))

    def write_config(self, text: str) -> None:
        (self.root / "config.toml").write_text(text)

    def add_release(self, folder: str, version: str, **options: Any) -> Path:
        """Provide an upgrade folder with a binary of ``version``."""
        path = self.root / folder
        path.mkdir(exist_ok=True)
        build_binary(path / self.brand, version=version, brand=self.brand, **options)
        (path / "run-config.toml").write_text(self.run_config(folder))
        return path

    def run_config(self, name: str) -> str:
        core = (*self.chain.core_args, *self.extra_core_args)
        tables: dict[str, object] = {
            "name": name,
            self.brand: {
                "binary": {"path": self.brand, "args": list(core)},
                "rpc": {"socketPath": str(self.chain.socket_path), "httpPath": "/rpc"},
            },
        }
        if self.data_node:
            tables["data_node"] = {"binary": {"path": self.brand, "args": list(self.chain.data_node_args)}}
        return toml(tables)

    def current(self) -> str | None:
        try:
            return os.readlink(self.root / "current")
        except OSError:
            return None

    def starts(self, role: str = "core") -> list[ProcessRecord]:
        return [record for record in read_records(self.node_home) if record.role == role]

    def report(self) -> ChainReport:
        return check_chain(self.node_home)

    def history(self, name: str | None = None) -> tuple[HistoryEntry, ...]:
        return self._journal(lambda journal: journal.events(name=name)) or ()

    def upgrade_states(self) -> dict[str, str]:
        return self._journal(lambda journal: {row.tag: row.state for row in journal.upgrades()}) or {}

    def _journal(self, read: Callable[[Journal], T]) -> T | None:
        """Read the journal; None while visor has not made it yet."""
        try:
            with Journal.open_reader(self.root / ".visor" / "journal.db") as journal:
                return read(journal)
        except JournalUnavailable:
            return None


def make_home(
    root: Path,
    *,
    upgrades: Sequence[tuple[str, int]] = (),
    data_node: bool = False,
    brand: str = "fury",
    provide: bool = True,
    **chain: Any,
) -> Home:
    """Make a home whose genesis is v1.0.0, with a folder for each of ``upgrades`` if ``provide``."""
    root.mkdir(parents=True, exist_ok=True)
    node_home = root.parent / f"{root.name}-node"
    simulated = init_chain(node_home, upgrades=upgrades, data_node=data_node, brand=brand, **chain)
    home = Home(root=root, chain=simulated, brand=brand, data_node=data_node)
    home.configure()
    home.add_release("genesis", "v1.0.0")
    if provide:
        for tag, _ in upgrades:
            home.add_release(tag, tag)
    return home


def toml(values: Mapping[str, object]) -> str:
    """A TOML document of ``values``; enough for tests."""
    lines: list[str] = []
    _table(values, (), lines)
    return "\n".join(lines) + "\n"


def _table(values: Mapping[str, object], path: tuple[str, ...], lines: list[str]) -> None:
    if path:
        lines.append("[" + ".".join(json.dumps(part) for part in path) + "]")
    tables = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            tables.append((key, value))
        else:
            lines.append(f"{json.dumps(key)} = {json.dumps(value)}")
    for key, value in tables:
        _table(value, (*path, key), lines)


def _states(node: NodeSnapshot) -> Iterator[tuple[str, tuple[str, int]]]:
    yield node.id, (node.state, node.generation)
    for child in node.children:
        yield from _states(child)


@dataclass(kw_only=True)
class Visor:
    """One ``visor-actors run``. Use as a context manager: nothing of it is left afterwards."""

    home: Home
    environment: Mapping[str, str] = field(default_factory=dict)
    output: int | None = None
    process: subprocess.Popen[bytes] = field(init=False)
    log: Path = field(init=False)

    def __enter__(self) -> Visor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> None:
        """Start a visor; its output goes to a file beside the home, or to the descriptor ``output``."""
        number = len(list(self.home.root.parent.glob("visor-*.log")))
        self.log = self.home.root.parent / f"visor-{number}.log"
        environment = {**os.environ, "VISOR_TESTING": "1", **self.environment}
        with self.log.open("wb") as log:
            written_to = log.fileno() if self.output is None else self.output
            self.process = subprocess.Popen(
                [sys.executable, "-m", "visor_actors", "run", "--home", str(self.home.root)],
                stdin=subprocess.DEVNULL,
                stdout=written_to,
                stderr=written_to,
                env=environment,
                start_new_session=True,
            )

    def end(self) -> None:
        """Stop visor and its node, gently if possible; whatever is left is killed by its pid."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in self.leftovers():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        wait_for(lambda: not self.leftovers(), "the end of what a test left behind")

    def leftovers(self) -> list[int]:
        """Processes whose command line names this home or its node's, visor itself excluded."""
        marks = (os.fsencode(self.home.root), os.fsencode(self.home.node_home))
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) in (os.getpid(), self.process.pid):
                continue
            try:
                command = Path(f"/proc/{entry}/cmdline").read_bytes()
                folder = os.fsencode(os.readlink(f"/proc/{entry}/cwd"))
            except OSError:
                continue
            if (any(mark in command for mark in marks) or marks[0] in folder) and alive(int(entry)):
                found.append(int(entry))
        return found

    @property
    def client(self) -> ControlClient:
        return ControlClient(self.home.root / ".visor" / "visor.sock")

    def status(self) -> StatusReport | None:
        """The running visor's status, None while it does not answer."""
        try:
            return self.client.status()
        except ClientError:
            return None

    def binary(self, slot: str = "core") -> BinaryReport | None:
        """The status of one binary."""
        status = self.status()
        if status is None:
            return None
        return next((one for one in status.binaries if one.slot == slot), None)

    def running_pid(self, slot: str = "core") -> int | None:
        binary = self.binary(slot)
        return binary.pid if binary is not None and binary.phase == "running" else None

    def inject(self, actor: str, fault: str) -> None:
        """Make an actor fail on its own thread: ``crash``, ``exit`` or ``hang``."""
        self.client.inject(actor, Fault(fault))

    def generations(self) -> dict[str, tuple[str, int]]:
        """State and generation of every actor and supervisor; empty while visor does not answer."""
        try:
            return dict(_states(self.client.tree()))
        except (ClientError, ControlRefused):
            return {}

    def serves_beyond(self, actor: str, before: Mapping[str, tuple[str, int]]) -> bool:
        """Whether ``actor`` and all others run, ``actor`` in a later generation than ``before``."""
        now = self.generations()
        running = bool(now) and all(state == "running" for state, _ in now.values())
        return running and now[actor][1] > before[actor][1]

    def kill_actor(self, actor: str, fault: str) -> None:
        """Make an actor fail and wait until it, and all others, serve again."""
        before = wait_for(self.generations, "visor to answer")
        self.inject(actor, fault)
        wait_for(lambda: self.serves_beyond(actor, before), f"{actor} to serve again\n{self.tail()}")

    def wait_running(self, *slots: str) -> list[int]:
        """Wait until the binaries run; return their pids."""
        try:
            return [
                wait_for(partial(self.running_pid, slot), f"{slot} to run") for slot in slots or ("core",)
            ]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None

    def wait_upgraded(self, tag: str) -> None:
        """Wait until the upgrade to ``tag`` is confirmed."""
        try:
            wait_for(lambda: self.home.upgrade_states().get(tag) == "confirmed", f"{tag} to be confirmed")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None

    def tail(self, lines: int = 60) -> str:
        """The end of visor's output, for messages."""
        written = self.log.read_text(errors="replace").splitlines()
        own = [line for line in written if not line.startswith("20")]  # the node's lines begin with the year
        return "\n".join([*own[-lines:], *written[-5:]])
