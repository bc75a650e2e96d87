"""How often the same thing may be reported: at once, then at growing intervals. Pure; time comes in from
outside.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from msgspec import Struct

Fingerprint = tuple[str, ...]


class _Seen(Struct):
    seen: float
    sent: float
    interval: float
    suppressed: int = 0


class RateLimit:
    """Lets the first of each fingerprint through, then one per interval, which doubles up to ``longest``.

    A fingerprint that has been quiet for ``longest`` seconds starts afresh. ``burst`` bounds what all of
    them together may send within a minute. Times are seconds of one monotonic clock. Not thread-safe.
    """

    def __init__(
        self, *, first: float = 60.0, longest: float = 3600.0, burst: int = 30, most: int = 500
    ) -> None:
        self._first = first
        self._longest = longest
        self._burst = burst
        self._most = most
        self._seen: OrderedDict[Fingerprint, _Seen] = OrderedDict()
        self._sent: deque[float] = deque()

    def admit(self, fingerprint: Fingerprint, now: float) -> int | None:
        """None: do not send. Else send, and say how many alike were held back since the last one."""
        while self._sent and now - self._sent[0] >= 60.0:
            self._sent.popleft()
        seen = self._seen.get(fingerprint)
        if seen is not None:
            self._seen.move_to_end(fingerprint)
        full = len(self._sent) >= self._burst
        if seen is None or now - seen.seen >= self._longest:
            held_back = 0 if seen is None else seen.suppressed
            if full:
                # Not remembered as sent: it goes out as soon as there is room again.
                return None
            self._remember(fingerprint, _Seen(seen=now, sent=now, interval=self._first))
        elif full or now - seen.sent < seen.interval:
            seen.seen = now
            seen.suppressed += 1
            return None
        else:
            held_back = seen.suppressed
            seen.seen = seen.sent = now
            seen.suppressed = 0
            seen.interval = min(self._longest, seen.interval * 2)
        self._sent.append(now)
        return held_back

    def _remember(self, fingerprint: Fingerprint, seen: _Seen) -> None:
        self._seen[fingerprint] = seen
        while len(self._seen) > self._most:
            self._seen.popitem(last=False)
