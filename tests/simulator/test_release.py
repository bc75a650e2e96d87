"""Building the node, and its one-shot commands."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.simulator.harness import DEADLINE, Nodes, end, reach
from visor_actors.simulator import (
    VersionFaults,
    build_asset_zip,
    build_binary,
    check_chain,
    faults_text,
    init_chain,
    release,
)


def run(*command: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        env=env,
    )


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (("version", "--output", "json"), '{"version":"v0.79.0","hash":"c0ffee"}\n'),
        (("version", "--output=json"), '{"version":"v0.79.0","hash":"c0ffee"}\n'),
        (("datanode", "version", "--output", "json"), '{"version":"v0.79.0","hash":"c0ffee"}\n'),
        (("version",), "Vega CLI v0.79.0 (c0ffee)\n"),
        (("version", "--output", "xml"), "Vega CLI v0.79.0 (c0ffee)\n"),
        (("datanode", "version"), "Vega Datanode CLI v0.79.0 (c0ffee)\n"),
    ],
)
def test_version(tmp_path: Path, arguments: tuple[str, ...], out: str) -> None:
    binary = build_binary(tmp_path / "vega", version="v0.79.0", brand="vega", commit="c0ffee")
    answer = run(binary, *arguments)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, out, "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "Please specify one command"),
        (("nonsense",), "Unknown command `nonsense'"),
        (("data-node", "start"), "Unknown command `data-node'"),
        (("start", "--nonsense"), "unknown flag `nonsense'"),
        (("start", "--home"), "expected argument for flag `--home'"),
        (("start", "stray"), 'unexpected argument "stray"'),
        (
            ("start", "--snapshot.load-from-block-height", "abc"),
            (
                "invalid argument for flag `--snapshot.load-from-block-height' (expected int64): "
                'strconv.ParseInt: parsing "abc": invalid syntax'
            ),
        ),
    ],
)
def test_a_bad_command_line_ends_with_255_and_one_line_on_stderr(
    old: Path, arguments: tuple[str, ...], text: str
) -> None:
    answer = run(old, *arguments)
    assert (answer.returncode, answer.stdout, answer.stderr) == (255, "", text + "\n")


def test_the_last_of_repeated_flags_wins_and_configuration_flags_are_taken(
    tmp_path: Path, old: Path, nodes: Nodes
) -> None:
    chain = init_chain(tmp_path / "home", block_ms=3)
    other = tmp_path / "other.sock"
    core = nodes.start(
        old,
        "node",
        "--home=/nonexistent",
        f"--home={chain.home}",
        "--network-url=http://localhost/genesis.json",
        "--log.level=Debug",
        "--admin.server.socket-path",
        str(other),
    )
    reach(chain, 2)
    assert other.is_socket()
    assert end(core) == 0


def test_without_home_the_xdg_folders_are_used(tmp_path: Path, nodes: Nodes) -> None:
    binary = build_binary(tmp_path / "vega", version="v1", brand="vega")
    chain = init_chain(tmp_path / "x", block_ms=3, socket_path=tmp_path / "admin.sock")
    (tmp_path / "config").mkdir()
    (chain.home / "config").rename(tmp_path / "config" / "vega")
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_STATE_HOME": str(tmp_path / "state")}
    core = nodes.start(binary, "start", env=env)
    log = tmp_path / "state" / "vega" / "node" / "blocks.log"
    while not log.exists() or not log.read_text():
        assert core.poll() is None
    assert end(core) == 0


def test_an_asset_holds_one_executable_of_the_brand_and_is_reproducible(tmp_path: Path) -> None:
    first = build_asset_zip(tmp_path / "a.zip", version="v2", brand="vega")
    second = build_asset_zip(tmp_path / "b.zip", version="v2", brand="vega")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        (entry,) = archive.infolist()
        assert (entry.filename, entry.external_attr >> 16) == ("vega", 0o100755)
        unpacked = tmp_path / "vega"
        unpacked.write_bytes(archive.read(entry))
    unpacked.chmod(0o755)
    assert run(unpacked, "version", "--output", "json").stdout == '{"version":"v2","hash":""}\n'


def test_a_binary_works_where_nothing_else_is(tmp_path: Path, old: Path) -> None:
    alone = tmp_path / "alone" / "renamed"
    alone.parent.mkdir()
    alone.write_bytes(old.read_bytes())
    alone.chmod(0o755)
    answer = subprocess.run(
        [alone, "version"], cwd="/", env={}, capture_output=True, timeout=DEADLINE, check=False
    )
    assert answer.stdout == b"Fury CLI v1 ()\n"


def test_an_interpreter_with_a_long_path_is_started_through_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / ("long-" * 30) / "with space" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    binary = build_binary(tmp_path / "fury", version="v1")
    assert binary.read_text().startswith("#!/bin/sh\n")
    assert run(binary, "version").stdout == "Fury CLI v1 ()\n"


def test_another_interpreter_at_the_same_path_compiles_the_source(tmp_path: Path) -> None:
    binary = build_binary(tmp_path / "fury", version="v1")
    text = re.sub(r"MAGIC_NUMBER == b.*:", "MAGIC_NUMBER == b'another':", binary.read_text())
    binary.write_text(text)
    assert run(binary, "version").stdout == "Fury CLI v1 ()\n"


def test_the_source_runs_uncompiled_too() -> None:
    source = Path(release.__file__).with_name("node.py")
    assert run(sys.executable, "-IS", source, "version").stdout == "Fury CLI v0.0.0+dev ()\n"


def test_the_node_imports_nothing_that_is_slow_to_import() -> None:
    source = Path(release.__file__).with_name("node.py")
    imported = {
        name.name
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.Import)
        for name in node.names
    }
    assert imported == {"_socket", "errno", "fcntl", "heapq", "os", "select", "sys", "time"}
    assert "import visor_actors" not in source.read_text()


@pytest.mark.parametrize(
    ("faults", "code", "out", "err"),
    [
        (VersionFaults(value="v9"), 0, '{"version":"v9","hash":""}\n', ""),
        (VersionFaults(mode="fail"), 1, "", "version: something is wrong\n"),
        (VersionFaults(exit_code=3), 3, '{"version":"v1","hash":""}\n', ""),
    ],
)
def test_version_lies_or_fails_when_told_to(
    tmp_path: Path, faults: VersionFaults, code: int, out: str, err: str
) -> None:
    baked = run(build_binary(tmp_path / "fury", version="v1", faults=faults), "version", "--output", "json")
    assert (baked.returncode, baked.stdout, baked.stderr) == (code, out, err)
    plain = build_binary(tmp_path / "plain", version="v1")
    by_text = run(plain, "version", "--output", "json", env={"SIMNODE_FAULTS": faults_text(version=faults)})
    (tmp_path / "faults.toml").write_text(faults_text(version=faults))
    by_file = run(plain, "version", "--output", "json", env={"SIMNODE_FAULTS": str(tmp_path / "faults.toml")})
    assert [by_text.returncode, by_file.returncode] == [code, code]


def test_version_can_be_noisy_garbage_or_endless(tmp_path: Path, nodes: Nodes) -> None:
    noisy = run(build_binary(tmp_path / "a", version="v1", faults=VersionFaults(mode="noisy")), "version")
    assert len(noisy.stdout.splitlines()) == 2
    assert noisy.stderr
    garbage = build_binary(tmp_path / "b", version="v1", faults=VersionFaults(mode="garbage"))
    assert subprocess.run([garbage, "version"], capture_output=True, check=True).stdout[:2] == b"\x00\xff"
    endless = nodes.start(
        build_binary(tmp_path / "c", version="v1", faults=VersionFaults(mode="hang")), "version"
    )
    with pytest.raises(subprocess.TimeoutExpired):
        endless.wait(0.2)


def test_a_checked_home_needs_no_blocks(tmp_path: Path) -> None:
    init_chain(tmp_path / "home")
    assert check_chain(tmp_path / "home").blocks == 0


def test_history_segments_must_end_on_snapshots(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no multiple of snapshot_interval 10"):
        init_chain(tmp_path / "home", data_node=True, snapshot_interval=10, history_interval=15)
