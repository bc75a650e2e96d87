"""``version``: which visor this is."""

from __future__ import annotations

import sys

import click

from visor_actors import __version__
from visor_actors.cli.framework import Command, Invocation, Output, with_invocation


@click.command(cls=Command, examples=("visor-actors version", "visor-actors version --output json"))
@with_invocation
def command(invocation: Invocation) -> None:
    """Show the version of visor-actors and of the Python that runs it."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    match invocation.output:
        case Output.JSON:
            import json

            document = {"version": __version__, "python": python}
            click.echo(json.dumps(document, indent=2))
        case Output.HUMAN:
            click.echo(f"visor-actors {__version__} (Python {python})")
