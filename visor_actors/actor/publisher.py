"""Delivers events to the handler: in order, on one thread of its own, rate-limited.

A handler that raises is counted; one that hangs costs events (counted as well), never an actor. A crash
loop is told in full at first and then summed up: at most ``BURST`` events of one type about one child in
``PERIOD`` seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from msgspec import Struct

from visor_actors.actor.clock import Clock, MonotonicClock
from visor_actors.actor.events import ActorEvent, DeadLetter, EventsSuppressed
from visor_actors.actor.inbox import Closed, Inbox

BURST = 30
PERIOD = 60.0
QUEUE_LIMIT = 10_000
_FLUSH_TIMEOUT = 2.0  # seconds that a hanging handler may delay the end of the system

EventHandler = Callable[[ActorEvent], None]


class _Account(Struct):
    since: float
    count: int = 0
    suppressed: int = 0


class Throttle:
    """Which events pass. Pure: the time comes in."""

    def __init__(self, burst: int, period: float) -> None:
        self._burst = burst
        self._period = period
        self._accounts: dict[tuple[str, str], _Account] = {}

    def admit(self, kind: str, child: str, now: float) -> bool:
        """Count one event and return whether it may pass."""
        account = self._accounts.get((kind, child))
        if account is None or (now - account.since >= self._period and not account.suppressed):
            account = self._accounts[kind, child] = _Account(now)
        account.count += 1
        if account.count <= self._burst:
            return True
        account.suppressed += 1
        return False

    def holds_back(self) -> bool:
        """Whether events are waiting to be summed up."""
        return any(account.suppressed for account in self._accounts.values())

    def expired(self, now: float, *, everything: bool = False) -> list[EventsSuppressed]:
        """Close the accounts whose period is over; return what they held back."""
        summaries = []
        for key, account in list(self._accounts.items()):
            if everything or now - account.since >= self._period:
                del self._accounts[key]
                if account.suppressed:
                    summaries.append(EventsSuppressed(child=key[1], kind=key[0], count=account.suppressed))
        return summaries


class _Tick:
    """Time to sum up."""


class _Stop:
    """Nothing comes after this."""


_STOP = _Stop()


class Publisher:
    """Takes events from any thread. ``failures`` counts handlers that raised, ``lost`` events that found
    the queue full."""

    def __init__(self, handler: EventHandler, clock: Clock | None = None) -> None:
        self._handler = handler
        self._clock = clock or MonotonicClock()
        self._throttle = Throttle(BURST, PERIOD)
        self._inbox = Inbox()
        self._inbox.configure(clock=self._clock, capacity=QUEUE_LIMIT, on_leftover=None)
        self._thread: threading.Thread | None = None
        self._ticking = False
        self._lock = threading.Lock()
        self.failures = 0
        self.lost = 0

    def publish(self, event: ActorEvent) -> None:
        """Queue ``event``. Never blocks or raises.

        Dead letters, of which one busy sender makes many thousands a second, leave half of the queue to what
        happens to actors. They carry their totals, so losing some loses no count.
        """
        crowded = isinstance(event, DeadLetter) and self._inbox.depth() >= QUEUE_LIMIT // 2
        if crowded or self._inbox.offer(event) is not None:
            with self._lock:
                self.lost += 1

    def start(self) -> None:
        """Start delivering."""
        self._thread = threading.Thread(target=self._run, name="actor-events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Deliver what is queued, then end; give up on a handler that hangs."""
        if self._thread is None:
            self._inbox.dispose()
            return
        self._inbox.offer_answer(_STOP)
        self._thread.join(_FLUSH_TIMEOUT)

    def _run(self) -> None:
        try:
            while True:
                event: object = self._inbox.get().message
                if event is _STOP or isinstance(event, Closed):
                    break
                self._take(event)
            for summary in self._throttle.expired(0.0, everything=True):
                self._call(summary)
        finally:
            self._inbox.dispose()

    def _take(self, event: object) -> None:
        now = self._clock.now()
        if isinstance(event, _Tick):
            for summary in self._throttle.expired(now):
                self._call(summary)
            self._ticking = self._throttle.holds_back()
            if self._ticking:
                self._inbox.arm(PERIOD, _Tick())
            return
        child = getattr(event, "child", "")
        if self._throttle.admit(type(event).__name__, child, now):
            self._call(event)
        elif not self._ticking:
            self._ticking = True
            self._inbox.arm(PERIOD, _Tick())

    def _call(self, event: object) -> None:
        try:
            self._handler(event)  # type: ignore[arg-type]  # the queue holds events only
        except BaseException:
            self.failures += 1
