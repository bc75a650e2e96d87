"""Work that must block, on short-lived threads beside the actor. Results come back as messages, to one
incarnation only."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable

from msgspec import Struct

from visor_actors.actor.failure import Failure
from visor_actors.actor.inbox import Inbox
from visor_actors.actor.messages import CancelToken, JobDone, JobFailed

_serials = itertools.count(1)


class JobEnded(Struct, frozen=True):
    """How a job thread reports. The actor sees the result only if this job is still the current one of its
    key."""

    serial: int
    result: JobDone | JobFailed


class JobExpired(Struct, frozen=True):
    """A job's time is up."""

    serial: int
    key: Hashable
    timeout: float


class Jobs:
    """The jobs of one incarnation. ``cancel_all`` is for any thread, the rest for the actor's."""

    def __init__(self, owner: str, inbox: Inbox) -> None:
        self._owner = owner
        self._inbox = inbox
        self._running: dict[Hashable, tuple[int, CancelToken]] = {}

    def run(self, function: Callable[[CancelToken], object], key: Hashable, timeout: float | None) -> None:
        """Start ``function`` on a thread; a running job of the same key is cancelled first."""
        self.cancel(key)
        serial = next(_serials)
        token = CancelToken()
        self._running[key] = (serial, token)
        thread = threading.Thread(
            target=self._work,
            args=(function, key, serial, token),
            name=f"{self._owner}/job {key}",
            daemon=True,
        )
        if timeout is not None:
            self._inbox.arm(timeout, JobExpired(serial, key, timeout), key=("job", key))
        try:
            thread.start()
        except BaseException as error:
            self._inbox.offer_answer(JobEnded(serial, JobFailed(key, Failure.of(error))))

    def _work(
        self, function: Callable[[CancelToken], object], key: Hashable, serial: int, token: CancelToken
    ) -> None:
        result: JobDone | JobFailed
        try:
            result = JobDone(key, function(token))
        except BaseException as error:
            result = JobFailed(key, Failure.of(error))
        self._inbox.offer_answer(JobEnded(serial, result))

    def cancel(self, key: Hashable) -> None:
        """Cancel the job of ``key``; its result will not count."""
        known = self._running.pop(key, None)
        if known is not None:
            known[1].cancel()
            self._inbox.cancel(("job", key))

    def cancel_all(self) -> None:
        """Cancel every job."""
        while self._running:
            try:
                _, (_, token) = self._running.popitem()
            except KeyError:
                return
            token.cancel()

    def accept(self, event: JobEnded | JobExpired) -> JobDone | JobFailed | None:
        """Return what the actor is to be told, None for a job that does not count any more."""
        key = event.key if isinstance(event, JobExpired) else event.result.key
        serial, token = self._running.get(key, (0, None))
        if serial != event.serial or token is None:
            return None
        del self._running[key]
        self._inbox.cancel(("job", key))
        if isinstance(event, JobEnded):
            return event.result
        token.cancel()
        return JobFailed(key, Failure("JobTimedOut", f"it was still running after {event.timeout:g} s"))
