"""Opening the journal's SQLite file: its tables, its settings, and what happens to a file that is beyond
repair.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from visor_actors.home.errors import JournalUnavailable

BUSY_SECONDS = 2.0
OPENING_SECONDS = 5.0
VERSION = 1
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
# Beyond this a check of the whole file would be felt at every start.
_CHECK_BYTES = 32 << 20

_TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS upgrades (
    id INTEGER PRIMARY KEY, tag TEXT NOT NULL, height INTEGER NOT NULL, state TEXT NOT NULL, folder TEXT,
    detail TEXT NOT NULL, updated_at REAL NOT NULL, UNIQUE (tag, height));
CREATE TABLE IF NOT EXISTS upgrade_log (
    id INTEGER PRIMARY KEY, tag TEXT NOT NULL, height INTEGER NOT NULL, state TEXT NOT NULL, at REAL NOT NULL,
    detail TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS exits (
    id INTEGER PRIMARY KEY, slot TEXT NOT NULL, key TEXT NOT NULL, at REAL NOT NULL, record TEXT NOT NULL,
    UNIQUE (slot, key));
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, name TEXT NOT NULL, severity INTEGER NOT NULL,
    message TEXT NOT NULL, next_step TEXT, fields TEXT NOT NULL, lines TEXT NOT NULL, trouble TEXT);
PRAGMA user_version = {VERSION};
COMMIT;
"""


def open_database(
    path: Path, *, read_only: bool = False, clock: Callable[[], float] = time.time
) -> tuple[sqlite3.Connection, Path | None]:
    """Open the file, made if it is missing; returns the connection and where a corrupt predecessor was put.

    With ``read_only`` nothing is made, changed or set aside. Raises :class:`JournalUnavailable`.
    """
    try:
        if read_only:
            return _open(path, read_only=True), None
        # One at a time: of two that find the file corrupt, the second would set the first one's new file
        # aside.
        with _alone(path):
            try:
                return _open(path, read_only=False), None
            except sqlite3.DatabaseError as error:
                if not is_corrupt(error):
                    raise
            aside = _set_aside(path, clock())
            return _open(path, read_only=False), aside
    except sqlite3.Error as error:
        raise unavailable(path, error) from error
    except OSError as error:
        raise JournalUnavailable(f"{path}: {error.strerror}", next_step=_NEXT_STEP) from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock that everybody holds who opens the journal to write."""
    path.parent.mkdir(mode=0o700, exist_ok=True)  # it may have been deleted while visor runs
    fd = os.open(path.with_name(f"{path.name}.opening"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + OPENING_SECONDS
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise JournalUnavailable(
                        f"{path} is being opened by another process, which is stuck",
                        next_step=_NEXT_STEP,
                    ) from None
                time.sleep(0.002)
        yield
    finally:
        os.close(fd)


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file itself is damaged, not that it cannot be reached just now."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(code, int) and (code & 0xFF) in _CORRUPT


_NEXT_STEP = "See that the disk has room, is writable and not failing; visor tries again by itself."


def unavailable(path: Path, error: sqlite3.Error) -> JournalUnavailable:
    """What callers get for an error of SQLite's."""
    return JournalUnavailable(f"{path}: {error}", next_step=_NEXT_STEP)


def _open(path: Path, *, read_only: bool) -> sqlite3.Connection:
    fresh = not read_only and not path.exists()
    if fresh:
        # The history may hold what others must not read; SQLite gives its -wal and -shm files the mode of
        # this one.
        os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC | os.O_RDWR, 0o600))
        _sync_folder(path.parent)
    connection = _connect(path, "ro" if read_only else "rw")
    try:
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            if path.stat().st_size <= _CHECK_BYTES:
                _check(connection)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise JournalUnavailable(
                f"{path} was written by a newer visor (format {version}, this one knows {VERSION})",
                next_step="Run the newer visor again.",
            )
        if version < VERSION and not read_only:
            connection.executescript(_TABLES)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fspath(path))}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        cached_statements=32,
    )


def _check(connection: sqlite3.Connection) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        error = sqlite3.DatabaseError(str(verdict))
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _set_aside(path: Path, now: float) -> Path:
    """Rename the file and its companions, whose frames belong to it alone; a new journal must not read
    them.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.corrupt-{stamp}-{number}")
    for suffix in ("-wal", "-shm"):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    path.rename(aside)
    _sync_folder(path.parent)
    return aside


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
