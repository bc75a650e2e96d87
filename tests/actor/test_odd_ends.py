"""Ends in odd places and in an odd order: a stop and then a failure, a failure and then a hang, a hang and
then a failure, an interrupt in the middle of a start."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from tests.actor.test_messages import Asking, Keep, asking
from tests.actor.trees import AT_ONCE, bench, faulty, raising, scripts, waiting
from visor_actors.actor import (
    AbandonedEnded,
    ActorAbandoned,
    ActorExited,
    ActorHung,
    ActorStarting,
    Address,
    CancelToken,
    Context,
    DeadLetter,
    DeadLetterReason,
    ExitReason,
    OutcomeKind,
    ReceiverDied,
    Restart,
    SupervisorSpec,
)
from visor_actors.actor.core import SupervisorCore
from visor_actors.actor.decisions import Abort, Effect, Input
from visor_actors.actor.supervisor_cell import SupervisorCell
from visor_actors.testing import FakeClock, Probe, Script
from visor_actors.testing.faulty import Lived

A, B = Address("a"), Address("b")


# --- a stop and then a failure


def test_a_failure_after_a_stop_of_its_own_is_a_crash_and_not_a_normal_end() -> None:
    probe = Probe()

    def stop_and_fail(context: Context) -> None:
        context.stop()
        raise LookupError("after the stop")

    with bench(asking("a", probe, restart=Restart.TRANSIENT)) as it:
        it.started("a", 1)
        it.system.tell(A, stop_and_fail)
        exited = it.exited("a", 1)
        assert exited.reason is ExitReason.CRASHED
        assert exited.failure is not None
        assert exited.failure.type_name == "LookupError"
        it.started("a", 2)


def test_an_init_that_stops_and_then_fails_is_a_failed_start() -> None:
    lives, (a,) = scripts("a")
    a.in_init.append(lambda: None)

    class Stopping(Asking):
        def init(self) -> None:
            if self.context.generation == 2:
                self.context.stop()
                raise LookupError("after the stop")

    spec = faulty(a, factory=lambda context: Stopping(context, Probe()), restart=Restart.TRANSIENT)
    with bench(spec, lives=lives) as it:
        it.started("a", 1)
        it.do("a", raising(RuntimeError("boom")))
        assert it.exited("a", 2).reason is ExitReason.START_FAILED
        it.started("a", 3)


# --- a failure and then a hang


@pytest.mark.parametrize("how", ["crash", "stop"])
def test_a_terminate_that_hangs_after_the_actor_ended_by_itself_is_found_and_the_actor_replaced(
    how: str,
) -> None:
    clock, go, probe = FakeClock(), threading.Event(), Probe()

    class Clinging(Asking):
        def terminate(self) -> None:
            if self.context.generation == 1:
                probe.record("terminating")
                waiting(go)

    _, (a,) = scripts("a")
    spec = faulty(a, heartbeat=10.0, factory=lambda context: Clinging(context, probe))
    with bench(spec, clock=clock) as it:
        it.started("a", 1)
        if how == "crash":
            it.do("a", raising(LookupError("the cause")))
        else:
            it.system.tell(A, lambda context: context.stop())
        probe.expect(str)
        it.events.wait_until(lambda: it.cell("a").busy is not None)
        clock.advance(11.0)
        hung = it.events.expect(ActorHung)
        assert hung.message_type == "Terminating"
        assert "waiting" in hung.stack
        exited = it.exited("a", 1)
        assert exited.reason is ExitReason.HUNG
        assert exited.failure is not None
        chain = [link.type_name for link in exited.failure.chain()]
        assert chain == (["ActorHung", "LookupError"] if how == "crash" else ["ActorHung"])
        it.started("a", 2)
        go.set()
        it.events.expect(AbandonedEnded)
    assert len([event for event in it.events.all(ActorExited) if event.generation == 1]) == 1


# --- a hang and then a failure


class Deadly(Asking):
    """Hangs at each Keep in its first ``hangs`` incarnations, and fails when it is released."""

    def __init__(self, context: Context, probe: Probe, go: threading.Event, hangs: int) -> None:
        super().__init__(context, probe)
        self._go = go
        self._hangs = hangs

    def handle(self, message: object) -> None:
        if not isinstance(message, Keep):
            super().handle(message)
            return
        self._probe.record((self.context.generation, message.value))
        if self.context.generation <= self._hangs:
            waiting(self._go)
            raise RuntimeError("late")


def deadly(script: Script, probe: Probe, go: threading.Event, hangs: int) -> SupervisorSpec:
    spec = faulty(script, heartbeat=10.0, factory=lambda context: Deadly(context, probe, go, hangs))
    return SupervisorSpec(id="inner", children=(spec,))


def test_a_message_that_an_incarnation_hung_in_and_then_failed_of_comes_once_more_and_not_twice() -> None:
    clock, probe, go = FakeClock(), Probe(), threading.Event()
    _, (a,) = scripts("a")
    with bench(deadly(a, probe, go, hangs=1), clock=clock) as it:
        it.started("a", 1)
        it.system.tell(A, Keep(7))
        assert probe.expect(tuple) == (1, 7)
        clock.advance(11.0)
        assert probe.expect(tuple) == (2, 7)
        go.set()
        it.events.expect(AbandonedEnded)
        it.system.tell(A, "end")
        probe.expect(str)
    assert probe.all(tuple) == [(1, 7), (2, 7)]


def test_poison_is_not_brought_back_by_the_threads_that_hung_in_it() -> None:
    clock, probe, go = FakeClock(), Probe(), threading.Event()
    _, (a,) = scripts("a")
    with bench(deadly(a, probe, go, hangs=2), clock=clock) as it:
        it.started("a", 1)
        it.system.tell(A, Keep(7))
        for generation in (1, 2):
            assert probe.expect(tuple) == (generation, 7)
            clock.advance(11.0)
        it.started("a", 3)
        assert it.events.expect(DeadLetter).reason is DeadLetterReason.POISON
        go.set()
        it.events.wait_until(lambda: it.events.count(AbandonedEnded) == 2)
        it.system.tell(A, "end")
        probe.expect(str)
    assert probe.all(tuple) == [(1, 7), (2, 7)]
    assert it.system.dead_letters == 1


# --- what an ended incarnation still does


def test_what_a_job_of_an_ended_incarnation_sends_is_a_dead_letter() -> None:
    probe, go, over = Probe(), threading.Event(), threading.Event()
    contexts: list[Context] = []

    def begin(context: Context) -> None:
        contexts.append(context)

        def work(token: CancelToken) -> None:
            waiting(go)
            context.tell(B, "from the past")
            over.set()

        context.run_job(work, key="k")
        context.stop()

    with bench(asking("a", probe), asking("b", probe)) as it:
        it.started("b", 1)
        it.system.tell(A, begin)
        it.started("a", 2)
        assert contexts[0].fenced
        go.set()
        waiting(over)
        assert it.events.expect(DeadLetter).reason is DeadLetterReason.SENDER_FENCED
        it.system.tell(B, "end")
        assert probe.expect(str) == "end"


def test_an_abandoned_thread_is_counted_before_its_end_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread ends at the very moment in which it is given up."""
    clock, go = FakeClock(), threading.Event()
    lives, (a,) = scripts("a")
    with bench(faulty(a, heartbeat=10.0), lives=lives, clock=clock) as it:
        it.started("a", 1)
        cell = it.cell("a")
        add = it.system._runtime.abandoned.add

        def late(child: str, generation: int, reason: ExitReason) -> None:
            go.set()
            assert cell.thread is not None
            cell.thread.join(0.05)  # it would end here if it could
            add(child, generation, reason)

        def hang_and_fail() -> None:
            waiting(go)
            raise RuntimeError("late")

        monkeypatch.setattr(it.system._runtime.abandoned, "add", late)
        it.do("a", hang_and_fail)
        it.events.wait_until(lambda: cell.busy is not None)
        clock.advance(11.0)
        assert it.events.expect(AbandonedEnded).abandoned == 0
        assert it.events.expect(ActorAbandoned).abandoned == 1
        kinds = [type(event) for event in it.events.all(object)]
        assert kinds.index(ActorAbandoned) < kinds.index(AbandonedEnded)


