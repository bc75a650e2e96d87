"""What the coordinator tells people: events on the bus, each lasting state said once, and upgrade reports."""

from __future__ import annotations

from collections.abc import Mapping

from visor_actors.actors.ledger import Entry, Key, Ledger
from visor_actors.actors.preparation import Preparation
from visor_actors.actors.reports import UpgradeReport
from visor_actors.actors.upgrade_machine import UNDECIDED, State
from visor_actors.actors.world import World
from visor_actors.telemetry.events import Event, Scalar, Severity

_SAID_KEPT = 200


class UpgradeVoice:
    """Emits events. For the coordinator's thread."""

    def __init__(self, world: World) -> None:
        self._bus = world.bus
        self._said: dict[str, str] = {}

    def say(
        self,
        name: str,
        message: str,
        *,
        severity: Severity = Severity.INFO,
        next_step: str | None = None,
        lines: tuple[str, ...] = (),
        **fields: Scalar,
    ) -> None:
        """Emit one event."""
        self._emit(name, message, severity, next_step, lines, fields)

    def say_once(
        self,
        name: str,
        subject: str,
        message: str,
        *,
        severity: Severity = Severity.ALARM,
        next_step: str | None = None,
        **fields: Scalar,
    ) -> None:
        """Emit one event unless ``message`` was the last one said of ``subject`` under ``name``: a state that
        lasts is one event.
        """
        key = f"{name} {subject}"
        if self._said.get(key) == message:
            return
        self._said.pop(key, None)
        self._said[key] = message
        if len(self._said) > _SAID_KEPT:
            # A node may say anything; what it said long ago may be said again.
            del self._said[next(iter(self._said))]
        self._emit(name, message, severity, next_step, (), fields)

    def _emit(
        self,
        name: str,
        message: str,
        severity: Severity,
        next_step: str | None,
        lines: tuple[str, ...],
        fields: Mapping[str, Scalar],
    ) -> None:
        self._bus.emit(
            Event(
                name=name,
                message=message,
                severity=severity,
                next_step=next_step,
                lines=lines,
                fields=fields,
            )
        )

    def unsay(self, name: str, subject: str) -> None:
        """The state is over: should it come back, it is worth an event again."""
        self._said.pop(f"{name} {subject}", None)

    def forget(self) -> None:
        """Every state that still lasts is worth an event again."""
        self._said.clear()


class UpgradeReports:
    """Shows the upgrades on the board: all of them once, then only what has changed."""

    def __init__(self, world: World) -> None:
        self._board = world.board
        self._version = -1
        self._shown: dict[Key, UpgradeReport] = {}

    def publish(self, ledger: Ledger, preparation_of: dict[Key, Preparation], held: frozenset[str]) -> None:
        """Show ``ledger``. ``held`` are the tags that wait for the operator."""
        everything = ledger.version != self._version
        self._version = ledger.version
        for entry in ledger.entries:
            if everything or entry.upgrade.state in UNDECIDED:
                self._show(ledger, entry, preparation_of.get(entry.key), entry.upgrade.tag in held)

    def _show(self, ledger: Ledger, entry: Entry, preparation: Preparation | None, held: bool) -> None:
        tag, height = entry.key
        state = entry.upgrade.state
        undecided = state in UNDECIDED
        complete = preparation is not None and preparation.complete
        report = UpgradeReport(
            tag=tag,
            height=height,
            state=state.value,
            folder=entry.folder,
            prepared=complete if undecided else state not in (State.SUPERSEDED, State.WITHDRAWN),
            problem=preparation.problem if undecided and preparation is not None else None,
            next_step=preparation.next_step if undecided and preparation is not None else None,
            held=held and undecided,
            steps=ledger.steps(entry),
        )
        if self._shown.get(entry.key) != report:
            self._shown[entry.key] = report
            self._board.publish(f"upgrade:{height:020d}:{tag}", report)
