"""Every arrow of an upgrade's state machine x everything that can die there: it always converges.

At an arrow the coordinator is killed with its process, crashes alone, or stands still for a moment (a
failpoint of the ledger) while another actor is made to crash or a shim is killed. Afterwards each upgrade is
in the journal's log exactly once, and link, journal and chain agree.

The short forms are part of the suite; ``pytest -m soak`` runs the long ones.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e.harness import Home, Visor, alive, make_home, wait_for
from tests.e2e.upgrading import assert_each_once, state_of, steps
from visor_actors.actors.upgrade_machine import COMMITTED, PENDING, State
from visor_actors.simulator import CoreFaults, Upgrade, set_upgrades, write_faults

ARROWS = tuple(state.value for state in (*PENDING, *COMMITTED, State.CONFIRMED))
EARLY = tuple(arrow for arrow in ARROWS[: ARROWS.index("ready")])
POINTS = tuple(f"upgrade.{arrow}{side}" for arrow in ARROWS for side in (".before", ""))
BLOCK_MS = 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home"


def matrix_home(root: Path, *, data_node: bool = False) -> Home:
    home = make_home(root, block_ms=BLOCK_MS, data_node=data_node, tendermint_home=root.parent / "tm")
    configure(home)
    return home


def configure(home: Home) -> None:
    # Actors die here far more often than any budget would bear.
    home.configure(
        pollIntervalSeconds=0.1,
        restartsDelaySeconds=0.05,
        maxNumberOfRestarts=50,
        supervision={"maxRestarts": 1000, "delaySeconds": 0.05, "maxDelaySeconds": 0.1},
    )


class Network:
    """Votes for one release after the other."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.done: list[tuple[str, int]] = []

    def vote(self, *, blocks: int, wait: bool = False) -> str:
        """Have the next release accepted at once, for a height ``blocks`` from now; return its tag.

        With ``wait`` the chain stands still a little before that height until :meth:`go_on`, however long it
        takes visor to prepare.
        """
        tag = f"v{len(self.done) + 2}.0.0"
        self.home.add_release(tag, tag)
        self.done.append((tag, self.home.report().blocks + blocks))
        if wait:
            write_faults(self.home.node_home, core=CoreFaults(stall_at_height=self.done[-1][1] - 5))
        past = [Upgrade(tag=name, height=height, accepted_at=1) for name, height in self.done[:-1]]
        name, height = self.done[-1]
        set_upgrades(self.home.node_home, [*past, Upgrade(tag=name, height=height, accepted_at=1)])
        return tag

    def go_on(self) -> None:
        """Let the chain reach its height."""
        write_faults(self.home.node_home)


def keep_alive(visor: Visor, network: Network, tag: str, fired: Path, *, timeout: float = 120) -> None:
    """Start visor again whenever it was killed, until it was killed everywhere and ``tag`` is confirmed."""
    deadline = time.monotonic() + timeout
    early = {point for point in POINTS if point.split(".")[1] in EARLY}
    while len(list(fired.iterdir())) < len(POINTS) or state_of(visor.home, tag) != "confirmed":
        if early and early <= {point.name for point in fired.iterdir()}:
            early.clear()
            network.go_on()
        if (code := visor.process.poll()) is not None:
            assert code == -signal.SIGKILL, f"visor ended by itself\n{visor.tail()}"
            visor.start()
        assert time.monotonic() < deadline, f"{tag} is {state_of(visor.home, tag)}\n{visor.tail()}"
        time.sleep(0.01)
    wait_for(lambda: visor.process.poll() is not None, "the last death")
    visor.start()


@pytest.mark.parametrize("data_node", [False, True], ids=["core only", "with data node"])
def test_a_main_that_is_killed_at_every_single_arrow_of_one_upgrade_finishes_it(
    root: Path, data_node: bool
) -> None:
    home = matrix_home(root, data_node=data_node)
    network = Network(home)
    fired = root.parent / "fired"
    fired.mkdir()
    armed = ";".join(f"{point}=kill" for point in POINTS)
    environment = {"VISOR_FAILPOINTS": armed, "VISOR_FAILPOINTS_ONCE": str(fired)}
    with Visor(home=home, environment=environment) as visor:
        visor.wait_running("core")
        tag = network.vote(blocks=40, wait=True)
        keep_alive(visor, network, tag, fired)
        visor.wait_running("core")
    assert_each_once(home, *network.done)
    assert_starts(home, releases=2)


def test_a_coordinator_that_crashes_at_every_single_arrow_of_one_upgrade_finishes_it(root: Path) -> None:
    home = matrix_home(root)
    network = Network(home)
    environment = {"VISOR_FAILPOINTS": ";".join(f"{point}=raise" for point in POINTS)}
    with Visor(home=home, environment=environment) as visor:
        visor.wait_running("core")
        tag = network.vote(blocks=40, wait=True)
        wait_step(home, network.done[-1], EARLY[-1])
        network.go_on()
        visor.wait_upgraded(tag)
        wait_for(lambda: len(reached(home)) == len(POINTS), f"all crashes\n{visor.tail()}")
    assert_each_once(home, *network.done)
    assert_starts(home, releases=2)


def reached(home: Home) -> list[str]:
    """The failpoints at which an actor has crashed."""
    troubles = (entry.trouble or "" for entry in home.history("actor.exited"))
    return [trouble for trouble in troubles if trouble.startswith("FailpointReached")]


def crash(visor: Visor, target: str) -> None:
    """Make the actor crash, or kill the shim."""
    kind, _, slot = target.partition(" of ")
    if kind != "shim":
        visor.inject(target, "crash")
        return
    binary = visor.binary(slot)
    if binary is not None and binary.shim_pid is not None and alive(binary.shim_pid):
        os.kill(binary.shim_pid, signal.SIGKILL)


