"""Reads the configuration again whenever it changes, and tells who has to know. Keeps the last good one."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec import Struct

from visor_actors.actor import Actor, Address, Coalesced, Context
from visor_actors.actors.reports import Board, ConfigReport
from visor_actors.home.config import KeyChange, LoadedConfig, describe_changes, load_config
from visor_actors.home.errors import ConfigurationInvalid
from visor_actors.home.file_watch import Change, FileWatch, is_on_network
from visor_actors.home.layout import CONFIG_NAMES, HomeLayout
from visor_actors.home.settings import VisorConfig
from visor_actors.telemetry.events import Event, EventBus, Severity

# Seconds between a change and the look at it. A closed file is complete; one that is only being written, or
# was removed, gets time to become whole, so that an editor's half-way state is not reported as a mistake.
SETTLE = 0.05
SETTLE_BEGUN = 0.5
# Whatever goes on, a look is taken this often.
LONGEST_SETTLE = 2.0
# Where the kernel does not tell: no watches left, a network file system, or the home is gone for now.
POLL = 5.0

REPORT = "config"
_IN_FORCE = "config.in-force"


class ConfigChanged(Coalesced, Struct, frozen=True, kw_only=True):
    """A new configuration is in force. ``changes`` are those to the one before; a receiver that missed
    messages finds everything in ``config``.
    """

    config: VisorConfig
    changes: tuple[KeyChange, ...]


class ReloadConfig(Coalesced, Struct, frozen=True, kw_only=True):
    """Read the configuration now, whether it seems changed or not."""


class _Readable(Struct, frozen=True):
    """The kernel has events."""


class _Settled(Struct, frozen=True):
    """Long enough without a change: look."""


class _Poll(Struct, frozen=True):
    """Look, because nobody tells."""


class ConfigWatcherActor(Actor):
    """Watches config.toml (or config.yaml) of the home.

    A valid new configuration goes to ``apply`` first and then, as :class:`ConfigChanged`, to every
    subscriber. A bad one is an event and part of the report on the board; the one in force stays. What is
    in force is kept on the board too, so that a restarted watcher compares with it and not with what visor
    was started with.
    """

    def __init__(
        self,
        context: Context,
        *,
        layout: HomeLayout,
        bus: EventBus,
        board: Board,
        subscribers: tuple[Address, ...],
        initial: LoadedConfig,
        apply: Callable[[VisorConfig], None] = lambda _config: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(context)
        self._layout = layout
        self._bus = bus
        self._board = board
        self._subscribers = subscribers
        self._apply = apply
        self._now = now
        self._loaded = board.read(_IN_FORCE, LoadedConfig) or initial
        self._is_first = board.read(_IN_FORCE, LoadedConfig) is None
        self._loaded_at = now()
        self._problem: str | None = None
        self._watch: FileWatch | None = None
        self._polls = False
        self._change_since: float | None = None

    def init(self) -> None:
        """Watch first, look then: nothing can change in between unseen."""
        self._open_watch()
        if self._is_first:
            self._warn(self._loaded.warnings)
        self._look()

    def handle(self, message: object) -> None:
        """Events of the kernel are collected until they settle; then the file is read once."""
        match message:
            case _Readable():
                self._read_watch()
            case _Settled() | ReloadConfig():
                self._change_since = None
                self.context.cancel("settle")
                self._renew_watch()
                self._look()
            case _Poll():
                self._renew_watch()
                self._look()
            case _:
                pass

    def terminate(self) -> None:
        """Give the watch back."""
        if self._watch is not None:
            self.context.unwatch(self._watch.fd)
            self._watch.close()

    # -- noticing

    def _open_watch(self) -> None:
        try:
            self._watch = FileWatch(self._layout.root, CONFIG_NAMES)
        except OSError as error:
            self._bus.emit(
                Event(
                    name="config.not-watched",
                    message=f"the kernel cannot watch the configuration, visor looks every {POLL:g} s",
                    severity=Severity.WARNING,
                    next_step="Raise fs.inotify.max_user_instances and fs.inotify.max_user_watches.",
                    fields={"error": error.strerror},
                )
            )
        else:
            self.context.watch(self._watch.fd, _Readable())
        self._polls = self._watch is None or is_on_network(self._layout.root)
        self._poll_if_needed()

    def _read_watch(self) -> None:
        assert self._watch is not None
        change = self._watch.read()
        if change is Change.NONE:
            return
        now = self.context.now()
        if self._change_since is None:
            self._change_since = now
        left = self._change_since + LONGEST_SETTLE - now
        settle = SETTLE if change is Change.COMPLETE else SETTLE_BEGUN
        self.context.after(max(0.0, min(settle, left)), _Settled(), key="settle")

    def _renew_watch(self) -> None:
        if self._watch is not None:
            try:
                self._watch.renew()
            except OSError:
                self._polls = True
        self._poll_if_needed()

    def _poll_if_needed(self) -> None:
        if self._polls or (self._watch is not None and self._watch.lost):
            self.context.after(POLL, _Poll(), key="poll")

    # -- looking

    def _look(self) -> None:
        try:
            loaded = load_config(self._layout)
        except ConfigurationInvalid as invalid:
            self._refuse(invalid)
        else:
            self._accept(loaded)
        self._publish()

    def _refuse(self, invalid: ConfigurationInvalid) -> None:
        problem = str(invalid)
        if problem == self._problem:
            return
        self._problem = problem
        self._bus.emit(
            Event(
                name="config.refused",
                message="the configuration was edited and is not valid; the last good one stays in force",
                severity=Severity.ERROR,
                next_step=invalid.next_step,
                fields={"problems": len(invalid.problems)},
                lines=tuple(str(one) for one in invalid.problems),
            )
        )

    def _accept(self, loaded: LoadedConfig) -> None:
        before, self._loaded = self._loaded, loaded
        if loaded.warnings != before.warnings:
            self._warn(loaded.warnings)
        changes = describe_changes(before.config, loaded.config)
        if changes:
            self._loaded_at = self._now()
            self._apply(loaded.config)
            for subscriber in self._subscribers:
                self.context.tell(subscriber, ConfigChanged(config=loaded.config, changes=changes))
            self._bus.emit(
                Event(
                    name="config.changed",
                    message=f"a new configuration is in force: {', '.join(change.key for change in changes)}",
                    fields={"changes": len(changes)},
                    lines=tuple(str(change) for change in changes),
                )
            )
        elif self._problem is not None:
            self._bus.emit(
                Event(
                    name="config.restored",
                    message="the configuration is valid again, and is as it was before",
                )
            )
        self._problem = None
        # Last: if this incarnation ended on the way, the next one tells everybody once more.
        self._board.publish(_IN_FORCE, loaded)

    def _warn(self, warnings: tuple[str, ...]) -> None:
        for warning in warnings:
            self._bus.emit(Event(name="config.warning", message=warning, severity=Severity.WARNING))

    def _publish(self) -> None:
        self._board.publish(
            REPORT,
            ConfigReport(
                path=str(self._loaded.path),
                loaded_at=self._loaded_at,
                problem=self._problem,
                warnings=self._loaded.warnings,
            ),
        )
