"""Writes a chain that already has a past, so that a test need not wait for its blocks."""

from __future__ import annotations

from visor_actors.simulator import node
from visor_actors.simulator.chain import SimulatedChain


def grow_chain(chain: SimulatedChain, *, version: str, to_height: int) -> None:
    """Add the blocks up to ``to_height`` as if ``version`` had executed them and then been stopped.

    Snapshots and, with a data node, history segments are written as the node writes them. ``to_height`` must
    not reach an upgrade of the plan. No node of this home may run meanwhile.
    """
    paths = node.Paths(str(chain.home), "node")
    paths.make()
    network = node.Network(paths.network)
    stored = node.Chain(paths.state)
    interval, keep = network.number("snapshot_interval", 10), network.number("keep_recent", 10)
    previous = stored.stored.get(stored.stored_height, ("", ""))[1]
    hashes = {}
    for height in range(stored.stored_height + 1, to_height + 1):
        previous = hashes[height] = node.app_hash(previous, height, version)
        node.append_line(stored.log, f"{height} {version} 0 new {previous} 0")
        if height % interval == 0:
            snapshot = node.Snapshot(height, version, False, previous, network.accepted(height))
            snapshot.write(stored.snapshots)
    for old in stored.snapshot_heights()[:-keep]:
        node.remove_file(f"{stored.snapshots}/{old}")
    stored.close()
    if chain.data_node_home is not None:
        _grow_history(str(chain.data_node_home), hashes, to_height)


def _grow_history(home: str, hashes: dict[int, str], to_height: int) -> None:
    paths = node.Paths(home, "data-node")
    paths.make()
    interval = node.Network(paths.network).number("history_interval", 10)
    for height, hash_ in hashes.items():
        node.append_line(f"{paths.state}/processed.log", f"{height} {hash_} 0")
        if height % interval == 0:
            node.append_segment(paths.state, height)
    node.replace_file(f"{paths.state}/committed", f"{to_height}\n")
