"""Records that hold secrets, and do not tell them to whoever prints them."""

from __future__ import annotations

from msgspec import Struct


def representation(record: Struct, *, without: frozenset[str]) -> str:
    """What ``repr`` gives of ``record``, with the fields ``without`` left out: for its ``__repr__``."""
    shown = (name for name in record.__struct_fields__ if name not in without)
    fields = ", ".join(f"{name}={getattr(record, name)!r}" for name in shown)
    return f"{type(record).__name__}({fields})"
