"""The text for people of what a home tells when no visor runs."""

from __future__ import annotations

from collections.abc import Iterable

from visor_actors.api.duration import since
from visor_actors.cli.disk import DiskReport, SlotOnDisk
from visor_actors.cli.terminal import bad, doubtful, good, heading, moment, pairs


def render_disk(disk: DiskReport, now: float) -> str:
    """Return the report, with what to do next at its end."""
    lines = [
        doubtful("No visor runs on this home.") + " This is what the home tells:",
        "",
        pairs(_rows(disk, now)),
    ]
    lines += [bad(problem) for problem in disk.problems]
    if disk.last_alarm is not None:
        lines += ["", f"{bad('last alarm')}, {moment(disk.last_alarm.at)}: {disk.last_alarm.message}"]
        lines += [f"  next: {disk.last_alarm.next_step}"] if disk.last_alarm.next_step else []
    lines += ["", f"next: {_next_step(disk)}"]
    return "\n".join(lines)


def _rows(disk: DiskReport, now: float) -> Iterable[tuple[str, str | None]]:
    yield "home", disk.home
    yield "current", disk.current or doubtful("no link yet")
    for slot in disk.slots:
        yield slot.slot, _slot(slot, now)
    if disk.upgrade is not None:
        yield "upgrade", f"{disk.upgrade.tag} at height {disk.upgrade.height}: {disk.upgrade.state}"


def _slot(slot: SlotOnDisk, now: float) -> str:
    if not slot.held:
        return "stopped"
    who = f"pid {slot.pid}, up {since(slot.started_at, now)}" if slot.pid else "its lock is held"
    return f"{good('running')} without visor, {who}"


def _next_step(disk: DiskReport) -> str:
    if not disk.initialised:
        return f"there is no visor home here yet; create one with {heading('visor-actors init')}"
    if disk.locked:
        return "a visor holds the home but serves no socket: it starts or ends; try again in a moment"
    if any(slot.held for slot in disk.slots):
        return f"the node runs on its own; {heading('visor-actors run')} takes it over without stopping it"
    return f"start the node with {heading('visor-actors run')} or its service"
