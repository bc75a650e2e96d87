"""The entry point of ``visor-actors``: which way a command line goes, and the exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from visor_actors.cli.plain_run import home_of_plain_run
from visor_actors.telemetry.streams import keep_standard_streams


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 usage, 70 internal, 75 home locked, 78 configuration, 1
    else."""
    for stream in (sys.stdout, sys.stderr):
        # A locale that cannot show a character must not turn a status into an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    keep_standard_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _carry_out(words)
        if sys.stdout is not None:  # as it is when a caller has closed it
            sys.stdout.flush()
    except BrokenPipeError:  # piped into `head`: nothing went wrong
        code = _output_gone()
    except BaseException as error:
        from visor_actors.cli.report import report

        try:
            code = report(error, words)
        except BrokenPipeError:
            code = _output_gone()
    sys.exit(code)


def _carry_out(words: list[str]) -> int:
    home = home_of_plain_run(words, os.environ)
    if home is not None:
        from visor_actors.cli.running import run_home

        run_home(home)
    from visor_actors.cli.group import visor

    result = visor.main(args=words, prog_name="visor-actors", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _output_gone() -> int:
    """Let nothing be flushed into the closed pipe on the way out. Exits with 1, as click does."""
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(silent, stream.fileno())
    os.close(silent)
    return 1
