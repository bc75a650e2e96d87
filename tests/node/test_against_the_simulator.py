"""The whole of this package against a simulated node: what one says, the other understands."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep, time

import pytest

from visor_actors.node.admin_rpc import Absent, AdminRpcClient, AdminRpcError, Refused, Release, UpgradeStatus
from visor_actors.node.arguments import Command
from visor_actors.node.command import run
from visor_actors.node.height import SNAPSHOT_HEIGHT, refused_height
from visor_actors.node.history import NoSegment, Segment, Unreadable, latest_segment
from visor_actors.node.rest import RestClient, RestError, rest_address
from visor_actors.node.version import VersionAnswer, VersionUnknown, probe_version
from visor_actors.node.witness import (
    Doneness,
    Witnesses,
    judge_height_done,
    read_log,
    read_signed_height,
)
from visor_actors.simulator import (
    CoreFaults,
    HistoryFaults,
    SimulatedChain,
    Upgrade,
    VersionFaults,
    build_binary,
    init_chain,
    write_faults,
)

UPGRADE = Upgrade(tag="v2", height=12, accepted_at=4)
READY = UpgradeStatus(release=Release(tag="v2", height=12), ready=True)


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    return build_binary(tmp_path / "v1" / "fury", version="v1")


@contextmanager
def playing(binary: Path, *args: str, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run the simulated node; it is ended at the end if it has not ended by itself."""
    with (log or Path("/dev/null")).open("wb") as output:
        process = subprocess.Popen([str(binary), *args], stdout=output, stderr=output)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(20)


def eventually(asked: Callable[[], bool]) -> None:
    deadline = monotonic() + 20
    while not asked():
        assert monotonic() < deadline
        sleep(0.005)


def says(client: AdminRpcClient) -> UpgradeStatus | None:
    try:
        return client.upgrade_status()
    except (Absent, Refused):
        return None


def command(binary: Path, chain: SimulatedChain) -> Command:
    return Command(executable=binary, argv=(str(binary), *chain.data_node_args))


def test_a_core_is_followed_from_its_start_to_ready(tmp_path: Path, binary: Path) -> None:
    chain = init_chain(tmp_path / "home", block_ms=5, upgrades=[UPGRADE])
    seen: list[UpgradeStatus] = []
    with (
        playing(binary, *chain.core_args) as core,
        AdminRpcClient(chain.socket_path, chain.http_path) as client,
    ):

        def ready() -> bool:
            status = says(client)
            if status is not None and status not in seen:
                seen.append(status)
            return status == READY

        eventually(ready)
        assert client.peer_pid == core.pid
    assert UpgradeStatus(release=Release(tag="v2", height=12), ready=False) in seen
    assert all(status.release in (None, Release(tag="v2", height=12)) for status in seen)


@pytest.mark.parametrize(
    "fault",
    [
        "hang",
        "slow",
        "close",
        "close_at_once",
        "stall",
        "http_500",
        "content_type",
        "wrong_id",
        "rpc_error",
        "null_result",
        "garbage",
        "not_http",
        "huge",
        "deep",
    ],
)
def test_every_fault_of_the_admin_rpc_is_an_error_and_the_next_core_is_fine(
    tmp_path: Path, binary: Path, fault: str
) -> None:
    chain = init_chain(tmp_path / "home", block_ms=5)
    with AdminRpcClient(
        chain.socket_path, "/rpc", connect_timeout=0.5, answer_timeout=0.5, total_timeout=0.5
    ) as client:
        write_faults(chain.home, core=CoreFaults(rpc=fault))  # type: ignore[arg-type]  # one of its words
        with playing(binary, *chain.core_args):

            def failed() -> bool:
                try:
                    client.upgrade_status()
                except (Absent, Refused):
                    return False
                except AdminRpcError:
                    return True
                return False

            eventually(failed)
        write_faults(chain.home)
        with playing(binary, *chain.core_args):
            eventually(lambda: says(client) is not None)


