"""The guides: every command in them can be typed as it stands, every link leads somewhere."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from tests.cli.running import DOCS
from visor_actors.cli.framework import Command, Group
from visor_actors.cli.group import visor
from visor_actors.cli.reference import commands
from visor_actors.home.config_keys import CONFIG_KEYS

GUIDES = ("operating.md", "migration.md", "cli.md")


def parse(line: str) -> None:
    """Assert that ``line`` is a command that visor-actors understands, without calling it."""
    words = shlex.split(re.split(r" *(?:#|\||>|&&|;)", line)[0])
    words = words[words.index("visor-actors") + 1 :]
    context = visor.make_context("visor-actors", words)
    while isinstance(context.command, click.Group):
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if not rest and context.command.invoke_without_command:
            return
        assert rest, f"{line}: which command?"
        name, command, rest = context.command.resolve_command(context, rest)
        assert command is not None, line
        context = command.make_context(name, rest, parent=context)


def typed(text: str) -> list[str]:
    """The commands in code blocks and code spans of ``text``."""
    blocks = re.findall(r"```\n?(.*?)```", text, re.DOTALL)
    lines = [part for block in blocks for line in block.splitlines() for part in line.split("&&")]
    spans = re.findall(r"`(visor-actors [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [
        line for line in (*lines, *spans) if re.match(r" *(?:sudo )?(?:VISOR_HOME=\S+ )?visor-actors ", line)
    ]


@pytest.mark.parametrize("guide", GUIDES)
def test_every_command_in_a_guide_can_be_typed(guide: str) -> None:
    found = typed((DOCS / guide).read_text())
    assert found
    for line in found:
        if "[" not in line and "..." not in line:
            parse(line)


def test_every_example_in_the_help_can_be_typed() -> None:
    for name, command in commands():
        assert isinstance(command, Command | Group), name
        assert command.examples, name
        for example in command.examples:
            if not example.startswith("sudo systemctl "):
                parse(example)


@pytest.mark.parametrize("guide", GUIDES)
def test_every_link_leads_somewhere(guide: str) -> None:
    text = (DOCS / guide).read_text()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        else:
            assert (DOCS / target).exists(), target


def test_the_migration_guide_covers_every_key_of_the_original() -> None:
    text = (DOCS / "migration.md").read_text()
    for key in CONFIG_KEYS:
        if key.classic:
            assert key.path.rpartition(".")[2] in text, key.path
