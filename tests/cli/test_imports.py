"""What each command imports: a heavy module that slipped in is found here, not by an operator who waits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.fake_visor import FakeVisor
from tests.cli.samples import write_history
from visor_actors.cli.commands import COMMANDS
from visor_actors.home.layout import HomeLayout

HEAVY = frozenset(
    {
        "requests",
        "urllib3",
        "http.client",
        "sentry_sdk",
        "tomlkit",
        "tomli",
        "yaml",
        "sqlite3",
        "psutil",
        "pykka",
        "rich",
        "cryptography",
        "asyncio",
        "multiprocessing",
        "logging",
        "unittest",
        "hypothesis",
        "email",
        "ssl",
    }
)
# What a command may need of them. The others are for the installer, for Sentry and for YAML files alone.
ALLOWED: tuple[tuple[tuple[str, ...], frozenset[str]], ...] = (
    (("--help",), frozenset()),
    (("version",), frozenset()),
    (("status",), frozenset({"psutil"})),
    (("upgrades", "hold"), frozenset()),
    (("stop", "--no-wait"), frozenset()),
    (("restart", "--no-wait"), frozenset()),
    (("tree",), frozenset({"pykka", "logging"})),
    (("logs", "--help"), frozenset()),
    (("history",), frozenset({"sqlite3"})),
    (("completion", "zsh"), frozenset()),
    (("init",), frozenset()),
)
SCRIPT = """
import sys
from visor_actors.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    code = ended.code
print("\\n".join(["", "--", *sorted(sys.modules)]))
sys.exit(code)
"""


def imported(layout: HomeLayout, arguments: tuple[str, ...]) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, "--home", str(layout.root), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(ran.stdout.partition("\n--\n")[2].split())


@pytest.mark.parametrize(("arguments", "allowed"), ALLOWED, ids=[" ".join(words) for words, _ in ALLOWED])
def test_a_command_imports_nothing_heavy_that_it_does_not_need(
    layout: HomeLayout, served: FakeVisor, arguments: tuple[str, ...], allowed: frozenset[str]
) -> None:
    write_history(layout)
    modules = imported(layout, arguments)
    assert "visor_actors.cli.main" in modules
    assert modules & HEAVY <= allowed


def test_a_command_imports_no_other_command(layout: HomeLayout) -> None:
    modules = imported(layout, ("version",))
    others = {entry.module for name, entry in COMMANDS.items() if name != "version"}
    assert not modules & others
    assert "visor_actors.actors" not in modules


def test_reading_a_configuration_needs_no_yaml(layout: HomeLayout) -> None:
    assert not imported(layout, ("config", "show")) & (HEAVY - {"yaml", "tomli"})


def test_every_command_is_a_module_of_its_own() -> None:
    folder = Path(__file__).parents[2] / "visor_actors" / "cli"
    modules = [entry.module for entry in COMMANDS.values()]
    assert len(set(modules)) == len(modules)
    for module in modules:
        assert (folder / f"{module.rpartition('.')[2]}.py").is_file()
