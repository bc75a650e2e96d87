"""``run``: the node, its upgrades, and everything that watches over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from visor_actors.cli.framework import Command, Invocation, with_invocation

if TYPE_CHECKING:
    from visor_actors.actor import Actor, Context
    from visor_actors.actors.control import ControlPort


@click.command(
    cls=Command, examples=("visor-actors run --home /srv/visor", "VISOR_HOME=/srv/visor visor-actors run")
)
@with_invocation
def command(invocation: Invocation) -> int:
    """Run the node and carry its upgrades out, until SIGTERM, SIGINT or visor-actors stop.

    A node that already runs on this home is taken over without being stopped. What SIGTERM means for the node
    is onExit in the configuration. Started by systemd with Type=notify it reports when it is ready."""
    from visor_actors.home.config import load_config

    layout = invocation.layout
    loaded = load_config(layout)  # first: what is wrong there is to be said before anything else is done

    from visor_actors.actors.application import run_visor
    from visor_actors.api.actor import ApiActor

    def api(context: Context, port: ControlPort) -> Actor:
        return ApiActor(context, port=port, layout=layout)

    return run_visor(layout, loaded=loaded, api_factory=api)
