"""One printer for all errors, saying what happened, where, and what to do next."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise

import click
from msgspec import Struct

from visor_actors.cli.errors import CommandError, ExitCode
from visor_actors.cli.terminal import style


class Report(Struct, frozen=True, kw_only=True):
    """An error as it is printed."""

    code: int
    problem: str
    where: str | None = None
    next_step: str | None = None


def report(error: BaseException, arguments: Sequence[str]) -> int:
    """Print ``error`` on standard error and return the exit code. SystemExit passes through."""
    if isinstance(error, SystemExit):
        raise error
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)  # nothing was asked for: the help says what can be
        return ExitCode.USAGE
    described = describe(error)
    if _wants_json(arguments):
        fields = {
            "code": described.code,
            "problem": described.problem,
            "where": described.where,
            "next_step": described.next_step,
        }
        click.echo(json.dumps({"error": fields}, ensure_ascii=False), err=True)
        return described.code
    if described.code == ExitCode.INTERNAL:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
    click.echo(f"{style('error:', sys.stderr, fg='red', bold=True)} {described.problem}", err=True)
    if described.where:
        click.echo(f"  where: {described.where}", err=True)
    if described.next_step:
        click.echo(f"  next:  {described.next_step}", err=True)
    return described.code


def describe(error: BaseException) -> Report:
    """Return what is to be said about ``error``. An exception nobody expected is an internal error."""
    match error:
        case CommandError():
            return Report(
                code=error.code, problem=error.problem, where=error.where, next_step=error.next_step
            )
        case click.UsageError():
            step = f"see {error.ctx.command_path} --help" if error.ctx is not None else None
            return Report(code=ExitCode.USAGE, problem=error.format_message(), next_step=step)
        case click.ClickException():
            return Report(code=error.exit_code, problem=error.format_message())
        case click.Abort() | KeyboardInterrupt():
            return Report(code=ExitCode.INTERRUPTED, problem="interrupted")
        case _:
            return _describe_other(error)


def _describe_other(error: BaseException) -> Report:
    # Errors of other packages that an operator can act on carry a next step and an exit code.
    step = getattr(error, "next_step", None)
    if isinstance(step, str):
        code = getattr(error, "exit_code", ExitCode.FAILED)
        return Report(code=int(code), problem=str(error), next_step=step or None)
    if type(error).__name__ in ("NotRunning", "Unreachable"):
        return Report(
            code=ExitCode.FAILED,
            problem=str(error),
            next_step="see visor-actors status; start it with visor-actors run or its service",
        )
    if isinstance(error, OSError) and error.filename is not None:
        return Report(
            code=ExitCode.FAILED,
            problem=error.strerror or str(error),
            where=str(error.filename),
            next_step="check that the path exists and that this user may use it",
        )
    return Report(
        code=ExitCode.INTERNAL,
        problem=f"{type(error).__name__}: {error}",
        next_step="please report this fault of visor-actors with the lines above; a running node goes on",
    )


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether JSON was asked for. Read from the arguments: they may be what could not be parsed."""
    words = list(arguments)
    return "--output=json" in words or ("--output", "json") in pairwise(words)
