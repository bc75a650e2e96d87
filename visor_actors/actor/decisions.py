"""What a supervisor's core is told and what it answers: the two alphabets of the pure state machine in
core.py."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from visor_actors.actor.events import ActorEvent, ExitReason
from visor_actors.actor.failure import Failure
from visor_actors.actor.spec import Backoff, Intensity


class TimerKind(enum.Enum):
    """What a supervisor waits for."""

    START = "start timeout"
    STOP = "shutdown timeout"
    RESTART = "restart delay"
    STABLE = "stable again"


@dataclass(frozen=True, slots=True)
class TimerKey:
    """Names one timer. ``number`` is the child's generation (RESTART: the number of the restart cycle)."""

    kind: TimerKind
    child: str
    number: int


# --- inputs


@dataclass(frozen=True, slots=True)
class Begin:
    """Start the children, in order. Once."""


@dataclass(frozen=True, slots=True)
class ChildStarted:
    """The child's init has returned."""

    child: str
    generation: int


@dataclass(frozen=True, slots=True)
class ChildExited:
    """The child's thread has ended, clean-up included."""

    child: str
    generation: int
    reason: ExitReason
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ChildHung:
    """The watchdog found the child over its heartbeat deadline."""

    child: str
    generation: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer that was armed has run out."""

    key: TimerKey


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the children in reverse order, then finish."""


@dataclass(frozen=True, slots=True)
class Abort:
    """The supervisor itself failed: stop the children in reverse order, then finish with ``failure``."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """What may be changed of a child while it runs."""

    backoff: Backoff
    intensity: Intensity | None


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """Use these budgets and delays from now on. Pending delays stay as they are."""

    intensity: Intensity
    children: Mapping[str, ChildSettings]


Input = Begin | ChildStarted | ChildExited | ChildHung | TimerFired | Stop | Abort | Reconfigure


# --- effects


@dataclass(frozen=True, slots=True)
class StartChild:
    """Start the incarnation ``generation``; report ChildStarted or ChildExited."""

    child: str
    generation: int


@dataclass(frozen=True, slots=True)
class StopChild:
    """Ask the child to stop; report ChildExited."""

    child: str
    generation: int


@dataclass(frozen=True, slots=True)
class AbandonChild:
    """Fence the child and forget it; whatever it still reports is stale."""

    child: str
    generation: int
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class RetireChild:
    """The child will not run again in this tree: nothing needs to be kept for it."""

    child: str


@dataclass(frozen=True, slots=True)
class ArmTimer:
    """Report TimerFired(key) in ``delay`` seconds."""

    key: TimerKey
    delay: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """The timer is not needed any more."""

    key: TimerKey


@dataclass(frozen=True, slots=True)
class Publish:
    """Tell the world."""

    event: ActorEvent


@dataclass(frozen=True, slots=True)
class Ready:
    """Every child has started: acknowledge the supervisor's own start."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Nothing runs any more: the supervisor ends with this reason."""

    reason: ExitReason
    failure: Failure | None


Effect = (
    StartChild | StopChild | AbandonChild | RetireChild | ArmTimer | CancelTimer | Publish | Ready | Finished
)
