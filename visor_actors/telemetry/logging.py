"""Visor's own log: a subscriber of the event bus that writes to standard error.

It is the module ``visor_actors.telemetry.logging``; the standard library's of that name is not used,
because main's memory is a budget and nothing here needs handlers, hierarchies or locks of its own.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from typing import assert_never

from visor_actors.telemetry.events import Event, Severity
from visor_actors.telemetry.formats import Format, as_coloured, as_human, as_journald, as_json, clean
from visor_actors.telemetry.scrub import Scrubber
from visor_actors.telemetry.scrub import scrubber as shared_scrubber
from visor_actors.telemetry.sink import LineSink


class LogForm(enum.Enum):
    """The form of the log; the values are those of the configuration."""

    AUTO = "auto"
    HUMAN = "human"
    JSON = "json"
    JOURNALD = "journald"


def severity_of(level: str) -> Severity:
    """The severity of a configured level (``debug``, ``info``, ``warning``, ``error``)."""
    return Severity[level.upper()]


class EventLog:
    """Writes events to ``fd``. Subscribe :meth:`record` to the bus; any thread may call it, none waits for
    long.

    ``form`` and :attr:`level` may change at any time. Alarms are written whatever the level is.
    """

    def __init__(
        self,
        *,
        fd: int = 2,
        form: LogForm = LogForm.AUTO,
        level: Severity = Severity.INFO,
        environ: Mapping[str, str] | None = None,
        scrubber: Scrubber = shared_scrubber,
    ) -> None:
        self._fd = fd
        self._environ = os.environ if environ is None else environ
        self._scrubber = scrubber
        self._format = choose_format(form, fd, self._environ)
        self._sink = LineSink(fd, note=self._dropped_note)
        self.level = level

    @property
    def dropped(self) -> int:
        """Lines that could not be written."""
        return self._sink.dropped

    def use(self, form: LogForm) -> None:
        """Write in another form from the next event on."""
        self._format = choose_format(form, self._fd, self._environ)

    def record(self, event: Event) -> None:
        """Write ``event`` if it is severe enough."""
        if event.severity >= min(self.level, Severity.ALARM):
            self._sink.write(self._line(clean(event, self._scrubber)))

    def flush(self, timeout: float = 0.5) -> bool:
        """Give lines that wait for a slow reader a chance of ``timeout`` seconds; True when none waits any
        more. To be called once more before the process ends."""
        return self._sink.flush(timeout)

    def _line(self, event: Event) -> bytes:
        return (self._format(event) + "\n").encode("utf-8", "backslashreplace")

    def _dropped_note(self, count: int) -> bytes:
        return self._line(
            Event(
                name="log.dropped",
                message=f"{count} lines were lost because nobody read them in time",
                severity=Severity.WARNING,
                fields={"count": count},
            )
        )


def choose_format(form: LogForm, fd: int, environ: Mapping[str, str]) -> Format:
    """The function that writes ``form`` to ``fd``. ``NO_COLOR`` and ``TERM=dumb`` are respected."""
    match form:
        case LogForm.HUMAN:
            return _human(fd, environ)
        case LogForm.JSON:
            return as_json
        case LogForm.JOURNALD:
            return as_journald
        case LogForm.AUTO:
            if os.isatty(fd):
                return _human(fd, environ)
            return as_journald if is_journal(fd, environ) else as_json
        case _:
            assert_never(form)


def _human(fd: int, environ: Mapping[str, str]) -> Format:
    plain = environ.get("NO_COLOR") or environ.get("TERM") == "dumb" or not os.isatty(fd)
    return as_human if plain else as_coloured


def is_journal(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether ``fd`` is the very socket that systemd connected to its journal (``JOURNAL_STREAM``)."""
    stream = environ.get("JOURNAL_STREAM")
    if not stream:
        return False
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"
