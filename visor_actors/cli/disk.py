"""What a home folder tells about its node when no visor runs: the link, the shims, the journal. Only reads.

The locks are looked up in /proc/locks and never tried: even a moment's lock could make a shim refuse a start.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from visor_actors.actors.reports import AlarmReport, UpgradeReport
    from visor_actors.home.layout import HomeLayout


_ALARM = 50


class SlotOnDisk(Struct, frozen=True, kw_only=True):
    """One binary's slot. ``held``: its lock is held, so its node lives. The rest is what its shim wrote
    last."""

    slot: str
    held: bool
    pid: int | None = None
    started_at: float | None = None
    argv: tuple[str, ...] = ()


class DiskReport(Struct, frozen=True, kw_only=True):
    """The home as it lies. ``current`` is what the link points to; ``problems`` is what could not be read."""

    home: str
    initialised: bool
    locked: bool = False
    current: str | None = None
    slots: tuple[SlotOnDisk, ...] = ()
    upgrade: UpgradeReport | None = None
    last_alarm: AlarmReport | None = None
    problems: tuple[str, ...] = ()


def read_disk(layout: HomeLayout) -> DiskReport:
    """Return what can be known of the home without a running visor. Never raises for what it finds."""
    problems: list[str] = []
    locks = _held_locks()
    return DiskReport(
        home=str(layout.root),
        initialised=layout.visor_dir.is_dir() or _has_config(layout, problems),
        locked=_identity(layout.lock) in locks,
        current=_link(layout, problems),
        slots=_slots(layout.shims, locks, problems),
        upgrade=_last_upgrade(layout, problems),
        last_alarm=_last_alarm(layout),
        problems=tuple(problems),
    )


def _has_config(layout: HomeLayout, problems: list[str]) -> bool:
    from visor_actors.home.errors import ConfigurationInvalid

    try:
        return layout.config_file.exists()
    except ConfigurationInvalid as error:
        problems.append(str(error))
        return True


def _link(layout: HomeLayout, problems: list[str]) -> str | None:
    from visor_actors.home.current import (
        LinkDangling,
        LinkedTo,
        LinkMissing,
        OutsideHome,
        RealFolder,
        read_current,
    )
    from visor_actors.home.errors import HomeUnusable

    try:
        link = read_current(layout)
    except HomeUnusable as error:
        problems.append(str(error))
        return None
    match link:
        case LinkedTo():
            return link.name
        case LinkMissing():
            return None
        case LinkDangling():
            problems.append(f"current points to {link.target}, which does not exist")
            return str(link.target)
        case OutsideHome():
            problems.append(f"current points to {link.target}, which is no folder of this home")
            return str(link.target)
        case RealFolder():
            problems.append("current is no link but a folder or a file of its own")
            return None


def _slots(shims: Path, locks: frozenset[tuple[int, int]], problems: list[str]) -> tuple[SlotOnDisk, ...]:
    try:
        folders = sorted(folder for folder in shims.iterdir() if folder.is_dir())
    except FileNotFoundError:
        return ()
    except OSError as error:
        problems.append(f"{shims}: {error.strerror}")
        return ()
    return tuple(_slot(folder, held=_identity(folder / "lock") in locks) for folder in folders)


def _slot(folder: Path, *, held: bool) -> SlotOnDisk:
    from visor_actors.node.slot_state import recorded_binary

    running = recorded_binary(folder) if held else None
    if running is None:
        return SlotOnDisk(slot=folder.name, held=held)
    return SlotOnDisk(
        slot=folder.name, held=True, pid=running.pid, started_at=running.started_at, argv=running.argv
    )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _held_locks() -> frozenset[tuple[int, int]]:
    """Device and inode of every file that anybody holds a flock on."""
    found: set[tuple[int, int]] = set()
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        words = line.split()
        if len(words) >= 6 and words[1] == "FLOCK":
            major, minor, inode = words[5].split(":")
            found.add((os.makedev(int(major, 16), int(minor, 16)), int(inode)))
    return frozenset(found)


def _last_alarm(layout: HomeLayout) -> AlarmReport | None:
    """The alarm that came last, if visor has not started or ended in good order since."""
    from visor_actors.actors.reports import AlarmReport
    from visor_actors.cli.journal import journal_events
    from visor_actors.home.errors import JournalUnavailable

    try:
        alarms = journal_events(layout, least_severity=_ALARM, limit=1)
        starts = journal_events(layout, name="visor.started", limit=1)
    except JournalUnavailable:
        return None  # said by the upgrade's row already
    if not alarms or (starts and alarms[0].id < starts[0].id):
        return None
    alarm = alarms[0]
    return AlarmReport(name=alarm.name, message=alarm.message, next_step=alarm.next_step, at=alarm.at)


def _last_upgrade(layout: HomeLayout, problems: list[str]) -> UpgradeReport | None:
    from visor_actors.cli.journal import journal_upgrades
    from visor_actors.home.errors import JournalUnavailable

    try:
        upgrades = journal_upgrades(layout)
    except JournalUnavailable as error:
        problems.append(str(error))
        return None
    return upgrades[0] if upgrades else None
