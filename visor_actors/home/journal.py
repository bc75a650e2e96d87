"""The journal: what visor must remember whatever happens to it. One SQLite file, safe against kill -9 at
any moment.

Durability is chosen per write. A plain write survives the death of any process (it is in the kernel's hands
when the method returns); a durable one also survives a power cut, and costs a flush of the disk.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self, cast

from msgspec import Struct, field

from visor_actors.home.errors import JournalUnavailable
from visor_actors.home.journal_file import open_database, unavailable

__all__ = ["Detail", "HistoryEntry", "Journal", "JournalUnavailable", "Json", "RecordableEvent", "UpgradeRow"]

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Detail = Mapping[str, Json]
_Do = Callable[[str, tuple[object, ...]], sqlite3.Cursor]

# Bounds, so that the file never outgrows a few tens of MB: newest rows that are kept.
KEEP_EVENTS = 20_000
KEEP_STEPS = 5_000
KEEP_EXITS = 2_000
_PRUNE_EVERY = 256
_PUT = "INSERT INTO facts (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


class UpgradeRow(Struct, frozen=True, kw_only=True):
    """Where one upgrade stands. ``updated_at`` is Unix time; ``detail`` is what the coordinator wants to
    remember.
    """

    tag: str
    height: int
    state: str
    folder: str | None = None
    detail: Detail = field(default_factory=dict)
    updated_at: float = field(default_factory=time.time)


class RecordedTrouble(Protocol):
    """An exception as data, as telemetry has it."""

    @property
    def type_name(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def traceback(self) -> str: ...


class RecordableEvent(Protocol):
    """What the history keeps of an event; telemetry's ``Event`` is one."""

    @property
    def name(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def severity(self) -> int: ...
    @property
    def next_step(self) -> str | None: ...
    @property
    def fields(self) -> Mapping[str, str | int | float | bool | None]: ...
    @property
    def lines(self) -> tuple[str, ...]: ...
    @property
    def trouble(self) -> RecordedTrouble | None: ...
    @property
    def at(self) -> float: ...


class HistoryEntry(Struct, frozen=True, kw_only=True):
    """An event as the history kept it. ``id`` grows with time; ``at`` is Unix time."""

    id: int
    at: float
    name: str
    severity: int
    message: str
    next_step: str | None
    fields: Detail
    lines: tuple[str, ...]
    trouble: str | None


class Journal:
    """An open journal. Belongs to the thread that opened it; any number may be open at once, in many
    processes.

    Every method raises :class:`JournalUnavailable` when the disk does not let it; then nothing was written.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, set_aside: Path | None) -> None:
        self._connection = connection
        self._path = path
        self._appended = 0
        self.set_aside = set_aside
        """Where the previous, unreadable journal went, if opening had to start a new one."""

    @classmethod
    def open(cls, path: Path, *, clock: Callable[[], float] = time.time) -> Journal:
        """Open the journal at ``path``, made if it is missing. A corrupt one is renamed and a new one begun.

        Blocks on the disk, and up to two seconds on another process that writes. ``clock`` names a file set
        aside.
        """
        connection, set_aside = open_database(path, clock=clock)
        return cls(connection, path, set_aside)

    @classmethod
    def open_reader(cls, path: Path) -> Journal:
        """Open an existing journal only to read; it is never set aside or changed."""
        connection, _ = open_database(path, read_only=True)
        return cls(connection, path, None)

    def close(self) -> None:
        """Close the file. Never raises; safe to repeat."""
        with suppress(sqlite3.Error):  # what was committed is in the file already
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- upgrades

    def write_upgrade(self, row: UpgradeRow, *, durable: bool) -> None:
        """Put ``row`` in the place of what is known of this tag and height, and add the step to the
        upgrade's log.
        """
        detail = _dump(row.detail)
        with self._transaction(durable=durable) as do:
            do(
                "INSERT INTO upgrades (tag, height, state, folder, detail, updated_at)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (tag, height)"
                " DO UPDATE SET state = excluded.state, folder = excluded.folder,"
                " detail = excluded.detail, updated_at = excluded.updated_at",
                (row.tag, row.height, row.state, row.folder, detail, row.updated_at),
            )
            do(
                "INSERT INTO upgrade_log (tag, height, state, at, detail) VALUES (?, ?, ?, ?, ?)",
                (row.tag, row.height, row.state, row.updated_at, detail),
            )
            do(
                "DELETE FROM upgrade_log WHERE id <= (SELECT max(id) FROM upgrade_log) - ?",
                (KEEP_STEPS,),
            )

    def upgrade(self, tag: str, height: int) -> UpgradeRow | None:
        """What is known of one upgrade."""
        rows = self._read(f"{_SELECT_UPGRADE} WHERE tag = ? AND height = ?", (tag, height))
        return _upgrade(rows[0]) if rows else None

    def upgrades(self) -> tuple[UpgradeRow, ...]:
        """Every upgrade, in the order in which they were first written."""
        return tuple(_upgrade(row) for row in self._read(f"{_SELECT_UPGRADE} ORDER BY id"))

    def upgrade_log(self, tag: str, height: int) -> tuple[tuple[str, float, Detail], ...]:
        """Every step of one upgrade as (state, time, detail), oldest first."""
        rows = self._read(
            "SELECT state, at, detail FROM upgrade_log WHERE tag = ? AND height = ? ORDER BY id",
            (tag, height),
        )
        return tuple((str(state), float(at), _load(detail)) for state, at, detail in rows)

    # -- values

    def get(self, key: str) -> Json:
        """The value last put under ``key``; None if there is none."""
        rows = self._read("SELECT value FROM facts WHERE key = ?", (key,))
        return cast(Json, json.loads(rows[0][0])) if rows else None

    def put(self, key: str, value: Json, *, durable: bool = False) -> None:
        """Remember ``value`` under ``key``; None forgets it."""
        with self._transaction(durable=durable) as do:
            if value is None:
                do("DELETE FROM facts WHERE key = ?", (key,))
            else:
                do(_PUT, (key, json.dumps(value)))

    # -- exits

    def has_consumed(self, slot: str, key: str) -> bool:
        """Whether :meth:`consume_exit` has seen this ``key`` of ``slot``."""
        return bool(self._read("SELECT 1 FROM exits WHERE slot = ? AND key = ?", (slot, key)))

    def consume_exit(
        self,
        slot: str,
        key: str,
        record: Mapping[str, Json],
        *,
        values: Mapping[str, Json] | None = None,
        event: RecordableEvent | None = None,
    ) -> bool:
        """Take note of one exit of a binary; True the first time this ``key`` of ``slot`` is seen, False
        ever after. The first time ``values`` are put and ``event`` is added to the history as well: all of
        it, or nothing.

        Not durable, because it lies on the way from a crash to the next start, which waits for no disk:
        after a power cut an exit may be counted once more, after the death of any process it is not.
        """
        with self._transaction(durable=False) as do:
            cursor = do(
                "INSERT INTO exits (slot, key, at, record) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (slot, key) DO NOTHING",
                (slot, key, time.time(), _dump(record)),
            )
            first = cursor.rowcount == 1
            if first:
                do(
                    "DELETE FROM exits WHERE slot = ? AND id <= (SELECT max(id) FROM exits) - ?",
                    (slot, KEEP_EXITS),
                )
                for name, value in (values or {}).items():
                    do(_PUT, (name, json.dumps(value)))
                if event is not None:
                    self._append(do, event)
        return first

    def exits(self, slot: str) -> tuple[tuple[str, float, Detail], ...]:
        """The exits of one slot as (key, time, record), oldest first."""
        rows = self._read("SELECT key, at, record FROM exits WHERE slot = ? ORDER BY id", (slot,))
        return tuple((str(key), float(at), _load(record)) for key, at, record in rows)

    # -- history

    def append_event(self, event: RecordableEvent) -> None:
        """Add ``event`` to the history, of which the newest 20,000 are kept."""
        with self._transaction(durable=False) as do:
            self._append(do, event)

    def _append(self, do: _Do, event: RecordableEvent) -> None:
        trouble = event.trouble
        do(
            "INSERT INTO events (at, name, severity, message, next_step, fields, lines, trouble)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.at,
                event.name,
                int(event.severity),
                event.message,
                event.next_step,
                _dump(event.fields),
                json.dumps(event.lines),
                None if trouble is None else f"{trouble.type_name}: {trouble.message}",
            ),
        )
        self._appended += 1
        if self._appended % _PRUNE_EVERY == 0:
            do("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (KEEP_EVENTS,))

    def events(
        self,
        *,
        name: str | None = None,
        least_severity: int = 0,
        since: float | None = None,
        until: float | None = None,
        after_id: int | None = None,
        limit: int | None = None,
    ) -> tuple[HistoryEntry, ...]:
        """The newest ``limit`` events that fit every filter, oldest first.

        ``name`` may end with ``.*`` for all names below it; ``since`` and ``until`` are Unix times, both
        included.
        """
        conditions: list[tuple[str, object]] = [("severity >= ?", least_severity)]
        if name is not None and name.endswith(".*"):
            conditions.append(("substr(name, 1, ?) = ?", name[:-1]))
        elif name is not None:
            conditions.append(("name = ?", name))
        if since is not None:
            conditions.append(("at >= ?", since))
        if until is not None:
            conditions.append(("at <= ?", until))
        if after_id is not None:
            conditions.append(("id > ?", after_id))
        values: list[object] = []
        for text, value in conditions:
            if text.startswith("substr"):
                values.append(len(str(value)))
            values.append(value)
        rows = self._read(
            "SELECT id, at, name, severity, message, next_step, fields, lines, trouble FROM events"
            f" WHERE {' AND '.join(text for text, _ in conditions)} ORDER BY id DESC LIMIT ?",
            (*values, -1 if limit is None else limit),
        )
        return tuple(_entry(row) for row in reversed(rows))

    # -- the file

    def _read(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise unavailable(self._path, error) from error

    @contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[_Do]:
        connection = self._connection
        try:
            # With a write-ahead log FULL flushes at every commit, and with it all that was written before.
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection.execute
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise
        except sqlite3.Error as error:
            raise unavailable(self._path, error) from error


def _roll_back(connection: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):
        # SQLite has done it by itself after some errors, a full disk for one.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


_SELECT_UPGRADE = "SELECT tag, height, state, folder, detail, updated_at FROM upgrades"


def _upgrade(row: tuple[object, ...]) -> UpgradeRow:
    tag, height, state, folder, detail, updated_at = row
    return UpgradeRow(
        tag=cast(str, tag),
        height=cast(int, height),
        state=cast(str, state),
        folder=cast("str | None", folder),
        detail=_load(detail),
        updated_at=cast(float, updated_at),
    )


def _entry(row: tuple[object, ...]) -> HistoryEntry:
    number, at, name, severity, message, next_step, fields, lines, trouble = row
    return HistoryEntry(
        id=cast(int, number),
        at=cast(float, at),
        name=cast(str, name),
        severity=cast(int, severity),
        message=cast(str, message),
        next_step=cast("str | None", next_step),
        fields=_load(fields),
        lines=tuple(json.loads(cast(str, lines))),
        trouble=cast("str | None", trouble),
    )


def _dump(detail: Mapping[str, object]) -> str:
    return json.dumps(dict(detail))


def _load(text: object) -> Detail:
    return MappingProxyType(json.loads(cast(str, text)))
