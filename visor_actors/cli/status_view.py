"""How a status looks: the JSON document of ``status`` and its text for people."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from visor_actors.actors.reports import (
    AlarmReport,
    BinaryReport,
    ExitReport,
    Health,
    InstallReport,
    StatusReport,
    UpgradeReport,
)
from visor_actors.api.duration import since
from visor_actors.cli.terminal import bad, doubtful, good, heading, moment, pairs, quiet, size, table
from visor_actors.cli.usage import Usage

if TYPE_CHECKING:
    from visor_actors.cli.disk import DiskReport


class StatusDocument(Struct, frozen=True, kw_only=True):
    """What ``status --output json`` prints: ``visor`` and ``usage`` of a running visor, else ``disk``."""

    running: bool
    visor: StatusReport | None = None
    usage: tuple[Usage, ...] = ()
    disk: DiskReport | None = None


def render(document: StatusDocument) -> str:
    """Return the document for people."""
    now = time.time()
    if document.visor is None:
        from visor_actors.cli.disk_view import render_disk

        assert document.disk is not None, "a status shows a visor or the disk"
        return render_disk(document.disk, now)
    report = document.visor
    usage = {entry.pid: entry for entry in document.usage}
    blocks = (
        pairs(_summary(report, now)),
        _binaries(report.binaries, usage, now),
        _upgrade(report.upgrade),
        _install(report.install),
        alarms(report.alarms, now),
    )
    return "\n\n".join(block for block in blocks if block)


def _summary(report: StatusReport, now: float) -> Iterable[tuple[str, str | None]]:
    node = report.node
    yield (
        "visor",
        f"{_health(report.health)}, pid {report.pid}, up {since(report.started_at, now)}, {report.version}",
    )
    yield "home", report.home
    yield "node", f"{_phase(node.phase)}{f', {node.reason}' if node.reason else ''}"
    yield "folder", f"{node.folder} ({node.brand})" if node.folder and node.brand else node.folder
    yield "restarts", f"{node.restarts} used of {node.restarts_max}"
    rpc = report.rpc
    if rpc is not None:
        yield "height", str(rpc.height) if rpc.height is not None else None
        yield "core RPC", _rpc_line(report, now)
    if report.config is not None:
        yield "config", report.config.path
        yield "", bad(f"refused: {report.config.problem}") if report.config.problem else None
        for warning in report.config.warnings:
            yield "", doubtful(f"warning: {warning}")


def _rpc_line(report: StatusReport, now: float) -> str:
    rpc = report.rpc
    assert rpc is not None
    answered = f"last answer {since(rpc.last_answer_at, now)} ago" if rpc.last_answer_at else "no answer yet"
    if rpc.connected:
        return f"{good('connected')}, {answered}"
    left = f", {rpc.attempts_left} attempts left" if rpc.attempts_left is not None else ""
    return f"{doubtful('not connected')}, {answered}{left}{f': {rpc.problem}' if rpc.problem else ''}"


def _health(health: Health) -> str:
    match health:
        case Health.OK:
            return good("ok")
        case Health.DEGRADED:
            return bad("degraded")
        case Health.STOPPING:
            return doubtful("stopping")


def _phase(phase: str) -> str:
    if phase == "running":
        return good(phase)
    return bad(phase) if phase in ("held", "gave-up", "unreachable") else doubtful(phase)


def _binaries(binaries: tuple[BinaryReport, ...], usage: Mapping[int, Usage], now: float) -> str:
    if not binaries:
        return ""
    rows = []
    for binary in binaries:
        used = usage.get(binary.pid) if binary.pid is not None else None
        rows.append(
            (
                binary.slot,
                _phase(binary.phase),
                str(binary.pid or "-"),
                since(binary.started_at, now) if binary.pid else "-",
                size(used.memory) if used else "-",
                f"{used.cpu:.1f}%" if used else "-",
                binary.custody,
                exit_text(binary.last_exit, now),
            )
        )
    text = table(("BINARY", "PHASE", "PID", "UP", "MEMORY", "CPU", "CUSTODY", "LAST EXIT"), rows)
    problems = [bad(f"{binary.slot}: {binary.problem}") for binary in binaries if binary.problem]
    return "\n".join((text, *problems))


def exit_text(ended: ExitReport | None, now: float) -> str:
    """Return how a binary ended, in a few words."""
    if ended is None:
        return "-"
    if ended.signal is not None:
        how = f"signal {ended.signal}"
    else:
        how = "unknown" if ended.code is None else f"code {ended.code}"
    return f"{how}{', asked for' if ended.requested else ''}, {since(ended.at, now)} ago"


def _upgrade(upgrade: UpgradeReport | None) -> str:
    if upgrade is None:
        return ""
    held = f", {doubtful('held')}" if upgrade.held else ""
    release = readiness(upgrade)
    ready = f", release {release}" if release else ""
    what = f"{upgrade.tag} at height {upgrade.height}"
    lines = [f"{heading('upgrade')} {what}: {upgrade.state}{ready}{held}"]
    if upgrade.problem:
        lines.append(f"  {bad(upgrade.problem)}")
    if upgrade.next_step:
        lines.append(f"  next: {upgrade.next_step}")
    return "\n".join(lines)


def readiness(upgrade: UpgradeReport) -> str:
    """Return READY or MISSING while it matters; nothing once the switch is done or will not come."""
    if not upgrade.before_switch:
        return ""
    return good("READY") if upgrade.prepared else bad("MISSING")


def _install(install: InstallReport | None) -> str:
    if install is None:
        return ""
    return f"{heading('installing')} {install.tag}: {install_text(install)}"


def install_text(install: InstallReport) -> str:
    """Return how far an installation is, in one line."""
    text = install.phase
    if install.total:
        text += f" {size(install.done)} of {size(install.total)} ({100 * install.done // install.total}%)"
    elif install.done:
        text += f" {size(install.done)}"
    if install.rate:
        text += f", {size(install.rate)}/s"
    if install.attempt > 1:
        text += f", attempt {install.attempt}"
    return text + (f": {install.problem}" if install.problem else "")


def alarms(reports: tuple[AlarmReport, ...], now: float) -> str:
    """Return the alarms with what to do about each; nothing if there are none."""
    if not reports:
        return ""
    lines = [bad("alarms")]
    for alarm in reports:
        lines.append(f"  {alarm.message} {quiet(f'({moment(alarm.at)}, {since(alarm.at, now)} ago)')}")
        if alarm.next_step:
            lines.append(f"  next: {alarm.next_step}")
    return "\n".join(lines)
