"""``history``: what happened, as the journal kept it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from visor_actors.cli.framework import Command, Invocation, Output, with_invocation

if TYPE_CHECKING:
    from visor_actors.home.journal import HistoryEntry

# The groups an operator asks for, as filters on the events' names.
_KINDS = {
    "all": None,
    "binaries": "binary.*",
    "node": "node.*",
    "upgrades": "upgrade.*",
    "installs": "install.*",
    "actors": "actor.*",
    "config": "config.*",
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_WARNING = 30
_ALARM = 50


class HistoryDocument(Struct, frozen=True, kw_only=True):
    """What ``history --output json`` prints, oldest first."""

    events: tuple[HistoryEntry, ...]


@click.command(
    cls=Command,
    examples=(
        "visor-actors history",
        "visor-actors history --kind upgrades --since 7d",
        "visor-actors history --alarms -n 5 --output json",
        "visor-actors history --follow",
    ),
)
@click.option(
    "-n", "--lines", "count", type=click.IntRange(min=1), default=50, show_default=True, help="How many."
)
@click.option(
    "--kind", type=click.Choice(list(_KINDS)), default="all", show_default=True, help="Which events."
)
@click.option("--name", help="Only events of this name; NAME.* means all below it.")
@click.option("--alarms", is_flag=True, help="Only what an operator must act on.")
@click.option("--since", help="Not older than this: 90s, 30m, 12h, 7d, or 2026-01-31, or 2026-01-31 18:00.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new ones until ^C.")
@with_invocation
def command(
    invocation: Invocation,
    count: int,
    kind: str,
    name: str | None,
    alarms: bool,
    since: str | None,
    follow: bool,
) -> None:
    """Show starts, exits with their last lines, restarts, upgrade steps and alarms, oldest first.

    Reads the journal of the home: it needs no running visor and survives restarts of it."""
    from visor_actors.api.wire import dump
    from visor_actors.cli.journal import journal_events
    from visor_actors.cli.terminal import print_json
    from visor_actors.cli.waiting import quiet_interrupt

    began = parse_since(since, time.time()) if since else None

    def read(after_id: int | None, limit: int | None) -> tuple[HistoryEntry, ...]:
        return journal_events(
            invocation.layout,
            name=name or _KINDS[kind],
            least_severity=_ALARM if alarms else 0,
            since=began,
            after_id=after_id,
            limit=limit,
        )

    entries = read(None, count)
    if invocation.output is Output.JSON and not follow:
        print_json(HistoryDocument(events=entries))
        return
    show = dump if invocation.output is Output.JSON else render
    for entry in entries:
        click.echo(show(entry))
    if not entries and not follow:
        click.echo("Nothing in the history fits.")
    last = entries[-1].id if entries else 0
    with quiet_interrupt():
        while follow:
            time.sleep(0.5)
            for entry in read(last, None):
                click.echo(show(entry))
                last = entry.id


def parse_since(text: str, now: float) -> float:
    """Return the Unix time that ``text`` means: a span back from ``now``, or a local date or time.

    Raises a usage error for anything else."""
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.replace(".", "", 1).isdigit():
        return now - float(number) * _UNITS[unit]
    for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"):
        try:
            return time.mktime(time.strptime(text, form))
        except ValueError:
            continue
    raise click.BadParameter(
        f"{text!r} is no span (90s, 30m, 12h, 7d) and no date (2026-01-31)", param_hint="--since"
    )


def render(entry: HistoryEntry) -> str:
    """Return one event as lines for people."""
    from visor_actors.cli.terminal import bad, doubtful, moment, quiet

    match entry.severity:
        case severity if severity >= 40:
            name = bad(entry.name)
        case severity if severity >= 30:
            name = doubtful(entry.name)
        case _:
            name = entry.name
    lines = [f"{quiet(moment(entry.at))}  {name}  {entry.message}"]
    if entry.next_step:
        lines.append(f"  next: {entry.next_step}")
    if entry.trouble:
        lines.append(f"  {entry.trouble}")
    if entry.severity >= _WARNING or not entry.name.startswith("binary."):
        # The last words of a binary matter when nobody asked it to end; JSON has them always.
        lines += [quiet(f"  | {line}") for line in entry.lines]
    return "\n".join(lines)
