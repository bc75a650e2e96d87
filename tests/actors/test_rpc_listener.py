"""The listener without threads of its own, against a core that answers, falls silent, or talks nonsense."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.nasty_server import NastyServer, Peer, answer, status_body
from visor_actors.actors.messages import (
    Budget,
    CoreAnswered,
    CoreSilent,
    Listen,
    Pace,
    SetPace,
    StatusSeen,
    StopListening,
    WhoRuns,
)
from visor_actors.actors.reports import Board, RpcReport
from visor_actors.actors.rpc_listener import EAGER_SECONDS, FAST_SECONDS, REPEAT_POLLS, RpcListenerActor
from visor_actors.actors.world import Intent, Settings, World
from visor_actors.home.config import load_config
from visor_actors.home.layout import HomeLayout
from visor_actors.telemetry.events import Event, EventBus
from visor_actors.testing import RecordingContext

CORE = "10@100"
POLL_SECONDS = 2.0
BUDGET = 3


class Stage:
    """A listener, its clock, and the socket its core may or may not serve."""

    def __init__(self, root: Path) -> None:
        (root / "config.toml").write_text("")
        self.socket_path = root / "core.sock"
        self.time = 1000.0
        self.events: list[Event] = []
        self.board = Board()
        layout = HomeLayout(root)
        self.settings = Settings(
            dataclasses.replace(
                load_config(layout).config,
                poll_interval_seconds=POLL_SECONDS,
                max_number_of_first_connection_retries=BUDGET,
                max_number_of_restart_connection_retries=BUDGET,
            )
        )
        bus = EventBus()
        bus.subscribe(self.events.append)
        self.context = RecordingContext("rpc-listener")
        self.actor = RpcListenerActor(
            self.context,
            world=World(
                layout=layout,
                bus=bus,
                board=self.board,
                settings=self.settings,
                intent=Intent(lambda: None),
                now=lambda: self.time,
                monotonic=lambda: self.time,
            ),
        )
        self.actor.init()

    def listen(self, core: str = CORE, budget: Budget = Budget.FIRST_START) -> None:
        self.actor.handle(
            Listen(
                core=core,
                brand="vega",
                socket_path=self.socket_path,
                http_path="/rpc",
                core_home=None,
                budget=budget,
            )
        )

    def poll(self, *, after: float = 0.0) -> None:
        self.time += after
        self.actor.handle(self.context.fire("poll"))

    @property
    def delay(self) -> float:
        return self.context.timers["poll"][0]

    def told(self, kind: type, to: str) -> list[object]:
        return [message for message in self.context.messages_to(to) if isinstance(message, kind)]

    def statuses(self) -> list[object]:
        return self.told(StatusSeen, "upgrade-coordinator")

    def names(self) -> list[str]:
        return [event.name for event in self.events]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.actor.terminate()


def healthy(peer: Peer) -> None:
    while True:
        peer.send(answer(status_body(peer.request_id())))


def test_a_listener_that_starts_asks_whom_to_listen_to(stage: Stage) -> None:
    assert stage.context.messages_to("lifecycle") == [WhoRuns()]


def test_the_first_answer_is_reported_once_and_every_new_status_is_passed_on(stage: Stage) -> None:
    with NastyServer(healthy, path=stage.socket_path):
        stage.listen()
        stage.poll()
        stage.poll()
        assert stage.told(CoreAnswered, "lifecycle") == [CoreAnswered(core=CORE)]
        assert len(stage.statuses()) == 1, "nobody needs to hear the same twice"
        report = stage.board.read("rpc", RpcReport)
        assert report is not None
        assert report.connected
        assert report.tag == "v0.79.1"


def test_at_rest_the_same_status_is_repeated_now_and_then_lest_a_lost_one_stays_lost(stage: Stage) -> None:
    with NastyServer(healthy, path=stage.socket_path):
        stage.listen()
        for _ in range(REPEAT_POLLS + 1):
            stage.poll()
        assert len(stage.statuses()) == 2


def test_a_coordinator_that_has_just_started_hears_the_status_with_the_next_poll(stage: Stage) -> None:
    with NastyServer(healthy, path=stage.socket_path):
        stage.listen()
        stage.poll()
        stage.actor.handle(SetPace(pace=Pace.NORMAL))
        stage.poll()
        assert len(stage.statuses()) == 2


def test_from_acceptance_on_the_core_is_asked_fast_and_every_answer_is_passed_on(stage: Stage) -> None:
    with NastyServer(healthy, path=stage.socket_path):
        stage.listen()
        stage.poll()
        assert stage.delay == POLL_SECONDS
        stage.actor.handle(SetPace(pace=Pace.FAST))
        stage.poll()
        stage.poll()
        assert stage.delay == FAST_SECONDS
        assert len(stage.statuses()) == 3


def test_a_core_that_has_just_started_is_asked_eagerly_but_only_configured_polls_are_charged(
    stage: Stage,
) -> None:
    stage.listen()
    for _ in range(10):
        stage.poll(after=EAGER_SECONDS)
    assert stage.delay == EAGER_SECONDS
    assert stage.told(CoreSilent, "lifecycle") == []


def test_a_core_that_never_answers_is_reported_once_when_its_budget_is_used_up(stage: Stage) -> None:
    stage.listen()
    for _ in range(BUDGET):
        stage.poll(after=POLL_SECONDS)
    assert stage.told(CoreSilent, "lifecycle") == []
    stage.poll(after=POLL_SECONDS)
    stage.poll(after=POLL_SECONDS)
    assert len(stage.told(CoreSilent, "lifecycle")) == 1


def test_a_core_that_stops_answering_has_a_budget_to_come_back(stage: Stage) -> None:
    with NastyServer(healthy, path=stage.socket_path):
        stage.listen()
        stage.poll()
    stage.socket_path.unlink()
    for _ in range(BUDGET):
        stage.poll(after=POLL_SECONDS)
    assert stage.names().count("rpc.silent") == 1
    assert stage.told(CoreSilent, "lifecycle") == []
    stage.poll(after=POLL_SECONDS)
    assert len(stage.told(CoreSilent, "lifecycle")) == 1


def test_a_core_that_comes_back_starts_with_a_full_budget(stage: Stage) -> None:
    with NastyServer(healthy, path=stage.socket_path):
        stage.listen()
        stage.poll()
    stage.socket_path.unlink()
    for _ in range(BUDGET):
        stage.poll(after=POLL_SECONDS)
    with NastyServer(healthy, path=stage.socket_path):
        stage.poll(after=POLL_SECONDS)
    assert "rpc.recovered" in stage.names()
    assert stage.told(CoreSilent, "lifecycle") == []


def test_a_core_that_talks_nonsense_is_alive_and_never_reported_as_silent(stage: Stage) -> None:
    def nonsense(peer: Peer) -> None:
        while True:
            peer.request_id()
            peer.send(answer("boom", status="500 Internal Server Error", content_type="text/plain"))

    with NastyServer(nonsense, path=stage.socket_path):
        stage.listen()
        for _ in range(BUDGET + 3):
            stage.poll(after=POLL_SECONDS)
        assert stage.told(CoreSilent, "lifecycle") == []
        assert stage.statuses() == []


def test_another_core_is_another_story(stage: Stage) -> None:
    with NastyServer(healthy, path=stage.socket_path):
        stage.listen()
        stage.poll()
        stage.listen(core="20@200")
        stage.poll()
        assert stage.told(CoreAnswered, "lifecycle") == [CoreAnswered(core=CORE), CoreAnswered(core="20@200")]


def test_without_a_core_nobody_is_asked(stage: Stage) -> None:
    stage.listen()
    stage.actor.handle(StopListening())
    assert "poll" not in stage.context.timers
