"""Turns steps of a job into ``Progress`` messages, few enough that nobody drowns in them."""

from __future__ import annotations

import time
from collections.abc import Callable

from visor_actors.install.messages import JobMessage, Phase, Progress

_INTERVAL = 0.25
_MEMORY = 3.0


class ProgressMeter:
    """Tells every change of phase at once and movement within it at most four times a second.

    The rate is that of the last few seconds, so that it follows a connection that changes.
    """

    def __init__(
        self, tell: Callable[[JobMessage], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._phase = Phase.STARTING
        self._done = 0
        self._total: int | None = None
        self._told_at = 0.0
        self._marks: list[tuple[float, int]] = []

    def enter(self, phase: Phase, *, total: int | None = None) -> None:
        """Begin a phase."""
        self._phase, self._done, self._total = phase, 0, total
        self._marks.clear()
        self._told_at = self._clock()
        self._tell(Progress(phase=phase, total=total))

    def reached(self, done: int, total: int | None) -> None:
        """Be at ``done`` of ``total`` bytes."""
        self._done, self._total = done, total
        now = self._clock()
        if not self._marks:
            self._marks.append((now, done))
        if now - self._told_at < _INTERVAL and done != total:
            return
        self._told_at = now
        self._marks = [mark for mark in self._marks[:-1] if now - mark[0] < _MEMORY] + self._marks[-1:]
        since, then = self._marks[0]
        self._marks.append((now, done))
        rate = (done - then) / (now - since) if now > since and done > then else 0.0
        self._tell(Progress(phase=self._phase, done=done, total=total, rate=rate))

    def advance(self, count: int) -> None:
        """Be ``count`` bytes further."""
        self.reached(self._done + count, self._total)
