"""The lifecycle's shell without threads: messages in, messages and the journal out. What it decides is tested
with the node's machine.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from tests.actors.stage import Stage, last
from visor_actors.actor import Address
from visor_actors.actors.addresses import Slot
from visor_actors.actors.config_watcher import ConfigChanged
from visor_actors.actors.lifecycle import LIVED_SECONDS, LifecycleActor
from visor_actors.actors.messages import (
    AcknowledgeExit,
    BinaryExited,
    BinaryRefused,
    BinaryStarted,
    Budget,
    CoreAnswered,
    CoreSilent,
    DescribeNode,
    DescribeSlot,
    HoldOrder,
    Listen,
    NodePhase,
    NodeState,
    RecycleNode,
    RunOrder,
    SlotSeen,
    StartBinary,
    StopBinary,
    StopListening,
    StopNode,
    WhoRuns,
)
from visor_actors.actors.reports import NodeReport
from visor_actors.home.journal import Journal
from visor_actors.node.custody_types import ExitRecord, RunningBinary
from visor_actors.testing import RecordingContext

TICKS = os.sysconf("SC_CLK_TCK")
RUN_CONFIG = """\
name = "genesis"
[fury.binary]
path = "fury"
args = ["start", "--home", "/nowhere"]
[fury.rpc]
socketPath = "/nowhere/fury.sock"
"""


@dataclass
class Lifecycle:
    """A lifecycle whose neighbours are played by the test."""

    stage: Stage
    generation: int = 1
    actor: LifecycleActor = field(init=False)
    context: RecordingContext = field(init=False)

    def __post_init__(self) -> None:
        folder = self.stage.root / "genesis"
        folder.mkdir(exist_ok=True)
        (folder / "run-config.toml").write_text(RUN_CONFIG)
        (folder / "fury").write_text("#!/bin/sh\n")
        (folder / "fury").chmod(0o755)
        self.incarnations = 0
        self.begin()

    def begin(self) -> None:
        """The next incarnation of the actor, after the last one has ended."""
        if hasattr(self, "actor"):
            self.actor.terminate()
            self.generation += 1
        self.context = RecordingContext("lifecycle", generation=self.generation)
        self.actor = LifecycleActor(self.context, world=self.stage.world)
        self.actor.init()

    def hear(self, *messages: object) -> None:
        for message in messages:
            self.actor.handle(message)

    def empty_slots(self, *exits: ExitRecord) -> None:
        self.hear(
            SlotSeen(slot=Slot.CORE, running=None, exits=exits), SlotSeen(slot=Slot.DATA_NODE, running=None)
        )

    @property
    def state(self) -> NodeState:
        return last(self.context.messages_to("upgrade-coordinator"), NodeState)

    @property
    def report(self) -> NodeReport:
        return self.stage.report("node", NodeReport)

    def order(self) -> None:
        self.hear(RunOrder(ask=self.state.ask, folder=self.stage.root / "genesis"))

    def to_core(self) -> list[object]:
        return self.context.messages_to("process:core")

    def running(self, *, seconds_ago: float = 0.0) -> RunningBinary:
        """A core that was started so long ago."""
        self.incarnations += 1
        return RunningBinary(
            incarnation=self.incarnations,
            pid=100 + self.incarnations,
            start_ticks=int((self.stage.since_boot - seconds_ago) * TICKS),
            boot_id="boot",
            executable="/x",
            argv=("x",),
            started_at=self.stage.now - seconds_ago,
        )

    def bring_up(self) -> RunningBinary:
        """From nothing to a core that runs."""
        states = self.context.messages_to("upgrade-coordinator")
        if not states or last(states, NodeState).phase is NodePhase.UNKNOWN:
            self.empty_slots()
        self.order()
        last(self.to_core(), StartBinary)
        binary = self.running()
        self.hear(BinaryStarted(slot=Slot.CORE, binary=binary))
        assert self.state.phase is NodePhase.RUNNING
        return binary

    def exit_of(self, binary: RunningBinary, *, code: int = 1, requested: bool = False) -> ExitRecord:
        return ExitRecord(
            incarnation=binary.incarnation,
            pid=binary.pid,
            code=code,
            signal=None,
            known=True,
            requested=requested,
            started_at=binary.started_at,
            ended_at=self.stage.now,
            last_lines=("the last line",),
        )

    def wait_for_news(self) -> None:
        """Let the time pass for which a start that is on its way may put off the news."""
        self.hear(self.context.timers["tell"][1])

    def die(self, binary: RunningBinary, *, code: int = 1) -> ExitRecord:
        record = self.exit_of(binary, code=code)
        self.hear(BinaryExited(slot=Slot.CORE, record=record))
        return record


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Lifecycle]:
    lifecycle = Lifecycle(stage=Stage(root=tmp_path / "home", config="restartsDelaySeconds = 5\n"))
    yield lifecycle
    lifecycle.actor.terminate()


def history(node: Lifecycle) -> list[str]:
    with Journal.open_reader(node.stage.world.layout.journal) as journal:
        return [entry.name for entry in journal.events()]


def test_every_slot_is_asked_what_it_holds_before_anything_is_decided(node: Lifecycle) -> None:
    for slot in Slot:
        assert node.context.messages_to(slot.address.name) == [DescribeSlot()]
    node.hear(SlotSeen(slot=Slot.CORE, running=None))
    assert "ask" not in node.context.timers
    node.hear(SlotSeen(slot=Slot.DATA_NODE, running=None))
    assert node.state.phase is NodePhase.ASKING


def test_an_exit_is_acknowledged_only_when_the_journal_has_it(
    node: Lifecycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary, tell = node.bring_up(), node.context.tell
    kept: list[list[str]] = []

    def look(to: Address, message: object) -> None:
        if isinstance(message, AcknowledgeExit):
            kept.append(history(node))
        tell(to, message)

    monkeypatch.setattr(node.context, "tell", look)
    node.die(binary)
    assert kept == [["binary.exited"]]


def test_an_exit_is_counted_kept_and_acknowledged(node: Lifecycle) -> None:
    record = node.die(node.bring_up())
    assert node.report.restarts == 1
    assert node.to_core()[-1] == AcknowledgeExit(incarnation=record.incarnation)
    assert history(node) == ["binary.exited"], "the history has it before anybody is told"
    (event,) = node.stage.said("binary.exited")
    assert event.lines == ("the last line",)


@pytest.fixture
def prompt(tmp_path: Path) -> Iterator[Lifecycle]:
    """A lifecycle that starts a binary again without delay."""
    lifecycle = Lifecycle(stage=Stage(root=tmp_path / "home", config="restartsDelaySeconds = 0\n"))
    yield lifecycle
    lifecycle.actor.terminate()


def phases(node: Lifecycle) -> list[NodePhase]:
    """What the coordinator was told, oldest first."""
    told = node.context.messages_to("upgrade-coordinator")
    return [message.phase for message in told if isinstance(message, NodeState)]


NEWS = ["binary.exited", "node.failed", "node.restarting", "binary.starting"]


def test_nothing_is_told_of_an_exit_before_the_next_start_is_carried_out(prompt: Lifecycle) -> None:
    record = prompt.die(prompt.bring_up())
    said_before, told_before = len(prompt.stage.events), len(prompt.to_core())
    assert prompt.state.phase is NodePhase.ASKING
    assert not prompt.stage.said("binary.exited")
    assert history(prompt) == ["binary.exited"], "kept it is at once"
    prompt.order()
    (start,) = prompt.to_core()[told_before:]
    assert isinstance(start, StartBinary)
    assert len(prompt.stage.events) == said_before
    prompt.hear(BinaryStarted(slot=Slot.CORE, binary=prompt.running()))
    assert prompt.to_core()[told_before:] == [start, AcknowledgeExit(incarnation=record.incarnation)]
    assert [event.name for event in prompt.stage.events[said_before:]] == [*NEWS, "binary.started", "node.up"]


def test_the_coordinator_hears_last_how_the_node_is_now(prompt: Lifecycle) -> None:
    prompt.die(prompt.bring_up())
    prompt.order()
    assert phases(prompt)[-1] is not NodePhase.STARTING, "that can wait"
    prompt.wait_for_news()
    assert phases(prompt)[-1] is NodePhase.STARTING
    prompt.hear(BinaryStarted(slot=Slot.CORE, binary=prompt.running()))
    assert phases(prompt)[-1] is NodePhase.RUNNING


def test_a_start_that_takes_its_time_does_not_put_off_the_news(prompt: Lifecycle) -> None:
    prompt.die(prompt.bring_up())
    prompt.wait_for_news()
    assert [event.name for event in prompt.stage.events[-3:]] == NEWS[:3]


def test_messages_on_the_way_to_a_start_put_off_the_news_no_further(prompt: Lifecycle) -> None:
    prompt.die(prompt.bring_up())
    armed = prompt.context.timers["tell"]
    prompt.hear(DescribeNode(), DescribeNode())
    assert prompt.context.timers["tell"] is armed


def test_news_that_were_put_off_are_told_by_an_incarnation_that_ends(prompt: Lifecycle) -> None:
    prompt.die(prompt.bring_up())
    prompt.begin()
    assert [event.name for event in prompt.stage.events[-3:]] == NEWS[:3]


def test_an_exit_is_acknowledged_only_once_it_is_kept(
    node: Lifecycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, visor is told of the exit again; the other way round it would never hear of it."""
    kept: list[int] = []
    tell = node.context.tell

    def watch(to: Address, message: object) -> None:
        if isinstance(message, AcknowledgeExit):
            with Journal.open_reader(node.stage.world.layout.journal) as journal:
                kept.append(len(journal.exits(Slot.CORE.value)))
        tell(to, message)

    monkeypatch.setattr(node.context, "tell", watch)
    node.die(node.bring_up())
    assert kept == [1]


