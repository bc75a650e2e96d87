"""A clock that stands still until the test moves it."""

from __future__ import annotations

import threading
from collections.abc import Callable


class FakeClock:
    """Time in seconds that only :meth:`advance` moves. Serves pure code as well as a whole running
    ActorSystem.

    With a running system, timers that became due are delivered soon after ``advance`` returns; wait for
    what they cause.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self._sleepers: dict[object, Callable[[], None]] = {}

    def now(self) -> float:
        """Return the time. Any thread."""
        return self._now

    def patience(self, deadline: float) -> float | None:
        """Never make a thread wait in real time: 0 if ``deadline`` has come, else until this clock moves."""
        return 0.0 if deadline <= self._now else None

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` at each move; the returned function ends that."""
        key = object()
        with self._lock:
            self._sleepers[key] = wake

        def unsubscribe() -> None:
            with self._lock:
                self._sleepers.pop(key, None)

        return unsubscribe

    def advance(self, seconds: float) -> float:
        """Move on by ``seconds`` and return the new time. Any thread."""
        if seconds < 0:
            raise ValueError("a monotonic clock does not go back")
        with self._lock:
            self._now += seconds
            sleepers = list(self._sleepers.values())
        for wake in sleepers:
            wake()
        return self._now
