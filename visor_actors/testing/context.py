"""A context for testing one actor's decisions without threads: it writes down what the actor does to the
world."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import TypeVar

from msgspec import Struct

from visor_actors.actor import Address, CancelToken, Context, JobDone, JobFailed, Request, Token
from visor_actors.actor.clock import Clock
from visor_actors.actor.failure import Failure
from visor_actors.testing.clock import FakeClock

T = TypeVar("T")


class Job(Struct):
    """A job that was asked for. It runs when the test calls :meth:`RecordingContext.finish_job`."""

    function: Callable[[CancelToken], object]
    timeout: float | None
    token: CancelToken


class RecordingContext(Context):
    """Everything an actor did, in public attributes; nothing really happens. Once the test has set
    ``is_fenced`` nothing is written down any more, as nothing would happen.

    ``told``: (address, message). ``timers``: key -> (delay, message), those without a key under an integer.
    ``watched``: fd -> message. ``requests``: token -> (address, body, timeout). ``replies``: (request,
    value). ``jobs``: key -> Job.
    """

    def __init__(self, name: str = "actor", *, generation: int = 1, clock: Clock | None = None) -> None:
        self._address = Address(name)
        self._generation = generation
        self.clock = clock or FakeClock()
        self.is_fenced = False
        self.stopped = False
        self.told: list[tuple[Address, object]] = []
        self.timers: dict[Hashable, tuple[float, object]] = {}
        self.watched: dict[int, object] = {}
        self.requests: dict[Token, tuple[Address, object, float]] = {}
        self.replies: list[tuple[Request, object]] = []
        self.jobs: dict[Hashable, Job] = {}
        self._anonymous = 0

    @property
    def address(self) -> Address:
        """See :class:`Context`."""
        return self._address

    @property
    def generation(self) -> int:
        """See :class:`Context`."""
        return self._generation

    @property
    def fenced(self) -> bool:
        """What the test has put into ``is_fenced``."""
        return self.is_fenced

    def now(self) -> float:
        """The time of ``clock``."""
        return self.clock.now()

    def tell(self, to: Address, message: object) -> None:
        """Append to ``told``."""
        if self.is_fenced:
            return
        self.told.append((to, message))

    def after(self, delay: float, message: object, *, key: Hashable | None = None) -> None:
        """Put into ``timers``."""
        if self.is_fenced:
            return
        if key is None:
            self._anonymous += 1
            key = self._anonymous
        self.timers[key] = (delay, message)

    def cancel(self, key: Hashable) -> None:
        """Take out of ``timers``."""
        if self.is_fenced:
            return
        self.timers.pop(key, None)

    def watch(self, fd: int, message: object) -> None:
        """Put into ``watched``."""
        if self.is_fenced:
            return
        self.watched[fd] = message

    def unwatch(self, fd: int) -> None:
        """Take out of ``watched``."""
        if self.is_fenced:
            return
        self.watched.pop(fd, None)

    def request(self, to: Address, body: object, *, timeout: float) -> Token:
        """Put into ``requests``. Raises ValueError where the real one does."""
        if not 0 < timeout < math.inf:
            raise ValueError(f"a request to {to} needs a finite timeout above 0 seconds, not {timeout!r}")
        token = Token()
        if not self.is_fenced:
            self.requests[token] = (to, body, timeout)
        return token

    def reply(self, request: Request, value: object) -> None:
        """Append to ``replies``."""
        if self.is_fenced:
            return
        self.replies.append((request, value))

    def run_job(
        self, function: Callable[[CancelToken], T], *, key: Hashable, timeout: float | None = None
    ) -> None:
        """Put into ``jobs``."""
        if self.is_fenced:
            return
        self.cancel_job(key)
        self.jobs[key] = Job(function, timeout, CancelToken())

    def cancel_job(self, key: Hashable) -> None:
        """Take out of ``jobs`` and set its token."""
        if self.is_fenced:
            return
        job = self.jobs.pop(key, None)
        if job is not None:
            job.token.cancel()

    def stop(self) -> None:
        """Set ``stopped``."""
        if self.is_fenced:
            return
        self.stopped = True

    # --- for the test

    def messages_to(self, name: str) -> list[object]:
        """Return what was told to the address ``name``."""
        return [message for to, message in self.told if to.name == name]

    def fire(self, key: Hashable) -> object:
        """Take the timer of ``key`` and return its message, for the test to hand to the actor."""
        return self.timers.pop(key)[1]

    def finish_job(self, key: Hashable) -> JobDone | JobFailed:
        """Run the job of ``key`` here and now and return its message, for the test to hand to the actor."""
        job = self.jobs.pop(key)
        try:
            return JobDone(key, job.function(job.token))
        except BaseException as error:
            return JobFailed(key, Failure.of(error))
