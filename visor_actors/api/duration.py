"""Spans of time for people."""

from __future__ import annotations

from itertools import pairwise


def since(start: float | None, now: float) -> str:
    """Return how long ago ``start`` was, in its two largest units: ``3d 4h``, ``12m 5s``."""
    if start is None:
        return "-"
    seconds = max(0, int(now - start))
    sizes = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    for (name, size), (finer, finer_size) in pairwise(sizes):
        if seconds >= size:
            return f"{seconds // size}{name} {seconds % size // finer_size}{finer}"
    return f"{seconds}s"
