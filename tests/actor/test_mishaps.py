"""What one part gets wrong, or does to excess, harms no other: closed descriptors, floods, racing answers."""

from __future__ import annotations

import os
import threading

import pytest

from tests.actor.test_messages import Asking, asking
from tests.actor.trees import bench, faulty, raising, scripts, waiting
from visor_actors.actor import (
    ActorExited,
    Address,
    DeadLetter,
    DeadLetterReason,
    DescriptorClosed,
    ExitReason,
    Failure,
    MonotonicClock,
    Request,
    RequestFailed,
    Token,
)
from visor_actors.actor.actor_cell import ActorCell
from visor_actors.actor.inbox import Inbox
from visor_actors.actor.publisher import QUEUE_LIMIT, Publisher
from visor_actors.actor.switchboard import Switchboard
from visor_actors.testing import FakeClock, Probe

A, B = Address("a"), Address("b")


def actor_cell(it: object) -> ActorCell:
    assert isinstance(it, ActorCell)
    return it


# --- descriptors


def test_an_actor_that_closes_the_descriptor_of_its_own_inbox_is_restarted() -> None:
    """As one does that closes a descriptor twice, the second time somebody else's."""
    probe = Probe()
    reader, writer = os.pipe2(os.O_NONBLOCK)

    class Watching(Asking):
        def init(self) -> None:
            self.context.watch(reader, "readable")

    _, (a,) = scripts("a")
    with bench(faulty(a, factory=lambda context: Watching(context, probe))) as it:
        it.started("a", 1)
        inbox = it.cell("a").actor_inbox
        it.do("a", lambda: os.close(inbox._waiter._alarm))
        exited = it.exited("a", 1)
        assert exited.reason is ExitReason.CRASHED
        assert exited.failure is not None
        assert exited.failure.type_name == DescriptorClosed.__name__
        it.started("a", 2)
        it.system.tell(A, "serves")
        assert probe.expect(str) == "serves"
    os.close(reader)
    os.close(writer)


