"""Failures are data: whatever an exception is like, nothing of it stays alive and nothing of it hurts."""

from __future__ import annotations

import gc
import weakref

import pytest

from tests.actor.test_messages import asking
from tests.actor.trees import bench
from visor_actors.actor import Address, Context, Failure
from visor_actors.testing import Probe


class Unspeakable(Exception):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def __str__(self) -> str:
        raise self._error


@pytest.mark.parametrize("error", [ValueError(), SystemExit(), KeyboardInterrupt()], ids=repr)
def test_an_exception_that_cannot_be_read_is_described_all_the_same(error: BaseException) -> None:
    failure = Failure.of(Unspeakable(error))
    assert failure.type_name == "Unspeakable"
    assert type(error).__name__ in failure.message


def test_message_and_traceback_are_bounded() -> None:
    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise ValueError("x" * 1_000_000)

    with pytest.raises(ValueError, match="x") as raised:
        deep(300)
    failure = Failure.of(raised.value)
    assert len(failure.message) <= 2_000
    assert len(failure.traceback) < 20_000
    assert failure.traceback.startswith("Traceback")
    assert "[...]" in failure.traceback


def test_a_chain_of_causes_reads_as_one_sentence() -> None:
    failure = Failure("Outer", "it gave up", cause=Failure("Inner", "it broke"))
    assert str(failure) == "Outer: it gave up, because of Inner: it broke"


def test_nothing_of_a_dead_incarnation_stays_alive_through_its_failure() -> None:
    class Big:
        pass

    kept: list[weakref.ref[Big]] = []

    def fail(context: Context) -> None:
        big = Big()
        kept.append(weakref.ref(big))
        raise RuntimeError(f"with {type(big).__name__} in its frame")

    with bench(asking("a", Probe())) as it:
        it.started("a", 1)
        it.system.tell(Address("a"), fail)
        exited = it.exited("a", 1)
        it.started("a", 2)
        assert exited.failure is not None
        assert "raise RuntimeError" in exited.failure.traceback
        gc.collect()
        assert kept[0]() is None
