"""``config``: what is configured, whether it is right, and what may be configured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from visor_actors.cli.errors import ExitCode
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
    from visor_actors.home.errors import Problem


class Setting(Struct, frozen=True, kw_only=True):
    """One key as ``config show`` prints it. ``value`` is a text; secrets are masked in it."""

    key: str
    value: str
    default: str
    origin: str
    takes_effect: str


class ConfigDocument(Struct, frozen=True, kw_only=True):
    """What ``config show --output json`` prints."""

    path: str
    settings: tuple[Setting, ...]
    warnings: tuple[str, ...]


class CheckedConfig(Struct, frozen=True, kw_only=True):
    """What ``config check --output json`` prints: every file that was read, every problem in them."""

    valid: bool
    files: tuple[str, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]


@click.group(
    cls=Group,
    examples=(
        "visor-actors config show",
        "visor-actors config check --home /srv/visor",
        "visor-actors config schema > visor-config.schema.json",
    ),
)
@home_option
@output_option
def command(**_options: object) -> None:
    """Show, check and describe the configuration."""


@command.command(
    "show", cls=Command, examples=("visor-actors config show", "visor-actors config show --changed")
)
@click.option("--changed", is_flag=True, help="Only what is not at its default.")
@with_invocation
def show(invocation: Invocation, changed: bool) -> None:
    """Show the value of every key and where it comes from. Secrets are masked."""
    from visor_actors.cli.terminal import doubtful, heading, print_json, quiet, table
    from visor_actors.home.config import Origin, load_config
    from visor_actors.home.effective import effective

    loaded = load_config(invocation.layout)
    settings = tuple(
        Setting(
            key=row.key,
            value=row.value,
            default=row.default,
            origin=row.origin.value,
            takes_effect=row.takes_effect.value,
        )
        for row in effective(loaded)
        if not changed or row.origin not in (Origin.DEFAULT, Origin.BRAND)
    )
    document = ConfigDocument(path=str(loaded.path), settings=settings, warnings=loaded.warnings)
    match invocation.output:
        case Output.JSON:
            print_json(document)
        case Output.HUMAN:
            click.echo(heading(document.path))
            rows = [
                (setting.key, setting.value, quiet("-" if setting.origin == "default" else setting.origin))
                for setting in settings
            ]
            click.echo(table(("KEY", "VALUE", "FROM"), rows))
            for warning in document.warnings:
                click.echo(doubtful(f"warning: {warning}"))


@command.command(
    "check", cls=Command, examples=("visor-actors config check", "visor-actors config check --output json")
)
@with_invocation
def check(invocation: Invocation) -> int:
    """Check the configuration and every run configuration of the home; exit with 78 if one is wrong."""
    from visor_actors.cli.terminal import bad, doubtful, good, print_json

    document = _check(invocation)
    match invocation.output:
        case Output.JSON:
            print_json(document)
        case Output.HUMAN:
            for problem in document.problems:
                click.echo(bad("problem: ") + str(problem))
            for warning in document.warnings:
                click.echo(doubtful("warning: ") + warning)
            if document.valid:
                click.echo(good("valid: ") + ", ".join(document.files))
    return ExitCode.DONE if document.valid else ExitCode.CONFIGURATION


@command.command(
    "schema",
    cls=Command,
    examples=(
        "visor-actors config schema > visor-config.schema.json",
        "visor-actors config schema --run-config > visor-run-config.schema.json",
    ),
)
@click.option("--run-config", is_flag=True, help="The schema of run-config.toml instead of config.toml.")
def schema(run_config: bool) -> None:
    """Print the JSON Schema of the configuration, so that editors complete and check it."""
    from visor_actors.home.schema import config_schema, run_config_schema

    click.echo(json.dumps(run_config_schema() if run_config else config_schema(), indent=2))


@command.command("sentry-test", cls=Command, examples=("visor-actors config sentry-test --home /srv/visor",))
@with_invocation
def sentry_test(invocation: Invocation) -> None:
    """Send one test event to the configured Sentry and say whether it was taken."""
    from visor_actors.cli.errors import CommandError
    from visor_actors.cli.terminal import print_json
    from visor_actors.home.config import load_config
    from visor_actors.telemetry.sentry import TestResult, send_test

    settings = load_config(invocation.layout).config.sentry
    if settings.dsn is None:
        raise CommandError(
            "no Sentry is configured",
            where=str(invocation.layout.config_file),
            next_step="set dsn in [sentry], or SENTRY_DSN",
        )
    outcome = send_test(dsn=settings.dsn, environment=settings.environment)
    if outcome.result is not TestResult.DELIVERED:
        raise CommandError(
            f"Sentry did not take the test event ({outcome.result.value}): {outcome.detail}",
            next_step="check dsn in [sentry] and the way to its server",
        )
    match invocation.output:
        case Output.JSON:
            print_json(outcome)
        case Output.HUMAN:
            click.echo(f"Sentry took the test event {outcome.detail}")


def _check(invocation: Invocation) -> CheckedConfig:
    from visor_actors.cli.folders import run_folders
    from visor_actors.home.config import load_config
    from visor_actors.home.errors import ConfigurationInvalid
    from visor_actors.home.run_config import load_run_config

    files: list[str] = []
    problems: list[Problem] = []
    warnings: list[str] = []
    try:
        loaded = load_config(invocation.layout)
        files.append(str(loaded.path))
        warnings += loaded.warnings
    except ConfigurationInvalid as error:
        problems += error.problems
    for folder in run_folders(invocation.layout):
        try:
            run_config = load_run_config(folder)
            files.append(str(run_config.path))
            warnings += (f"{run_config.path}: {warning}" for warning in run_config.warnings)
        except ConfigurationInvalid as error:
            problems += error.problems
    return CheckedConfig(
        valid=not problems, files=tuple(files), problems=tuple(problems), warnings=tuple(warnings)
    )
