"""What is found of a core that ended before anybody saw it ready: on the disk, and in visor's own memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from visor_actors.actors.witnesses import Memory, gather_and_judge
from visor_actors.home.journal import Json
from visor_actors.home.layout import HomeLayout
from visor_actors.node.witness import Doneness, HeightVerdict
from visor_actors.simulator import build_binary

HEIGHT = 40


@pytest.fixture
def layout(tmp_path: Path) -> HomeLayout:
    layout = HomeLayout(tmp_path / "home")
    layout.genesis.mkdir(parents=True)
    layout.prepare_private()
    layout.current.symlink_to("genesis")
    write_run_config(layout)
    return layout


def write_run_config(layout: HomeLayout, *args: str, extra: str = "") -> None:
    build_binary(layout.genesis / "fury", version="v1.0.0")
    (layout.genesis / "run-config.toml").write_text(
        f'name = "genesis"\n[fury.binary]\npath = "fury"\nargs = {json.dumps(["start", *args])}\n'
        f'[fury.rpc]\nsocketPath = "/tmp/fury.sock"\nhttpPath = "/rpc"\n{extra}'
    )


def judge(layout: HomeLayout, memory: Memory | None = None) -> HeightVerdict:
    return gather_and_judge(layout, HEIGHT, memory or Memory(), now=1000.0)


def test_nothing_found_is_said_as_unknown(layout: HomeLayout) -> None:
    verdict = judge(layout)
    assert verdict.doneness is Doneness.UNKNOWN
    assert verdict.because


@pytest.mark.parametrize(("signed", "doneness"), [(41, Doneness.DONE), (40, Doneness.UNKNOWN)])
def test_the_validators_state_is_found_through_the_cores_arguments(
    layout: HomeLayout, tmp_path: Path, signed: int, doneness: Doneness
) -> None:
    state = tmp_path / "tm" / "data" / "priv_validator_state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"height": str(signed)}))
    write_run_config(layout, f"--tendermint-home={tmp_path / 'tm'}")
    assert judge(layout).doneness is doneness


def test_a_validator_that_signed_until_the_end_was_not_at_the_height(
    layout: HomeLayout, tmp_path: Path
) -> None:
    state = tmp_path / "tm" / "data" / "priv_validator_state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"height": "20"}))
    os.utime(state, (500.0, 500.0))
    write_run_config(layout, "--tendermint-home", str(tmp_path / "tm"))
    assert judge(layout, Memory(ended_at=501.0)).doneness is Doneness.NOT_DONE
    assert judge(layout, Memory(ended_at=900.0)).doneness is Doneness.UNKNOWN, "it fell silent long before"


def snapshot(height: int) -> str:
    return f'2023-01-01T00:00:00.000Z\tINFO\tcore\tx.go:1\tSnapshot taken\t{{"height":{height}}}'


MARKED = "2023-01-01T00:00:00.000Z\tINFO\tcore\tx.go:1\tmarking fury core as ready to shut down"


def test_the_last_lines_of_the_core_count(layout: HomeLayout) -> None:
    assert judge(layout, Memory(last_lines=(snapshot(40),))).doneness is Doneness.DONE
    assert judge(layout, Memory(last_lines=(MARKED,))).doneness is Doneness.DONE
    assert judge(layout, Memory(last_lines=(snapshot(30),))).doneness is Doneness.UNKNOWN
    assert judge(layout, Memory(last_lines=("nothing",))).doneness is Doneness.UNKNOWN


def test_of_the_log_file_only_snapshots_count_for_it_reaches_into_earlier_runs(layout: HomeLayout) -> None:
    layout.logs.mkdir(parents=True, exist_ok=True)
    log = layout.logs / "core.log"
    log.write_text(f"{MARKED}\n{snapshot(30)}\n")
    assert judge(layout).doneness is Doneness.UNKNOWN
    log.write_text(f"{snapshot(40)}\n")
    assert judge(layout).doneness is Doneness.DONE


def test_the_height_of_rest_counts_with_its_age_and_pace(layout: HomeLayout) -> None:
    there = Memory(height=40, height_at=100.0, ended_at=101.0)
    near = Memory(height=35, height_at=100.0, ended_at=101.0)
    far = Memory(height=20, height_at=100.0, ended_at=101.0, pace=1.0)
    assert judge(layout, there).doneness is Doneness.DONE
    assert judge(layout, near).doneness is Doneness.UNKNOWN
    assert judge(layout, far).doneness is Doneness.NOT_DONE


def test_a_core_that_ended_in_order_was_not_at_the_height_unless_another_witness_knows_better(
    layout: HomeLayout,
) -> None:
    assert judge(layout, Memory(in_order=True)).doneness is Doneness.NOT_DONE
    assert judge(layout, Memory(in_order=True, last_lines=(snapshot(40),))).doneness is Doneness.DONE


def test_a_folder_that_cannot_be_read_silences_only_the_witnesses_in_it(layout: HomeLayout) -> None:
    (layout.genesis / "run-config.toml").write_text("broken = ")
    assert judge(layout).doneness is Doneness.UNKNOWN
    assert judge(layout, Memory(last_lines=(snapshot(40),))).doneness is Doneness.DONE
    layout.current.unlink()
    assert judge(layout).doneness is Doneness.UNKNOWN


# memory

EXIT: dict[str, Json] = {"incarnation": 3, "at": 90.0, "code": 0, "requested": True, "lines": ["a", "b"]}
LAST_HEIGHT: dict[str, Json] = {"incarnation": 3, "height": 35, "at": 80.0, "pace": 2.0}


def test_what_the_journal_holds_of_the_last_core_is_recalled() -> None:
    memory = Memory.recall(LAST_HEIGHT, EXIT, incarnation=3)
    assert memory == Memory(
        height=35, height_at=80.0, pace=2.0, ended_at=90.0, last_lines=("a", "b"), in_order=True
    )
    rest = memory.rest(now=500.0)
    assert rest is not None
    assert rest.age == 10.0


def test_what_speaks_of_another_core_is_not_recalled() -> None:
    assert Memory.recall(LAST_HEIGHT, EXIT, incarnation=4) == Memory()


@pytest.mark.parametrize("requested", [True, False])
@pytest.mark.parametrize("code", [0, 1, None])
def test_only_a_requested_exit_with_code_0_is_in_order(requested: bool, code: int | None) -> None:
    memory = Memory.recall(
        None, {"incarnation": 3, "at": 9.0, "code": code, "requested": requested, "lines": []}, incarnation=3
    )
    assert memory.in_order is (requested and code == 0)


def test_a_height_told_after_the_last_known_end_is_aged_until_now() -> None:
    memory = Memory(height=35, height_at=80.0, ended_at=70.0)
    rest = memory.rest(now=100.0)
    assert rest is not None
    assert rest.age == 20.0


@pytest.mark.parametrize(
    "value", [None, 3, "x", [], {"incarnation": 3}, {"incarnation": 3, "height": "9", "at": 1}]
)
def test_what_is_not_understood_is_not_remembered(value: Json) -> None:
    assert Memory.recall(value, value, incarnation=3).height is None
