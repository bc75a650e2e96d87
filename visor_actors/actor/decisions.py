"""What a supervisor's core is told and what it answers: the two alphabets of the pure state machine in
core.py.

Named tuples, as building twenty data classes would add ten milliseconds to each start of the process.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from msgspec import Struct

from visor_actors.actor.events import ActorEvent, ExitReason
from visor_actors.actor.failure import Failure
from visor_actors.actor.spec import Backoff, Intensity


class TimerKind(enum.Enum):
    """What a supervisor waits for."""

    START = "start timeout"
    STOP = "shutdown timeout"
    RESTART = "restart delay"
    STABLE = "stable again"


class TimerKey(Struct, frozen=True):
    """Names one timer. ``number`` is the child's generation (RESTART: the number of the restart cycle)."""

    kind: TimerKind
    child: str
    number: int


# --- inputs


class Begin(Struct, frozen=True):
    """Start the children, in order. Once."""


class ChildStarted(Struct, frozen=True):
    """The child's init has returned."""

    child: str
    generation: int


class ChildExited(Struct, frozen=True):
    """The child's thread has ended, clean-up included."""

    child: str
    generation: int
    reason: ExitReason
    failure: Failure | None = None


class ChildHung(Struct, frozen=True):
    """The watchdog found the child over its heartbeat deadline."""

    child: str
    generation: int
    failure: Failure


class TimerFired(Struct, frozen=True):
    """A timer that was armed has run out."""

    key: TimerKey


class Stop(Struct, frozen=True):
    """Stop the children in reverse order, then finish."""


class Abort(Struct, frozen=True):
    """The supervisor itself failed: stop the children in reverse order, then finish with ``failure``."""

    failure: Failure


class ChildSettings(Struct, frozen=True):
    """What may be changed of a child while it runs."""

    backoff: Backoff
    intensity: Intensity | None


class Reconfigure(Struct, frozen=True):
    """Use these budgets and delays from now on. Pending delays stay as they are."""

    intensity: Intensity
    children: Mapping[str, ChildSettings]


Input = Begin | ChildStarted | ChildExited | ChildHung | TimerFired | Stop | Abort | Reconfigure


# --- effects


class StartChild(Struct, frozen=True):
    """Start the incarnation ``generation``; report ChildStarted or ChildExited."""

    child: str
    generation: int


class StopChild(Struct, frozen=True):
    """Ask the child to stop; report ChildExited."""

    child: str
    generation: int


class AbandonChild(Struct, frozen=True):
    """Fence the child and forget it; whatever it still reports is stale."""

    child: str
    generation: int
    reason: ExitReason


class RetireChild(Struct, frozen=True):
    """The child will not run again in this tree: nothing needs to be kept for it."""

    child: str


class ArmTimer(Struct, frozen=True):
    """Report TimerFired(key) in ``delay`` seconds."""

    key: TimerKey
    delay: float


class CancelTimer(Struct, frozen=True):
    """The timer is not needed any more."""

    key: TimerKey


class Publish(Struct, frozen=True):
    """Tell the world."""

    event: ActorEvent


class Ready(Struct, frozen=True):
    """Every child has started: acknowledge the supervisor's own start."""


class Finished(Struct, frozen=True):
    """Nothing runs any more: the supervisor ends with this reason."""

    reason: ExitReason
    failure: Failure | None


Effect = (
    StartChild | StopChild | AbandonChild | RetireChild | ArmTimer | CancelTimer | Publish | Ready | Finished
)
