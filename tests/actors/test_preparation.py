"""Upgrade folders: when they are checked, fetched, asked for, and believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from visor_actors.actors.preparation import (
    CHECK_AGAIN_SECONDS,
    Examination,
    Need,
    Preparation,
    examine,
    signature,
)
from visor_actors.actors.upgrade_machine import Folder
from visor_actors.install.check import FolderProblem, FolderReport
from visor_actors.simulator import build_binary

COMPLETE = Examination(report=FolderReport(problems=()))
BROKEN = Examination(
    report=FolderReport(problems=(FolderProblem(what="no binary", next_step="put it there"),))
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "v2.0.0"
    folder.mkdir()
    (folder / "file").write_text("one")
    return folder


@pytest.fixture
def preparation(folder: Path) -> Preparation:
    return Preparation(tag="v2.0.0", folder=folder)


def need(preparation: Preparation, *, now: float = 0.0, auto_install: bool = False) -> Need:
    return preparation.need(auto_install=auto_install, now=now)


def check(preparation: Preparation, examination: Examination, *, now: float = 0.0) -> None:
    assert need(preparation, now=now) is Need.CHECK
    preparation.begin_check()
    assert need(preparation, now=now) is Need.NOTHING, "one check at a time"
    preparation.finish_check(examination, now=now)


def test_a_complete_folder_is_checked_once(preparation: Preparation) -> None:
    assert preparation.state is Folder.UNKNOWN
    check(preparation, COMPLETE)
    assert preparation.complete
    assert need(preparation, now=1000.0) is Need.NOTHING
    assert preparation.problem is None


def test_a_complete_folder_that_changes_is_unknown_until_it_was_checked_again(
    preparation: Preparation, folder: Path
) -> None:
    check(preparation, COMPLETE)
    (folder / "file").write_text("another")
    assert need(preparation) is Need.CHECK
    assert not preparation.complete
    check(preparation, BROKEN)
    assert preparation.state is Folder.INCOMPLETE
    assert (preparation.problem, preparation.next_step) == ("no binary", "put it there")


def test_a_folder_that_changes_during_its_check_is_checked_again(
    preparation: Preparation, folder: Path
) -> None:
    assert need(preparation) is Need.CHECK
    preparation.begin_check()
    (folder / "new").touch()
    preparation.finish_check(COMPLETE, now=0.0)
    assert not preparation.complete
    check(preparation, COMPLETE)
    assert preparation.complete


def test_an_incomplete_folder_is_checked_again_now_and_then_even_if_nothing_in_it_changed(
    preparation: Preparation,
) -> None:
    check(preparation, BROKEN)
    assert need(preparation, now=1.0) is Need.NOTHING
    assert need(preparation, now=CHECK_AGAIN_SECONDS) is Need.CHECK


def test_an_executable_outside_the_folder_is_watched_too(preparation: Preparation, tmp_path: Path) -> None:
    binary = tmp_path / "elsewhere"
    check(preparation, Examination(report=BROKEN.report, executables=(binary,)))
    assert need(preparation) is Need.NOTHING
    binary.touch()
    check(preparation, Examination(report=COMPLETE.report, executables=(binary,)))
    assert preparation.complete
    binary.chmod(0o600)
    assert need(preparation) is Need.CHECK


def test_how_long_a_problem_lasts_is_counted_from_its_first_sight(preparation: Preparation) -> None:
    check(preparation, BROKEN, now=1.0)
    check(preparation, BROKEN, now=1.0 + CHECK_AGAIN_SECONDS)
    assert preparation.troubled_since == 1.0
    preparation.fail_check("it broke", now=99.0)
    assert preparation.troubled_since == 99.0
    preparation.solved()
    assert preparation.troubled_since is None


def test_a_missing_folder_is_fetched_where_that_is_allowed_and_asked_for_elsewhere(tmp_path: Path) -> None:
    preparation = Preparation(tag="v2.0.0", folder=tmp_path / "v2.0.0")
    assert need(preparation) is Need.OPERATOR
    assert need(preparation, auto_install=True) is Need.INSTALL
    preparation.installing = True
    assert need(preparation, auto_install=True) is Need.NOTHING
    assert need(preparation) is Need.OPERATOR, "switched off meanwhile"
    preparation.unfetchable = True
    assert need(preparation, auto_install=True) is Need.OPERATOR
    preparation.forget()
    assert need(preparation, auto_install=True) is Need.INSTALL
    assert preparation.state is Folder.INCOMPLETE


def test_a_complete_folder_that_is_taken_away_is_incomplete(preparation: Preparation, folder: Path) -> None:
    check(preparation, COMPLETE)
    (folder / "file").unlink()
    folder.rmdir()
    assert need(preparation) is Need.OPERATOR
    assert preparation.state is Folder.INCOMPLETE


@pytest.mark.parametrize("change", ["content", "mode", "touch", "rename", "replace", "remove"])
def test_every_change_of_a_file_changes_the_signature(folder: Path, change: str) -> None:
    file = folder / "file"
    before = signature(folder)
    match change:
        case "content":
            file.write_text("twenty")
        case "mode":
            file.chmod(0o700)
        case "touch":
            os.utime(file, ns=(1, 1))
        case "rename":
            file.rename(folder / "other")
        case "replace":
            status = file.stat()
            (folder / "new").write_text("two")
            os.utime(folder / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
            (folder / "new").rename(file)
        case _:
            file.unlink()
    assert signature(folder) != before
    assert signature(folder) == signature(folder)
    assert signature(folder / "none") is None


def test_an_examination_finds_the_executables_wherever_they_are(tmp_path: Path) -> None:
    binary = build_binary(tmp_path / "bin" / "fury", version="v2.0.0")
    folder = tmp_path / "v2.0.0"
    folder.mkdir()
    (folder / "run-config.toml").write_text(
        f'name = "v2.0.0"\n[fury.binary]\npath = "{binary}"\nargs = ["start"]\n'
        '[fury.rpc]\nsocketPath = "/tmp/fury.sock"\nhttpPath = "/rpc"\n'
    )
    good = examine(folder, "v2.0.0")
    assert good.report.ready, good.report.problems
    assert good.executables == (binary,)
    wrong = examine(folder, "v3.0.0")
    assert "wanted is exactly v3.0.0" in wrong.report.problems[0].what
    assert wrong.executables == (binary,)
    assert not examine(tmp_path / "none", "v2.0.0").report.ready
