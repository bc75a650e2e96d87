"""How often each event has happened: what metrics show."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from visor_actors.telemetry.events import Event, Severity


class EventCounters:
    """Counts events by name and by severity since the start of the process. Subscribe :meth:`record` to the
    bus.

    Any thread may record and read. Names are few and fixed by the code; should one be made up at run time
    after all, the table stops growing at ``most`` names and counts the rest under ``other``.
    """

    def __init__(self, *, most: int = 1000) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._names: Counter[str] = Counter()
        self._severities: Counter[Severity] = Counter()

    def record(self, event: Event) -> None:
        """Count ``event``."""
        with self._lock:
            known = event.name in self._names or len(self._names) < self._most
            self._names[event.name if known else "other"] += 1
            self._severities[event.severity] += 1

    def add(self, name: str, count: int = 1) -> None:
        """Count something that is no event, such as dropped messages."""
        with self._lock:
            self._names[name] += count

    def get(self, name: str) -> int:
        """How often ``name`` has happened."""
        with self._lock:
            return self._names[name]

    def by_name(self) -> Mapping[str, int]:
        """A snapshot: every name that has happened, sorted."""
        with self._lock:
            return MappingProxyType(dict(sorted(self._names.items())))

    def by_severity(self) -> Mapping[Severity, int]:
        """A snapshot: every severity, those that have not happened too."""
        with self._lock:
            return MappingProxyType({severity: self._severities[severity] for severity in Severity})
