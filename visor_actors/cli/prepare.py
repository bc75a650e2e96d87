"""``prepare``: have a release in place before its upgrade."""

from __future__ import annotations

import click

from visor_actors.cli.framework import Command, Invocation, Output, with_invocation


@click.command(
    cls=Command, examples=("visor-actors prepare v0.76.0", "visor-actors prepare v0.76.0 --output json")
)
@click.argument("tag")
@with_invocation
def command(invocation: Invocation, tag: str) -> None:
    """Fetch release TAG, verify it, unpack it into its upgrade folder and check it, without switching to it.

    A running visor does it; without one this command does. What is there already is only checked."""
    from visor_actors.actors.reports import InstallReport
    from visor_actors.cli.preparing import prepare
    from visor_actors.cli.status_view import install_text
    from visor_actors.cli.terminal import print_json
    from visor_actors.cli.waiting import ProgressLine, bar

    with ProgressLine() as progress:

        def show(report: InstallReport) -> None:
            progress.show(f"{tag} {bar(report.done, report.total)}{install_text(report)}")

        prepared = prepare(invocation, tag, show)
    match invocation.output:
        case Output.JSON:
            print_json(prepared)
        case Output.HUMAN:
            click.echo(f"{tag} is ready in {invocation.home / prepared.folder}")
            if prepared.verification:
                click.echo(f"verified: {prepared.verification}")
