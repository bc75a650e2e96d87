"""Reports as JSON and back: one rule for all of them, so that the wire never drifts from the types.

A record becomes an object with its field names, an enum its value, a tuple an array, a mapping an object,
None null. Reading is tolerant in one direction: fields we do not know are skipped and missing ones take their
default, so that a command line and a visor of neighbouring versions understand each other.

    WireError    what was received does not have the shape of the type; names the place
"""

from __future__ import annotations

import enum
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from msgspec import Struct

T = TypeVar("T")


class WireError(Exception):
    """Received JSON does not fit the type. ``place`` is a dotted path into the document."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}")
        self.place = place
        self.problem = problem


def plain(value: object) -> Any:
    """Return ``value`` as what :mod:`json` can write. Anything that is no report becomes its text."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case enum.Enum():
            return plain(value.value)
        case Mapping():
            return {str(plain(key)): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
        case Struct():
            return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
        case _:
            return str(value)


def dump(value: object, *, indent: int | None = None) -> str:
    """Return ``value`` as JSON text; keys stay in the order of the fields."""
    return json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def load(kind: type[T], text: str | bytes) -> T:
    """Return the ``kind`` that ``text`` describes. Raises WireError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError("document", f"not JSON: {error}") from error
    return build(kind, document)


def build(kind: type[T], document: object) -> T:
    """Return the ``kind`` that the parsed ``document`` describes. Raises WireError."""
    return cast(T, _build(kind, document, kind.__name__))


def _build(kind: Any, value: object, place: str) -> object:
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if kind is Any or kind is object:
        return value
    if origin in (typing.Union, types.UnionType):
        return _build_union(arguments, value, place)
    if isinstance(origin, type) and issubclass(origin, tuple):
        return _build_tuple(arguments, _expect(value, list, place), place)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        items = _expect(value, dict, place)
        return {key: _build(arguments[1], item, f"{place}.{key}") for key, item in items.items()}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return [
            _build(arguments[0], item, f"{place}[{n}]") for n, item in enumerate(_expect(value, list, place))
        ]
    if isinstance(kind, type) and issubclass(kind, Struct):
        return _build_record(kind, _expect(value, dict, place), place)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError:
            raise WireError(place, f"{value!r} is no {kind.__name__}") from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is types.NoneType:
        kind = type(None)
    return _expect(value, kind, place)


def _build_union(kinds: tuple[Any, ...], value: object, place: str) -> object:
    if value is None and type(None) in kinds:
        return None
    problem = WireError(place, "fits none of the allowed types")
    for kind in kinds:
        if kind is not type(None):
            try:
                return _build(kind, value, place)
            except WireError as error:
                problem = error
    raise problem


def _build_tuple(kinds: tuple[Any, ...], items: list[Any], place: str) -> tuple[object, ...]:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_build(kinds[0], item, f"{place}[{n}]") for n, item in enumerate(items))
    if len(kinds) != len(items):
        raise WireError(place, f"{len(items)} items, {len(kinds)} expected")
    return tuple(
        _build(kind, item, f"{place}[{n}]") for n, (kind, item) in enumerate(zip(kinds, items, strict=True))
    )


def _build_record(kind: type[Struct], items: dict[str, Any], place: str) -> object:
    hints = _hints(kind)
    values = {
        name: _build(hints[name], items[name], f"{place}.{name}")
        for name in kind.__struct_fields__
        if name in items
    }
    try:
        return kind(**values)
    except TypeError as error:
        raise WireError(place, str(error)) from error


_known_hints: dict[type[Any], dict[str, Any]] = {}


def _hints(kind: type[Any]) -> dict[str, Any]:
    hints = _known_hints.get(kind)
    if hints is None:
        hints = _known_hints[kind] = typing.get_type_hints(kind)
    return hints


def _expect(value: object, kind: type[Any], place: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise WireError(place, f"{type(value).__name__}, {kind.__name__} expected")
    return value
