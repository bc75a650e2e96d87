"""Checksum files as release workflows write them: GNU (``HEX  name``), BSD (``SHA256 (name) = HEX``) or one
bare sum.
"""

from __future__ import annotations

import re

_GNU = re.compile(r"\\?([0-9a-fA-F]{64})[ \t]+\*?(\S.*)")
_BSD = re.compile(r"SHA-?256 ?\((.+)\) ?= ?([0-9a-fA-F]{64})", re.IGNORECASE)
_BARE = re.compile(r"[0-9a-fA-F]{64}")
_PINNED = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")


class ChecksumsUnclear(ValueError):
    """A checksum file that names two different sums for one file."""


def find_checksum(text: str, name: str) -> str | None:
    """Return the SHA-256 of the file ``name`` in lower-case hex, None when ``text`` names none.

    Folders before the name are ignored. A single bare sum is taken for any name. Raises
    :class:`ChecksumsUnclear`.
    """
    lines = [line.strip() for line in text.replace("\ufeff", "").splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", ";"))]
    if len(lines) == 1 and _BARE.fullmatch(lines[0]):
        return lines[0].lower()
    found: set[str] = set()
    for line in lines:
        if gnu := _GNU.fullmatch(line):
            checksum, named = gnu.group(1), gnu.group(2)
        elif bsd := _BSD.fullmatch(line):
            checksum, named = bsd.group(2), bsd.group(1)
        else:
            continue
        if named.rpartition("/")[2] == name:
            found.add(checksum.lower())
    if len(found) > 1:
        raise ChecksumsUnclear(f"it names {len(found)} different sums for {name}")
    return found.pop() if found else None


def parse_pin(text: str) -> str | None:
    """Return the lower-case hex of a pinned ``sha256:HEX``, None when it is none."""
    found = _PINNED.fullmatch(text.strip())
    return found.group(1).lower() if found else None
