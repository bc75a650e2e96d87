"""A bug of ours never stops a healthy node: every actor is killed again and again, in every way, and the
node's pid and start time, and visor's threads and descriptors, stay what they were.

The short form is part of the suite; ``pytest -m soak`` kills each actor 100 times in each way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.harness import Visor, make_home, wait_for
from tests.e2e.processes import command, descriptors, start_ticks, thread_count
from visor_actors.actors.reports import Health

ACTORS = (
    "config-watcher",
    "process:core",
    "process:data_node",
    "lifecycle",
    "installer",
    "rpc-listener",
    "upgrade-coordinator",
    "api",
)
SUPERVISED = (*ACTORS, "node")
PATIENT = {"maxRestarts": 10_000, "windowSeconds": 1, "delaySeconds": 0.01, "maxDelaySeconds": 0.02}
HASTY = {"VISOR_HEARTBEAT_SECONDS": "0.4", "VISOR_HANG_SECONDS": "1.5"}

JOURNALS_KEPT = 3
"""SQLite keeps the descriptor of a closed journal for the next one to open it, while another has a lock."""

soak = [pytest.mark.soak, pytest.mark.timeout(3600)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home"


def soaking(request: pytest.FixtureRequest) -> bool:
    return "soak" in str(request.config.option.markexpr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Untouched:
    """What must be the same before and after, or no more: a thread that is just ending may be counted."""

    visor: Visor
    node: tuple[tuple[int, int], ...]
    threads: int
    descriptors: tuple[str, ...]

    @classmethod
    def of(cls, visor: Visor) -> Untouched:
        main = visor.process.pid
        return cls(
            visor=visor,
            node=_who_runs(visor),
            threads=thread_count(main),
            descriptors=tuple(descriptors(main)),
        )

    def check(self, what: str) -> None:
        main = self.visor.process.pid
        assert _who_runs(self.visor) == self.node, f"{what}: the node was touched\n{self.visor.tail()}"
        wait_for(
            lambda: thread_count(main) <= self.threads,
            f"{what}: no more threads than {self.threads} ({thread_count(main)})",
        )
        wait_for(
            lambda: not self._grown(main),
            f"{what}: no more descriptors than\n{self.descriptors}\n{descriptors(main)}",
        )

    def _grown(self, main: int) -> Counter[str]:
        grown = Counter(descriptors(main)) - Counter(self.descriptors)
        kept = {name: JOURNALS_KEPT for name in grown if name.endswith("journal.db")}
        return grown - Counter(kept)


def _who_runs(visor: Visor) -> tuple[tuple[int, int], ...]:
    return tuple((pid, start_ticks(pid)) for pid in visor.wait_running("core", "data_node"))


@contextmanager
def steady(root: Path, **environment: str) -> Iterator[Visor]:
    """A visor whose node runs and answers, and whose actors may fail as often as they like."""
    home = make_home(root, data_node=True, block_ms=50)
    home.configure(supervision=PATIENT)
    with Visor(home=home, environment=environment) as visor:
        wait_for(lambda: answers(visor), f"the node to answer\n{visor.tail()}")
        # Each actor once, so that everything is there that comes with use: what grows afterwards is a leak.
        for actor in SUPERVISED:
            visor.kill_actor(actor, "crash")
        wait_for(lambda: answers(visor), f"the node to answer\n{visor.tail()}")
        yield visor


def answers(visor: Visor) -> bool:
    status = visor.status()
    return (
        status is not None
        and status.node.phase == "running"
        and status.rpc is not None
        and status.rpc.connected
        and status.health is Health.OK
    )


@pytest.mark.parametrize("fault", ["crash", "exit"])
@pytest.mark.parametrize("times", [3, pytest.param(100, marks=soak)], ids=["short", "soak"])
def test_an_actor_that_dies_again_and_again_costs_the_node_nothing(
    root: Path, fault: str, times: int, request: pytest.FixtureRequest
) -> None:
    if times > 3 and not soaking(request):
        pytest.skip("a soak; run it with -m soak")
    with steady(root) as visor:
        before = Untouched.of(visor)
        for actor in SUPERVISED:
            for _ in range(times):
                visor.kill_actor(actor, fault)
            before.check(f"{actor} {fault}")
        wait_for(lambda: answers(visor), "everything to be well")


@pytest.mark.parametrize("times", [1, pytest.param(100, marks=soak)], ids=["short", "soak"])
def test_an_actor_that_hangs_is_replaced_and_costs_the_node_nothing(
    root: Path, times: int, request: pytest.FixtureRequest
) -> None:
    if times > 1 and not soaking(request):
        pytest.skip("a soak; run it with -m soak")
    with steady(root, **HASTY) as visor:
        before = Untouched.of(visor)
        for _ in range(times):
            for actor in ACTORS:
                visor.kill_actor(actor, "hang")
            before.check("a hang of each")
        wait_for(lambda: answers(visor), "everything to be well")


def test_too_many_hung_threads_end_visor_and_not_the_node(root: Path) -> None:
    home = make_home(root)
    home.configure(supervision=PATIENT)
    with Visor(home=home, environment={"VISOR_HEARTBEAT_SECONDS": "0.4"}) as visor:
        (pid,) = visor.wait_running()
        while visor.process.poll() is None:
            before = visor.generations()
            if before:
                visor.inject("installer", "hang")
            wait_for(
                lambda before=before: (  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                    visor.process.poll() is not None or visor.serves_beyond("installer", before)
                ),
                "a successor, or the end",
            )
        assert visor.process.returncode == 70, "the service manager is to start it again"
        assert "takes it over" in visor.tail()
        visor.start()
        assert visor.wait_running() == [pid]


@pytest.mark.parametrize("actor", ["rpc-listener", "lifecycle"])
def test_an_actor_beyond_its_budget_degrades_visor_until_it_recovers(root: Path, actor: str) -> None:
    home = make_home(root)
    home.configure(
        supervision={"maxRestarts": 2, "windowSeconds": 2, "delaySeconds": 0.01, "maxDelaySeconds": 1}
    )
    with Visor(home=home) as visor:
        wait_for(lambda: answers(visor), f"the node to answer\n{visor.tail()}")
        node = visor.wait_running()

        def degraded() -> bool:
            status = visor.status()
            if status is not None and status.health is Health.DEGRADED:
                return True
            if visor.generations().get(actor, ("", 0))[0] == "running":
                visor.inject(actor, "crash")
            return False

        wait_for(degraded, f"visor to say that it is degraded\n{visor.tail()}")
        assert command(home, "status", "--output", "json").returncode == 0
        wait_for(lambda: home.history("actor.degraded"), "the history to say so")
        wait_for(lambda: answers(visor), f"visor to be well again\n{visor.tail()}")
        wait_for(lambda: home.history("actor.recovered"), "the history to say so")
        assert visor.wait_running() == node, "the node was never touched"
