from __future__ import annotations

from html.parser import HTMLParser

import pytest
from msgspec.structs import replace

from tests.api.fake_visor import FakeVisor
from visor_actors.api.duration import since
from visor_actors.api.page import HEADERS, render_page
from visor_actors.api.treeview import flatten


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words += data + " "


def test_the_page_tells_what_an_operator_wants_to_know(visor: FakeVisor) -> None:
    page = Page(render_page(visor.status(), visor.tree()))
    for word in ("degraded", "core", "v0.76.0", "MISSING", "process:core", "prepare it", "1111"):
        assert word in page.words


def test_the_page_loads_nothing_and_runs_nothing(visor: FakeVisor) -> None:
    page = Page(render_page(visor.status(), visor.tree()))
    assert page.sources == []
    assert "script" not in page.tags
    assert any(name == "Content-Security-Policy" for name, _ in HEADERS)


def test_markup_in_a_message_stays_text(visor: FakeVisor) -> None:
    alarm = replace(visor.report.alarms[0], message="<script>alert(1)</script>")
    visor.report = replace(visor.report, alarms=(alarm,), home="<b>'\"")
    page = Page(render_page(visor.status(), visor.tree()))
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.words


def test_a_visor_that_knows_nothing_yet_has_a_page_too(visor: FakeVisor) -> None:
    visor.report = replace(
        visor.report, rpc=None, upgrade=None, install=None, config=None, binaries=(), alarms=()
    )
    assert "Actors" in render_page(visor.status(), visor.tree())


def test_the_tree_is_listed_parents_first(visor: FakeVisor) -> None:
    assert [(row.path, row.depth) for row in flatten(visor.tree())] == [
        ("root", 0),
        ("root/config-watcher", 1),
        ("root/node", 1),
        ("root/node/process:core", 2),
        ("root/installer", 1),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5.0, "0s"),
        (0.4, "0s"),
        (59, "59s"),
        (60, "1m 0s"),
        (3599, "59m 59s"),
        (7325, "2h 2m"),
        (90_000, "1d 1h"),
        (8_640_000, "100d 0h"),
    ],
)
def test_spans_are_told_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert since(1000.0, 1000.0 + seconds) == text


def test_an_unknown_beginning_is_a_dash() -> None:
    assert since(None, 1000.0) == "-"
