from __future__ import annotations

import json
from pathlib import Path

from tests.cli.running import Runner
from tests.cli.terminal_session import Session
from visor_actors.home.layout import HomeLayout


def write(layout: HomeLayout, name: str, lines: list[str]) -> Path:
    path = layout.logs / f"{name}.log"
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)
    return path


def test_the_last_lines_reach_into_rotated_files(run: Runner, layout: HomeLayout) -> None:
    write(layout, "core", [f"line {number}" for number in range(5)]).rename(layout.logs / "core.log.1")
    write(layout, "core", ["line 5"])
    ran = run("--home", layout.root, "logs", "core", "-n", "3")
    assert ran.out == "line 3\nline 4\nline 5\n"


def test_several_binaries_are_told_apart(run: Runner, layout: HomeLayout) -> None:
    write(layout, "core", ["a"])
    write(layout, "data_node", ["b"])
    assert run("--home", layout.root, "logs").out == "core | a\ndata_node | b\n"


def test_as_json_every_line_is_an_object(run: Runner, layout: HomeLayout) -> None:
    path = write(layout, "core", ["a"])
    path.write_bytes(path.read_bytes() + b"\xff\n")
    ran = run("--home", layout.root, "logs", "--output", "json")
    assert [json.loads(line) for line in ran.out.splitlines()] == [
        {"binary": "core", "line": "a"},
        {"binary": "core", "line": "\ufffd"},
    ]


def test_following_goes_on_through_a_rotation(layout: HomeLayout) -> None:
    path = write(layout, "core", ["before"])
    with Session(layout.root, "logs", "--follow") as session:
        session.until(lambda text: "before" in text)
        write(layout, "core", ["last of the old"])
        path.rename(layout.logs / "core.log.1")
        write(layout, "core", ["first of the new"])
        text = session.until(lambda text: "first of the new" in text)
        assert text.splitlines() == ["before", "last of the old", "first of the new"]
        session.interrupt()
        assert session.finish() == 0


def test_without_files_it_says_where_the_output_is(run: Runner, layout: HomeLayout) -> None:
    ran = run("--home", layout.root, "logs")
    assert ran.code == 1
    assert "journalctl" in ran.err
    assert 'mode = "files"' in ran.err


def test_an_unknown_binary_is_answered_with_the_known_ones(run: Runner, layout: HomeLayout) -> None:
    write(layout, "core", ["a"])
    ran = run("--home", layout.root, "logs", "cor")
    assert ran.code == 1
    assert "name one of core" in ran.err
