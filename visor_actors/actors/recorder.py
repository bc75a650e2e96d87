"""Keeping what happened: the history in the journal, the last alarms, and the operator's alert hook.

All three are subscribers of the bus and must not hold up whoever emits, so each works on a daemon thread of
its own that sleeps until there is something to do.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping

from visor_actors.actors.hooks import run_hook
from visor_actors.actors.reports import AlarmReport
from visor_actors.home.errors import JournalUnavailable
from visor_actors.home.journal import Journal
from visor_actors.home.layout import HomeLayout
from visor_actors.home.settings import Hook
from visor_actors.telemetry.events import Event, Severity

WAITING_EVENTS = 10_000
"""How many events may wait for the disk; beyond it the oldest waiting ones are lost to the history, and
counted.
"""
PATIENCE_SECONDS = 0.03
ALARMS_SHOWN = 20
ALERTS_WAITING = 20


class _Worker:
    """A daemon thread that takes events one by one, in order."""

    def __init__(
        self, name: str, work: Callable[[Event], None], *, bound: int, patience: float = 0.0
    ) -> None:
        self._patience = patience
        self._finishing = threading.Event()
        self._queue: queue.Queue[Event | None] = queue.Queue(bound)
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.lost = 0

    def start(self) -> None:
        self._thread.start()

    def put(self, event: Event) -> None:
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self.lost += 1

    def finish(self, timeout: float) -> None:
        """Work off what waits, for at most ``timeout`` seconds."""
        self._finishing.set()
        try:
            self._queue.put(None, timeout=timeout)
        except queue.Full:
            return
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while (event := self._queue.get()) is not None:
            # What has just happened may have others in a hurry: a start after a crash, a switch. They come
            # first, and then everything that waits is worked off.
            self._finishing.wait(self._patience)
            self._work(event)
            while not self._queue.empty():
                if (event := self._queue.get()) is None:
                    return
                self._work(event)


class HistoryWriter:
    """Writes every event of at least INFO to the journal, but those that whoever emits them writes. A journal
    that cannot be written loses history, nothing else.
    """

    def __init__(self, layout: HomeLayout, *, written_elsewhere: frozenset[str] = frozenset()) -> None:
        self._layout = layout
        self._written_elsewhere = written_elsewhere
        self._journal: Journal | None = None
        self._worker = _Worker("history", self._write, bound=WAITING_EVENTS, patience=PATIENCE_SECONDS)

    def start(self) -> None:
        """Start writing."""
        self._worker.start()

    def __call__(self, event: Event) -> None:
        """Take one event. Any thread; returns at once."""
        if event.severity >= Severity.INFO and event.name not in self._written_elsewhere:
            self._worker.put(event)

    def finish(self, timeout: float) -> None:
        """Write what waits, for at most ``timeout`` seconds."""
        self._worker.finish(timeout)

    @property
    def lost(self) -> int:
        """How many events did not get into the history."""
        return self._worker.lost

    def _write(self, event: Event) -> None:
        try:
            if self._journal is None:
                self._journal = Journal.open(self._layout.journal)
            self._journal.append_event(event)
        except JournalUnavailable:
            self._worker.lost += 1
            if self._journal is not None:
                self._journal.close()
            self._journal = None


_ANSWERS: Mapping[str, tuple[str, ...]] = {
    "upgrade.prepared": ("upgrade.preparation",),
    "upgrade.confirmed": ("upgrade.",),
    "upgrade.withdrawn": ("upgrade.",),
    "upgrade.superseded": ("upgrade.",),
    "core.answered": ("core.silent",),
    "node.up": ("upgrade.hold", "upgrade.current", "binary.slot-held", "shim.unreachable"),
    "actor.recovered": ("actor.degraded",),
}
"""Which alarms an event puts at rest: those whose name begins so and that are about the same upgrade or
actor.
"""
_SUBJECTS = ("tag", "actor")


class AlarmBook:
    """The alarms that still wait for somebody, newest last, one of each name and message.

    An alarm that the course of things has answered goes by itself; the history keeps it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alarms: deque[Event] = deque(maxlen=ALARMS_SHOWN)

    def __call__(self, event: Event) -> None:
        """Take one event. Any thread."""
        answered = _ANSWERS.get(event.name)
        if answered is not None:
            self._keep(lambda known: not (known.name.startswith(answered) and _same_subject(known, event)))
        elif event.severity >= Severity.ALARM:
            self._keep(lambda known: (known.name, known.message) != (event.name, event.message), event)

    @property
    def alarms(self) -> tuple[AlarmReport, ...]:
        """What is kept now."""
        with self._lock:
            kept = tuple(self._alarms)
        return tuple(
            AlarmReport(name=event.name, message=event.message, next_step=event.next_step, at=event.at)
            for event in kept
        )

    def _keep(self, wanted: Callable[[Event], bool], *new: Event) -> None:
        with self._lock:
            kept = [known for known in self._alarms if wanted(known)]
            self._alarms.clear()
            self._alarms.extend((*kept, *new))


def _same_subject(alarm: Event, answer: Event) -> bool:
    """Whether nothing says that the two are about different upgrades or actors."""
    return all(
        alarm.fields[name] == answer.fields[name]
        for name in _SUBJECTS
        if name in alarm.fields and name in answer.fields
    )


class AlertHook:
    """Runs the operator's ``onAlert`` for every alarm, one at a time; what comes too fast is dropped."""

    def __init__(self, hook: Callable[[], Hook | None], report: Callable[[Event], None]) -> None:
        self._hook = hook
        self._report = report
        self._worker = _Worker("alerts", self._run, bound=ALERTS_WAITING)
        self._started = False

    def __call__(self, event: Event) -> None:
        """Take one event; only alarms count. Any thread; returns at once."""
        if event.severity < Severity.ALARM or event.name == "hook.alert-failed" or self._hook() is None:
            return
        if not self._started:
            self._started = True
            self._worker.start()
        self._worker.put(event)

    def finish(self, timeout: float) -> None:
        """Let a hook that runs end, for at most ``timeout`` seconds."""
        if self._started:
            self._worker.finish(timeout)

    def _run(self, event: Event) -> None:
        hook = self._hook()
        if hook is None:
            return
        variables = {
            "VISOR_ALERT": event.name,
            "VISOR_ALERT_MESSAGE": event.message,
            "VISOR_ALERT_NEXT_STEP": event.next_step or "",
        }
        result = run_hook(hook, variables)
        if result.problem is not None:
            self._report(
                Event(
                    name="hook.alert-failed",
                    message=f"onAlert failed: {result.problem}",
                    severity=Severity.WARNING,
                    lines=result.lines,
                )
            )
