"""Reading run-config.toml: published shapes, paths, and every problem with its place."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from visor_actors.home.errors import ConfigurationInvalid, Problem
from visor_actors.home.run_config import RunConfig, load_run_config


def load(folder: Path, text: str, *, hint: str | None = None, name: str = "run-config.toml") -> RunConfig:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return load_run_config(folder, hint)


def problems(folder: Path, text: str, *, name: str = "run-config.toml") -> tuple[Problem, ...]:
    with pytest.raises(ConfigurationInvalid) as raised:
        load(folder, text, name=name)
    return raised.value.problems


def test_the_smallest_file_needs_only_a_binary(tmp_path: Path) -> None:
    run = load(tmp_path / "v1", '[vega.binary]\npath = "vega"\n')

    assert (run.name, run.brand) == ("v1", "vega")
    assert run.core.path == tmp_path / "v1" / "vega"
    assert run.core.args == ()
    assert run.core.stop_signal is signal.SIGTERM
    assert run.rpc.socket_path == Path("/tmp/vega.sock")
    assert run.rpc.http_path == "/rpc"
    assert run.data_node is None


def test_the_published_shape_with_tables_at_odd_indentation_loads(tmp_path: Path) -> None:
    text = """\
name = "genesis"

[vega]
  [vega.binary]
    path = "/path/vega-binary"
    args = [
      "node",
      "--home", "/srv/vega",
      "--tendermint-home=/srv/tm",
    ]
[vega.rpc]
    socketPath = "run/vega.sock"
    httpPath = "/rpc"

[data_node]
  [data_node.binary]
    path = "vega"
    args = ["datanode", "start", "--home", "/srv/vega",]
"""
    run = load(tmp_path / "genesis", text)

    assert run.core.path == Path("/path/vega-binary")
    assert run.core.args == ("node", "--home", "/srv/vega", "--tendermint-home=/srv/tm")
    assert run.rpc.socket_path == tmp_path / "genesis" / "run" / "vega.sock"
    assert run.data_node is not None
    assert run.data_node.args == ("datanode", "start", "--home", "/srv/vega")
    assert run.warnings == ()


def test_a_subcommand_behind_the_path_is_split_off(tmp_path: Path) -> None:
    text = '[vega.binary]\npath = "vega"\n[data_node.binary]\npath = "vega data-node"\nargs = ["start"]\n'
    run = load(tmp_path / "v 1", text)
    assert run.data_node is not None
    assert run.data_node.path == tmp_path / "v 1" / "vega"
    assert run.data_node.args == ("datanode", "start")


def test_a_file_of_exactly_that_name_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "my node").write_text("")
    run = load(tmp_path, '[vega.binary]\npath = "my node"\n')
    assert run.core.path == tmp_path / "my node"


def test_spaces_in_folders_are_no_subcommands(tmp_path: Path) -> None:
    run = load(tmp_path, '[vega.binary]\npath = "/srv/my node/vega"\n')
    assert run.core.path == Path("/srv/my node/vega")


@pytest.mark.parametrize("word", ["fury", "vega", "zeta", "other"])
def test_any_brand_is_taken_as_it_comes(tmp_path: Path, word: str) -> None:
    run = load(tmp_path, f'[{word}.binary]\npath = "{word}"\n')
    assert run.brand == word
    assert run.rpc.socket_path == Path(f"/tmp/{word}.sock")


def test_of_two_brands_the_hint_decides_and_without_it_none(tmp_path: Path) -> None:
    text = '[vega.binary]\npath = "vega"\n[fury.binary]\npath = "fury"\n'
    found = problems(tmp_path, text)
    assert found[0].key == "fury"
    with pytest.raises(ConfigurationInvalid):
        load(tmp_path, text, hint="zeta")


def test_everything_a_binary_may_have(tmp_path: Path) -> None:
    text = """\
[fury.binary]
path = "bin/fury"
env = { GOMAXPROCS = "4" }
workingDirectory = "work"
stopSignal = "INT"
user = "fury"
[fury.binary.limits]
nofile = 1048576
core = -1
"""
    core = load(tmp_path, text).core
    assert core.env == {"GOMAXPROCS": "4"}
    assert core.working_directory == tmp_path / "work"
    assert core.stop_signal is signal.SIGINT
    assert core.user == "fury"
    assert core.limits == {"nofile": 1048576, "core": -1}


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = """\
name = 3
[vega.binary]
pth = "vega"
args = ["start", 41090047]
stopSignal = "SIGKILL"
[vega.binary.limits]
nofiles = 3
[vega.rpc]
httpPath = "rpc"
[datanode.binary]
path = "x"
[data_node]
"""
    found = problems(tmp_path, text)
    assert [(one.line, one.key) for one in found] == [
        (1, "name"),
        (2, "vega.binary.path"),
        (3, "vega.binary.pth"),
        (4, "vega.binary.args[2]"),
        (5, "vega.binary.stopSignal"),
        (7, "vega.binary.limits.nofiles"),
        (9, "vega.rpc.httpPath"),
        (10, "datanode"),
        (12, "data_node.binary.path"),
    ]
    assert found[2].suggestion == "did you mean path?"
    assert found[3].suggestion == 'write "41090047" in quotes'
    assert found[7].suggestion == "did you mean data_node?"


def test_a_file_without_anything_to_run_says_so(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, 'name = "v1"\n')
    assert problem.key == "fury.binary"
    assert "does not say what to run" in problem.allowed


def test_yaml_says_the_same(tmp_path: Path) -> None:
    run = load(
        tmp_path,
        "vega:\n  binary:\n    path: vega\n    args: [start, --home, /x]\n  rpc:\n    socketPath: s.sock\n",
        name="run-config.yaml",
    )
    assert run.core.args == ("start", "--home", "/x")
    assert run.path == tmp_path / "run-config.yaml"
    (tmp_path / "run-config.toml").write_text("")
    with pytest.raises(ConfigurationInvalid, match="only one"):
        load_run_config(tmp_path)


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="does not exist"):
        load_run_config(tmp_path / "nowhere")


def test_arguments_and_environment_stay_out_of_representations(tmp_path: Path) -> None:
    run = load(tmp_path, '[vega.binary]\npath = "v"\nargs = ["--token", "hidden"]\nenv = { A = "hidden" }\n')
    assert "hidden" not in repr(run)
