"""What the simulated nodes of a home did, as they recorded it themselves in ``state/starts.jsonl``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """One event of one process.

    ``event`` is ``start``, ``refused`` (database lock held by ``details["holder"]``), ``connected``,
    ``serving``, ``loaded`` (snapshot ``height``; ``details``: ``flag``, ``deleted``, ``stored``),
    ``first_block``, ``core_ready``, ``waiting``, ``ready``, ``sigterm`` (``details["state"]``,
    ``details["sigterm_ns"]``), ``stop`` (``reason``, ``code``), ``crash`` (a fault), ``panic``, ``error``,
    ``mixed`` (a core of version ``details["core"]`` met a data node of another), ``failed``, ``helper``
    (``details["helper"]`` is a pid) or ``history``. ``role`` is ``core``, ``data_node`` or ``history``.
    ``mono_ns`` is CLOCK_MONOTONIC, comparable between processes.
    """

    event: str
    role: str
    pid: int
    version: str
    mono_ns: int
    wall: float
    height: int = 0
    argv: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


def read_records(
    home: Path, *, event: str | None = None, role: str | None = None
) -> tuple[ProcessRecord, ...]:
    """All records of ``home`` in the order they were written, or those of one ``event`` and ``role``."""
    path = home / "state" / "starts.jsonl"
    if not path.exists():
        return ()
    text = path.read_text(encoding="utf-8")
    records = (_record(json.loads(line)) for line in text.split("\n")[:-1])
    return tuple(r for r in records if event in (None, r.event) and role in (None, r.role))


def _record(fields: dict[str, Any]) -> ProcessRecord:
    known = {name: fields.pop(name) for name in ("event", "role", "pid", "version", "mono_ns", "wall")}
    height, argv = fields.pop("height", 0), tuple(fields.pop("argv", ()))
    return ProcessRecord(**known, height=height, argv=argv, details=fields)
