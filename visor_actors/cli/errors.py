"""How a command fails: what it says, as fields, and the exit code. :mod:`visor_actors.cli.report` prints it.

CommandError         exit code 1
└── NoVisor          the command needs a running visor and none runs on this home
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What the exit status means; the numbers are those of sysexits.h."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INTERNAL = 70
    HOME_LOCKED = 75
    CONFIGURATION = 78
    INTERRUPTED = 130


class CommandError(Exception):
    """A command could not do its work. All that an operator needs is in the fields."""

    def __init__(
        self,
        problem: str,
        *,
        where: str | None = None,
        next_step: str | None = None,
        code: ExitCode = ExitCode.FAILED,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.next_step = next_step
        self.code = code


class NoVisor(CommandError):
    """The command needs a running visor and none runs on this home."""
