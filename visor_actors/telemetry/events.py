"""The events of visor: one type, one bus, many subscribers.

Whatever an operator could want to know is an :class:`Event`: restarts, refusals, retries, upgrade steps,
alarms. The log, the history, the metrics and Sentry subscribe to the :class:`EventBus`; none of them is
known to the code that emits.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Mapping

from msgspec import Struct, field

Scalar = str | int | float | bool | None


class Severity(enum.IntEnum):
    """How much an event matters. ``ALARM`` is what an operator must act on: it always reaches Sentry."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    ALARM = 50


class Trouble(Struct, frozen=True, kw_only=True):
    """An exception as data: its type's name, its message and its traceback as text. No live exception."""

    type_name: str
    message: str
    traceback: str = ""


class Event(Struct, frozen=True, kw_only=True):
    """One thing that happened.

    ``name`` is stable and dotted (``binary.exited``, ``upgrade.ready``); ``message`` is one sentence for a
    person; ``next_step`` says what to do, where something is to be done. ``at`` is Unix time in seconds.
    ``fields`` hold scalars only and no secrets.
    """

    name: str
    message: str
    severity: Severity = Severity.INFO
    next_step: str | None = None
    fields: Mapping[str, Scalar] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    trouble: Trouble | None = None
    at: float = field(default_factory=time.time)


EventHandler = Callable[[Event], None]


class EventBus:
    """Delivers each event to every subscriber, on the thread that emits, in the order of subscription.

    A subscriber must return quickly. One that raises is counted in :attr:`handler_failures` and harms
    neither the emitter nor the other subscribers.
    """

    def __init__(self) -> None:
        self._handlers: tuple[EventHandler, ...] = ()
        self._lock = threading.Lock()
        self.handler_failures = 0

    def subscribe(self, handler: EventHandler) -> Callable[[], None]:
        """Add ``handler``; the returned function removes it again."""
        with self._lock:
            self._handlers = (*self._handlers, handler)

        def unsubscribe() -> None:
            with self._lock:
                self._handlers = tuple(known for known in self._handlers if known is not handler)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Hand ``event`` to every subscriber. Never raises."""
        for handler in self._handlers:
            try:
                handler(event)
            except Exception:
                # The bus is where failures are reported; it has nowhere to report its own but a counter.
                self.handler_failures += 1
