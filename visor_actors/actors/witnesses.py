"""Asking the witnesses of an upgrade height when the node died before anyone saw it ready.

What they say is weighed in :mod:`visor_actors.node.witness`; here they are only found: the validator's
signature file, the last lines of the core's output, the data node's history, and the heights REST told while
the core lived.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from visor_actors.home.errors import HomeError
from visor_actors.home.journal import Json
from visor_actors.home.layout import HomeLayout
from visor_actors.home.run_config import RunConfig, load_run_config
from visor_actors.node.arguments import FlagWithoutValue, Role, command_line, tendermint_home_of
from visor_actors.node.command import Cancellation
from visor_actors.node.history import Segment, latest_segment
from visor_actors.node.logs_reader import last_lines, log_path
from visor_actors.node.witness import (
    HeightVerdict,
    LogEvidence,
    RestHeight,
    SignedHeight,
    Witnesses,
    judge_height_done,
    read_log,
    read_signed_height,
)

LAST_HEIGHT_KEY = "core.last-height"
"""Journal: the last height REST told, when, the pace, and the incarnation of the core it was told by; Unix
seconds, blocks a second."""
LAST_EXIT_KEY = "core.last-exit"
"""Journal: when and how the core ended last, which incarnation that was, and its last lines where they are
known."""
HISTORY_SECONDS = 10.0
LOG_LINES = 400


class Memory(Struct, frozen=True, kw_only=True):
    """What visor itself remembers of the core that ended. Times are Unix seconds.

    ``in_order``: it was asked to stop and ended with exit code 0.
    """

    height: int | None = None
    height_at: float = 0.0
    pace: float | None = None
    ended_at: float | None = None
    last_lines: tuple[str, ...] = ()
    in_order: bool = False

    @classmethod
    def recall(cls, last_height: Json, last_exit: Json, *, incarnation: int) -> Memory:
        """Build from what the journal holds under the two keys; what is not understood is not remembered,
        nor what speaks of another core than ``incarnation``, the one that ended last.
        """
        memory = cls()
        if isinstance(last_exit, Mapping) and last_exit.get("incarnation") == incarnation:
            lines = last_exit.get("lines")
            memory = cls(
                ended_at=_number(last_exit.get("at")),
                last_lines=tuple(str(line) for line in lines) if isinstance(lines, list) else (),
                in_order=last_exit.get("requested") is True and last_exit.get("code") == 0,
            )
        if isinstance(last_height, Mapping) and last_height.get("incarnation") == incarnation:
            height, at = last_height.get("height"), _number(last_height.get("at"))
            if isinstance(height, int) and not isinstance(height, bool) and at is not None:
                return replace(memory, height=height, height_at=at, pace=_number(last_height.get("pace")))
        return memory

    def rest(self, now: float) -> RestHeight | None:
        """The height REST told, with its age at the core's end."""
        if self.height is None:
            return None
        ended = self.ended_at if self.ended_at is not None and self.ended_at >= self.height_at else now
        return RestHeight(height=self.height, age=max(0.0, ended - self.height_at), pace=self.pace)


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def gather_and_judge(
    layout: HomeLayout,
    upgrade_height: int,
    memory: Memory,
    *,
    now: float,
    cancel: Cancellation | None = None,
) -> HeightVerdict:
    """Ask every witness there is about ``upgrade_height``, for the node that ``current`` leads to and that is
    down. Run it as a job.
    """
    signed: SignedHeight | None = None
    segment_end: int | None = None
    try:
        run_config = load_run_config(layout.current)
        signed = _signed(run_config, memory.ended_at)
        segment_end = _segment_end(run_config, cancel)
    except (HomeError, FlagWithoutValue):
        pass  # without a readable run configuration these two cannot be found; the others may still know
    witnesses = Witnesses(
        signed=signed,
        log=_log(layout, memory),
        rest=memory.rest(now),
        segment_end=segment_end,
        stopped_in_order=memory.in_order,
    )
    return judge_height_done(upgrade_height, witnesses)


def _log(layout: HomeLayout, memory: Memory) -> LogEvidence | None:
    """The last lines of the core that ended, and what its log file says of snapshots.

    Only a few lines of a run are kept, and a file reaches back into earlier runs. So what they say counts and
    their silence does not; and of the file only snapshots count, for those name their height.
    """
    last = read_log(memory.last_lines, reaches_the_end=False)
    lines = last_lines(log_path(layout.logs, Role.CORE.value), LOG_LINES)
    file = read_log((line.decode("utf-8", "replace") for line in lines), reaches_the_end=False)
    if not memory.last_lines and not lines:
        return None
    return LogEvidence(marked=last.marked, snapshots=(*file.snapshots, *last.snapshots), tells=False)


def _signed(run_config: RunConfig, ended_at: float | None) -> SignedHeight | None:
    core = run_config.core
    home = tendermint_home_of(core.args, core.env or None, user=core.user)
    return read_signed_height(home, ended_at=ended_at)


def _segment_end(run_config: RunConfig, cancel: Cancellation | None) -> int | None:
    if run_config.data_node is None:
        return None
    command = command_line(run_config, Role.DATA_NODE)
    match latest_segment(command, timeout=HISTORY_SECONDS, cancel=cancel):
        case Segment(to_height=height):
            return height
        case _:
            return None
