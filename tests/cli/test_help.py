from __future__ import annotations

import pytest

from tests.cli.running import DOCS, Runner, agrees, golden
from visor_actors.cli.commands import COMMANDS
from visor_actors.cli.reference import commands, reference

NAMES = [name for name, _ in commands()]


def test_the_whole_help(run: Runner) -> None:
    ran = run("--help")
    assert ran.code == 0
    golden("help/visor-actors.txt", ran.out)


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_every_command(run: Runner, name: str) -> None:
    ran = run(*name.split(), "--help")
    assert ran.code == 0
    golden(f"help/{name.replace(' ', '-')}.txt", ran.out)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_shows_an_example_of_itself(run: Runner, name: str) -> None:
    out = run(*name.split(), "-h").out
    examples = out.partition("Example")[2]
    assert f"visor-actors {name}" in examples


def test_the_table_of_commands_says_what_the_commands_say() -> None:
    for name, command in commands():
        if " " not in name:
            assert command.get_short_help_str(200)
            assert COMMANDS[name].summary.endswith(".")


def test_the_reference_page_is_what_the_code_says() -> None:
    agrees(DOCS / "cli.md", reference())
