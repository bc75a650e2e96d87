"""Is the upgrade height done? Every witness, alone and together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visor_actors.node.witness import (
    Doneness,
    HeightTrack,
    LogEvidence,
    RestHeight,
    SignedHeight,
    Witnesses,
    judge_height_done,
    read_log,
    read_signed_height,
)

DONE, NOT_DONE, UNKNOWN = Doneness.DONE, Doneness.NOT_DONE, Doneness.UNKNOWN
H = 100

SILENT_LOG = LogEvidence(marked=False, snapshots=(), tells=True)
MUTE_LOG = LogEvidence(marked=False, snapshots=(), tells=False)


def signed(height: int, age: float | None = None) -> Witnesses:
    return Witnesses(signed=SignedHeight(height=height, age=age))


def log(*snapshots: int, marked: bool = False, tells: bool = True) -> Witnesses:
    return Witnesses(log=LogEvidence(marked=marked, snapshots=snapshots, tells=tells))


def rest(height: int, age: float = 1.0, pace: float | None = 1.0) -> Witnesses:
    return Witnesses(rest=RestHeight(height=height, age=age, pace=pace))


ALONE = [
    ("nobody", Witnesses(), UNKNOWN),
    # what a validator signed
    ("signed the block after", signed(H + 1), DONE),
    ("signed far beyond", signed(H + 50), DONE),
    ("signed the upgrade block", signed(H, 0.1), UNKNOWN),
    ("signed the block before, just now", signed(H - 1, 0.5), NOT_DONE),
    ("signed the block before, who knows when", signed(H - 1), UNKNOWN),
    ("signed the block before, long ago", signed(H - 1, 3600.0), UNKNOWN),
    ("never signed", signed(0, 0.1), UNKNOWN),
    # what the log says
    ("snapshot of the height", log(H), DONE),
    ("snapshot of the height and ready", log(H, marked=True), DONE),
    ("snapshot of the height, log torn", log(H, tells=False), DONE),
    ("ready, the snapshot scrolled away", log(marked=True), DONE),
    ("ready of another upgrade", log(50, marked=True), NOT_DONE),
    ("ordinary snapshots only", log(80, 90), NOT_DONE),
    ("nothing of it, to the end", log(), NOT_DONE),
    ("nothing of it, log torn", log(tells=False), UNKNOWN),
    # what the data node wrote
    ("history up to the height", Witnesses(segment_end=H), DONE),
    ("history beyond the height", Witnesses(segment_end=H + 1), DONE),
    ("history before the height", Witnesses(segment_end=H - 1), UNKNOWN),
    # what REST told
    ("REST at the height", rest(H), DONE),
    ("REST beyond", rest(H + 1), DONE),
    ("REST far before", rest(H - 50), NOT_DONE),
    ("REST just before", rest(H - 1), UNKNOWN),
    ("REST at the edge of what is possible", rest(H - 5), UNKNOWN),
    ("REST beyond that edge", rest(H - 6), NOT_DONE),
    ("REST far before, long ago", rest(H - 50, age=60.0), UNKNOWN),
    ("REST far before, a fast chain", rest(H - 50, pace=50.0), UNKNOWN),
    ("REST before, pace never seen", rest(H - 50, pace=None), UNKNOWN),
    ("REST very far before, pace never seen", rest(10, pace=None, age=0.1), NOT_DONE),
    ("REST of a chain that stood still", rest(H - 4, age=1.0, pace=0.0), UNKNOWN),
]


@pytest.mark.parametrize(("witnesses", "expected"), [pytest.param(w, e, id=n) for n, w, e in ALONE])
def test_one_witness_alone(witnesses: Witnesses, expected: Doneness) -> None:
    verdict = judge_height_done(H, witnesses)
    assert verdict.doneness is expected
    assert verdict.because


TOGETHER = [
    (
        "a log that ends before is outweighed by a signature beyond",
        Witnesses(signed=SignedHeight(height=H + 1), log=SILENT_LOG),
        DONE,
    ),
    (
        "a far REST height is outweighed by the log",
        Witnesses(
            log=LogEvidence(marked=False, snapshots=(H,), tells=True), rest=RestHeight(height=1, age=0)
        ),
        DONE,
    ),
    (
        "the upgrade block signed, and a whole log without its snapshot",
        Witnesses(signed=SignedHeight(height=H, age=0.1), log=SILENT_LOG),
        NOT_DONE,
    ),
    (
        "a validator that kept up with REST was signing",
        Witnesses(signed=SignedHeight(height=90), rest=RestHeight(height=90, age=3600.0, pace=1.0)),
        NOT_DONE,
    ),
    (
        "a validator far behind REST had fallen silent",
        Witnesses(signed=SignedHeight(height=50), rest=RestHeight(height=99, age=1.0, pace=1.0)),
        UNKNOWN,
    ),
    (
        "a core that is no validator, with a log",
        Witnesses(signed=SignedHeight(height=0), log=SILENT_LOG),
        NOT_DONE,
    ),
    (
        "nothing that could tell",
        Witnesses(signed=SignedHeight(height=0), log=MUTE_LOG, segment_end=10),
        UNKNOWN,
    ),
]


@pytest.mark.parametrize(("witnesses", "expected"), [pytest.param(w, e, id=n) for n, w, e in TOGETHER])
def test_witnesses_together(witnesses: Witnesses, expected: Doneness) -> None:
    assert judge_height_done(H, witnesses).doneness is expected


def test_what_could_not_be_known_is_said() -> None:
    verdict = judge_height_done(H, Witnesses())
    assert len(verdict.because) == 3
    assert "REST" in " ".join(verdict.because)


SOME_WITNESSES = st.builds(
    Witnesses,
    signed=st.none()
    | st.builds(
        SignedHeight, height=st.integers(0, 2 * H), age=st.none() | st.floats(0, 1e5, allow_nan=False)
    ),
    log=st.none()
    | st.builds(
        LogEvidence,
        marked=st.booleans(),
        snapshots=st.lists(st.integers(1, 2 * H), max_size=3).map(tuple),
        tells=st.booleans(),
    ),
    rest=st.none()
    | st.builds(
        RestHeight,
        height=st.integers(0, 2 * H),
        age=st.floats(0, 1e5, allow_nan=False),
        pace=st.none() | st.floats(0, 1e4, allow_nan=False),
    ),
    segment_end=st.none() | st.integers(0, 2 * H),
)


@given(SOME_WITNESSES)
def test_no_positive_sign_of_the_height_is_ever_overruled(witnesses: Witnesses) -> None:
    positive = (
        (witnesses.signed is not None and witnesses.signed.height > H)
        or (witnesses.log is not None and H in witnesses.log.snapshots)
        or (witnesses.rest is not None and witnesses.rest.height >= H)
        or (witnesses.segment_end is not None and witnesses.segment_end >= H)
    )
    if positive:
        assert judge_height_done(H, witnesses).doneness is DONE


# Reading them


def write_state(home: Path, text: str) -> Path:
    path = home / "data" / "priv_validator_state.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_signed_height_is_read_with_its_age(tmp_path: Path) -> None:
    text = '{\n  "height": "35",\n  "round": 0,\n  "step": 3,\n  "signature": "x=="\n}'
    path = write_state(tmp_path, text)
    os.utime(path, (1000.0, 1000.0))
    assert read_signed_height(tmp_path) == SignedHeight(height=35, age=None)
    assert read_signed_height(tmp_path, ended_at=1002.5) == SignedHeight(height=35, age=2.5)
    assert read_signed_height(tmp_path, ended_at=900.0) == SignedHeight(height=35, age=0.0)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"height":-1}', '{"height":null}', '{"height":"x"}', '{"height":true}', "\xff"],
)
def test_a_state_file_that_cannot_be_understood_is_no_witness(tmp_path: Path, text: str) -> None:
    write_state(tmp_path, text)
    assert read_signed_height(tmp_path) is None


def test_a_missing_state_file_is_no_witness(tmp_path: Path) -> None:
    assert read_signed_height(tmp_path) is None
    (tmp_path / "data" / "priv_validator_state.json").mkdir(parents=True)
    assert read_signed_height(tmp_path) is None


STAMP = "2023-11-20T10:13:57.029Z\tINFO\t"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], LogEvidence(marked=False, snapshots=(), tells=False)),
        ([f"{STAMP}core\tblock"], LogEvidence(marked=False, snapshots=(), tells=True)),
        (["2023\tWARN\tcore\tslow"], LogEvidence(marked=False, snapshots=(), tells=False)),
        (
            [
                f'{STAMP}snapshot\tSnapshot taken\t{{"height":35,"hash":"x"}}',
                f"{STAMP}core.protocol-upgrade\tmarking vega core as ready to shut down",
            ],
            LogEvidence(marked=True, snapshots=(35,), tells=True),
        ),
        (
            [
                f'{STAMP}x\tSnapshot taken {{"height":35',
                f"{STAMP}marking fury core and data node as ready to shut down",
            ],
            LogEvidence(marked=True, snapshots=(35,), tells=True),
        ),
        (
            [f"{STAMP}waiting for data node to get ready for upgrade"],
            LogEvidence(marked=True, snapshots=(), tells=True),
        ),
        (
            [f"{STAMP}application is ready for shutdown"] * 3,
            LogEvidence(marked=True, snapshots=(), tells=True),
        ),
        (
            [
                f'{STAMP}Snapshot taken {{"version":3,"height":"1000"}}',
                f'{STAMP}Snapshot taken {{"height":2000}}',
            ],
            LogEvidence(marked=False, snapshots=(1000, 2000), tells=True),
        ),
    ],
)
def test_the_log_is_understood(lines: list[str], expected: LogEvidence) -> None:
    assert read_log(lines, reaches_the_end=True) == expected


def test_a_torn_log_does_not_tell() -> None:
    assert not read_log([f"{STAMP}block"], reaches_the_end=False).tells


def test_a_track_remembers_the_last_height_its_age_and_the_fastest_pace() -> None:
    track = HeightTrack()
    assert track.witness(5.0) is None
    track.saw(10, 100.0)
    assert track.witness(101.0) == RestHeight(height=10, age=1.0, pace=None)
    track.saw(30, 102.0)
    track.saw(31, 103.0)
    assert track.witness(104.5) == RestHeight(height=31, age=1.5, pace=10.0)


def test_a_track_is_not_confused_by_time_that_stands_still_or_heights_that_fall() -> None:
    track = HeightTrack()
    track.saw(10, 100.0)
    track.saw(20, 100.0)
    track.saw(5, 101.0)
    assert track.witness(100.0) == RestHeight(height=5, age=0.0, pace=None)
