"""``upgrades``: what is ahead and what was, and the operator's hand on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from msgspec import Struct

from visor_actors.cli.framework import (
    Command,
    Group,
    Invocation,
    Output,
    home_option,
    output_option,
    with_invocation,
)

if TYPE_CHECKING:
    from visor_actors.actors.control import Accepted
    from visor_actors.actors.reports import UpgradeReport


class UpgradesDocument(Struct, frozen=True, kw_only=True):
    """What ``upgrades list --output json`` prints. ``running``: a visor answered; else it is from the
    journal."""

    running: bool
    upgrades: tuple[UpgradeReport, ...]


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples=(
        "visor-actors upgrades",
        "visor-actors upgrades hold v0.76.0",
        "visor-actors upgrades resume v0.76.0",
    ),
)
@home_option
@output_option
@click.pass_context
def command(context: click.Context, /, **_options: object) -> None:
    """List the upgrades, hold one back or let it go on. Without a command: list."""
    if context.invoked_subcommand is None:
        context.invoke(list_upgrades)


@command.command(
    "list", cls=Command, examples=("visor-actors upgrades list", "visor-actors upgrades list --output json")
)
@with_invocation
def list_upgrades(invocation: Invocation) -> None:
    """List all upgrades that visor knows of, newest first. Needs no running visor."""
    from visor_actors.api.client import NotRunning
    from visor_actors.cli.journal import journal_upgrades
    from visor_actors.cli.terminal import print_json

    try:
        document = UpgradesDocument(running=True, upgrades=invocation.client.upgrades())
    except NotRunning:
        document = UpgradesDocument(running=False, upgrades=journal_upgrades(invocation.layout))
    match invocation.output:
        case Output.JSON:
            print_json(document)
        case Output.HUMAN:
            click.echo(_render(document))


@command.command("hold", cls=Command, examples=("visor-actors upgrades hold v0.76.0",))
@click.argument("tag", required=False)
@with_invocation
def hold(invocation: Invocation, tag: str | None) -> None:
    """Do not switch to TAG (default: the pending upgrade) until it is resumed.

    The network stops at the upgrade height and the node waits there: hold an upgrade only for as long as
    you must."""
    _print(invocation, invocation.client.hold(tag))


@command.command("resume", cls=Command, examples=("visor-actors upgrades resume v0.76.0",))
@click.argument("tag", required=False)
@with_invocation
def resume(invocation: Invocation, tag: str | None) -> None:
    """Let a held upgrade go on."""
    _print(invocation, invocation.client.resume(tag))


def _print(invocation: Invocation, accepted: Accepted) -> None:
    from visor_actors.cli.terminal import print_json

    match invocation.output:
        case Output.JSON:
            print_json(accepted)
        case Output.HUMAN:
            click.echo(accepted.message)


def _render(document: UpgradesDocument) -> str:
    from visor_actors.cli.status_view import readiness
    from visor_actors.cli.terminal import bad, moment, table

    if not document.upgrades:
        return "No upgrade so far."
    rows = []
    for upgrade in document.upgrades:
        began = upgrade.steps[0][1] if upgrade.steps else None
        last = upgrade.steps[-1][1] if upgrade.steps else None
        state = upgrade.state + (", held" if upgrade.held else "")
        rows.append(
            (upgrade.tag, str(upgrade.height), state, readiness(upgrade) or "-", moment(began), moment(last))
        )
    text = table(("TAG", "HEIGHT", "STATE", "RELEASE", "ANNOUNCED", "LAST STEP"), rows)
    notes = [bad(f"{upgrade.tag}: {upgrade.problem}") for upgrade in document.upgrades if upgrade.problem]
    steps = [f"  next: {upgrade.next_step}" for upgrade in document.upgrades if upgrade.next_step]
    return "\n".join((text, *notes, *steps))