def test_an_exit_that_is_told_again_is_acknowledged_and_not_counted_again(node: Lifecycle) -> None:
    record = node.die(node.bring_up())
    node.hear(BinaryExited(slot=Slot.CORE, record=record))
    assert node.report.restarts == 1
    node.begin()
    node.empty_slots(record)
    assert node.report.restarts == 1, "a later incarnation knows it too"
    assert AcknowledgeExit(incarnation=record.incarnation) in node.to_core()
    assert history(node) == ["binary.exited"]


def test_an_exit_that_nobody_saw_is_counted_by_the_next_one(node: Lifecycle) -> None:
    binary = node.bring_up()
    node.begin()
    node.empty_slots(node.exit_of(binary))
    assert node.report.restarts == 1
    assert node.state.phase is NodePhase.WAITING, "its delay passes as if it had been seen"


def test_the_machine_s_going_down_is_no_failure_of_the_node(node: Lifecycle) -> None:
    binary = node.bring_up()
    node.begin()
    unknown = msgspec.structs.replace(
        node.exit_of(binary), known=False, code=None, earlier_boot=True, last_lines=()
    )
    node.empty_slots(unknown)
    assert node.report.restarts == 0
    assert node.state.phase is NodePhase.ASKING, "it is started again without a delay"
    (event,) = node.stage.said("binary.exited")
    assert "machine" in event.message