# --- supervisors


def test_a_supervisor_that_is_given_up_while_it_starts_a_child_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, entered, go = FakeClock(), threading.Event(), threading.Event()
    lives, (a,) = scripts("a")
    inner = SupervisorSpec(id="inner", children=(faulty(a),), backoff=AT_ONCE)
    build = SupervisorCell._build

    def slowly(self: SupervisorCell, spec: object, generation: int) -> object:
        if (self.slot.name, self.generation, generation) == ("inner", 1, 2):
            entered.set()
            waiting(go)
        return build(self, spec, generation)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(SupervisorCell, "_build", slowly)
    with bench(inner, lives=lives, clock=clock) as it:
        it.started("inner", 1)
        it.do("a", raising(RuntimeError("boom")))
        waiting(entered)
        clock.advance(40.0)
        it.started("inner", 2)
        it.started("a", 3)
        go.set()
        it.events.expect(AbandonedEnded, lambda event: event.child == "inner")
        assert it.ask("a", 1) == 1
        assert (a.starts, a.tripped) == (2, None)
    starts = Counter((event.child, event.generation) for event in it.events.all(ActorStarting))
    exits = Counter((event.child, event.generation) for event in it.events.all(ActorExited))
    assert set(starts.values()) == {1}
    assert starts == exits


