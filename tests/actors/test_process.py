"""The actor of one binary against real shims, without threads: the test hands it what it watches."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from tests.actors.stage import Stage, last
from visor_actors.actors import process, shim_patience
from visor_actors.actors.addresses import Slot
from visor_actors.actors.messages import (
    AcknowledgeExit,
    BinaryExited,
    BinaryRefused,
    BinaryStarted,
    DescribeSlot,
    SlotSeen,
    SlotUnreachable,
    StartBinary,
    StopBinary,
    WarmUp,
)
from visor_actors.actors.process import ProcessActor
from visor_actors.actors.reports import BinaryReport
from visor_actors.node.custody_types import LaunchOrder, RunningBinary
from visor_actors.node.shim_process import find_shim, own_shims
from visor_actors.testing import RecordingContext

M = TypeVar("M")
DEADLINE = 20.0


def order(*argv: str) -> LaunchOrder:
    return LaunchOrder(executable=argv[0], argv=argv, env={}, working_directory="/")


SLEEP = order("/bin/sleep", "600")


@dataclass
class Custodian:
    """One ProcessActor on its slot. Use as a context manager: ends what was started."""

    stage: Stage
    slot: Slot = Slot.CORE
    actor: ProcessActor = field(init=False)
    context: RecordingContext = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin the first incarnation of the actor, or the next one after it has ended the last."""
        if hasattr(self, "actor"):
            self.actor.terminate()
        self.take_over()

    def take_over(self) -> None:
        """Begin the next incarnation beside the last one, which hangs."""
        self.context = RecordingContext(self.slot.address.name)
        self.actor = ProcessActor(self.context, world=self.stage.world, slot=self.slot)
        self.actor.init()
        self.deliver_own()

    def deliver_own(self) -> None:
        """Hand the actor what it has told itself."""
        for to, message in list(self.context.told):
            if to == self.context.address:
                self.context.told.remove((to, message))
                self.actor.handle(message)

    @property
    def told(self) -> list[object]:
        return self.context.messages_to("lifecycle")

    def wait_for(self, kind: type[M]) -> M:
        """Let the actor read its shim until it has told the lifecycle such a message; return that."""
        deadline = time.monotonic() + DEADLINE
        while not any(isinstance(one, kind) for one in self.told):
            assert time.monotonic() < deadline, f"no {kind.__name__}: {self.told}"
            poll = select.poll()
            for fd in self.context.watched:
                poll.register(fd, select.POLLIN)
            for fd, _ in poll.poll(50):
                if fd in self.context.watched:
                    self.actor.handle(self.context.watched[fd])
        return last(self.told, kind)

    def start(self, what: LaunchOrder = SLEEP, *, number: int = 1) -> RunningBinary:
        self.actor.handle(StartBinary(order=what, number=number))
        return self.wait_for(BinaryStarted).binary

    def forget_told(self) -> None:
        self.context.told.clear()

    @property
    def shim(self) -> int:
        pid = find_shim(self.stage.world.layout.slot(self.slot.value))
        assert pid is not None
        return pid

    def report(self) -> BinaryReport:
        return self.stage.report(f"binary:{self.slot.value}", BinaryReport)


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Custodian]:
    custodian = Custodian(stage=Stage(root=tmp_path / "home"))
    try:
        yield custodian
    finally:
        end(custodian)


def end(custodian: Custodian) -> None:
    """Stop what runs, let the shim leave, and wait for it."""
    if custodian.report().pid is not None:
        custodian.forget_told()
        custodian.actor.handle(StopBinary(signal=signal.SIGKILL, timeout=1))
        custodian.wait_for(BinaryExited)
    custodian.stage.world.intent.shims_may_leave = True
    custodian.actor.handle(WarmUp())
    custodian.actor.terminate()
    deadline = time.monotonic() + DEADLINE
    while own_shims():
        assert time.monotonic() < deadline, "a shim stays"
        time.sleep(0.01)


def test_an_empty_slot_is_described_once_the_shim_answers(core: Custodian) -> None:
    seen = last(core.told, SlotSeen)
    assert (seen.running, seen.exits) == (None, ())
    assert core.report().shim_pid == core.shim


