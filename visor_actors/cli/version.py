"""``version``: which visor this is."""

from __future__ import annotations

import sys

import click
from msgspec import Struct
from msgspec.structs import asdict

from visor_actors import __version__
from visor_actors.cli.framework import Command, Invocation, Output, with_invocation


class Version(Struct, frozen=True, kw_only=True):
    """What ``version --output json`` prints."""

    version: str
    python: str


@click.command(cls=Command, examples=("visor-actors version", "visor-actors version --output json"))
@with_invocation
def command(invocation: Invocation) -> None:
    """Show the version of visor-actors and of the Python that runs it."""
    found = Version(version=__version__, python=".".join(str(part) for part in sys.version_info[:3]))
    match invocation.output:
        case Output.JSON:
            import json

            click.echo(json.dumps(asdict(found), indent=2))
        case Output.HUMAN:
            click.echo(f"visor-actors {found.version} (Python {found.python})")
