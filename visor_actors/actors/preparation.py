"""Making sure that an upgrade's folder is ready before the height: check it, fetch it, or say what is
missing.

One :class:`Preparation` belongs to one upgrade. It is owned by the coordinator's thread and only remembers
what was found so far; the checks themselves run as jobs, because they execute ``version`` of the new binary.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from visor_actors.install.check import FolderReport, check_folder

CHUNK = 4 * 1024 * 1024


class Need(enum.Enum):
    """What the preparation of an upgrade needs next."""

    NOTHING = "nothing: it is ready, or somebody is at work"
    CHECK = "the folder must be checked"
    INSTALL = "the release must be fetched"
    OPERATOR = "the operator must provide the folder"


@dataclass(slots=True, kw_only=True)
class Preparation:
    """What is known of one upgrade's folder. ``problem`` and ``next_step`` are for the operator."""

    tag: str
    folder: Path
    ready: bool = False
    checking: bool = False
    installing: bool = False
    unfetchable: bool = False
    problem: str | None = None
    next_step: str | None = None
    _signature: tuple[object, ...] | None = None
    _checked: tuple[object, ...] | None = None

    def need(self, *, auto_install: bool) -> Need:
        """Look at the folder (a few stats) and say what is to be done. Any change in it calls for a new
        check.
        """
        if self.checking:
            return Need.NOTHING
        self._signature = signature(self.folder)
        if self._signature is not None:
            if self._signature == self._checked:
                return Need.NOTHING
            self.ready = False
            return Need.CHECK
        self.ready = False
        self._checked = None
        if self.installing:
            return Need.NOTHING
        return Need.INSTALL if auto_install and not self.unfetchable else Need.OPERATOR

    def begin_check(self) -> None:
        """A check of what the last :meth:`need` saw has begun."""
        self.checking = True
        self._checked = self._signature

    def finish_check(self, report: FolderReport) -> None:
        """Take in what the check found. A folder that changed meanwhile will be checked again."""
        self.checking = False
        if signature(self.folder) != self._checked:
            self._checked = None
            return
        self.ready = report.ready
        if report.ready:
            self.problem = self.next_step = None
        else:
            self.problem = "; ".join(problem.what for problem in report.problems)
            self.next_step = "; ".join(problem.next_step for problem in report.problems)

    def fail_check(self, problem: str) -> None:
        """The check itself broke; it is made again after the next change, or when asked."""
        self.checking = False
        self.problem = f"the folder could not be checked: {problem}"
        self.next_step = "see visor's log"

    def forget(self) -> None:
        """Check again even if nothing changed."""
        self._checked = None


def signature(folder: Path) -> tuple[object, ...] | None:
    """What the folder's files look like from outside (names, sizes, times, modes); None when there is no
    folder.
    """
    if not folder.is_dir():
        return None
    return tuple(_entries(folder))


def _entries(folder: Path) -> Iterator[tuple[str, int, int, int]]:
    try:
        with os.scandir(folder) as found:
            names = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in names:
        try:
            status = entry.stat()
        except OSError:
            continue
        yield entry.name, status.st_size, status.st_mtime_ns, status.st_mode


def examine(folder: Path, tag: str) -> FolderReport:
    """Check the folder and, if it is complete, have its files read: a switch then finds them in memory."""
    report = check_folder(folder, tag=tag)
    if report.ready:
        _warm(folder)
    return report


def _warm(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
