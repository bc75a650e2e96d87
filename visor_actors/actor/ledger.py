"""What a supervisor's core remembers: its own phase, its children, and the restarts under way."""

from __future__ import annotations

import enum

from msgspec import Struct

from visor_actors.actor.budget import RestartWindow
from visor_actors.actor.decisions import TimerKey
from visor_actors.actor.failure import Failure
from visor_actors.actor.lifecycle import ChildState
from visor_actors.actor.spec import AnySpec, Backoff


class Phase(enum.Enum):
    """Where the supervisor itself stands."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"


class CyclePhase(enum.Enum):
    """Where a restart cycle stands."""

    STOPPING = "stopping"
    WAITING = "waiting"
    STARTING = "starting"


class Child(Struct):
    """What the core knows of one child. Read it, do not write it."""

    spec: AnySpec
    backoff: Backoff
    window: RestartWindow | None
    generation: int = 0
    state: ChildState = ChildState.DOWN
    attempts: int = 0
    restarts: int = 0
    degraded: bool = False
    failure: Failure | None = None


class Cycle(Struct, eq=False):
    """One restart: its members are stopped, a delay passes, they are started. ``culprit`` caused it."""

    number: int
    culprit: str
    members: list[str]
    phase: CyclePhase
    delay: float = 0.0
    timer: TimerKey | None = None
