from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.fake_visor import FakeVisor
from tests.cli.running import Runner
from visor_actors.actors.control import ControlRefused
from visor_actors.home.layout import HomeLayout
from visor_actors.home.lock import HomeLock


def test_no_home_is_a_usage_error_that_says_how_to_name_one(run: Runner) -> None:
    ran = run("status")
    assert ran.code == 2
    assert "--home PATH" in ran.err
    assert "VISOR_HOME" in ran.err


def test_the_home_may_stand_before_or_after_the_command_or_in_the_environment(
    run: Runner, layout: HomeLayout, served: FakeVisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(f"--home={layout.root}", "upgrades", "list").code == 0
    assert run("upgrades", "list", "--home", layout.root).code == 0
    monkeypatch.setenv("VISOR_HOME", str(layout.root))
    assert run("upgrades", "list").code == 0


def test_the_nearest_home_wins(run: Runner, layout: HomeLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISOR_HOME", "/nowhere/1")
    ran = run("--home", "/nowhere/2", "config", "show", "--home", layout.root)
    assert ran.code == 0
    assert str(layout.root) in ran.out


def test_a_relative_home_is_relative_to_where_one_stands(
    run: Runner, layout: HomeLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(layout.root.parent)
    assert run("config", "show", "--home", "home").code == 0


def test_a_misspelt_command_is_answered_with_the_right_one(run: Runner) -> None:
    ran = run("statsu")
    assert ran.code == 2
    assert "Did you mean 'status'?" in ran.err


def test_an_unknown_option_is_a_usage_error(run: Runner) -> None:
    assert run("status", "--wach").code == 2


@pytest.mark.parametrize(
    "arguments", [("stop",), ("restart",), ("tree",), ("upgrades", "hold"), ("upgrades", "resume")]
)
def test_a_command_for_a_running_visor_says_when_none_runs(
    run: Runner, layout: HomeLayout, arguments: tuple[str, ...]
) -> None:
    ran = run("--home", layout.root, *arguments)
    assert ran.code == 1
    assert "no visor runs on this home" in ran.err
    assert "visor-actors run" in ran.err
    assert "Traceback" not in ran.err


def test_a_refusal_is_printed_with_its_next_step(run: Runner, layout: HomeLayout, served: FakeVisor) -> None:
    served.refusal = ControlRefused("the switch to v1 has begun", "let it finish")
    ran = run("--home", layout.root, "upgrades", "hold", "v1")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "error: the switch to v1 has begun\n  next:  let it finish\n"


def test_errors_are_json_when_json_is_asked_for(run: Runner, layout: HomeLayout, served: FakeVisor) -> None:
    served.refusal = ControlRefused("not now", "later")
    for arguments in (("--output", "json", "upgrades", "hold"), ("upgrades", "hold", "--output=json")):
        ran = run("--home", layout.root, *arguments)
        assert json.loads(ran.err) == {
            "error": {"code": 1, "problem": "not now", "where": None, "next_step": "later"}
        }
    assert json.loads(run("nonsense", "--output", "json").err)["error"]["code"] == 2


def test_a_wrong_configuration_exits_with_78_and_names_every_problem(run: Runner, layout: HomeLayout) -> None:
    layout.config_file.write_text('maxNumberOfRestart = 3\nonExit = "explode"\n')
    for arguments in (("config", "show"), ("run",)):
        ran = run("--home", layout.root, *arguments)
        assert ran.code == 78
        assert "maxNumberOfRestarts" in ran.err
        assert "explode" in ran.err
    checked = run("--home", layout.root, "config", "check", "--output", "json")
    assert checked.code == 78
    assert len(json.loads(checked.out)["problems"]) == 2


def test_a_home_in_use_exits_with_75_and_says_by_whom(run: Runner, layout: HomeLayout) -> None:
    with HomeLock.acquire(layout.root):
        ran = run("--home", layout.root, "run")
    assert ran.code == 75
    assert str(os.getpid()) in ran.err


def test_a_fault_of_ours_exits_with_70_and_shows_what_to_report(
    run: Runner, layout: HomeLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("visor_actors.api.client.ControlClient.status", broken)
    ran = run("--home", layout.root, "status")
    assert ran.code == 70
    assert "ZeroDivisionError: a bug" in ran.err
    assert "Traceback" in ran.err
    assert "report" in ran.err


def test_an_interrupt_exits_with_130(
    run: Runner, layout: HomeLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("visor_actors.api.client.ControlClient.status", interrupted)
    assert run("--home", layout.root, "status").code == 130


def test_a_reader_that_goes_away_is_no_error_of_ours(layout: HomeLayout) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "visor_actors.cli", "--home", str(layout.root), "config", "show"]
    with os.fdopen(writer, "wb") as closed:
        ran = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (1, b"")


def test_a_terminal_that_cannot_show_a_character_gets_another(layout: HomeLayout, served: FakeVisor) -> None:
    command = [sys.executable, "-m", "visor_actors.cli", "--home", str(layout.root), "tree"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    ran = subprocess.run(command, capture_output=True, env=environment, timeout=60, check=True)
    assert b"?? process:core" in ran.stdout


def test_a_file_that_may_not_be_read_is_named(run: Runner, tmp_path: Path) -> None:
    ran = run("config", "check", "--home", tmp_path / "absent")
    assert ran.code == 78
    assert str(tmp_path / "absent") in ran.out
