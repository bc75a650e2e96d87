"""The timers of one inbox: keyed, cancelled with their inbox, never fired early."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable

from msgspec import Struct


class _Timer(Struct, order=True):
    deadline: float
    serial: int  # no two are the same, so what follows is never compared
    message: object
    key: Hashable
    cancelled: bool = False


class TimerQueue:
    """Messages that become due. Used by one thread; the times are whatever clock the caller uses."""

    __slots__ = ("_by_key", "_cancelled", "_heap", "_serials")

    def __init__(self) -> None:
        self._heap: list[_Timer] = []
        self._by_key: dict[Hashable, _Timer] = {}
        self._serials = itertools.count()
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def arm(self, deadline: float, message: object, key: Hashable = None) -> None:
        """Have ``message`` become due at ``deadline``. A timer of the same key (not None) is replaced."""
        timer = _Timer(deadline, next(self._serials), message, key)
        if key is not None:
            self.cancel(key)
            self._by_key[key] = timer
        heapq.heappush(self._heap, timer)

    def cancel(self, key: Hashable) -> bool:
        """Drop the timer of ``key`` and return whether there was one."""
        timer = self._by_key.pop(key, None)
        if timer is None:
            return False
        timer.cancelled = True
        timer.message = None
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [kept for kept in self._heap if not kept.cancelled]
            heapq.heapify(self._heap)
            self._cancelled = 0
        return True

    def next_deadline(self) -> float | None:
        """Return when the next timer is due, None if there is none."""
        heap = self._heap
        while heap and heap[0].cancelled:
            heapq.heappop(heap)
            self._cancelled -= 1
        return heap[0].deadline if heap else None

    def take_due(self, now: float) -> tuple[object] | None:
        """Return the message of the earliest timer due at ``now`` (in a tuple), or None."""
        deadline = self.next_deadline()
        if deadline is None or deadline > now:
            return None
        timer = heapq.heappop(self._heap)
        if timer.key is not None:
            del self._by_key[timer.key]
        return (timer.message,)

    def clear(self) -> None:
        """Drop all timers."""
        self._heap.clear()
        self._by_key.clear()
        self._cancelled = 0
