"""The watch for second copies sees one, and does not see one where there is none."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.e2e.conftest import Judgement
from tests.e2e.copies import CopyWatch
from tests.e2e.harness import wait_for
from visor_actors.simulator import (
    CoreFaults,
    ProblemKind,
    build_binary,
    init_chain,
    read_records,
    write_faults,
)


@contextmanager
def watching(folder: Path) -> Iterator[CopyWatch]:
    watch = CopyWatch(folder)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()


@contextmanager
def running(*argv: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([str(word) for word in argv], stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def has_served(home: Path, times: int) -> bool:
    return len(read_records(home, event="serving", role="core")) == times


def test_a_second_copy_is_seen_and_named(
    tmp_path: Path, runs_nothing_twice: CopyWatch, judgement: Judgement
) -> None:
    runs_nothing_twice.stop()  # what follows is what it must never see
    judgement.expect(ProblemKind.TWO_PROCESSES)
    binary = build_binary(tmp_path / "bin" / "fury", version="v1.0.0")
    chain = init_chain(tmp_path / "node")
    with watching(tmp_path) as watch, running(binary, *chain.core_args) as first:
        wait_for(partial(has_served, chain.home, 1), "the first copy")
        write_faults(chain.home, core=CoreFaults(startup_delay_ms=60_000))
        with running(binary, *chain.core_args) as second:
            (overlap,) = wait_for(lambda: watch.overlaps, "the overlap to be seen")
    assert {overlap.first.pid, overlap.second.pid} == {first.pid, second.pid}
    assert str(chain.home) in str(overlap)


def test_core_data_node_successor_and_helper_are_no_second_copies(tmp_path: Path) -> None:
    binary = build_binary(tmp_path / "bin" / "fury", version="v1.0.0")
    chain = init_chain(tmp_path / "node", data_node=True)
    write_faults(chain.home, core=CoreFaults(helper_seconds=60))
    helpers = []
    with watching(tmp_path) as watch, running(binary, *chain.data_node_args):
        for times in (1, 2):
            with running(binary, *chain.core_args) as core:
                wait_for(partial(has_served, chain.home, times), "the core to serve")
                core.terminate()
                core.wait()
            helpers = [int(one.details["helper"]) for one in read_records(chain.home, event="helper")]
    for pid in helpers:
        subprocess.run(["kill", "-9", str(pid)], check=True)
    assert watch.overlaps == ()
    assert watch.looks > 0
