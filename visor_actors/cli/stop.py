"""``stop``: end visor, and with it the node, or without."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from visor_actors.cli.framework import Command, Invocation, Output, with_invocation

if TYPE_CHECKING:
    from visor_actors.actors.control import StopMode
    from visor_actors.api.client import ControlClient
    from visor_actors.cli.errors import CommandError


class Stopped(Struct, frozen=True, kw_only=True):
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
    from visor_actors.api.client import NotRunning
    from visor_actors.cli.errors import CommandError
    from visor_actors.cli.terminal import print_json
    from visor_actors.cli.waiting import ProgressLine, until_gone

    mode = StopMode.DETACH if detach else StopMode.STOP
    client = invocation.client
    try:
        pid = client.status().pid
    except NotRunning as error:
        raise _nothing_to_stop(invocation) from error
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


def _nothing_to_stop(invocation: Invocation) -> CommandError:
    """What to say when no visor runs: the node may run all the same."""
    from visor_actors.cli.disk import read_disk
    from visor_actors.cli.errors import CommandError

    home = invocation.layout
    running = [f"{slot.slot} (pid {slot.pid})" for slot in read_disk(home).slots if slot.held]
    if not running:
        return CommandError(
            "no visor runs on this home, and no node either",
            where=str(home.root),
            next_step="nothing; start them with visor-actors run or its service",
        )
    return CommandError(
        f"no visor runs on this home, but its node does: {', '.join(running)}",
        where=str(home.root),
        next_step="take the node over with visor-actors run (it is not stopped), then stop both",
    )


def _state(client: ControlClient) -> str:
    """What still runs, as far as visor still tells."""
    from visor_actors.api.client import ClientError

    try:
        running = [binary.slot for binary in client.status().binaries if binary.pid is not None]
    except ClientError:
        return ""
    return f": {', '.join(running)} still running" if running else ""
