"""How one event looks in visor's own log: for people, as a line of JSON, for journald. Pure functions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping

from visor_actors.telemetry.events import Event, Scalar, Severity, Trouble
from visor_actors.telemetry.scrub import MASK, Scrubber, is_secret_name

Format = Callable[[Event], str]

_COLOURS = {
    Severity.DEBUG: "\x1b[2m",
    Severity.INFO: "\x1b[32m",
    Severity.WARNING: "\x1b[33m",
    Severity.ERROR: "\x1b[31m",
    Severity.ALARM: "\x1b[1;97;41m",
}
_DIM, _BOLD, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[0m"
# syslog's numbers, as journald reads them from the beginning of a line.
_PRIORITIES = {
    Severity.DEBUG: 7,
    Severity.INFO: 6,
    Severity.WARNING: 4,
    Severity.ERROR: 3,
    Severity.ALARM: 1,
}


def clean(event: Event, scrubber: Scrubber) -> Event:
    """``event`` without secrets and control characters, in every text of it."""
    return Event(
        name=event.name,
        message=_printable(scrubber.text(event.message)),
        severity=event.severity,
        next_step=None if event.next_step is None else scrubber.text(event.next_step),
        fields={name: _field(name, value, scrubber) for name, value in event.fields.items()},
        lines=tuple(_printable(scrubber.text(line)) for line in event.lines),
        trouble=None if event.trouble is None else _clean_trouble(event.trouble, scrubber),
        at=event.at,
    )


def _field(name: str, value: Scalar, scrubber: Scrubber) -> Scalar:
    if not isinstance(value, str):
        return value
    return MASK if value and is_secret_name(name) else _printable(scrubber.text(value))


def _clean_trouble(trouble: Trouble, scrubber: Scrubber) -> Trouble:
    return Trouble(
        type_name=trouble.type_name,
        message=_printable(scrubber.text(trouble.message)),
        traceback="\n".join(_printable(line) for line in scrubber.text(trouble.traceback).splitlines()),
    )


def _printable(text: str) -> str:
    """Without what could move a terminal's cursor or forge a line of the log: a node's output is not to be
    trusted.
    """
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    )


def as_json(event: Event) -> str:
    """One line of JSON. Its keys are documented and stable."""
    record: dict[str, object] = {
        "time": _utc(event.at),
        "level": event.severity.name.lower(),
        "event": event.name,
        "message": event.message,
    }
    if event.next_step is not None:
        record["next_step"] = event.next_step
    if event.fields:
        record["fields"] = dict(event.fields)
    if event.lines:
        record["lines"] = list(event.lines)
    if event.trouble is not None:
        record["trouble"] = {
            "type": event.trouble.type_name,
            "message": event.trouble.message,
            "traceback": event.trouble.traceback,
        }
    return json.dumps(record, ensure_ascii=False)


def as_journald(event: Event) -> str:
    """Lines that begin with ``<priority>``; journald adds the time."""
    prefix = f"<{_PRIORITIES[event.severity]}>"
    first = f"{event.name}: {event.message}{_pairs(event.fields)}"
    return "\n".join(prefix + line for line in (first, *_more(event)))


def as_human(event: Event) -> str:
    """For a person, without colours."""
    stamp = time.strftime("%H:%M:%S", time.localtime(event.at)) + f".{int(event.at * 1000) % 1000:03d}"
    first = f"{stamp} {event.severity.name:<7} {event.name}: {event.message}{_pairs(event.fields)}"
    return "\n".join((first, *_more(event)))


def as_coloured(event: Event) -> str:
    """For a person, with colours."""
    stamp = time.strftime("%H:%M:%S", time.localtime(event.at)) + f".{int(event.at * 1000) % 1000:03d}"
    level = f"{_COLOURS[event.severity]}{event.severity.name:<7}{_RESET}"
    first = f"{_DIM}{stamp}{_RESET} {level} {_BOLD}{event.name}{_RESET}: {event.message}"
    return "\n".join((f"{first}{_DIM}{_pairs(event.fields)}{_RESET}", *_more(event)))


def _more(event: Event) -> list[str]:
    lines = [f"    | {line}" for line in event.lines]
    if event.trouble is not None:
        text = event.trouble.traceback or f"{event.trouble.type_name}: {event.trouble.message}"
        lines += [f"    ! {line}" for line in text.splitlines()]
    if event.next_step is not None:
        lines.append(f"    -> {event.next_step}")
    return lines


def _pairs(fields: Mapping[str, Scalar]) -> str:
    return "".join(f" {name}={_quoted(value)}" for name, value in fields.items())


def _quoted(value: Scalar) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.6g}"
        case str() if value and not any(c.isspace() or c in '"=' for c in value):
            return value
        case _:
            return json.dumps(value, ensure_ascii=False)


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03d}Z"
