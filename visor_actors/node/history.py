"""Ask a data node that is down for its latest history segment: the height from which its core can feed it
again.

The query opens the data node's index exclusively, so it works only while the data node is down (of a running
one it asks the API), and must have ended before the data node starts.
"""

from __future__ import annotations

from msgspec import Struct

from visor_actors.node import bounded_json
from visor_actors.node.arguments import (
    DATANODE,
    HOME,
    Command,
    FlagWithoutValue,
    home_of,
    is_datanode_subcommand,
)
from visor_actors.node.bounded_json import Json
from visor_actors.node.command import Cancellation, CommandFailed, Finished, run

_NO_SEGMENTS = "no history segments found"


class Segment(Struct, frozen=True, kw_only=True):
    """The latest segment. Block heights; ``from_height`` is 0 where the node left it out."""

    from_height: int
    to_height: int
    id: str = ""


class NoSegment(Struct, frozen=True):
    """The data node has no history yet."""


class Unreadable(Struct, frozen=True):
    """The query failed; ``problem`` is a clause that says how."""

    problem: str


HistoryAnswer = Segment | NoSegment | Unreadable


def query_argv(command: Command) -> tuple[str, ...]:
    """The query for the data node that ``command`` starts. Raises :class:`FlagWithoutValue`.

    The sub-command ``datanode`` is given to the one binary only, and ``--home`` only if the data node gets
    one. All brands and versions take the output format in this spelling.
    """
    prefix = (DATANODE,) if is_datanode_subcommand(command) else ()
    home = home_of(command.arguments)
    home_flag = () if home is None else (HOME, home)
    query = ("network-history", "latest-history-segment", *home_flag, "--output", "json")
    return (str(command.executable), *prefix, *query)


def latest_segment(
    command: Command, *, timeout: float = 10.0, cancel: Cancellation | None = None
) -> HistoryAnswer:
    """Ask for the latest segment of the data node that ``command`` starts, as its user, in its folder.

    Blocks for at most ``timeout`` seconds (run it as a job). Never raises for what a node does: that is
    :class:`Unreadable`. A query that hangs is killed with its whole process group.
    """
    try:
        finished = run(query_argv(command), timeout=timeout, cancel=cancel, surroundings=command.surroundings)
    except (CommandFailed, FlagWithoutValue) as failure:
        return Unreadable(failure.problem if isinstance(failure, CommandFailed) else str(failure))
    return interpret(finished)


def interpret(finished: Finished) -> HistoryAnswer:
    """What the ended query says. The answer is one line of JSON on stdout, log lines may surround it."""
    for answer in bounded_json.objects_in(finished.stdout):
        error = answer.get("error")
        if isinstance(error, str) and error:
            return NoSegment() if _NO_SEGMENTS in error else Unreadable(f"the query failed: {error[:300]}")
        if "LatestSegment" in answer:
            return _segment(answer["LatestSegment"])
    said = f": {finished.said}" if finished.said else ""
    return Unreadable(f"the query ended with {finished.ending} and no answer{said}")


def _segment(value: Json) -> HistoryAnswer:
    if not isinstance(value, dict):
        return Unreadable(f"the latest segment is {bounded_json.kind(value)}, not an object")
    to_height, from_height = _height(value.get("to_height")), _height(value.get("from_height", 0))
    if not to_height or from_height is None:
        # Zero and empty fields are left out by the node, so a segment without an end is not one that can be
        # used.
        return Unreadable("the latest segment does not say where it ends")
    identity = value.get("history_segment_id", "")
    return Segment(
        from_height=from_height, to_height=to_height, id=identity if isinstance(identity, str) else ""
    )


def _height(value: Json) -> int | None:
    """Block heights come as numbers; gateways write 64 bit ones as strings."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 19:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        return None
    return value
