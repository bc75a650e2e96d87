"""kill -9 of visor at random moments, again and again, with everything counted afterwards.

The short form is part of the suite; ``pytest -m soak`` runs 200 rounds. The seed is printed with a failure;
``VISOR_SEED`` repeats it, as far as the machine lets it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.harness import Home, Visor, alive, make_home, wait_for
from tests.e2e.processes import descriptors, kill_visor, shim_pid, start_ticks, thread_count, zombies
from visor_actors.api.client import ClientError
from visor_actors.home.journal import Journal
from visor_actors.simulator import read_records

SLOTS = ("core", "data_node")


@dataclass(kw_only=True)
class Rounds:
    """The home, its running visor, and what was seen so far."""

    home: Home
    visor: Visor
    rng: random.Random
    kinds: Counter[str] = field(default_factory=Counter)
    descriptors: int = 0
    threads: int = 0

    def settle(self) -> list[tuple[int, int]]:
        """Wait until the whole node runs and answers; return who runs: pids with their start times."""

        def whole() -> bool:
            status = self.visor.status()
            return (
                status is not None
                and status.node.phase == "running"
                and status.rpc is not None
                and status.rpc.connected
            )

        wait_for(whole, f"the node to run\n{self.visor.tail()}")
        pids = self.visor.wait_running(*SLOTS)
        return [(pid, start_ticks(pid)) for pid in pids]

    def pause(self, most: float) -> None:
        """Let a random time pass: this is the moment, not a wait for something."""
        time.sleep(self.rng.uniform(0, most))

    # what happens before the kill; each returns whether the node must not have noticed

    def steady(self) -> bool:
        self.pause(0.1)
        return True

    def attaching(self) -> bool:
        kill_visor(self.visor)
        self.visor.start()
        self.pause(0.5)
        return True

    def crashed(self) -> bool:
        os.kill(self.visor.wait_running(self.rng.choice(SLOTS))[0], signal.SIGKILL)
        self.pause(0.25)
        return False

    def restarting(self) -> bool:
        with contextlib.suppress(ClientError):
            self.visor.client.restart(None)
        self.pause(0.25)
        return False

    def stopping(self) -> bool:
        self.visor.process.send_signal(signal.SIGTERM)
        self.pause(0.15)
        return False

    def shim_killed(self) -> bool:
        os.kill(shim_pid(self.home, self.rng.choice(SLOTS)), signal.SIGKILL)
        self.pause(0.1)
        return True

    def round(self) -> None:
        """One kill, one new visor, and what must hold then."""
        before = self.settle()
        what: Callable[[], bool] = self.rng.choice(
            (self.steady, self.attaching, self.crashed, self.restarting, self.stopping, self.shim_killed)
        )
        self.kinds[what.__name__] += 1
        untouched = what()
        kill_visor(self.visor)
        self.visor.start()
        after = self.settle()
        if untouched:
            assert after == before, f"{what.__name__}: the node was touched\n{self.visor.tail()}"
        self._count(what.__name__)

    def _count(self, what: str) -> None:
        main = self.visor.process.pid
        shims = [shim_pid(self.home, slot) for slot in SLOTS]
        for parent in (main, *shims):
            wait_for(partial(no_zombies, parent), f"{what}: no zombie below {parent}")
        expected = {main, *shims, *self.visor.wait_running(*SLOTS)}
        extra = [pid for pid in self.visor.leftovers() if pid not in expected]
        wait_for(lambda: not any(alive(pid) for pid in extra), f"{what}: nothing else to live ({extra})")
        if not self.threads:
            self.threads, self.descriptors = thread_count(main), len(descriptors(main))
        # The same visor after a start on the same home has the same threads and descriptors each time.
        wait_for(lambda: thread_count(main) <= self.threads, f"{what}: no more threads than at first")
        wait_for(
            lambda: len(descriptors(main)) <= self.descriptors,
            f"{what}: no more descriptors than at first\n{descriptors(main)}",
        )


def no_zombies(parent: int) -> bool:
    return not zombies(parent)


def consumed(home: Home, slot: str) -> list[int]:
    """The incarnations whose exits are in the journal."""
    with Journal.open_reader(home.root / ".visor" / "journal.db") as journal:
        return sorted(int(key.partition("@")[0]) for key, _, _ in journal.exits(slot))


@pytest.mark.parametrize(
    "rounds",
    [15, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])],
    ids=["short", "soak"],
)
def test_a_visor_killed_at_random_moments_loses_nothing(
    tmp_path: Path, rounds: int, request: pytest.FixtureRequest
) -> None:
    if rounds > 15 and "soak" not in request.config.option.markexpr:
        pytest.skip("a soak; run it with -m soak")
    seed = int(os.environ.get("VISOR_SEED", "0")) or random.randrange(1, 1_000_000)
    print(f"VISOR_SEED={seed}")
    home = make_home(tmp_path / "home", data_node=True, block_ms=25)
    home.configure(maxNumberOfRestarts=1_000_000, restartsDelaySeconds=0.05)
    with Visor(home=home) as visor:
        all_rounds = Rounds(home=home, visor=visor, rng=random.Random(seed))
        for _ in range(rounds):
            all_rounds.round()
        all_rounds.settle()
        print(all_rounds.kinds, all_rounds.threads, "threads", all_rounds.descriptors, "descriptors")
        visor.process.send_signal(signal.SIGTERM)
        assert visor.process.wait(60) == 0
        assert visor.leftovers() == []
    for slot in SLOTS:
        ended = consumed(home, slot)
        assert ended == list(range(1, len(ended) + 1)), f"every exit of the {slot} once: {ended}"
        told = [
            entry.fields["incarnation"]
            for entry in home.history("binary.exited")
            if entry.fields["slot"] == slot
        ]
        assert told == ended, f"every exit of the {slot} once in the history"
        started = {record.pid for record in read_records(home.node_home, event="start", role=slot)}
        assert len(ended) >= len(started)
