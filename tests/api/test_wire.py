from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec import Struct

from tests.api.fake_visor import sample_status, sample_tree
from visor_actors.actor import NodeSnapshot
from visor_actors.actors.reports import StatusReport
from visor_actors.api.wire import WireError, dump, load, plain


class Colour(enum.Enum):
    RED = "red"


class Leaf(Struct, frozen=True, kw_only=True):
    name: str
    weight: float = 1.0


class Branch(Struct, frozen=True, kw_only=True):
    leaves: tuple[Leaf, ...] = ()
    pair: tuple[str, float] = ("x", 1.0)
    colour: Colour = Colour.RED
    named: Mapping[str, int] | None = None
    flag: bool = False


def test_a_status_survives_the_wire_unchanged() -> None:
    status = sample_status(Path("/srv/visor"), 42)
    assert load(StatusReport, dump(status)) == status


def test_a_tree_survives_the_wire_unchanged() -> None:
    assert load(NodeSnapshot, dump(sample_tree())) == sample_tree()


def test_fields_that_a_newer_visor_adds_are_skipped() -> None:
    assert load(Leaf, '{"name": "a", "smell": "good", "weight": 2}') == Leaf(name="a", weight=2.0)


def test_fields_that_an_older_visor_lacks_take_their_default() -> None:
    assert load(Branch, "{}") == Branch()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"leaves": [{"name": "a"}, {"name": 7}]}', "Branch.leaves[1].name"),
        ('{"colour": "green"}', "Branch.colour"),
        ('{"named": {"a": "b"}}', "Branch.named.a"),
        ('{"pair": ["only one"]}', "Branch.pair"),
        ('{"flag": 1}', "Branch.flag"),
        ('{"leaves": [{}]}', "Branch.leaves[0]"),
        ("[]", "Branch"),
        ("{", "document"),
        ("[" * 100_000, "document"),
    ],
)
def test_a_wrong_shape_is_refused_and_its_place_named(text: str, place: str) -> None:
    with pytest.raises(WireError) as caught:
        load(Branch, text)
    assert caught.value.place == place


def test_a_number_is_not_taken_for_a_truth_value_nor_the_other_way_round() -> None:
    with pytest.raises(WireError):
        load(Leaf, '{"name": "a", "weight": true}')


def test_what_is_no_report_becomes_its_text() -> None:
    assert plain({"path": Path("/a"), "set": frozenset({1})}) == {"path": "/a", "set": [1]}


def test_json_keeps_letters_of_all_languages_readable() -> None:
    assert json.loads(dump({"name": "Δ"})) == {"name": "Δ"}
    assert "Δ" in dump({"name": "Δ"})