def test_an_exit_whose_consumption_was_cut_short_is_dealt_with_as_if_nobody_had(
    node: Lifecycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = node.bring_up()

    class Killed(BaseException):
        pass

    def cut_short(*_: object, **__: object) -> bool:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "consume_exit", cut_short)
        with pytest.raises(Killed):
            node.die(binary)
    node.begin()
    assert node.report.restarts == 0, "not counted"
    node.empty_slots(node.exit_of(binary))
    assert node.report.restarts == 1, "and now counted, once"


def test_the_clock_that_people_set_moves_no_delay_and_no_count(node: Lifecycle) -> None:
    for step in (-86_400.0, 86_400.0):
        binary = node.bring_up()
        node.stage.now += step
        node.die(binary)
        assert node.context.timers["delay"][0] == 5
        assert node.state.core_lived == 0, "a core that fell at once has got nowhere, whatever the date says"
        node.hear(node.context.fire("delay"))
        assert node.state.phase is NodePhase.ASKING
    assert node.report.restarts == 2


def test_a_core_that_lived_long_has_got_somewhere_even_with_the_clock_set_back(node: Lifecycle) -> None:
    binary = node.bring_up()
    node.stage.since_boot += LIVED_SECONDS
    node.stage.now -= 3600
    node.die(binary)
    assert node.state.core_lived == binary.incarnation


