"""Which of two release tags comes first."""

from __future__ import annotations

import re

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:([-.+])(.*))?$", re.ASCII)
_BEFORE = re.compile(r"(rc|pre|alpha|beta|dev)")

_Precedence = tuple[tuple[int, int, int], int, tuple[tuple[int, int, str], ...]]


def is_older(tag: str, than: str) -> bool:
    """True when both are versions and ``tag`` comes before ``than``; what cannot be compared is not older."""
    left, right = _precedence(tag), _precedence(than)
    return left is not None and right is not None and left < right


def _precedence(tag: str) -> _Precedence | None:
    match = _VERSION.match(tag)
    if match is None:
        return None
    major, minor, patch, separator, rest = match.groups()
    numbers = (int(major), int(minor), int(patch))
    if not rest:
        return numbers, 1, ()
    # `-fix.1` is a later build of the same version in this family of nodes; `-rc`, `-pre…`, `-beta` come
    # before it.
    kind = 0 if separator == "-" and _BEFORE.match(rest) else 2
    parts = tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"[.\-+]", rest)
    )
    return numbers, kind, parts
