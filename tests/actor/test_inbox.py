from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator

import pytest
from pykka._envelope import Envelope

from visor_actors.actor import Coalesced, DescriptorClosed
from visor_actors.actor.clock import MonotonicClock
from visor_actors.actor.inbox import CLOSED, Inbox, Refusal
from visor_actors.actor.waiting import Waiter
from visor_actors.testing import FakeClock


class Status(Coalesced):
    def __init__(self, value: int) -> None:
        self.value = value


class Config(Coalesced):
    pass


class Leftovers:
    def __init__(self) -> None:
        self.taken: list[object] = []

    def __call__(self, message: object) -> None:
        self.taken.append(message)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def left() -> Leftovers:
    return Leftovers()


@pytest.fixture
def inbox(clock: FakeClock, left: Leftovers) -> Iterator[Inbox]:
    box = Inbox()
    box.configure(clock=clock, capacity=5, on_leftover=left)
    yield box
    box.dispose()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def take(inbox: Inbox, count: int) -> list[object]:
    return [inbox.get().message for _ in range(count)]


def test_messages_come_in_the_order_in_which_one_sender_sent_them(inbox: Inbox) -> None:
    for number in range(5):
        assert inbox.offer(number) is None
    assert take(inbox, 5) == [0, 1, 2, 3, 4]


def test_a_full_inbox_refuses_and_says_why(inbox: Inbox) -> None:
    for number in range(5):
        inbox.offer(number)
    assert inbox.offer(5) is Refusal.FULL
    assert inbox.depth() == 5


def test_a_full_inbox_still_takes_the_newest_of_coalesced_kinds(inbox: Inbox) -> None:
    for number in range(5):
        inbox.offer(number)
    for value in range(1000):
        assert inbox.offer(Status(value)) is None
    config = Config()
    inbox.offer(config)
    take(inbox, 5)
    status, other = take(inbox, 2)
    assert isinstance(status, Status)
    assert status.value == 999
    assert other is config
    assert inbox.depth() == 0


def test_a_full_inbox_still_takes_answers_and_control_messages(inbox: Inbox) -> None:
    for number in range(5):
        inbox.offer(number)
    assert inbox.offer_answer("answer")
    assert inbox.control("stop")
    assert take(inbox, 7) == ["stop", 0, 1, 2, 3, 4, "answer"]


def test_control_overtakes_10_000_messages(clock: FakeClock) -> None:
    box = Inbox()
    box.configure(clock=clock, capacity=10_000, on_leftover=None)
    for number in range(10_000):
        box.offer(number)
    box.control("stop")
    assert box.get().message == "stop"
    box.dispose()


def test_due_timers_overtake_messages_but_do_not_starve_them(inbox: Inbox, clock: FakeClock) -> None:
    inbox.offer("message")
    for number in range(100):
        inbox.arm(0.0, number)
    clock.advance(0.0)
    assert "message" in take(inbox, 20)


def test_a_timer_fires_when_its_time_has_come_and_not_before(inbox: Inbox, clock: FakeClock) -> None:
    inbox.arm(10.0, "late")
    inbox.arm(5.0, "early")
    inbox.offer("now")
    assert inbox.get().message == "now"
    clock.advance(4.999)
    inbox.offer("not yet")
    assert inbox.get().message == "not yet"
    clock.advance(0.001)
    assert inbox.get().message == "early"
    inbox.offer("meanwhile")
    assert inbox.get().message == "meanwhile"
    clock.advance(5.0)
    assert inbox.get().message == "late"


def test_the_same_key_re_arms_a_timer_and_cancelling_drops_it(inbox: Inbox, clock: FakeClock) -> None:
    inbox.arm(1.0, "first", "key")
    inbox.arm(2.0, "second", "key")
    inbox.arm(1.5, "other", "dropped")
    inbox.cancel("dropped")
    clock.advance(5.0)
    inbox.offer("end")
    assert take(inbox, 2) == ["second", "end"]


def test_cancelled_timers_do_not_pile_up(inbox: Inbox) -> None:
    for number in range(10_000):
        inbox.arm(1000.0, number, "key")
    assert len(inbox._timers._heap) < 200


def test_a_thread_that_waits_is_woken_by_a_message_a_timer_and_a_descriptor(pipe: tuple[int, int]) -> None:
    box = Inbox()
    box.configure(clock=MonotonicClock(), capacity=5, on_leftover=None)
    got: list[object] = []

    def serve() -> None:
        while (message := box.get().message) is not CLOSED:
            got.append(message)
            if message == "watch":
                box.watch(pipe[0], "readable")
                box.arm(0.01, "timer")
            if message == "readable":
                os.read(pipe[0], 100)
        box.dispose()

    thread = threading.Thread(target=serve)
    thread.start()
    box.offer("watch")
    while "timer" not in got:
        threading.Event().wait(0.001)
    os.write(pipe[1], b"x")
    while "readable" not in got:
        threading.Event().wait(0.001)
    box.offer("last")
    while "last" not in got:
        threading.Event().wait(0.001)
    box.close()
    thread.join(20)
    assert got == ["watch", "timer", "readable", "last"]


def test_a_readable_descriptor_is_delivered_again_until_it_is_read(
    inbox: Inbox, pipe: tuple[int, int]
) -> None:
    inbox.watch(pipe[0], "readable")
    os.write(pipe[1], b"x")
    assert take(inbox, 3) == ["readable"] * 3
    os.read(pipe[0], 1)
    inbox.offer("message")
    assert inbox.get().message == "message"


