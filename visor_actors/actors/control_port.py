"""The control port over a running actor system: questions from the board, commands as messages."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping

from visor_actors import __version__
from visor_actors.actor import ActorSystem, Address, NodeSnapshot
from visor_actors.actors.addresses import LIFECYCLE, UPGRADE_COORDINATOR, Slot
from visor_actors.actors.control import Accepted, ControlRefused, Fault, StopMode
from visor_actors.actors.gate import EVERY
from visor_actors.actors.messages import (
    HoldUpgrade,
    NodePhase,
    PrepareUpgrade,
    RecycleNode,
    ResumeUpgrade,
    StopNode,
)
from visor_actors.actors.recorder import AlarmBook
from visor_actors.actors.reports import (
    AlarmReport,
    BinaryReport,
    ConfigReport,
    Health,
    HoldsReport,
    InstallReport,
    NodeReport,
    RpcReport,
    StatusReport,
    UpgradeReport,
)
from visor_actors.actors.upgrade_machine import COMMITTED, PENDING, State
from visor_actors.actors.world import World
from visor_actors.home.settings import VisorConfig
from visor_actors.telemetry.counters import EventCounters
from visor_actors.telemetry.events import Event

_UNFINISHED = tuple(state.value for state in (*PENDING, *COMMITTED))
_SWITCHING = tuple(state.value for state in COMMITTED if state is not State.READY)
_LEAVING = (NodePhase.STOPPED.value, NodePhase.GAVE_UP.value)


class RunningVisor:
    """Implements :class:`~visor_actors.actors.control.ControlPort`. Any thread."""

    def __init__(
        self,
        *,
        world: World,
        alarms: AlarmBook,
        counters: EventCounters,
        detach: Callable[[str], None],
    ) -> None:
        self._world = world
        self._alarms = alarms
        self._counters = counters
        self._detach = detach
        self._started_at = world.now()
        self._system: ActorSystem | None = None

    def attach(self, system: ActorSystem) -> None:
        """Give the port its system; before the system runs."""
        self._system = system

    # questions

    def status(self) -> StatusReport:
        """Return the newest of all reports."""
        board = self._world.board
        upgrades = self.upgrades()
        node = board.read("node", NodeReport) or NodeReport(phase=NodePhase.UNKNOWN.value)
        return StatusReport(
            version=__version__,
            pid=os.getpid(),
            started_at=self._started_at,
            home=str(self._world.layout.root),
            health=self._health(node, upgrades),
            node=node,
            binaries=board.all(BinaryReport),
            rpc=board.read("rpc", RpcReport),
            upgrade=_shown(upgrades),
            install=board.read("install", InstallReport),
            config=board.read("config", ConfigReport),
            alarms=self._alarms.alarms,
            counters=self.counters(),
        )

    def tree(self) -> NodeSnapshot:
        """Return the supervision tree."""
        return self._running().tree()

    def upgrades(self) -> tuple[UpgradeReport, ...]:
        """Return all upgrades visor knows of, newest first."""
        return self._world.board.all(UpgradeReport)[::-1]

    def counters(self) -> Mapping[str, int]:
        """Return how often each event was emitted."""
        return self._counters.by_name()

    def config(self) -> VisorConfig:
        """Return the configuration in force."""
        return self._world.settings.current

    def emit(self, event: Event) -> None:
        """Put ``event`` on the bus."""
        self._world.bus.emit(event)

    # commands

    def restart(self, slot: str | None) -> Accepted:
        """Stop the node and start it again. A core and its data node are always restarted together."""
        self._refuse_while_leaving()
        known = [one.value for one in Slot]
        if slot is not None and slot not in known:
            raise ControlRefused(f"there is no binary {slot!r}", f"name one of {', '.join(known)}, or none")
        switching = next((one for one in self.upgrades() if one.state in _SWITCHING), None)
        if switching is not None:
            raise ControlRefused(
                f"the switch to {switching.tag} is under way ({switching.state})",
                "wait for it: `visor-actors upgrades` shows how far it is",
            )
        self._running().tell(LIFECYCLE, RecycleNode(reason="restart asked for by the operator"))
        together = " with everything that belongs to it" if slot is not None else ""
        return Accepted(message=f"restarting the node{together}")

    def stop(self, mode: StopMode) -> Accepted:
        """End visor, with or without the node."""
        match mode:
            case StopMode.STOP:
                if self._world.intent.departure is not None:
                    raise ControlRefused(
                        "visor is leaving already", "run it again and stop it, if the node is to end"
                    )
                self._world.intent.stop_reason = "asked for by the operator"
                self._running().tell(LIFECYCLE, StopNode(reason="asked for by the operator"))
                return Accepted(message="stopping the node, then visor")
            case StopMode.DETACH:
                # Answer first: the connection ends with the system.
                threading.Timer(0.05, self._detach, args=("detached, as the operator asked",)).start()
                return Accepted(message="visor leaves; the node goes on")

    def hold(self, tag: str | None) -> Accepted:
        """Do not switch until told to resume."""
        upgrades = self.upgrades()
        if tag is not None and all(one.tag != tag or one.state not in _UNFINISHED for one in upgrades):
            raise ControlRefused(f"no upgrade to {tag} is ahead", "see `visor-actors upgrades list`")
        switching = next((one for one in upgrades if one.state in _SWITCHING), None)
        if switching is not None and tag in (None, switching.tag):
            raise ControlRefused(
                f"the switch to {switching.tag} has begun and cannot be held any more",
                "let it finish; the old binary must not run past its height",
            )
        self._running().tell(UPGRADE_COORDINATOR, HoldUpgrade(tag=tag))
        return Accepted(message=f"the switch to {tag or 'the next release'} waits for `upgrades resume`")

    def resume(self, tag: str | None) -> Accepted:
        """Let what is held go on."""
        holds = (self._world.board.read("holds", HoldsReport) or HoldsReport()).tags
        node = self._world.board.read("node", NodeReport)
        waits = node is not None and node.phase == NodePhase.HELD.value
        if not waits and not (holds if tag is None else {tag, EVERY} & set(holds)):
            raise ControlRefused(
                "nothing is held" if tag is None else f"{tag} is not held",
                "see `visor-actors upgrades list`",
            )
        self._running().tell(UPGRADE_COORDINATOR, ResumeUpgrade(tag=tag))
        return Accepted(message="upgrades go on")

    def prepare(self, tag: str) -> Accepted:
        """Fetch and check a release now."""
        self._refuse_while_leaving()
        if not self._world.settings.current.auto_install.enabled:
            raise ControlRefused(
                "automatic installation is off",
                "set autoInstall.enabled = true, or provide the folder by hand",
            )
        busy = self._world.board.read("install", InstallReport)
        if busy is not None and busy.tag != tag and busy.phase not in ("done", "failed"):
            raise ControlRefused(f"{busy.tag} is being fetched", "wait for it, then ask again")
        self._running().tell(UPGRADE_COORDINATOR, PrepareUpgrade(tag=tag))
        return Accepted(message=f"preparing {tag}")

    def inject(self, actor: str, fault: Fault) -> Accepted:
        """Make an actor fail on its own thread."""
        system = self._running()
        if actor not in _names(system.tree()):
            raise ControlRefused(f"there is no actor {actor!r}", "`visor-actors tree` names them")
        system.inject(Address(actor), lambda: _fail(fault, self._world.trials.hang))
        return Accepted(message=f"{actor}: {fault.value}")

    # helpers

    def _running(self) -> ActorSystem:
        if self._system is None:
            raise ControlRefused("visor is still starting", "try again in a moment")
        return self._system

    def _refuse_while_leaving(self) -> None:
        if self._world.intent.departure is not None or self._world.intent.stop_reason is not None:
            raise ControlRefused("visor is stopping", "start it again with `visor-actors run`")

    def _health(self, node: NodeReport, upgrades: tuple[UpgradeReport, ...]) -> Health:
        if self._world.intent.departure is not None or self._world.intent.stop_reason is not None:
            return Health.STOPPING
        degraded = self._world.board.all(AlarmReport)
        troubled = any(one.state in _UNFINISHED and one.problem is not None for one in upgrades)
        if degraded or troubled or node.phase in (NodePhase.HELD.value, *_LEAVING):
            return Health.DEGRADED
        return Health.OK


def _shown(upgrades: tuple[UpgradeReport, ...]) -> UpgradeReport | None:
    """The unfinished upgrade that comes first, else the last one."""
    unfinished = [one for one in upgrades if one.state in _UNFINISHED]
    return unfinished[-1] if unfinished else next(iter(upgrades), None)


def _names(node: NodeSnapshot) -> set[str]:
    return {node.id}.union(*(_names(child) for child in node.children))


class InjectedFault(Exception):
    """An actor was made to fail, on purpose."""


def _fail(fault: Fault, seconds: float) -> None:
    match fault:
        case Fault.CRASH:
            raise InjectedFault("an injected crash")
        case Fault.EXIT:
            raise SystemExit("an injected exit")
        case Fault.HANG:
            threading.Event().wait(seconds)
