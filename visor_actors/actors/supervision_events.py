"""What the actor runtime tells, as events of visor: so that history, metrics and Sentry know it without
knowing actors.
"""

from __future__ import annotations

from typing import assert_never

from visor_actors.actor import (
    AbandonedEnded,
    AbandonedLimitReached,
    ActorAbandoned,
    ActorEvent,
    ActorExited,
    ActorHung,
    ActorStarted,
    ActorStarting,
    CallbackFailed,
    DeadLetter,
    Degraded,
    Escalated,
    EventsSuppressed,
    ExitReason,
    Failure,
    Recovered,
    RestartScheduled,
)
from visor_actors.actors.reports import AlarmReport, Board
from visor_actors.telemetry.events import Event, EventBus, Scalar, Severity, Trouble

_UNTOUCHED = "the node is not affected"
_ORDINARY = (ExitReason.NORMAL, ExitReason.REQUESTED)


class SupervisionEvents:
    """Turns each actor event into an event on the bus, and keeps the board's list of degraded actors."""

    def __init__(self, bus: EventBus, board: Board) -> None:
        self._bus = bus
        self._board = board

    def __call__(self, event: ActorEvent) -> None:
        """Take one actor event. Called on the runtime's publisher thread."""
        said = describe(event)
        match event:
            case Degraded(child=child):
                alarm = AlarmReport(
                    name=said.name, message=said.message, next_step=said.next_step, at=said.at
                )
                self._board.publish(f"degraded:{child}", alarm)
            case Recovered(child=child):
                self._board.withdraw(f"degraded:{child}")
            case _:
                pass
        self._bus.emit(said)


def describe(event: ActorEvent) -> Event:
    """Say ``event`` in words. Pure."""
    match event:
        case ActorStarting(child=child, generation=generation):
            return _event("actor.starting", f"{child} is starting", Severity.DEBUG, child, generation)
        case ActorStarted(child=child, generation=generation):
            return _event("actor.started", f"{child} serves", Severity.DEBUG, child, generation)
        case ActorExited(child=child, generation=generation, reason=reason, failure=failure):
            severity = Severity.DEBUG if reason in _ORDINARY else Severity.ERROR
            what = f"{child} ended: {reason.value}" + (f" ({failure})" if failure is not None else "")
            words = what if reason in _ORDINARY else f"{what}; {_UNTOUCHED}"
            return _event("actor.exited", words, severity, child, generation, failure, reason=reason.value)
        case RestartScheduled(
            child=child, generation=generation, delay=delay, attempt=attempt, restarts=restarts, reason=reason
        ):
            return _event(
                "actor.restarting",
                f"{child} is restarted in {delay:.2f} s (attempt {attempt})",
                Severity.WARNING,
                child,
                generation,
                delay=delay,
                attempt=attempt,
                restarts=restarts,
                reason=reason.value,
            )
        case ActorHung(
            child=child, generation=generation, message_type=message_type, seconds=seconds, stack=stack
        ):
            trouble = Failure("Hung", f"{message_type} took more than {seconds:.0f} s", stack)
            words = f"{child} hangs in {message_type} since {seconds:.0f} s and is replaced; {_UNTOUCHED}"
            return _event("actor.hung", words, Severity.ERROR, child, generation, trouble)
        case ActorAbandoned(child=child, generation=generation, reason=reason, abandoned=abandoned):
            words = f"a thread of {child} could not be ended and is left behind; {abandoned} such threads now"
            return _event(
                "actor.abandoned",
                words,
                Severity.ERROR,
                child,
                generation,
                abandoned=abandoned,
                reason=reason.value,
            )
        case AbandonedEnded(child=child, generation=generation, abandoned=abandoned):
            words = f"a thread of {child} that was left behind has ended after all"
            return _event(
                "actor.abandoned-ended", words, Severity.INFO, child, generation, abandoned=abandoned
            )
        case AbandonedLimitReached(abandoned=abandoned, limit=limit):
            return Event(
                name="actor.abandoned-limit",
                message=f"{abandoned} threads hang, {limit} may: visor ends and must be started again; "
                f"{_UNTOUCHED}",
                severity=Severity.ALARM,
                next_step="a service manager does it by itself; else `visor-actors run` again",
                fields={"abandoned": abandoned, "limit": limit},
            )
        case Escalated(supervisor=supervisor, child=child, restarts=restarts, window=window, failure=failure):
            words = f"{supervisor} gives up on {child} after {restarts} restarts within {window:g} s"
            return _event("actor.escalated", words, Severity.ERROR, child, 0, failure, supervisor=supervisor)
        case Degraded(supervisor=supervisor, child=child, delay=delay, failure=failure):
            return Event(
                name="actor.degraded",
                message=f"visor is degraded: {child} keeps failing and is tried every {delay:g} s; "
                f"{_UNTOUCHED}",
                severity=Severity.ALARM,
                next_step="see `visor-actors tree` for the reason; restarting visor alone is safe",
                fields={"actor": child, "supervisor": supervisor, "delay": delay},
                trouble=_trouble(failure),
            )
        case Recovered(supervisor=supervisor, child=child):
            return Event(
                name="actor.recovered",
                message=f"{child} is stable again",
                fields={"actor": child, "supervisor": supervisor},
            )
        case DeadLetter(child=child, message_type=message_type, reason=reason, total=total):
            words = f"{message_type} to {child} was dropped: {reason.value} ({total} so far)"
            return _event(
                "actor.dead-letter", words, Severity.DEBUG, child, 0, total=total, reason=reason.value
            )
        case CallbackFailed(child=child, failure=failure):
            return _event(
                "actor.callback-failed", f"a callback of {child} failed", Severity.ERROR, child, 0, failure
            )
        case EventsSuppressed(child=child, kind=kind, count=count):
            words = f"{count} events {kind} of {child} were too many to be told one by one"
            return _event("actor.events-suppressed", words, Severity.WARNING, child, 0, count=count)
        case other:
            assert_never(other)


def _event(
    name: str,
    message: str,
    severity: Severity,
    actor: str,
    generation: int,
    failure: Failure | None = None,
    **fields: Scalar,
) -> Event:
    return Event(
        name=name,
        message=message,
        severity=severity,
        fields={"actor": actor, "generation": generation, **fields},
        trouble=_trouble(failure),
    )


def _trouble(failure: Failure | None) -> Trouble | None:
    if failure is None:
        return None
    return Trouble(type_name=failure.type_name, message=failure.message, traceback=failure.traceback)
