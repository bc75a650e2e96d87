"""``visor-actors run`` from the inside: build the world, run the tree, leave with the right code.

The main thread serves the root supervisor. Signals reach it through a pipe, so a handler never interrupts
anything.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType

from msgspec import Struct

from visor_actors import __version__
from visor_actors.actor import Actor, ActorSystem, Context, Outcome, OutcomeKind, SpecInvalid
from visor_actors.actors.addresses import LIFECYCLE, Slot
from visor_actors.actors.control import ControlPort
from visor_actors.actors.control_port import RunningVisor
from visor_actors.actors.housekeeping import Housekeeping
from visor_actors.actors.messages import StopNode
from visor_actors.actors.node_voice import EXITED
from visor_actors.actors.recorder import AlarmBook, AlertHook, HistoryWriter
from visor_actors.actors.reports import Board
from visor_actors.actors.sentry_link import SentryLink
from visor_actors.actors.supervision_events import SupervisionEvents
from visor_actors.actors.tree import declare, supervision_settings
from visor_actors.actors.trials import Trials
from visor_actors.actors.world import Departure, Intent, Settings, World
from visor_actors.home.config import LoadedConfig
from visor_actors.home.journal import Journal, JournalUnavailable
from visor_actors.home.layout import Finding, HomeLayout
from visor_actors.home.settings import OnExit, VisorConfig
from visor_actors.node.slot_state import was_ever_saved
from visor_actors.telemetry.counters import EventCounters
from visor_actors.telemetry.events import Event, EventBus, Severity
from visor_actors.telemetry.logging import EventLog, LogForm, severity_of

ApiFactory = Callable[[Context, ControlPort], Actor]

INTERNAL = 70
SWITCH_SECONDS = 0.001
"""For how long an actor that computes may keep another one waiting; Python's default is five times that."""
FINISH_SECONDS = 2.0
"""How long what is still to be reported may take at the end."""
IMPATIENT_SIGNALS = 3
"""The third signal to stop ends visor at once and leaves the node to the next one."""


