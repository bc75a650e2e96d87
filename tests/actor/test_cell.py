"""One incarnation without a supervisor: what it reports, and how often."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.actor.trees import faulty, raising, waiting
from visor_actors.actor import (
    ActorEvent,
    Address,
    ExitReason,
    MonotonicClock,
    Reply,
    Request,
    RequestFailed,
    SupervisorSpec,
    Token,
)
from visor_actors.actor.actor_cell import ActorCell
from visor_actors.actor.decisions import ChildExited, ChildStarted
from visor_actors.actor.runtime import Runtime
from visor_actors.actor.spec import ChildSpec
from visor_actors.testing import FaultyActor, Probe, Script
from visor_actors.testing.faulty import Action, Do, Lived

A = Address("a")


def ignore(event: ActorEvent) -> None:
    return


@contextmanager
def incarnation(
    script: Script, before_launch: Callable[[ActorCell], None] | None = None, **changes: object
) -> Iterator[tuple[ActorCell, Runtime]]:
    """Launch one incarnation that reports into the script's probe, after what it lived through."""
    spec = faulty(script, **changes)
    assert isinstance(spec, ChildSpec)
    runtime = Runtime(
        root=SupervisorSpec(id="root", children=(spec,)),
        clock=MonotonicClock(),
        rng=random.Random(1),
        on_event=ignore,
        max_abandoned=8,
        on_abandoned_limit=lambda: None,
    )
    cell = ActorCell(runtime, runtime.switchboard.slot("a"), 1, spec=spec, report=script.probe.record)
    cell.slot.attach(cell.actor_inbox, 1)
    if before_launch is not None:
        before_launch(cell)
    cell.launch()
    yield cell, runtime
    assert cell.thread is not None
    cell.thread.join(20)
    assert not cell.thread.is_alive()
    runtime.publisher.stop()


@pytest.mark.parametrize("how", ["crash", "exit", "stop", "ordered", "terminate", "init", "order and crash"])
def test_an_incarnation_reports_its_end_once_and_last_of_all(how: str) -> None:
    script, go = Script("a", Probe()), threading.Event()
    if how == "terminate":
        script.in_terminate.append(raising(RuntimeError("while terminating")))
    if how == "init":
        script.in_init.append(raising(RuntimeError("while starting")))
    with incarnation(script) as (cell, runtime):

        def crash_late() -> None:
            waiting(go)
            raise RuntimeError("boom")

        actions: dict[str, Action] = {
            "crash": raising(RuntimeError("boom")),
            "exit": raising(SystemExit(1)),
            "stop": cell.context.stop,
            "order and crash": crash_late,
        }
        if how in actions:
            runtime.switchboard.deliver(A, Do(actions[how]))
        if how in ("ordered", "terminate", "order and crash"):
            script.probe.expect(ChildStarted)
            cell.order_stop()
        go.set()
    assert script.probe.count(ChildExited) == 1
    last, before = list(reversed(script.probe.all(object)))[:2]
    assert isinstance(last, ChildExited)
    assert isinstance(before, Lived)
    assert before.what == "terminate"


def test_an_incarnation_that_was_given_up_reports_no_end_of_its_own() -> None:
    script, go = Script("a", Probe()), threading.Event()
    with incarnation(script) as (cell, runtime):
        runtime.switchboard.deliver(A, Do(lambda: waiting(go)))
        script.probe.wait_until(lambda: cell.busy is not None)
        cell.fence(ExitReason.HUNG)
        cell.fence(ExitReason.HUNG)
        assert runtime.abandoned.count == 1
        go.set()
    assert script.probe.count(ChildExited) == 0
    assert runtime.abandoned.count == 0


def test_an_incarnation_that_was_given_up_in_its_init_does_not_acknowledge() -> None:
    script, go, entered = Script("a", Probe()), threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        waiting(go)

    script.in_init.append(hang)
    with incarnation(script) as (cell, _):
        waiting(entered)
        cell.fence(ExitReason.START_TIMED_OUT)
        go.set()
    assert not script.probe.count(ChildStarted)
    assert not script.probe.count(ChildExited)


def test_a_stop_that_comes_before_the_thread_runs_builds_nothing() -> None:
    script = Script("a", Probe())
    with incarnation(script, lambda cell: cell.order_stop()):
        exited = script.probe.expect(ChildExited)
    assert exited.reason is ExitReason.REQUESTED
    assert script.starts == 0


def test_an_incarnation_that_is_given_up_before_its_thread_runs_builds_nothing() -> None:
    script = Script("a", Probe())
    with incarnation(script, lambda cell: cell.fence(ExitReason.HUNG)) as (_, runtime):
        pass
    assert script.starts == 0
    assert runtime.abandoned.count == 0


def test_an_answer_of_an_incarnation_that_was_given_up_does_not_count() -> None:
    script, go, port = Script("a", Probe()), threading.Event(), Answers()
    request = Request("question", Token(), None, 1e9, port)

    def answer() -> None:
        waiting(go)
        cell.context.reply(request, "from the dead")

    with incarnation(script) as (cell, runtime):
        runtime.switchboard.deliver(A, Do(answer))
        script.probe.wait_until(lambda: cell.busy is not None)
        cell.fence(ExitReason.HUNG)
        go.set()
    assert port.answers == []
    assert cell.slot.dead_letters == 1


def test_requests_that_are_never_answered_are_forgotten_once_they_have_expired() -> None:
    script, port = Script("a", Probe()), Answers()

    class Silent(FaultyActor):
        def handle(self, message: object) -> None:
            if message == "end":
                super().handle(message)

    with incarnation(script, factory=lambda context: Silent(context, script)) as (cell, runtime):
        for _ in range(3000):
            while cell.actor_inbox.depth() > 500:
                threading.Event().wait(0.001)
            runtime.switchboard.deliver(A, Request("question", Token(), None, 0.0, port))
        runtime.switchboard.deliver(A, "end")
        script.probe.expect(Lived, lambda life: life.what == "end")
        assert len(cell.owed) <= 512
        cell.order_stop()


class Answers:
    """The asker's side."""

    def __init__(self) -> None:
        self.answers: list[object] = []

    def answer(self, answer: Reply | RequestFailed) -> None:
        self.answers.append(answer)


def test_an_incarnation_that_has_ended_cannot_be_given_up_any_more() -> None:
    script = Script("a", Probe())
    with incarnation(script) as (cell, runtime):
        cell.order_stop()
        script.probe.expect(ChildExited)
        cell.fence(ExitReason.STOP_TIMED_OUT)
        assert runtime.abandoned.count == 0
