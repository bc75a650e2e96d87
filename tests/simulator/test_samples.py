"""The published configurations, and the simulated node that fits them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulator.harness import Nodes, end, reach, seen
from visor_actors.simulator import check_chain, grow_chain, init_chain, install_sample, sample_folders
from visor_actors.simulator.samples import SNAPSHOT_HEIGHT

ROOT = Path(__file__).parents[2] / "config-samples"


@pytest.mark.parametrize("sample", sample_folders(ROOT), ids=lambda path: path.name)
def test_the_commands_of_every_sample_run(sample: Path, tmp_path: Path, nodes: Nodes) -> None:
    installed = install_sample(sample, tmp_path, block_ms=3)
    before = check_chain(installed.chain.home).blocks
    others = (
        [nodes.start(Path(installed.data_node[0]), *installed.data_node[1:])] if installed.data_node else []
    )
    core = nodes.start(Path(installed.core[0]), *installed.core[1:])
    reach(installed.chain, before + 3)
    assert installed.chain.socket_path.is_socket()
    assert end(core) == 0
    assert [end(other) for other in others] == [0] * len(others)
    assert check_chain(installed.chain.home).problems == ()
    assert "@" not in (installed.folder / "run-config.toml").read_text()


def test_every_sample_is_explained(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    names = [sample.name for sample in sample_folders(ROOT)]
    assert len(names) == 15
    assert [name for name in names if f"`{name}`" not in readme] == []


def test_a_grown_chain_is_what_the_node_would_have_made(tmp_path: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(tmp_path / "home", block_ms=3, data_node=True, dial_retry_ms=5, snapshot_interval=5)
    grow_chain(chain, version="v1", to_height=SNAPSHOT_HEIGHT + 2)
    grow_chain(chain, version="v1", to_height=SNAPSHOT_HEIGHT + 4)
    data_node = nodes.start_data_node(old, chain)
    core = nodes.start_core(old, chain)
    seen(chain.home, "loaded", pid=core.pid)
    reach(chain, SNAPSHOT_HEIGHT + 12)
    assert [end(core), end(data_node)] == [0, 0]
    report = check_chain(chain.home)
    assert report.problems == ()
    assert report.executions == report.blocks + 4  # replayed from the snapshot
