"""Every fault that tests can switch on."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
from pathlib import Path
from typing import get_args

import pytest

from tests.simulator.harness import (
    DEADLINE,
    STATUS_CALL,
    Nodes,
    connect,
    end,
    exchange,
    height_of,
    post,
    reach,
    seen,
    status_body,
    wait_for,
)
from visor_actors.simulator import (
    CoreFaults,
    DataNodeFaults,
    HistoryFaults,
    SimulatedChain,
    VersionFaults,
    check_chain,
    faults,
    init_chain,
    node,
    read_records,
    write_faults,
)


@pytest.fixture
def chain(home: Path, old: Path, nodes: Nodes) -> SimulatedChain:
    """A running node."""
    chain = init_chain(home, block_ms=5, upgrades=[("v2", 100_000)], accept_before=100_000)
    nodes.start_core(old, chain)
    reach(chain, 1)
    return chain


@pytest.mark.parametrize(
    ("role", "table"),
    [
        ("core", CoreFaults),
        ("data_node", DataNodeFaults),
        ("history", HistoryFaults),
        ("version", VersionFaults),
    ],
)
def test_the_node_knows_the_faults_that_can_be_written(role: str, table: type) -> None:
    assert {field.name for field in dataclasses.fields(table)} == node.KNOWN_FAULTS[role]


def test_an_unknown_fault_is_refused(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home)
    (home / "faults.toml").write_text("[core]\nnonsense = 1\n")
    core = nodes.start_core(old, chain)
    assert core.wait(DEADLINE) == 64
    assert nodes.err(core) == "simulated node: unknown fault core.nonsense\n"


def test_every_rpc_fault_is_tested() -> None:
    assert set(get_args(faults.RpcFault)) == {*ANSWERS, *RAW, "hang", "slow", "stall", "huge", "deep"}


ANSWERS = {
    "http_500": (500, "text/plain; charset=utf-8", "internal error"),
    "content_type": (200, "text/html", '"ReadyToUpgrade":false'),
    "wrong_id": (200, "application/json; charset=utf-8", '"id":"somebody else"'),
    "rpc_error": (200, "application/json; charset=utf-8", '{"result":null,"error":"boom","id":1}'),
    "null_result": (200, "application/json; charset=utf-8", '{"result":null,"error":null,"id":1}'),
    "garbage": (200, "application/json; charset=utf-8", "not json"),
}
RAW = {"not_http": b"SSH-2.0", "close": b"HTTP/1.1 200 OK", "close_at_once": b""}


@pytest.mark.parametrize("fault", ANSWERS)
def test_answers_can_be_wrong(chain: SimulatedChain, fault: faults.RpcFault) -> None:
    write_faults(chain.home, core=CoreFaults(rpc=fault))
    answer = exchange(chain.socket_path, post(STATUS_CALL))
    status, content_type, text = ANSWERS[fault]
    assert (answer.status, answer.headers["Content-Type"]) == (status, content_type)
    assert text in answer.body.decode("latin-1")


@pytest.mark.parametrize("fault", RAW)
def test_connections_can_end_too_early(chain: SimulatedChain, fault: faults.RpcFault) -> None:
    write_faults(chain.home, core=CoreFaults(rpc=fault))
    with connect(chain.socket_path) as client:
        client.sendall(post(STATUS_CALL))
        raw = b""
        while part := client.recv(65536):
            raw += part
    assert RAW[fault] in raw
    assert not raw.endswith(b"}\n")


@pytest.mark.parametrize("fault", ["hang", "stall"])
def test_answers_can_fail_to_come_while_the_node_goes_on(
    chain: SimulatedChain, fault: faults.RpcFault
) -> None:
    write_faults(chain.home, core=CoreFaults(rpc=fault))
    with connect(chain.socket_path) as client:
        client.sendall(post(STATUS_CALL))
        reach(chain, height_of(chain) + 20)
        client.setblocking(False)
        if fault == "stall":
            assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
        with pytest.raises(BlockingIOError):
            client.recv(65536)
    write_faults(chain.home)
    assert '"error":null' in status_body(chain.socket_path)


def test_answers_can_come_byte_by_byte(chain: SimulatedChain) -> None:
    write_faults(chain.home, core=CoreFaults(rpc="slow", rpc_slow_ms=1))
    with connect(chain.socket_path) as client:
        client.sendall(post(STATUS_CALL))
        parts = [b""]
        while b'"id":1}\n' not in b"".join(parts):
            parts.append(client.recv(65536))
            assert parts[-1]
    assert len(parts) > 5


def test_a_huge_answer_is_sent_without_holding_it_in_memory(chain: SimulatedChain, nodes: Nodes) -> None:
    size = 40_000_000
    write_faults(chain.home, core=CoreFaults(rpc="huge", rpc_huge_bytes=size))
    received = 0
    with connect(chain.socket_path) as client:
        client.sendall(post(STATUS_CALL))
        buffer = bytearray(1 << 20)
        while received < size:
            received += client.recv_into(buffer)
    status = Path(f"/proc/{nodes.started[0].pid}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0])
    assert peak < 30_000


def test_an_answer_can_be_nested_deeply(chain: SimulatedChain) -> None:
    write_faults(chain.home, core=CoreFaults(rpc="deep"))
    assert exchange(chain.socket_path, post(STATUS_CALL)).body.startswith(b"[" * 10_000)


def test_a_fault_can_begin_at_a_height(chain: SimulatedChain) -> None:
    start = height_of(chain) + 20
    write_faults(chain.home, core=CoreFaults(rpc="http_500", rpc_from_height=start))
    assert exchange(chain.socket_path, post(STATUS_CALL)).status in (200, 500)
    reach(chain, start)
    assert wait_for(lambda: exchange(chain.socket_path, post(STATUS_CALL)).status == 500)


@pytest.mark.parametrize(
    ("table", "info", "ready"),
    [
        (CoreFaults(status="ready_without_info"), "null", "true"),
        (CoreFaults(status="ready_empty_tag"), '{"FuryReleaseTag":"","UpgradeBlockHeight":100000}', "true"),
        (
            CoreFaults(status="ready", status_tag="v0", status_height=7),
            '{"FuryReleaseTag":"v0","UpgradeBlockHeight":7}',
            "true",
        ),
        (CoreFaults(status="withdrawn"), '{"FuryReleaseTag":"","UpgradeBlockHeight":0}', "false"),
        (CoreFaults(status="null"), "null", "false"),
        (CoreFaults(status_tag="v9"), '{"FuryReleaseTag":"v9","UpgradeBlockHeight":100000}', "false"),
    ],
)
def test_the_status_can_lie(chain: SimulatedChain, table: CoreFaults, info: str, ready: str) -> None:
    write_faults(chain.home, core=table)
    shown = f'{{"AcceptedReleaseInfo":{info},"ReadyToUpgrade":{ready}}}'
    assert status_body(chain.socket_path) == f'{{"result":{shown},"error":null,"id":1}}\n'


def test_ready_can_flap(chain: SimulatedChain) -> None:
    write_faults(chain.home, core=CoreFaults(status="flapping"))
    flags = ['"ReadyToUpgrade":true' in status_body(chain.socket_path) for _ in range(4)]
    assert flags == [True, False, True, False]


@pytest.mark.parametrize(
    ("table", "status"),
    [
        (CoreFaults(crash_at_height=5), 1),
        (CoreFaults(crash_at_height=5, crash_exit_code=0), 0),
        (CoreFaults(crash_at_height=5, crash_exit_code=17), 17),
        (CoreFaults(crash_at_height=5, crash_signal=signal.SIGSEGV), -signal.SIGSEGV),
        (CoreFaults(crash_at_height=5, crash_signal=signal.SIGKILL), -signal.SIGKILL),
        (CoreFaults(crash_after_ms=20), 1),
    ],
)
def test_the_node_crashes_once_and_runs_the_next_time(
    home: Path, old: Path, nodes: Nodes, table: CoreFaults, status: int
) -> None:
    chain = init_chain(home, block_ms=5)
    write_faults(home, core=table)
    assert nodes.start_core(old, chain).wait(DEADLINE) == status
    again = nodes.start_core(old, chain)
    seen(home, "loaded", pid=again.pid)
    reach(chain, height_of(chain) + 10)
    assert end(again) == 0
    assert check_chain(home).problems == ()


def test_the_node_can_crash_a_number_of_times_or_always(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=3)
    write_faults(home, core=CoreFaults(crash_at_height=3, crash_times=2))
    assert [nodes.start_core(old, chain).wait(DEADLINE) for _ in range(2)] == [1, 1]
    again = nodes.start_core(old, chain)
    reach(chain, 10)
    end(again)
    write_faults(home, core=CoreFaults(crash_at_height=3, crash_times=0))
    assert [nodes.start_core(old, chain).wait(DEADLINE) for _ in range(3)] == [1, 1, 1]


def test_the_first_starts_can_fail(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=3)
    write_faults(home, core=CoreFaults(fail_first_starts=2, crash_exit_code=9))
    assert [nodes.start_core(old, chain).wait(DEADLINE) for _ in range(2)] == [9, 9]
    nodes.start_core(old, chain)
    reach(chain, 2)


def test_sigterm_can_be_ignored(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=3)
    write_faults(home, core=CoreFaults(ignore_sigterm=True))
    core = nodes.start_core(old, chain)
    reach(chain, 2)
    core.terminate()
    seen(home, "sigterm")
    reach(chain, height_of(chain) + 5)
    write_faults(home)
    assert end(core) == 0


def test_a_stop_can_take_its_time(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=3)
    write_faults(home, core=CoreFaults(stop_ms=150))
    core = nodes.start_core(old, chain)
    reach(chain, 2)
    assert end(core) == 0
    stop = seen(home, "stop")
    assert stop.mono_ns - stop.details["sigterm_ns"] >= 150_000_000


def test_a_start_can_take_its_time(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=3)
    write_faults(home, core=CoreFaults(startup_delay_ms=100))
    nodes.start_core(old, chain)
    assert seen(home, "serving").mono_ns - seen(home, "start").mono_ns >= 100_000_000


@pytest.mark.parametrize("session", ["same", "own"])
def test_a_helper_stays_behind_and_holds_what_the_node_was_given(
    home: Path, old: Path, nodes: Nodes, session: str
) -> None:
    chain = init_chain(home, block_ms=3)
    write_faults(home, core=CoreFaults(helper_seconds=60, helper_session=session))  # type: ignore[arg-type]  # literal
    core = nodes.start_core(old, chain)
    helper = int(seen(home, "helper").details["helper"])
    descriptor = os.pidfd_open(helper)
    try:
        assert (os.getsid(helper) == os.getsid(0)) == (session == "same")
        reach(chain, 2)
        assert end(core) == 0
        assert Path(f"/proc/{helper}/fd/1").samefile(nodes.folder / "0.out")
    finally:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


def test_stdout_can_be_flooded_while_the_node_goes_on(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=3)
    write_faults(home, core=CoreFaults(flood_lines=20_000, flood_line_bytes=80))
    core = nodes.start_core(old, chain)
    wait_for(lambda: "flood 20000 of 20000 " in nodes.out(core))
    lines = [line for line in nodes.out(core).splitlines() if line.startswith("flood ")]
    assert len(lines) == 20_000
    assert {len(line) for line in lines} == {79}
    reach(chain, height_of(chain) + 2)


def test_blocks_can_stall(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=3)
    write_faults(home, core=CoreFaults(stall_at_height=5))
    nodes.start_core(old, chain)
    reach(chain, 5)
    for _ in range(5):
        status_body(chain.socket_path)
    assert height_of(chain) == 5
    write_faults(home)
    reach(chain, 8)


def test_a_ready_node_can_die_before_it_is_asked_to(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=3, upgrades=[("v2", 5)])
    write_faults(home, core=CoreFaults(die_when_ready_ms=5))
    assert nodes.start_core(old, chain).wait(DEADLINE) == -signal.SIGKILL
    assert read_records(home, event="ready")


def test_a_closed_stdout_kills_the_node_as_it_kills_the_real_one(home: Path, old: Path, nodes: Nodes) -> None:
    import subprocess

    chain = init_chain(home, block_ms=3, log_every=1)
    core = subprocess.Popen([old, *chain.core_args], stdout=subprocess.PIPE)
    nodes.started.append(core)
    assert core.stdout is not None
    core.stdout.readline()
    core.stdout.close()
    assert core.wait(DEADLINE) == -signal.SIGPIPE


def test_a_client_that_goes_away_harms_nobody(chain: SimulatedChain) -> None:
    for _ in range(20):
        client = connect(chain.socket_path)
        client.sendall(post(STATUS_CALL)[:30])
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    assert '"error":null' in status_body(chain.socket_path)
