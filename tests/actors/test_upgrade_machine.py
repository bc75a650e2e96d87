"""The transaction as pure code: its arrows, its steps, and what a core's answer means for it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from visor_actors.actors.observation import (
    BELIEVED_AFTER_SECONDS,
    Announced,
    Disappearances,
    Nothing,
    Observation,
    Ready,
    Suspicious,
    Withdrawn,
    observe,
)
from visor_actors.actors.release_order import is_older
from visor_actors.actors.upgrade_machine import (
    COMMITTED,
    DURABLE,
    LINKED,
    PENDING,
    TRANSITIONS,
    UNDECIDED,
    Facts,
    Folder,
    Height,
    ImpossibleTransition,
    NodeIs,
    State,
    Step,
    Upgrade,
    check_transition,
    next_step,
)
from visor_actors.node.upgrade_status import Release, UpgradeStatus

DOWN, UP, FOUND = NodeIs.DOWN, NodeIs.UP, NodeIs.FOUND

# the table


@pytest.mark.parametrize(
    ("state", "facts", "step"),
    [
        # announced until prepared, while the node is up
        (State.ANNOUNCED, Facts(node=UP), Step.PREPARE),
        (State.PREPARING, Facts(node=UP, folder=Folder.UNKNOWN), Step.NOTHING),
        (State.PREPARING, Facts(node=UP, folder=Folder.INCOMPLETE), Step.NOTHING),
        (State.PREPARING, Facts(node=UP), Step.MARK_PREPARED),
        (State.PREPARED, Facts(node=UP), Step.NOTHING),
        (State.PREPARED, Facts(node=UP, folder=Folder.UNKNOWN), Step.NOTHING),
        (State.PREPARED, Facts(node=UP, folder=Folder.INCOMPLETE), Step.PREPARE),
        # a node that is found running needs no witness
        (State.ANNOUNCED, Facts(node=FOUND), Step.TAKE_OVER_OLD),
        (State.PREPARED, Facts(node=FOUND, height=Height.DONE), Step.TAKE_OVER_OLD),
        # one that is down does
        (State.ANNOUNCED, Facts(node=DOWN), Step.ASK_WITNESSES),
        (State.PREPARED, Facts(node=DOWN), Step.ASK_WITNESSES),
        (State.PREPARED, Facts(node=DOWN, height=Height.DONE), Step.MARK_READY),
        (State.PREPARED, Facts(node=DOWN, height=Height.NOT_DONE), Step.RUN_OLD),
        (State.PREPARED, Facts(node=DOWN, height=Height.UNKNOWN), Step.HOLD),
        # ready: first the folder, then the operator, then the hook, then the delay
        (State.READY, Facts(node=FOUND), Step.TAKE_OVER_OLD),
        (State.READY, Facts(node=UP, folder=Folder.INCOMPLETE, held=True), Step.NOTHING),
        (State.READY, Facts(node=UP, folder=Folder.UNKNOWN), Step.NOTHING),
        (State.READY, Facts(node=DOWN, folder=Folder.INCOMPLETE), Step.HOLD),
        (State.READY, Facts(node=UP, held=True, hook_done=False), Step.HOLD),
        (State.READY, Facts(node=UP, hook_done=False, settled=False), Step.RUN_HOOK),
        (State.READY, Facts(node=UP, settled=False), Step.DELAY),
        (State.READY, Facts(node=DOWN, settled=False), Step.MARK_STOPPING),
        (State.READY, Facts(node=UP), Step.MARK_STOPPING),
        # stopping
        (State.STOPPING, Facts(node=UP), Step.STOP),
        (State.STOPPING, Facts(node=NodeIs.COMING_UP), Step.STOP),
        (State.STOPPING, Facts(node=NodeIs.GOING_DOWN), Step.NOTHING),
        (State.STOPPING, Facts(node=NodeIs.UNKNOWN), Step.NOTHING),
        (State.STOPPING, Facts(node=FOUND), Step.TAKE_OVER_OLD),
        (State.STOPPING, Facts(node=DOWN), Step.MARK_STOPPED),
        # the switch, only while nothing runs
        (State.STOPPED, Facts(node=DOWN), Step.SWITCH),
        (State.STOPPED, Facts(node=UP), Step.STOP),
        (State.STOPPED, Facts(node=FOUND), Step.STOP),
        (State.STOPPED, Facts(node=NodeIs.UNKNOWN), Step.NOTHING),
        (State.SWITCHED, Facts(node=DOWN), Step.MARK_STARTING),
        (State.SWITCHED, Facts(node=NodeIs.COMING_UP), Step.STOP),
        # starting
        (State.STARTING, Facts(node=DOWN), Step.RUN_NEW),
        (State.STARTING, Facts(node=FOUND), Step.TAKE_OVER_NEW),
        (State.STARTING, Facts(node=NodeIs.COMING_UP, answered=True), Step.NOTHING),
        (State.STARTING, Facts(node=UP), Step.NOTHING),
        (State.STARTING, Facts(node=UP, answered=True, old_runs=True), Step.STOP),
        (State.STARTING, Facts(node=UP, answered=True), Step.CONFIRM),
        # over
        (State.CONFIRMED, Facts(node=DOWN), Step.NOTHING),
        (State.SUPERSEDED, Facts(node=DOWN), Step.NOTHING),
        (State.WITHDRAWN, Facts(node=DOWN), Step.NOTHING),
    ],
)
def test_the_table_of_steps(state: State, facts: Facts, step: Step) -> None:
    assert next_step(state, facts) is step


TO_THE_OLD = (Step.RUN_OLD, Step.ASK_WITNESSES)
MARKS = {
    Step.PREPARE: State.PREPARING,
    Step.MARK_PREPARED: State.PREPARED,
    Step.MARK_READY: State.READY,
    Step.MARK_STOPPING: State.STOPPING,
    Step.MARK_STOPPED: State.STOPPED,
    Step.SWITCH: State.SWITCHED,
    Step.MARK_STARTING: State.STARTING,
    Step.CONFIRM: State.CONFIRMED,
}

facts_of_any_kind = st.builds(
    Facts,
    node=st.sampled_from(NodeIs),
    folder=st.sampled_from(Folder),
    held=st.booleans(),
    hook_done=st.booleans(),
    settled=st.booleans(),
    answered=st.booleans(),
    old_runs=st.booleans(),
    height=st.sampled_from(Height),
)


@given(state=st.sampled_from(State), facts=facts_of_any_kind)
def test_every_step_that_moves_the_journal_is_an_arrow_of_the_table(state: State, facts: Facts) -> None:
    target = MARKS.get(next_step(state, facts))
    if target is not None:
        check_transition("v2.0.0", state, target)


@given(state=st.sampled_from(COMMITTED), facts=facts_of_any_kind)
def test_a_committed_upgrade_never_runs_the_old_binary(state: State, facts: Facts) -> None:
    step = next_step(state, facts)
    assert step not in TO_THE_OLD
    if step is Step.TAKE_OVER_OLD:
        assert facts.node is FOUND, "taking over starts nothing"


@given(state=st.sampled_from(State), facts=facts_of_any_kind)
def test_nothing_is_switched_or_started_unless_the_node_is_down(state: State, facts: Facts) -> None:
    step = next_step(state, facts)
    if step in (Step.SWITCH, Step.MARK_STOPPED, Step.MARK_STARTING, Step.RUN_NEW, Step.RUN_OLD):
        assert facts.node is DOWN


@given(state=st.sampled_from(State), facts=facts_of_any_kind)
def test_a_node_that_is_up_is_stopped_only_for_a_prepared_and_committed_upgrade(
    state: State, facts: Facts
) -> None:
    if next_step(state, facts) in (Step.STOP, Step.MARK_STOPPING):
        assert state in COMMITTED
        assert state is not State.READY or facts.folder is Folder.COMPLETE


@given(facts=st.lists(facts_of_any_kind, max_size=40))
def test_whatever_happens_the_states_only_move_forward_along_the_arrows(facts: list[Facts]) -> None:
    state, passed = State.ANNOUNCED, [State.ANNOUNCED]
    for fact in facts:
        target = MARKS.get(next_step(state, fact))
        if target is not None:
            check_transition("v2.0.0", state, target)
            state = target
            passed.append(state)
    committed = [one for one in passed if one in (*COMMITTED, State.CONFIRMED)]
    assert len(committed) == len(set(committed)), "no step of a switch is done twice"


# the arrows


def test_every_state_has_its_arrows_and_belongs_where_it_should() -> None:
    assert set(TRANSITIONS) == set(State)
    assert not set(PENDING) & set(COMMITTED)
    assert set(UNDECIDED) == {*PENDING, State.READY}
    assert set(LINKED) - {State.CONFIRMED} <= set(COMMITTED)
    assert State.READY in DURABLE
    for state in State:
        way_on = TRANSITIONS[state] - {State.SUPERSEDED, State.WITHDRAWN}
        assert bool(way_on) is (state is not State.CONFIRMED), "only a confirmed upgrade is at its end"


def test_nothing_leads_back_from_a_committed_upgrade() -> None:
    for source, target in itertools.product(COMMITTED, (*PENDING, State.SUPERSEDED, State.WITHDRAWN)):
        with pytest.raises(ImpossibleTransition, match=f"from {source} to {target}"):
            check_transition("v2.0.0", source, target)


# what a core's answer means


def status(tag: str | None = None, height: int = 0, *, ready: bool = False) -> UpgradeStatus:
    release = None if tag is None else Release(tag=tag, height=height)
    return UpgradeStatus(release=release, ready=ready)


def row(tag: str, height: int, state: State) -> Upgrade:
    return Upgrade(tag=tag, height=height, state=state)


V2 = row("v2.0.0", 40, State.PREPARED)
DONE = row("v2.0.0", 40, State.CONFIRMED)


@pytest.mark.parametrize(
    ("answer", "ledger", "running", "meaning"),
    [
        (status(), (), None, Nothing()),
        (status("v2.0.0", 40), (), None, Announced(tag="v2.0.0", height=40)),
        (status("v2.0.0", 40), (V2,), None, Nothing()),
        (status("v2.0.0", 40, ready=True), (V2,), None, Ready(tag="v2.0.0", height=40)),
        (status("v2.0.0", 40, ready=True), (), None, Ready(tag="v2.0.0", height=40)),
        # changed, withdrawn, accepted again
        (status("v2.0.0", 50), (V2,), None, Announced(tag="v2.0.0", height=50, replaces=(V2,))),
        (status("v3.0.0", 40), (V2,), None, Announced(tag="v3.0.0", height=40, replaces=(V2,))),
        (status("v3.0.0", 40, ready=True), (V2,), None, Ready(tag="v3.0.0", height=40, replaces=(V2,))),
        (status(), (V2,), None, Withdrawn(upgrades=(V2,))),
        (
            status("v2.0.0", 40),
            (replace(V2, state=State.WITHDRAWN),),
            None,
            Announced(tag="v2.0.0", height=40),
        ),
        # old news after an upgrade, and the next upgrade
        (status("v2.0.0", 40), (DONE,), "v2.0.0", Nothing()),
        (status("v2.0.0", 40), (DONE,), None, Nothing()),
        (status("v2.0.0", 40), (), "v2.0.0", Nothing()),
        (status(), (DONE,), "v2.0.0", Nothing()),
        (status("v3.0.0", 90), (DONE,), "v2.0.0", Announced(tag="v3.0.0", height=90)),
    ],
)
def test_what_an_answer_means(
    answer: UpgradeStatus, ledger: tuple[Upgrade, ...], running: str | None, meaning: Observation
) -> None:
    assert observe(answer, ledger, running) == meaning


@pytest.mark.parametrize("state", COMMITTED)
@pytest.mark.parametrize(
    "answer", [status(), status("v2.0.0", 40, ready=True), status("v3.0.0", 90, ready=True)]
)
def test_while_an_upgrade_is_committed_no_answer_counts(state: State, answer: UpgradeStatus) -> None:
    assert observe(answer, (row("v2.0.0", 40, state),), "v1.0.0") == Nothing()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (status(ready=True), "names no release"),
        (status("v1.9.0", 90, ready=True), "older than v2.0.0"),
        (status("v1.9.0", 90), "older than v2.0.0"),
        (status("v2.0.0", 90, ready=True), "runs already"),
        (status("v2.0.0", 40, ready=True), "runs already"),
        (status("v3.0.0", 40), "the upgrade at height 40 is done"),
        (status("v3.0.0", 7, ready=True), "the upgrade at height 40 is done"),
    ],
)
def test_what_must_not_be_acted_upon_is_said_with_a_next_step(answer: UpgradeStatus, words: str) -> None:
    meaning = observe(answer, (DONE,), "v2.0.0")
    assert isinstance(meaning, Suspicious)
    assert words in meaning.problem
    assert meaning.next_step


tags = st.sampled_from(["v1.0.0", "v2.0.0", "v3.0.0", "v3.0.0-rc.1", "nightly"])
answers = st.builds(
    UpgradeStatus,
    release=st.none() | st.builds(Release, tag=tags, height=st.integers(1, 5)),
    ready=st.booleans(),
)


@given(events=st.lists(st.tuples(answers, st.booleans()), max_size=60), running=st.none() | tags)
def test_there_are_never_two_committed_upgrades_nor_two_pending_ones(
    events: list[tuple[UpgradeStatus, bool]], running: str | None
) -> None:
    ledger: dict[tuple[str, int], State] = {}
    heights: list[int] = []

    def move(tag: str, height: int, state: State) -> None:
        before = ledger.get((tag, height))
        if before is not None:
            check_transition(tag, before, state)
        ledger[tag, height] = state

    for answer, finish in events:
        rows = [row(tag, height, state) for (tag, height), state in ledger.items()]
        match observe(answer, rows, running):
            case Announced(tag=tag, height=height, replaces=replaces):
                if ledger.get((tag, height)) not in PENDING:
                    move(tag, height, State.ANNOUNCED)
                for one in replaces:
                    move(one.tag, one.height, State.SUPERSEDED)
            case Ready(tag=tag, height=height, replaces=replaces):
                if ledger.get((tag, height)) not in PENDING:
                    move(tag, height, State.ANNOUNCED)
                for one in replaces:
                    move(one.tag, one.height, State.SUPERSEDED)
                move(tag, height, State.READY)
                heights.append(height)
            case Withdrawn(upgrades=upgrades):
                for one in upgrades:
                    move(one.tag, one.height, State.WITHDRAWN)
            case _:
                pass
        assert sum(state in COMMITTED for state in ledger.values()) <= 1
        assert sum(state in PENDING for state in ledger.values()) <= 1
        ready = [key for key, state in ledger.items() if state is State.READY]
        if ready and finish:
            ledger[ready[0]] = State.CONFIRMED
            running = ready[0][0]
    assert heights == sorted(set(heights)), "each height is done once, and never an earlier one after it"


# when a disappearance is believed


def test_a_core_that_showed_an_upgrade_is_believed_at_once_and_another_one_after_a_while() -> None:
    gone = Disappearances()
    gone.shown("v2.0.0", 40, "core 1")
    assert gone.believed("v2.0.0", 40, "core 1", 0.0)
    assert not gone.believed("v2.0.0", 40, "core 2", 10.0), "it may be replaying blocks of before the vote"
    assert not gone.believed("v2.0.0", 40, "core 2", 10.0 + BELIEVED_AFTER_SECONDS - 1)
    assert gone.believed("v2.0.0", 40, "core 2", 10.0 + BELIEVED_AFTER_SECONDS)


def test_the_patience_begins_anew_with_every_core_and_every_sight() -> None:
    gone = Disappearances()
    assert not gone.believed("v2.0.0", 40, "core 1", 0.0)
    assert not gone.believed("v2.0.0", 40, "core 2", BELIEVED_AFTER_SECONDS)
    gone.shown("v2.0.0", 40, "core 2")
    assert not gone.believed("v2.0.0", 40, "core 3", 2 * BELIEVED_AFTER_SECONDS)


# the order of tags


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("v1.9.0", "v1.10.0"),
        ("v0.74.10", "v0.74.10-fix.1"),
        ("v0.74.10-fix.1", "v0.74.10-fix.2"),
        ("v0.74.10-fix.2", "v0.74.11"),
        ("v2.0.0-rc.1", "v2.0.0"),
        ("v2.0.0-preview", "v2.0.0"),
        ("0.9.0", "v1.0.0"),
    ],
)
def test_tags_of_versions_have_an_order(older: str, newer: str) -> None:
    assert is_older(older, newer)
    assert not is_older(newer, older)


@pytest.mark.parametrize("tag", ["nightly", "genesis", "v1", "", "v1.0.0x"])
def test_what_is_no_version_is_older_than_nothing(tag: str) -> None:
    assert not is_older(tag, "v1.0.0")
    assert not is_older("v1.0.0", tag)
    assert not is_older("v1.0.0", "v1.0.0")
