"""What visor shows of itself: immutable reports, published on a :class:`Board`, read by the control API.

Every actor publishes its own part whenever it changes. Reading takes a lock for a dictionary look-up
only, so a hung actor never hangs ``status``. Times are Unix seconds."""

from __future__ import annotations

import enum
import threading
from collections.abc import Mapping
from typing import TypeVar

from msgspec import Struct, field

T = TypeVar("T")


class ExitReport(Struct, frozen=True, kw_only=True):
    """How one incarnation of a binary ended. ``code`` and ``signal`` are both None when nobody could know."""

    code: int | None
    signal: int | None
    requested: bool
    at: float
    lines: tuple[str, ...] = ()


class BinaryReport(Struct, frozen=True, kw_only=True):
    """One binary. ``phase``: ``stopped``, ``starting``, ``running``, ``stopping`` or ``unreachable``.

    ``custody``: ``none``, ``attached`` (its shim is its parent) or ``adopted`` (a successor shim watches it).
    """

    slot: str
    phase: str
    custody: str
    pid: int | None = None
    shim_pid: int | None = None
    started_at: float | None = None
    argv: tuple[str, ...] = ()
    last_exit: ExitReport | None = None
    problem: str | None = None


class NodeReport(Struct, frozen=True, kw_only=True):
    """The node as a whole. ``phase``: ``stopped``, ``starting``, ``running``, ``waiting`` (for a restart
    delay), ``stopping``, ``upgrading``, ``held`` (refused to start) or ``gave-up``."""

    phase: str
    folder: str | None = None
    brand: str | None = None
    restarts: int = 0
    restarts_max: int = 0
    reason: str | None = None


class RpcReport(Struct, frozen=True, kw_only=True):
    """What the core's admin RPC last said. ``height`` is from REST and None where that is not reachable."""

    connected: bool
    last_answer_at: float | None = None
    attempts_left: int | None = None
    problem: str | None = None
    tag: str | None = None
    upgrade_height: int | None = None
    ready: bool = False
    height: int | None = None


class UpgradeReport(Struct, frozen=True, kw_only=True):
    """One upgrade: the pending one or the last. ``state`` is one of the journal's states; ``steps`` are
    (state, time)."""

    tag: str
    height: int
    state: str
    folder: str | None = None
    prepared: bool = False
    problem: str | None = None
    next_step: str | None = None
    held: bool = False
    steps: tuple[tuple[str, float], ...] = ()

    @property
    def before_switch(self) -> bool:
        """Whether the switch is still ahead, so that it matters if the release is in place."""
        return self.state not in ("switched", "starting", "confirmed", "superseded", "withdrawn")


class HoldsReport(Struct, frozen=True, kw_only=True):
    """What the operator, or a failed hook, holds back: tags, or ``*`` for whichever comes next."""

    tags: tuple[str, ...] = ()


class InstallReport(Struct, frozen=True, kw_only=True):
    """The release being fetched. Sizes in bytes; ``total`` is None while unknown."""

    tag: str
    phase: str
    done: int = 0
    total: int | None = None
    rate: float = 0.0
    attempt: int = 1
    problem: str | None = None


class ConfigReport(Struct, frozen=True, kw_only=True):
    """The configuration in force and the problem of a newer one that was refused."""

    path: str
    loaded_at: float
    problem: str | None = None
    warnings: tuple[str, ...] = ()


class AlarmReport(Struct, frozen=True, kw_only=True):
    """Something an operator must act on."""

    name: str
    message: str
    next_step: str | None
    at: float


class Health(enum.Enum):
    """Visor's own state in one word. ``DEGRADED``: an actor is beyond its budget or an alarm waits."""

    OK = "ok"
    DEGRADED = "degraded"
    STOPPING = "stopping"


class StatusReport(Struct, frozen=True, kw_only=True):
    """Everything ``status`` shows of a running visor. ``upgrade`` is the pending one, else the last;
    ``counters`` count events by name since visor started."""

    version: str
    pid: int
    started_at: float
    home: str
    health: Health
    node: NodeReport
    binaries: tuple[BinaryReport, ...] = ()
    rpc: RpcReport | None = None
    upgrade: UpgradeReport | None = None
    install: InstallReport | None = None
    config: ConfigReport | None = None
    alarms: tuple[AlarmReport, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)


class Board:
    """A thread-safe map from a key to the newest report. Writers replace whole reports; readers get immutable
    ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: dict[str, object] = {}

    def publish(self, key: str, report: object) -> None:
        """Replace what is shown under ``key``."""
        with self._lock:
            self._reports[key] = report

    def withdraw(self, key: str) -> None:
        """Show nothing under ``key`` any more."""
        with self._lock:
            self._reports.pop(key, None)

    def read(self, key: str, kind: type[T]) -> T | None:
        """Return what is shown under ``key`` if it is a ``kind``, else None."""
        with self._lock:
            report = self._reports.get(key)
        return report if isinstance(report, kind) else None

    def all(self, kind: type[T]) -> tuple[T, ...]:
        """Return every shown report that is a ``kind``, in the order of their keys."""
        with self._lock:
            reports = sorted(self._reports.items())
        return tuple(report for _, report in reports if isinstance(report, kind))
