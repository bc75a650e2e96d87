"""The data node's history, its command, and how it follows the core."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.simulator.harness import DEADLINE, Nodes, end, height_of, reach, seen, wait_for
from visor_actors.simulator import (
    CoreFaults,
    DataNodeFaults,
    HistoryFaults,
    ProblemKind,
    SimulatedChain,
    build_binary,
    check_chain,
    init_chain,
    read_records,
    write_faults,
)

QUERY = ("network-history", "latest-history-segment", "--output=json")


def ask(binary: Path, chain: SimulatedChain, *, standalone: bool = False) -> subprocess.CompletedProcess[str]:
    first = () if standalone else ("datanode",)
    command = [str(binary), *first, *QUERY, "--home", str(chain.data_node_home), "--output", "json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


def caught_up(chain: SimulatedChain, height: int) -> None:
    """Wait until the data node has stored ``height``."""
    committed = (chain.data_node_home or chain.home) / "state" / "data-node" / "committed"
    wait_for(lambda: committed.exists() and int(committed.read_text()) >= height)


def run_to(chain: SimulatedChain, binary: Path, nodes: Nodes, height: int) -> None:
    """Run both to ``height`` and stop both gracefully; the data node has processed all that the core did."""
    data_node, core = nodes.start_data_node(binary, chain), nodes.start_core(binary, chain)
    seen(chain.home, "loaded", pid=core.pid)
    caught_up(chain, height)
    assert end(core) == 0
    caught_up(chain, height_of(chain))
    assert end(data_node) == 0


def make(
    home: Path,
    *,
    commit_every: int = 1,
    history_interval: int | None = None,
    data_node_api_ms: int = 0,
    data_node_stop_ms: int = 0,
) -> SimulatedChain:
    return init_chain(
        home,
        block_ms=3,
        data_node=True,
        dial_retry_ms=5,
        snapshot_interval=5,
        commit_every=commit_every,
        history_interval=history_interval,
        data_node_api_ms=data_node_api_ms,
        data_node_stop_ms=data_node_stop_ms,
    )


def test_without_history_the_query_says_so_on_stdout_and_ends_with_1(home: Path, old: Path) -> None:
    answer = ask(old, make(home))
    assert (answer.returncode, answer.stdout, answer.stderr) == (
        1,
        '{"error":"no history segments found"}\n',
        "",
    )


def test_after_a_stop_the_query_tells_the_latest_segment(home: Path, old: Path, nodes: Nodes) -> None:
    chain = make(home)
    run_to(chain, old, nodes, 11)
    answer = ask(old, chain)
    assert (answer.returncode, answer.stderr) == (0, "")
    segment = json.loads(answer.stdout)["LatestSegment"]
    assert segment["to_height"] % 5 == 0
    assert segment["from_height"] == segment["to_height"] - 4
    assert set(segment) == {"from_height", "to_height", "history_segment_id", "previous_history_segment_id"}
    assert read_records(home, event="history")


def test_a_live_data_node_is_asked_through_its_api(home: Path, old: Path, nodes: Nodes) -> None:
    chain = make(home)
    nodes.start_data_node(old, chain)
    nodes.start_core(old, chain)
    caught_up(chain, 5)  # a query before the data node has its index would lock it out
    answer = ask(old, chain)
    assert json.loads(answer.stdout)["LatestSegment"]["chain_id"] == "simulated"


def test_a_data_node_whose_api_is_not_up_locks_the_query_out(home: Path, old: Path, nodes: Nodes) -> None:
    chain = make(home, data_node_api_ms=600_000)
    nodes.start_data_node(old, chain)
    seen(home, "serving", role="data_node")
    answer = ask(old, chain)
    assert answer.returncode == 1
    assert "resource temporarily unavailable" in json.loads(answer.stdout)["error"]


def test_without_a_configuration_the_query_fails_in_the_same_shape(home: Path, old: Path) -> None:
    chain = make(home)
    (home / "config" / "data-node" / "config.toml").unlink()
    answer = ask(old, chain)
    assert answer.returncode == 1
    assert json.loads(answer.stdout)["error"].startswith("failed to read config:")


def test_the_stand_alone_program_takes_no_datanode_argument(tmp_path: Path, nodes: Nodes) -> None:
    binary = build_binary(tmp_path / "data-node", version="v1", brand="vega")
    chain = make(tmp_path / "home")
    assert ask(binary, chain, standalone=True).returncode == 1
    assert ask(binary, chain).returncode == 255
    process = nodes.start(binary, "node", "--home", str(chain.home))
    seen(chain.home, "serving", role="data_node", pid=process.pid)
    assert end(process) == 0


def test_a_core_program_without_the_datanode_argument_knows_no_history(home: Path, old: Path) -> None:
    answer = ask(old, make(home), standalone=True)
    assert (answer.returncode, answer.stdout) == (255, "")


def test_the_query_refuses_human_output(home: Path, old: Path) -> None:
    chain = make(home)
    command = [str(old), "datanode", *QUERY[:2], "--home", str(chain.home)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (answer.returncode, answer.stderr) == (
        255,
        'output "human" is not script-friendly, use "json" instead\n',
    )


@pytest.mark.parametrize(
    ("faults", "code", "out"),
    [
        (HistoryFaults(mode="fail"), 1, '{"error":"rpc error: code = Unavailable"}\n'),
        (HistoryFaults(mode="silent", exit_code=3), 3, ""),
    ],
)
def test_the_query_fails_when_told_to(
    home: Path, old: Path, faults: HistoryFaults, code: int, out: str
) -> None:
    chain = make(home)
    write_faults(home, history=faults)
    answer = ask(old, chain)
    assert (answer.returncode, answer.stdout) == (code, out)


def test_a_noisy_query_logs_before_its_answer(home: Path, old: Path, nodes: Nodes) -> None:
    chain = make(home)
    run_to(chain, old, nodes, 6)
    write_faults(home, history=HistoryFaults(mode="noisy"))
    lines = ask(old, chain).stdout.splitlines()
    assert len(lines) == 2
    assert json.loads(lines[1])["LatestSegment"]["to_height"] >= 5


def test_a_hanging_query_answers_nothing(home: Path, old: Path, nodes: Nodes) -> None:
    make(home)
    write_faults(home, history=HistoryFaults(mode="hang"))
    process = nodes.start(old, "datanode", *QUERY, "--home", str(home))
    seen(home, "history", role="history")
    assert process.poll() is None
    assert nodes.out(process) == ""


def test_a_second_data_node_is_refused_by_the_lock(home: Path, old: Path, nodes: Nodes) -> None:
    chain = make(home)
    nodes.start_data_node(old, chain)
    seen(home, "serving", role="data_node")
    second = nodes.start_data_node(old, chain)
    assert second.wait(DEADLINE) == 255
    assert {problem.kind for problem in check_chain(home).problems} == {ProblemKind.TWO_PROCESSES}


def test_both_come_back_after_a_graceful_stop(home: Path, old: Path, nodes: Nodes) -> None:
    chain = make(home)
    run_to(chain, old, nodes, 12)
    run_to(chain, old, nodes, 25)
    assert check_chain(home).problems == ()


def test_a_core_ahead_of_its_data_node_kills_the_data_node(home: Path, old: Path, nodes: Nodes) -> None:
    chain = make(home, commit_every=1000, history_interval=50)
    write_faults(home, core=CoreFaults(stall_at_height=21))
    data_node, core = nodes.start_data_node(old, chain), nodes.start_core(old, chain)
    reach(chain, 21)
    data_node.kill()
    core.kill()
    data_node.wait(DEADLINE)
    core.wait(DEADLINE)
    again = nodes.start_data_node(old, chain)
    nodes.start_core(old, chain)
    assert again.wait(DEADLINE) == 255
    assert nodes.err(again).startswith("block height on begin block, ")
    assert nodes.err(again).endswith("is too high, the height of the last processed block is 0\n")
    assert {problem.kind for problem in check_chain(home).problems} == {ProblemKind.DATA_NODE_BEHIND}


def test_starting_the_core_where_the_history_ends_keeps_both_together(
    home: Path, old: Path, nodes: Nodes
) -> None:
    chain = make(home, commit_every=1000, history_interval=20)
    write_faults(home, core=CoreFaults(stall_at_height=36))
    data_node, core = nodes.start_data_node(old, chain), nodes.start_core(old, chain)
    caught_up(chain, 20)
    reach(chain, 36)
    data_node.kill()
    core.kill()
    data_node.wait(DEADLINE)
    core.wait(DEADLINE)
    height = json.loads(ask(old, chain).stdout)["LatestSegment"]["to_height"]
    assert height == 20
    write_faults(home)
    nodes.start_data_node(old, chain)
    again = nodes.start_core(old, chain, "--snapshot.load-from-block-height", str(height))
    caught_up(chain, 40)
    assert seen(home, "loaded", pid=again.pid).details["deleted"] != []
    assert check_chain(home).problems == ()


def test_the_data_node_gets_its_whole_time_to_stop(home: Path, old: Path, nodes: Nodes) -> None:
    chain = make(home, data_node_stop_ms=200)
    data_node = nodes.start_data_node(old, chain)
    seen(home, "serving", role="data_node")
    assert end(data_node) == 0
    stop = seen(home, "stop", role="data_node")
    assert stop.details["code"] == 0
    assert stop.mono_ns - stop.details["sigterm_ns"] >= 200_000_000


def test_an_event_after_the_upgrade_kills_the_data_node(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=3, data_node=True, dial_retry_ms=5, upgrades=[("v2", 5)])
    data_node, core = nodes.start_data_node(old, chain), nodes.start_core(old, chain)
    seen(home, "ready")
    end(core)
    nodes.start_core(
        old, chain
    )  # the old version again: its next block reaches a data node that has finished
    assert data_node.wait(DEADLINE) == 255
    assert ProblemKind.WRONG_VERSION in {problem.kind for problem in check_chain(home).problems}


def test_a_data_node_left_behind_by_a_switch_is_reported(
    home: Path, old: Path, new: Path, nodes: Nodes
) -> None:
    chain = init_chain(home, block_ms=3, data_node=True, dial_retry_ms=5, upgrades=[("v2", 5)])
    data_node, core = nodes.start_data_node(old, chain), nodes.start_core(old, chain)
    seen(home, "ready")
    end(core)
    nodes.start_core(new, chain)
    assert data_node.wait(DEADLINE) == 255
    assert {problem.kind for problem in check_chain(home).problems} == {ProblemKind.VERSIONS_MIXED}


def test_a_chain_can_be_judged_while_it_runs(home: Path, old: Path, nodes: Nodes) -> None:
    chain = make(home)
    nodes.start_data_node(old, chain)
    nodes.start_core(old, chain)
    caught_up(chain, 1)
    while check_chain(home).blocks < 60:
        assert check_chain(home).problems == ()


def test_a_data_node_can_crash_and_refuse_its_next_starts(home: Path, old: Path, nodes: Nodes) -> None:
    chain = make(home)
    write_faults(home, data_node=DataNodeFaults(crash_at_height=3, crash_exit_code=7))
    data_node = nodes.start_data_node(old, chain)
    nodes.start_core(old, chain)
    assert data_node.wait(DEADLINE) == 7
    write_faults(home, data_node=DataNodeFaults(fail_first_starts=2))
    codes = [nodes.start_data_node(old, chain).wait(DEADLINE) for _ in range(2)]
    assert codes == [1, 1]
    third = nodes.start_data_node(old, chain)
    seen(home, "serving", role="data_node", pid=third.pid)


def test_long_homes_work_for_the_sockets_between_core_and_data_node(
    tmp_path: Path, old: Path, nodes: Nodes
) -> None:
    chain = init_chain(
        tmp_path / ("long-" * 20) / "home",
        block_ms=3,
        data_node=True,
        socket_path=tmp_path / "a.sock",
        dial_retry_ms=5,
    )
    nodes.start_data_node(old, chain)
    nodes.start_core(old, chain)
    caught_up(chain, 10)
    assert ask(old, chain).returncode == 0
