"""The upgrades of the journal, as the coordinator moves them along: one write an arrow."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from visor_actors.actors.upgrade_machine import (
    COMMITTED,
    DURABLE,
    LINKED,
    PENDING,
    State,
    Upgrade,
    check_transition,
)
from visor_actors.home.journal import Journal, JournalUnavailable, Json, UpgradeRow
from visor_actors.testing.failpoints import failpoint

Key = tuple[str, int]
"""What identifies an upgrade: its tag and its height."""


class LedgerFenced(Exception):
    """The coordinator this ledger belongs to has been given up; its successor owns the journal now."""


class Entry(Struct, frozen=True, kw_only=True):
    """One upgrade with what was noted about it. ``folder`` is the folder's name in the home."""

    upgrade: Upgrade
    folder: str
    detail: Mapping[str, Json]

    @property
    def key(self) -> Key:
        """What identifies an upgrade: its tag and its height."""
        return self.upgrade.tag, self.upgrade.height


class Ledger:
    """All upgrades visor knows of, and the journal they are in. Owned by the coordinator's thread.

    Every write raises :class:`~visor_actors.home.journal.JournalUnavailable` if it could not be made, and
    :class:`LedgerFenced` if ``fenced`` says that nobody wants it any more; the entry then stays what it was.
    The failpoints ``upgrade.STATE.before`` and ``upgrade.STATE`` lie on either side of each write.
    """

    def __init__(
        self, journal: Journal, *, now: Callable[[], float], fenced: Callable[[], bool] = lambda: False
    ) -> None:
        self.journal = journal
        self._now = now
        self._fenced = fenced
        self._entries = {
            (row.tag, row.height): Entry(
                upgrade=Upgrade(tag=row.tag, height=row.height, state=State(row.state)),
                folder=row.folder or row.tag,
                detail=dict(row.detail),
            )
            for row in journal.upgrades()
        }
        self._steps = {
            key: tuple((state, at) for state, at, _ in journal.upgrade_log(*key)) for key in self._entries
        }
        self._sorted: tuple[Entry, ...] | None = None
        self.version = 0
        """Grows with every write."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All of them, lowest height first."""
        if self._sorted is None:
            self._sorted = tuple(sorted(self._entries.values(), key=lambda entry: entry.upgrade.height))
        return self._sorted

    @property
    def upgrades(self) -> tuple[Upgrade, ...]:
        """The bare upgrades, lowest height first."""
        return tuple(entry.upgrade for entry in self.entries)

    def get(self, tag: str, height: int) -> Entry | None:
        """The upgrade with this tag and height, if it is known."""
        return self._entries.get((tag, height))

    def active(self) -> Entry | None:
        """The upgrade to be worked on: the committed one, else the pending one with the lowest height."""
        for states in (COMMITTED, PENDING):
            for entry in self.entries:
                if entry.upgrade.state in states:
                    return entry
        return None

    def linked(self) -> Entry | None:
        """The last upgrade whose folder ``current`` points to."""
        linked = [entry for entry in self.entries if entry.upgrade.state in LINKED]
        return linked[-1] if linked else None

    def add(self, tag: str, height: int, folder: str) -> Entry:
        """Note an accepted upgrade, or one that is accepted again."""
        known = self.get(tag, height)
        if known is not None:
            return self.advance(replace(known, folder=folder), State.ANNOUNCED)
        upgrade = Upgrade(tag=tag, height=height, state=State.ANNOUNCED)
        return self._write(Entry(upgrade=upgrade, folder=folder, detail={}), State.ANNOUNCED)

    def advance(self, entry: Entry, state: State, **detail: Json) -> Entry:
        """Move ``entry`` along one arrow, with the folder it has, adding ``detail`` to its notes."""
        check_transition(entry.upgrade.tag, entry.upgrade.state, state)
        moved = replace(
            entry,
            upgrade=replace(entry.upgrade, state=state),
            detail={**entry.detail, **detail},
        )
        return self._write(moved, state)

    def steps(self, entry: Entry) -> tuple[tuple[str, float], ...]:
        """The arrows taken so far, with their times."""
        return self._steps[entry.key]

    def restore(self, lost: Ledger) -> None:
        """Write into this ledger's journal what ``lost`` knew and this one does not."""
        for key, entry in lost._entries.items():
            if self._entries.get(key) != entry:
                self._store(entry, self._now())

    def _write(self, entry: Entry, state: State) -> Entry:
        failpoint(f"upgrade.{state.value}.before")
        self._store(entry, self._now())
        failpoint(f"upgrade.{state.value}")
        return entry

    def _store(self, entry: Entry, at: float) -> None:
        if self._fenced():
            raise LedgerFenced(
                f"upgrade {entry.upgrade.tag}: {entry.upgrade.state} is no longer ours to write"
            )
        state = entry.upgrade.state
        row = UpgradeRow(
            tag=entry.upgrade.tag,
            height=entry.upgrade.height,
            state=state.value,
            folder=entry.folder,
            detail=entry.detail,
            updated_at=at,
        )
        self.journal.write_upgrade(row, durable=state in DURABLE)
        self._entries[entry.key] = entry
        self._steps[entry.key] = (*self._steps.get(entry.key, ()), (state.value, at))
        self._sorted = None
        self.version += 1


class JournalKeeper:
    """Keeps the coordinator's ledger open, whatever becomes of the file. Owned by the coordinator's thread.

    A file that was deleted or replaced is written anew from memory, so that it is complete again before the
    next arrow; one that is damaged is set aside by :meth:`Journal.open`, with the same effect.
    """

    def __init__(
        self, path: Path, *, now: Callable[[], float], fenced: Callable[[], bool] = lambda: False
    ) -> None:
        self._path = path
        self._now = now
        self._fenced = fenced
        self._identity: tuple[int, int] | None = None
        self._doubted_until: float | None = 0.0
        self.ledger: Ledger | None = None

    def attend(self, at: float) -> str | None:
        """Open the journal if that is necessary; return what is worth telling an operator, or None.

        ``at``: seconds of a clock that never steps. Raises :class:`JournalUnavailable`; ``ledger`` is then
        what it was before: None, or one whose file may be lost.
        """
        if self._doubted_until is not None:
            if at < self._doubted_until:
                return None
        elif self._identify() == self._identity:
            return None
        before = self.ledger
        journal = Journal.open(self._path, clock=self._now)
        try:
            ledger = Ledger(journal, now=self._now, fenced=self._fenced)
            if before is not None:
                ledger.restore(before)
        except BaseException:
            journal.close()
            raise
        replaced = before is not None and self._identify() != self._identity
        self._identity, self._doubted_until = self._identify(), None
        self.ledger = ledger
        if before is not None:
            before.journal.close()
        if journal.set_aside is not None:
            return f"the journal was damaged and is kept as {journal.set_aside.name}"
        return "the journal's file was deleted or replaced" if replaced else None

    def doubt(self, until: float) -> None:
        """An operation failed: open the file anew at the first :meth:`attend` from ``until`` on."""
        if self._doubted_until is None or self._doubted_until <= until:
            self._doubted_until = until

    def close(self) -> None:
        """Close the file."""
        if self.ledger is not None:
            self.ledger.journal.close()

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino


__all__ = ["Entry", "JournalKeeper", "JournalUnavailable", "Key", "Ledger", "LedgerFenced"]
