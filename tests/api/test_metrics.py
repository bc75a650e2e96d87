from __future__ import annotations

import re

from msgspec.structs import replace

from tests.api.fake_visor import FakeVisor
from visor_actors.api.metrics import render_metrics

SAMPLE = re.compile(r'[a-z_]+(\{[a-z_]+="([^"\\\n]|\\.)*"(,[a-z_]+="([^"\\\n]|\\.)*")*\})? -?[0-9.e+-]+')


def render(visor: FakeVisor) -> list[str]:
    return render_metrics(visor.status(), visor.tree(), visor.counters()).splitlines()


def test_every_line_is_a_comment_or_a_sample(visor: FakeVisor) -> None:
    for line in render(visor):
        assert line.startswith(("# HELP ", "# TYPE ")) or SAMPLE.fullmatch(line), line


def test_every_metric_has_its_help_and_type_once(visor: FakeVisor) -> None:
    lines = render(visor)
    names = [line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")]
    for name in set(names):
        assert sum(line.startswith(f"# TYPE {name} ") for line in lines) == 1
        assert sum(line.startswith(f"# HELP {name} ") for line in lines) == 1


def test_what_operators_alert_on_is_there(visor: FakeVisor) -> None:
    lines = render(visor)
    for wanted in (
        'visor_health{health="degraded"} 1',
        "visor_alarms 1",
        'visor_binary_running{slot="core"} 1',
        'visor_binary_running{slot="data_node"} 0',
        "visor_node_restarts 1",
        "visor_rpc_connected 1",
        "visor_node_height 1111",
        'visor_upgrade_prepared{tag="v0.76.0"} 0',
        'visor_actor_restarts_total{actor="root/node/process:core"} 2',
        'visor_events_total{event="binary.exited"} 1',
    ):
        assert wanted in lines


def test_what_nobody_knows_is_absent_and_not_zero(visor: FakeVisor) -> None:
    visor.report = replace(visor.report, rpc=None, upgrade=None, install=None, config=None, binaries=())
    text = "\n".join(render(visor))
    for name in ("visor_rpc", "visor_node_height", "visor_upgrade", "visor_install", "visor_binary"):
        assert name not in text


def test_labels_are_escaped(visor: FakeVisor) -> None:
    assert visor.report.upgrade is not None
    visor.report = replace(visor.report, upgrade=replace(visor.report.upgrade, tag='a"b\\c\nd'))
    assert 'visor_upgrade_prepared{tag="a\\"b\\\\c\\nd"} 0' in render(visor)
