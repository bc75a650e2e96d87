"""What one writes (:class:`Actor`) and what one is given (:class:`Context`)."""

from __future__ import annotations

import abc
from collections.abc import Callable, Hashable
from typing import TypeVar

from visor_actors.actor.messages import Address, CancelToken, Request, Token

T = TypeVar("T")


class Actor:
    """One incarnation of an actor. Subclass it; a :class:`~visor_actors.actor.ChildSpec` names a factory
    for it.

    All four methods run on the actor's own thread. Whatever they raise, ``SystemExit`` and the like
    included, ends this incarnation only and is reported to the supervisor, once, after :meth:`terminate`.
    """

    def __init__(self, context: Context) -> None:
        """Keep ``context``. Do nothing here that can fail or wait: that belongs into :meth:`init`."""
        self.context = context

    def init(self) -> None:
        """Re-read the truth and become ready. Returning acknowledges the start; the next sibling waits for
        it."""

    def handle(self, message: object) -> None:
        """Do what ``message`` asks, quickly: timers, descriptors and all other messages wait meanwhile."""

    def terminate(self) -> None:
        """Give resources back. Called last, once, after every init, failed or not, unless the factory
        itself failed.

        It may take the ``shutdown_timeout`` if the supervisor asked for the end, else as long as a message.
        An abandoned incarnation gets here too, if its thread ever comes back: look at ``context.fenced``
        before touching anything that a successor may own by now.
        """


class Context(abc.ABC):
    """What an actor may do to the world. Unless said otherwise, for the actor's own thread only
    (WrongThread is raised).

    An incarnation that was abandoned or has ended is *fenced*: these methods then do nothing, and what it
    would have sent counts as dead letters.
    """

    @property
    @abc.abstractmethod
    def address(self) -> Address:
        """Where this actor is reached."""

    @property
    @abc.abstractmethod
    def generation(self) -> int:
        """The number of this incarnation; it only grows."""

    @property
    @abc.abstractmethod
    def fenced(self) -> bool:
        """Whether this incarnation has been given up or has ended. Any thread."""

    @abc.abstractmethod
    def now(self) -> float:
        """Return the system's monotonic time in seconds. Any thread."""

    @abc.abstractmethod
    def tell(self, to: Address, message: object) -> None:
        """Send ``message``. Never raises, never blocks; what cannot be delivered is a dead letter. Any
        thread."""

    @abc.abstractmethod
    def after(self, delay: float, message: object, *, key: Hashable | None = None) -> None:
        """Have ``message`` delivered to this incarnation in ``delay`` seconds. The same key (not None)
        re-arms."""

    @abc.abstractmethod
    def cancel(self, key: Hashable) -> None:
        """Drop the timer of ``key``, if there is one. Its message will not come, even if it was due."""

    @abc.abstractmethod
    def watch(self, fd: int, message: object) -> None:
        """Have ``message`` delivered while ``fd`` is readable, at its end or in error, again after each
        time it was handled.

        Read without blocking: now and then there is nothing left to read. Unwatch before closing.
        """

    @abc.abstractmethod
    def unwatch(self, fd: int) -> None:
        """Stop watching ``fd``; nothing happens if it is not watched."""

    @abc.abstractmethod
    def request(self, to: Address, body: object, *, timeout: float) -> Token:
        """Ask ``to``: its ``handle`` gets ``Request(body, ...)``. Exactly one ``Reply`` or
        ``RequestFailed`` with the returned token comes back, the latter at once if the receiver is down or
        dies, and after ``timeout`` seconds."""

    @abc.abstractmethod
    def reply(self, request: Request, value: object) -> None:
        """Answer ``request``. The first answer counts. Any thread."""

    @abc.abstractmethod
    def run_job(
        self, function: Callable[[CancelToken], T], *, key: Hashable, timeout: float | None = None
    ) -> None:
        """Run ``function`` on a daemon thread of its own; ``JobDone(key, value)`` or ``JobFailed(key,
        failure)`` comes back.

        It is cancelled (its token set, its result dropped) when this incarnation ends, at ``timeout``
        seconds, by ``cancel_job`` and by another job of the same key.
        """

    @abc.abstractmethod
    def cancel_job(self, key: Hashable) -> None:
        """Cancel the job of ``key``, if there is one. Its result will not come."""

    @abc.abstractmethod
    def stop(self) -> None:
        """End this incarnation normally after the current message. A permanent child is started again."""
