"""Which folder runs when no upgrade is under way: a pure decision on the link, the journal and what exists.

The first release is never started by accident: once the journal knows an upgrade, a link that is missing or
broken is made again from the journal, and one that leads back to an older release is refused until the
operator says it is meant.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from visor_actors.actors.release_order import is_older
from visor_actors.home.current import (
    CurrentLink,
    LinkDangling,
    LinkedTo,
    LinkMissing,
    OutsideHome,
    RealFolder,
)
from visor_actors.home.layout import GENESIS


class Run(Struct, frozen=True, kw_only=True):
    """Run this folder of the home."""

    folder: str


class Repair(Struct, frozen=True, kw_only=True):
    """Make the link lead to this folder, then run it."""

    folder: str
    reason: str


class Refuse(Struct, frozen=True, kw_only=True):
    """Start nothing."""

    problem: str
    next_step: str


Resolution = Run | Repair | Refuse


def resolve(
    link: CurrentLink,
    expected: str | None,
    exists: Callable[[str], bool],
    *,
    accepted: str | None = None,
) -> Resolution:
    """Decide what to run.

    ``expected`` is the folder of the last upgrade that was switched to, None before the first one; ``exists``
    tells whether a folder of the home exists; ``accepted`` is a folder the operator has explicitly agreed to.
    """
    match link:
        case LinkedTo(name=name):
            if expected is None or name in (expected, accepted):
                return Run(folder=name)
            if name == GENESIS or is_older(name, expected):
                return Refuse(
                    problem=f"`current` leads to {name}, but the node was upgraded to {expected}; "
                    "an older binary past its height would ruin the state",
                    next_step=f"point `current` to {expected}, or, if {name} is really meant, "
                    "`visor-actors upgrades resume`",
                )
            return Run(folder=name)
        case LinkMissing():
            return _make(expected, exists, "it was missing")
        case LinkDangling(target=target):
            return _make(expected, exists, f"it led to {target}, which does not exist")
        case RealFolder(path=path):
            return Refuse(
                problem=f"{path} is not a link but a file or folder of its own",
                next_step=f"move it to a folder with the name of its version, then `ln -s FOLDER {path}`",
            )
        case OutsideHome(target=target):
            return Refuse(
                problem=f"`current` leads out of the home, to {target}",
                next_step="move that folder into the home and point `current` to it",
            )


def _make(expected: str | None, exists: Callable[[str], bool], reason: str) -> Resolution:
    folder = expected if expected is not None else GENESIS
    if exists(folder):
        return Repair(folder=folder, reason=reason)
    if expected is None:
        return Refuse(
            problem=f"the link `current` cannot be made ({reason}): there is no folder {GENESIS}",
            next_step="`visor-actors init` makes one; put run-config.toml and the binaries into it",
        )
    return Refuse(
        problem=f"the link `current` cannot be made ({reason}): the node was upgraded to {expected}, "
        "and that folder does not exist",
        next_step=f"restore the folder {expected}, or fetch it again with `visor-actors prepare`",
    )
