"""``run``: the node, its upgrades, and everything that watches over them."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

import click

from visor_actors.cli.errors import CommandError, ExitCode
from visor_actors.cli.framework import Command, Invocation, with_invocation

if TYPE_CHECKING:
    from visor_actors.actor import Actor, Context
    from visor_actors.actors.control import ControlPort


@click.command(
    cls=Command, examples=("visor-actors run --home /srv/visor", "VISOR_HOME=/srv/visor visor-actors run")
)
@with_invocation
def command(invocation: Invocation) -> None:
    """Run the node and carry its upgrades out, until SIGTERM, SIGINT or visor-actors stop.

    A node that already runs on this home is taken over without being stopped. What SIGTERM means for the node
    is onExit in the configuration. Started by systemd with Type=notify it reports when it is ready."""
    from visor_actors.home.config import load_config
    from visor_actors.home.layout import CONFIG_NAMES

    layout = invocation.layout
    if not layout.root.is_dir() or not any((layout.root / name).exists() for name in CONFIG_NAMES):
        raise CommandError(
            f"{layout.root} is no visor home: it has no {CONFIG_NAMES[0]}",
            next_step=f"create one with visor-actors init --home {layout.root}, or name another with --home",
            code=ExitCode.CONFIGURATION,
        )
    loaded = load_config(layout)  # first: what is wrong there is to be said before anything else is done

    # Loading makes thousands of objects that all stay: looking for garbage among them is a sixth of the time
    # to the first start, and would be repeated for as long as visor runs.
    gc.disable()
    from visor_actors.actors.application import run_visor
    from visor_actors.api.actor import ApiActor

    gc.freeze()
    gc.enable()

    def api(context: Context, port: ControlPort) -> Actor:
        return ApiActor(context, port=port, layout=layout)

    code = run_visor(layout, loaded=loaded, api_factory=api)
    # All is closed. To take the interpreter apart as well would only delay whoever waits for our end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
