"""What core and data node do around an upgrade's height."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.simulator.harness import (
    DEADLINE,
    Nodes,
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
    SimulatedChain,
    Upgrade,
    VersionRange,
    check_chain,
    init_chain,
    read_records,
    set_upgrades,
    write_faults,
)


def shown(tag: str, height: int, *, ready: bool) -> str:
    info = f'{{"FuryReleaseTag":"{tag}","UpgradeBlockHeight":{height}}}'
    flag = "true" if ready else "false"
    return f'{{"result":{{"AcceptedReleaseInfo":{info},"ReadyToUpgrade":{flag}}},"error":null,"id":1}}\n'


def wait_for_status(chain: SimulatedChain, body: str) -> None:
    wait_for(lambda: status_body(chain.socket_path) == body)


def test_a_release_is_shown_as_accepted_before_its_height_and_as_ready_at_it(
    home: Path, old: Path, nodes: Nodes
) -> None:
    chain = init_chain(home, block_ms=5, upgrades=[("v2", 30)], accept_before=20)
    write_faults(home, core=CoreFaults(stall_at_height=9))
    nodes.start_core(old, chain)
    reach(chain, 9)
    wait_for_status(chain, shown("", 0, ready=False))
    write_faults(home, core=CoreFaults(stall_at_height=29))
    wait_for_status(chain, shown("v2", 30, ready=False))
    reach(chain, 29)
    assert status_body(chain.socket_path) == shown("v2", 30, ready=False)
    write_faults(home)
    wait_for_status(chain, shown("v2", 30, ready=True))
    assert height_of(chain) == 30


def test_a_ready_core_ends_by_its_own_sigkill_after_sigterm_and_removes_its_socket(
    home: Path, old: Path, nodes: Nodes
) -> None:
    chain = init_chain(home, block_ms=5, upgrades=[("v2", 3)])
    core = nodes.start_core(old, chain)
    seen(home, "ready")
    assert end(core) == -signal.SIGKILL
    assert not chain.socket_path.exists()
    stop = seen(home, "stop")
    assert stop.details["sigterm_ns"] > seen(home, "ready").mono_ns
    assert "Fury shutdown complete" in nodes.out(core)


def test_a_ready_core_repeats_in_its_log_that_it_waits(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=5, upgrades=[("v2", 3)])
    core = nodes.start_core(old, chain)
    wait_for(lambda: nodes.out(core).count("application is ready for shutdown") >= 2)
    out = nodes.out(core)
    assert 'Snapshot taken\t{"height":3}' in out
    assert out.index("marking fury core as ready to shut down") < out.index(
        "marking fury core and data node as ready to shut down"
    )
    assert nodes.err(core) == ""
    assert height_of(chain) == 3


def test_the_new_version_shows_the_old_release_info_once_more_until_its_first_block(
    home: Path, old: Path, new: Path, nodes: Nodes
) -> None:
    chain = init_chain(home, block_ms=5, upgrades=[("v2", 3)])
    core = nodes.start_core(old, chain)
    seen(home, "ready")
    end(core)
    init_chain(home, block_ms=5, upgrades=[("v2", 3)], load_ms=600_000)
    loading = nodes.start_core(new, chain)
    seen(home, "serving", pid=loading.pid)
    assert '"AcceptedReleaseInfo":null' in status_body(chain.socket_path)
    end(loading)
    init_chain(home, block_ms=5, upgrades=[("v2", 3)])
    write_faults(home, core=CoreFaults(stall_at_height=3))
    again = nodes.start_core(new, chain)
    seen(home, "loaded", pid=again.pid)
    assert status_body(chain.socket_path) == shown("v2", 3, ready=False)
    write_faults(home)
    wait_for_status(chain, shown("", 0, ready=False))
    line = 'loading state from snapshot\t{"block-height":3,"version-taken":"v1","protocol-upgrade":true}'
    assert line in nodes.out(again)


@pytest.mark.parametrize("data_node", [False, True])
def test_two_upgrades_in_a_row_leave_a_sound_chain(
    home: Path, releases: dict[str, Path], nodes: Nodes, data_node: bool
) -> None:
    chain = init_chain(
        home, block_ms=4, upgrades=[("v2", 12), ("v3", 25)], data_node=data_node, dial_retry_ms=10
    )
    for version, height in (("v1", 12), ("v2", 25), ("v3", 30)):
        others = [nodes.start_data_node(releases[version], chain)] if data_node else []
        core = nodes.start_core(releases[version], chain)
        if version == "v3":
            reach(chain, height)
        else:
            seen(home, "ready", height=height)
        assert end(core) == (0 if version == "v3" else -signal.SIGKILL)
        assert [end(other) for other in others] == [0] * len(others)
    report = check_chain(home)
    assert report.problems == ()
    assert report.versions == (
        VersionRange(version="v1", first=1, last=12),
        VersionRange(version="v2", first=13, last=25),
        VersionRange(version="v3", first=26, last=report.blocks),
    )
    assert all((timing.gap_ms or 0) > 0 for timing in report.upgrades)


def test_with_a_data_node_the_core_is_ready_only_when_the_data_node_is(
    home: Path, old: Path, nodes: Nodes
) -> None:
    chain = init_chain(home, block_ms=5, upgrades=[("v2", 5)], data_node=True, dial_retry_ms=10)
    write_faults(home, data_node=DataNodeFaults(at_upgrade="never_ready"))
    data_node, core = nodes.start_data_node(old, chain), nodes.start_core(old, chain)
    seen(home, "waiting")
    assert status_body(chain.socket_path) == shown("v2", 5, ready=False)
    write_faults(home)
    ready = seen(home, "ready")
    assert seen(home, "ready", role="data_node").mono_ns <= ready.mono_ns
    assert "waiting for data node to get ready for upgrade" in nodes.out(core)
    assert "datanode is ready for protocol upgrade" in nodes.out(data_node)
    assert data_node.poll() is None
    assert end(data_node) == 0
    assert status_body(chain.socket_path) == shown("v2", 5, ready=True)


def test_sigterm_while_waiting_for_the_data_node_hangs_the_core_for_ever(
    home: Path, old: Path, nodes: Nodes
) -> None:
    chain = init_chain(home, block_ms=5, upgrades=[("v2", 5)], data_node=True, dial_retry_ms=10)
    write_faults(home, data_node=DataNodeFaults(at_upgrade="never_ready"))
    nodes.start_data_node(old, chain)
    core = nodes.start_core(old, chain)
    seen(home, "waiting")
    core.terminate()
    assert seen(home, "sigterm").details["state"] == "waiting for the data node"
    write_faults(home)
    seen(home, "ready", role="data_node")
    for _ in range(5):
        assert status_body(chain.socket_path) == shown("v2", 5, ready=False)
    assert core.poll() is None
    assert "Stopping blockchain server" in nodes.out(core)
    core.kill()
    assert core.wait(DEADLINE) == -signal.SIGKILL
    assert any("waited at its upgrade height" in str(problem) for problem in check_chain(home).problems)


def test_a_data_node_that_dies_at_the_height_leaves_the_core_waiting(
    home: Path, old: Path, nodes: Nodes
) -> None:
    chain = init_chain(home, block_ms=5, upgrades=[("v2", 5)], data_node=True, dial_retry_ms=10)
    write_faults(home, data_node=DataNodeFaults(at_upgrade="die"))
    data_node, core = nodes.start_data_node(old, chain), nodes.start_core(old, chain)
    assert data_node.wait(DEADLINE) == -signal.SIGKILL
    wait_for(lambda: "lost the connection to the data node" in nodes.out(core))
    assert status_body(chain.socket_path) == shown("v2", 5, ready=False)
    assert not read_records(home, event="ready")


def test_the_core_has_no_socket_before_the_data_node_answers(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=5, data_node=True, dial_retry_ms=10)
    core = nodes.start_core(old, chain)
    wait_for(lambda: "Starting node" in nodes.out(core))
    assert not chain.socket_path.exists()
    nodes.start_data_node(old, chain)
    reach(chain, 2)
    assert chain.socket_path.exists()


def test_a_core_that_still_dials_stops_gracefully(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, data_node=True)
    core = nodes.start_core(old, chain)
    wait_for(lambda: "Starting node" in nodes.out(core))
    assert end(core) == 0


def test_core_and_data_node_may_live_in_two_homes_and_speak_tcp(
    tmp_path: Path, old: Path, nodes: Nodes
) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    chain = init_chain(
        tmp_path / "core",
        block_ms=5,
        data_node=True,
        data_node_home=tmp_path / "history",
        broker_port=port,
        upgrades=[("v2", 5)],
        dial_retry_ms=10,
    )
    nodes.start_data_node(old, chain)
    nodes.start_core(old, chain)
    seen(chain.home, "ready")
    assert seen(tmp_path / "history", "ready", role="data_node").height == 5


def test_a_vote_can_be_withdrawn_and_changed_while_the_node_runs(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=5, upgrades=[Upgrade(tag="v2", height=100_000, accepted_at=1)])
    nodes.start_core(old, chain)
    seen(home, "first_block")
    wait_for_status(chain, shown("v2", 100_000, ready=False))
    set_upgrades(home, [])
    wait_for_status(chain, shown("", 0, ready=False))
    height = height_of(chain) + 10
    set_upgrades(home, [Upgrade(tag="v3", height=height, accepted_at=1), ("v4", height + 1000)])
    wait_for_status(chain, shown("v3", height, ready=True))


def test_a_validator_signs_one_height_past_the_upgrade_block(home: Path, old: Path, nodes: Nodes) -> None:
    tendermint = home.parent / "tendermint"
    chain = init_chain(home, block_ms=5, upgrades=[("v2", 5)], tendermint_home=tendermint)
    core = nodes.start_core(old, chain)
    seen(home, "ready")
    state = json.loads((tendermint / "data" / "priv_validator_state.json").read_text())
    assert (state["height"], state["step"]) == ("6", 3)
    end(core)


def test_rest_tells_height_and_version(home: Path, old: Path, nodes: Nodes) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    chain = init_chain(home, block_ms=5, upgrades=[("v2", 4)], rest_port=port)
    nodes.start_core(old, chain)
    seen(home, "ready")
    for path, body in (
        ("/statistics", {"blockHeight": "4", "appVersion": "v1"}),
        ("/blockchain/height", {"height": "4"}),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            raw = b""
            while part := client.recv(65536):
                raw += part
        answer = json.loads(raw.partition(b"\r\n\r\n")[2])
        assert body.items() <= (answer.get("statistics") or answer).items()


def test_an_rpc_with_another_path_is_served_there(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=5, http_path="/admin")
    nodes.start_core(old, chain)
    reach(chain, 1)
    call = b'{"method":"protocolupgrade.UpgradeStatus","params":[],"id":1}'
    assert exchange(chain.socket_path, post(call, path="/admin")).status == 200
    assert exchange(chain.socket_path, post(call)).status == 404
