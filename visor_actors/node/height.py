"""From which snapshot the core is started: one pure function, :func:`plan_height`, holds every rule.

``--snapshot.load-from-block-height N`` makes a core load its snapshot of exactly that height and **delete
every later one**. So it is a tool for two situations, and harmful in all others:

* The first start after an upgrade loads the upgrade height, where the network's snapshot for the new release
lies. Once:
  a crash restart days later must not throw those days away.
* A restart beside a data node loads the end of the data node's latest history segment, because a data node
that is
  handed a block beyond its next one ends for good.

Above both stands the operator, who may have put the flag into the run configuration; and above all the
upgrade height of the release that is started: a new release must never execute blocks from below it, for that
forks its state.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from visor_actors.node.arguments import FlagWithoutValue, flag_value, with_flag, without_flag
from visor_actors.node.errors import NodeError
from visor_actors.node.history import NoSegment, Segment, Unreadable

SNAPSHOT_HEIGHT = "--snapshot.load-from-block-height"

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_REFUSED = re.compile(r"no snapshot found for block height ([0-9]{1,19})", re.ASCII)


class StartKind(enum.StrEnum):
    """Why the core is started."""

    ORDINARY = "ordinary"
    """The first start of a run, or one after a stop that was asked for."""
    AFTER_CRASH = "after-crash"
    """A start after an end that nobody asked for, a power cut included."""
    FIRST_AFTER_UPGRADE = "first-after-upgrade"
    """The first start of a release, at its upgrade height."""


class NoDataNode(Struct, frozen=True):
    """The run configuration has no data node."""


class NotAsked(Struct, frozen=True):
    """There is a data node, and its history was not asked for."""


History = Segment | NoSegment | Unreadable | NotAsked | NoDataNode


class HeightFacts(Struct, frozen=True, kw_only=True):
    """All that the plan depends on.

    ``core_args`` are the core's arguments in the run configuration. ``upgrade_height`` is the height of the
    upgrade that brought the release which is started, on *every* start of it; None for the first release, or
    when nobody knows. ``refused_height`` is the height the core's previous start did not find
    (:func:`refused_height`).
    """

    kind: StartKind
    core_args: tuple[str, ...]
    upgrade_height: int | None
    history: History
    refused_height: int | None = None

    def __post_init__(self) -> None:
        if self.kind is StartKind.FIRST_AFTER_UPGRADE and self.upgrade_height is None:
            raise ValueError("the first start after an upgrade needs the upgrade height")


class HeightAction(enum.StrEnum):
    """What to do about the flag."""

    PASS = "pass"
    NOTHING = "nothing"
    KEEP = "keep"
    REFUSE = "refuse"


class StartRefused(NodeError):
    """The plan was not to start at all."""

    def __init__(self, reason: str, next_step: str | None) -> None:
        super().__init__(reason)
        self.next_step = next_step


class HeightPlan(Struct, frozen=True, kw_only=True):
    """What to start the core with, and why. ``height`` is set for ``PASS`` only.

    ``reason`` is a clause for the log; ``warning`` a sentence an operator should see, or None; ``next_step``
    what to do about it.
    """

    action: HeightAction
    reason: str
    height: int | None = None
    warning: str | None = None
    next_step: str | None = None

    def apply(self, core_args: Sequence[str]) -> tuple[str, ...]:
        """Return the arguments to start with. Raises :class:`StartRefused` when the plan is not to start."""
        match self.action:
            case HeightAction.PASS:
                return with_flag(core_args, SNAPSHOT_HEIGHT, str(self.height))
            case HeightAction.NOTHING:
                return without_flag(core_args, SNAPSHOT_HEIGHT)
            case HeightAction.KEEP:
                return tuple(core_args)
            case HeightAction.REFUSE:
                raise StartRefused(self.reason, self.next_step)


def wants_history(kind: StartKind) -> bool:
    """Whether the data node's history must be asked for (while it is down) before such a start is planned.

    After a graceful stop too: a data node that lags behind its core ends behind the core's latest snapshot.
    """
    return kind is not StartKind.FIRST_AFTER_UPGRADE


def refused_height(lines: Iterable[str]) -> int | None:
    """The snapshot height that a core did not find, from its last lines; None when it did not end for
    that."""
    found = None
    for line in lines:
        match = _REFUSED.search(line)
        if match:
            found = int(match[1])
    return found


def plan_height(facts: HeightFacts) -> HeightPlan:
    """Decide with which snapshot height, if any, the core is to be started."""
    try:
        text = flag_value(facts.core_args, SNAPSHOT_HEIGHT)
    except FlagWithoutValue as problem:
        return _refuse(str(problem), problem.next_step)
    if text is None:
        return _without_own(facts)
    own = int(text) if _INTEGER.fullmatch(text) else None
    if own is None or not -(2**63) <= own < 2**63:
        return _refuse(
            f"{SNAPSHOT_HEIGHT} in the run configuration is {text[:40]!r}, which is no block height",
            f"correct it, or remove {SNAPSHOT_HEIGHT}",
        )
    if facts.upgrade_height is not None and 0 < own < facts.upgrade_height:
        return _stale(own, facts.upgrade_height, _without_own(facts))
    return _keep(own, facts)


def _refuse(reason: str, next_step: str | None) -> HeightPlan:
    return HeightPlan(action=HeightAction.REFUSE, reason=reason, next_step=next_step)


def _nothing(reason: str, *, warning: str | None = None, next_step: str | None = None) -> HeightPlan:
    return HeightPlan(action=HeightAction.NOTHING, reason=reason, warning=warning, next_step=next_step)


def _without_own(facts: HeightFacts) -> HeightPlan:
    """The plan when the operator's own flag says nothing."""
    if (
        facts.upgrade_height is not None
        and facts.refused_height == facts.upgrade_height
        and not _ran_on(facts)
    ):
        # On every kind of start: the one that was refused may have been the first, and a plain start after it
        # would quietly begin below the upgrade.
        return _refuse(
            f"the core has no snapshot of its upgrade height {facts.upgrade_height}, and from an earlier one "
            "the new release would execute blocks of the old one",
            "let the old release reach the upgrade height again, or restore the node from a snapshot of the "
            "network",
        )
    match facts.kind:
        case StartKind.FIRST_AFTER_UPGRADE:
            assert facts.upgrade_height is not None
            return _first_after_upgrade(facts, facts.upgrade_height)
        case StartKind.ORDINARY | StartKind.AFTER_CRASH:
            return _restart(facts)


