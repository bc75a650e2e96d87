"""A slot with everything a test needs to drive it, and the certainty that nothing of it outlives the test."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from visor_actors.node import shim_process
from visor_actors.node.custody_types import (
    Exited,
    ExitRecord,
    LaunchOrder,
    Output,
    OutputFiles,
    RunningBinary,
    ShimMessage,
    Started,
)
from visor_actors.node.shim_client import ShimConnection

T = TypeVar("T")

DEADLINE = 20.0
PYTHON = os.path.realpath(sys.executable)


class SlotDriver:
    """Drives the shim of one slot folder as an actor would, with deadlines instead of a loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epoch = 1
        self.connections: list[ShimConnection] = []
        self.pids: set[int] = set()
        self._pending: list[ShimMessage] = []

    def open(self, *, linger: float = 30.0, epoch: int | None = None) -> ShimConnection:
        if epoch is None:
            self.epoch += 1
            epoch = self.epoch
        connection = ShimConnection.open(self.folder, epoch=epoch, timeout=DEADLINE, linger=linger)
        self.connections.append(connection)
        if connection.hello.shim_pid == shim_process.find_shim(self.folder):
            self.pids.add(connection.hello.shim_pid)  # a fake one may say anything
        if connection.hello.running is not None:
            self.pids.add(connection.hello.running.pid)
        return connection

    def script(self, text: str, **changes: Any) -> LaunchOrder:
        """An order that runs ``text`` in a bare Python: starts in 10 ms and can do everything."""
        return self.order(PYTHON, "-I", "-S", "-c", text, **changes)

    def order(
        self,
        executable: str | Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        output: Output | None = None,
        **changes: Any,
    ) -> LaunchOrder:
        fields: dict[str, Any] = {
            "executable": str(executable),
            "argv": (Path(executable).name, *arguments),
            "env": {"PATH": os.environ["PATH"]} if env is None else env,
            "working_directory": str(self.folder),
            "output": output if output is not None else self.files(),
        }
        return LaunchOrder(**(fields | changes))

    def files(self, **changes: Any) -> OutputFiles:
        return OutputFiles(directory=self.folder / "logs", name="core", **changes)

    def log(self) -> str:
        return (self.folder / "logs" / "core.log").read_text()

    def next(self, connection: ShimConnection, kind: type[T]) -> T:
        """The next message of ``kind``; messages of other kinds before it are passed over."""
        limit = time.monotonic() + DEADLINE
        while True:
            while self._pending:
                message = self._pending.pop(0)
                if isinstance(message, kind):
                    return message
            if not select.select([connection], [], [], max(0.0, limit - time.monotonic()))[0]:
                raise TimeoutError(f"no {kind.__name__} within {DEADLINE} s")
            self._pending.extend(connection.receive())

    def forget(self) -> None:
        self._pending.clear()

    def start(self, connection: ShimConnection, order: LaunchOrder) -> RunningBinary:
        request = connection.start(order)
        started = self.next(connection, Started)
        assert started.request == request
        self.pids.add(started.binary.pid)
        return started.binary

    def exit(self, connection: ShimConnection) -> ExitRecord:
        return self.next(connection, Exited).record

    def state(self) -> dict[str, Any]:
        """What the shim has saved last."""
        states: list[dict[str, Any]] = []
        for name in ("state.0", "state.1"):
            line = (self.folder / name).read_text().partition("\n")[0].strip("\0")
            if line:
                states.append(json.loads(line))
        return max(states, key=lambda state: int(state["serial"]))

    def edit_state(self, change: Callable[[dict[str, Any]], None]) -> None:
        state = self.state()
        change(state)
        self.write_state(state)

    def write_state(self, state: dict[str, Any]) -> None:
        state["serial"] = state["end"] = state.get("serial", 0) + 1
        ends = {"end": state.pop("end")}
        (self.folder / f"state.{state['serial'] % 2}").write_text(json.dumps(state | ends) + "\n")

    def kill_shim(self, connection: ShimConnection) -> None:
        os.kill(connection.hello.shim_pid, signal.SIGKILL)
        wait_until(lambda: not alive(connection.hello.shim_pid))

    def clean_up(self) -> None:
        self.end_all()
        wait_until(lambda: not shim_process.own_shims(), "the end of every shim")

    def end_all(self) -> None:
        for connection in self.connections:
            connection.close()
        shim = shim_process.find_shim(self.folder)
        if shim is not None:
            self.pids.add(shim)
        try:
            running = self.state()["running"]
            if running is not None:
                self.pids.add(running["pid"])
        except (OSError, ValueError):
            pass
        for pid in sorted(self.pids, reverse=True):
            end(pid)


def alive(pid: int) -> bool:
    """Whether ``pid`` is a process that has not ended (a zombie has)."""
    shim_process.reap_shims()
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def state_of(pid: int) -> str:
    """The state letter of a process, as in ``ps``."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def end(pid: int) -> None:
    """End a process that this test started, if it still is one."""
    if pid > 1 and alive(pid):
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid))


def wait_until(condition: Callable[[], bool], what: str = "what was waited for") -> None:
    limit = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > limit:
            raise TimeoutError(f"{what} did not happen within {DEADLINE} s")
        time.sleep(0.005)


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[SlotDriver]:
    driver = SlotDriver(tmp_path / "core")
    yield driver
    driver.clean_up()