def test_the_height_is_read_from_rest_where_the_core_is_configured_to_serve_it(
    tmp_path: Path, binary: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    chain = init_chain(tmp_path / "home", block_ms=5, rest_port=port)
    with playing(binary, *chain.core_args):
        address = rest_address(chain.home)
        assert address == ("127.0.0.1", port)

        def high_enough() -> bool:
            try:
                return RestClient(address).height() > 3
            except RestError:
                return False

        eventually(high_enough)


@pytest.mark.parametrize(
    ("dies", "expected"),
    [
        ("before_snapshot", Doneness.NOT_DONE),
        ("after_snapshot", Doneness.DONE),
        ("before_ready", Doneness.DONE),
    ],
)
def test_the_witnesses_of_a_core_that_dies_at_its_height_tell_whether_it_was_done(
    tmp_path: Path, binary: Path, dies: str, expected: Doneness
) -> None:
    chain = init_chain(
        tmp_path / "home",
        block_ms=5,
        upgrades=[UPGRADE],
        tendermint_home=tmp_path / "tm",
        snapshot_interval=5,
    )
    write_faults(chain.home, core=CoreFaults(die_at_upgrade=dies))  # type: ignore[arg-type]  # one of its words
    log = tmp_path / "log"
    with playing(binary, *chain.core_args, log=log) as core:
        core.wait(20)
    witnesses = Witnesses(
        signed=read_signed_height(tmp_path / "tm", ended_at=time()),
        log=read_log(log.read_text().splitlines(), reaches_the_end=True),
    )
    assert witnesses.signed is not None
    assert judge_height_done(UPGRADE.height, witnesses).doneness is expected


def test_a_validator_that_became_ready_has_signed_beyond_its_height(tmp_path: Path, binary: Path) -> None:
    chain = init_chain(tmp_path / "home", block_ms=5, upgrades=[UPGRADE], tendermint_home=tmp_path / "tm")
    with (
        playing(binary, *chain.core_args),
        AdminRpcClient(chain.socket_path, chain.http_path) as client,
    ):
        eventually(lambda: says(client) == READY)
    signed = read_signed_height(tmp_path / "tm")
    assert judge_height_done(UPGRADE.height, Witnesses(signed=signed)).doneness is Doneness.DONE


def test_a_height_the_core_does_not_find_is_understood(tmp_path: Path, binary: Path) -> None:
    chain = init_chain(tmp_path / "home")
    finished = run([str(binary), *chain.core_args, f"{SNAPSHOT_HEIGHT}=11"], timeout=20)
    assert finished.code == 255
    assert refused_height(finished.stderr.decode().splitlines()) == 11


def test_the_history_of_a_data_node_is_read_while_it_is_down_and_unreadable_while_its_index_is_locked(
    tmp_path: Path, binary: Path
) -> None:
    chain = init_chain(
        tmp_path / "home",
        block_ms=5,
        upgrades=[UPGRADE],
        data_node=True,
        dial_retry_ms=20,
        data_node_api_ms=60_000,
    )
    asked = command(binary, chain)
    assert latest_segment(asked) == NoSegment()
    with (
        playing(binary, *chain.data_node_args) as data_node,
        playing(binary, *chain.core_args) as core,
        AdminRpcClient(chain.socket_path, chain.http_path) as client,
    ):
        eventually(lambda: says(client) == READY)
        assert isinstance(latest_segment(asked), Unreadable)
        for process in (core, data_node):
            process.terminate()
            process.wait(20)
    answer = latest_segment(asked)
    assert isinstance(answer, Segment)
    assert answer.to_height == UPGRADE.height


@pytest.mark.parametrize("mode", ["hang", "fail", "garbage", "silent"])
def test_every_fault_of_the_history_query_is_unreadable(tmp_path: Path, binary: Path, mode: str) -> None:
    chain = init_chain(tmp_path / "home", data_node=True)
    write_faults(chain.home, history=HistoryFaults(mode=mode))  # type: ignore[arg-type]  # one of its words
    assert isinstance(latest_segment(command(binary, chain), timeout=1.0), Unreadable)


def test_a_noisy_history_query_is_understood(tmp_path: Path, binary: Path) -> None:
    chain = init_chain(tmp_path / "home", data_node=True)
    write_faults(chain.home, history=HistoryFaults(mode="noisy"))
    assert latest_segment(command(binary, chain)) == NoSegment()


def test_the_version_of_core_and_data_node_is_told(tmp_path: Path, binary: Path) -> None:
    assert probe_version(binary) == VersionAnswer(version="v1", hash="")
    assert probe_version(binary, prefix_args=("datanode",)).version == "v1"
    noisy = build_binary(tmp_path / "noisy", version="v1", faults=VersionFaults(mode="noisy"))
    assert probe_version(noisy).version == "v1"


@pytest.mark.parametrize("mode", ["hang", "fail", "garbage"])
def test_every_fault_of_the_version_command_is_said(tmp_path: Path, mode: str) -> None:
    faulty = VersionFaults(mode=mode)  # type: ignore[arg-type]  # one of its words
    with pytest.raises(VersionUnknown):
        probe_version(build_binary(tmp_path / "faulty", version="v1", faults=faulty), timeout=1.0)
