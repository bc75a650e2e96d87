"""Why nothing is started at the moment, in words an operator can act upon. Pure."""

from __future__ import annotations

from msgspec import Struct

from visor_actors.actors.ledger import Entry
from visor_actors.actors.upgrade_machine import PENDING


class HoldReason(Struct, frozen=True, kw_only=True):
    """A sentence, and what to do. ``next_step`` None: nothing, it is over in a moment."""

    reason: str
    next_step: str | None


def why_held(entry: Entry, *, held: bool, problem: str | None, remedy: str | None) -> HoldReason:
    """Why ``entry`` keeps the node from being started.

    ``held``: the operator or a hook holds it. ``problem`` and ``remedy`` are its folder's.
    """
    tag, height = entry.key
    if entry.upgrade.state in PENDING:
        return HoldReason(
            reason=f"the node died before the upgrade to {tag}, and no witness can tell whether height "
            f"{height} is done; an old binary past its height would ruin its state",
            next_step="find out the last height from the core's log or the network. Not done: "
            "`visor-actors upgrades resume` starts the old node again. "
            f"Done: point `current` to {entry.folder}",
        )
    if held:
        return HoldReason(
            reason=f"the upgrade to {tag} is held",
            next_step=f"`visor-actors upgrades resume {tag}` lets it go on",
        )
    if problem is None:
        return HoldReason(reason=f"the folder of {tag} is being checked", next_step=None)
    return HoldReason(
        reason=f"height {height} is done, so the old node must not run, and {tag} is not prepared: {problem}",
        next_step=remedy or "see `visor-actors upgrades list`",
    )


def why_standing(problem: str) -> HoldReason:
    """Why a core that has done an upgrade height, which visor does not act upon, is not started again."""
    return HoldReason(
        reason=f"the core had done an upgrade height, so its binary must not go on: {problem}",
        next_step="point `current` to the release that the network runs now, then `visor-actors run`; "
        "`visor-actors upgrades resume` starts the old binary all the same",
    )
