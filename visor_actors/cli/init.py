"""``init``: make a home folder."""

from __future__ import annotations

import click

from visor_actors.cli.framework import Command, Invocation, Output, with_invocation


@click.command(
    cls=Command,
    examples=(
        "visor-actors init --home /srv/visor",
        "visor-actors init --home /srv/visor --brand vega --with-data-node",
    ),
)
@click.option(
    "--brand", default="fury", show_default=True, help="Which node: fury, vega, zeta or another word."
)
@click.option("--with-data-node", is_flag=True, help="Run a data node beside the core node.")
@with_invocation
def command(invocation: Invocation, brand: str, with_data_node: bool) -> None:
    """Create a home folder with its configuration. What is there already is kept."""
    from visor_actors.cli.terminal import doubtful, pairs, print_json
    from visor_actors.home.initialise import initialise

    try:
        report = initialise(invocation.home, brand=brand, with_data_node=with_data_node)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--brand") from error
    match invocation.output:
        case Output.JSON:
            print_json(report)
        case Output.HUMAN:
            click.echo(
                pairs(
                    [
                        *(("created", str(path)) for path in report.created),
                        *(("kept", str(path)) for path in report.kept),
                    ]
                )
            )
            home = invocation.home
            for finding in report.findings:
                click.echo(f"{doubtful('warning:')} {finding.path}: {finding.message}; {finding.next_step}")
            click.echo(
                f"\nnext: put the binary into {home / 'genesis'} and its arguments into the file there;"
            )
            click.echo(f"      then rehearse: visor-actors check --home {home}")
