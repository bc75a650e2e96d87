"""Turns a published operator configuration (``config-samples/``) into a home with a node that fits it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visor_actors.simulator.chain import SimulatedChain, Upgrade, init_chain
from visor_actors.simulator.growth import grow_chain
from visor_actors.simulator.release import build_binary

SNAPSHOT_HEIGHT = 20  # of the past that a sample gets which starts at a snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleHome:
    """An instantiated sample.

    ``folder`` is the one a visor runs first. ``core`` and ``data_node`` are the commands of the run
    configuration, as they can be executed.
    """

    visor_home: Path
    folder: Path
    brand: str
    version: str
    chain: SimulatedChain
    core: tuple[str, ...]
    data_node: tuple[str, ...] | None


def sample_folders(root: Path) -> tuple[Path, ...]:
    """The samples below ``root``, by name."""
    return tuple(sorted(path for path in root.iterdir() if (path / "config.toml").is_file()))


def install_sample(
    sample: Path,
    into: Path,
    *,
    version: str = "v0.1.0",
    block_ms: int = 20,
    upgrades: Sequence[tuple[str, int] | Upgrade] = (),
) -> SampleHome:
    """Write the sample's homes and binaries (``version``) below ``into``, its placeholders replaced.

    Keep ``into`` short: unix socket addresses end at 107 bytes. A sample that starts at a snapshot gets a
    chain of ``SNAPSHOT_HEIGHT`` blocks and a few more.
    """
    visor_home, home = into / "visor", into / "node"
    for folder in (into / "run", into / "bin", visor_home):
        folder.mkdir(parents=True, exist_ok=True)
    passphrase = into / "passphrase.txt"
    passphrase.write_text("a passphrase\n", encoding="utf-8")
    placeholders = {
        "@HOME@": home,
        "@DATA_NODE_HOME@": into / "data-node",
        "@TENDERMINT_HOME@": into / "tendermint",
        "@SOCKET@": into / "run" / "node.sock",
        "@BIN@": into / "bin",
        "@PASSPHRASE_FILE@": passphrase,
        "@NETWORK_URL@": "http://127.0.0.1:1/genesis.json",
        "@SNAPSHOT_HEIGHT@": SNAPSHOT_HEIGHT,
    }
    _copy(sample, visor_home, {name: str(value) for name, value in placeholders.items()})

    current = visor_home / "current"
    folder = current.resolve() if current.is_symlink() else visor_home / "genesis"
    run_config = tomllib.loads((folder / "run-config.toml").read_text(encoding="utf-8"))
    brand = next(
        name for name, table in run_config.items() if name != "data_node" and isinstance(table, dict)
    )
    rpc = run_config[brand]["rpc"]
    core = _command(run_config[brand]["binary"], folder, version, brand)
    has_data_node = "data_node" in run_config
    data_node = _command(run_config["data_node"]["binary"], folder, version, brand) if has_data_node else None
    chain = init_chain(
        home,
        block_ms=block_ms,
        upgrades=upgrades,
        brand=brand,
        tendermint_home=into / "tendermint",
        socket_path=Path(rpc["socketPath"]),
        http_path=rpc["httpPath"],
        data_node=has_data_node,
        data_node_home=Path(_home_of(data_node)) if data_node else None,
        dial_retry_ms=20,
    )
    if any(word.startswith("--snapshot.load-from-block-height") for word in core):
        grow_chain(chain, version=version, to_height=SNAPSHOT_HEIGHT + 3)
    return SampleHome(
        visor_home=visor_home,
        folder=folder,
        brand=brand,
        version=version,
        chain=chain,
        core=core,
        data_node=data_node,
    )


def _copy(source: Path, target: Path, placeholders: dict[str, str]) -> None:
    for path in sorted(source.iterdir()):
        destination = target / path.name
        if path.is_symlink():
            destination.symlink_to(target / path.readlink())  # operators are told to make it absolute
        elif path.is_dir():
            destination.mkdir()
            _copy(path, destination, placeholders)
        else:
            text = path.read_text(encoding="utf-8")
            for name, value in placeholders.items():
                text = text.replace(name, value)
            destination.write_text(text, encoding="utf-8")


def _command(binary: dict[str, Any], folder: Path, version: str, brand: str) -> tuple[str, ...]:
    name, *words = str(binary["path"]).split(" ")
    path = folder / name
    if not path.exists():
        build_binary(path, version=version, brand=brand)
    # "vega data-node" was never an executable: what is meant is the data node inside of vega.
    return (str(path), *("datanode" if word == "data-node" else word for word in words), *binary["args"])


def _home_of(command: tuple[str, ...]) -> str:
    for word, following in zip(command, (*command[1:], ""), strict=True):
        if word == "--home":
            return following
        if word.startswith("--home="):
            return word.removeprefix("--home=")
    raise ValueError(f"no --home in {command}")
