"""Which names an archive may contain: pure, so that everything an attacker can write into a name can be
tried.

The whole archive is refused for one bad name: whoever made it meant harm, or it is not what it should be.
"""

from __future__ import annotations

from visor_actors.install.errors import Refused
from visor_actors.install.messages import FailureKind

_LONGEST_NAME = 1024
_LONGEST_PART = 200
_MOST_FOLDERS = 8


def refused(why: str) -> Refused:
    """Return the error that refuses an archive because of ``why``."""
    return Refused(
        FailureKind.ARCHIVE_REFUSED,
        f"the archive is refused: {why}",
        "do not use this file; ask the publisher what it should be",
    )


def shown(name: str) -> str:
    """Return ``name`` fit for a message: printable and short."""
    return repr(name if len(name) <= 80 else name[:77] + "...")


def safe_name(name: str) -> str:
    """Return ``name`` without ``./`` and a closing ``/``; raise :class:`Refused` when it could lead outside
    the folder.

    The result is relative, has no ``.``, ``..`` or empty part, no backslash, drive, control character or
    undecodable byte. ``""`` means the folder itself.
    """
    if not name or len(name) > _LONGEST_NAME:
        raise refused("an entry has no name, or one that is far too long")
    if name.startswith("/") or "\\" in name or name[1:2] == ":":
        raise refused(f"the name {shown(name)} is absolute")
    if not name.isprintable():
        raise refused(f"the name {shown(name)} has control characters")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise refused(f"the name {shown(name)} cannot be decoded") from None
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise refused(f"the name {shown(name)} leads out of the folder")
    if len(parts) > _MOST_FOLDERS or any(len(part.encode()) > _LONGEST_PART for part in parts):
        raise refused(f"the name {shown(name)} is too deep or too long")
    return "/".join(parts)


class NameRegister:
    """Remembers the names of one archive and refuses what would let a later entry replace an earlier one."""

    def __init__(self, *, most_entries: int) -> None:
        self._most = most_entries
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._count = 0

    def add_file(self, name: str) -> str:
        """Return the safe form of a regular file's name."""
        safe = self._next(name)
        if not safe:
            raise refused(f"the name {shown(name)} names the folder itself")
        if safe in self._files:
            raise refused(f"two entries have the name {shown(safe)}")
        if safe in self._folders:
            raise refused(f"{shown(safe)} is both a file and a folder")
        self._add_folders(safe.rpartition("/")[0])
        self._files.add(safe)
        return safe

    def add_folder(self, name: str) -> str:
        """Return the safe form of a folder's name; it may come again, and may be ``""``."""
        safe = self._next(name)
        self._add_folders(safe)
        return safe

    def _next(self, name: str) -> str:
        self._count += 1
        if self._count > self._most:
            raise refused(f"it has more than {self._most} entries")
        return safe_name(name)

    def _add_folders(self, name: str) -> None:
        while name:
            if name in self._files:
                raise refused(f"{shown(name)} is both a file and a folder")
            self._folders.add(name)
            name = name.rpartition("/")[0]
