"""What an operator may ask of a running visor: questions, and commands handed over or refused in words."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from tests.actors.stage import Stage
from visor_actors.actor import ActorSystem, Address, NodeSnapshot
from visor_actors.actors.control import ControlRefused, Fault, StopMode
from visor_actors.actors.control_port import InjectedFault, RunningVisor
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
    Health,
    HoldsReport,
    InstallReport,
    NodeReport,
    UpgradeReport,
)
from visor_actors.telemetry.counters import EventCounters
from visor_actors.telemetry.events import Event, Severity

DEADLINE = 20.0


@dataclass
class FakeSystem:
    """Stands where the actor system is."""

    told: list[tuple[str, object]] = field(default_factory=list)
    injected: list[tuple[str, Callable[[], None]]] = field(default_factory=list)

    def tell(self, to: Address, message: object) -> None:
        self.told.append((to.name, message))

    def inject(self, to: Address, action: Callable[[], None]) -> None:
        self.injected.append((to.name, action))

    def tree(self) -> NodeSnapshot:
        return node("root", node("node", node("lifecycle")), node("api"))


def node(name: str, *children: NodeSnapshot) -> NodeSnapshot:
    return NodeSnapshot(
        id=name,
        kind="actor",
        state="running",
        generation=1,
        restarts=0,
        degraded=False,
        last_failure=None,
        inbox_depth=0,
        dead_letters=0,
        busy_seconds=None,
        children=children,
    )


@dataclass
class Desk:
    """A control port and what stands around it."""

    stage: Stage
    system: FakeSystem = field(default_factory=FakeSystem)
    alarms: AlarmBook = field(default_factory=AlarmBook)
    detached: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.port = RunningVisor(
            world=self.stage.world,
            alarms=self.alarms,
            counters=EventCounters(),
            detach=lambda _message: self.detached.set(),
        )
        self.port.attach(cast(ActorSystem, self.system))

    def node(self, phase: NodePhase) -> None:
        self.stage.world.board.publish("node", NodeReport(phase=phase.value))

    def upgrade(self, tag: str, state: str, *, height: int = 40, problem: str | None = None) -> None:
        report = UpgradeReport(tag=tag, height=height, state=state, problem=problem)
        self.stage.world.board.publish(f"upgrade:{height:020}:{tag}", report)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(stage=Stage(root=tmp_path / "home"))
    desk.node(NodePhase.RUNNING)
    return desk


def refused(call: Callable[[], object]) -> ControlRefused:
    with pytest.raises(ControlRefused) as refusal:
        call()
    assert refusal.value.next_step, "a refusal says what can be done instead"
    return refusal.value


def test_before_anything_is_known_the_status_says_so(tmp_path: Path) -> None:
    status = Desk(stage=Stage(root=tmp_path / "home")).port.status()
    assert (status.node.phase, status.binaries, status.upgrade) == ("unknown", (), None)


def test_the_status_shows_what_the_board_shows(desk: Desk) -> None:
    desk.stage.world.board.publish(
        "binary:core", BinaryReport(slot="core", phase="running", custody="attached", pid=7)
    )
    desk.alarms(Event(name="disk.full", message="no room", severity=Severity.ALARM, next_step="make some"))
    status = desk.port.status()
    assert status.binaries[0].pid == 7
    assert status.alarms[0].name == "disk.full"
    assert status.health is Health.OK


def test_the_shown_upgrade_is_the_unfinished_one_that_comes_first_else_the_last(desk: Desk) -> None:
    desk.upgrade("v2.0.0", "confirmed", height=40)
    desk.upgrade("v3.0.0", "confirmed", height=80)
    shown = desk.port.status().upgrade
    assert shown is not None
    assert shown.tag == "v3.0.0"
    desk.upgrade("v5.0.0", "announced", height=160)
    desk.upgrade("v4.0.0", "preparing", height=120)
    shown = desk.port.status().upgrade
    assert shown is not None
    assert shown.tag == "v4.0.0"
    assert [one.tag for one in desk.port.upgrades()] == ["v5.0.0", "v4.0.0", "v3.0.0", "v2.0.0"]


@pytest.mark.parametrize("cause", ["actor", "upgrade", "held", "gave up"])
def test_visor_is_degraded_as_long_as_something_waits_for_somebody(desk: Desk, cause: str) -> None:
    assert desk.port.status().health is Health.OK
    match cause:
        case "actor":
            alarm = AlarmReport(name="actor.degraded", message="x", next_step=None, at=0.0)
            desk.stage.world.board.publish("degraded:api", alarm)
        case "upgrade":
            desk.upgrade("v2.0.0", "preparing", problem="not found")
        case "held":
            desk.node(NodePhase.HELD)
        case _:
            desk.node(NodePhase.GAVE_UP)
    assert desk.port.status().health is Health.DEGRADED


def test_a_restart_is_of_the_whole_node_and_not_for_a_slot_that_does_not_exist(desk: Desk) -> None:
    assert "everything" in desk.port.restart("core").message
    assert desk.system.told == [("lifecycle", RecycleNode(reason="restart asked for by the operator"))]
    assert "core" in refused(lambda: desk.port.restart("kernel")).next_step


@pytest.mark.parametrize("state", ["stopping", "stopped", "switched", "starting"])
def test_during_a_switch_nobody_restarts_or_holds(desk: Desk, state: str) -> None:
    desk.upgrade("v2.0.0", state)
    assert "v2.0.0" in refused(lambda: desk.port.restart(None)).problem
    assert "v2.0.0" in refused(lambda: desk.port.hold(None)).problem
    assert desk.system.told == []


def test_a_stop_is_known_before_any_actor_has_heard_of_it(desk: Desk) -> None:
    desk.port.stop(StopMode.STOP)
    assert desk.stage.world.intent.stop_reason is not None
    assert isinstance(desk.system.told[0][1], StopNode)
    assert desk.port.status().health is Health.STOPPING
    refused(lambda: desk.port.restart(None))
    refused(lambda: desk.port.prepare("v2.0.0"))


def test_a_detach_is_answered_before_visor_leaves(desk: Desk) -> None:
    assert "goes on" in desk.port.stop(StopMode.DETACH).message
    assert desk.detached.wait(DEADLINE)
    assert desk.system.told == [], "the node is told nothing"
    desk.stage.world.intent.depart(0, "detached")
    refused(lambda: desk.port.stop(StopMode.STOP))


def test_holding_and_resuming(desk: Desk) -> None:
    refused(lambda: desk.port.hold("v9.9.9"))
    desk.upgrade("v2.0.0", "prepared")
    desk.port.hold("v2.0.0")
    assert desk.system.told == [("upgrade-coordinator", HoldUpgrade(tag="v2.0.0"))]
    refused(lambda: desk.port.resume("v2.0.0"))  # the coordinator has not shown it yet
    desk.stage.world.board.publish("holds", HoldsReport(tags=("v2.0.0",)))
    refused(lambda: desk.port.resume("v3.0.0"))
    desk.port.resume("v2.0.0")
    assert desk.system.told[-1] == ("upgrade-coordinator", ResumeUpgrade(tag="v2.0.0"))


def test_one_release_is_fetched_at_a_time_and_only_where_that_is_wanted(desk: Desk) -> None:
    desk.stage.reconfigure("[autoInstall]\nenabled = false\n")
    refused(lambda: desk.port.prepare("v2.0.0"))
    desk.stage.reconfigure("[autoInstall]\nenabled = true\n")
    desk.stage.world.board.publish("install", InstallReport(tag="v1.5.0", phase="downloading"))
    assert "v1.5.0" in refused(lambda: desk.port.prepare("v2.0.0")).problem
    desk.stage.world.board.publish("install", InstallReport(tag="v1.5.0", phase="failed"))
    desk.port.prepare("v2.0.0")
    assert desk.system.told[-1] == ("upgrade-coordinator", PrepareUpgrade(tag="v2.0.0"))


def test_faults_are_for_actors_that_exist(desk: Desk) -> None:
    refused(lambda: desk.port.inject("nobody", Fault.CRASH))
    desk.port.inject("lifecycle", Fault.CRASH)
    desk.port.inject("api", Fault.EXIT)
    (_, crash), (_, leave) = desk.system.injected
    with pytest.raises(InjectedFault):
        crash()
    with pytest.raises(SystemExit):
        leave()


def test_before_the_system_is_attached_commands_are_refused(tmp_path: Path) -> None:
    stage = Stage(root=tmp_path / "home")
    port = RunningVisor(world=stage.world, alarms=AlarmBook(), counters=EventCounters(), detach=print)
    refused(lambda: port.restart(None))
    refused(port.tree)
