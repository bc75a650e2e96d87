"""The upgrades of the journal, as the coordinator moves them along: one write an arrow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from visor_actors.actors.upgrade_machine import (
    COMMITTED,
    DURABLE,
    LINKED,
    PENDING,
    State,
    Upgrade,
    check_transition,
)
from visor_actors.home.journal import Journal, Json, UpgradeRow
from visor_actors.testing.failpoints import failpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One upgrade with what was noted about it. ``folder`` is the folder's name in the home."""

    upgrade: Upgrade
    folder: str
    detail: Mapping[str, Json]

    @property
    def key(self) -> tuple[str, int]:
        """What identifies an upgrade: its tag and its height."""
        return self.upgrade.tag, self.upgrade.height


class Ledger:
    """All upgrades visor knows of. Owned by the coordinator's thread.

    Every write raises :class:`~visor_actors.home.journal.JournalUnavailable` if it could not be made; the
    entry then stays what it was. The failpoints ``upgrade.STATE.before`` and ``upgrade.STATE`` lie on either
    side of each write.
    """

    def __init__(self, journal: Journal, *, now: Callable[[], float]) -> None:
        self._journal = journal
        self._now = now
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
        self.version = 0
        """Grows with every write."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All of them, lowest height first."""
        return tuple(sorted(self._entries.values(), key=lambda entry: entry.upgrade.height))

    @property
    def upgrades(self) -> tuple[Upgrade, ...]:
        """The bare upgrades, lowest height first."""
        return tuple(entry.upgrade for entry in self.entries)

    def get(self, tag: str, height: int) -> Entry | None:
        """The upgrade with this tag and height, if it is known."""
        return self._entries.get((tag, height))

    def active(self) -> Entry | None:
        """The upgrade to be worked on: the committed one, else the pending one with the lowest height."""
        committed = [entry for entry in self.entries if entry.upgrade.state in COMMITTED]
        pending = [entry for entry in self.entries if entry.upgrade.state in PENDING]
        return next(iter((*committed, *pending)), None)

    def linked(self) -> Entry | None:
        """The last upgrade whose folder ``current`` points to."""
        linked = [entry for entry in self.entries if entry.upgrade.state in LINKED]
        return linked[-1] if linked else None

    def add(self, tag: str, height: int, folder: str) -> Entry:
        """Note an accepted upgrade, or one that is accepted again."""
        known = self.get(tag, height)
        if known is not None:
            return self.advance(known, State.ANNOUNCED)
        upgrade = Upgrade(tag=tag, height=height, state=State.ANNOUNCED)
        return self._write(Entry(upgrade=upgrade, folder=folder, detail={}), State.ANNOUNCED)

    def advance(self, entry: Entry, state: State, **detail: Json) -> Entry:
        """Move ``entry`` along one arrow, adding ``detail`` to its notes."""
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

    def _write(self, entry: Entry, state: State) -> Entry:
        failpoint(f"upgrade.{state.value}.before")
        row = UpgradeRow(
            tag=entry.upgrade.tag,
            height=entry.upgrade.height,
            state=state.value,
            folder=entry.folder,
            detail=entry.detail,
            updated_at=self._now(),
        )
        self._journal.write_upgrade(row, durable=state in DURABLE)
        self._entries[entry.key] = entry
        self._steps[entry.key] = (*self._steps.get(entry.key, ()), (state.value, row.updated_at))
        self.version += 1
        failpoint(f"upgrade.{state.value}")
        return entry
