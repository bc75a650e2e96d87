"""Which commands there are and which module holds each. Importing this imports none of them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from msgspec import Struct

from visor_actors.cli.framework import write_examples


class LazyCommand(Struct, frozen=True):
    """A command that is imported when it is called: ``module`` has it as ``command``."""

    module: str
    summary: str


COMMANDS: Mapping[str, LazyCommand] = {
    "init": LazyCommand("visor_actors.cli.init", "Create a home folder."),
    "run": LazyCommand("visor_actors.cli.run", "Run the node and carry its upgrades out."),
    "check": LazyCommand("visor_actors.cli.check", "Rehearse a start or an upgrade and say what is missing."),
    "status": LazyCommand("visor_actors.cli.status", "Show what runs, and what comes next."),
    "tree": LazyCommand("visor_actors.cli.tree", "Show the supervision tree."),
    "upgrades": LazyCommand("visor_actors.cli.upgrades", "List upgrades; hold or resume one."),
    "prepare": LazyCommand("visor_actors.cli.prepare", "Fetch and verify a release ahead of its upgrade."),
    "restart": LazyCommand("visor_actors.cli.restart", "Restart the node or one of its binaries."),
    "stop": LazyCommand("visor_actors.cli.stop", "Stop visor, and the node with it or without."),
    "logs": LazyCommand("visor_actors.cli.logs", "Show what the binaries wrote."),
    "history": LazyCommand("visor_actors.cli.history", "Show starts, exits, upgrades and alarms."),
    "config": LazyCommand("visor_actors.cli.config", "Show, check and describe the configuration."),
    "service": LazyCommand("visor_actors.cli.service", "Print or install a systemd unit."),
    "version": LazyCommand("visor_actors.cli.version", "Show the version."),
    "demo": LazyCommand("visor_actors.cli.demo", "Watch a simulated node being upgraded."),
    "completion": LazyCommand("visor_actors.cli.completion", "Print the completion script of a shell."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported one at a time."""

    def __init__(
        self,
        *arguments: Any,
        table: Mapping[str, LazyCommand],
        examples: tuple[str, ...] = (),
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._table = table
        self._examples = examples

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order in which an operator meets them."""
        return list(self._table)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import and return one command; None if there is none of that name."""
        entry = self._table.get(cmd_name)
        if entry is None:
            return None
        command = import_module(entry.module).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a misspelt one is answered with the name that was probably meant."""
        if args and args[0] not in self._table and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], self._table, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else " See visor-actors --help."
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self._table.items()])

    def format_epilog(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the examples."""
        write_examples(formatter, self._examples)
