"""The metrics of a running visor in Prometheus' text format, made from its reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from visor_actors.actors.reports import BinaryReport, Health, StatusReport
from visor_actors.api.treeview import TreeRow, flatten

if TYPE_CHECKING:
    from visor_actors.actor import NodeSnapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Number = float | int | bool | None
Sample = tuple[Mapping[str, str], Number]


class Metric(Struct, frozen=True):
    """One metric with its samples. A sample of None is not shown."""

    name: str
    help: str
    samples: tuple[Sample, ...]
    kind: str = "gauge"

    def render(self) -> str:
        """Return the metric's lines; nothing if no sample is known."""
        known = [(labels, value) for labels, value in self.samples if value is not None]
        if not known:
            return ""
        head = f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.kind}\n"
        return head + "".join(f"{self.name}{_labels(labels)} {_number(value)}\n" for labels, value in known)


def render_metrics(status: StatusReport, tree: NodeSnapshot, counters: Mapping[str, int]) -> str:
    """Return all metrics. A value nobody knows is left out, so that alerts can tell absent from zero."""
    events = tuple(({"event": name}, count) for name, count in sorted(counters.items()))
    metrics = (
        *_visor(status),
        *_node(status),
        *_binaries(status.binaries),
        *_upgrade(status),
        *_install(status),
        *_actors(flatten(tree)),
        Metric("visor_events_total", "Events since visor started, by name.", events, "counter"),
    )
    return "".join(metric.render() for metric in metrics)


def _one(value: Number) -> tuple[Sample, ...]:
    return (({}, value),)


def _visor(status: StatusReport) -> Iterable[Metric]:
    config = status.config
    healths = tuple(({"health": health.value}, health is status.health) for health in Health)
    yield Metric("visor_info", "The running visor.", (({"version": status.version}, 1),))
    yield Metric("visor_start_time_seconds", "When visor started, Unix time.", _one(status.started_at))
    yield Metric("visor_health", "1 for the health visor is in.", healths)
    yield Metric("visor_alarms", "Alarms an operator must act on.", _one(len(status.alarms)))
    if config is not None:
        refused = config.problem is not None
        yield Metric("visor_config_refused", "1 while a newer configuration is refused.", _one(refused))


def _node(status: StatusReport) -> Iterable[Metric]:
    node, rpc = status.node, status.rpc
    yield Metric("visor_node_phase", "1 for the phase the node is in.", (({"phase": node.phase}, 1),))
    yield Metric("visor_node_restarts", "Unasked restarts that count.", _one(node.restarts))
    yield Metric("visor_node_restarts_max", "How many may count.", _one(node.restarts_max))
    if rpc is not None:
        answered = _one(rpc.last_answer_at)
        yield Metric("visor_rpc_connected", "1 while the core's admin RPC answers.", _one(rpc.connected))
        yield Metric("visor_rpc_last_answer_seconds", "When it last answered, Unix time.", answered)
        yield Metric("visor_rpc_ready_to_upgrade", "1 while the core is ready to upgrade.", _one(rpc.ready))
        yield Metric("visor_node_height", "The node's block height.", _one(rpc.height))


def _binaries(binaries: tuple[BinaryReport, ...]) -> Iterable[Metric]:
    running = tuple(({"slot": binary.slot}, binary.phase == "running") for binary in binaries)
    started = tuple(({"slot": binary.slot}, binary.started_at) for binary in binaries)
    pids = tuple(({"slot": binary.slot}, binary.pid) for binary in binaries)
    yield Metric("visor_binary_running", "1 while the binary runs.", running)
    yield Metric("visor_binary_start_time_seconds", "When the binary was started, Unix time.", started)
    yield Metric("visor_binary_pid", "The binary's process id.", pids)


def _upgrade(status: StatusReport) -> Iterable[Metric]:
    upgrade = status.upgrade
    if upgrade is None:
        return
    tag = {"tag": upgrade.tag}
    stated = ((tag | {"state": upgrade.state}, upgrade.height),)
    yield Metric("visor_upgrade_height", "Height of the pending or last upgrade.", stated)
    yield Metric("visor_upgrade_prepared", "1 once its release is in place.", ((tag, upgrade.prepared),))
    yield Metric("visor_upgrade_held", "1 while the operator holds it.", ((tag, upgrade.held),))


def _install(status: StatusReport) -> Iterable[Metric]:
    install = status.install
    if install is None:
        return
    tag = {"tag": install.tag}
    yield Metric("visor_install_done_bytes", "Fetched of the release in work.", ((tag, install.done),))
    yield Metric("visor_install_total_bytes", "Size of the release in work.", ((tag, install.total),))
    yield Metric("visor_install_attempt", "Attempt at the release in work.", ((tag, install.attempt),))


def _actors(rows: Iterable[TreeRow]) -> Iterable[Metric]:
    known = [(row, {"actor": row.path}) for row in rows]
    running = tuple((labels, row.state == "running") for row, labels in known)
    generations = tuple((labels, row.generation) for row, labels in known)
    restarts = tuple((labels, row.restarts) for row, labels in known)
    depths = tuple((labels, row.inbox_depth) for row, labels in known)
    degraded = tuple((labels, row.degraded) for row, labels in known)
    lost = tuple((labels, row.dead_letters) for row, labels in known)
    yield Metric("visor_actor_running", "1 while the actor serves.", running)
    yield Metric("visor_actor_generation", "Incarnation of the actor, 1 at first.", generations)
    yield Metric("visor_actor_restarts_total", "Restarts of the actor.", restarts, "counter")
    yield Metric("visor_actor_inbox_depth", "Messages that wait for the actor.", depths)
    yield Metric("visor_actor_degraded", "1 while the actor is beyond its restart budget.", degraded)
    yield Metric("visor_actor_dead_letters_total", "Messages that never reached the actor.", lost, "counter")


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: Number) -> str:
    return str(int(value)) if isinstance(value, bool | int) else repr(value)