def crash_at_every_arrow(visor: Visor, network: Network, target: str) -> None:
    """Carry one upgrade out; at every arrow, while the coordinator stands still there, ``target`` dies."""
    tag = network.vote(blocks=40, wait=True)
    key = network.done[-1]
    for arrow in ARROWS:
        if arrow == "ready":
            network.go_on()
        try:
            wait_step(network.home, key, arrow)
        except AssertionError as error:
            raise AssertionError(f"{target} died at every arrow: {error}\n{visor.tail()}") from None
        crash(visor, target)
    visor.wait_upgraded(tag)
    visor.wait_running("core")


def wait_step(home: Home, key: tuple[str, int], arrow: str) -> None:
    wait_for(lambda: arrow in steps(home).get(key, ()), f"{key[0]} to be {arrow}")


CORE_ONLY = ("lifecycle", "process:core", "rpc-listener", "shim of core")
WITH_DATA_NODE = ("process:data_node", "shim of data_node", "lifecycle")
STANDING_STILL = {"VISOR_FAILPOINTS": ";".join(f"upgrade.{arrow}=delay:0:0.25" for arrow in ARROWS)}


@pytest.mark.parametrize("data_node", [False, True], ids=["core only", "with data node"])
def test_whatever_else_dies_at_every_arrow_the_upgrade_is_finished(root: Path, data_node: bool) -> None:
    home = matrix_home(root, data_node=data_node)
    network = Network(home)
    with Visor(home=home, environment=STANDING_STILL) as visor:
        visor.wait_running("core")
        for target in WITH_DATA_NODE if data_node else CORE_ONLY:
            crash_at_every_arrow(visor, network, target)
    assert_each_once(home, *network.done)


def assert_starts(home: Home, *, releases: int) -> None:
    """Whatever died of visor, each release was started exactly once: the node did not notice.

    Where main was killed between the two halves of a start, the next one has begun that start anew.
    """
    half = sum("only a part of the node runs" in event.message for event in home.history("node.failed"))
    assert sum(record.event == "start" for record in home.starts()) == releases + half


# many in a row


def in_a_row(root: Path, count: int, *, seed: int, data_node: bool = False) -> Mapping[str, float]:
    """``count`` upgrades while main is killed again and again, at random; returns figures."""
    every, generator = 30, random.Random(seed)
    upgrades = [(f"v{number + 2}.0.0", every * (number + 1)) for number in range(count)]
    home = make_home(
        root, upgrades=upgrades, block_ms=BLOCK_MS, tendermint_home=root.parent / "tm", data_node=data_node
    )
    configure(home)
    last = upgrades[-1][0]
    kills, began = 0, time.monotonic()
    with Visor(home=home) as visor:
        while state_of(home, last) != "confirmed":
            assert time.monotonic() - began < 30 + 6 * count, f"{home.upgrade_states()}\n{visor.tail()}"
            time.sleep(generator.uniform(0.02, 1.2))
            assert visor.process.poll() is None, f"visor ended by itself\n{visor.tail()}"
            visor.process.kill()
            visor.process.wait()
            kills += 1
            visor.start()
        visor.wait_running("core")
    assert_each_once(home, *upgrades)
    assert_starts(home, releases=count + 1)
    return {"upgrades": count, "kills": kills, "seconds": round(time.monotonic() - began, 1)}


@pytest.mark.parametrize("data_node", [False, True], ids=["core only", "with data node"])
def test_upgrades_in_a_row_survive_random_kills_of_main(root: Path, data_node: bool) -> None:
    assert in_a_row(root, 6, seed=1, data_node=data_node)["kills"] > 3


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_a_hundred_upgrades_in_a_row_survive_random_kills_of_main(root: Path) -> None:
    print(in_a_row(root, 100, seed=int(os.environ.get("SOAK_SEED", "7"))))


@pytest.mark.soak
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("way", ["kill", "raise"])
@pytest.mark.parametrize("data_node", [False, True], ids=["core only", "with data node"])
def test_one_death_at_one_arrow_an_upgrade(root: Path, way: str, data_node: bool) -> None:
    home = matrix_home(root, data_node=data_node)
    network = Network(home)
    for point in POINTS:
        environment = {"VISOR_FAILPOINTS": f"{point}={way}"}
        with Visor(home=home, environment=environment) as visor:
            visor.wait_running("core")
            tag = network.vote(blocks=60)
            if way == "kill":
                visor.process.wait(60)
                visor.environment = {}
                visor.start()
            visor.wait_upgraded(tag)
            visor.wait_running("core")
            visor.process.send_signal(signal.SIGTERM)
            assert visor.process.wait(60) == 0
    assert_each_once(home, *network.done)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_coordinator_that_hangs_at_an_arrow_is_replaced_and_writes_nothing_when_it_wakes(
    root: Path,
) -> None:
    home = matrix_home(root)
    network = Network(home)
    # Longer than its heartbeat, short enough to wake while its successor is at work or done.
    points = ("upgrade.ready.before", "upgrade.stopped", "upgrade.confirmed.before")
    environment = {"VISOR_FAILPOINTS": ";".join(f"{point}=hang:1:30" for point in points)}
    with Visor(home=home, environment=environment) as visor:
        (pid,) = visor.wait_running("core")
        tag = network.vote(blocks=60)
        wait_for(lambda: state_of(home, tag) == "confirmed", f"the upgrade\n{visor.tail()}", timeout=180)
        assert alive(pid) is False
        ended = len([one for one in home.history("actor.exited") if "upgrade-coordinator" in one.message])
        assert ended >= len(points)
        time.sleep(30)  # until the last one that hung has woken up
    assert_each_once(home, *network.done)