def test_an_interrupt_while_the_root_starts_a_child_stops_the_tree_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lives, (a, b) = scripts("a", "b")
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "a#2":
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with bench(faulty(a), faulty(b), lives=lives) as it:
        it.started("b", 1)
        it.do("a", raising(RuntimeError("boom")))
        outcome = it.run.outcome()
    assert outcome.kind is OutcomeKind.CRASHED
    assert outcome.failure is not None
    assert outcome.failure.type_name == "KeyboardInterrupt"
    assert it.exited("b", 1).reason is ExitReason.REQUESTED
    assert it.exited("a", 2).reason is ExitReason.REQUESTED
    assert a.starts <= 2
    assert a.tripped is None
    ends = [(life.name, life.what) for life in lives.all(Lived) if life.what == "terminate"]
    assert ends[:2] == [("a", "terminate"), ("b", "terminate")]


def test_what_is_sent_to_a_supervisor_is_a_dead_letter_and_a_question_fails_at_once() -> None:
    lives, (a,) = scripts("a")
    inner = SupervisorSpec(id="inner", children=(faulty(a),))
    with bench(inner, lives=lives, clock=FakeClock()) as it:
        it.started("inner", 1)
        for name in ("inner", "root"):
            with pytest.raises(ReceiverDied):
                it.ask(name, "anybody?")
            assert it.events.expect(DeadLetter).child == name


def test_a_supervisor_that_cannot_even_stop_gives_its_children_up_and_each_end_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lives, (a, b) = scripts("a", "b")
    inner = SupervisorSpec(id="inner", children=(faulty(a), faulty(b)), backoff=AT_ONCE)
    handle = SupervisorCore.handle

    def break_down(self: SupervisorCore, event: Input, now: float) -> list[Effect]:
        if isinstance(event, Abort):
            raise RuntimeError("and again")
        return handle(self, event, now)

    monkeypatch.setattr(SupervisorCore, "handle", break_down)
    with bench(inner, lives=lives) as it:
        it.started("inner", 1)
        it.system.inject(Address("inner"), raising(ValueError("first")))
        it.started("inner", 2)
        for name in ("a", "b"):
            assert it.exited(name, 1).reason is ExitReason.CRASHED
            assert it.ask(name, name) == name
        it.events.wait_until(lambda: it.system.abandoned == 0)
        assert (a.tripped, b.tripped) == (None, None)
        exited = it.exited("inner", 1)
        assert exited.failure is not None
        assert exited.failure.message == "first"
    starts = Counter((event.child, event.generation) for event in it.events.all(ActorStarting))
    assert starts == Counter((event.child, event.generation) for event in it.events.all(ActorExited))
