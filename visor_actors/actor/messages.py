"""What travels between actors besides their own messages: requests, answers, results of jobs, and two
marker bases."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Hashable
from typing import Protocol

from msgspec import Struct, field

from visor_actors.actor.failure import Failure


class Address(Struct, frozen=True):
    """Where an actor is reached, whichever incarnation serves there now. Holding one keeps nothing alive."""

    name: str

    def __str__(self) -> str:
        return self.name


class Replayable:
    """Base of messages that wait (a bounded number of them) while the receiver is being restarted, and are
    then delivered.

    Delivery is at least once: one that was being handled when its receiver crashed is delivered to the next
    incarnation too. If that dies of it as well, the message is dead-lettered.
    """

    __slots__ = ()


class Coalesced:
    """Base of messages of which only the newest counts: an inbox keeps one per class, and is never too full
    for it."""

    __slots__ = ()


_serials = itertools.count(1)


class Token(Struct, frozen=True):
    """Names one request. Never used twice within a process."""

    serial: int = field(default_factory=lambda: next(_serials))


class Reply(Struct, frozen=True):
    """The answer to the request ``token``."""

    token: Token
    value: object


class RequestFailed(Struct, frozen=True):
    """The request ``token`` will not be answered: the receiver died, does not run, or the time is up."""

    token: Token
    failure: Failure


class ReplyPort(Protocol):
    """The asker's side of a request. The first answer counts; the port drops the others."""

    def answer(self, answer: Reply | RequestFailed) -> None:
        """Take an answer. Any thread; never blocks or raises."""
        ...


class Request(Struct, frozen=True):
    """What a receiver gets for ``context.request`` or ``ActorSystem.ask``. Answer it with
    ``context.reply``, now or later.

    ``expires`` is when the asker gives up, in seconds of the system's clock.
    """

    body: object
    token: Token
    sender: Address | None
    expires: float
    port: ReplyPort


class JobDone(Struct, frozen=True):
    """The job ``key`` returned ``value``."""

    key: Hashable
    value: object


class JobFailed(Struct, frozen=True):
    """The job ``key`` raised, could not be started, or was still running at its timeout."""

    key: Hashable
    failure: Failure


class JobCancelled(Exception):
    """Raised by :meth:`CancelToken.check` in a job that nobody waits for any more."""


class CancelToken:
    """Tells a job that it is no longer wanted. Threads cannot be killed: a job must look, or wait, here."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether the job should end."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Block for ``seconds`` or until cancelled; return whether cancelled. Use it for ``sleep``."""
        return self._event.wait(seconds)

    def check(self) -> None:
        """Raise :class:`JobCancelled` if cancelled."""
        if self._event.is_set():
            raise JobCancelled

    def cancel(self) -> None:
        """Ask the job to end. Any thread."""
        self._event.set()
