"""One upgrade as a durable transaction: the states, the arrows, and what comes next. Pure: no clock, no I/O.

::

    announced -> preparing -> prepared -> ready -> stopping -> stopped -> switched -> starting -> confirmed
        \\____________\\___________\\-> superseded | withdrawn

Every arrow is one journal write. The coordinator never remembers what it was doing: after every event, and
after every start of visor, it asks :func:`next_step` what the journalled state and the facts of the world
call for, and does that. Each step may be done twice without harm, so being killed anywhere means doing one
step again.

An upgrade that is *committed* (ready or later) is never withdrawn, and the binaries of before it are never
started again.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from visor_actors.node.admin_rpc import UpgradeStatus


class State(enum.StrEnum):
    """Where an upgrade is; the value is what the journal holds."""

    ANNOUNCED = "announced"
    PREPARING = "preparing"
    PREPARED = "prepared"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SWITCHED = "switched"
    STARTING = "starting"
    CONFIRMED = "confirmed"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"


PENDING = (State.ANNOUNCED, State.PREPARING, State.PREPARED)
"""Accepted by the network, its height not yet done."""
COMMITTED = (State.READY, State.STOPPING, State.STOPPED, State.SWITCHED, State.STARTING)
"""Its height is done: the old binaries must not run again, and nothing but finishing is left."""
LINKED = (State.SWITCHED, State.STARTING, State.CONFIRMED)
"""The link ``current`` points to this upgrade's folder."""

TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.ANNOUNCED: frozenset({State.PREPARING, State.READY, State.SUPERSEDED, State.WITHDRAWN}),
    State.PREPARING: frozenset({State.PREPARED, State.READY, State.SUPERSEDED, State.WITHDRAWN}),
    State.PREPARED: frozenset({State.PREPARING, State.READY, State.SUPERSEDED, State.WITHDRAWN}),
    State.READY: frozenset({State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset({State.SWITCHED}),
    State.SWITCHED: frozenset({State.STARTING}),
    State.STARTING: frozenset({State.CONFIRMED}),
    State.CONFIRMED: frozenset(),
    State.SUPERSEDED: frozenset({State.ANNOUNCED, State.READY}),
    State.WITHDRAWN: frozenset({State.ANNOUNCED, State.READY}),
}

DURABLE = frozenset({State.READY, State.CONFIRMED})
"""The arrows that must survive a power cut, not only a kill.

``ready`` is the one fact that cannot be found again once the core is gone. After it, a lost arrow is simply
done again; so the switch itself waits for no disk.
"""


class ImpossibleTransition(Exception):
    """A bug: the table has no such arrow. Names both states."""

    def __init__(self, tag: str, source: State, target: State) -> None:
        super().__init__(f"upgrade {tag}: there is no arrow from {source} to {target}")
        self.source = source
        self.target = target


def check_transition(tag: str, source: State, target: State) -> None:
    """Raise :class:`ImpossibleTransition` unless the table has the arrow."""
    if target not in TRANSITIONS[source]:
        raise ImpossibleTransition(tag, source, target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """One row of the journal, as the machine sees it."""

    tag: str
    height: int
    state: State


# What a status means


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """The status tells nothing new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """The network has accepted this upgrade. ``replaces`` are pending ones that it makes void."""

    tag: str
    height: int
    replaces: tuple[Upgrade, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """The core no longer knows these pending upgrades."""

    upgrades: tuple[Upgrade, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The node has done the upgrade's height and waits to be replaced."""

    tag: str
    height: int
    replaces: tuple[Upgrade, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicious:
    """The status must not be acted upon, and somebody should know why."""

    problem: str
    next_step: str


Observation = Nothing | Announced | Withdrawn | Ready | Suspicious


def observe(status: UpgradeStatus, ledger: Iterable[Upgrade], running_tag: str | None) -> Observation:
    """Decide what a core's ``status`` means, given the journal and the tag that runs now.

    Right after an upgrade a core shows the old tag and height once more, restored from its snapshot: whatever
    is at or below a finished height is old news.
    """
    rows = tuple(ledger)
    pending = tuple(row for row in rows if row.state in PENDING)
    release = status.release
    if release is None:
        if status.ready:
            return Suspicious(
                problem="the core says it is ready to upgrade but names no release",
                next_step="look at the core's log; visor leaves the node as it is",
            )
        return Withdrawn(upgrades=pending) if pending else Nothing()
    done = max((row.height for row in rows if row.state in (*COMMITTED, State.CONFIRMED)), default=0)
    if release.height <= done:
        return Nothing()
    if running_tag is not None and is_older(release.tag, running_tag):
        return Suspicious(
            problem=f"the network names {release.tag} for height {release.height}, "
            f"which is older than {running_tag} that runs now",
            next_step="visor refuses to go back; if this is intended, switch by hand: "
            "`visor-actors stop`, point `current` to the folder, `visor-actors run`",
        )
    same = next((row for row in rows if (row.tag, row.height) == (release.tag, release.height)), None)
    others = tuple(row for row in pending if row is not same)
    if status.ready:
        return Ready(tag=release.tag, height=release.height, replaces=others)
    if same is not None and same.state in PENDING and not others:
        return Nothing()
    return Announced(tag=release.tag, height=release.height, replaces=others)


_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:[-.+](.*))?$")


def _precedence(tag: str) -> tuple[tuple[int, int, int], int, tuple[tuple[int, int, str], ...]] | None:
    match = _VERSION.match(tag)
    if match is None:
        return None
    major, minor, patch, rest = match.groups()
    numbers = (int(major), int(minor), int(patch))
    if not rest:
        return numbers, 1, ()
    # `-fix.1` is a later build of the same version in this family of nodes; `-rc`, `-pre…`, `-beta` come
    # before it.
    kind = 0 if re.match(r"(rc|pre|alpha|beta|dev)", rest) and "+" not in tag else 2
    parts = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"[.\-+]", rest)
    )
    return numbers, kind, parts


