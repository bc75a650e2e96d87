"""Which folder runs when no upgrade is under way."""

from __future__ import annotations

from pathlib import Path

import pytest

from visor_actors.actors.current_folder import Refuse, Repair, Run, resolve
from visor_actors.home.current import (
    CurrentLink,
    LinkDangling,
    LinkedTo,
    LinkMissing,
    OutsideHome,
    RealFolder,
)

HOME = Path("/home-of-visor")


def linked(name: str) -> LinkedTo:
    return LinkedTo(name=name, folder=HOME / name)


def everything(_name: str) -> bool:
    return True


def nothing(_name: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("link", "expected", "folder"),
    [
        (linked("genesis"), None, "genesis"),
        (linked("v2.0.0"), None, "v2.0.0"),
        (linked("v2.0.0"), "v2.0.0", "v2.0.0"),
        (linked("v3.0.0"), "v2.0.0", "v3.0.0"),
        (linked("by-hand"), "v2.0.0", "by-hand"),
    ],
)
def test_a_good_link_is_followed(link: CurrentLink, expected: str | None, folder: str) -> None:
    assert resolve(link, expected, everything) == Run(folder=folder)


@pytest.mark.parametrize("name", ["genesis", "v1.9.0"])
def test_a_link_to_what_came_before_the_last_upgrade_is_refused_until_it_is_accepted(name: str) -> None:
    refusal = resolve(linked(name), "v2.0.0", everything)
    assert isinstance(refusal, Refuse)
    assert "older binary" in refusal.problem
    assert "resume" in refusal.next_step
    assert resolve(linked(name), "v2.0.0", everything, accepted=name) == Run(folder=name)
    assert isinstance(resolve(linked(name), "v2.0.0", everything, accepted="another"), Refuse)


@pytest.mark.parametrize("link", [LinkMissing(), LinkDangling(target=HOME / "gone", name="gone")])
def test_a_link_that_leads_nowhere_is_made_again_from_the_journal_and_never_to_genesis_by_accident(
    link: CurrentLink,
) -> None:
    first = resolve(link, None, everything)
    later = resolve(link, "v2.0.0", everything)
    assert isinstance(first, Repair)
    assert first.folder == "genesis"
    assert isinstance(later, Repair)
    assert later.folder == "v2.0.0"
    for expected, words in ((None, "no folder genesis"), ("v2.0.0", "that folder does not exist")):
        refusal = resolve(link, expected, nothing)
        assert isinstance(refusal, Refuse)
        assert words in refusal.problem


@pytest.mark.parametrize("link", [RealFolder(path=HOME / "current"), OutsideHome(target=Path("/elsewhere"))])
@pytest.mark.parametrize("expected", [None, "v2.0.0"])
def test_what_visor_did_not_make_is_left_to_the_operator(link: CurrentLink, expected: str | None) -> None:
    refusal = resolve(link, expected, everything)
    assert isinstance(refusal, Refuse)
    assert refusal.next_step
