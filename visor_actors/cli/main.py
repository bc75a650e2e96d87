"""The entry point of ``visor-actors``: options, the table of commands, and the exit code."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import click

from visor_actors.cli.commands import COMMANDS, LazyGroup
from visor_actors.cli.framework import home_option, output_option
from visor_actors.telemetry.streams import keep_standard_streams

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 usage, 70 internal, 75 home locked, 78 configuration, 1
    else."""
    for stream in (sys.stdout, sys.stderr):
        # A locale that cannot show a character must not turn a status into an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    keep_standard_streams()
    try:
        result = visor.main(args=arguments, prog_name="visor-actors", standalone_mode=False)
        code = result if isinstance(result, int) else 0
        if sys.stdout is not None:  # as it is when a caller has closed it
            sys.stdout.flush()
    except BrokenPipeError:  # piped into `head`: nothing went wrong
        code = _output_gone()
    except BaseException as error:
        from visor_actors.cli.errors import report

        try:
            code = report(error, sys.argv[1:] if arguments is None else arguments)
        except BrokenPipeError:
            code = _output_gone()
    sys.exit(code)


def _output_gone() -> int:
    """Let nothing be flushed into the closed pipe on the way out. Exits with 1, as click does."""
    import os

    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(silent, stream.fileno())
    os.close(silent)
    return 1
