from __future__ import annotations

import threading
from dataclasses import dataclass

from visor_actors.actor import Coalesced, DeadLetter, MonotonicClock, Replayable
from visor_actors.actor.inbox import CLOSED, Inbox
from visor_actors.actor.switchboard import STASH_LIMIT, Replayed, Slot


@dataclass(frozen=True)
class Keep(Replayable):
    sender: int
    number: int


def inbox_of(slot: Slot) -> Inbox:
    inbox = Inbox()
    inbox.configure(
        clock=MonotonicClock(), capacity=10**6, on_leftover=lambda message: slot.take_back(message, deaths=0)
    )
    return inbox


def test_what_waited_comes_before_what_is_sent_later() -> None:
    slot = Slot("a", lambda letter: None)
    slot.deliver(Keep(0, 1))
    slot.deliver(Keep(0, 2))
    inbox = inbox_of(slot)
    slot.attach(inbox, 1)
    slot.deliver(Keep(0, 3))
    assert [inbox.get().message for _ in range(3)] == [Keep(0, 1), Keep(0, 2), Keep(0, 3)]
    inbox.dispose()


def test_what_an_incarnation_died_of_comes_first_and_is_marked() -> None:
    slot = Slot("a", lambda letter: None)
    slot.deliver(Keep(0, 2))
    slot.take_back(Keep(0, 1), deaths=1)
    inbox = inbox_of(slot)
    slot.attach(inbox, 1)
    first = inbox.get().message
    assert first == Replayed(Keep(0, 1), 1)
    inbox.dispose()


def test_a_retired_address_keeps_nothing() -> None:
    dead: list[DeadLetter] = []
    slot = Slot("a", dead.append)
    slot.deliver(Keep(0, 1))
    slot.retire()
    slot.deliver(Keep(0, 2))
    assert [letter.total for letter in dead] == [1, 2]


def test_nothing_is_lost_or_doubled_while_incarnations_come_and_go_under_fire() -> None:
    dead: list[DeadLetter] = []
    slot = Slot("a", dead.append)
    handled: list[object] = []
    over = threading.Event()

    def send(sender: int) -> None:
        for number in range(3000):
            slot.deliver(Keep(sender, number))

    def incarnations() -> None:
        generation = 0
        while not over.is_set():
            generation += 1
            inbox = inbox_of(slot)
            slot.attach(inbox, generation)
            closer = threading.Thread(target=inbox.close)  # as a fence does, from another thread
            for turn in range(50):
                if turn == 25:
                    closer.start()
                message = inbox.get().message if inbox.depth() or inbox.closed else None
                if message is CLOSED:
                    break
                if message is not None:
                    handled.append(message)
            closer.join()
            inbox.dispose()

    senders = [threading.Thread(target=send, args=(sender,)) for sender in range(3)]
    server = threading.Thread(target=incarnations)
    for thread in (server, *senders):
        thread.start()
    for thread in senders:
        thread.join(60)
        assert not thread.is_alive(), "a sender is blocked"
    over.set()
    server.join(60)
    assert not server.is_alive()
    last = inbox_of(slot)
    slot.attach(last, 10**6)
    while last.depth():
        handled.append(last.get().message)
    last.dispose()
    assert len(handled) + len(dead) == 9000
    assert len(set(handled)) == len(handled)
    assert len(handled) > STASH_LIMIT


@dataclass(frozen=True)
class Newest(Replayable, Coalesced):
    value: int


def test_the_newest_of_a_kind_waits_even_if_an_incarnation_died_of_an_older_one() -> None:
    slot = Slot("a", lambda letter: None)
    slot.deliver(Newest(2))  # it was queued behind the one that killed
    slot.take_back(Newest(1), deaths=1)
    inbox = inbox_of(slot)
    slot.attach(inbox, 1)
    assert inbox.depth() == 1
    assert inbox.get().message == Newest(2)
    inbox.dispose()


def test_what_an_incarnation_died_of_gives_way_to_a_newer_one_of_its_kind() -> None:
    slot = Slot("a", lambda letter: None)
    slot.take_back(Newest(1), deaths=1)
    slot.deliver(Newest(2))
    inbox = inbox_of(slot)
    slot.attach(inbox, 1)
    slot.deliver(Newest(3))
    assert inbox.depth() == 1
    assert inbox.get().message == Newest(3)
    inbox.dispose()


def test_an_older_generation_does_not_take_an_address_back() -> None:
    slot = Slot("a", lambda letter: None)
    newer, older = inbox_of(slot), inbox_of(slot)
    slot.attach(newer, 3)
    slot.attach(older, 2)
    slot.deliver(Keep(0, 1))
    assert (slot.generation, newer.depth(), older.depth()) == (3, 1, 0)
    slot.claim(5)
    slot.claim(4)
    assert slot.generation == 5
    newer.dispose()
    older.dispose()