def test_the_end_of_a_descriptor_is_delivered(inbox: Inbox) -> None:
    reader, writer = os.pipe()
    inbox.watch(reader, "end")
    os.close(writer)
    assert inbox.get().message == "end"
    inbox.unwatch(reader)
    os.close(reader)


def test_messages_and_descriptors_do_not_starve_each_other(inbox: Inbox, pipe: tuple[int, int]) -> None:
    inbox.watch(pipe[0], "readable")
    os.write(pipe[1], b"x")
    seen = []
    for number in range(100):
        inbox.offer(number)
        seen.append(inbox.get().message)
    assert "readable" in seen
    assert {type(message) for message in seen} == {int, str}


def test_a_timer_that_is_always_due_does_not_starve_descriptors(inbox: Inbox, pipe: tuple[int, int]) -> None:
    inbox.watch(pipe[0], "readable")
    os.write(pipe[1], b"x")
    seen = []
    for _ in range(100):
        inbox.arm(0.0, "timer", "key")
        seen.append(inbox.get().message)
    assert set(seen) == {"timer", "readable"}


def test_an_unwatched_descriptor_is_not_delivered_even_if_it_was_ready(
    inbox: Inbox, pipe: tuple[int, int]
) -> None:
    inbox.watch(pipe[0], "readable")
    os.write(pipe[1], b"x")
    assert inbox.get().message == "readable"
    inbox.unwatch(pipe[0])
    inbox.offer("message")
    assert inbox.get().message == "message"
    assert inbox._waiter.sleep(0.0) == [], "else it would never sleep again"


def test_a_descriptor_closed_while_watched_is_an_error_and_no_busy_loop(inbox: Inbox) -> None:
    reader, writer = os.pipe()
    inbox.watch(reader, "readable")
    os.close(reader)
    os.close(writer)
    with pytest.raises(DescriptorClosed) as error:
        inbox.get()
    assert error.value.fd == reader


def test_closing_gives_back_what_is_left_and_refuses_the_rest(inbox: Inbox, left: Leftovers) -> None:
    inbox.offer(1)
    newest = Status(2)
    inbox.offer(Status(1))
    inbox.offer(newest)
    inbox.close()
    assert left.taken == [1, newest]
    assert inbox.offer(3) is Refusal.CLOSED
    assert not inbox.offer_answer(3)
    assert not inbox.control(3)
    assert inbox.get().message is CLOSED


def test_with_many_senders_every_message_is_delivered_or_given_back_exactly_once() -> None:
    left = Leftovers()
    box = Inbox()
    box.configure(clock=MonotonicClock(), capacity=1_000_000, on_leftover=left)
    got: list[object] = []
    refused: list[object] = []
    go = threading.Event()

    def send(sender: int) -> None:
        go.wait()
        for number in range(2000):
            if box.offer((sender, number)) is not None:
                refused.append((sender, number))

    def serve() -> None:
        while (message := box.get().message) is not CLOSED:
            got.append(message)
        box.dispose()

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(4)]
    threads.append(threading.Thread(target=serve))
    for thread in threads:
        thread.start()
    go.set()
    while len(got) < 1000:
        threading.Event().wait(0.0005)
    box.close()
    for thread in threads:
        thread.join(20)
    everything = [*got, *left.taken, *refused]
    assert len(everything) == 8000
    assert len(set(everything)) == 8000


def test_an_inbox_without_watched_descriptors_needs_none_of_its_own(
    inbox: Inbox, pipe: tuple[int, int]
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    inbox.offer(1)
    inbox.get()
    assert set(os.listdir("/proc/self/fd")) == before
    inbox.watch(pipe[0], "readable")
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    inbox.dispose()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("send", ["offer", "offer_answer"])
def test_a_message_that_arrives_while_the_inbox_is_closing_is_given_back(
    inbox: Inbox, left: Leftovers, send: str
) -> None:
    class Closing(deque[object]):
        """Closes the inbox between the sender's look and its append, where no lock stands."""

        def append(self, message: object, /) -> None:
            inbox.close()
            super().append(message)

    inbox._lane = Closing()
    getattr(inbox, send)("late")
    assert left.taken == ["late"]


@pytest.mark.parametrize("how", ["offer", "offer_answer", "control", "close", "put"])
def test_what_comes_just_before_the_owner_falls_asleep_keeps_it_awake(how: str, clock: FakeClock) -> None:
    """The sender has looked whether it must wake the owner, and the owner whether anything waits."""
    sends = {
        "offer": lambda box: box.offer("late"),
        "offer_answer": lambda box: box.offer_answer("late"),
        "control": lambda box: box.control("late"),
        "close": lambda box: box.close(),
        "put": lambda box: box.put(Envelope("late")),
    }

    class Sleepless(Waiter):
        def sleep(self, seconds: float | None) -> list[int]:
            raise AssertionError("it sleeps and nobody will wake it")

    class Drowsy(Inbox):
        def _wait(self) -> None:
            sends[how](self)
            super()._wait()

    box = Drowsy()
    box.configure(clock=clock, capacity=5, on_leftover=None)
    box._waiter = Sleepless()
    assert box.get().message == (CLOSED if how == "close" else "late")
    box.dispose()
