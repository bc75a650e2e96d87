"""``status``: what runs, since when, and what comes next."""

from __future__ import annotations

import click

from visor_actors.cli.framework import Command, Invocation, Output, with_invocation


@click.command(
    cls=Command,
    examples=(
        "visor-actors status --home /srv/visor",
        "visor-actors status --watch",
        "visor-actors status --output json | jq .visor.node.phase",
    ),
)
@click.option("--watch", is_flag=True, help="Refresh in place until ^C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="Seconds between refreshes.",
)
@with_invocation
def command(invocation: Invocation, watch: bool, interval: float) -> int:
    """Show what runs since when, what it uses, the next upgrade and the alarms.

    Without a running visor it shows what the home folder tells, and exits with 1."""
    from visor_actors.api.client import NotRunning
    from visor_actors.cli.status_view import StatusDocument, render
    from visor_actors.cli.terminal import print_json, refresh
    from visor_actors.cli.usage import UsageMeter

    meter = UsageMeter()
    layout, client = invocation.layout, invocation.client

    def look() -> StatusDocument:
        try:
            report = client.status()
        except NotRunning:
            from visor_actors.cli.disk import read_disk

            return StatusDocument(running=False, disk=read_disk(layout))
        pids = (report.pid, *(binary.pid for binary in report.binaries))
        return StatusDocument(running=True, visor=report, usage=meter.measure(pids))

    if watch and invocation.output is Output.HUMAN:
        refresh(lambda: render(look()), interval)
        return 0
    document = look()
    match invocation.output:
        case Output.JSON:
            print_json(document)
        case Output.HUMAN:
            click.echo(render(document))
    return 0 if document.running else 1
