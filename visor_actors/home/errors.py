"""What can be wrong with a home folder.

::

    HomeError                     exit_code, next_step
    ├── ConfigurationInvalid      problems: every one of them, each with its place (exit code 78)
    ├── HomeUnusable              the folder itself: absent, foreign, not writable
    ├── CurrentRefused            the link ``current`` cannot be replaced as asked
    └── JournalUnavailable        the journal cannot be read or written just now
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

EXIT_FAILED = 1
EXIT_CONFIGURATION = 78


class HomeError(Exception):
    """Something about the home folder that an operator can put right."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, next_step: str) -> None:
        super().__init__(message)
        self.next_step = next_step


class Problem(Struct, frozen=True, kw_only=True):
    """One thing that is wrong in a file.

    ``line`` and ``column`` count from 1 and are None where the problem has no place (a missing file, a
    missing key). ``found`` is what is there, already masked where it may be secret; ``allowed`` is what may
    be there; ``suggestion`` is the spelling that was probably meant, or what to write instead.
    """

    file: Path
    line: int | None = None
    column: int | None = None
    key: str | None = None
    found: str | None = None
    allowed: str
    suggestion: str | None = None

    def __str__(self) -> str:
        place = str(self.file)
        if self.line is not None:
            place += f":{self.line}"
            if self.column is not None:
                place += f":{self.column}"
        text = f"{place}: "
        if self.key is not None:
            text += f"{self.key}: "
        text += f"found {self.found}; {self.allowed}" if self.found is not None else self.allowed
        if self.suggestion is not None:
            text += f"; {self.suggestion}"
        return text


class ConfigurationInvalid(HomeError):
    """One or more files say something visor does not understand. ``problems`` holds all of them, in file
    order.
    """

    exit_code = EXIT_CONFIGURATION

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(
            "\n".join(str(problem) for problem in problems),
            next_step="Correct what is listed; `visor-actors config check` tells whether all is well.",
        )
        self.problems = problems


class HomeUnusable(HomeError):
    """The home folder cannot serve: it is absent, no folder, another user's, or not writable."""


class CurrentRefused(HomeError):
    """``current`` was not replaced because that would lose or hide something."""


class JournalUnavailable(HomeError):
    """The journal could not be read or written: the disk is full, read-only or broken, or the file is busy
    too long.

    Nothing of the attempted write has happened. The node does not depend on it; callers go on and try again
    later.
    """
