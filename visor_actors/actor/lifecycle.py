"""The life of one child as a table: which step leads from which state to which. Anything else is a bug and
raises.

::

              start               started
    DOWN ───────────▶ STARTING ───────────▶ RUNNING
     ▲  ◀──────────────── │ exited / abandoned │
     │                    │ stop               │ stop
     │   exited           ▼                    ▼
     ├───────────────── STOPPING ◀─────────────┘
     │   abandoned
     └─ retire ▶ RETIRED (never again)
"""

from __future__ import annotations

import enum

from visor_actors.actor.errors import SupervisorBug


class ChildState(enum.Enum):
    """Where one child stands, as its supervisor sees it."""

    DOWN = "down"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    RETIRED = "retired"


class Step(enum.Enum):
    """What can happen to one child."""

    START = "start"
    STARTED = "started"
    STOP = "stop"
    EXITED = "exited"
    ABANDONED = "abandoned"
    RETIRE = "retire"


LIVE = frozenset({ChildState.STARTING, ChildState.RUNNING, ChildState.STOPPING})

TRANSITIONS: dict[tuple[ChildState, Step], ChildState] = {
    (ChildState.DOWN, Step.START): ChildState.STARTING,
    (ChildState.DOWN, Step.RETIRE): ChildState.RETIRED,
    (ChildState.STARTING, Step.STARTED): ChildState.RUNNING,
    (ChildState.STARTING, Step.STOP): ChildState.STOPPING,
    (ChildState.STARTING, Step.EXITED): ChildState.DOWN,
    (ChildState.STARTING, Step.ABANDONED): ChildState.DOWN,
    (ChildState.RUNNING, Step.STOP): ChildState.STOPPING,
    (ChildState.RUNNING, Step.EXITED): ChildState.DOWN,
    (ChildState.RUNNING, Step.ABANDONED): ChildState.DOWN,
    # The acknowledgement of a start may cross the order to stop.
    (ChildState.STOPPING, Step.STARTED): ChildState.STOPPING,
    (ChildState.STOPPING, Step.EXITED): ChildState.DOWN,
    (ChildState.STOPPING, Step.ABANDONED): ChildState.DOWN,
}


def advance(child: str, state: ChildState, step: Step) -> ChildState:
    """Return the state that ``step`` leads to. Raises SupervisorBug where the table has no such step."""
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        raise SupervisorBug(child, state, step) from None
