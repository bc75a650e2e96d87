"""JSON from a process that may be ill: bounded nesting, no duplicate keys, no NaN, and only
:class:`JsonRefused` comes out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_DEPTH = 32


class JsonRefused(Exception):
    """The text is no JSON we accept; the message says in which way."""


def parse(data: bytes, *, max_depth: int = MAX_DEPTH) -> Json:
    """Return the value of one JSON text in UTF-8. The caller bounds its size. Raises :class:`JsonRefused`
    only."""
    if _depth(data) > max_depth:
        raise JsonRefused(f"it is nested deeper than {max_depth} levels")
    try:
        value: Json = _decoder.decode(data.decode())
    except UnicodeDecodeError:
        raise JsonRefused("it is not UTF-8") from None
    except json.JSONDecodeError as problem:
        raise JsonRefused(f"it is no JSON ({problem.msg} at character {problem.pos})") from None
    except (ValueError, RecursionError) as problem:
        raise JsonRefused(f"it is no JSON ({problem})") from None
    return value


def parse_object(data: bytes) -> dict[str, Json]:
    """Like :func:`parse`, for a text that must be an object."""
    value = parse(data)
    if not isinstance(value, dict):
        raise JsonRefused(f"it is {kind(value)}, not an object")
    return value


def objects_in(output: bytes) -> Iterator[dict[str, Json]]:
    """Yield the JSON objects that stand alone on a line of ``output``, the last first.

    Commands of a node print log lines before, and sometimes after, the one line that answers.
    """
    for line in reversed(output.splitlines()):
        text = line.strip()
        if text.startswith(b"{") and text.endswith(b"}"):
            try:
                yield parse_object(text)
            except JsonRefused:
                continue


def kind(value: Json) -> str:
    """The JSON type of ``value`` with its article, for a message."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "an object"


def _depth(data: bytes) -> int:
    """The deepest nesting, or an upper bound of it: brackets in strings are only looked at when there are
    many."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return 0
    deepest = depth = 0
    in_string = escaped = False
    for byte in data:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key appears twice")
    return value


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is no JSON number")


_decoder = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
