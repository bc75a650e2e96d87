"""What processes use of the machine, for ``status``."""

from __future__ import annotations

import time
from collections.abc import Iterable

from msgspec import Struct


class Usage(Struct, frozen=True, kw_only=True):
    """Resident memory in bytes and CPU in percent of one core: since the previous look, at first over
    its life."""

    pid: int
    memory: int
    cpu: float


class UsageMeter:
    """Measures processes, again and again for ``--watch``."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[float, float]] = {}

    def measure(self, pids: Iterable[int | None]) -> tuple[Usage, ...]:
        """Return the usage of those ``pids`` that exist and may be looked at."""
        import psutil

        found: list[Usage] = []
        for pid in sorted({pid for pid in pids if pid}):
            try:
                process = psutil.Process(pid)
                with process.oneshot():
                    times = process.cpu_times()
                    memory = process.memory_info().rss
                    born = process.create_time()
            except psutil.Error:
                continue
            spent, now = times.user + times.system, time.time()
            spent_before, then = self._seen.get(pid, (0.0, born))
            self._seen[pid] = (spent, now)
            cpu = 100.0 * (spent - spent_before) / max(now - then, 0.01)
            found.append(Usage(pid=pid, memory=memory, cpu=round(max(cpu, 0.0), 1)))
        return tuple(found)