def test_a_stop_during_the_restart_delay_cancels_it_and_leaves(node: Lifecycle) -> None:
    node.die(node.bring_up())
    assert "delay" in node.context.timers
    node.hear(StopNode(reason="asked"))
    assert "delay" not in node.context.timers
    assert node.stage.departures == 1
    assert node.stage.world.intent.shims_may_leave


def test_a_stop_that_was_asked_for_survives_the_death_of_the_lifecycle(node: Lifecycle) -> None:
    binary = node.bring_up()
    node.hear(StopNode(reason="asked"))
    assert isinstance(node.to_core()[-1], StopBinary)
    node.begin()
    node.hear(
        SlotSeen(slot=Slot.CORE, running=msgspec.structs.replace(binary, stopping=True)),
        SlotSeen(slot=Slot.DATA_NODE, running=None),
    )
    assert isinstance(node.to_core()[-1], StopBinary), "said again"
    node.hear(BinaryExited(slot=Slot.CORE, record=node.exit_of(binary, code=0, requested=True)))
    assert node.stage.departures == 1


def test_a_node_that_was_being_stopped_by_an_earlier_visor_is_stopped_and_started_again(
    node: Lifecycle,
) -> None:
    binary = msgspec.structs.replace(node.running(), stopping=True)
    node.hear(SlotSeen(slot=Slot.CORE, running=binary), SlotSeen(slot=Slot.DATA_NODE, running=None))
    assert isinstance(node.to_core()[-1], StopBinary)
    node.hear(BinaryExited(slot=Slot.CORE, record=node.exit_of(binary, code=0, requested=True)))
    assert node.state.phase is NodePhase.ASKING
    assert node.report.restarts == 0


def test_a_refused_start_is_told_and_counted(node: Lifecycle) -> None:
    node.empty_slots()
    node.order()
    node.hear(BinaryRefused(slot=Slot.CORE, problem="it is built for s390x", next_step="install another"))
    (event,) = node.stage.said("binary.refused")
    assert (event.next_step, node.report.restarts) == ("install another", 1)


def test_a_stop_before_the_coordinator_has_spoken_has_the_signal_that_current_says(node: Lifecycle) -> None:
    config = RUN_CONFIG.replace("[fury.rpc]", 'stopSignal = "INT"\n[fury.rpc]')
    (node.stage.root / "genesis" / "run-config.toml").write_text(config)
    node.stage.world.layout.current.symlink_to("genesis")
    node.hear(StopNode(reason="asked"))
    node.hear(SlotSeen(slot=Slot.CORE, running=node.running()))
    assert last(node.to_core(), StopBinary).signal == signal.SIGINT


def test_a_run_configuration_that_stays_invalid_is_one_alarm(node: Lifecycle) -> None:
    (node.stage.root / "genesis" / "run-config.toml").write_text("name = 3\n")
    node.empty_slots()
    for _ in range(3):
        node.order()
        assert node.state.phase is NodePhase.HELD
        node.hear(node.context.fire("ask"))
    assert len(node.stage.said("run-config.invalid")) == 1
    (node.stage.root / "genesis" / "run-config.toml").write_text(RUN_CONFIG)
    node.order()
    assert isinstance(node.to_core()[-1], StartBinary), "and corrected it is used"


def test_a_hold_is_shown_with_its_reason_and_asked_again(node: Lifecycle) -> None:
    node.empty_slots()
    node.hear(HoldOrder(ask=node.state.ask, reason="v2.0.0 is not prepared"))
    assert node.report.reason == "v2.0.0 is not prepared"
    before = len(node.context.messages_to("upgrade-coordinator"))
    node.hear(node.context.fire("ask"))
    assert len(node.context.messages_to("upgrade-coordinator")) == before + 1


