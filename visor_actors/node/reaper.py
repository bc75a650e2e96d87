"""As the first process of a container, visor inherits every orphan: collect them, and only them.

An orphan that has ended stays a zombie until its new parent, pid 1, has waited for it. But the children
that visor started itself belong to whoever started them: if those were collected here, ``subprocess`` would
report exit code 0 for a process that failed. So a zombie is collected only after it has been one for a
grace period in which any owner would have waited for it, and never if it is owned explicitly.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

from msgspec import Struct


class Orphan(Struct, frozen=True, kw_only=True):
    """A collected process. ``status`` is its wait status (see ``os.waitstatus_to_exitcode``)."""

    pid: int
    name: str
    status: int


def needs_reaper() -> bool:
    """Is this process the first of its pid namespace?"""
    return os.getpid() == 1


class OrphanReaper:
    """Call :meth:`scan` every few seconds, from one thread. ``clock`` is monotonic; ``grace`` is in
    seconds.
    """

    def __init__(self, clock: Callable[[], float], *, grace: float = 10.0) -> None:
        self._clock = clock
        self._grace = grace
        self._zombies: dict[tuple[int, str], float] = {}  # (pid, start ticks) -> first seen

    def scan(self, owned: Collection[int] = ()) -> list[Orphan]:
        """Collect children that have been zombies for the grace period and are not in ``owned``. Never
        blocks.
        """
        now = self._clock()
        seen: dict[tuple[int, str], float] = {}
        collected: list[Orphan] = []
        for pid, name, start_ticks in _zombie_children():
            first = self._zombies.get((pid, start_ticks), now)
            if pid in owned or now - first < self._grace:
                seen[pid, start_ticks] = first
                continue
            try:
                reaped, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue  # its owner was faster
            if reaped:
                collected.append(Orphan(pid=pid, name=name, status=status))
        self._zombies = seen
        return collected


def _zombie_children() -> list[tuple[int, str, str]]:
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            head, _, tail = Path(f"/proc/{entry}/stat").read_text(errors="replace").rpartition(")")
        except OSError:
            continue
        fields = tail.split()
        if fields[0] == "Z" and int(fields[1]) == os.getpid():
            found.append((int(entry), head.partition("(")[2], fields[19]))
    return found
