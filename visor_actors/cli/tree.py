"""``tree``: the supervision tree of the running visor."""

from __future__ import annotations

import click

from visor_actors.cli.framework import Command, Invocation, Output, with_invocation


@click.command(cls=Command, examples=("visor-actors tree", "visor-actors tree --watch"))
@click.option("--watch", is_flag=True, help="Refresh in place until ^C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="Seconds between refreshes.",
)
@with_invocation
def command(invocation: Invocation, watch: bool, interval: float) -> None:
    """Show visor's own actors: states, generations, restarts, and why one failed last."""
    from visor_actors.api.treeview import flatten
    from visor_actors.cli.terminal import print_json, refresh
    from visor_actors.cli.tree_view import render

    client = invocation.client
    if invocation.output is Output.JSON:
        print_json(client.tree())
    elif watch:
        refresh(lambda: render(flatten(client.tree())), interval)
    else:
        click.echo(render(flatten(client.tree())))
