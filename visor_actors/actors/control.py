"""What an operator may ask of a running visor: the port between the control API and the actors.

The API knows only this protocol; the application implements it over the actor system. All methods may be
called from any thread that is no actor's, several at once, and return within a few seconds whatever the
actors are doing: questions are answered from the board, commands are handed over and acknowledged. A
command that was accepted is not yet done; its effect shows in :meth:`ControlPort.status`.

    ControlError
    └── ControlRefused    the command cannot be carried out now; says why and what to do next
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from visor_actors.actors.reports import StatusReport, UpgradeReport

if TYPE_CHECKING:
    from visor_actors.actor import NodeSnapshot
    from visor_actors.home.settings import VisorConfig
    from visor_actors.telemetry.events import Event


class StopMode(enum.Enum):
    """What ending visor means for the node: ``STOP`` ends it too, ``DETACH`` leaves it to the next visor."""

    STOP = "stop"
    DETACH = "detach"


class Fault(enum.Enum):
    """What :meth:`ControlPort.inject` makes an actor do: raise Exception, raise SystemExit, or never
    return."""

    CRASH = "crash"
    EXIT = "exit"
    HANG = "hang"


class Accepted(Struct, frozen=True, kw_only=True):
    """A command was handed to the actor that carries it out. ``message`` is one sentence for the operator."""

    message: str


class ControlError(Exception):
    """Base of what a control port raises."""


class ControlRefused(ControlError):
    """A command cannot be carried out in the present state. ``next_step`` says what can be done instead."""

    def __init__(self, problem: str, next_step: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.next_step = next_step


class ControlPort(Protocol):
    """A running visor, as its control API sees it. The module's docstring holds for all methods."""

    def status(self) -> StatusReport:
        """Return the newest of all reports."""
        ...

    def tree(self) -> NodeSnapshot:
        """Return the supervision tree with states, generations and last failures."""
        ...

    def upgrades(self) -> tuple[UpgradeReport, ...]:
        """Return all upgrades visor knows of, newest first."""
        ...

    def counters(self) -> Mapping[str, int]:
        """Return how often each event (by name) was emitted since visor started."""
        ...

    def config(self) -> VisorConfig:
        """Return the configuration in force: what a restarted API serves by. Any thread, actors' too."""
        ...

    def emit(self, event: Event) -> None:
        """Put ``event`` on visor's bus. Any thread, actors' too; never raises."""
        ...

    def restart(self, slot: str | None) -> Accepted:
        """Stop and start one binary's slot, or with None the whole node, outside the restart budget.

        Raises ControlRefused for an unknown slot, during an upgrade, and while stopping."""
        ...

    def stop(self, mode: StopMode) -> Accepted:
        """End visor; ``mode`` says what becomes of the node. STOP after DETACH is refused."""
        ...

    def hold(self, tag: str | None) -> Accepted:
        """Do not switch to ``tag`` (None: the pending upgrade) until :meth:`resume`, even when the node
        is ready.

        Raises ControlRefused if there is no such upgrade or its switch has begun."""
        ...

    def resume(self, tag: str | None) -> Accepted:
        """Take back :meth:`hold`. Raises ControlRefused if nothing is held."""
        ...

    def prepare(self, tag: str) -> Accepted:
        """Fetch, verify and unpack release ``tag`` now. Progress shows in the status' install report.

        Raises ControlRefused if another release is being fetched or automatic installation is off."""
        ...

    def inject(self, actor: str, fault: Fault) -> Accepted:
        """Make ``actor`` fail on its own thread. For tests: the API serves it only with VISOR_TESTING=1.

        Raises ControlRefused for an unknown actor."""
        ...
