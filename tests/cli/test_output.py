"""What every command prints, as tables and as JSON: golden files, and the documented types."""

from __future__ import annotations

import enum
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.api.fake_visor import FakeVisor
from tests.cli.running import Runner, golden, masked
from tests.cli.samples import write_history
from visor_actors.cli.reference import documents, hints
from visor_actors.home.layout import HomeLayout

Case = tuple[str, tuple[str, ...], str]

RUNNING: tuple[Case, ...] = (
    ("status", ("status",), "status"),
    ("tree", ("tree",), "tree"),
    ("upgrades-list", ("upgrades", "list"), "upgrades list"),
    ("upgrades-hold", ("upgrades", "hold", "v0.76.0"), "upgrades hold, upgrades resume"),
    ("upgrades-resume", ("upgrades", "resume"), "upgrades hold, upgrades resume"),
    ("restart", ("restart", "--no-wait"), "restart"),
    ("stop", ("stop", "--no-wait", "--detach"), "stop"),
)
AT_REST: tuple[Case, ...] = (
    ("status-at-rest", ("status",), "status"),
    ("upgrades-list-at-rest", ("upgrades", "list"), "upgrades list"),
    ("history", ("history",), "history"),
    ("config-show", ("config", "show"), "config show"),
    ("config-check", ("config", "check"), "config check"),
    ("version", ("version",), "version"),
)


def conforms(kind: Any, value: Any, place: str) -> None:
    """Assert that ``value`` is exactly what the documented type says: no field more, none less."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        problems = []
        for one in arguments:
            try:
                return conforms(one, value, place)
            except AssertionError as error:
                problems.append(str(error))
        raise AssertionError(problems)
    if origin is tuple and arguments[1] is Ellipsis:
        assert isinstance(value, list), place
        for number, item in enumerate(value):
            conforms(arguments[0], item, f"{place}[{number}]")
    elif origin is tuple:
        assert len(value) == len(arguments), place
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        assert isinstance(value, dict), place
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        assert value in [member.value for member in kind], place
    elif isinstance(kind, type) and issubclass(kind, Struct):
        assert isinstance(value, dict), place
        types_of = hints(kind)
        assert list(value) == list(kind.__struct_fields__), place
        for name, item in value.items():
            conforms(types_of[name], item, f"{place}.{name}")
    else:
        wanted: Any = {Path: str, float: (int, float)}.get(kind, kind)
        assert isinstance(value, wanted), f"{place}: {value!r}"
        assert isinstance(value, bool) == (kind is bool), place
    return None


def both(run: Runner, layout: HomeLayout, case: Case, code: int) -> None:
    name, arguments, document = case
    human = run("--home", layout.root, *arguments)
    assert (human.code, human.err) == (code, "")
    golden(f"human/{name}.txt", masked(human.out, layout.root))
    machine = run("--home", layout.root, "--output", "json", *arguments)
    assert (machine.code, machine.err) == (code, "")
    golden(f"json/{name}.json", masked(machine.out, layout.root))
    conforms(documents()[document], json.loads(machine.out), document)


@pytest.mark.parametrize("case", RUNNING, ids=lambda case: case[0])
def test_with_a_running_visor(run: Runner, layout: HomeLayout, served: FakeVisor, case: Case) -> None:
    both(run, layout, case, 0)


@pytest.mark.parametrize("case", AT_REST, ids=lambda case: case[0])
def test_without_a_running_visor(run: Runner, layout: HomeLayout, case: Case) -> None:
    write_history(layout)
    both(run, layout, case, 1 if case[0] == "status-at-rest" else 0)


def test_init(run: Runner, tmp_path: Path) -> None:
    both(run, HomeLayout(tmp_path / "new"), ("init", ("init", "--brand", "vega"), "init"), 0)


def test_service_print(run: Runner, layout: HomeLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visor_actors.cli.service._executable", lambda: Path("/usr/local/bin/visor-actors"))
    case = ("service-print", ("service", "print", "--user", "visor"), "service print, service install")
    both(run, layout, case, 0)


def test_the_schemas(run: Runner) -> None:
    for name, arguments in (("config", ()), ("run-config", ("--run-config",))):
        ran = run("config", "schema", *arguments)
        assert json.loads(ran.out)["$schema"].startswith("https://json-schema.org/"), name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_every_shell(
    run: Runner, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("click.shell_completion.BashComplete._check_version", lambda *_: None)
    ran = run("completion", shell)
    assert ran.code == 0
    assert "_VISOR_ACTORS_COMPLETE" in ran.out


def test_every_documented_document_has_a_golden_file_or_a_test_of_its_own() -> None:
    tested = {case[2] for case in (*RUNNING, *AT_REST)} | {"init", "service print, service install"}
    elsewhere = {"check", "prepare", "logs (each line)", "config sentry-test", "demo"}
    assert set(documents()) == tested | elsewhere


def test_the_shell_completes_commands_and_sub_commands(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_VISOR_ACTORS_COMPLETE", "bash_complete")
    for words, wanted in (
        ("visor-actors sta", {"status"}),
        ("visor-actors upgrades ", {"list", "hold", "resume"}),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        assert {line.partition(",")[2] for line in run().out.split()} == wanted