def test_an_inbox_whose_own_descriptor_was_closed_can_be_woken_again() -> None:
    """The root goes on after such a mishap, to stop its children."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    inbox = Inbox()
    inbox.configure(clock=MonotonicClock(), capacity=5, on_leftover=None)
    inbox.watch(reader, "readable")
    os.close(inbox._waiter._alarm)
    inbox._nudge()  # a sender does not notice
    with pytest.raises(DescriptorClosed):
        inbox.get()
    sender = threading.Timer(0.01, inbox.control, args=("woken",))
    sender.start()
    assert inbox.get().message == "woken"
    sender.join()
    inbox.dispose()
    os.close(reader)
    os.close(writer)


def test_an_end_is_reported_even_if_the_inbox_cannot_be_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    lives, (a,) = scripts("a")
    unraised: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda it: unraised.append(it.exc_type.__name__))
    with bench(faulty(a), lives=lives) as it:
        it.started("a", 1)
        inbox = it.cell("a").actor_inbox
        dispose = inbox.dispose

        def fail() -> None:
            dispose()
            raise OSError("not today")

        monkeypatch.setattr(inbox, "dispose", fail)
        it.do("a", raising(RuntimeError("boom")))
        assert it.exited("a", 1).reason is ExitReason.CRASHED
        it.started("a", 2)
    assert unraised == ["OSError"]


# --- floods


def test_a_flood_of_dead_letters_crowds_out_nothing_that_happens_to_an_actor() -> None:
    go, told = threading.Event(), Probe()

    def handler(event: object) -> None:
        waiting(go)
        told.record(event)

    publisher = Publisher(handler)
    publisher.start()
    letter = DeadLetter(child="a", message_type="str", reason=DeadLetterReason.INBOX_FULL, total=1)
    for _ in range(2 * QUEUE_LIMIT):
        publisher.publish(letter)
    exited = ActorExited(child="a", generation=1, reason=ExitReason.CRASHED, failure=Failure("Boom", "boom"))
    publisher.publish(exited)
    go.set()
    assert told.expect(ActorExited) == exited
    publisher.stop()
    assert QUEUE_LIMIT <= publisher.lost <= 2 * QUEUE_LIMIT


def test_a_full_queue_loses_events_and_counts_them() -> None:
    publisher = Publisher(lambda event: None)
    exited = ActorExited(child="a", generation=1, reason=ExitReason.NORMAL, failure=None)
    for _ in range(QUEUE_LIMIT + 7):
        publisher.publish(exited)
    assert publisher.lost == 7
    publisher.stop()


def test_messages_to_nobody_are_counted_from_every_thread() -> None:
    letters: list[DeadLetter] = []
    switchboard = Switchboard(["a"], letters.append)
    go = threading.Event()

    def send() -> None:
        waiting(go)
        for _ in range(2000):
            switchboard.deliver(Address("nobody"), "hello")

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert switchboard.dead_letters == 8000
    assert sorted(letter.total for letter in letters) == list(range(1, 8001))
    assert {letter.child for letter in letters} == {"nobody"}


# --- requests


class Silent:
    """Asks, and does not care for the answer."""

    def __init__(self) -> None:
        self.answers: list[object] = []

    def answer(self, answer: object) -> None:
        self.answers.append(answer)


def test_requests_that_nobody_waits_for_any_more_are_forgotten() -> None:
    clock, probe, asker = FakeClock(), Probe(), Silent()
    with bench(asking("a", probe, capacity=5000), clock=clock) as it:
        it.started("a", 1)
        for _ in range(3):
            for _ in range(600):
                request = Request("question", Token(), None, clock.now() + 5.0, asker)
                it.system.tell(A, request)
            it.system.tell(A, "all asked")
            probe.expect(str)
            clock.advance(5.0)
        assert len(actor_cell(it.cell("a")).owed) <= 1200
    assert 600 <= len(asker.answers) <= 1200
    assert all(isinstance(answer, RequestFailed) for answer in asker.answers)


def test_a_request_may_be_answered_by_another_thread_while_old_ones_are_forgotten() -> None:
    probe, asker = Probe(), Silent()
    owed: list[dict[Token, Request]] = []

    class Expiry(float):
        """Compared when old requests are looked for: at that moment a job answers one."""

        def _meanwhile(self) -> None:
            if owed and owed[0]:
                owed[0].popitem()

        def __le__(self, other: float) -> bool:
            self._meanwhile()
            return super().__le__(other)

        def __gt__(self, other: float) -> bool:
            self._meanwhile()
            return super().__gt__(other)

    with bench(asking("a", probe, capacity=5000), clock=FakeClock()) as it:
        it.started("a", 1)
        owed.append(actor_cell(it.cell("a")).owed)
        for _ in range(600):
            it.system.tell(A, Request("question", Token(), None, Expiry(1e9), asker))
        it.system.tell(A, "all asked")
        assert probe.expect(str) == "all asked"
        assert it.events.count(ActorExited) == 0


def test_the_answer_of_a_fenced_incarnation_is_a_dead_letter() -> None:
    clock, probe, go = FakeClock(), Probe(), threading.Event()

    class Late(Asking):
        def handle(self, message: object) -> None:
            if isinstance(message, Request):
                probe.record(message)
                waiting(go)
                self.context.reply(message, "too late")
                probe.record("answered")
            else:
                super().handle(message)

    _, (a,) = scripts("a")
    spec = faulty(a, heartbeat=10.0, factory=lambda context: Late(context, probe))
    asker = Silent()
    with bench(spec, clock=clock) as it:
        it.started("a", 1)
        it.system.tell(A, Request("question", Token(), None, clock.now() + 1000.0, asker))
        probe.expect(Request)
        clock.advance(11.0)
        it.started("a", 2)
        go.set()
        assert probe.expect(str) == "answered"
        letter = it.events.expect(DeadLetter)
        assert (letter.child, letter.reason) == ("a", DeadLetterReason.SENDER_FENCED)
    assert [type(answer) for answer in asker.answers] == [RequestFailed]
