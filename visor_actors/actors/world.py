"""What every actor of the tree is given: the home, the bus, the board, and the configuration in force."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from msgspec import Struct, field

from visor_actors.actors.reports import Board
from visor_actors.actors.trials import Trials
from visor_actors.home.config import VisorConfig
from visor_actors.home.layout import HomeLayout
from visor_actors.telemetry.events import EventBus


def seconds_since_boot() -> float:
    """The clock in which /proc says when a process was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Settings:
    """The configuration in force. Actors are told of changes by message and read the newest here when they
    start.
    """

    def __init__(
        self, config: VisorConfig, apply: Callable[[VisorConfig], None] = lambda _config: None
    ) -> None:
        self._lock = threading.Lock()
        self._config = config
        self._apply = apply

    @property
    def current(self) -> VisorConfig:
        """The newest valid configuration."""
        with self._lock:
            return self._config

    def replace(self, config: VisorConfig) -> None:
        """Put a new valid configuration into force: for visor at once, for actors when they next look."""
        with self._lock:
            if config == self._config:
                return
            self._config = config
        self._apply(config)


class Departure(Struct, frozen=True):
    """How visor is to end: an exit code and the last sentence."""

    code: int
    message: str
    next_step: str | None = None


class Intent:
    """Whether visor is to end, kept outside the actors so that none of their restarts forgets it.

    ``stop_reason`` is set once the operator asked for the node to be stopped; a lifecycle that starts later
    goes on with the stop. ``shims_may_leave`` is set once nothing runs any more. :meth:`depart` ends visor
    itself; the first departure counts.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._lock = threading.Lock()
        self.stop_reason: str | None = None
        self.shims_may_leave = False
        self.departure: Departure | None = None

    def depart(self, code: int, message: str, *, next_step: str | None = None) -> None:
        """End visor with this exit code; any thread."""
        with self._lock:
            if self.departure is None:
                self.departure = Departure(code, message, next_step)
        self._leave()


class World(Struct, frozen=True, kw_only=True):
    """The surroundings of the actors. Built in one place, by the application; replaced by tests.

    ``now`` is Unix time in seconds, ``monotonic`` seconds of a clock that never steps, ``since_boot`` seconds
    since the machine was started, sleep included: what the start of a process is counted in.
    """

    layout: HomeLayout
    bus: EventBus
    board: Board
    settings: Settings
    intent: Intent
    trials: Trials = field(default_factory=Trials)
    now: Callable[[], float] = field(default=time.time)
    monotonic: Callable[[], float] = field(default=time.monotonic)
    since_boot: Callable[[], float] = field(default=seconds_since_boot)