def _ran_on(facts: HeightFacts) -> bool:
    """Whether the data node's history lies beyond the upgrade: only the new release can have come so far."""
    history, upgrade_height = facts.history, facts.upgrade_height
    return isinstance(history, Segment) and upgrade_height is not None and history.to_height > upgrade_height


def _first_after_upgrade(facts: HeightFacts, upgrade_height: int) -> HeightPlan:
    history = facts.history
    if _ran_on(facts):
        # This is not the first start after all.
        return _restart(facts)
    plan = HeightPlan(
        action=HeightAction.PASS,
        height=upgrade_height,
        reason=f"the first start after the upgrade at height {upgrade_height}",
    )
    if isinstance(history, Segment) and history.to_height < upgrade_height:
        return _warned(
            plan,
            f"the data node's history ends at {history.to_height}, before the upgrade height "
            f"{upgrade_height}: it may refuse the core's first block",
        )
    return plan


def _restart(facts: HeightFacts) -> HeightPlan:
    match facts.history:
        case NoDataNode():
            return _nothing("the core goes on from its latest snapshot")
        case NoSegment():
            return _nothing("the data node has no history yet, so the core goes on from its latest snapshot")
        case NotAsked():
            reason = "the core goes on from its latest snapshot"
            if facts.kind is StartKind.AFTER_CRASH:
                return _nothing(reason, warning="The data node's history was not asked for before a restart.")
            return _nothing(reason)
        case Unreadable(problem):
            return _nothing(
                "the data node's history cannot be read, so the core goes on from its latest snapshot",
                warning=f"The data node's history cannot be read: {problem}. If the core goes on beyond the "
                "data node's next block, the data node will end.",
                next_step="run the data node's network-history command by hand while the node is down",
            )
        case Segment(to_height=height):
            return _from_segment(facts, height)


def _from_segment(facts: HeightFacts, height: int) -> HeightPlan:
    if facts.upgrade_height is not None and height < facts.upgrade_height:
        return _nothing(
            "the data node's latest segment is from before the upgrade, so the core goes on from its latest "
            "snapshot",
            warning=f"The data node's history ends at {height}, before the upgrade height "
            f"{facts.upgrade_height}; the new release must not execute blocks from there.",
            next_step="see the data node's log: since the upgrade it has published no history",
        )
    if height == facts.refused_height:
        return _nothing(
            f"the core has no snapshot of height {height}, so it goes on from its latest one",
            warning=f"The core has no snapshot of height {height}, where the data node's history ends. If "
            "it goes on beyond the data node's next block, the data node will end.",
            next_step="if the data node ends with a block height that is too high, restore it from network "
            "history",
        )
    return HeightPlan(
        action=HeightAction.PASS, height=height, reason=f"the data node's history ends at height {height}"
    )


def _stale(own: int, upgrade_height: int, plan: HeightPlan) -> HeightPlan:
    return _warned(
        plan,
        f"{SNAPSHOT_HEIGHT} in the run configuration is {own}, from before the upgrade at {upgrade_height}; "
        "it is not used, because the new release must not execute blocks from there",
        f"remove {SNAPSHOT_HEIGHT} from the run configuration",
    )


def _keep(own: int, facts: HeightFacts) -> HeightPlan:
    plan = HeightPlan(
        action=HeightAction.KEEP, reason=f"the run configuration has {SNAPSHOT_HEIGHT} {own} of its own"
    )
    if own <= 0:
        return plan
    if own == facts.refused_height:
        return _warned(
            plan,
            f"the core has no snapshot of height {own}, which the run configuration asks for",
            f"remove {SNAPSHOT_HEIGHT} from the run configuration, or correct it",
        )
    match facts.kind:
        case StartKind.FIRST_AFTER_UPGRADE if own != facts.upgrade_height:
            return _warned(
                plan,
                f"{SNAPSHOT_HEIGHT} in the run configuration is {own}, beyond the upgrade height "
                f"{facts.upgrade_height}",
                f"if the core finds no snapshot of it, remove {SNAPSHOT_HEIGHT} from the run configuration",
            )
        case StartKind.AFTER_CRASH:
            return _warned(
                plan,
                f"{SNAPSHOT_HEIGHT} {own} of the run configuration is loaded again after a crash, which "
                "deletes all later snapshots",
                f"remove {SNAPSHOT_HEIGHT} from the run configuration once it has served its purpose",
            )
        case _:
            return plan


def _warned(plan: HeightPlan, clause: str, next_step: str | None = None) -> HeightPlan:
    """The same plan with one more warning."""
    sentence = f"{clause[0].upper() if clause[0].isalpha() else clause[0]}{clause[1:]}."
    return HeightPlan(
        action=plan.action,
        height=plan.height,
        reason=plan.reason,
        warning=sentence if plan.warning is None else f"{sentence} {plan.warning}",
        next_step=next_step or plan.next_step,
    )
