"""Every internal of Pykka that cell.py and inbox.py rely on. An upgrade that changes one fails here, with
its name."""

from __future__ import annotations

import inspect
import random
import threading
from typing import Any

import pykka
import pytest
from pykka import messages
from pykka._envelope import Envelope

from visor_actors.actor import MonotonicClock, SupervisorSpec
from visor_actors.actor.actor_cell import ActorCell
from visor_actors.actor.cell import Cell
from visor_actors.actor.runtime import Runtime
from visor_actors.actor.supervisor_cell import SupervisorCell


class Scripted:
    """An inbox that plays a list of messages."""

    def __init__(self, *played: object) -> None:
        self.played = [Envelope(message) for message in played]
        self.gets = 0

    def put(self, envelope: Envelope[Any], /) -> None:
        self.played.append(envelope)

    def get(self) -> Envelope[Any]:
        self.gets += 1
        return self.played.pop(0)

    def empty(self) -> bool:
        return not self.played


class Recorder(pykka.ThreadingActor):
    use_daemon_thread = True
    inbox = Scripted("one", "last")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[object] = []

    @staticmethod
    def _create_actor_inbox() -> Any:
        return Recorder.inbox

    def on_start(self) -> None:
        self.seen.append("on_start")

    def on_receive(self, message: object) -> None:
        self.seen.append(message)
        if message == "last":
            self.actor_stopped.set()

    def on_stop(self) -> None:
        self.seen.append("on_stop")


@pytest.fixture
def played() -> Scripted:
    Recorder.inbox = Scripted("one", "last")
    return Recorder.inbox


def test_the_constructor_takes_its_inbox_from_create_actor_inbox(played: Scripted) -> None:
    assert Recorder().actor_inbox is played


def test_the_constructor_registers_nothing_and_starts_no_thread(played: Scripted) -> None:
    before = threading.active_count()
    actor = Recorder()
    assert threading.active_count() == before
    assert actor.actor_ref not in pykka.ActorRegistry.get_all()


def test_the_loop_runs_on_the_thread_that_calls_it_and_hands_every_message_to_on_receive(
    played: Scripted,
) -> None:
    actor = Recorder()
    actor._actor_loop()
    assert actor.seen == ["on_start", "one", "last"]


def test_setting_actor_stopped_ends_the_loop_without_on_stop_and_without_another_get(
    played: Scripted,
) -> None:
    played.put(Envelope("never"))
    actor = Recorder()
    actor._actor_loop_running()
    assert played.gets == 2
    assert "on_stop" not in actor.seen


def test_actor_stopped_in_on_start_means_that_no_message_is_handled(played: Scripted) -> None:
    class Stillborn(Recorder):
        def on_start(self) -> None:
            self.actor_stopped.set()

        def _actor_loop_teardown(self) -> None:
            return

    Stillborn()._actor_loop()
    assert played.gets == 0


def test_the_teardown_asks_the_inbox_only_while_it_is_not_empty(played: Scripted) -> None:
    played.played.clear()
    Recorder()._actor_loop_teardown()
    assert played.gets == 0


def test_what_the_inbox_raises_leaves_the_loop(played: Scripted) -> None:
    played.played.clear()
    with pytest.raises(IndexError):
        Recorder()._actor_loop()


def test_the_loop_reads_message_and_reply_to_of_what_the_inbox_returns(played: Scripted) -> None:
    assert set(Envelope.__slots__) == {"message", "reply_to"}
    assert Envelope(1).reply_to is None


def test_a_base_exception_in_a_handler_would_stop_every_registered_actor(
    played: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The danger that on_receive of Cell closes. If Pykka ever closes it itself, that is good to know."""
    stopped: list[bool] = []
    monkeypatch.setattr(pykka.ActorRegistry, "stop_all", lambda *_, **__: stopped.append(True))

    class Exiting(Recorder):
        def on_receive(self, message: object) -> None:
            raise SystemExit

    Exiting()._actor_loop_running()
    assert stopped == [True]


def test_pykkas_own_stop_message_ends_the_loop(played: Scripted) -> None:
    played.played[:] = [Envelope(messages._ActorStop())]
    actor = Recorder()
    actor._actor_loop_running()
    assert actor.seen == ["on_stop"]


def test_the_hooks_that_cell_overrides_exist_with_the_same_shape() -> None:
    for name in ("on_start", "on_receive", "_start_actor_loop", "_actor_loop", "_create_actor_inbox"):
        assert hasattr(pykka.ThreadingActor, name), name
    for name in ("on_receive", "_start_actor_loop"):
        theirs = list(inspect.signature(getattr(pykka.ThreadingActor, name)).parameters)
        assert list(inspect.signature(getattr(Cell, name)).parameters) == theirs
    assert isinstance(inspect.getattr_static(pykka.ThreadingActor, "_create_actor_inbox"), staticmethod)


def test_nothing_of_pykka_is_overridden_by_accident() -> None:
    """A new Pykka may bring a method with a name that this package already uses for something else."""
    own = {
        name for kind in (Cell, ActorCell, SupervisorCell) for name in vars(kind) if not name.startswith("__")
    }
    overridden = {name for name in own if hasattr(pykka.ThreadingActor, name)} - {"_abc_impl"}
    hooks = {"_create_actor_inbox", "_start_actor_loop", "on_receive", "on_start", "use_daemon_thread"}
    assert overridden == hooks


def test_no_attribute_of_a_cell_hides_one_of_pykka() -> None:
    theirs = set(vars(Recorder())) | set(dir(pykka.ThreadingActor))
    runtime = Runtime(
        root=SupervisorSpec(id="root"),
        clock=MonotonicClock(),
        rng=random.Random(),
        on_event=lambda event: None,
        max_abandoned=1,
        on_abandoned_limit=lambda: None,
    )
    cell = SupervisorCell(runtime, runtime.switchboard.slot("root"), 1, report=lambda event: None)
    assert set(vars(cell)) & theirs == {"_actor_ref", "actor_inbox", "actor_stopped", "actor_urn"}
