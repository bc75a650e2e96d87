"""Time, as the runtime sees it. Tests bring their own clock (:class:`visor_actors.testing.FakeClock`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock in seconds. Every method may be called from any thread."""

    def now(self) -> float:
        """Return the current time; it never goes back."""
        ...

    def patience(self, deadline: float) -> float | None:
        """Return for how many real seconds a thread may block that has to act at ``deadline``; None: until
        it is woken."""
        ...

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have ``wake`` called whenever this clock jumps; the returned function ends that."""
        ...


class MonotonicClock:
    """The real one: ``CLOCK_MONOTONIC``, untouched by steps of the wall clock."""

    now = staticmethod(time.monotonic)

    def patience(self, deadline: float) -> float | None:
        """Return the time left, at least 0."""
        return max(0.0, deadline - time.monotonic())

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002  # the protocol has it
        """Real time never jumps: nothing to subscribe to."""
        return _nothing


def _nothing() -> None:
    return
