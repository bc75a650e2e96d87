"""What a supervisor's core is told and what it answers: the two alphabets of the pure state machine in
core.py.

Named tuples, as building twenty data classes would add ten milliseconds to each start of the process.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

from visor_actors.actor.events import ActorEvent, ExitReason
from visor_actors.actor.failure import Failure
from visor_actors.actor.spec import Backoff, Intensity


class TimerKind(enum.Enum):
    """What a supervisor waits for."""

    START = "start timeout"
    STOP = "shutdown timeout"
    RESTART = "restart delay"
    STABLE = "stable again"


class TimerKey(NamedTuple):
    """Names one timer. ``number`` is the child's generation (RESTART: the number of the restart cycle)."""

    kind: TimerKind
    child: str
    number: int


# --- inputs


class Begin(NamedTuple):
    """Start the children, in order. Once."""


class ChildStarted(NamedTuple):
    """The child's init has returned."""

    child: str
    generation: int


class ChildExited(NamedTuple):
    """The child's thread has ended, clean-up included."""

    child: str
    generation: int
    reason: ExitReason
    failure: Failure | None = None


class ChildHung(NamedTuple):
    """The watchdog found the child over its heartbeat deadline."""

    child: str
    generation: int
    failure: Failure


class TimerFired(NamedTuple):
    """A timer that was armed has run out."""

    key: TimerKey


class Stop(NamedTuple):
    """Stop the children in reverse order, then finish."""


class Abort(NamedTuple):
    """The supervisor itself failed: stop the children in reverse order, then finish with ``failure``."""

    failure: Failure


class ChildSettings(NamedTuple):
    """What may be changed of a child while it runs."""

    backoff: Backoff
    intensity: Intensity | None


class Reconfigure(NamedTuple):
    """Use these budgets and delays from now on. Pending delays stay as they are."""

    intensity: Intensity
    children: Mapping[str, ChildSettings]


Input = Begin | ChildStarted | ChildExited | ChildHung | TimerFired | Stop | Abort | Reconfigure


# --- effects


class StartChild(NamedTuple):
    """Start the incarnation ``generation``; report ChildStarted or ChildExited."""

    child: str
    generation: int


class StopChild(NamedTuple):
    """Ask the child to stop; report ChildExited."""

    child: str
    generation: int


class AbandonChild(NamedTuple):
    """Fence the child and forget it; whatever it still reports is stale."""

    child: str
    generation: int
    reason: ExitReason


class RetireChild(NamedTuple):
    """The child will not run again in this tree: nothing needs to be kept for it."""

    child: str


class ArmTimer(NamedTuple):
    """Report TimerFired(key) in ``delay`` seconds."""

    key: TimerKey
    delay: float


class CancelTimer(NamedTuple):
    """The timer is not needed any more."""

    key: TimerKey


class Publish(NamedTuple):
    """Tell the world."""

    event: ActorEvent


class Ready(NamedTuple):
    """Every child has started: acknowledge the supervisor's own start."""


class Finished(NamedTuple):
    """Nothing runs any more: the supervisor ends with this reason."""

    reason: ExitReason
    failure: Failure | None


Effect = (
    StartChild | StopChild | AbandonChild | RetireChild | ArmTimer | CancelTimer | Publish | Ready | Finished
)
