"""Is an upgrade's height done, when the core that could tell is dead? What the disk and our memory still
know.

The question must be answered before anything starts: an old release that runs past its height ruins the
node's state. A wrong "done" costs a start that the core itself refuses (it has no snapshot of that height); a
wrong "not done" costs the node. So one witness for "done" outweighs all others, and doubt is said as doubt.

* A validator's consensus engine writes down every height it signs. Before the upgrade block it has signed at
most the
  block before; the block after is begun only when the upgrade block is done.
* The core's log says when the snapshot of the upgrade height is taken and when the core is ready to be shut
down.
* A data node writes a history segment that ends at the upgrade height.
* A core that was asked to stop and ended with exit code 0 was not at its upgrade height: there it would have
  ended by a signal, its own or ours.
* While the core lived, REST told its height, and how fast that grew.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from visor_actors.node import bounded_json
from visor_actors.node.bounded_json import JsonRefused

_MAX_STATE_FILE = 64 * 1024
_SIGNED_LATELY = 10.0  # seconds: an active validator signs a block every second or so
_UNSEEN_BLOCKS_PER_SECOND = 100.0  # nothing is known of the pace: as fast as a core can catch up
_LEAST_BLOCKS_PER_SECOND = 2.0  # the pace of a quiet chain says little about the next seconds
_PACE_MARGIN = 1.5
_HEIGHT_MARGIN = 2

_SNAPSHOT = re.compile(r'Snapshot taken\s*\{[^}]*"height":\s*"?([0-9]{1,19})', re.ASCII)
_READY = re.compile(r"marking \w+ core (?:and data node )?as ready to shut down", re.ASCII)
_IDLE = "application is ready for shutdown"
_WAITING = "waiting for data node to get ready for upgrade"
_INFO = re.compile(r"\bINFO\b")


class SignedHeight(Struct, frozen=True, kw_only=True):
    """The height a validator signed last. ``age``: seconds from that signature to the core's end, None if
    unknown."""

    height: int
    age: float | None = None


class LogEvidence(Struct, frozen=True, kw_only=True):
    """What the last lines of the core's last run say.

    ``marked``: the core said that it is ready to be shut down. ``snapshots`` are the heights of which
    snapshots were taken. ``tells``: lines of that level are logged at all and the tail reaches to the core's
    end, so silence means something.
    """

    marked: bool
    snapshots: tuple[int, ...]
    tells: bool


class RestHeight(Struct, frozen=True, kw_only=True):
    """The last height REST told. ``age``: seconds from then to the core's end (or to now, where that is
    unknown).

    ``pace``: the fastest growth seen, in blocks a second; None if it was asked less than twice.
    """

    height: int
    age: float
    pace: float | None = None


class Witnesses(Struct, frozen=True, kw_only=True):
    """Everything that could be found. None: there is no such witness. ``segment_end`` is the data node's.

    ``stopped_in_order``: the core was asked to stop and ended with exit code 0.
    """

    signed: SignedHeight | None = None
    log: LogEvidence | None = None
    rest: RestHeight | None = None
    segment_end: int | None = None
    stopped_in_order: bool = False


class Doneness(enum.StrEnum):
    """Whether the upgrade block has been executed."""

    DONE = "done"
    NOT_DONE = "not-done"
    UNKNOWN = "unknown"


class HeightVerdict(Struct, frozen=True, kw_only=True):
    """The answer, and the clauses that led to it or that left it open."""

    doneness: Doneness
    because: tuple[str, ...]


def judge_height_done(upgrade_height: int, witnesses: Witnesses) -> HeightVerdict:
    """Decide from what the witnesses say. One that says "done" outweighs all others."""
    done: list[str] = []
    not_done: list[str] = []
    open_: list[str] = []
    _hear_signed(upgrade_height, witnesses, done, not_done, open_)
    _hear_log(upgrade_height, witnesses.log, done, not_done, open_)
    _hear_segment(upgrade_height, witnesses.segment_end, done)
    _hear_rest(upgrade_height, witnesses.rest, done, not_done, open_)
    if witnesses.stopped_in_order:
        not_done.append(
            "the core ended with exit code 0 when it was asked to, which it cannot at its upgrade height"
        )
    if done:
        return HeightVerdict(doneness=Doneness.DONE, because=tuple(done))
    if not_done:
        return HeightVerdict(doneness=Doneness.NOT_DONE, because=tuple(not_done))
    return HeightVerdict(doneness=Doneness.UNKNOWN, because=tuple(open_))


def _hear_signed(
    upgrade_height: int, witnesses: Witnesses, done: list[str], not_done: list[str], open_: list[str]
) -> None:
    signed, rest = witnesses.signed, witnesses.rest
    if signed is None or signed.height == 0:
        open_.append("no validator of this node has signed a block")
    elif signed.height > upgrade_height:
        done.append(f"the validator has signed block {signed.height}, after the upgrade block")
    elif signed.height == upgrade_height:
        open_.append(
            "the validator has signed the upgrade block itself, which may or may not have been executed"
        )
    elif (signed.age is not None and signed.age <= _SIGNED_LATELY) or (rest and signed.height >= rest.height):
        not_done.append(f"the validator was signing, and signed block {signed.height} last")
    else:
        open_.append(
            f"the validator signed block {signed.height} last, but may have fallen silent long before"
        )


def _hear_log(
    upgrade_height: int, log: LogEvidence | None, done: list[str], not_done: list[str], open_: list[str]
) -> None:
    if log is None:
        open_.append("the core's log is not kept where it could be read")
    elif upgrade_height in log.snapshots:
        done.append(f"the core's log says that the snapshot of height {upgrade_height} was taken")
    elif log.marked and not log.snapshots:
        done.append("the core's log says that it is ready to be shut down")
    elif log.tells:
        not_done.append(f"the core's log reaches to its end and has no snapshot of height {upgrade_height}")
    else:
        open_.append("the core's log says nothing of it")


def _hear_segment(upgrade_height: int, segment_end: int | None, done: list[str]) -> None:
    if segment_end is not None and segment_end >= upgrade_height:
        done.append(f"the data node's history reaches height {segment_end}")


def _hear_rest(
    upgrade_height: int, rest: RestHeight | None, done: list[str], not_done: list[str], open_: list[str]
) -> None:
    if rest is None:
        open_.append("the core's REST server told no height")
        return
    if rest.height >= upgrade_height:
        done.append(f"the core was at height {rest.height} when its REST server was asked last")
        return
    pace = _UNSEEN_BLOCKS_PER_SECOND if rest.pace is None else max(_LEAST_BLOCKS_PER_SECOND, rest.pace)
    reach = rest.height + math.ceil(_PACE_MARGIN * pace * max(0.0, rest.age)) + _HEIGHT_MARGIN
    said = f"the core was at height {rest.height} {rest.age:.1f} s before its end"
    if reach < upgrade_height:
        not_done.append(f"{said} and cannot have come to {upgrade_height}")
    else:
        open_.append(f"{said} and may have come to {upgrade_height}")


def read_signed_height(tendermint_home: Path, *, ended_at: float | None = None) -> SignedHeight | None:
    """Read the height this node's validator signed last; None when there is no such file or it cannot be
    understood.

    ``ended_at`` is when the core ended, in Unix seconds. Reads one small file; never raises.
    """
    path = tendermint_home / "data" / "priv_validator_state.json"
    try:
        with path.open("rb") as file:
            written_at = path.stat().st_mtime
            state = bounded_json.parse_object(file.read(_MAX_STATE_FILE))
    except (OSError, JsonRefused):
        return None
    height = state.get("height")
    if isinstance(height, str) and height.isascii() and height.isdecimal() and len(height) <= 19:
        height = int(height)
    if isinstance(height, bool) or not isinstance(height, int) or height < 0:
        return None
    return SignedHeight(height=height, age=None if ended_at is None else max(0.0, ended_at - written_at))


def read_log(lines: Iterable[str], *, reaches_the_end: bool) -> LogEvidence:
    """Interpret the last lines of the core's **last** run, oldest first: those of earlier runs speak of other
    upgrades.

    ``reaches_the_end``: nothing the core wrote after them is missing.
    """
    marked = informative = False
    snapshots: list[int] = []
    for line in lines:
        informative = informative or _INFO.search(line) is not None
        taken = _SNAPSHOT.search(line)
        if taken:
            snapshots.append(int(taken[1]))
        elif _IDLE in line or _WAITING in line or _READY.search(line):
            marked = True
    return LogEvidence(marked=marked, snapshots=tuple(snapshots), tells=reaches_the_end and informative)


class HeightTrack:
    """Remembers the heights REST told in one run of a core: the last one, when, and the fastest growth. Pure;
    one thread."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._pace: float | None = None

    def saw(self, height: int, at: float) -> None:
        """Take a height told at ``at`` seconds (any clock, always the same one)."""
        if self._last is not None and at > self._last[1] and height >= self._last[0]:
            pace = (height - self._last[0]) / (at - self._last[1])
            self._pace = pace if self._pace is None else max(self._pace, pace)
        self._last = (height, at)

    def witness(self, ended_at: float) -> RestHeight | None:
        """What the track testifies about a core that ended at ``ended_at``, by the same clock."""
        if self._last is None:
            return None
        height, at = self._last
        return RestHeight(height=height, age=max(0.0, ended_at - at), pace=self._pace)
