"""``run``: the node, its upgrades, and everything that watches over them."""

from __future__ import annotations

import click

from visor_actors.cli.framework import Command, Invocation, with_invocation


@click.command(
    cls=Command, examples=("visor-actors run --home /srv/visor", "VISOR_HOME=/srv/visor visor-actors run")
)
@with_invocation
def command(invocation: Invocation) -> None:
    """Run the node and carry its upgrades out, until SIGTERM, SIGINT or visor-actors stop.

    A node that already runs on this home is taken over without being stopped. What SIGTERM means for the node
    is onExit in the configuration. Started by systemd with Type=notify it reports when it is ready."""
    from visor_actors.cli.running import run_home

    run_home(invocation.home)
