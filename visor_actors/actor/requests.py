"""The asker's side of requests: one port for actors, whose answers are messages, and one for threads that
block."""

from __future__ import annotations

import threading

from visor_actors.actor.events import DeadLetterReason
from visor_actors.actor.inbox import Inbox
from visor_actors.actor.messages import Reply, RequestFailed
from visor_actors.actor.switchboard import Slot


class InboxPort:
    """Delivers answers to one incarnation. Once that has ended they are dead letters."""

    __slots__ = ("_inbox", "_slot")

    def __init__(self, inbox: Inbox, slot: Slot) -> None:
        self._inbox = inbox
        self._slot = slot

    def answer(self, answer: Reply | RequestFailed) -> None:
        """Queue ``answer``. Any thread."""
        if not self._inbox.offer_answer(answer):
            self._slot.dead(answer, DeadLetterReason.LATE_ANSWER)


class BlockingPort:
    """Holds the first answer until the one thread that waits takes it."""

    __slots__ = ("_answer", "_latch")

    def __init__(self) -> None:
        self._latch = threading.Lock()
        self._latch.acquire()
        self._answer: Reply | RequestFailed | None = None

    def answer(self, answer: Reply | RequestFailed) -> None:
        """Take ``answer`` if it is the first. Any thread."""
        if self._answer is None:
            self._answer = answer
            try:
                self._latch.release()
            except RuntimeError:
                return  # two threads answered at once; either answer will do

    def wait(self, seconds: float) -> Reply | RequestFailed | None:
        """Block for the answer; None: the time is up."""
        self._latch.acquire(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))
        return self._answer
