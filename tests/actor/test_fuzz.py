"""Crash, stop and hang at random with real threads: each generation ends exactly once, none overlap."""

from __future__ import annotations

import random
import threading
from collections import Counter

import pytest

from tests.actor.trees import AT_ONCE, PLENTY, Bench, bench, faulty, raising, scripts
from visor_actors.actor import (
    ActorExited,
    ActorStarting,
    ActorSystem,
    Address,
    AskFailed,
    EventsSuppressed,
    ExitReason,
    OutcomeKind,
    Restart,
    Strategy,
    SupervisorSpec,
)
from visor_actors.testing import Script
from visor_actors.testing.faulty import Action

STEPS = 150


def mischief(it: Bench, rng: random.Random, release: threading.Event, names: list[str]) -> None:
    """Do one bad thing to one of the actors."""
    name = rng.choice(names)
    hang: Action = lambda: _hang(release)  # noqa: E731  # one of several actions of one type
    error = rng.choice([RuntimeError("fuzz"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
    match rng.randrange(8):
        case 0:
            it.do(name, hang)
        case 1 | 2:
            it.system.inject(Address(name), raising(error))
        case 3:
            it.system.inject(Address("inner"), raising(error))
        case 4 if rng.random() < 0.3:
            it.system.inject(Address("inner"), hang)
        case 4:
            with pytest.raises(AskFailed):
                it.system.ask(Address("nobody"), name, timeout=1.0)
        case _:
            it.do(name, raising(error))


def has_hit_enough(it: Bench) -> bool:
    """Return whether there was much to count, crashes and hangs among it."""
    reasons = {event.reason for event in it.events.all(ActorExited)}
    return (
        it.events.count(ActorStarting) > STEPS / 3
        and ExitReason.CRASHED in reasons
        and bool(reasons & {ExitReason.HUNG, ExitReason.STOP_TIMED_OUT})
    )


def _hang(release: threading.Event) -> None:
    release.wait(60)


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("seed", [1, 2])
def test_each_generation_ends_exactly_once_whatever_happens(
    strategy: Strategy, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visor_actors.actor.publisher.BURST", 10**9)
    monkeypatch.setattr("visor_actors.actor.supervisor_cell._SUPERVISOR_HEARTBEAT", 0.05)
    monkeypatch.setattr("visor_actors.actor.spec.SUPERVISOR_MARGIN", 0.05)
    rng = random.Random(seed)
    release = threading.Event()
    lives, (a, b, c, d) = scripts("a", "b", "c", "d")
    for script in (a, b, c, d):
        # now and then an init or a terminate fails as well
        script.in_init.extend(rng.choice([_nothing, _nothing, _nothing, _fail]) for _ in range(40))
        script.in_init.insert(0, _nothing)
        script.in_terminate.extend(rng.choice([_nothing, _nothing, _fail]) for _ in range(40))
    quick = {"heartbeat": 0.05, "start_timeout": 20.0, "shutdown_timeout": 0.05}
    inner = SupervisorSpec(
        id="inner",
        children=(faulty(b, **quick), faulty(c, restart=Restart.TRANSIENT, **quick)),
        strategy=strategy,
        intensity=PLENTY,
        backoff=AT_ONCE,
    )
    children = (faulty(a, **quick), inner, faulty(d, **quick))
    with bench(*children, lives=lives, strategy=strategy, max_abandoned=10_000) as it:
        it.started("d", 1)
        for step in range(20 * STEPS):  # on a machine that is busy with others, each step hits less
            if step >= STEPS and has_hit_enough(it):
                break
            mischief(it, rng, release, ["a", "b", "c", "d"])
            if rng.random() < 0.7:
                threading.Event().wait(rng.random() * 0.01)  # so that some of it hits a start or a stop
        it.system.stop()
        outcome = it.run.outcome(timeout=60)
    release.set()
    assert outcome.kind is OutcomeKind.STOPPED
    it.events.wait_until(lambda: it.system.abandoned == 0)
    starts = Counter((event.child, event.generation) for event in it.events.all(ActorStarting))
    exits = Counter((event.child, event.generation) for event in it.events.all(ActorExited))
    assert set(starts.values()) == {1}
    assert has_hit_enough(it), "the fuzz has hardly hit anybody"
    assert not it.events.all(EventsSuppressed)
    assert set(exits) == set(starts)
    assert set(exits.values()) == {1}
    assert [script.tripped for script in (a, b, c, d)] == [None] * 4


def _nothing() -> None:
    return


def _fail() -> None:
    raise OSError("now and then")


def test_a_stop_at_any_moment_of_a_start_leaves_nothing() -> None:
    rng = random.Random(7)
    for _ in range(40):
        _, family = scripts("a", "b", "c")
        system = ActorSystem(SupervisorSpec(id="root", children=tuple(faulty(script) for script in family)))
        stopper = threading.Timer(rng.random() * 0.003, system.stop)
        stopper.start()
        assert system.run().kind is OutcomeKind.STOPPED
        stopper.join()
        assert _balanced(family)


def _balanced(family: list[Script]) -> bool:
    return all(script._alive is None for script in family)
