"""Writes the home of a simulated node: its configuration and the plan of the simulated network.

The plan (``config/node/network.toml``) says how fast blocks come and which upgrades the network votes for. A
running node reads it again when it changes, so :func:`set_upgrades` can withdraw or change a vote.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from visor_actors.simulator.faults import toml_scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """A release the network runs after block ``height``; shown as accepted from block ``accepted_at`` on."""

    tag: str
    height: int
    accepted_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedChain:
    """Where the parts of an initialised node are."""

    home: Path
    socket_path: Path
    http_path: str
    rest_port: int
    tendermint_home: Path | None
    data_node_home: Path | None

    @property
    def core_args(self) -> tuple[str, ...]:
        """The arguments of the core node."""
        tendermint = ("--tendermint-home", str(self.tendermint_home)) if self.tendermint_home else ()
        return ("start", "--home", str(self.home), *tendermint)

    @property
    def data_node_args(self) -> tuple[str, ...]:
        """The arguments of the data node, played by the core node's executable."""
        return ("datanode", "start", "--home", str(self.data_node_home or self.home))


def init_chain(
    home: Path,
    *,
    block_ms: int = 20,
    upgrades: Sequence[tuple[str, int] | Upgrade] = (),
    accept_before: int = 10,
    brand: str = "fury",
    validator: bool = True,
    tendermint_home: Path | None = None,
    socket_path: Path | None = None,
    http_path: str = "/rpc",
    rest_port: int = 0,
    data_node: bool = False,
    data_node_home: Path | None = None,
    broker_port: int | None = None,
    dial_retry_ms: int = 100,
    snapshot_interval: int = 10,
    keep_recent: int = 10,
    history_interval: int | None = None,
    commit_every: int = 1,
    log_every: int = 10,
    startup_ms: int = 0,
    load_ms: int = 0,
    core_stop_ms: int = 0,
    ready_stop_ms: int = 10,
    finalize_ms: int = 6,
    data_node_startup_ms: int = 0,
    data_node_api_ms: int = 0,
    data_node_ready_ms: int = 0,
    data_node_stop_ms: int = 0,
) -> SimulatedChain:
    """Write configuration and plan for a node whose chain starts at block 1; existing chain data is kept.

    ``upgrades`` are ``(tag, height)``, accepted ``accept_before`` blocks earlier, or :class:`Upgrade`.
    ``data_node`` gives the core a broker socket and writes the data node's configuration, into the same home
    unless ``data_node_home`` says otherwise; the broker is a unix socket unless ``broker_port`` names a port
    of the loopback interface. A ``validator`` keeps ``data/priv_validator_state.json`` in ``tendermint_home``
    (made here when given). ``rest_port`` 0 serves no REST. Without ``socket_path`` the admin socket is
    ``HOME/BRAND.sock``.

    ``history_interval`` (default: ``snapshot_interval``) must be a multiple of ``snapshot_interval``, or the
    core could not start where the data node's history ends: ``ValueError``.
    """
    segments = history_interval or snapshot_interval
    if segments % snapshot_interval:
        raise ValueError(
            f"history_interval {segments} is no multiple of snapshot_interval {snapshot_interval}"
        )
    home = home.absolute()
    admin = socket_path or home / f"{brand}.sock"
    history_home = (data_node_home or home).absolute() if data_node else None
    if tendermint_home is not None:
        (tendermint_home / "data").mkdir(parents=True, exist_ok=True)

    broker: dict[str, object] = {
        "Enabled": data_node,
        "DialRetryInterval": f"{dial_retry_ms}ms",
        "DialTimeout": "96h",
    }
    if history_home is not None:
        socket = {"Transport": "unix", "Path": history_home / "state" / "data-node" / "broker.sock"}
        broker |= (
            socket
            if broker_port is None
            else {"Transport": "tcp", "Address": "127.0.0.1", "Port": broker_port}
        )
    core = home / "config" / "node"
    _write(
        core / "config.toml",
        {
            "Admin.Server": {"SocketPath": admin, "HTTPPath": http_path},
            "Broker.Socket": broker,
            "API.REST": {"IP": "127.0.0.1", "Port": rest_port},
            "Snapshot": {"StartHeight": 0, "KeepRecent": keep_recent},
        },
    )
    plan = {
        "block_ms": block_ms,
        "snapshot_interval": snapshot_interval,
        "keep_recent": keep_recent,
        "log_every": log_every,
        "validator": validator,
        "startup_ms": startup_ms,
        "load_ms": load_ms,
        "core_stop_ms": core_stop_ms,
        "ready_stop_ms": ready_stop_ms,
        "finalize_ms": finalize_ms,
        "data_node_home": history_home or "",
    }
    _write(core / "network.toml", {"": plan, **_upgrade_tables(upgrades, accept_before)})
    if history_home is not None:
        folder = history_home / "config" / "data-node"
        _write(folder / "config.toml", {"Broker.Socket": broker, "API": {"IP": "127.0.0.1", "Port": 0}})
        data_node_plan = {
            "history_interval": segments,
            "commit_every": commit_every,
            "startup_ms": data_node_startup_ms,
            "api_ms": data_node_api_ms,
            "ready_ms": data_node_ready_ms,
            "stop_ms": data_node_stop_ms,
        }
        _write(folder / "network.toml", {"": data_node_plan})
    return SimulatedChain(
        home=home,
        socket_path=admin,
        http_path=http_path,
        rest_port=rest_port,
        tendermint_home=tendermint_home,
        data_node_home=history_home,
    )


def set_upgrades(
    home: Path, upgrades: Sequence[tuple[str, int] | Upgrade], *, accept_before: int = 10
) -> None:
    """Replace the upgrades the network votes for; a running node follows with its next block."""
    path = home / "config" / "node" / "network.toml"
    head = path.read_text(encoding="utf-8").partition("[upgrade.")[0]
    temporary = path.with_name("network.toml.new")
    temporary.write_text(head + _text(_upgrade_tables(upgrades, accept_before)), encoding="utf-8")
    os.replace(temporary, path)


def planned_upgrades(home: Path) -> tuple[Upgrade, ...]:
    """The upgrades of the plan, lowest height first."""
    import tomllib

    plan = tomllib.loads((home / "config" / "node" / "network.toml").read_text(encoding="utf-8"))
    tables: Mapping[str, Mapping[str, int]] = plan.get("upgrade", {})
    found = (Upgrade(tag=tag, height=t["height"], accepted_at=t["accepted_at"]) for tag, t in tables.items())
    return tuple(sorted(found, key=lambda upgrade: upgrade.height))


def _upgrade_tables(
    upgrades: Sequence[tuple[str, int] | Upgrade], accept_before: int
) -> dict[str, dict[str, object]]:
    tables: dict[str, dict[str, object]] = {}
    for item in upgrades:
        upgrade = item
        if not isinstance(upgrade, Upgrade):
            tag, height = upgrade
            upgrade = Upgrade(tag=tag, height=height, accepted_at=max(1, height - accept_before))
        tables[f'upgrade."{upgrade.tag}"'] = {"height": upgrade.height, "accepted_at": upgrade.accepted_at}
    return tables


def _text(tables: Mapping[str, Mapping[str, object]]) -> str:
    parts = []
    for name, table in tables.items():
        head = [f"[{name}]"] if name else []
        parts.append(
            "\n".join([*head, *(f"{key} = {toml_scalar(value)}" for key, value in table.items()), ""])
        )
    return "\n".join(parts)


def _write(path: Path, tables: Mapping[str, Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_text(tables), encoding="utf-8")
