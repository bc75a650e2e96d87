"""Settings as texts to show, with everything masked that nobody should read over a shoulder."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from pathlib import Path

from visor_actors.home.kinds import Key, Words, to_toml
from visor_actors.home.settings import ActorOverrides

MASK = "********"
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def display(key: Key, value: object) -> str:
    """``value`` of ``key`` as a text. Secrets, arguments of hooks and user names in URLs are masked."""
    if value is None or value == ():
        return "not set"
    if key.secret:
        return MASK
    if isinstance(key.kind, Words) and isinstance(value, tuple):
        # A program is no secret, what it is given may be.
        more = f" and {len(value) - 1} arguments" if len(value) > 1 else ""
        return f"{value[0]}{more}"
    return _text(value)


def _text(value: object) -> str:
    match value:
        case ActorOverrides():
            pairs = ((name, getattr(value, name)) for name in ActorOverrides.__struct_fields__)
            return ", ".join(f"{name} = {to_toml(entry)}" for name, entry in pairs if entry is not None)
        case Mapping():
            return "; ".join(f"{name} = {_text(entry)}" for name, entry in value.items()) or "not set"
        case str() | Path():
            return _USER_INFO.sub(MASK, str(value))
        case enum.Enum():
            return str(value.value)
        case _:
            return to_toml(value)
