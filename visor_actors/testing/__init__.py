"""The fault kit: fake clock, probe, an actor that fails on demand, a context without threads, leak checks,
failpoints.

Names are loaded when they are first used, so that production code may import ``testing.failpoints`` for
nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visor_actors.testing.clock import FakeClock
    from visor_actors.testing.context import RecordingContext
    from visor_actors.testing.faulty import FaultyActor, Script, StartedTwice
    from visor_actors.testing.harness import running
    from visor_actors.testing.leaks import Leaks, find_leaks, take_inventory
    from visor_actors.testing.probe import Probe, ProbeTimedOut

_HOMES = {
    "FakeClock": "clock",
    "FaultyActor": "faulty",
    "Leaks": "leaks",
    "Probe": "probe",
    "ProbeTimedOut": "probe",
    "RecordingContext": "context",
    "Script": "faulty",
    "StartedTwice": "faulty",
    "find_leaks": "leaks",
    "running": "harness",
    "take_inventory": "leaks",
}

__all__ = [
    "FakeClock",
    "FaultyActor",
    "Leaks",
    "Probe",
    "ProbeTimedOut",
    "RecordingContext",
    "Script",
    "StartedTwice",
    "find_leaks",
    "running",
    "take_inventory",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
