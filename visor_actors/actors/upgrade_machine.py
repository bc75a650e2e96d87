"""One upgrade as a durable transaction: the states, the arrows, and what comes next. Pure: no clock, no I/O.

::

    announced -> preparing -> prepared -> ready -> stopping -> stopped -> switched -> starting -> confirmed
        \\____________\\___________\\-> superseded | withdrawn

Every arrow is one journal write. The coordinator never remembers what it was doing: after every event, and
after every start of visor, it asks :func:`next_step` what the journalled state and the facts of the world
call for, and does that. Each step may be done twice without harm, so being killed anywhere means doing one
step again.

An upgrade that is *committed* (ready or later) is never withdrawn, and the binaries of before it are never
started again. What a core's answers mean is decided in :mod:`visor_actors.actors.observation`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from msgspec import Struct


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
UNDECIDED = (*PENDING, State.READY)
"""The switch has not begun: the folder may still be prepared, provided, mapped anew or held."""
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
    State.SUPERSEDED: frozenset({State.ANNOUNCED}),
    State.WITHDRAWN: frozenset({State.ANNOUNCED}),
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


class Upgrade(Struct, frozen=True, kw_only=True):
    """One row of the journal, as the machine sees it."""

    tag: str
    height: int
    state: State


# What to do next


class NodeIs(enum.Enum):
    """The node as far as a switch cares."""

    UNKNOWN = "unknown"
    FOUND = "found running, in whole or in part, and asking from which folder"
    UP = "up"
    GOING_DOWN = "going down"
    DOWN = "down and asking what to run"
    COMING_UP = "coming up"


class Folder(enum.Enum):
    """What is known of the upgrade's folder."""

    UNKNOWN = "it is being looked at"
    COMPLETE = "it has everything a start needs"
    INCOMPLETE = "something is missing or wrong"


class Height(enum.Enum):
    """What is known of a pending upgrade's height while the node is down."""

    NOT_ASKED = "nobody has asked the witnesses yet"
    DONE = "done"
    NOT_DONE = "not done"
    UNKNOWN = "no witness can tell"


class Facts(Struct, frozen=True, kw_only=True):
    """What the coordinator knows of the world at the moment, for the upgrade in question.

    ``answered``: the core that runs now (started after the switch) has answered its RPC. ``hook_done``: no
    pre-upgrade hook is configured, or it succeeded, or the operator went on without it. ``old_runs``: the
    core that runs was started before the switch. ``height``: the verdict of the witnesses. ``settled`` is
    False while the stop delay runs.
    """

    node: NodeIs
    folder: Folder = Folder.COMPLETE
    held: bool = False
    hook_done: bool = True
    settled: bool = True
    answered: bool = False
    old_runs: bool = False
    height: Height = Height.NOT_ASKED


class Step(enum.Enum):
    """What the coordinator should do now."""

    NOTHING = "nothing"
    TAKE_OVER_OLD = "let what runs go on, from the folder that is linked"
    TAKE_OVER_NEW = "let what runs go on, from the new folder"
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
            return _while_pending(state, facts)
        case State.READY:
            return _while_ready(facts)
        case State.STOPPING:
            match facts.node:
                case NodeIs.DOWN:
                    return Step.MARK_STOPPED
                case NodeIs.FOUND:
                    # Taken over first: its run configuration says with which signal it is stopped.
                    return Step.TAKE_OVER_OLD
                case NodeIs.UP | NodeIs.COMING_UP:
                    return Step.STOP
                case NodeIs.UNKNOWN | NodeIs.GOING_DOWN:
                    return Step.NOTHING
        case State.STOPPED:
            return _only_while_down(facts, Step.SWITCH)
        case State.SWITCHED:
            return _only_while_down(facts, Step.MARK_STARTING)
        case State.STARTING:
            return _while_starting(facts)
        case State.CONFIRMED | State.SUPERSEDED | State.WITHDRAWN:
            return Step.NOTHING


def _while_pending(state: State, facts: Facts) -> Step:
    if facts.node is NodeIs.FOUND:
        return Step.TAKE_OVER_OLD
    if facts.node is NodeIs.DOWN:
        # The node died before its accepted upgrade: only the witnesses know whether its height is done.
        match facts.height:
            case Height.NOT_ASKED:
                return Step.ASK_WITNESSES
            case Height.DONE:
                return Step.MARK_READY
            case Height.NOT_DONE:
                return Step.RUN_OLD
            case Height.UNKNOWN:
                return Step.HOLD
    if state is State.ANNOUNCED or (state is State.PREPARED and facts.folder is Folder.INCOMPLETE):
        return Step.PREPARE
    if state is State.PREPARING and facts.folder is Folder.COMPLETE:
        return Step.MARK_PREPARED
    return Step.NOTHING


def _while_ready(facts: Facts) -> Step:
    if facts.node is NodeIs.FOUND:
        return Step.TAKE_OVER_OLD
    if facts.folder is not Folder.COMPLETE:
        return Step.HOLD if facts.node is NodeIs.DOWN else Step.NOTHING
    if facts.held:
        return Step.HOLD
    if not facts.hook_done:
        return Step.RUN_HOOK
    if not facts.settled and facts.node is not NodeIs.DOWN:
        return Step.DELAY
    return Step.MARK_STOPPING


def _only_while_down(facts: Facts, step: Step) -> Step:
    """Past the stop, the node is down; should anything run all the same, it is stopped first."""
    match facts.node:
        case NodeIs.DOWN:
            return step
        case NodeIs.FOUND | NodeIs.UP | NodeIs.COMING_UP:
            return Step.STOP
        case NodeIs.UNKNOWN | NodeIs.GOING_DOWN:
            return Step.NOTHING


def _while_starting(facts: Facts) -> Step:
    match facts.node:
        case NodeIs.DOWN:
            return Step.RUN_NEW
        case NodeIs.FOUND:
            return Step.TAKE_OVER_NEW
        case NodeIs.UP if facts.old_runs:
            return Step.STOP
        case NodeIs.UP if facts.answered:
            return Step.CONFIRM
        case _:
            return Step.NOTHING
