"""Asking a data node that is down for its latest history segment."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.node.scripts import script
from visor_actors.node.arguments import Command
from visor_actors.node.command import Surroundings
from visor_actors.node.history import (
    HistoryAnswer,
    NoSegment,
    Segment,
    Unreadable,
    latest_segment,
    query_argv,
)

ANSWER = (
    '{"LatestSegment":{"from_height":136001,"to_height":137000,"history_segment_id":"QmA",'
    '"previous_history_segment_id":"QmB"}}'
)
FOUND = Segment(from_height=136001, to_height=137000, id="QmA")


def command(path: Path, *args: str) -> Command:
    return Command(executable=path, argv=(str(path), *args))


def asked(tmp_path: Path, output: str, code: int = 0) -> HistoryAnswer:
    (tmp_path / "out").write_text(output)
    path = script(tmp_path, f"cat {tmp_path}/out; exit {code}")
    return latest_segment(command(path, "datanode", "start"), timeout=20)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (
            ("datanode", "start"),
            ("datanode", "network-history", "latest-history-segment", "--output", "json"),
        ),
        (("start",), ("network-history", "latest-history-segment", "--output", "json")),
        (
            ("datanode", "start", "--home", "/h"),
            ("datanode", "network-history", "latest-history-segment", "--home", "/h", "--output", "json"),
        ),
        (
            ("node", "--home=/srv/datanode"),
            ("network-history", "latest-history-segment", "--home", "/srv/datanode", "--output", "json"),
        ),
    ],
)
def test_the_query_fits_the_kind_of_binary(args: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert query_argv(command(Path("/vega"), *args)) == ("/vega", *expected)


@pytest.mark.parametrize(
    "output",
    [
        ANSWER,
        ANSWER + "\n",
        '2024-05-01T10:00:00.000Z\tINFO\topening the index\t{"n":1}\n' + ANSWER + "\nclosing\n",
        '{"note":"not this"}\n' + ANSWER + '\n{"level":"info","msg":"bye"}\n',
        ANSWER[:-1] + ',"database_version":67,"chain_id":"vega-mainnet"}',
    ],
)
def test_the_segment_is_found_among_log_lines(tmp_path: Path, output: str) -> None:
    assert asked(tmp_path, output) == FOUND


def test_fields_the_node_leaves_out_are_zero(tmp_path: Path) -> None:
    assert asked(tmp_path, '{"LatestSegment":{"to_height":1000}}') == Segment(from_height=0, to_height=1000)


def test_heights_written_as_text_are_heights(tmp_path: Path) -> None:
    output = '{"LatestSegment":{"from_height":"1","to_height":"1000"}}'
    assert asked(tmp_path, output) == Segment(from_height=1, to_height=1000)


def test_no_segments_is_an_answer(tmp_path: Path) -> None:
    assert asked(tmp_path, '{"error":"no history segments found"}\n', 1) == NoSegment()
    assert asked(tmp_path, 'INFO\topening\n{"error":"no history segments found"}\n', 1) == NoSegment()


@pytest.mark.parametrize(
    ("output", "code", "problem"),
    [
        ('{"error":"failed to read config: no such file"}', 1, "failed to read config"),
        ('{"error":"resource temporarily unavailable"}', 1, "temporarily unavailable"),
        ("", 0, "exit code 0 and no answer"),
        ("", 255, "exit code 255"),
        ("not json at all", 0, "no answer: not json at all"),
        ('{"LatestSegment":null}', 0, "null"),
        ('{"LatestSegment":{}}', 0, "where it ends"),
        ('{"LatestSegment":{"to_height":-5}}', 0, "where it ends"),
        ('{"LatestSegment":{"to_height":1.5}}', 0, "where it ends"),
        ('{"LatestSegment":{"to_height":true}}', 0, "where it ends"),
        ('{"LatestSegment":{"to_height":9,"from_height":"x"}}', 0, "where it ends"),
        ('{"LatestSegment":{"to_height":99999999999999999999}}', 0, "where it ends"),
        (ANSWER[:60], 0, "no answer"),
    ],
)
def test_everything_else_is_unreadable_and_says_why(
    tmp_path: Path, output: str, code: int, problem: str
) -> None:
    answer = asked(tmp_path, output, code)
    assert isinstance(answer, Unreadable)
    assert problem in answer.problem


def test_a_query_that_hangs_is_given_up(tmp_path: Path) -> None:
    answer = latest_segment(command(script(tmp_path, "sleep 600"), "start"), timeout=0.2)
    assert answer == Unreadable("it did not end within 0.2 s")


def test_a_cancelled_query_is_given_up(tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    answer = latest_segment(command(script(tmp_path, "sleep 600"), "start"), timeout=600, cancel=cancel)
    assert answer == Unreadable("it was cancelled")


def test_a_binary_that_is_not_there_is_unreadable(tmp_path: Path) -> None:
    answer = latest_segment(command(tmp_path / "none", "start"), timeout=20)
    assert isinstance(answer, Unreadable)


def test_arguments_that_end_inside_a_flag_are_unreadable(tmp_path: Path) -> None:
    answer = latest_segment(command(script(tmp_path, ""), "start", "--home"), timeout=20)
    assert isinstance(answer, Unreadable)
    assert "--home" in answer.problem


def test_the_query_runs_where_the_data_node_runs(tmp_path: Path) -> None:
    path = script(tmp_path, 'test "$PWD" = "$WANTED" && echo \'{"LatestSegment":{"to_height":5}}\'')
    around = Surroundings(env={"WANTED": str(tmp_path)}, working_directory=tmp_path)
    there = Command(executable=path, argv=(str(path), "start"), surroundings=around)
    assert latest_segment(there, timeout=20) == Segment(from_height=0, to_height=5)
