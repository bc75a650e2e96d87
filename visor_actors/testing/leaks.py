"""What a test leaves behind: threads, file descriptors (sockets among them) and child processes of this
process.

Linux only; reads /proc. Things may need a moment to go, so :func:`find_leaks` looks again for a bounded time.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path

from msgspec import Struct

SETTLE = 3.0
"""Seconds that things may take to go. Only a leak costs that much."""


class Inventory(Struct, frozen=True, kw_only=True):
    """What the process has at one moment. ``descriptors`` maps the number to what it refers to."""

    threads: frozenset[threading.Thread]
    descriptors: dict[int, str]
    children: frozenset[int]


class Leaks(Struct, frozen=True, kw_only=True):
    """What there is now and was not before. False if that is nothing."""

    threads: tuple[str, ...]
    descriptors: tuple[str, ...]
    children: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.threads or self.descriptors or self.children)

    def __str__(self) -> str:
        parts = [*self.threads, *self.descriptors, *self.children]
        return "; ".join(parts) if parts else "nothing"


def take_inventory() -> Inventory:
    """Return what this process has now."""
    return Inventory(
        threads=frozenset(threading.enumerate()), descriptors=_descriptors(), children=_children()
    )


def find_leaks(before: Inventory, *, settle: float = SETTLE) -> Leaks:
    """Return what has come since ``before`` and is still there after at most ``settle`` seconds."""
    deadline = time.monotonic() + settle
    pause = 0.001
    leaks = _compare(before, take_inventory())
    if leaks:
        gc.collect()  # sockets and files in reference cycles
    while leaks and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
        leaks = _compare(before, take_inventory())
    return leaks


def _compare(before: Inventory, now: Inventory) -> Leaks:
    return Leaks(
        threads=tuple(
            sorted(f"thread {thread.name!r}" for thread in now.threads - before.threads if thread.is_alive())
        ),
        descriptors=tuple(
            f"file descriptor {fd} ({target})"
            for fd, target in sorted(now.descriptors.items())
            if before.descriptors.get(fd) != target
        ),
        children=tuple(
            f"child process {pid} ({_name(pid)})" for pid in sorted(now.children - before.children)
        ),
    )


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the descriptor of the listing itself, or closed by another thread
    return found


def _children() -> frozenset[int]:
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            found.update(int(pid) for pid in Path(f"/proc/self/task/{task}/children").read_text().split())
        except OSError:
            continue  # the thread has ended
    return frozenset(found)


def _name(pid: int) -> str:
    try:
        command = (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        )
        return command or f"zombie of {Path(f'/proc/{pid}/comm').read_text().strip()}"
    except OSError:
        return "gone"
