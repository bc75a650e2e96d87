"""Asking a binary for its version."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.node.scripts import script
from visor_actors.node.version import VersionAnswer, VersionUnknown, probe_version


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ('{"version":"v0.79.0","hash":"4f0b"}', VersionAnswer(version="v0.79.0", hash="4f0b")),
        ('{"version":"v0.79.0","hash":""}', VersionAnswer(version="v0.79.0", hash="")),
        ('{"version":"v0.79.0"}', VersionAnswer(version="v0.79.0", hash="")),
        (
            '2024-05-01T10:00:00.000Z\tINFO\tstarting\n{"version":"v1","hash":"h"}\nbye',
            VersionAnswer(version="v1", hash="h"),
        ),
        ('{"version":"v0"}\n{"version":"v1","hash":"h"}', VersionAnswer(version="v1", hash="h")),
    ],
)
def test_the_answer_is_found(tmp_path: Path, output: str, expected: VersionAnswer) -> None:
    (tmp_path / "out").write_text(output)
    assert probe_version(script(tmp_path, f"cat {tmp_path}/out")) == expected


def test_the_question_is_the_nodes_own_command(tmp_path: Path) -> None:
    path = script(tmp_path, 'printf \'{"version":"%s"}\' "$*"')
    assert probe_version(path).version == "version --output json"
    assert probe_version(path, prefix_args=("datanode",)).version == "datanode version --output json"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("echo 'Vega CLI v0.79.0 (4f0b)'", "no version in JSON"),
        ("true", "it said nothing"),
        ("echo '{}'", "no version in JSON"),
        ('echo \'{"version":""}\'', "no version in JSON"),
        ("echo '{\"version\":79}'", "no version in JSON"),
        ('echo \'{"version":"v1","hash":7}\'', "no version in JSON"),
        ('echo \'{"version":"v1"}\'; exit 255', "exit code 255"),
        ("echo 'unknown command' >&2; exit 1", "exit code 1: unknown command"),
        ("kill -ILL $$", "signal SIGILL"),
    ],
)
def test_any_other_answer_is_unknown_with_a_next_step(tmp_path: Path, text: str, problem: str) -> None:
    path = script(tmp_path, text)
    with pytest.raises(VersionUnknown) as caught:
        probe_version(path)
    assert problem in caught.value.problem
    assert caught.value.next_step is not None
    assert str(path) in caught.value.next_step


def test_a_binary_that_hangs_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(VersionUnknown, match=r"did not end within 0\.2 s"):
        probe_version(script(tmp_path, "sleep 600"), timeout=0.2)


def test_a_cancelled_question_is_given_up(tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(VersionUnknown, match="cancelled"):
        probe_version(script(tmp_path, "sleep 600"), timeout=600, cancel=cancel)


def test_a_binary_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(VersionUnknown, match="cannot be started"):
        probe_version(tmp_path / "none")


def test_a_flood_before_the_answer_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(VersionUnknown):
        probe_version(script(tmp_path, 'head -c 300000 /dev/zero; echo; echo \'{"version":"v1"}\''))