def test_the_listener_is_told_whom_to_poll_and_when_not_to(node: Lifecycle) -> None:
    binary = node.bring_up()
    listen = last(node.context.messages_to("rpc-listener"), Listen)
    assert (listen.core, listen.budget) == (f"{binary.pid}@{binary.start_ticks}", Budget.FIRST_START)
    node.die(binary)
    assert isinstance(node.context.messages_to("rpc-listener")[-1], StopListening)
    node.hear(node.context.fire("delay"))
    node.bring_up()
    assert last(node.context.messages_to("rpc-listener"), Listen).budget is Budget.RESTART
    node.context.told.clear()
    node.hear(WhoRuns())
    assert isinstance(node.context.messages_to("rpc-listener")[-1], Listen), "a new listener is told again"


def test_a_core_that_answers_has_got_somewhere_and_one_that_is_gone_has_not(node: Lifecycle) -> None:
    binary = node.bring_up()
    node.hear(CoreAnswered(core="1@1"))
    assert node.state.core_lived == 0
    node.hear(CoreAnswered(core=f"{binary.pid}@{binary.start_ticks}"))
    assert node.state.core_lived == binary.incarnation


def test_a_silent_core_is_stopped_and_started_again(node: Lifecycle) -> None:
    binary = node.bring_up()
    node.hear(CoreSilent(core="1@1", problem="refused"))
    assert node.state.phase is NodePhase.RUNNING, "what was said of another core"
    node.hear(CoreSilent(core=f"{binary.pid}@{binary.start_ticks}", problem="refused"))
    assert isinstance(node.to_core()[-1], StopBinary)
    assert node.report.restarts == 1


def test_restarts_are_forgotten_after_the_healthy_time(node: Lifecycle) -> None:
    node.die(node.bring_up())
    node.hear(node.context.fire("delay"))
    node.bring_up()
    assert node.context.timers["stable"][0] == 3600
    node.hear(node.context.fire("stable"))
    assert node.report.restarts == 0
    node.begin()
    node.empty_slots()
    assert node.report.restarts == 0


def test_a_binary_that_dies_takes_its_healthy_time_with_it(node: Lifecycle) -> None:
    node.die(node.bring_up())
    assert "stable" not in node.context.timers


def test_a_new_budget_counts_at_once(node: Lifecycle) -> None:
    node.stage.reconfigure("maxNumberOfRestarts = 0\n")
    node.hear(ConfigChanged(config=node.stage.world.settings.current, changes=()))
    node.die(node.bring_up())
    assert node.stage.departures == 1
    assert node.stage.world.intent.departure is not None
    assert node.stage.world.intent.departure.code == 1
    assert node.stage.said("node.gave-up")


def test_a_coordinator_that_has_just_started_is_told_everything(node: Lifecycle) -> None:
    node.bring_up()
    before = node.state
    node.context.told.clear()
    node.hear(DescribeNode())
    assert node.state == before


def test_a_recycled_node_is_no_failed_node(node: Lifecycle) -> None:
    binary = node.bring_up()
    node.hear(RecycleNode(reason="an upgrade"))
    node.hear(BinaryExited(slot=Slot.CORE, record=node.exit_of(binary, code=0, requested=True)))
    assert node.state.phase is NodePhase.ASKING
    assert node.report.restarts == 0


def test_orders_are_numbered_beyond_those_of_every_earlier_incarnation(node: Lifecycle) -> None:
    node.bring_up()
    before = last(node.to_core(), StartBinary).number
    node.begin()
    node.bring_up()
    assert last(node.to_core(), StartBinary).number > before


def test_without_a_journal_the_node_is_kept_up_all_the_same(tmp_path: Path) -> None:
    stage = Stage(root=tmp_path / "home", config="restartsDelaySeconds = 0\n")
    stage.world.layout.journal.mkdir()
    node = Lifecycle(stage=stage)
    try:
        record = node.die(node.bring_up())
        assert node.report.restarts == 1
        node.hear(BinaryExited(slot=Slot.CORE, record=record))
        assert node.report.restarts == 1, "counted once even so"
        node.wait_for_news()
        assert len(stage.said("journal.unavailable")) == 2, "one alarm a start of the node, not one a write"
        node.bring_up()
    finally:
        node.actor.terminate()
    stage.world.layout.journal.rmdir()
    node.begin()
    try:
        node.die(node.bring_up())
        assert history(node) == ["binary.exited"], "once it can be used again, it is"
    finally:
        node.actor.terminate()