def run_visor(
    layout: HomeLayout,
    *,
    loaded: LoadedConfig,
    findings: Sequence[Finding] = (),
    api_factory: ApiFactory | None,
) -> int:
    """Run visor on a home until it is told to leave; return the exit code. Call it on the main thread, once a
    process, holding the home's lock.

    ``findings`` are what was doubtful about the home when it was prepared. Blocks.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    journal_trouble = _journal_trouble(layout)
    application = _Application(layout, loaded, api_factory)
    for finding in findings:
        application.emit(
            "home.doubtful",
            f"{finding.path}: {finding.message}",
            severity=Severity.WARNING,
            next_step=finding.next_step,
        )
    if journal_trouble is not None:
        application.emit(
            "journal.set-aside",
            journal_trouble,
            severity=Severity.ALARM,
            next_step="see that `current` leads to the release that should run, before the next upgrade",
        )
    return application.run()


def _journal_trouble(layout: HomeLayout) -> str | None:
    """What has become of the journal of earlier runs, if it is not there any more.

    Looked at before anything else opens the file: whoever comes second finds a new one.
    """
    ran_before = was_ever_saved(layout.slot(Slot.CORE))  # its shim may be coming up just now
    missing = not layout.journal.exists()
    try:
        with Journal.open(layout.journal) as journal:
            aside = journal.set_aside
    except JournalUnavailable:
        return None  # whoever needs it says so, and tries again
    if aside is not None:
        return f"the journal was damaged and is kept as {aside.name}; what runs is taken from `current`"
    return "the journal is gone; what runs is taken from `current`" if missing and ran_before else None


class _Reporting(Struct):
    """Where events go. Closed in the order in which they may still have something to say."""

    bus: EventBus
    log: EventLog
    counters: EventCounters
    alarms: AlarmBook
    history: HistoryWriter
    sentry: SentryLink
    alerts: AlertHook

    @classmethod
    def start(cls, layout: HomeLayout, config: VisorConfig, settings: Settings) -> _Reporting:
        bus = EventBus()
        reporting = cls(
            bus=bus,
            log=EventLog(form=LogForm(config.logs.format.value), level=severity_of(config.logs.level.value)),
            counters=EventCounters(),
            alarms=AlarmBook(),
            history=HistoryWriter(layout, written_elsewhere=frozenset({EXITED})),
            sentry=SentryLink(),
            alerts=AlertHook(lambda: settings.current.hooks.on_alert, bus.emit),
        )
        bus.subscribe(reporting.log.record)
        bus.subscribe(reporting.counters.record)
        bus.subscribe(reporting.alarms)
        bus.subscribe(reporting.history)
        bus.subscribe(reporting.sentry.record)
        bus.subscribe(reporting.alerts)
        reporting.history.start()
        reporting.sentry.use(config.sentry)
        return reporting

    def apply(self, config: VisorConfig) -> None:
        self.log.level = severity_of(config.logs.level.value)
        self.log.use(LogForm(config.logs.format.value))
        self.sentry.use(config.sentry)

    def finish(self) -> None:
        self.alerts.finish(FINISH_SECONDS)
        self.history.finish(FINISH_SECONDS)
        self.sentry.close(FINISH_SECONDS)
        self.log.flush()


class _Application:
    """One run of visor."""

    def __init__(self, layout: HomeLayout, loaded: LoadedConfig, api_factory: ApiFactory | None) -> None:
        self._settings = Settings(loaded.config, self._apply)
        self._reporting = _Reporting.start(layout, loaded.config, self._settings)
        self._intent = Intent(self._stop_system)
        self._world = World(
            layout=layout,
            bus=self._reporting.bus,
            board=Board(),
            settings=self._settings,
            intent=self._intent,
            trials=Trials.from_environment(),
        )
        self._port = RunningVisor(
            world=self._world,
            alarms=self._reporting.alarms,
            counters=self._reporting.counters,
            detach=lambda message: self._intent.depart(0, message),
        )
        api = None if api_factory is None else lambda context: api_factory(context, self._port)
        tree = declare(self._world, loaded, api)
        self._system = ActorSystem(
            tree,
            on_event=SupervisionEvents(self._world.bus, self._world.board),
        )
        self._port.attach(self._system)
        self._housekeeping = Housekeeping(self._world, last_actor=tree.children[-1].id)
        self._world.bus.subscribe(self._housekeeping.record)
        self._signals = 0
        self._configure_supervision(loaded.config)

    def run(self) -> int:
        """Run the tree and return the exit code."""
        self.emit(
            "visor.started", f"visor-actors {__version__} runs on {self._world.layout.root}", pid=os.getpid()
        )
        with _Signals(self._system, self._on_signal):
            self._housekeeping.start(self._system)
            outcome = self._system.run()
        departure = self._intent.departure or _unasked(outcome)
        self._housekeeping.finish(orderly=self._intent.departure is not None)
        self.emit(
            "visor.ended",
            f"visor ends: {departure.message}",
            severity=_severity(departure, asked=self._intent.departure is not None),
            next_step=departure.next_step,
            code=departure.code,
        )
        self._reporting.finish()
        if departure.code != 0:
            advice = f"next: {departure.next_step}\n" if departure.next_step else ""
            sys.stderr.write(f"visor-actors: {departure.message}\n{advice}")
        if self._system.abandoned:
            # Threads that hang must not keep the process, and with it the home's lock.
            sys.stderr.flush()
            os._exit(departure.code)
        return departure.code

    def emit(
        self,
        name: str,
        message: str,
        *,
        severity: Severity = Severity.INFO,
        next_step: str | None = None,
        **fields: str | int | float | bool | None,
    ) -> None:
        """Put one event on the bus."""
        self._world.bus.emit(
            Event(name=name, message=message, severity=severity, next_step=next_step, fields=fields)
        )

    def _stop_system(self) -> None:
        self._system.stop()

    def _apply(self, config: VisorConfig) -> None:
        """A new configuration is in force. On the config watcher's thread."""
        self._reporting.apply(config)
        self._configure_supervision(config)

    def _configure_supervision(self, config: VisorConfig) -> None:
        try:
            self._system.reconfigure(supervision_settings(config.supervision))
        except SpecInvalid as error:
            self.emit(
                "config.supervision",
                f"[supervision] is not used as it stands: {error}",
                severity=Severity.ERROR,
                next_step="correct it; the previous settings stay in force",
            )

    def _on_signal(self, number: int) -> None:
        match number:
            case signal.SIGTERM | signal.SIGINT:
                self._asked_to_end(signal.Signals(number).name)
            case _:
                pass

    def _asked_to_end(self, name: str) -> None:
        self._signals += 1
        if self._signals >= IMPATIENT_SIGNALS:
            self._intent.depart(
                1, f"left at the third {name}; what still ran of the node is left to the next visor"
            )
            return
        match self._settings.current.on_exit:
            case OnExit.DETACH:
                self._intent.depart(0, f"{name}: detached, the node goes on")
            case OnExit.STOP:
                self._intent.stop_reason = name
                self._housekeeping.stopping()
                self._system.tell(LIFECYCLE, StopNode(reason=name))


def _severity(departure: Departure, *, asked: bool) -> Severity:
    """Why visor gives up on a node was an alarm already; that visor itself cannot go on is one of its own."""
    if departure.code == 0:
        return Severity.INFO
    return Severity.ERROR if asked else Severity.ALARM


def _unasked(outcome: Outcome) -> Departure:
    """The end of a tree that nobody told to end: never the node's fault, and never its end."""
    why = {
        OutcomeKind.STOPPED: "stopped",
        OutcomeKind.START_FAILED: "an actor could not be started for the first time",
        OutcomeKind.ESCALATED: "the root supervisor gave up",
        OutcomeKind.CRASHED: "the root supervisor failed",
        OutcomeKind.TOO_MANY_ABANDONED: "too many threads hang",
    }[outcome.kind]
    detail = f": {outcome.failure}" if outcome.failure is not None else ""
    return Departure(
        INTERNAL, f"{why}{detail}; the node goes on and the next `visor-actors run` takes it over"
    )


class _Signals:
    """Turns signals into calls on the root's loop while it is entered. Main thread only."""

    HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self, system: ActorSystem, handler: Callable[[int], None]) -> None:
        self._handler = handler
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        system.watch(self._reader.fileno(), self._read)
        self._before: dict[int, object] = {}

    def __enter__(self) -> None:
        assert threading.current_thread() is threading.main_thread()
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in self.HANDLED:
            self._before[number] = signal.signal(number, _noted)
            signal.siginterrupt(number, False)

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal() itself has returned
        self._reader.close()
        self._writer.close()

    def _read(self) -> None:
        try:
            numbers = self._reader.recv(4096)
        except BlockingIOError:
            return
        for number in numbers:
            self._handler(number)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The wake-up pipe has the number already."""
