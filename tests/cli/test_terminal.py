from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.api.fake_visor import FakeVisor
from tests.cli.running import Runner
from tests.cli.terminal_session import Session
from visor_actors.actors.reports import InstallReport, NodeReport, UpgradeReport
from visor_actors.cli.terminal import pairs, size, table
from visor_actors.cli.waiting import bar
from visor_actors.home.layout import HomeLayout

ESCAPE = "\x1b"


def test_watch_refreshes_in_place_and_ends_quietly_at_an_interrupt(
    layout: HomeLayout, served: FakeVisor
) -> None:
    with Session(layout.root, "status", "--watch", "--interval", "0.1") as session:
        first = session.until(lambda text: "prepare it" in text)
        assert first.count("BINARY") == 1
        served.report = replace(
            served.report, node=NodeReport(phase="upgrading"), alarms=(), binaries=served.report.binaries[:1]
        )
        second = session.until(lambda text: "upgrading" in text and "prepare it" not in text)
        assert second.count("BINARY") == 1
        assert "data_node" not in second
        session.interrupt()
        assert session.finish() == 0
        assert "Traceback" not in session.raw


def test_watch_goes_on_while_no_visor_runs(layout: HomeLayout) -> None:
    with Session(layout.root, "status", "--watch", "--interval", "0.1") as session:
        session.until(lambda text: "No visor runs on this home" in text)
        session.interrupt()
        assert session.finish() == 0


def test_the_tree_can_be_watched_too(layout: HomeLayout, served: FakeVisor) -> None:
    with Session(layout.root, "tree", "--watch", "--interval", "0.1") as session:
        session.until(lambda text: "└─ process:core" in text)
        served.snapshot = replace(served.snapshot, children=())
        # Every line is shorter now, and there are fewer: nothing of the old picture may be left.
        session.until(
            lambda text: (
                text.splitlines()
                == [
                    "ACTOR  STATE    GENERATION  RESTARTS  INBOX  LAST FAILURE",
                    "root   running  1           0         0      -",
                ]
            )
        )


def test_colours_are_shown_on_a_terminal(layout: HomeLayout, served: FakeVisor) -> None:
    with Session(layout.root, "status") as session:
        assert session.finish() == 0
        assert f"{ESCAPE}[31m" in session.raw


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_are_not_shown_to_who_does_not_want_them(
    layout: HomeLayout, served: FakeVisor, environment: dict[str, str]
) -> None:
    with Session(layout.root, "status", **environment) as session:
        assert session.finish() == 0
        assert "degraded" in session.raw
        assert ESCAPE not in session.raw


def test_nothing_but_text_goes_into_a_pipe(run: Runner, layout: HomeLayout, served: FakeVisor) -> None:
    for arguments in (
        ("status",),
        ("tree",),
        ("upgrades", "list"),
        ("config", "show"),
        ("check", "--offline"),
    ):
        ran = run("--home", layout.root, *arguments)
        assert ESCAPE not in ran.out + ran.err
        assert "\r" not in ran.out + ran.err


def test_prepare_shows_a_bar_that_grows_and_leaves_the_result_only(
    layout: HomeLayout, served: FakeVisor
) -> None:
    upgrade = UpgradeReport(tag="v1", height=10, state="preparing", folder="v1")

    def at(done: int) -> None:
        install = InstallReport(tag="v1", phase="downloading", done=done, total=24 * 1024 * 1024)
        served.report = replace(served.report, install=install, upgrade=upgrade)
        served.known = (upgrade,)

    at(0)
    with Session(layout.root, "prepare", "v1") as session:
        session.until(lambda text: "[------------------------]" in text)
        at(12 * 1024 * 1024)
        session.until(
            lambda text: "[############------------] downloading 12.0 MiB of 24.0 MiB (50%)" in text
        )
        (layout.root / "v1").mkdir()
        served.known = (replace(upgrade, prepared=True),)
        served.report = replace(served.report, install=None)
        assert session.finish() == 0
        assert "###" not in session.screen.text
        assert "v1 is ready" in session.screen.text


def test_columns_are_aligned_whatever_their_colour() -> None:
    text = table(("A", "LONG"), [("\x1b[31mred\x1b[0m", "x"), ("plain", "")])
    assert text.splitlines() == ["A      LONG", "\x1b[31mred\x1b[0m    x", "plain"]


def test_a_table_without_rows_is_its_head() -> None:
    assert table(("A", "B"), []) == "A  B"


def test_pairs_without_a_value_are_left_out() -> None:
    assert pairs([("a", "1"), ("longer", None), ("bb", "2")]) == "a   1\nbb  2"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1.5 * 1024**3, "1.5 GiB"), (5 * 1024**4, "5.0 TiB")],
)
def test_sizes_are_told_in_the_unit_that_suits(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [(0, 10, "[----] "), (5, 10, "[##--] "), (10, 10, "[####] "), (20, 10, "[####] "), (5, None, "")],
)
def test_a_bar_is_never_longer_than_its_width(done: int, total: int | None, text: str) -> None:
    assert bar(done, total, width=4) == text
