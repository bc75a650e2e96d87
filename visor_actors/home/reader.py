"""From the values of a document to the values of settings: a pure walk along a table of keys that finds
every problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct, field

from visor_actors.home.documents import Document, Place
from visor_actors.home.errors import Problem
from visor_actors.home.kinds import Key, Mismatch, Tables, check, did_you_mean, show


class Found(Struct, frozen=True, kw_only=True):
    """What was wrong at ``place``. Places become lines and columns only when there is something to report."""

    place: Place
    key: str
    allowed: str
    found: str | None = None
    suggestion: str | None = None


class Reading(Struct):
    """What a document said: ``values`` by the dotted path of their key, what was wrong, and what is to be
    warned of.
    """

    values: dict[str, object] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_keys(values: Mapping[str, object], keys: tuple[Key, ...], *, place: Place = ()) -> Reading:
    """Read ``values`` by ``keys``. ``place`` is where they stand in the document, for problems only."""
    reading = Reading()
    _walk(values, keys, (), place, reading)
    return reading


def dotted(parts: Place) -> str:
    """A path as an operator would write it: dots between names, quotes where TOML needs them, indexes in
    brackets.
    """
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part + 1}]"
            continue
        plain = part.replace("_", "").replace("-", "").isalnum() and part.isascii()
        text += ("." if text else "") + (part if plain else f'"{part}"')
    return text


def _walk(
    values: Mapping[str, object], keys: tuple[Key, ...], at: tuple[str, ...], place: Place, reading: Reading
) -> None:
    here = {key.parts[len(at)] for key in keys if key.parts[: len(at)] == at and len(key.parts) > len(at)}
    written: dict[str, str] = {}
    for name, value in values.items():
        known = _spelling(str(name), here)
        below = (*place, str(name))
        if known is None:
            reading.found.append(_unknown(str(name), below, keys, here))
            continue
        if known in written:
            reading.found.append(
                Found(
                    place=below,
                    key=dotted(below),
                    allowed=f"the same key as {written[known]}",
                    suggestion="remove one",
                )
            )
            continue
        written[known] = str(name)
        if known != name:
            reading.warnings.append(f"{dotted(below)}: the key is spelled {known}")
        path = (*at, known)
        key = next((key for key in keys if key.parts == path), None)
        if key is None:
            _table(value, keys, path, below, reading)
        elif isinstance(key.kind, Tables):
            _tables(value, key, key.kind, below, reading)
        else:
            _value(value, key, below, reading)


def _table(
    value: object, keys: tuple[Key, ...], path: tuple[str, ...], below: Place, reading: Reading
) -> None:
    if isinstance(value, Mapping):
        _walk(value, keys, path, below, reading)
    elif value is not None:  # YAML: a table with all its keys commented out
        reading.found.append(
            Found(place=below, key=dotted(below), found=show(value), allowed="must be a table")
        )


def _tables(value: object, key: Key, kind: Tables, below: Place, reading: Reading) -> None:
    if not isinstance(value, Mapping):
        reading.found.append(
            Found(place=below, key=dotted(below), found=show(value), allowed="must be a table of tables")
        )
        return
    held: dict[str, Mapping[str, object]] = {}
    for name, entry in value.items():
        inside = (*below, str(name))
        if name not in kind.names:
            reading.found.append(
                Found(
                    place=inside,
                    key=dotted(inside),
                    allowed="unknown; one of " + ", ".join(kind.names),
                    suggestion=did_you_mean(str(name), kind.names),
                )
            )
        elif not isinstance(entry, Mapping):
            reading.found.append(
                Found(place=inside, key=dotted(inside), found=show(entry), allowed="must be a table")
            )
        else:
            inner = read_keys(entry, kind.keys, place=inside)
            reading.found.extend(inner.found)
            reading.warnings.extend(inner.warnings)
            held[name] = inner.values
    reading.values[key.path] = held


def _value(value: object, key: Key, below: Place, reading: Reading) -> None:
    if value is None:
        return  # YAML: `key:` with nothing behind it is a key that was left to its default
    held, mismatches = check(key.kind, value)
    reading.found.extend(_found(mismatch, key, below) for mismatch in mismatches)
    if not mismatches:
        reading.values[key.path] = held


def _found(mismatch: Mismatch, key: Key, below: Place) -> Found:
    place = (*below, *mismatch.at)
    return Found(
        place=place,
        key=dotted(place),
        found="something else (not shown: it may be secret)" if key.secret else mismatch.found,
        allowed=mismatch.allowed,
        suggestion=mismatch.suggestion,
    )


def _spelling(name: str, known: set[str]) -> str | None:
    """The known key meant by ``name``: the original visor's decoder took any upper and lower case, so visor
    does too.
    """
    if name in known:
        return name
    return next((candidate for candidate in known if candidate.lower() == name.lower()), None)


def _unknown(name: str, below: Place, keys: tuple[Key, ...], here: set[str]) -> Found:
    suggestion = did_you_mean(name, tuple(sorted(here)))
    if suggestion is None:
        elsewhere = {key.parts[-1]: key for key in keys}
        twin = elsewhere.get(name)
        if twin is not None:
            table = ".".join(twin.parts[:-1])
            suggestion = (
                f"the key belongs in [{table}]" if table else "the key belongs before the first [table]"
            )
    return Found(place=below, key=dotted(below), allowed="unknown key", suggestion=suggestion)


def problems_of(document: Document, found: list[Found]) -> tuple[Problem, ...]:
    """``found`` with lines and columns, in the order of the file."""
    if not found:
        return ()
    places = document.places()
    located = sorted(
        ((_nearest(one.place, places), one) for one in found), key=lambda pair: pair[0] or (0, 0)
    )
    return tuple(
        Problem(
            file=document.path,
            line=at[0] if at else None,
            column=at[1] if at else None,
            key=one.key,
            found=one.found,
            allowed=one.allowed,
            suggestion=one.suggestion,
        )
        for at, one in located
    )


def _nearest(place: Place, places: Mapping[Place, tuple[int, int]]) -> tuple[int, int] | None:
    for candidate in _outwards(place):
        if candidate in places:
            return places[candidate]
    return None


def _outwards(place: Place) -> Iterator[Place]:
    for length in range(len(place), 0, -1):
        yield place[:length]
