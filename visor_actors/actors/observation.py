"""What a core's answer means for the upgrades in the journal. Pure: no clock, no I/O.

Only *ready*, with a tag and a height that is not done yet, starts a switch. Accepted release information
alone is no more than an announcement: it may change, vanish, or be old news, for a core that was started
from the snapshot of an upgrade shows that upgrade's tag and height once more.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from visor_actors.actors.release_order import is_older
from visor_actors.actors.upgrade_machine import COMMITTED, PENDING, State, Upgrade
from visor_actors.node.upgrade_status import Release, UpgradeStatus

BELIEVED_AFTER_SECONDS = 60.0
"""How long a core that has never shown an upgrade must go on not showing it until it counts as withdrawn."""


class Nothing(Struct, frozen=True, kw_only=True):
    """The status tells nothing new."""


class Announced(Struct, frozen=True, kw_only=True):
    """The network has accepted this upgrade. ``replaces`` are pending ones that it makes void."""

    tag: str
    height: int
    replaces: tuple[Upgrade, ...] = ()


class Withdrawn(Struct, frozen=True, kw_only=True):
    """The core does not show these pending upgrades (any more)."""

    upgrades: tuple[Upgrade, ...]


class Ready(Struct, frozen=True, kw_only=True):
    """The node has done the upgrade's height and waits to be replaced."""

    tag: str
    height: int
    replaces: tuple[Upgrade, ...] = ()


class Suspicious(Struct, frozen=True, kw_only=True):
    """The status must not be acted upon, and somebody should know why.

    ``stands``: the core has done an upgrade height all the same. Should it end, its binary must not be
    started again unless somebody says so.
    """

    problem: str
    next_step: str
    stands: bool = False


Observation = Nothing | Announced | Withdrawn | Ready | Suspicious


def observe(status: UpgradeStatus, ledger: Iterable[Upgrade], running_tag: str | None) -> Observation:
    """Decide what a core's ``status`` means, given the journal and the tag that runs now (None: unknown).

    While an upgrade is committed nothing else is taken in: what the dying core says is void, and what its
    successor says is asked again once the upgrade is confirmed.
    """
    rows = tuple(ledger)
    if any(row.state in COMMITTED for row in rows):
        return Nothing()
    pending = tuple(row for row in rows if row.state in PENDING)
    release = status.release
    if release is None:
        if status.ready:
            return Suspicious(
                problem="the core says it is ready to upgrade but names no release",
                next_step="look at the core's log; visor leaves the node as it is",
                stands=True,
            )
        return Withdrawn(upgrades=pending) if pending else Nothing()
    refusal = _refusal(status, release, rows, running_tag)
    if refusal is not None:
        return refusal
    same = next((row for row in pending if (row.tag, row.height) == (release.tag, release.height)), None)
    others = tuple(row for row in pending if row is not same)
    if status.ready:
        return Ready(tag=release.tag, height=release.height, replaces=others)
    if same is not None and not others:
        return Nothing()
    return Announced(tag=release.tag, height=release.height, replaces=others)


def _refusal(
    status: UpgradeStatus, release: Release, rows: tuple[Upgrade, ...], running_tag: str | None
) -> Nothing | Suspicious | None:
    """Why ``release`` is no upgrade to come; None if it is one."""
    confirmed = [row for row in rows if row.state is State.CONFIRMED]
    if release.tag == running_tag or any(
        (row.tag, row.height) == (release.tag, release.height) for row in confirmed
    ):
        if not status.ready:
            return Nothing()  # the news of before the last switch
        return Suspicious(
            problem=f"the core says it is ready to upgrade to {release.tag}, which runs already",
            next_step="see whether the binary in the folder of `current` is what its name says",
        )
    done = max((row.height for row in confirmed), default=0)
    if release.height <= done:
        return Suspicious(
            problem=f"the network names {release.tag} for height {release.height}, but the upgrade at "
            f"height {done} is done",
            next_step="if the chain was started anew, stop visor and move .visor/journal.db away",
            stands=status.ready,
        )
    if running_tag is not None and is_older(release.tag, running_tag):
        return Suspicious(
            problem=f"the network names {release.tag} for height {release.height}, "
            f"which is older than {running_tag} that runs now",
            next_step="visor refuses to go back; if this is intended, switch by hand: "
            "`visor-actors stop`, point `current` to the folder, `visor-actors run`",
            stands=status.ready,
        )
    return None


class Disappearances:
    """When to believe that a pending upgrade is withdrawn. Pure; one thread.

    At once, if the very core that showed it shows it no more. A core that was started meanwhile may be
    replaying blocks of before the vote: it is believed after :data:`BELIEVED_AFTER_SECONDS`.
    """

    def __init__(self) -> None:
        self._shown_by: dict[tuple[str, int], str] = {}
        self._missing_since: dict[tuple[str, int], tuple[str, float]] = {}

    def shown(self, tag: str, height: int, core: str) -> None:
        """``core`` shows this upgrade."""
        self._shown_by[tag, height] = core
        self._missing_since.pop((tag, height), None)

    def believed(self, tag: str, height: int, core: str, now: float) -> bool:
        """``core`` does not show this upgrade at ``now`` seconds: is it withdrawn?"""
        key = (tag, height)
        if self._shown_by.get(key) == core:
            return True
        by, since = self._missing_since.setdefault(key, (core, now))
        if by != core:
            self._missing_since[key] = (core, now)
            return False
        return now - since >= BELIEVED_AFTER_SECONDS
