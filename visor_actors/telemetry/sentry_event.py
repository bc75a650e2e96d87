"""From an event of visor's to what Sentry shows: which are worth reporting, what groups them, how they
look. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from visor_actors.telemetry.events import Event, Scalar, Severity, Trouble
from visor_actors.telemetry.rate_limit import Fingerprint

# Fields by which an operator filters: the value of each becomes a tag too.
TAGS = (
    "brand",
    "actor",
    "generation",
    "slot",
    "binary",
    "tag",
    "folder",
    "height",
    "phase",
    "state",
    "reason",
)
# Fields that tell one cause from another. Numbers such as heights and pids would split one cause into many.
_CAUSES = ("actor", "slot", "binary", "reason", "phase", "code", "signal", "tag")
_LEVELS = {
    Severity.DEBUG: "debug",
    Severity.INFO: "info",
    Severity.WARNING: "warning",
    Severity.ERROR: "error",
    Severity.ALARM: "fatal",
}
_LAST_LINES = 50
_FRAME = re.compile(r'^ *File "(?P<file>[^"]*)", line (?P<line>\d+)(?:, in (?P<function>.*))?$')
_TRACEBACK = "Traceback (most recent call last):"
_PACKAGE = "visor_actors/"

SentryDict = dict[str, object]


def is_reported(event: Event) -> bool:
    """Whether Sentry gets ``event``: errors, alarms, and warnings that carry an exception or a binary's
    last words.

    Events about Sentry itself never do, or a failing one would feed itself.
    """
    if event.name.startswith("sentry."):
        return False
    if event.severity >= Severity.ERROR:
        return True
    return event.severity >= Severity.WARNING and (event.trouble is not None or bool(event.lines))


def fingerprint(event: Event) -> Fingerprint:
    """What events of one cause have in common: name, what was concerned, type and place of the exception."""
    parts = [event.name]
    parts += [f"{name}={event.fields[name]}" for name in _CAUSES if event.fields.get(name) is not None]
    if event.trouble is not None:
        parts.append(event.trouble.type_name)
        places = [match for line in event.trouble.traceback.splitlines() if (match := _FRAME.match(line))]
        if places:
            # No line numbers: a new release of visor must not split what belongs together.
            parts.append(f"{_short(places[-1]['file'])}:{places[-1]['function']}")
    return tuple(parts)


def sentry_event(event: Event, *, tags: Mapping[str, Scalar], suppressed: int, release: str) -> SentryDict:
    """``event`` as Sentry's own dictionary, not scrubbed yet. ``tags`` are those of the whole process."""
    fields = {**tags, **event.fields}
    # The SDK cuts lists and tables in "extra" to ten entries; texts and contexts it leaves alone.
    extra: SentryDict = {}
    if event.next_step is not None:
        extra["next_step"] = event.next_step
    if event.lines:
        extra["last_lines"] = "\n".join(event.lines[-_LAST_LINES:])
    if suppressed:
        extra["suppressed_since_last"] = suppressed
    record: SentryDict = {
        "level": _LEVELS[event.severity],
        "logger": "visor-actors",
        "platform": "python",
        "release": release,
        "timestamp": datetime.fromtimestamp(event.at, UTC),
        "fingerprint": list(fingerprint(event)),
        "message": {"formatted": f"{event.name}: {event.message}"},
        "tags": {
            "event": event.name,
            **{name: str(fields[name]) for name in (*tags, *TAGS) if fields.get(name) is not None},
        },
        "extra": extra,
        "contexts": {"event": dict(event.fields)},
    }
    if event.trouble is not None:
        record["exception"] = {"values": _exceptions(event.trouble)}
        extra["traceback"] = event.trouble.traceback
        extra["what"] = event.message
    return record


def _exceptions(trouble: Trouble) -> list[SentryDict]:
    """The exception and those it came from, oldest first, with frames read back from the traceback's text."""
    blocks = trouble.traceback.split(_TRACEBACK)[1:]
    values = [_exception(*_last_line(block), _frames(block)) for block in blocks[:-1]]
    frames = _frames(blocks[-1]) if blocks else []
    values.append(_exception(trouble.type_name, trouble.message, frames))
    return values


def _exception(type_name: str, message: str, frames: list[SentryDict]) -> SentryDict:
    value: SentryDict = {
        "type": type_name,
        "value": message,
        "mechanism": {"type": "visor", "handled": True},
    }
    if frames:
        value["stacktrace"] = {"frames": frames}
    return value


def _last_line(block: str) -> tuple[str, str]:
    for line in block.splitlines():
        if line and not line[0].isspace():
            name, _, message = line.partition(": ")
            return name, message
    return "Exception", ""


def _frames(block: str) -> list[SentryDict]:
    frames: list[SentryDict] = []
    for line in block.splitlines():
        match = _FRAME.match(line)
        if match is not None:
            file = match["file"]
            frames.append(
                {
                    "filename": _short(file),
                    "function": match["function"] or "<module>",
                    "lineno": int(match["line"]),
                    "in_app": _PACKAGE in file,
                }
            )
        elif line.startswith("    ") and frames and "context_line" not in frames[-1]:
            frames[-1]["context_line"] = line.strip()
    return frames


def _short(file: str) -> str:
    """A path without the part that differs from machine to machine and may name its user."""
    for mark in (_PACKAGE, "site-packages/", "/lib/"):
        _, found, rest = file.rpartition(mark)
        if found:
            return (mark if mark == _PACKAGE else "") + rest
    return file.rpartition("/")[2]
