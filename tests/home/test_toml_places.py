"""Where keys are in a TOML document: against hand-counted places, and against the parser for any shape."""

from __future__ import annotations

from typing import Any

import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from visor_actors.home.toml_places import toml_places


def test_keys_tables_and_list_entries_have_their_line_and_column() -> None:
    text = """
# note = 1
  plain = 1
[table]
"quo\\"ted" = [1,
   "#2", # no = 3
]
[a.b]
x.y = { z = 1, w = [ 2 ] }
"""

    places = toml_places(text)

    assert places["plain",] == (3, 3)
    assert places["table",] == (4, 1)
    assert places["table", 'quo"ted'] == (5, 1)
    assert places["table", 'quo"ted', 0] == (5, 15)
    assert places["table", 'quo"ted', 1] == (6, 4)
    assert places["a", "b"] == (8, 1)
    assert places["a", "b", "x", "y", "z"] == (9, 9)
    assert places["a", "b", "x", "y", "w", 0] == (9, 22)


def test_texts_that_look_like_keys_are_no_keys() -> None:
    text = 'a = \'\'\'\nb = 1\n[c]\n\'\'\'\nd = """\\"""e = 2\n""""\nf = 3\n'

    places = toml_places(text)

    assert set(places) == {("a",), ("d",), ("f",)}
    assert places["f",] == (7, 1)


def test_arrays_of_tables_are_counted() -> None:
    text = "[[a]]\nx = 1\n[[a]]\nx = 2\n[a.b]\ny = 3\n[[a.c]]\n[[a.c]]\nz = 4\n"

    places = toml_places(text)

    assert places["a", 0, "x"] == (2, 1)
    assert places["a", 1, "x"] == (4, 1)
    assert places["a", 1, "b", "y"] == (6, 1)
    assert places["a", 1, "c", 1, "z"] == (9, 1)


def test_windows_line_ends_do_not_move_anything() -> None:
    assert toml_places("a = 1\r\n\r\n  b = 2\r\n")["b",] == (3, 3)


_names = st.text(alphabet="ab.\"'# =[]{},\\é\t", min_size=1, max_size=6)
_scalars = st.one_of(
    st.booleans(),
    st.integers(min_value=-9, max_value=9),
    st.text(alphabet="ab=#[]{}\"'\\\n,é", max_size=8),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_names, inner, max_size=3)),
    max_leaves=8,
)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def _render(value: Any, literal: bool) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return f"'''\n{value}'''" if literal and "'" not in value else _quote(value)
        case list():
            return "[ # list\n" + ",\n".join(_render(one, literal) for one in value) + "\n]"
        case _:
            return "{" + ", ".join(f"{_quote(k)} = {_render(v, False)}" for k, v in value.items()) + "}"


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {path} if path else set()
    for name, one in inner:
        found |= _paths(one, (*path, name))
    return found


@settings(max_examples=150, deadline=None)
@given(
    top=st.dictionaries(_names, _values, max_size=4),
    tables=st.dictionaries(_names, st.dictionaries(_names, _values, max_size=3), max_size=3),
    literal=st.booleans(),
)
def test_every_path_that_the_parser_knows_has_a_place(
    top: dict[str, Any], tables: dict[str, dict[str, Any]], literal: bool
) -> None:
    top = {name: value for name, value in top.items() if name not in tables}
    # A newline inside an inline table is not TOML 1.0: lists within them are written on one line.
    lines = [f"{_quote(name)} = {_render(value, literal)} # a comment = 1" for name, value in top.items()]
    for name, table in tables.items():
        lines.append(f"  [ {_quote(name)} ]")
        lines += [f"{_quote(key)} = {_render(value, literal)}" for key, value in table.items()]
    text = "\n".join(lines) + "\n"
    try:
        parsed = tomli.loads(text)
    except tomli.TOMLDecodeError:
        return

    places = toml_places(text)

    assert set(places) == _paths(parsed)
    split = text.split("\n")
    for path, (line, column) in places.items():
        if path and isinstance(path[-1], str):
            rest = split[line - 1][column - 1 :]
            assert rest.startswith((_quote(path[-1]), "["))