def test_a_start_is_carried_out_and_told(core: Custodian) -> None:
    binary = core.start()
    assert binary.argv == SLEEP.argv
    assert (core.report().phase, core.report().pid) == ("running", binary.pid)


def test_an_order_that_is_repeated_starts_nothing_twice(core: Custodian) -> None:
    binary = core.start(number=7)
    core.actor.handle(StartBinary(order=SLEEP, number=7))
    core.forget_told()
    core.actor.handle(DescribeSlot())
    assert last(core.told, SlotSeen).running == binary
    assert not core.stage.said("shim.refused")


@pytest.mark.parametrize("acknowledged", [True, False])
def test_an_order_that_its_shim_took_into_death_is_carried_out_when_it_is_repeated(
    core: Custodian, acknowledged: bool
) -> None:
    ended = core.start(order("/bin/true"), number=6)
    core.wait_for(BinaryExited)
    if acknowledged:
        core.actor.handle(AcknowledgeExit(incarnation=ended.incarnation))
        core.begin()
    os.kill(core.shim, signal.SIGSTOP)  # it gets the order and never reads it
    core.actor.handle(StartBinary(order=SLEEP, number=7, after=ended.incarnation))
    os.kill(core.shim, signal.SIGKILL)
    core.forget_told()
    assert core.wait_for(SlotSeen).running is None
    assert core.start(number=7).incarnation > ended.incarnation


def test_an_order_that_was_carried_out_is_not_repeated_though_its_shim_and_its_binary_are_gone(
    core: Custodian,
) -> None:
    binary = core.start(number=7)
    os.kill(core.shim, signal.SIGSTOP)
    os.kill(binary.pid, signal.SIGKILL)
    os.kill(core.shim, signal.SIGKILL)
    core.forget_told()
    (record,) = core.wait_for(SlotSeen).exits
    assert (record.incarnation, record.known) == (binary.incarnation, False)
    core.actor.handle(StartBinary(order=SLEEP, number=7))
    core.forget_told()
    core.actor.handle(DescribeSlot())
    assert last(core.told, SlotSeen).running is None
    assert core.report().phase == "stopped"


def test_a_start_that_is_refused_is_told_in_words(core: Custodian) -> None:
    core.actor.handle(StartBinary(order=order("/no/such/file"), number=1))
    refused = core.wait_for(BinaryRefused)
    assert "/no/such/file" in refused.problem
    assert refused.next_step


def test_a_stop_between_the_order_and_its_acknowledgement_ends_the_binary(core: Custodian) -> None:
    core.actor.handle(StartBinary(order=SLEEP, number=1))
    core.actor.handle(StopBinary(signal=signal.SIGTERM, timeout=10))
    record = core.wait_for(BinaryExited).record
    assert (record.signal, record.requested) == (signal.SIGTERM, True)


def test_a_stop_is_part_of_what_is_said_of_the_slot(core: Custodian) -> None:
    core.start()
    core.actor.handle(StopBinary(signal=signal.SIGWINCH, timeout=60))  # which it ignores
    core.forget_told()
    core.actor.handle(DescribeSlot())
    running = last(core.told, SlotSeen).running
    assert running is not None
    assert running.stopping
    core.begin()
    running = last(core.told, SlotSeen).running
    assert running is not None
    assert running.stopping, "the shim still knows"


def test_a_stop_where_nothing_runs_is_answered(core: Custodian) -> None:
    core.forget_told()
    core.actor.handle(StopBinary(signal=signal.SIGTERM, timeout=10))
    assert core.wait_for(SlotSeen).running is None


def test_an_exit_is_told_until_it_is_acknowledged(core: Custodian) -> None:
    binary = core.start(order("/bin/sh", "-c", "exit 3"))
    record = core.wait_for(BinaryExited).record
    assert (record.code, record.requested) == (3, False)
    core.begin()
    assert last(core.told, SlotSeen).exits == (record,)
    core.actor.handle(AcknowledgeExit(incarnation=binary.incarnation))
    core.begin()
    assert last(core.told, SlotSeen).exits == ()


def test_a_successor_attaches_to_the_same_binary(core: Custodian) -> None:
    binary = core.start()
    core.begin()
    assert last(core.told, SlotSeen).running == binary
    assert core.report().custody == "attached"


