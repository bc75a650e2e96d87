"""What custody talks about: launch orders, running binaries, exits, and the messages a shim sends.

All of it is frozen data without behaviour, so that actors, reports and tests can share it without importing
the client. Times named ``*_at`` are Unix seconds; durations are seconds.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field


class InheritedOutput(Struct, frozen=True, kw_only=True):
    """The binary writes to these descriptors of the calling process (they are passed to the shim, not closed
    here).
    """

    stdout: int = 1
    stderr: int = 2


class OutputFiles(Struct, frozen=True, kw_only=True):
    """The shim captures stdout and stderr in ``directory/name.log``, rotated at line ends.

    A file grows to ``max_bytes`` (and the rest of its last line), then becomes ``name.log.1``; ``keep`` of
    these are kept.
    """

    directory: Path
    name: str
    max_bytes: int = 100 * 1024 * 1024
    keep: int = 10


Output = InheritedOutput | OutputFiles


class LaunchOrder(Struct, frozen=True, kw_only=True):
    """Everything a shim needs to start one incarnation of a binary. No shell is involved.

    ``executable`` is a path (no search); ``argv`` includes ``argv[0]``; ``env`` is the whole environment.
    ``limits`` maps names of resource limits as in ``ulimit``'s long form (``nofile``, ``core``, ``as``...) to
    the value for both the soft and the hard limit, -1 for unlimited. ``user`` (a name or a numeric id) needs
    root. ``home_lock`` is a file in the node's own home that the binary holds besides the slot's lock, so
    that two visors with different homes do not run one node; where it cannot be made the start goes on
    without it and :class:`Started` says so.
    """

    executable: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    working_directory: str
    output: Output = field(default_factory=InheritedOutput)
    limits: Mapping[str, int] = field(default_factory=dict)
    user: str | None = None
    home_lock: str | None = None


class RunningBinary(Struct, frozen=True, kw_only=True):
    """One live incarnation. ``incarnation`` counts the starts of the slot, over all shims and visors.

    ``start_ticks`` and ``boot_id`` make ``pid`` unique for all time. ``adopted``: the shim is not the
    binary's parent, so its exit status will be unknown. ``stopping``: a stop was ordered and has not ended
    yet.
    """

    incarnation: int
    pid: int
    start_ticks: int
    boot_id: str
    executable: str
    argv: tuple[str, ...]
    started_at: float
    adopted: bool = False
    stopping: bool = False


class ExitRecord(Struct, frozen=True, kw_only=True):
    """How one incarnation ended. Nothing of it runs any more and its lock is free.

    Exactly one of ``code`` and ``signal`` is set if ``known``; both are None when nobody could know (the
    binary was adopted, or ended while no shim lived). ``requested``: a stop had been ordered before it ended.
    ``ended_at`` is when the end was noticed. ``last_lines`` are the last lines of its output where the shim
    captures it, else empty. ``earlier_boot``: it ran before the machine was booted, and that is all that is
    known of its end.
    """

    incarnation: int
    pid: int
    code: int | None
    signal: int | None
    known: bool
    requested: bool
    started_at: float
    ended_at: float
    user_seconds: float = 0.0
    system_seconds: float = 0.0
    max_rss_kib: int = 0
    last_lines: tuple[str, ...] = ()
    earlier_boot: bool = False

    @property
    def is_failure(self) -> bool:
        """Whether it ended by itself: neither because it was asked to, nor with the whole machine."""
        return not self.requested and not self.earlier_boot


class HolderInfo(Struct, frozen=True, kw_only=True):
    """Who keeps a slot from being used. ``pid`` is None when the holder cannot be seen from here (another
    container).
    """

    pid: int | None
    executable: str | None
    problem: str


class Hello(Struct, frozen=True, kw_only=True):
    """The state of a slot at the moment of attaching.

    ``exits`` are those that nobody has acknowledged yet, oldest first. ``held_by`` is set while something
    unidentified holds the slot's lock; starts are then refused. ``exits_lost`` counts the unacknowledged ones
    that had to be forgotten.
    """

    shim_pid: int
    protocol: int
    running: RunningBinary | None
    exits: tuple[ExitRecord, ...]
    held_by: HolderInfo | None
    exits_lost: int = 0

    def tells_of_a_start(self, *, after: int) -> bool:
        """Whether an incarnation beyond ``after`` runs, has ended, or may be what holds the slot."""
        began = self.running is not None or self.held_by is not None
        return began or any(record.incarnation > after for record in self.exits)


class RefusalKind(enum.Enum):
    """Why a start was refused. ``UNKNOWN`` is anything a newer shim may say unknown to this client."""

    RUNNING = "running"
    HELD = "held"
    EXECUTABLE_MISSING = "executable-missing"
    NOT_EXECUTABLE = "not-executable"
    WRONG_ARCHITECTURE = "wrong-architecture"
    INTERPRETER_MISSING = "interpreter-missing"
    DIRECTORY_MISSING = "directory-missing"
    PERMISSION = "permission"
    USER_UNKNOWN = "user-unknown"
    LIMITS = "limits"
    OUTPUT = "output"
    RESOURCES = "resources"
    INVALID = "invalid"
    UNKNOWN = "unknown"


class StopStep(enum.Enum):
    """How far a stop has come. The end of a stop is :class:`Exited`, or ``NOTHING_RUNS`` where there was
    nothing to stop.
    """

    SIGNALLED = "signalled"
    KILLED = "killed"
    LEFTOVERS = "leftovers"
    NOTHING_RUNS = "nothing-runs"


class Started(Struct, frozen=True, kw_only=True):
    """The order was carried out: the binary's own code runs (exec succeeded).

    ``unguarded`` says why it does not hold a lock in the node's own home; None if it does.
    """

    request: int
    binary: RunningBinary
    unguarded: str | None = None


class StartRefused(Struct, frozen=True, kw_only=True):
    """The order was not carried out and nothing of it runs. ``problem`` and ``next_step`` are sentences for
    the operator.
    """

    request: int
    kind: RefusalKind
    problem: str
    next_step: str


class Exited(Struct, frozen=True, kw_only=True):
    """A binary ended, with everything it left behind. Answer with ``acknowledge`` once it has been dealt
    with.
    """

    record: ExitRecord


class StopProgress(Struct, frozen=True, kw_only=True):
    """A stop goes on. ``request`` is None when leftovers of a binary that ended by itself are removed."""

    request: int | None
    step: StopStep
    detail: str = ""


class LogsDropped(Struct, frozen=True, kw_only=True):
    """Output of the binary could not be written and was dropped: ``dropped`` bytes since the last such
    message.
    """

    dropped: int
    total: int
    problem: str


class Refused(Struct, frozen=True, kw_only=True):
    """A command other than a start was not carried out."""

    request: int | None
    problem: str


ShimMessage = Started | StartRefused | Exited | StopProgress | LogsDropped | Refused
