"""From an order to command lines: everything a start needs to know, in one place and before anything is
started.
"""

from __future__ import annotations

import select
import signal
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from visor_actors.actors.addresses import Slot
from visor_actors.actors.messages import RunOrder
from visor_actors.actors.world import World
from visor_actors.home.run_config import BinaryConfig, RunConfig
from visor_actors.home.settings import LogMode
from visor_actors.node.arguments import FlagWithoutValue, Role, command_line, home_of
from visor_actors.node.command import Cancellation
from visor_actors.node.custody_types import ExitRecord, InheritedOutput, LaunchOrder, Output, OutputFiles
from visor_actors.node.environment import node_environment
from visor_actors.node.errors import NodeError
from visor_actors.node.height import (
    HeightFacts,
    HeightPlan,
    History,
    NoDataNode,
    NotAsked,
    StartKind,
    plan_height,
    wants_history,
)
from visor_actors.node.history import latest_segment
from visor_actors.telemetry.events import Event, Severity

_OUTPUT = (1, 2)
"""What a binary inherits."""
HISTORY_SECONDS = 20.0
"""How long the data node may take to tell its history; without an answer the start goes on and says so."""


class Launch(Struct, frozen=True, kw_only=True):
    """What to start in which slot. ``plan`` says why the core gets the snapshot height it gets."""

    folder: Path
    orders: Mapping[Slot, LaunchOrder]
    plan: HeightPlan


class LaunchFailed(Struct, frozen=True, kw_only=True):
    """No command lines can be made."""

    problem: str
    next_step: str | None = None


class Launcher:
    """Makes launches. :meth:`plan` may block for ``HISTORY_SECONDS`` if the data node's history is needed."""

    def __init__(self, world: World) -> None:
        self._world = world

    def needs_history(self, run_config: RunConfig, kind: StartKind) -> bool:
        """Whether :meth:`plan` will run the data node's history query, and so must be run as a job."""
        return run_config.data_node is not None and wants_history(kind)

    def plan(
        self,
        run_config: RunConfig,
        order: RunOrder,
        kind: StartKind,
        *,
        refused_height: int | None = None,
        cancel: Cancellation | None = None,
    ) -> Launch | LaunchFailed:
        """Make the command lines for ``order``. Never raises for what an operator or a node can have done."""
        try:
            facts = HeightFacts(
                kind=kind,
                core_args=run_config.core.args,
                upgrade_height=order.upgrade_height,
                history=self._history(run_config, kind, cancel),
                refused_height=refused_height,
            )
            plan = plan_height(facts)
            core_args = plan.apply(run_config.core.args)
            orders = {Slot.CORE: self._order(run_config, Role.CORE, run_config.core, core_args)}
            if run_config.data_node is not None:
                data_node = run_config.data_node
                orders[Slot.DATA_NODE] = self._order(run_config, Role.DATA_NODE, data_node, data_node.args)
        except NodeError as error:
            return LaunchFailed(problem=str(error), next_step=error.next_step)
        return Launch(folder=order.folder, orders=orders, plan=plan)

    def core_home(self, run_config: RunConfig) -> Path | None:
        """The core's own home, as its arguments say; relative ones start where the core starts."""
        return self._home(run_config.core)

    def _home(self, binary: BinaryConfig) -> Path | None:
        try:
            home = home_of(binary.args)
        except FlagWithoutValue:
            return None
        return None if home is None else self._directory(binary) / home

    def _history(self, run_config: RunConfig, kind: StartKind, cancel: Cancellation | None) -> History:
        if run_config.data_node is None:
            return NoDataNode()
        if not self.needs_history(run_config, kind):
            return NotAsked()
        command = command_line(run_config, Role.DATA_NODE)
        if not command.executable.is_file():
            return NotAsked()  # the start itself will say what is missing
        return latest_segment(command, timeout=HISTORY_SECONDS, cancel=cancel)

    def _order(
        self, run_config: RunConfig, role: Role, binary: BinaryConfig, args: tuple[str, ...]
    ) -> LaunchOrder:
        command = command_line(run_config, role)
        leading = command.argv[: 1 + command.leading]
        return LaunchOrder(
            executable=str(command.executable),
            argv=(*leading, *args),
            env=node_environment(binary.env, user=binary.user),
            working_directory=str(self._directory(binary)),
            output=self._output(Slot(role.value)),
            limits=dict(binary.limits),
            user=binary.user,
            home_lock=self._home_lock(role, binary),
        )

    def _home_lock(self, role: Role, binary: BinaryConfig) -> str | None:
        """The file in the node's own home that the binary holds while it runs, whoever started it.

        Core and data node may share a home. Whether it can be made there, the shim finds out and says.
        """
        home = self._home(binary)
        return None if home is None else str(home / f".visor-{role.value}.lock")

    def _directory(self, binary: BinaryConfig) -> Path:
        return binary.working_directory if binary.working_directory is not None else Path.cwd()

    def _output(self, slot: Slot) -> Output:
        logs = self._world.settings.current.logs
        match logs.mode:
            case LogMode.INHERIT if not any(_reader_gone(fd) for fd in _OUTPUT):
                return InheritedOutput()
            case LogMode.INHERIT | LogMode.FILES:
                if logs.mode is LogMode.INHERIT:
                    self._world.bus.emit(
                        Event(
                            name="logs.reader-gone",
                            message=f"nobody reads visor's output any more, of which the {slot.words} would "
                            f"end: what it writes goes to {self._world.layout.logs}",
                            severity=Severity.WARNING,
                            next_step='use [logs] mode = "files", or an output that outlives the node',
                            fields={"slot": slot.value},
                        )
                    )
                return OutputFiles(
                    directory=self._world.layout.logs,
                    name=slot.value,
                    max_bytes=logs.max_size_mib * 1024 * 1024,
                    keep=logs.keep,
                )


def _reader_gone(fd: int) -> bool:
    """Whether ``fd`` is a pipe, socket or terminal whose other end is closed for good."""
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))  # asked for nothing, so it is an error, a hang-up, or no descriptor


def describe_exit(record: ExitRecord) -> str:
    """How a binary ended, as the end of a sentence that begins with its name."""
    if record.requested:
        return "has stopped, as asked"
    if record.earlier_boot:
        return "ended when the machine went down"
    if record.signal is not None:
        try:
            name = signal.Signals(record.signal).name
        except ValueError:
            name = f"signal {record.signal}"
        return f"was killed by {name}"
    if record.code is not None:
        return f"ended by itself with exit code {record.code}"
    return "ended while nobody could see how"
