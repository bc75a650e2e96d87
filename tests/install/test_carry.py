"""The run configuration of a new folder: everything an operator wrote stays, what must change does."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import tomlkit
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from visor_actors.home.run_config import load_run_config
from visor_actors.install.carry import NOTE, Carried, Provenance, carry_over
from visor_actors.install.errors import Unfit
from visor_actors.install.messages import FailureKind

PROVENANCE = Provenance(
    tag="v2.0.0", asset="fury-linux-amd64.zip", origin="o/r", proof="it matches the digest", when="2024-10-01"
)


def carry(folder: Path, text: str, name: str = "run-config.toml", brand: str = "fury") -> Carried:
    (folder / name).write_text(text)
    carried = carry_over(folder, binary="fury", provenance=PROVENANCE, brand=brand)
    (folder / name).write_text(carried.text)
    load_run_config(folder, brand)  # what is written can be read
    return carried


FULL = """\
# My node. Do not touch.
name = "v1.0.0"  # the version

[fury.binary]
path = "/opt/fury-v1.0.0/fury"   # absolute
args = [
    "start",  # not node
    "--home", "/srv/node",
    # a height somebody asked for in spring
    "--snapshot.load-from-block-height", "41090047",
    "--tendermint-home=/srv/tm",
]
env = { GOMAXPROCS = "4" }
workingDirectory = "/srv"
stopSignal = "SIGTERM"

[fury.rpc]
socketPath = "/tmp/fury.sock"
httpPath = "/rpc"

[data_node.binary]
path = "fury"
args = ["datanode", "start", "--home=/srv/data"]
"""


def test_only_what_must_change_does(tmp_path: Path) -> None:
    carried = carry(tmp_path, FULL)
    wanted = tomllib.loads(FULL)
    wanted["name"] = "v2.0.0"
    wanted["fury"]["binary"]["path"] = "fury"
    wanted["fury"]["binary"]["args"] = ["start", "--home", "/srv/node", "--tendermint-home=/srv/tm"]
    assert tomllib.loads(carried.text) == wanted
    assert carried.dropped


def test_comments_are_kept(tmp_path: Path) -> None:
    carried = carry(tmp_path, FULL)
    for comment in ("# My node. Do not touch.", "# the version", "# absolute", "# not node"):
        assert comment in carried.text


def test_a_note_says_where_it_came_from_and_replaces_the_one_before(tmp_path: Path) -> None:
    carry(tmp_path, FULL)
    again = carry(tmp_path, (tmp_path / "run-config.toml").read_text())
    assert again.text.count(NOTE) == 1
    first = again.text.splitlines()[:3]
    assert "v2.0.0" in first[0]
    assert f"{tmp_path.name}/run-config.toml" in first[1]
    assert "it matches the digest" in first[2]


@pytest.mark.parametrize(
    ("path", "args", "wanted"),
    [
        ("data-node", ["start", "--home", "D"], ["datanode", "start", "--home", "D"]),
        ("fury data-node", ["start"], ["datanode", "start"]),
        ("fury", ["datanode", "start"], ["datanode", "start"]),
        ("/opt/x/data-node", ["node", "--home=/srv/datanode"], ["datanode", "node", "--home=/srv/datanode"]),
    ],
)
@pytest.mark.parametrize("kind", ["toml", "yaml"])
def test_one_binary_serves_as_data_node(
    tmp_path: Path, path: str, args: list[str], wanted: list[str], kind: str
) -> None:
    record = {
        "fury": {"binary": {"path": "fury", "args": ["start"]}},
        "data_node": {"binary": {"path": path, "args": args}},
    }
    if kind == "toml":
        found = tomllib.loads(carry(tmp_path, tomlkit.dumps(record)).text)
    else:
        found = yaml.safe_load(carry(tmp_path, yaml.safe_dump(record), "run-config.yaml").text)
    assert found["name"] == "v2.0.0"
    assert found["data_node"]["binary"] == {"path": "fury", "args": wanted}


def test_a_data_node_without_arguments_gets_the_word_it_needs(tmp_path: Path) -> None:
    text = '[fury.binary]\npath = "fury"\n[data_node.binary]\npath = "data-node"\n'
    assert tomllib.loads(carry(tmp_path, text).text)["data_node"]["binary"]["args"] == ["datanode"]
    (tmp_path / "run-config.toml").unlink()
    text = "fury:\n  binary:\n    path: fury\ndata_node:\n  binary:\n    path: data-node\n"
    found = yaml.safe_load(carry(tmp_path, text, "run-config.yaml").text)
    assert found["data_node"]["binary"]["args"] == ["datanode"]


def test_a_core_with_its_command_in_the_path_keeps_it(tmp_path: Path) -> None:
    text = '[fury.binary]\npath = "fury node"\nargs = ["--home", "H"]\n'
    found = tomllib.loads(carry(tmp_path, text).text)
    assert found["fury"]["binary"] == {"path": "fury", "args": ["node", "--home", "H"]}


def test_yaml_that_is_too_intricate_is_not_guessed_at(tmp_path: Path) -> None:
    text = "fury: &x\n  binary: {path: fury}\ndata_node: *x\n"
    (tmp_path / "run-config.yaml").write_text(text)
    with pytest.raises(Unfit, match="cannot be edited"):
        carry_over(tmp_path, binary="new", provenance=PROVENANCE, brand="fury")


YAML = """\
# a YAML home
name: v1.0.0   # the version
fury:
  binary:
    path: ./fury # relative
    args:
      - start
      - --home
      - "/srv/node"
      - --snapshot.load-from-block-height=41090047
    env:
      A: "1"
  rpc:
    socketPath: /tmp/fury.sock # here
    httpPath: /rpc
