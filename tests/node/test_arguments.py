"""Operators' arguments: read and changed exactly, whatever they look like."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visor_actors.home.run_config import BinaryConfig, RpcConfig, RunConfig
from visor_actors.node.arguments import (
    Command,
    FlagWithoutValue,
    NoSuchBinary,
    Role,
    command_line,
    expand_variables,
    flag_value,
    home_of,
    is_datanode_subcommand,
    tendermint_home_of,
    with_flag,
    without_flag,
)

FLAG = "--snapshot.load-from-block-height"

TOKENS = st.sampled_from(
    [
        "start",
        "--home",
        "--home=/a",
        "/a",
        "--x",
        "--x=1",
        "--x-y",
        "--x=--x",
        "--",
        "-",
        "-x",
        "",
        "=",
        "--x=",
    ]
) | st.text(alphabet="-x=ho me/", max_size=6)
ARGS = st.lists(TOKENS, max_size=8).map(tuple)


@pytest.mark.parametrize(
    ("args", "value"),
    [
        ((), None),
        (("start",), None),
        (("start", "--home", "/a"), "/a"),
        (("start", "--home=/a"), "/a"),
        (("--home=/a", "start"), "/a"),
        (("--home", "/a", "--home=/b"), "/b"),
        (("--home=/b", "--home", "/a"), "/a"),
        (("--home=",), ""),
        (("--home", ""), ""),
        (("--home=/a=b",), "/a=b"),
        (("--home", "--tendermint-home"), "--tendermint-home"),
        (("--home", "--"), "--"),
        (("--home", "--home"), "--home"),
        (("--home-backup", "/a"), None),
        (("--homes=/a",), None),
        (("--tendermint-home=/a",), None),
        (("-home", "/a"), None),
        (("home", "/a"), None),
        (("--name=--home", "/a"), None),
        (("start", "--", "--home", "/a"), None),
        (("--home=/a", "--", "--home=/b"), "/a"),
        (("--home=$VEGA_PATH",), "$VEGA_PATH"),
        (("--home", "/srv/datanode", "--nodewallet-passphrase-file", "/p"), "/srv/datanode"),
    ],
)
def test_home_is_found_in_both_spellings_and_nowhere_else(args: tuple[str, ...], value: str | None) -> None:
    assert home_of(args) == value


def test_a_flag_at_the_end_without_its_value_is_said() -> None:
    with pytest.raises(FlagWithoutValue, match="--home") as caught:
        home_of(("start", "--home"))
    assert caught.value.next_step is not None
    assert "--home=VALUE" in caught.value.next_step


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), ("--x=9",)),
        (("start",), ("start", "--x=9")),
        (("start", "--home", "/a"), ("start", "--home", "/a", "--x=9")),
        (("start", "--x=1", "--home=/a"), ("start", "--x=9", "--home=/a")),
        (("start", "--x", "1", "--home=/a"), ("start", "--x=9", "--home=/a")),
        (("--x", "1", "a", "--x=2", "b"), ("a", "--x=9", "b")),
        (("start", "--", "--x=1"), ("start", "--x=9", "--", "--x=1")),
        (("--x", "--", "a"), ("--x=9", "a")),
        (("start", "--x"), ("start", "--x=9")),
    ],
)
def test_a_flag_is_set_in_its_place_and_once(args: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert with_flag(args, "--x", "9") == expected


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), ()),
        (("--x", "1"), ()),
        (("a", "--x=1", "b", "--x", "2", "c"), ("a", "b", "c")),
        (("a", "--x"), ("a",)),
        (("--xy", "1", "--", "--x", "2"), ("--xy", "1", "--", "--x", "2")),
    ],
)
def test_a_flag_is_removed_with_its_value(args: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert without_flag(args, "--x") == expected


@given(args=ARGS, value=st.text(max_size=5))
def test_what_is_set_is_what_is_read(args: tuple[str, ...], value: str) -> None:
    assert flag_value(with_flag(args, "--x", value), "--x") == value


@given(args=ARGS, value=st.text(max_size=5))
def test_setting_twice_is_setting_once_and_removing_undoes_both(args: tuple[str, ...], value: str) -> None:
    once = with_flag(args, "--x", value)
    assert with_flag(once, "--x", value) == once
    assert with_flag(with_flag(args, "--x", "other"), "--x", value) == once
    assert without_flag(once, "--x") == without_flag(args, "--x")


@given(args=ARGS)
def test_removing_leaves_no_flag_and_every_other_argument_in_order(args: tuple[str, ...]) -> None:
    bare = without_flag(args, "--x")
    if "--x" not in bare[: bare.index("--")] if "--" in bare else "--x" not in bare:
        assert flag_value(bare, "--x") is None
    remaining = iter(args)
    assert all(argument in remaining for argument in bare)


@given(args=ARGS, value=st.text(max_size=5))
def test_other_flags_keep_their_values(args: tuple[str, ...], value: str) -> None:
    if "--home" in args or args.count("--x"):
        return  # a bare flag may take the place of another's value there, and then means something else
    assert flag_value(with_flag(args, "--x", value), "--home") == flag_value(args, "--home")


@pytest.mark.parametrize("flag", ["x", "-x", "--", "--x=1"])
def test_only_long_flags_can_be_asked_for(flag: str) -> None:
    with pytest.raises(ValueError, match="long flag"):
        flag_value((), flag)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$HOME/.cometbft", "/home/vega/.cometbft"),
        ("${HOME}/x", "/home/vega/x"),
        ("/plain", "/plain"),
        ("$NOBODY/x", "/x"),
        ("${NOBODY}x", "x"),
        ("$HOMEX", ""),
        ("100$", "100$"),
        ("$$HOME", "$/home/vega"),
        ("~/x", "~/x"),
    ],
)
def test_variables_are_expanded_as_the_node_does(text: str, expected: str) -> None:
    assert expand_variables(text, {"HOME": "/home/vega"}) == expected


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), "/home/vega/.cometbft"),
        (("--tendermint-home", "/t"), "/t"),
        (("--tendermint-home=$HOME/t",), "/home/vega/t"),
        (("--home", "/h"), "/home/vega/.cometbft"),
    ],
)
def test_the_consensus_engine_has_a_home_of_its_own(args: tuple[str, ...], expected: str) -> None:
    assert tendermint_home_of(args, {"HOME": "/home/vega"}) == Path(expected)


# Commands


def run_config(
    folder: Path, core: str, data_node: str | None = None, args: tuple[str, ...] = ("start",)
) -> RunConfig:
    return RunConfig(
        name="genesis",
        brand="vega",
        core=BinaryConfig(path=folder / core, args=args, env={"A": "b"}, user="vega"),
        rpc=RpcConfig(socket_path=folder / "s", http_path="/rpc"),
        data_node=None if data_node is None else BinaryConfig(path=folder / data_node, args=args),
        folder=folder,
        path=folder / "run-config.toml",
    )


def test_a_plain_path_is_executed_as_it_is(tmp_path: Path) -> None:
    command = command_line(run_config(tmp_path, "vega"), Role.CORE)
    assert command.executable == tmp_path / "vega"
    assert command.argv == (str(tmp_path / "vega"), "start")
    assert command.surroundings.env == {"A": "b"}
    assert command.surroundings.user == "vega"


def test_the_published_vega_data_node_runs_the_data_node_inside_the_one_binary(tmp_path: Path) -> None:
    for present in (False, True):
        if present:
            (tmp_path / "vega").write_text("")
        command = command_line(run_config(tmp_path, "vega", "vega data-node"), Role.DATA_NODE)
        assert command.argv == (str(tmp_path / "vega"), "datanode", "start")
        assert is_datanode_subcommand(command)
        assert command.leading == 1


def test_a_file_of_that_very_name_wins(tmp_path: Path) -> None:
    (tmp_path / "vega data-node").write_text("")
    command = command_line(run_config(tmp_path, "vega", "vega data-node"), Role.DATA_NODE)
    assert command.argv == (str(tmp_path / "vega data-node"), "start")
    assert not is_datanode_subcommand(command)


def test_a_folder_with_a_space_is_no_executable_with_arguments(tmp_path: Path) -> None:
    folder = tmp_path / "my node"
    folder.mkdir()
    assert command_line(run_config(folder, "vega"), Role.CORE).executable == folder / "vega"
    (folder / "vega").write_text("")
    assert command_line(run_config(folder, "vega"), Role.CORE).executable == folder / "vega"
    command = command_line(run_config(folder, "vega", "vega datanode"), Role.DATA_NODE)
    assert command.argv == (str(folder / "vega"), "datanode", "start")


def test_any_leading_arguments_are_split_off_an_executable_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "vega").write_text("")
    command = command_line(run_config(tmp_path, "vega  tm  run"), Role.CORE)
    assert command.argv == (str(tmp_path / "vega"), "tm", "run", "start")
    assert command.leading == 2


def test_the_core_keeps_the_spelling_of_its_sub_command(tmp_path: Path) -> None:
    (tmp_path / "vega").write_text("")
    command = command_line(run_config(tmp_path, "vega data-node"), Role.CORE)
    assert command.arguments == ("data-node", "start")


def test_a_missing_data_node_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoSuchBinary):
        command_line(run_config(tmp_path, "vega"), Role.DATA_NODE)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("datanode", "start"), True),
        (("start", "--home=/srv/datanode"), False),
        (("start", "datanode"), False),
        (("data-node",), False),
        ((), False),
    ],
)
def test_only_the_first_argument_makes_a_datanode_sub_command(args: tuple[str, ...], expected: bool) -> None:
    assert is_datanode_subcommand(Command(executable=Path("/v"), argv=("/v", *args))) is expected
