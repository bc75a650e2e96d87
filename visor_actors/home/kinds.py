"""What a key may hold: a closed set of kinds, and the pure functions that check, describe and print their
values.

A key of a configuration file is data (:class:`Key`): reading, the JSON Schema, the comments that ``init``
writes and the reference in ``docs/`` all come from it, so they cannot disagree.
"""

from __future__ import annotations

import datetime
import enum
import json
import math
import re
from collections.abc import Mapping
from typing import assert_never

from msgspec import Struct
from msgspec.structs import force_setattr


class TakesEffect(enum.Enum):
    """When a changed key is in force."""

    IMMEDIATELY = "immediately"
    NODE_START = "at the next start of the node"
    VISOR_RUN = "at the next run of visor"


class Flag(Struct, frozen=True):
    """true or false."""


class Whole(Struct, frozen=True, kw_only=True):
    """A whole number; bounds are included."""

    minimum: int = 0
    maximum: int = 1_000_000_000


class Number(Struct, frozen=True, kw_only=True):
    """A finite number, fractions allowed; bounds are included."""

    minimum: float = 0.0
    maximum: float = 31_536_000.0


class Text(Struct, frozen=True, kw_only=True):
    """A text that is not empty. ``pattern`` must match all of it; ``wording`` says that in words."""

    pattern: str | None = None
    wording: str = "a text"


class FilePath(Struct, frozen=True, kw_only=True):
    """The path of a file; a relative one is relative to the folder of the configuration file."""

    wording: str = "a path"


class Choice(Struct, frozen=True, kw_only=True):
    """One of an enum's values, as a text."""

    options: type[enum.Enum]


class Words(Struct, frozen=True, kw_only=True):
    """A list of texts. ``example`` shows one."""

    example: tuple[str, ...] = ()
    may_be_empty: bool = True


class Table(Struct, frozen=True, kw_only=True):
    """A table whose names are free (``name_pattern``) and whose values are all of one kind."""

    value: Text | Whole
    name_pattern: str | None = None
    name_wording: str = "a text"


class Tables(Struct, frozen=True, kw_only=True):
    """A table of tables: names from ``names``, each with the same ``keys``, all of which may be absent."""

    names: tuple[str, ...]
    keys: tuple[Key, ...]


Kind = Flag | Whole | Number | Text | FilePath | Choice | Words | Table | Tables


class Key(Struct, frozen=True, kw_only=True):
    """One key of a file.

    ``path`` is dotted, as an operator would say it; ``attribute`` says where the value is found in the
    settings. ``default`` is in the form the settings hold; None means there is none. ``doc`` is one or two
    sentences for the operator. ``classic`` keys are those the original visor knows: ``init`` writes them
    out, the others as comments. ``parts`` follows from ``path``.
    """

    path: str
    attribute: str
    kind: Kind
    default: object = None
    default_text: str | None = None
    doc: str
    takes_effect: TakesEffect = TakesEffect.IMMEDIATELY
    classic: bool = False
    secret: bool = False
    example: str | None = None
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        force_setattr(self, "parts", tuple(self.path.split(".")))


class Mismatch(Struct, frozen=True, kw_only=True):
    """Why a value does not fit. ``at`` is the place inside the value: names and list indexes."""

    found: str
    allowed: str
    at: tuple[str | int, ...] = ()
    suggestion: str | None = None


def describe(kind: Kind) -> str:
    """What ``kind`` allows, as the end of a sentence."""
    match kind:
        case Flag():
            return "must be true or false"
        case Whole():
            return f"must be a whole number from {kind.minimum} to {kind.maximum}"
        case Number():
            return f"must be a number from {_plain(kind.minimum)} to {_plain(kind.maximum)}"
        case Text():
            return f"must be {kind.wording}"
        case FilePath():
            return f"must be {kind.wording}"
        case Choice():
            return "must be one of " + ", ".join(f'"{value}"' for value in choices(kind))
        case Words():
            example = f" such as {json.dumps(list(kind.example))}" if kind.example else ""
            return f"must be a list of texts{example}"
        case Table():
            wording = kind.value.wording if isinstance(kind.value, Text) else "a number"
            return f"must be a table of {kind.name_wording} = {wording}"
        case Tables():
            return "must be a table with tables in it"
        case _:
            assert_never(kind)


def choices(kind: Choice) -> tuple[str, ...]:
    """The texts that ``kind`` allows, in their order."""
    return tuple(str(option.value) for option in kind.options)