"""


def test_yaml_is_edited_in_place(tmp_path: Path) -> None:
    carried = carry(tmp_path, YAML, "run-config.yaml")
    found = yaml.safe_load(carried.text)
    assert found["name"] == "v2.0.0"
    assert found["fury"]["binary"] == {
        "path": "fury",
        "args": ["start", "--home", "/srv/node"],
        "env": {"A": "1"},
    }
    assert found["fury"]["rpc"] == {"socketPath": "/tmp/fury.sock", "httpPath": "/rpc"}
    for comment in ("# a YAML home", "# the version", "# relative", "# here"):
        assert comment in carried.text


def test_another_brand_is_carried_over_as_it_comes(tmp_path: Path) -> None:
    text = '[vega.binary]\npath = "vega"\nargs = ["node",]\n[vega.rpc]\nsocketPath = "/tmp/v"\n'
    (tmp_path / "run-config.toml").write_text(text)
    carried = carry_over(tmp_path, binary="bin/vega", provenance=PROVENANCE, brand="vega")
    assert tomllib.loads(carried.text)["vega"]["binary"] == {"path": "bin/vega", "args": ["node"]}


def test_the_mode_is_kept_but_never_wide_open(tmp_path: Path) -> None:
    (tmp_path / "run-config.toml").write_text(FULL)
    for mode, kept in ((0o600, 0o600), (0o640, 0o640), (0o777, 0o664)):
        (tmp_path / "run-config.toml").chmod(mode)
        assert carry_over(tmp_path, binary="f", provenance=PROVENANCE, brand="fury").mode == kept


@pytest.mark.parametrize("text", [None, "", "not toml at all [", "[fury]\n", 'name = "x"\n'])
def test_what_cannot_be_carried_over_is_said(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run-config.toml").write_text(text)
    with pytest.raises(Unfit) as caught:
        carry_over(tmp_path, binary="fury", provenance=PROVENANCE, brand="fury")
    assert caught.value.kind is FailureKind.RUN_CONFIG
    assert "by hand" in caught.value.next_step


words = st.one_of(
    st.sampled_from(["start", "--home", "--home=/x", "/srv/a b", "--", "datanode", 'quo"te', "bäck\\slash"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8),
)
heights = st.sampled_from(
    [["--snapshot.load-from-block-height=7"], ["--snapshot.load-from-block-height", "7"]]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.lists(words, max_size=4), height=heights, after=st.lists(words, max_size=4))
@pytest.mark.parametrize("kind", ["toml", "yaml", "yaml-flow"])
def test_arguments_survive_in_every_format(
    tmp_path: Path, kind: str, before: list[str], height: list[str], after: list[str]
) -> None:
    before = [
        word for word in before if word != "--"
    ]  # behind it the flag would be an argument like any other
    if before and before[-1].startswith("--") and "=" not in before[-1]:
        before.append("value")
    for path in tmp_path.iterdir():
        path.unlink()
    args = [*before, *height, *after]
    record = {"fury": {"binary": {"path": "x", "args": args}}}
    if kind == "toml":
        found = tomllib.loads(carry(tmp_path, tomlkit.dumps(record)).text)
    else:
        text = yaml.safe_dump(record, default_flow_style=kind == "yaml-flow", allow_unicode=True)
        found = yaml.safe_load(carry(tmp_path, text, "run-config.yaml").text)
    assert found["fury"]["binary"]["args"] == [*before, *after]
