"""``restart``: stop and start the node, or one of its binaries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from msgspec import Struct

from visor_actors.cli.framework import Command, Invocation, Output, with_invocation

if TYPE_CHECKING:
    from visor_actors.actors.reports import StatusReport


class Restarted(Struct, frozen=True, kw_only=True):
    """What ``restart --output json`` prints. ``pids`` are the new ones by slot; empty with ``--no-wait``."""

    restarted: bool
    pids: dict[str, int]
    message: str


@click.command(cls=Command, examples=("visor-actors restart", "visor-actors restart core --home /srv/visor"))
@click.argument("binary", required=False)
@click.option("--no-wait", is_flag=True, help="Return as soon as visor has accepted the command.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=120.0, show_default=True, help="Seconds to wait."
)
@with_invocation
def command(invocation: Invocation, binary: str | None, no_wait: bool, timeout: float) -> None:
    """Restart the node, or only BINARY (core or data_node), gracefully and outside the restart budget."""
    from visor_actors.cli.errors import CommandError
    from visor_actors.cli.terminal import print_json
    from visor_actors.cli.waiting import ProgressLine, until

    client = invocation.client
    before = _incarnations(client.status(), binary)
    message = client.restart(binary).message
    pids: dict[str, int] = {}
    if not no_wait:
        with ProgressLine() as progress:

            def restarted() -> bool:
                report = client.status()
                progress.show(f"{message}: {report.node.phase}")
                now = _incarnations(report, binary)
                pids.update({slot: pid for slot, (pid, _) in now.items()})
                return (
                    bool(now)
                    and all(now.get(slot) != old for slot, old in before.items())
                    and len(now) >= len(before)
                )

            if not until(restarted, timeout=timeout):
                raise CommandError(
                    f"the node did not come up again within {timeout:g} seconds",
                    next_step="see visor-actors status and visor-actors logs",
                )
        message = "restarted: " + ", ".join(f"{slot} is now pid {pid}" for slot, pid in sorted(pids.items()))
    match invocation.output:
        case Output.JSON:
            print_json(Restarted(restarted=not no_wait, pids=pids, message=message))
        case Output.HUMAN:
            click.echo(message)


def _incarnations(report: StatusReport, slot: str | None) -> dict[str, tuple[int, float | None]]:
    """Which incarnation runs in each slot that the command is about."""
    return {
        binary.slot: (binary.pid, binary.started_at)
        for binary in report.binaries
        if binary.pid is not None and binary.phase == "running" and slot in (None, binary.slot)
    }