def show(value: object) -> str:
    """A value as found in a file, short enough for one line of a message."""
    match value:
        case bool():
            text = "true" if value else "false"
        case str():
            text = json.dumps(value, ensure_ascii=False)
        case Mapping():
            text = "a table"
        case list() | tuple():
            text = f"a list of {len(value)}"
        case None:
            text = "nothing"
        case datetime.date() | datetime.time():
            text = f"the date {value}"
        case _:
            text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check(kind: Kind, value: object) -> tuple[object, tuple[Mismatch, ...]]:
    """Return ``value`` as the settings hold it, and why it does not fit (nothing when it does).

    :class:`FilePath` stays a text here: only the reader of the file knows its folder. :class:`Tables` is
    checked by the reader as well, key by key.
    """
    match kind:
        case Flag():
            if isinstance(value, bool):
                return value, ()
            quoted = isinstance(value, str) and value.lower() in ("true", "false")
            suggestion = f"write {str(value).lower()} without quotes" if quoted else None
            return None, (Mismatch(found=show(value), allowed=describe(kind), suggestion=suggestion),)
        case Whole():
            if (
                isinstance(value, int)
                and not isinstance(value, bool)
                and kind.minimum <= value <= kind.maximum
            ):
                return value, ()
            return None, (_number_mismatch(kind, value),)
        case Number():
            # Compared before it is converted: whole numbers may lie beyond the range of floats. Not-a-number
            # compares as False.
            if (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and kind.minimum <= value <= kind.maximum
            ):
                return float(value), ()
            return None, (_number_mismatch(kind, value),)
        case Text():
            if isinstance(value, str) and _fits(kind, value):
                return value, ()
            suggestion = f'write "{value}" in quotes' if isinstance(value, int | float) else None
            return None, (Mismatch(found=show(value), allowed=describe(kind), suggestion=suggestion),)
        case FilePath():
            if isinstance(value, str) and value and "\0" not in value:
                return value, ()
            return None, (Mismatch(found=show(value), allowed=describe(kind)),)
        case Choice():
            return _check_choice(kind, value)
        case Words():
            return _check_words(kind, value)
        case Table():
            return _check_table(kind, value)
        case Tables():
            raise TypeError("tables of tables are read key by key")
        case _:
            assert_never(kind)


def _fits(kind: Text, value: str) -> bool:
    if not value or "\0" in value:
        return False
    return kind.pattern is None or re.fullmatch(kind.pattern, value) is not None


def _number_mismatch(kind: Whole | Number, value: object) -> Mismatch:
    suggestion = None
    if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        suggestion = f"write {value} without quotes"
    elif (
        isinstance(kind, Whole) and isinstance(value, float) and math.isfinite(value) and value == int(value)
    ):
        suggestion = f"write {int(value)}"
    return Mismatch(found=show(value), allowed=describe(kind), suggestion=suggestion)


def _check_choice(kind: Choice, value: object) -> tuple[object, tuple[Mismatch, ...]]:
    for option in kind.options:
        if value == option.value:
            return option, ()
    suggestion = None
    if isinstance(value, str):
        suggestion = did_you_mean(value, choices(kind))
    elif value is False and "off" in choices(kind):
        suggestion = 'write "off" in quotes'  # YAML reads a bare off as false
    return None, (Mismatch(found=show(value), allowed=describe(kind), suggestion=suggestion),)


def _check_words(kind: Words, value: object) -> tuple[object, tuple[Mismatch, ...]]:
    if not isinstance(value, list):
        suggestion = None
        if isinstance(value, str) and value:
            suggestion = f"write {json.dumps(value.split(), ensure_ascii=False)}"
        return None, (Mismatch(found=show(value), allowed=describe(kind), suggestion=suggestion),)
    if not value and not kind.may_be_empty:
        return None, (Mismatch(found="an empty list", allowed=describe(kind)),)
    wrong: list[Mismatch] = []
    for index, word in enumerate(value):
        if not isinstance(word, str) or "\0" in word:
            suggestion = f'write "{word}" in quotes' if isinstance(word, int | float) else None
            wrong.append(
                Mismatch(found=show(word), allowed="must be a text", at=(index,), suggestion=suggestion)
            )
    return (None if wrong else tuple(value)), tuple(wrong)


def _check_table(kind: Table, value: object) -> tuple[object, tuple[Mismatch, ...]]:
    if not isinstance(value, Mapping):
        return None, (Mismatch(found=show(value), allowed=describe(kind)),)
    wrong: list[Mismatch] = []
    fitting: dict[str, object] = {}
    for name, entry in value.items():
        if not isinstance(name, str) or (kind.name_pattern and not re.fullmatch(kind.name_pattern, name)):
            wrong.append(
                Mismatch(
                    found=f"the name {show(name)}", allowed=f"must be {kind.name_wording}", at=(str(name),)
                )
            )
            continue
        held, mismatches = check(kind.value, entry)
        wrong.extend(
            Mismatch(found=one.found, allowed=one.allowed, at=(name,), suggestion=one.suggestion)
            for one in mismatches
        )
        fitting[name] = held
    return (None if wrong else fitting), tuple(wrong)


def did_you_mean(word: str, known: tuple[str, ...]) -> str | None:
    """The one of ``known`` that was probably meant, as a sentence; None when nothing is near."""
    import difflib  # only when something is wrong

    lowered = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.6)
    return f"did you mean {lowered[near[0]]}?" if near else None


def to_toml(value: object) -> str:
    """A value of the settings as TOML (which, for these kinds, is YAML too)."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return _plain(value)
        case enum.Enum():
            return json.dumps(value.value)
        case tuple() | list():
            return "[" + ", ".join(to_toml(entry) for entry in value) + "]"
        case Mapping():
            return "{" + ", ".join(f"{json.dumps(str(k))} = {to_toml(v)}" for k, v in value.items()) + "}"
        case _:
            return json.dumps(str(value), ensure_ascii=False)


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)
