"""Threads cannot be killed. What happens instead: fenced, replaced, counted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.actor.trees import AT_ONCE, bench, faulty, raising, scripts
from visor_actors.actor import (
    AbandonedEnded,
    AbandonedLimitReached,
    ActorAbandoned,
    ActorHung,
    Address,
    Context,
    DeadLetter,
    DeadLetterReason,
    ExitReason,
    OutcomeKind,
    ReceiverDied,
    SupervisorSpec,
)
from visor_actors.testing import FakeClock, FaultyActor, Probe
from visor_actors.testing.faulty import Lived

A, B = Address("a"), Address("b")


class Trap:
    """A place to hang in, in one of several ways, until released."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.entered = threading.Event()
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._lock.acquire()
        self._reader, self._writer = os.pipe()

    def __call__(self) -> None:
        self.entered.set()
        match self.how:
            case "in Python":
                while not self._released.is_set():
                    time.sleep(0)
            case "in a C call":
                os.read(self._reader, 1)
            case _:
                with self._lock:
                    pass

    def release(self) -> None:
        if self._released.is_set():
            return
        self._released.set()
        os.write(self._writer, b"x")
        self._lock.release()

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


@pytest.fixture
def traps() -> Iterator[Callable[[str], Trap]]:
    made: list[Trap] = []

    def make(how: str = "on a lock") -> Trap:
        made.append(Trap(how))
        return made[-1]

    yield make
    for it in made:
        it.release()
    for thread in threading.enumerate():
        if "#" in thread.name:
            thread.join(20)
    for it in made:
        it.close()


@pytest.mark.parametrize("how", ["in Python", "in a C call", "on a lock"])
def test_a_hung_actor_is_fenced_reported_and_replaced(how: str, traps: Callable[[str], Trap]) -> None:
    clock, hang = FakeClock(), traps(how)
    lives, (a, b) = scripts("a", "b")
    with bench(faulty(a, heartbeat=10.0), faulty(b), lives=lives, clock=clock) as it:
        it.started("b", 1)
        it.do("a", hang)
        assert hang.entered.wait(20)
        clock.advance(11.0)
        hung = it.events.expect(ActorHung)
        assert (hung.child, hung.generation, hung.message_type) == ("a", 1, "Do")
        assert "__call__" in hung.stack
        assert it.exited("a", 1).reason is ExitReason.HUNG
        it.started("a", 2)
        assert it.ask("a", "alive") == "alive"
        assert (b.starts, it.system.abandoned) == (1, 1)
        hang.release()
        assert it.events.expect(AbandonedEnded).abandoned == 0
        assert a.tripped is None
    assert [
        life.generation for life in lives.all(Lived) if life.what == "terminate" and life.name == "a"
    ] == [1, 2]


def test_an_actor_that_is_only_idle_is_not_hung() -> None:
    clock = FakeClock()
    _, (a,) = scripts("a")
    with bench(faulty(a, heartbeat=1.0), clock=clock) as it:
        it.started("a", 1)
        for _ in range(50):
            clock.advance(1.0)
            assert it.ask("a", 1) == 1
        assert it.events.count(ActorHung) == 0


def test_what_a_fenced_incarnation_still_does_has_no_effect(traps: Callable[[str], Trap]) -> None:
    clock, hang = FakeClock(), traps("on a lock")
    probe, (a, b) = scripts("a", "b")
    contexts: list[Context] = []
    acted = threading.Event()

    class Zombie(FaultyActor):
        def handle(self, message: object) -> None:
            if message == "hang":
                contexts.append(self.context)
                hang()
                self.context.tell(B, "from the dead")
                self.context.after(0.0, "never")
                self.context.request(B, "from the dead", timeout=1.0)
                self.context.run_job(lambda token: probe.record("job of the dead"), key="k")
                acted.set()
            else:
                super().handle(message)

    zombie = faulty(a, heartbeat=10.0, factory=lambda context: Zombie(context, a))
    with bench(zombie, faulty(b), lives=probe, clock=clock) as it:
        it.started("b", 1)
        it.system.tell(A, "hang")
        assert hang.entered.wait(20)
        clock.advance(11.0)
        it.started("a", 2)
        assert contexts[0].fenced
        hang.release()
        assert acted.wait(20)
        it.events.expect(AbandonedEnded)
        assert it.ask("b", "end") == "end"
        letters = [event.reason for event in it.events.all(DeadLetter)]
        assert letters == [DeadLetterReason.SENDER_FENCED] * 3
    assert not [life for life in probe.all(Lived) if life.what == "from the dead"]


