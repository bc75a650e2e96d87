"""``stop``: end visor, and with it the node, or without."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from visor_actors.cli.framework import Command, Invocation, Output, with_invocation

if TYPE_CHECKING:
    from visor_actors.actors.control import StopMode
    from visor_actors.api.client import ControlClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What ``stop --output json`` prints. ``ended``: visor was seen to end; False with ``--no-wait``."""

    mode: StopMode
    pid: int
    ended: bool
    seconds: float
    message: str


@click.command(
    cls=Command,
    examples=(
        "visor-actors stop --home /srv/visor",
        "visor-actors stop --detach    # the node goes on, the next run takes it over",
    ),
)
@click.option("--detach", is_flag=True, help="Leave the node running.")
@click.option("--no-wait", is_flag=True, help="Return as soon as visor has accepted the command.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), help="Seconds to wait (default: until visor has ended)."
)
@with_invocation
def command(invocation: Invocation, detach: bool, no_wait: bool, timeout: float | None) -> None:
    """End the running visor and wait until it has ended.

    The node is stopped gracefully first; with --detach it goes on without visor."""
    from visor_actors.actors.control import StopMode
    from visor_actors.cli.errors import CommandError
    from visor_actors.cli.terminal import print_json
    from visor_actors.cli.waiting import ProgressLine, until_gone

    mode = StopMode.DETACH if detach else StopMode.STOP
    client = invocation.client
    pid = client.status().pid
    began = time.monotonic()
    with contextlib.ExitStack() as stack, ProgressLine() as progress:
        pidfd = os.pidfd_open(pid)
        stack.callback(os.close, pidfd)
        message = client.stop(mode).message
        ended = False
        if not no_wait:
            ended = until_gone(
                pidfd,
                timeout=timeout,
                tick=lambda seconds: progress.show(f"{message}{_state(client)} ({seconds:.0f} s)"),
            )
            if not ended:
                raise CommandError(
                    f"visor (pid {pid}) has not ended within {timeout:g} seconds",
                    next_step="it goes on stopping; see visor-actors status and its log",
                )
    if ended:
        message = "visor has ended; the node goes on" if detach else "visor and the node have ended"
    seconds = round(time.monotonic() - began, 3)
    match invocation.output:
        case Output.JSON:
            print_json(Stopped(mode=mode, pid=pid, ended=ended, seconds=seconds, message=message))
        case Output.HUMAN:
            click.echo(message)


def _state(client: ControlClient) -> str:
    """What still runs, as far as visor still tells."""
    from visor_actors.api.client import ClientError

    try:
        running = [binary.slot for binary in client.status().binaries if binary.pid is not None]
    except ClientError:
        return ""
    return f": {', '.join(running)} still running" if running else ""
