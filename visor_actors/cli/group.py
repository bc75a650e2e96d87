"""The command line as a whole: the options that every command takes, and the table of commands."""

from __future__ import annotations

import click

from visor_actors.cli.commands import COMMANDS, LazyGroup
from visor_actors.cli.framework import home_option, output_option

_HELP = """Runs a blockchain node's binaries and carries protocol upgrades out at the exact block.

Every command works on one home folder: say which with --home or VISOR_HOME. Ask a command for its --help
to see examples."""


@click.group(
    cls=LazyGroup,
    help=_HELP,
    table=COMMANDS,
    examples=("visor-actors init --home /srv/visor", "visor-actors run --home /srv/visor"),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@home_option
@output_option
def visor(**_options: object) -> None:
    """The group itself does nothing; its options are read by the commands."""
