"""``service``: the systemd unit under which visor runs."""

from __future__ import annotations

import os
from pathlib import Path

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

UNIT_FOLDER = Path("/etc/systemd/system")


class Unit(Struct, frozen=True, kw_only=True):
    """What ``service`` prints as JSON: the unit's name, its text, and where it was written, if it was."""

    name: str
    text: str
    path: str | None = None


@click.group(
    cls=Group,
    examples=(
        "visor-actors service print --home /srv/visor",
        "sudo visor-actors service install --home /srv/visor --user visor",
    ),
)
@home_option
@output_option
def command(**_options: object) -> None:
    """Print or install a systemd unit."""


@command.command(
    "print", cls=Command, examples=("visor-actors service print --home /srv/visor --user visor",)
)
@click.option("--user", help="User to run as (default: owner of the home).")
@click.option("--name", default="visor-actors", show_default=True, help="Name of the unit.")
@with_invocation
def print_unit(invocation: Invocation, user: str | None, name: str) -> None:
    """Print a hardened unit for this home. Each unusual line says why it is there."""
    _show(invocation, _unit(invocation, user, name))


@command.command(
    "install",
    cls=Command,
    examples=(
        "sudo visor-actors service install --home /srv/visor --user visor",
        "sudo systemctl daemon-reload && sudo systemctl enable --now visor-actors",
    ),
)
@click.option("--user", help="User to run as (default: owner of the home).")
@click.option("--name", default="visor-actors", show_default=True, help="Name of the unit.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=UNIT_FOLDER,
    show_default=True,
    help="Where units are kept.",
)
@click.option("--force", is_flag=True, help="Replace a unit that says something else.")
@with_invocation
def install(invocation: Invocation, user: str | None, name: str, directory: Path, force: bool) -> None:
    """Write the unit. Starting it is left to you: the command is printed."""
    from visor_actors.cli.errors import CommandError

    unit = _unit(invocation, user, name)
    path = directory / f"{name}.service"
    if path.exists() and path.read_text() != unit.text and not force:
        raise CommandError(
            "there is another unit of this name",
            where=str(path),
            next_step="compare it with visor-actors service print; replace it with --force, or use --name",
        )
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(unit.text)
    temporary.chmod(0o644)
    temporary.replace(path)
    _show(invocation, Unit(name=unit.name, text=unit.text, path=str(path)))


def _show(invocation: Invocation, unit: Unit) -> None:
    from visor_actors.cli.terminal import print_json

    match invocation.output:
        case Output.JSON:
            print_json(unit)
        case Output.HUMAN if unit.path is None:
            click.echo(unit.text, nl=False)
        case Output.HUMAN:
            click.echo(f"written: {unit.path}")
            click.echo(f"next: systemctl daemon-reload && systemctl enable --now {unit.name}")


def _unit(invocation: Invocation, user: str | None, name: str) -> Unit:
    from visor_actors.cli.errors import CommandError
    from visor_actors.cli.unit_text import unit_text
    from visor_actors.home.config import load_config

    home = invocation.home
    if not home.is_dir():
        raise CommandError(
            "there is no home folder", where=str(home), next_step="create it with visor-actors init"
        )
    config = load_config(invocation.layout).config
    text = unit_text(
        home=home,
        user=user or _owner(home),
        executable=_executable(),
        stop_seconds=config.stop_delay_seconds + 2 * config.stop_signal_timeout_seconds,
    )
    return Unit(name=name, text=text)


def _owner(home: Path) -> str:
    import pwd

    uid = home.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _executable() -> Path:
    """The command as it is installed: beside the Python that runs, else as it was called."""
    import sys

    beside = Path(sys.executable).parent / "visor-actors"
    return beside if os.access(beside, os.X_OK) else Path(sys.argv[0]).absolute()