def test_what_a_replaced_actor_still_orders_is_not_obeyed(core: Custodian) -> None:
    binary = core.start()
    hung, core.context.is_fenced = core.actor, True
    core.take_over()
    hung.handle(StopBinary(signal=signal.SIGKILL, timeout=0))
    hung.handle(WarmUp())
    hung.terminate()
    core.forget_told()
    core.actor.handle(StopBinary(signal=signal.SIGTERM, timeout=10))
    record = core.wait_for(BinaryExited).record
    assert (record.incarnation, record.signal) == (binary.incarnation, signal.SIGTERM)
    assert not core.stage.said("shim.lost"), "its connection was not taken from it"


def test_a_binary_whose_shim_was_killed_is_adopted_and_its_end_is_noticed(core: Custodian) -> None:
    binary = core.start()
    core.forget_told()
    os.kill(core.shim, signal.SIGKILL)
    seen = core.wait_for(SlotSeen)
    assert seen.running is not None
    assert (seen.running.pid, seen.running.adopted) == (binary.pid, True)
    assert core.report().custody == "adopted"
    os.kill(binary.pid, signal.SIGKILL)
    record = core.wait_for(BinaryExited).record
    assert (record.known, record.requested) == (False, False)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "OPEN_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(shim_patience, "UNRESPONSIVE_SECONDS", 1.0)


@pytest.mark.usefixtures("impatient")
def test_a_shim_that_does_not_do_what_it_was_told_is_ended_and_the_binary_adopted(tmp_path: Path) -> None:
    core = Custodian(stage=Stage(root=tmp_path / "home"))
    try:
        binary = core.start()
        shim = core.shim
        os.kill(shim, signal.SIGSTOP)
        core.actor.handle(StopBinary(signal=signal.SIGTERM, timeout=60))
        core.actor.handle(core.context.fire("overdue"))
        assert last(core.told, SlotUnreachable).problem
        (alarm,) = core.stage.said("shim.unreachable")
        assert f"kill -CONT {shim}" in str(alarm.next_step)
        core.stage.monotonic += 1.0
        core.actor.handle(core.context.fire("connect"))
        assert core.stage.said("shim.ended")
        core.forget_told()
        core.actor.handle(core.context.fire("connect"))
        seen = core.wait_for(SlotSeen)
        assert seen.running is not None
        assert (seen.running.pid, seen.running.adopted) == (binary.pid, True)
        core.actor.handle(StopBinary(signal=signal.SIGTERM, timeout=60))
        assert core.wait_for(BinaryExited).record.requested
    finally:
        end(core)


def test_a_shim_that_shows_progress_is_left_alone(core: Custodian) -> None:
    core.start()
    assert "overdue" not in core.context.timers
    core.actor.handle(StopBinary(signal=signal.SIGTERM, timeout=60))
    assert core.context.timers["overdue"][0] < 60
    core.wait_for(BinaryExited)
    assert "overdue" not in core.context.timers


def test_a_data_node_that_never_ran_costs_no_shim(tmp_path: Path) -> None:
    data_node = Custodian(stage=Stage(root=tmp_path / "home"), slot=Slot.DATA_NODE)
    assert last(data_node.told, SlotSeen).running is None
    assert data_node.report().shim_pid is None
    data_node.actor.terminate()


def test_a_slot_that_somebody_else_holds_is_one_alarm_and_is_tried_again(tmp_path: Path) -> None:
    import fcntl

    stage = Stage(root=tmp_path / "home")
    folder = stage.world.layout.slot(Slot.CORE.value)
    folder.mkdir(parents=True)
    holder = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(holder, fcntl.LOCK_EX)
    core = Custodian(stage=stage)
    try:
        for _ in range(2):
            assert last(core.told, SlotUnreachable).problem
            core.forget_told()
            core.actor.handle(core.context.fire("connect"))
        (alarm,) = stage.said("binary.slot-held")
        assert str(os.getpid()) in alarm.message
        os.close(holder)
        holder = -1
        core.forget_told()
        core.actor.handle(core.context.fire("connect"))
        assert last(core.told, SlotSeen).running is None
    finally:
        if holder >= 0:
            os.close(holder)
        end(core)
