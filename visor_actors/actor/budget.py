"""How often and how soon a child may be restarted: the sliding window and the back-off. Pure; time and
chance come in."""

from __future__ import annotations

from collections import deque
from random import Random

from visor_actors.actor.spec import Backoff, Intensity


class RestartWindow:
    """Counts restarts within a sliding window of monotonic seconds."""

    __slots__ = ("_times", "intensity")

    def __init__(self, intensity: Intensity) -> None:
        self.intensity = intensity
        self._times: deque[float] = deque()

    def admits(self, now: float) -> bool:
        """Count one restart at ``now`` if the budget has room for it, and return whether it had."""
        while self._times and now - self._times[0] > self.intensity.window:
            self._times.popleft()
        if len(self._times) >= self.intensity.restarts:
            return False
        self._times.append(now)
        return True

    def clear(self) -> None:
        """Forget every restart so far."""
        self._times.clear()


def restart_delay(backoff: Backoff, attempt: int, rng: Random) -> float:
    """Return the seconds before restart number ``attempt`` (1 is the first) in a row.

    With jitter j the result lies within ``[(1 - j) * d, (1 + j) * d]`` of the nominal delay d, and never
    above the maximum: actors that died of one cause do not come back in step.
    """
    nominal = min(backoff.maximum, backoff.base * 2.0 ** min(attempt - 1, 62))
    if not backoff.jitter or not nominal:
        return nominal
    return min(backoff.maximum, nominal * (1.0 + backoff.jitter * rng.uniform(-1.0, 1.0)))