def is_older(tag: str, than: str) -> bool:
    """True when both are versions and ``tag`` comes before ``than``; what cannot be compared is not older."""
    left, right = _precedence(tag), _precedence(than)
    return left is not None and right is not None and left < right


# What to do next


class NodeIs(enum.Enum):
    """The node as far as a switch cares."""

    UNKNOWN = "unknown"
    UP = "up"
    GOING_DOWN = "going down"
    DOWN = "down and asking what to run"
    COMING_UP = "coming up"


class Height(enum.Enum):
    """What is known of a pending upgrade's height while the node is down."""

    NOT_ASKED = "nobody has asked the witnesses yet"
    DONE = "done"
    NOT_DONE = "not done"
    UNKNOWN = "no witness can tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the coordinator knows of the world at the moment, for the upgrade in question.

    ``prepared``: the folder has been checked by this coordinator and is complete. ``answered``: the core that
    runs now (started after the switch) has answered its RPC. ``hook_done``: no pre-upgrade hook is
    configured, or it succeeded. ``old_runs``: the core that runs was started before the switch. ``height``:
    the verdict of the witnesses. ``settled`` is False while the stop delay runs.
    """

    node: NodeIs
    prepared: bool
    held: bool = False
    hook_done: bool = True
    settled: bool = True
    answered: bool = False
    old_runs: bool = False
    height: Height = Height.NOT_ASKED


class Step(enum.Enum):
    """What the coordinator should do now."""

    NOTHING = "nothing"
    PREPARE = "prepare"
    MARK_PREPARED = "mark prepared"
    ASK_WITNESSES = "ask the witnesses"
    RUN_OLD = "run the old folder"
    MARK_READY = "mark ready, from witnesses"
    HOLD = "hold"
    RUN_HOOK = "run the pre-upgrade hook"
    DELAY = "wait the stop delay"
    MARK_STOPPING = "mark stopping"
    STOP = "stop the node"
    MARK_STOPPED = "mark stopped"
    SWITCH = "replace the link"
    MARK_STARTING = "mark starting"
    RUN_NEW = "run the new folder"
    CONFIRM = "confirm"


def next_step(state: State, facts: Facts) -> Step:
    """Return the one step that ``state`` and ``facts`` call for. The table of the transaction, read top to
    bottom.
    """
    match state:
        case State.ANNOUNCED | State.PREPARING | State.PREPARED:
            if facts.node is NodeIs.DOWN:
                return _pending_while_down(facts)
            if state is State.ANNOUNCED or (state is State.PREPARED and not facts.prepared):
                return Step.PREPARE
            if state is State.PREPARING and facts.prepared:
                return Step.MARK_PREPARED
            return Step.NOTHING
        case State.READY:
            if not facts.prepared:
                return Step.HOLD if facts.node is NodeIs.DOWN else Step.NOTHING
            if facts.held:
                return Step.HOLD
            if not facts.hook_done:
                return Step.RUN_HOOK
            if not facts.settled and facts.node is not NodeIs.DOWN:
                return Step.DELAY
            return Step.MARK_STOPPING
        case State.STOPPING:
            match facts.node:
                case NodeIs.DOWN:
                    return Step.MARK_STOPPED
                case NodeIs.UP | NodeIs.COMING_UP:
                    return Step.STOP
                case _:
                    return Step.NOTHING
        case State.STOPPED:
            return _only_while_down(facts, Step.SWITCH)
        case State.SWITCHED:
            return _only_while_down(facts, Step.MARK_STARTING)
        case State.STARTING:
            if facts.node is NodeIs.DOWN:
                return Step.RUN_NEW
            if facts.old_runs and facts.node is NodeIs.UP:
                return Step.STOP
            return Step.CONFIRM if facts.answered and facts.node is NodeIs.UP else Step.NOTHING
        case _:
            return Step.NOTHING


def _pending_while_down(facts: Facts) -> Step:
    """The node died before its accepted upgrade: only the witnesses know whether its height is done."""
    match facts.height:
        case Height.NOT_ASKED:
            return Step.ASK_WITNESSES
        case Height.DONE:
            return Step.MARK_READY
        case Height.NOT_DONE:
            return Step.RUN_OLD
        case Height.UNKNOWN:
            return Step.HOLD


def _only_while_down(facts: Facts, step: Step) -> Step:
    """Past the stop, the node is down; should anything run all the same, it is stopped first."""
    match facts.node:
        case NodeIs.DOWN:
            return step
        case NodeIs.UP | NodeIs.COMING_UP:
            return Step.STOP
        case _:
            return Step.NOTHING
