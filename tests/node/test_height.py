"""Every rule of the height planner, as a table."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from visor_actors.node.arguments import flag_value
from visor_actors.node.height import (
    SNAPSHOT_HEIGHT,
    HeightAction,
    HeightFacts,
    HeightPlan,
    History,
    NoDataNode,
    NotAsked,
    StartKind,
    StartRefused,
    plan_height,
    refused_height,
    wants_history,
)
from visor_actors.node.history import NoSegment, Segment, Unreadable

ORDINARY, CRASH, FIRST = StartKind.ORDINARY, StartKind.AFTER_CRASH, StartKind.FIRST_AFTER_UPGRADE
KEEP, NOTHING, PASS, REFUSE = HeightAction.KEEP, HeightAction.NOTHING, HeightAction.PASS, HeightAction.REFUSE

ALONE = NoDataNode()
BLANK = NoSegment()
BROKEN = Unreadable("the index is locked")
UNASKED = NotAsked()


def ends(height: int) -> Segment:
    return Segment(from_height=1, to_height=height)


def spelled_joined(height: object) -> tuple[str, ...]:
    return ("start", f"{SNAPSHOT_HEIGHT}={height}", "--home", "/h")


def spelled_apart(height: object) -> tuple[str, ...]:
    return ("start", SNAPSHOT_HEIGHT, str(height), "--home", "/h")


def plan(
    kind: StartKind,
    history: History,
    *,
    own: tuple[str, ...] = ("start", "--home", "/h"),
    upgrade: int | None = None,
    refused: int | None = None,
) -> HeightPlan:
    return plan_height(
        HeightFacts(kind=kind, core_args=own, upgrade_height=upgrade, history=history, refused_height=refused)
    )


# Without a flag of the operator's own: kind, history, upgrade height, refused height -> action, height,
# warned
RULES = [
    # a core alone
    (ORDINARY, ALONE, None, None, NOTHING, None, False),
    (ORDINARY, ALONE, 100, None, NOTHING, None, False),
    (CRASH, ALONE, None, None, NOTHING, None, False),
    (CRASH, ALONE, 100, None, NOTHING, None, False),
    (FIRST, ALONE, 100, None, PASS, 100, False),
    (FIRST, ALONE, 100, 99, PASS, 100, False),
    (FIRST, ALONE, 100, 100, REFUSE, None, False),
    (CRASH, ALONE, 100, 100, REFUSE, None, False),
    (ORDINARY, ALONE, 100, 100, REFUSE, None, False),
    (CRASH, ALONE, 100, 99, NOTHING, None, False),
    (CRASH, ALONE, None, 100, NOTHING, None, False),
    # beside a data node, after a crash
    (CRASH, ends(500), None, None, PASS, 500, False),
    (CRASH, ends(500), 100, None, PASS, 500, False),
    (CRASH, ends(100), 100, None, PASS, 100, False),
    (CRASH, ends(99), 100, None, NOTHING, None, True),
    (CRASH, ends(500), None, 500, NOTHING, None, True),
    (CRASH, ends(500), None, 400, PASS, 500, False),
    (CRASH, ends(500), 100, 100, PASS, 500, False),
    (CRASH, ends(101), 100, 101, NOTHING, None, True),
    (CRASH, ends(100), 100, 100, REFUSE, None, False),
    (CRASH, ends(99), 100, 100, REFUSE, None, False),
    (CRASH, BLANK, 100, 100, REFUSE, None, False),
    (CRASH, BROKEN, 100, 100, REFUSE, None, False),
    (CRASH, BLANK, None, None, NOTHING, None, False),
    (CRASH, BLANK, 100, None, NOTHING, None, False),
    (CRASH, BROKEN, None, None, NOTHING, None, True),
    (CRASH, UNASKED, None, None, NOTHING, None, True),
    # beside a data node, an ordinary start
    (ORDINARY, UNASKED, None, None, NOTHING, None, False),
    (ORDINARY, ends(500), None, None, PASS, 500, False),
    (ORDINARY, ends(99), 100, None, NOTHING, None, True),
    (ORDINARY, BLANK, None, None, NOTHING, None, False),
    (ORDINARY, BROKEN, None, None, NOTHING, None, True),
    # beside a data node, the first start after an upgrade
    (FIRST, UNASKED, 100, None, PASS, 100, False),
    (FIRST, ends(100), 100, None, PASS, 100, False),
    (FIRST, ends(99), 100, None, PASS, 100, True),
    (FIRST, ends(500), 100, None, PASS, 500, False),
    (FIRST, ends(500), 100, 500, NOTHING, None, True),
    (FIRST, ends(500), 100, 100, PASS, 500, False),
    (FIRST, ends(101), 100, None, PASS, 101, False),
    (FIRST, ends(100), 100, 100, REFUSE, None, False),
    (FIRST, BLANK, 100, None, PASS, 100, False),
    (FIRST, BROKEN, 100, None, PASS, 100, False),
    (FIRST, UNASKED, 100, 100, REFUSE, None, False),
]


@pytest.mark.parametrize(("kind", "history", "upgrade", "refused", "action", "height", "warned"), RULES)
def test_a_start_without_an_own_flag(
    kind: StartKind,
    history: History,
    upgrade: int | None,
    refused: int | None,
    action: HeightAction,
    height: int | None,
    warned: bool,
) -> None:
    made = plan(kind, history, upgrade=upgrade, refused=refused)
    assert (made.action, made.height, made.warning is not None) == (action, height, warned)
    assert made.reason


# The operator's own height: kind, history, upgrade height, own, refused -> action, height, warned
OWN_RULES = [
    # respected on ordinary starts
    (ORDINARY, ALONE, None, 70, None, KEEP, None, False),
    (ORDINARY, ALONE, 50, 70, None, KEEP, None, False),
    (ORDINARY, ALONE, 70, 70, None, KEEP, None, False),
    (ORDINARY, UNASKED, None, 70, None, KEEP, None, False),
    (ORDINARY, ends(500), None, 70, None, KEEP, None, False),
    (ORDINARY, ALONE, None, 70, 70, KEEP, None, True),
    # and after a crash, with a word on what it costs
    (CRASH, ALONE, None, 70, None, KEEP, None, True),
    (CRASH, ends(500), 50, 70, None, KEEP, None, True),
    # never below the upgrade height of the release that is started
    (ORDINARY, ALONE, 100, 70, None, NOTHING, None, True),
    (ORDINARY, ends(500), 100, 70, None, PASS, 500, True),
    (CRASH, ALONE, 100, 70, None, NOTHING, None, True),
    (CRASH, ends(500), 100, 99, None, PASS, 500, True),
    (CRASH, BROKEN, 100, 99, None, NOTHING, None, True),
    (FIRST, ALONE, 100, 70, None, PASS, 100, True),
    (FIRST, ALONE, 100, 99, None, PASS, 100, True),
    (FIRST, UNASKED, 100, 70, None, PASS, 100, True),
    (FIRST, ALONE, 100, 70, 100, REFUSE, None, False),
    # on the first start after an upgrade, one that is not stale is respected
    (FIRST, ALONE, 100, 100, None, KEEP, None, False),
    (FIRST, ALONE, 100, 101, None, KEEP, None, True),
    (FIRST, UNASKED, 100, 100, None, KEEP, None, False),
    # "the latest" is no height and cannot be stale
    (FIRST, ALONE, 100, 0, None, KEEP, None, False),
    (CRASH, ends(500), 100, 0, None, KEEP, None, False),
    (ORDINARY, ALONE, 100, -1, None, KEEP, None, False),
    (ORDINARY, ALONE, 100, -(2**63), None, KEEP, None, False),
    (ORDINARY, ALONE, 100, 2**63 - 1, None, KEEP, None, False),
]


@pytest.mark.parametrize("spelling", [spelled_joined, spelled_apart])
@pytest.mark.parametrize("rule", OWN_RULES)
def test_a_start_with_the_operators_own_flag_in_both_spellings(
    spelling: Callable[[object], tuple[str, ...]],
    rule: tuple[StartKind, History, int | None, int, int | None, HeightAction, int | None, bool],
) -> None:
    kind, history, upgrade, own, refused, action, height, warned = rule
    args = spelling(own)
    made = plan(kind, history, own=args, upgrade=upgrade, refused=refused)
    if action is REFUSE:
        assert made.action is REFUSE
        return
    assert (made.action, made.height, made.warning is not None) == (action, height, warned)
    applied = made.apply(args)
    expected = {KEEP: str(own), NOTHING: None, PASS: str(height)}[action]
    assert flag_value(applied, SNAPSHOT_HEIGHT) == expected
    assert applied.count("--home") == 1


@pytest.mark.parametrize("kind", list(StartKind))
@pytest.mark.parametrize(
    "value", ["", "x", "1.5", "1_000", " 5", "0x10", "9223372036854775808", "9" * 40, "٣"]
)
def test_an_own_flag_that_is_no_height_is_refused_with_words(kind: StartKind, value: str) -> None:
    for args in (spelled_joined(value), spelled_apart(value)):
        made = plan(kind, ALONE, own=args, upgrade=100)
        assert made.action is REFUSE
        assert made.next_step is not None
        with pytest.raises(StartRefused) as caught:
            made.apply(args)
        assert caught.value.next_step == made.next_step


def test_an_own_flag_without_its_value_is_refused() -> None:
    made = plan(ORDINARY, ALONE, own=("start", SNAPSHOT_HEIGHT))
    assert made.action is REFUSE
    assert SNAPSHOT_HEIGHT in made.reason


def test_the_last_of_several_own_flags_counts() -> None:
    args = ("start", f"{SNAPSHOT_HEIGHT}=500", SNAPSHOT_HEIGHT, "70")
    made = plan(FIRST, ALONE, own=args, upgrade=100)
    assert made.apply(args) == ("start", f"{SNAPSHOT_HEIGHT}=100")


def test_the_stale_flag_of_a_published_patch_is_replaced_by_the_upgrade_height() -> None:
    args = (
        "start",
        "--home",
        "/home/vega/vega_home",
        SNAPSHOT_HEIGHT,
        "41090047",
        "--nodewallet-passphrase-file",
        "/p",
    )
    made = plan(FIRST, UNASKED, own=args, upgrade=41_500_000)
    assert made.apply(args) == (
        "start",
        "--home",
        "/home/vega/vega_home",
        f"{SNAPSHOT_HEIGHT}=41500000",
        "--nodewallet-passphrase-file",
        "/p",
    )
    assert made.warning is not None
    assert "41090047" in made.warning
    assert made.next_step == f"remove {SNAPSHOT_HEIGHT} from the run configuration"


def test_the_same_words_behind_the_end_of_flags_are_no_flag() -> None:
    args = ("start", "--", f"{SNAPSHOT_HEIGHT}=70")
    assert plan(FIRST, ALONE, own=args, upgrade=100).apply(args) == (
        "start",
        f"{SNAPSHOT_HEIGHT}=100",
        "--",
        f"{SNAPSHOT_HEIGHT}=70",
    )


HISTORIES: tuple[History, ...] = (ALONE, UNASKED, BLANK, BROKEN, ends(50), ends(100), ends(150))


@pytest.mark.parametrize("kind", list(StartKind))
def test_no_start_of_an_upgraded_release_ever_names_a_height_below_its_upgrade(kind: StartKind) -> None:
    for history, own, refused in itertools.product(
        HISTORIES, (None, 1, 50, 99, 100, 101), (None, 50, 100, 150)
    ):
        args = ("start",) if own is None else spelled_joined(own)
        made = plan(kind, history, own=args, upgrade=100, refused=refused)
        if made.action is REFUSE:
            continue
        value = flag_value(made.apply(args), SNAPSHOT_HEIGHT)
        assert value is None or int(value) >= 100


def test_a_release_whose_core_lacks_the_snapshot_of_its_upgrade_never_starts_from_another_one() -> None:
    for kind, history in itertools.product(StartKind, HISTORIES):
        made = plan(kind, history, upgrade=100, refused=100)
        assert made.action is REFUSE or (made.action is PASS and made.height == 150)


def test_a_core_alone_is_never_sent_back_after_its_first_start() -> None:
    for kind, upgrade, refused in itertools.product((ORDINARY, CRASH), (None, 100), (None, 99, 101)):
        assert plan(kind, ALONE, upgrade=upgrade, refused=refused).action is NOTHING


def test_the_first_start_after_an_upgrade_needs_the_height() -> None:
    with pytest.raises(ValueError, match="upgrade height"):
        plan(FIRST, ALONE)


def test_history_is_wanted_for_every_start_but_the_first_after_an_upgrade() -> None:
    assert [kind for kind in StartKind if wants_history(kind)] == [ORDINARY, CRASH]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), None),
        (("panic: something else",), None),
        (
            ("could not load local snapshots into the tree: no snapshot found for block height 11",),
            11,
        ),
        (("no snapshot found for block height 11", "no snapshot found for block height 12", "bye"), 12),
    ],
)
def test_a_height_the_core_did_not_find_is_read_from_its_last_lines(
    lines: tuple[str, ...], expected: int | None
) -> None:
    assert refused_height(lines) == expected


def test_two_warnings_are_both_said_and_the_operators_own_is_the_first_to_act_upon() -> None:
    made = plan(CRASH, BROKEN, own=spelled_joined(70), upgrade=100)
    assert made.warning is not None
    assert "70" in made.warning
    assert "the index is locked" in made.warning
    assert made.next_step == f"remove {SNAPSHOT_HEIGHT} from the run configuration"