def test_a_request_to_an_actor_that_hangs_fails_when_it_is_given_up(traps: Callable[[str], Trap]) -> None:
    clock, hang = FakeClock(), traps("on a lock")
    _, (a,) = scripts("a")

    class Hanging(FaultyActor):
        def handle(self, message: object) -> None:
            hang()

    with bench(faulty(a, heartbeat=10.0, factory=lambda context: Hanging(context, a)), clock=clock) as it:
        it.started("a", 1)
        failed = Probe()

        def ask() -> None:
            try:
                it.ask("a", "question")
            except ReceiverDied as error:
                failed.record(error)

        asker = threading.Thread(target=ask)
        asker.start()
        assert hang.entered.wait(20)
        clock.advance(11.0)
        failed.expect(ReceiverDied)
        asker.join()
        hang.release()


def test_an_init_that_hangs_is_given_up_and_its_late_end_ignored(traps: Callable[[str], Trap]) -> None:
    clock, hang = FakeClock(), traps("on a lock")
    lives, (a, b) = scripts("a", "b")
    with bench(faulty(a, start_timeout=5.0), faulty(b), lives=lives, clock=clock) as it:
        it.started("b", 1)
        a.in_init.append(hang)
        it.do("a", raising(RuntimeError("boom")))
        assert hang.entered.wait(20)
        clock.advance(6.0)
        assert it.exited("a", 2).reason is ExitReason.START_TIMED_OUT
        it.started("a", 3)
        hang.release()
        it.events.expect(AbandonedEnded)
        assert it.ask("a", 1) == 1
        assert a.starts == 3


def test_a_first_init_that_hangs_fails_the_start(traps: Callable[[str], Trap]) -> None:
    clock, hang = FakeClock(), traps("on a lock")
    lives, (a, b) = scripts("a", "b")
    b.in_init.append(hang)
    with bench(faulty(a), faulty(b, start_timeout=5.0), lives=lives, clock=clock) as it:
        assert hang.entered.wait(20)
        clock.advance(6.0)
        assert it.run.outcome().kind is OutcomeKind.START_FAILED
    assert it.exited("a", 1).reason is ExitReason.REQUESTED


@pytest.mark.parametrize("where", ["handler", "terminate"])
def test_an_actor_that_hangs_at_shutdown_is_given_up_and_the_others_stop(
    where: str, traps: Callable[[str], Trap]
) -> None:
    clock, hang = FakeClock(), traps("on a lock")
    lives, (a, b, c) = scripts("a", "b", "c")
    with bench(*(faulty(s, shutdown_timeout=5.0) for s in (a, b, c)), lives=lives, clock=clock) as it:
        it.started("c", 1)
        if where == "handler":
            it.do("b", hang)
        else:
            b.in_terminate.append(hang)
            it.system.stop()
        assert hang.entered.wait(20)
        it.system.stop()
        it.exited("c", 1)
        clock.advance(6.0)
        assert it.run.outcome().kind is OutcomeKind.STOPPED
        assert it.exited("b", 1).reason is ExitReason.STOP_TIMED_OUT
        assert it.exited("a", 1).reason is ExitReason.REQUESTED
        assert it.events.expect(ActorAbandoned).child == "b"


def test_too_many_abandoned_threads_stop_the_system(traps: Callable[[str], Trap]) -> None:
    clock = FakeClock()
    _, (a, b) = scripts("a", "b")
    with bench(faulty(a, heartbeat=10.0), faulty(b), clock=clock, max_abandoned=2) as it:
        for generation in range(1, 4):
            it.started("a", generation)
            hang = traps("on a lock")
            it.do("a", hang)
            assert hang.entered.wait(20)
            clock.advance(11.0)
        assert it.run.outcome().kind is OutcomeKind.TOO_MANY_ABANDONED
        limit = it.events.expect(AbandonedLimitReached)
        assert (limit.abandoned, limit.limit) == (3, 2)
        assert it.exited("b", 1).reason is ExitReason.REQUESTED


def test_a_supervisor_that_hangs_is_given_up_with_everything_below_it(traps: Callable[[str], Trap]) -> None:
    clock, hang = FakeClock(), traps("on a lock")
    lives, (a, b) = scripts("a", "b")
    inner = SupervisorSpec(id="inner", children=(faulty(a),), backoff=AT_ONCE)
    with bench(inner, faulty(b), lives=lives, clock=clock) as it:
        it.started("b", 1)
        it.system.inject(Address("inner"), hang)
        assert hang.entered.wait(20)
        clock.advance(40.0)
        it.started("inner", 2)
        it.started("a", 2)
        assert it.ask("a", 1) == 1
        assert a.tripped is None
        hang.release()
        it.events.wait_until(lambda: it.system.abandoned == 0)
        assert it.ask("b", 1) == 1
