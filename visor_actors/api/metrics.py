"""The metrics of a running visor in Prometheus' text format, made from its reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from visor_actors.actors.reports import BinaryReport, Health, StatusReport
from visor_actors.api.treeview import TreeRow, flatten

if TYPE_CHECKING:
    from visor_actors.actor import NodeSnapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Mapping[str, str], float | int | bool | None]


def render_metrics(status: StatusReport, tree: NodeSnapshot, counters: Mapping[str, int]) -> str:
    """Return all metrics. A value nobody knows is left out, so that alerts can tell absent from zero."""
    lines: list[str] = []
    for name, kind, text, samples in (
        *_visor(status),
        *_node(status),
        *_binaries(status.binaries),
        *_upgrade(status),
        *_actors(flatten(tree)),
        ("visor_events_total", "counter", "Events since visor started, by name.", _by("event", counters)),
    ):
        known = [(labels, value) for labels, value in samples if value is not None]
        if known:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in known]
    return "\n".join(lines) + "\n"


Metric = tuple[str, str, str, Iterable[Sample]]


def _one(value: float | int | bool | None) -> list[Sample]:
    return [({}, value)]


def _by(label: str, values: Mapping[str, int]) -> list[Sample]:
    return [({label: key}, value) for key, value in sorted(values.items())]


def _visor(status: StatusReport) -> list[Metric]:
    healths: list[Sample] = [({"health": health.value}, health is status.health) for health in Health]
    return [
        ("visor_info", "gauge", "The running visor.", [({"version": status.version}, 1)]),
        ("visor_start_time_seconds", "gauge", "When visor started, Unix time.", _one(status.started_at)),
        ("visor_health", "gauge", "1 for the health visor is in.", healths),
        ("visor_alarms", "gauge", "Alarms an operator must act on.", _one(len(status.alarms))),
        ("visor_config_refused", "gauge", "1 while a newer configuration is refused.",
         _one(status.config.problem is not None if status.config else None)),
    ]


def _node(status: StatusReport) -> list[Metric]:
    rpc = status.rpc
    phases: list[Sample] = [({"phase": status.node.phase}, 1)]
    return [
        ("visor_node_phase", "gauge", "1 for the phase the node is in.", phases),
        ("visor_node_restarts", "gauge", "Unasked restarts, counted.", _one(status.node.restarts)),
        ("visor_node_restarts_max", "gauge", "The restart budget.", _one(status.node.restarts_max)),
        ("visor_rpc_connected", "gauge", "1 while the core's admin RPC answers.", _one(rpc and
        rpc.connected)), ("visor_rpc_last_answer_seconds", "gauge", "When it last answered, Unix time.",
        _one(rpc and rpc.last_answer_at)), ("visor_node_height", "gauge", "The node's block height.",
        _one(rpc and rpc.height)), ]


def _binaries(binaries: Iterable[BinaryReport]) -> list[Metric]:
    def each(value: Mapping[str, float | int | bool | None]) -> list[Sample]:
        return [({"slot": slot}, number) for slot, number in value.items()]

    known = tuple(binaries)
    return [
        ("visor_binary_running", "gauge", "1 while the binary runs.",
         each({binary.slot: binary.phase == "running" for binary in known})),
        ("visor_binary_start_time_seconds", "gauge", "When the binary was started, Unix time.",
         each({binary.slot: binary.started_at for binary in known})),
        ("visor_binary_pid", "gauge", "The binary's process id.",
         each({binary.slot: binary.pid for binary in known})),
    ]


def _upgrade(status: StatusReport) -> list[Metric]:
    upgrade = status.upgrade
    if upgrade is None:
        return []
    labels = {"tag": upgrade.tag, "state": upgrade.state}
    install = status.install
    return [
        ("visor_upgrade_height", "gauge", "Height of the pending or last upgrade.", [(labels,
        upgrade.height)]), ("visor_upgrade_prepared", "gauge", "1 once its release is verified and in
        place.", [({"tag": upgrade.tag}, upgrade.prepared)]), ("visor_upgrade_held", "gauge", "1 while
        the operator holds it.", [({"tag": upgrade.tag}, upgrade.held)]), ("visor_install_done_bytes",
        "gauge", "Fetched of the release in work.", [({"tag": install.tag}, install.done)] if install
        else []), ("visor_install_total_bytes", "gauge", "Size of the release in work.", [({"tag":
        install.tag}, install.total)] if install else []), ]


def _actors(rows: Iterable[TreeRow]) -> list[Metric]:
    known = [(row, {"actor": row.path}) for row in rows]
    return [
        ("visor_actor_running", "gauge", "1 while the actor serves.",
         [(labels, row.state == "running") for row, labels in known]),
        ("visor_actor_generation", "gauge", "Incarnation of the actor, 1 at first.",
         [(labels, row.generation) for row, labels in known]),
        ("visor_actor_restarts_total", "counter", "Restarts of the actor.",
         [(labels, row.restarts) for row, labels in known]),
        ("visor_actor_inbox_depth", "gauge", "Messages that wait for the actor.",
         [(labels, row.inbox_depth) for row, labels in known]),
    ]


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float | int | bool | None) -> str:
    return str(int(value)) if isinstance(value, bool | int) else repr(value)
