"""The listener without threads and sockets: a core that answers as the test says, and clocks that it sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.actors.stage import Stage, last
from visor_actors.actor import JobDone
from visor_actors.actors import rpc_listener
from visor_actors.actors.addresses import LIFECYCLE
from visor_actors.actors.messages import (
    Budget,
    CoreAnswered,
    CoreSilent,
    HeightSeen,
    Listen,
    Pace,
    SetPace,
    StatusSeen,
    StopListening,
    WhoRuns,
)
from visor_actors.actors.reports import RpcReport
from visor_actors.actors.rpc_listener import (
    EAGER_SECONDS,
    FAST_SECONDS,
    REPEAT_POLLS,
    RpcListenerActor,
)
from visor_actors.node.admin_errors import Absent, AdminRpcError, BadStatus
from visor_actors.node.upgrade_status import Release, UpgradeStatus
from visor_actors.testing import RecordingContext

SOCKET = Path("/nowhere/fury.sock")
QUIET = UpgradeStatus(release=None, ready=False)
ACCEPTED = UpgradeStatus(release=Release(tag="v2.0.0", height=40), ready=False)
CONFIG = """\
pollIntervalSeconds = 2
maxNumberOfFirstConnectionRetries = 100
maxNumberOfRestartConnectionRetries = 10
"""


@dataclass
class FakeCore:
    """Stands where the client is made. ``answer`` is what every poll gets."""

    answer: UpgradeStatus | AdminRpcError = field(default_factory=lambda: Absent(SOCKET))
    polls: int = 0
    closed: int = 0

    def __call__(self, *_: object, **__: object) -> FakeCore:
        return self

    def upgrade_status(self) -> UpgradeStatus:
        self.polls += 1
        if isinstance(self.answer, AdminRpcError):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.closed += 1


@dataclass
class Listener:
    """One listener; :meth:`poll` lets its next poll come due."""

    stage: Stage
    core: FakeCore
    actor: RpcListenerActor = field(init=False)
    context: RecordingContext = field(init=False)

    def __post_init__(self) -> None:
        self.context = RecordingContext("rpc-listener")
        self.actor = RpcListenerActor(self.context, world=self.stage.world)
        self.actor.init()

    def listen(
        self, core: str = "1@1", *, budget: Budget = Budget.FIRST_START, home: Path | None = None
    ) -> None:
        self.actor.handle(
            Listen(
                core=core, brand="fury", socket_path=SOCKET, http_path="/rpc", core_home=home, budget=budget
            )
        )

    def poll(self, times: int = 1) -> None:
        for _ in range(times):
            delay, message = self.context.timers.pop("poll")
            self.stage.monotonic += delay
            self.actor.handle(message)

    @property
    def interval(self) -> float:
        return self.context.timers["poll"][0]

    @property
    def to_lifecycle(self) -> list[object]:
        return self.context.messages_to("lifecycle")

    @property
    def statuses(self) -> list[StatusSeen]:
        told = self.context.messages_to("upgrade-coordinator")
        return [one for one in told if isinstance(one, StatusSeen)]

    @property
    def report(self) -> RpcReport:
        return self.stage.report("rpc", RpcReport)


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> FakeCore:
    core = FakeCore()
    monkeypatch.setattr(rpc_listener, "AdminRpcClient", core)
    return core


@pytest.fixture
def listener(tmp_path: Path, core: FakeCore) -> Iterator[Listener]:
    listener = Listener(stage=Stage(root=tmp_path / "home", config=CONFIG), core=core)
    yield listener
    listener.actor.terminate()


def test_a_new_listener_asks_whom_to_listen_to(listener: Listener) -> None:
    assert listener.context.told == [(LIFECYCLE, WhoRuns())]


def test_a_core_that_has_just_started_is_polled_eagerly_and_then_at_the_configured_interval(
    listener: Listener, core: FakeCore
) -> None:
    listener.listen()
    listener.poll()
    assert listener.interval == EAGER_SECONDS
    core.answer = QUIET
    listener.poll()
    assert listener.interval == 2
    assert isinstance(listener.to_lifecycle[-1], CoreAnswered)
    listener.poll()
    assert sum(isinstance(one, CoreAnswered) for one in listener.to_lifecycle) == 1, "told once"


def test_eagerness_does_not_last(listener: Listener) -> None:
    listener.listen()
    listener.poll()
    listener.stage.monotonic += 20
    listener.poll()
    assert listener.interval == 2


def test_the_first_start_has_the_long_budget_and_eager_polls_are_free(listener: Listener) -> None:
    listener.listen(budget=Budget.FIRST_START)
    listener.poll(40)
    left = listener.report.attempts_left
    assert left is not None
    assert left >= 97, "some 4 seconds are 2 polls of the configured interval"


@pytest.mark.parametrize(("budget", "polls"), [(Budget.FIRST_START, 100), (Budget.RESTART, 10)])
def test_a_core_that_never_answers_is_reported_once_its_budget_is_used_up(
    listener: Listener, budget: Budget, polls: int
) -> None:
    listener.listen(budget=budget)
    began = listener.stage.monotonic
    while not any(isinstance(one, CoreSilent) for one in listener.to_lifecycle):
        listener.poll()
    seconds = listener.stage.monotonic - began
    assert 2 * polls <= seconds <= 2 * polls + 4
    listener.poll(20)
    assert sum(isinstance(one, CoreSilent) for one in listener.to_lifecycle) == 1


def test_after_its_first_answer_a_core_has_the_short_budget_to_come_back(
    listener: Listener, core: FakeCore
) -> None:
    core.answer = QUIET
    listener.listen()
    listener.poll()
    core.answer = Absent(SOCKET)
    listener.poll(9)
    assert not any(isinstance(one, CoreSilent) for one in listener.to_lifecycle)
    assert len(listener.stage.said("rpc.silent")) == 1
    core.answer = QUIET
    listener.poll()
    assert listener.stage.said("rpc.recovered")
    core.answer = Absent(SOCKET)
    listener.poll(12)
    assert last(listener.to_lifecycle, CoreSilent).core == "1@1"


def test_whatever_a_core_says_it_is_alive(listener: Listener, core: FakeCore) -> None:
    core.answer = QUIET
    listener.listen()
    listener.poll()
    core.answer = BadStatus(SOCKET, 500, "boom")
    listener.poll(50)
    assert not any(isinstance(one, CoreSilent) for one in listener.to_lifecycle)
    assert not listener.report.connected
    assert listener.report.problem


def test_time_in_which_visor_itself_was_stopped_is_not_the_cores(listener: Listener, core: FakeCore) -> None:
    core.answer = QUIET
    listener.listen()
    listener.poll()
    listener.stage.monotonic += 3600
    core.answer = Absent(SOCKET)
    listener.poll(5)
    assert not any(isinstance(one, CoreSilent) for one in listener.to_lifecycle)


def test_from_acceptance_on_it_polls_fast(listener: Listener, core: FakeCore) -> None:
    core.answer = ACCEPTED
    listener.listen()
    listener.poll()
    listener.actor.handle(SetPace(pace=Pace.FAST))
    listener.poll()
    assert listener.interval == FAST_SECONDS
    assert listener.statuses[-1].pace is Pace.FAST
    count = len(listener.statuses)
    listener.poll(5)
    assert len(listener.statuses) == count + 5, "every answer counts then"


def test_at_rest_only_news_is_told_and_now_and_then_the_same(listener: Listener, core: FakeCore) -> None:
    core.answer = QUIET
    listener.listen()
    listener.poll(2)
    assert len(listener.statuses) == 1
    core.answer = ACCEPTED
    listener.poll()
    assert len(listener.statuses) == 2
    listener.poll(REPEAT_POLLS)
    assert len(listener.statuses) == 3
    listener.actor.handle(SetPace(pace=Pace.NORMAL))
    listener.poll()
    assert len(listener.statuses) == 4, "whoever sets the pace may have just started"


def test_a_poll_meant_for_the_last_core_asks_nobody(listener: Listener, core: FakeCore) -> None:
    listener.listen("1@1")
    stale = listener.context.timers["poll"][1]
    listener.listen("2@2")
    assert core.closed == 1
    listener.actor.handle(stale)
    assert core.polls == 0


def test_a_repeated_order_for_the_same_core_keeps_what_is_known(listener: Listener, core: FakeCore) -> None:
    core.answer = QUIET
    listener.listen()
    listener.poll()
    listener.context.told.clear()
    listener.listen()
    assert listener.to_lifecycle == [CoreAnswered(core="1@1")], "a new lifecycle learns that it answers"
    assert core.closed == 0


def test_without_a_core_nothing_is_polled(listener: Listener, core: FakeCore) -> None:
    core.answer = ACCEPTED
    listener.listen()
    listener.poll()
    listener.actor.handle(StopListening())
    assert "poll" not in listener.context.timers
    assert core.closed == 1
    assert (listener.report.connected, listener.report.tag) == (False, None)


def test_the_height_is_asked_for_only_while_an_upgrade_is_pending(
    listener: Listener, core: FakeCore, tmp_path: Path
) -> None:
    core.answer = ACCEPTED
    listener.listen(home=tmp_path)
    listener.poll(3)
    assert not listener.context.jobs
    listener.actor.handle(SetPace(pace=Pace.FAST))
    listener.poll(5)
    assert set(listener.context.jobs) == {"height"}, "one at a time"
    listener.context.jobs.clear()
    listener.actor.handle(JobDone("height", 37))
    assert last(listener.context.messages_to("upgrade-coordinator"), HeightSeen).height == 37
    assert listener.report.height == 37
