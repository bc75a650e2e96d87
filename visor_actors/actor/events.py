"""Everything that happens in a supervision tree, as one closed union of frozen data classes.

``child`` is the id of the actor or supervisor that the event is about, ``generation`` the number of its
incarnation. Times are seconds of the system's clock. Events are delivered in order, one at a time, on a
thread of their own (publisher.py).
"""

from __future__ import annotations

import enum

from msgspec import Struct

from visor_actors.actor.failure import Failure


class ExitReason(enum.Enum):
    """Why an incarnation ended."""

    NORMAL = "normal"  # it stopped itself
    REQUESTED = "requested"  # its supervisor stopped it
    CRASHED = "crashed"  # an exception, any BaseException included
    START_FAILED = "start failed"  # the factory or init raised, or the thread could not be started
    START_TIMED_OUT = "start timed out"
    STOP_TIMED_OUT = "stop timed out"
    HUNG = "hung"  # one message took longer than the heartbeat allows
    ESCALATED = "escalated"  # a supervisor whose budget was exhausted


class DeadLetterReason(enum.Enum):
    """Why a message reached nobody."""

    NO_SUCH_ADDRESS = "no such address"
    NOT_RUNNING = "the receiver is not running"
    INBOX_FULL = "the inbox is full"
    STASH_FULL = "too many messages wait for the receiver"
    POISON = "two incarnations died of it"
    SENDER_FENCED = "the sender was abandoned or has ended"
    LATE_ANSWER = "nobody waits for this answer any more"


class ActorStarting(Struct, frozen=True, kw_only=True):
    """An incarnation's thread is being started."""

    child: str
    generation: int


class ActorStarted(Struct, frozen=True, kw_only=True):
    """An incarnation has finished its init and serves."""

    child: str
    generation: int


class ActorExited(Struct, frozen=True, kw_only=True):
    """An incarnation has ended. Exactly one per generation; for an abandoned one it comes when it is given
    up."""

    child: str
    generation: int
    reason: ExitReason
    failure: Failure | None


class RestartScheduled(Struct, frozen=True, kw_only=True):
    """``child`` (and with group strategies ``together``) will be started again after ``delay`` seconds.

    ``attempt`` counts restarts in a row since it last was stable, ``restarts`` all of them.
    """

    child: str
    generation: int
    reason: ExitReason
    failure: Failure | None
    delay: float
    attempt: int
    restarts: int
    together: tuple[str, ...]


class ActorHung(Struct, frozen=True, kw_only=True):
    """One message has taken ``seconds``, more than allowed. ``stack`` is where the thread is, as text."""

    child: str
    generation: int
    message_type: str
    seconds: float
    stack: str


class ActorAbandoned(Struct, frozen=True, kw_only=True):
    """An incarnation's thread cannot be ended; it was fenced and is left behind. ``abandoned`` such threads
    are alive now."""

    child: str
    generation: int
    reason: ExitReason
    abandoned: int


class AbandonedEnded(Struct, frozen=True, kw_only=True):
    """The thread of an abandoned incarnation has ended after all."""

    child: str
    generation: int
    abandoned: int


class AbandonedLimitReached(Struct, frozen=True, kw_only=True):
    """More threads are abandoned than the system may carry: it stops, and the process should be started
    again."""

    abandoned: int
    limit: int


class Escalated(Struct, frozen=True, kw_only=True):
    """``supervisor`` gives up because ``child`` exhausted the budget; its parent decides what follows."""

    supervisor: str
    child: str
    restarts: int
    window: float
    failure: Failure


class Degraded(Struct, frozen=True, kw_only=True):
    """``child`` exhausted the budget. Its supervisor goes on trying, every ``delay`` seconds."""

    supervisor: str
    child: str
    delay: float
    failure: Failure | None


class Recovered(Struct, frozen=True, kw_only=True):
    """A degraded ``child`` has been running healthily for its reset time."""

    supervisor: str
    child: str


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A message of type ``message_type`` to ``child`` reached nobody. ``total`` counts all dead letters of
    that address."""

    child: str
    message_type: str
    reason: DeadLetterReason
    total: int


class CallbackFailed(Struct, frozen=True, kw_only=True):
    """A callback on the root's loop raised. The loop goes on."""

    child: str
    failure: Failure


class EventsSuppressed(Struct, frozen=True, kw_only=True):
    """``count`` events of type ``kind`` about ``child`` came faster than the rate limit and were not
    delivered."""

    child: str
    kind: str
    count: int


ActorEvent = (
    ActorStarting
    | ActorStarted
    | ActorExited
    | RestartScheduled
    | ActorHung
    | ActorAbandoned
    | AbandonedEnded
    | AbandonedLimitReached
    | Escalated
    | Degraded
    | Recovered
    | DeadLetter
    | CallbackFailed
    | EventsSuppressed
)
