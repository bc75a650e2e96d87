"""How patient a job is: exponential back-off with full jitter, and never sooner than the server asked."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from visor_actors.install.errors import InstallError, TransferFailed

T = TypeVar("T")

_BASE = 0.5
_MAXIMUM = 20.0


def backoff_delay(
    failures: int, rng: random.Random, *, base: float = _BASE, maximum: float = _MAXIMUM
) -> float:
    """Return the seconds to wait after the ``failures``-th failure in a row (1 or more).

    Between half and the whole of ``base`` doubled each time, at most ``maximum``.
    """
    ceiling: float = min(maximum, base * 2.0 ** min(failures - 1, 30))
    return ceiling * (0.5 + rng.random() / 2)


class Patience:
    """Counts failures in a row and waits between tries.

    ``longest_wait``: a server that asks for more than these seconds ends the job instead; its owner comes
    back then.
    """

    def __init__(
        self,
        *,
        attempts: int,
        longest_wait: float,
        sleep: Callable[[float], None],
        rng: random.Random,
        on_retry: Callable[[InstallError, float], None],
    ) -> None:
        self._attempts = attempts
        self._longest_wait = longest_wait
        self._sleep = sleep
        self._rng = rng
        self._on_retry = on_retry
        self._failures = 0

    def progressed(self) -> None:
        """Something was achieved: the count starts again."""
        self._failures = 0

    def wait_after(self, error: InstallError) -> None:
        """Wait before the next try, or raise ``error`` when there shall be none."""
        self._failures += 1
        delay = max(backoff_delay(self._failures, self._rng), error.retry_after or 0.0)
        # A full disk is not waited for here: the owner shows it, and comes back.
        if (
            not isinstance(error, TransferFailed)
            or self._failures >= self._attempts
            or delay > self._longest_wait
        ):
            raise error
        self._on_retry(error, delay)
        self._sleep(delay)

    def call(self, action: Callable[[], T]) -> T:
        """Return what ``action`` returns, trying again after transient errors."""
        while True:
            try:
                result = action()
            except InstallError as error:
                self.wait_after(error)
            else:
                self.progressed()
                return result
