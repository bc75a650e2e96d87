"""``run`` as a service manager says it is recognised without the option parser, and means the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from visor_actors.cli.framework import Invocation, with_invocation
from visor_actors.cli.plain_run import home_of_plain_run

PLAIN = (
    ("run", "--home", "/srv/visor"),
    ("run", "--home=/srv/visor"),
    ("--home", "/srv/visor", "run"),
    ("--home=/srv/visor", "run"),
    ("run", "--home", "relative/../home"),
    ("run", "--home", "~/visor"),
    ("run",),
)
NOT_PLAIN = (
    (),
    ("run", "--help"),
    ("run", "--hom", "/srv/visor"),
    ("run", "--home"),
    ("run", "--home", ""),
    ("run", "--home", "--help"),
    ("run", "--home", "/a", "--home", "/b"),
    ("run", "run"),
    ("run", "--output", "json"),
    ("status", "--home", "/srv/visor"),
    ("--home", "/srv/visor"),
)
ENVIRONMENT = {"VISOR_HOME": "/srv/other"}


def as_parsed(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home that the option parser finds in ``words``."""

    @click.command()
    @with_invocation
    def run(invocation: Invocation) -> None:
        found.append(invocation.home)

    found: list[Path] = []
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    run.main([word for word in words if word != "run"], standalone_mode=False)
    return found[0]


@pytest.mark.parametrize("words", PLAIN, ids=" ".join)
def test_a_plain_run_means_the_home_that_the_parser_finds(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert home_of_plain_run(words, ENVIRONMENT) == as_parsed(words, monkeypatch)


@pytest.mark.parametrize("words", NOT_PLAIN, ids=" ".join)
def test_everything_else_is_left_to_the_parser(words: tuple[str, ...]) -> None:
    assert home_of_plain_run(words, ENVIRONMENT) is None


def test_a_run_without_any_home_is_left_to_the_parser() -> None:
    assert home_of_plain_run(("run",), {}) is None


def test_a_plain_run_loads_neither_the_parser_nor_data_classes() -> None:
    script = (
        "import sys\n"
        "import visor_actors.cli.main, visor_actors.cli.running\n"
        "import visor_actors.actors.application, visor_actors.api.actor\n"
        "print(sorted({'click', 'dataclasses'} & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
