"""Reading rotated logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from visor_actors.node.logs_reader import LogFollower, last_lines, log_path


def rotate(path: Path) -> None:
    number = 1
    while path.with_name(f"{path.name}.{number}").exists():
        number += 1
    for older in range(number, 1, -1):
        path.with_name(f"{path.name}.{older - 1}").rename(path.with_name(f"{path.name}.{older}"))
    path.rename(path.with_name(f"{path.name}.1"))
    path.touch()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = log_path(tmp_path, "core")
    for number in range(30):
        append(path, f"{number}\n")
        if number % 10 == 9:
            rotate(path)
    append(path, "30\n")
    return path


@pytest.mark.parametrize("count", [0, 1, 2, 5, 15, 31, 100])
def test_the_last_lines_are_found_over_all_files(log: Path, count: int) -> None:
    expected = [str(number).encode() for number in range(31)]
    assert last_lines(log, count) == (expected[-count:] if count else [])


def test_a_gap_that_a_rotation_cut_short_has_left_hides_nothing(log: Path) -> None:
    lines = last_lines(log, 1000)
    first, second = log.with_name(f"{log.name}.1"), log.with_name(f"{log.name}.2")
    assert second.exists()
    (log.with_name(f"{log.name}.old")).write_text("no part of the log\n")
    kept = len(first.read_bytes().splitlines())
    first.unlink()
    assert last_lines(log, 1000) == lines[: -kept - len(log.read_bytes().splitlines())] + (
        log.read_bytes().splitlines()
    )


def test_a_line_under_way_counts_as_a_line(log: Path) -> None:
    append(log, "under way")
    assert last_lines(log, 2) == [b"30", b"under way"]


def test_long_lines_and_large_files_are_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "big.log"
    lines = ["x" * (number * 997 % 200_000) for number in range(50)]
    path.write_text("\n".join(lines) + "\n")
    assert last_lines(path, 40) == [line.encode() for line in lines[-40:]]


def test_an_absent_log_has_no_lines(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "none.log", 10) == []


def test_following_starts_with_the_last_lines_and_goes_on(log: Path) -> None:
    with LogFollower(log, lines=3) as follower:
        assert follower.read() == [b"28", b"29", b"30"]
        assert follower.read() == []
        append(log, "31\n3")
        assert follower.read() == [b"31"]
        append(log, "2\n")
        assert follower.read() == [b"32"]


def test_a_line_that_was_under_way_at_the_start_is_shown_whole(log: Path) -> None:
    append(log, "under ")
    with LogFollower(log, lines=2) as follower:
        assert follower.read() == [b"30"]
        append(log, "way\n")
        assert follower.read() == [b"under way"]


def test_following_goes_through_several_rotations_between_two_looks(log: Path) -> None:
    with LogFollower(log) as follower:
        append(log, "a\n")
        rotate(log)
        append(log, "b\n")
        rotate(log)
        rotate(log)
        append(log, "c\n")
        assert follower.read() == [b"a", b"b", b"c"]
        append(log, "d\n")
        assert follower.read() == [b"d"]


def test_a_log_that_appears_later_is_followed_from_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "late.log"
    with LogFollower(path, lines=10) as follower:
        assert follower.read() == []
        append(path, "a\n")
        rotate(path)
        append(path, "b\n")
        assert follower.read() == [b"a", b"b"]


def test_a_log_that_was_deleted_or_truncated_is_followed_on(tmp_path: Path) -> None:
    path = tmp_path / "core.log"
    append(path, "old\n")
    with LogFollower(path) as follower:
        path.unlink()
        append(path, "new\n")
        assert follower.read() == [b"new"]
        path.write_text("x\n")
        assert follower.read() == [b"x"]
