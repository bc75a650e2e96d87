"""JSON of a process that may be ill: a value, or one kind of refusal."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visor_actors.node import bounded_json
from visor_actors.node.bounded_json import Json, JsonRefused

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_every_ordinary_value_is_understood(value: Json) -> None:
    assert bounded_json.parse(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_value_or_refused(data: bytes) -> None:
    with contextlib.suppress(JsonRefused):
        bounded_json.parse(data)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"nul",
        b"NaN",
        b"[Infinity]",
        b'{"a":1,"a":2}',
        b"\xff",
        b"1 2",
        b"9" * 5000,
        b"[" * 33 + b"]" * 33,
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'["' + b"\\" * 33 + b'"' + b"[" * 40,
    ],
)
def test_what_no_node_says_is_refused(text: bytes) -> None:
    with pytest.raises(JsonRefused):
        bounded_json.parse(text)


def test_brackets_in_strings_are_no_nesting() -> None:
    value = {"error": "cannot unmarshal " + '[{"\\' * 100}
    assert bounded_json.parse(json.dumps(value).encode()) == value


def test_nesting_up_to_the_limit_is_allowed() -> None:
    assert bounded_json.parse(b"[" * 32 + b"]" * 32)


def test_wide_values_are_not_deep_ones() -> None:
    assert bounded_json.parse(b"[" + b"{}," * 1000 + b"{}]") == [{}] * 1001


def test_only_an_object_is_an_object() -> None:
    for text in (b"null", b"1", b'"x"', b"[]", b"true"):
        with pytest.raises(JsonRefused):
            bounded_json.parse_object(text)


def test_objects_are_found_between_log_lines_last_first() -> None:
    output = b'2024-05-01\tINFO\tnode\t{"height":3}\n {"a": 1}\r\n{broken}\n[1]\n{"b": 2}\nbye\n'
    assert list(bounded_json.objects_in(output)) == [{"b": 2}, {"a": 1}]
