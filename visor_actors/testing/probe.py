"""Records what happens on other threads, and lets the test wait for it with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds that a test waits for something that should happen at once. Only a failing test waits that long."""


class ProbeTimedOut(AssertionError):
    """What was waited for did not happen; the message has what did."""


class Probe:
    """A thread-safe record of anything. An instance can be called, so it serves as an event handler.

    ``expect`` finds each item once: the next call for the same type returns the next one.
    """

    def __init__(self) -> None:
        self._items: list[object] = []
        self._taken: set[int] = set()
        self._changed = threading.Condition()

    def __call__(self, item: object) -> None:
        self.record(item)

    def record(self, item: object) -> None:
        """Append ``item``. Any thread."""
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def all(self, kind: type[T]) -> list[T]:
        """Return every item of ``kind`` so far, in order."""
        with self._changed:
            return [item for item in self._items if isinstance(item, kind)]

    def count(self, kind: type) -> int:
        """Return how many items of ``kind`` there are."""
        return len(self.all(kind))

    def expect(
        self, kind: type[T], matching: Callable[[T], bool] | None = None, *, timeout: float = PATIENCE
    ) -> T:
        """Wait for an item of ``kind`` (that ``matching`` accepts) which no earlier call has returned, and
        return it."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for index, item in enumerate(self._items):
                    if index in self._taken or not isinstance(item, kind):
                        continue
                    if matching is None or matching(item):
                        self._taken.add(index)
                        return item
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ProbeTimedOut(f"no {kind.__name__} came within {timeout:g} s; seen: {self._tail()}")
                self._changed.wait(left)

    def wait_until(self, condition: Callable[[], bool], *, timeout: float = PATIENCE) -> None:
        """Wait until ``condition`` holds; it is looked at after each new item, and now and then."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ProbeTimedOut(f"not so within {timeout:g} s; seen: {self._tail()}")
                self._changed.wait(min(left, 0.01))

    def _tail(self) -> str:
        shown = "\n  ".join(repr(item)[:300] for item in self._items[-20:])
        return f"{len(self._items)} items, the last ones:\n  {shown}" if shown else "nothing"
