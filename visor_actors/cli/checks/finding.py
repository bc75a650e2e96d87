"""What a check finds."""

from __future__ import annotations

import enum

from msgspec import Struct


class Level(enum.Enum):
    """``PROBLEM``: a start or the upgrade would fail, or lose its safety. ``NOTE``: worth knowing."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at. ``fix`` is what to do, for all that is not OK."""

    level: Level
    subject: str
    message: str
    fix: str | None = None


def ok(subject: str, message: str) -> Finding:
    """All is well."""
    return Finding(level=Level.OK, subject=subject, message=message)


def note(subject: str, message: str, fix: str | None) -> Finding:
    """Nothing fails because of it."""
    return Finding(level=Level.NOTE, subject=subject, message=message, fix=fix)


def problem(subject: str, message: str, fix: str) -> Finding:
    """Something would fail because of it."""
    return Finding(level=Level.PROBLEM, subject=subject, message=message, fix=fix)
