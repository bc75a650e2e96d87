"""``logs``: what the binaries wrote, when their output is kept in files."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from visor_actors.cli.framework import Command, Invocation, Output, with_invocation

if TYPE_CHECKING:
    from pathlib import Path

_LOOK_SECONDS = 0.25


class LogLine(Struct, frozen=True, kw_only=True):
    """One line of output. Bytes that are no UTF-8 are replaced."""

    binary: str
    line: str


@click.command(
    cls=Command,
    examples=(
        "visor-actors logs",
        "visor-actors logs core -n 200",
        "visor-actors logs --follow",
        "visor-actors logs data_node --output json | jq -r .line",
    ),
)
@click.argument("binary", required=False)
@click.option(
    "-n", "--lines", "count", type=click.IntRange(min=0), default=50, show_default=True, help="How many."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines until ^C, through rotations.")
@with_invocation
def command(invocation: Invocation, binary: str | None, count: int, follow: bool) -> None:
    """Show the last lines of BINARY (core or data_node; default: each of them), oldest first.

    Reads the files in the home: it needs no running visor. With --output json every line is an object of its
    own, with the fields binary and line."""
    from visor_actors.cli.waiting import quiet_interrupt
    from visor_actors.node.logs_reader import LogFollower

    logs = _logs(invocation, binary)
    label = len(logs) > 1
    with contextlib.ExitStack() as stack, quiet_interrupt():
        followers = {
            name: stack.enter_context(contextlib.closing(LogFollower(path, lines=count)))
            for name, path in logs.items()
        }
        while True:
            for name, follower in followers.items():
                for line in follower.read():
                    _print(invocation, name, line, label=label)
            if not follow:
                return
            time.sleep(_LOOK_SECONDS)


def _logs(invocation: Invocation, binary: str | None) -> dict[str, Path]:
    """The log of each binary that is asked for. Raises CommandError if there is none."""
    from visor_actors.cli.errors import CommandError

    folder = invocation.layout.logs
    known = {path.stem: path for path in sorted(folder.glob("*.log"))} if folder.is_dir() else {}
    if not known:
        raise CommandError(
            "no output of the binaries is kept in this home",
            where=str(folder),
            next_step='see journalctl -u visor-actors, or set mode = "files" in [logs]',
        )
    if binary is None:
        return known
    if binary not in known:
        raise CommandError(
            f"there is no log of {binary!r}", where=str(folder), next_step=f"name one of {', '.join(known)}"
        )
    return {binary: known[binary]}


def _print(invocation: Invocation, name: str, line: bytes, *, label: bool) -> None:
    from visor_actors.api.wire import dump
    from visor_actors.cli.terminal import quiet

    text = line.decode("utf-8", "replace")
    match invocation.output:
        case Output.JSON:
            click.echo(dump(LogLine(binary=name, line=text)))
        case Output.HUMAN:
            click.echo(f"{quiet(f'{name} |')} {text}" if label else text)
