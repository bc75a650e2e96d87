"""One upgrade folder: is it complete, must it be fetched, or what is missing?

A :class:`Preparation` only remembers what was found so far; the checks themselves run as jobs, because they
execute ``version`` of the new binaries.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path

from msgspec import Struct, field

from visor_actors.actors.upgrade_machine import Folder
from visor_actors.home.errors import HomeError
from visor_actors.home.run_config import load_run_config
from visor_actors.install.check import FolderReport, check_folder
from visor_actors.node.arguments import Role, command_line
from visor_actors.node.command import Cancellation
from visor_actors.node.errors import NodeError

CHECK_AGAIN_SECONDS = 15.0
"""How often an incomplete folder is checked although nothing in it has changed: what is missing may be
outside of it."""

Signature = tuple[tuple[object, ...], ...]


class Need(enum.Enum):
    """What the preparation of an upgrade needs next."""

    NOTHING = "nothing: it is ready, or somebody is at work"
    CHECK = "the folder must be checked"
    INSTALL = "the release must be fetched"
    OPERATOR = "the operator must provide the folder"


class Examination(Struct, frozen=True, kw_only=True):
    """What a check found, and the executables it looked at, wherever they are."""

    report: FolderReport
    executables: tuple[Path, ...] = ()


class Preparation(Struct, kw_only=True):
    """What is known of one upgrade's folder. Times are seconds of a clock that never steps.

    ``problem`` and ``next_step`` are for the operator; ``troubled_since`` is when that problem was first
    seen, ``looked_at`` when the folder was. ``unfetchable``: fetching has failed for good.
    """

    tag: str
    folder: Path
    state: Folder = Folder.UNKNOWN
    checking: bool = False
    installing: bool = False
    unfetchable: bool = False
    problem: str | None = None
    next_step: str | None = None
    troubled_since: float | None = None
    looked_at: float | None = None
    _executables: tuple[Path, ...] = ()
    _seen: Signature | None = None
    _checked: Signature | None = None
    _checked_at: float = field(default=0.0)

    @property
    def complete(self) -> bool:
        """Whether the folder, as it was last seen, can be switched to."""
        return self.state is Folder.COMPLETE

    def need(self, *, auto_install: bool, now: float) -> Need:
        """Look at the folder (a few stats) and say what is to be done. Any change in it calls for a new
        check.
        """
        if self.checking:
            return Need.NOTHING
        self._seen = signature(self.folder, self._executables)
        if self._seen is None:
            self.state, self._checked = Folder.INCOMPLETE, None
            if self.installing and auto_install:
                return Need.NOTHING
            self.installing = False
            return Need.INSTALL if auto_install and not self.unfetchable else Need.OPERATOR
        if self._seen != self._checked:
            if self.complete:
                self.state = Folder.UNKNOWN
            return Need.CHECK
        overdue = now - self._checked_at >= CHECK_AGAIN_SECONDS
        return Need.CHECK if not self.complete and overdue else Need.NOTHING

    def begin_check(self) -> None:
        """A check of what the last :meth:`need` saw has begun."""
        self.checking = True
        self._checked = self._seen

    def finish_check(self, examination: Examination, *, now: float) -> None:
        """Take in what the check found. A folder that changed meanwhile will be checked again."""
        self.checking = False
        self._checked_at = now
        unchanged = signature(self.folder, self._executables) == self._checked
        self._executables = examination.executables
        # From here on these are watched too.
        self._checked = signature(self.folder, self._executables) if unchanged else None
        report = examination.report
        if not unchanged:
            self.state = Folder.UNKNOWN if report.ready else Folder.INCOMPLETE
        elif report.ready:
            self.state, self.unfetchable = Folder.COMPLETE, False
            self.solved()
        else:
            self.state = Folder.INCOMPLETE
            self.trouble(
                "; ".join(problem.what for problem in report.problems),
                "; ".join(dict.fromkeys(problem.next_step for problem in report.problems)),
                now=now,
            )

    def fail_check(self, problem: str, *, now: float) -> None:
        """The check itself broke; it is made again later, or after the next change."""
        self.checking = False
        self._checked_at = now
        self.state = Folder.INCOMPLETE
        self.trouble(f"the folder could not be checked: {problem}", "see visor's log", now=now)

    def trouble(self, problem: str, next_step: str | None, *, now: float) -> None:
        """Note what keeps the folder from being complete."""
        if problem != self.problem or self.troubled_since is None:
            self.troubled_since = now
        self.problem, self.next_step = problem, next_step

    def solved(self) -> None:
        """Nothing is known to be wrong."""
        self.problem = self.next_step = self.troubled_since = None

    def forget(self) -> None:
        """Check again even if nothing changed, and fetch again even if that has failed."""
        self._checked = None
        self.unfetchable = False


def signature(folder: Path, executables: tuple[Path, ...] = ()) -> Signature | None:
    """What the folder's files, and ``executables`` wherever they are, look like from outside (names, sizes,
    times, modes); None when there is no folder.
    """
    try:
        with os.scandir(folder) as found:
            names = sorted(entry.name for entry in found)
    except OSError:
        return None
    return tuple(_look(path) for path in (*(folder / name for name in names), *executables))


def _look(path: Path) -> tuple[object, ...]:
    try:
        status = path.stat()
    except OSError as error:
        return os.fspath(path), error.errno
    return os.fspath(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode


def examine(folder: Path, tag: str, cancel: Cancellation | None = None) -> Examination:
    """Check the folder and, if it is complete, have its files read: a switch then finds them in memory.

    Runs the binaries' ``version``: call it in a job.
    """
    report = check_folder(folder, tag=tag, cancel=cancel)
    executables = _executables(folder)
    if report.ready:
        for path in executables:
            _warm(path)
    return Examination(report=report, executables=executables)


def _executables(folder: Path) -> tuple[Path, ...]:
    try:
        config = load_run_config(folder)
        roles = (Role.CORE,) if config.data_node is None else (Role.CORE, Role.DATA_NODE)
        return tuple(dict.fromkeys(command_line(config, role).executable for role in roles))
    except (HomeError, NodeError, OSError):
        return ()


def _warm(path: Path) -> None:
    try:
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
    except OSError:
        return  # it was there a moment ago; whoever starts it will say what is wrong
