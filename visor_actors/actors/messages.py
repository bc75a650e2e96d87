"""The messages that the node's actors exchange: frozen data, sent to addresses.

A message is a hint. Whoever misses one, because it was being restarted, finds the same truth again in the
shims, the journal and the configuration; that is why most of these carry a whole state and not a change.
``Coalesced`` ones replace an older one that is still waiting in the inbox.

Who sends what::

    lifecycle -> process:*            DescribeSlot, WarmUp, StartBinary, StopBinary, AcknowledgeExit
    process:* -> lifecycle            SlotSeen, SlotUnreachable, BinaryStarted, BinaryRefused, BinaryExited
    lifecycle -> rpc-listener         Listen, StopListening
    lifecycle -> upgrade-coordinator  NodeState
    upgrade-coordinator -> lifecycle  DescribeNode, RunOrder, HoldOrder, RecycleNode, ForgetRestarts
    rpc-listener -> lifecycle         WhoRuns, CoreAnswered, CoreSilent
    rpc-listener -> coordinator       StatusSeen, HeightSeen
    upgrade-coordinator -> listener   SetPace
    main, api -> lifecycle            StopNode, RecycleNode
    api -> upgrade-coordinator        HoldUpgrade, ResumeUpgrade, PrepareUpgrade
"""

from __future__ import annotations

import enum
from pathlib import Path

from msgspec import Struct

from visor_actors.actor import Coalesced, Replayable
from visor_actors.actors.addresses import Slot
from visor_actors.node.admin_rpc import UpgradeStatus
from visor_actors.node.custody_types import ExitRecord, HolderInfo, LaunchOrder, RunningBinary

# lifecycle -> process


class DescribeSlot(Struct, frozen=True, kw_only=True):
    """Say again what is in the slot: a SlotSeen or SlotUnreachable follows."""


class WarmUp(Struct, frozen=True, kw_only=True):
    """Have a shim ready in the slot, so that the next start does not pay for it."""


class StartBinary(Struct, frozen=True, kw_only=True):
    """Start this in the slot. Answered by BinaryStarted or BinaryRefused.

    ``number`` grows with every launch; an order whose number has been carried out already is ignored.
    ``after`` is the last incarnation of the slot that is known of.
    """

    order: LaunchOrder
    number: int
    after: int = 0


class StopBinary(Struct, frozen=True, kw_only=True):
    """End what runs in the slot: ``signal`` to the leader, ``timeout`` seconds, then SIGKILL to the group.

    Answered by BinaryExited when nothing of it is left, or by SlotSeen when nothing ran.
    """

    signal: int
    timeout: float


class AcknowledgeExit(Struct, frozen=True, kw_only=True):
    """The exit of this incarnation is in the journal; the shim may forget it."""

    incarnation: int


# process -> lifecycle


class SlotSeen(Replayable, Struct, frozen=True, kw_only=True):
    """What the slot's shim says right after a connection: who runs, and the unacknowledged exits."""

    slot: Slot
    running: RunningBinary | None
    exits: tuple[ExitRecord, ...] = ()
    held_by: HolderInfo | None = None
    shim_pid: int | None = None


class SlotUnreachable(Replayable, Struct, frozen=True, kw_only=True):
    """The slot's shim can be neither reached nor started at the moment; the process actor keeps trying."""

    slot: Slot
    problem: str


class BinaryStarted(Replayable, Struct, frozen=True, kw_only=True):
    """The binary runs."""

    slot: Slot
    binary: RunningBinary


class BinaryRefused(Replayable, Struct, frozen=True, kw_only=True):
    """The binary could not be started."""

    slot: Slot
    problem: str
    next_step: str | None = None


class BinaryExited(Replayable, Struct, frozen=True, kw_only=True):
    """The binary ended and nothing of it is left."""

    slot: Slot
    record: ExitRecord


# the node's state and what is ordered


class NodePhase(enum.StrEnum):
    """Where the node as a whole is. ``UNKNOWN``: not every slot has reported yet. ``ASKING``: it is down, and
    the coordinator must say what to run. The others say what they are called."""

    UNKNOWN = "unknown"
    ASKING = "asking"
    PLANNING = "planning"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    WAITING = "waiting"
    HELD = "held"
    STOPPED = "stopped"
    GAVE_UP = "gave-up"


class NodeState(Coalesced, Replayable, Struct, frozen=True, kw_only=True):
    """The lifecycle's whole view, sent to the coordinator on every change, and again every second while
    asking.

    ``ask`` numbers the questions "what should run now?"; an answer names the question. ``core`` identifies
    the running core; ``core_incarnation`` is the newest incarnation number of the core's slot, running or
    not, and ``core_lived`` the newest that has answered its RPC or lived long enough to have got anywhere.
    ``occupied``: something of the node runs, in whatever phase.
    """

    phase: NodePhase
    ask: int
    core: str | None = None
    core_argv: tuple[str, ...] = ()
    core_incarnation: int = 0
    core_lived: int = 0
    occupied: bool = False
    failure: str | None = None


class Occasion(enum.StrEnum):
    """Whether an order is for the very first start of a release, at its upgrade height, for any other start,
    or for no start at all: ``TAKE_OVER`` names the folder of what runs already, and starts nothing.
    """

    FIRST_AFTER_UPGRADE = "first after the upgrade"
    ANY_OTHER = "any other"
    TAKE_OVER = "take over what runs"


class RunOrder(Struct, frozen=True, kw_only=True):
    """Run this folder. ``upgrade_height`` is the height that brought its release, None for the first."""

    ask: int
    folder: Path
    upgrade_height: int | None = None
    occasion: Occasion = Occasion.ANY_OTHER


class HoldOrder(Struct, frozen=True, kw_only=True):
    """Do not start anything now. The lifecycle goes on asking."""

    ask: int
    reason: str


class StopPurpose(enum.StrEnum):
    """Why the whole node is stopped for good."""

    SHUTDOWN = "shutdown"
    GAVE_UP = "gave-up"


class StopNode(Replayable, Struct, frozen=True, kw_only=True):
    """Stop the node gracefully and then leave: the operator asked for it."""

    reason: str


class RecycleNode(Replayable, Struct, frozen=True, kw_only=True):
    """Stop the node gracefully, then ask what to run: for an upgrade, or when the operator asks for a
    restart.
    """

    reason: str


class ForgetRestarts(Replayable, Struct, frozen=True, kw_only=True):
    """An upgrade is confirmed: count restarts from zero again."""


# the core's RPC


class Budget(enum.StrEnum):
    """Which connection budget of the configuration counts."""

    FIRST_START = "first start"
    RESTART = "restart"


class Pace(enum.StrEnum):
    """How often the core is asked. ``FAST`` from the acceptance of an upgrade on."""

    NORMAL = "normal"
    FAST = "fast"


class Listen(Replayable, Struct, frozen=True, kw_only=True):
    """Poll this core from now on. ``core`` identifies it and is repeated in everything that is reported about
    it.
    """

    core: str
    brand: str
    socket_path: Path
    http_path: str
    core_home: Path | None
    budget: Budget


class StopListening(Replayable, Struct, frozen=True, kw_only=True):
    """There is no core to poll."""


class SetPace(Replayable, Struct, frozen=True, kw_only=True):
    """Poll at this pace."""

    pace: Pace


class WhoRuns(Replayable, Struct, frozen=True, kw_only=True):
    """The listener has just started: Listen or StopListening is to follow."""


class DescribeNode(Replayable, Struct, frozen=True, kw_only=True):
    """The coordinator has just started: a NodeState is to follow."""


class CoreAnswered(Replayable, Struct, frozen=True, kw_only=True):
    """The core has answered for the first time since Listen."""

    core: str


class CoreSilent(Replayable, Struct, frozen=True, kw_only=True):
    """The core's connection budget is used up, either before a first answer or after it stopped answering."""

    core: str
    problem: str


class StatusSeen(Coalesced, Struct, frozen=True, kw_only=True):
    """What the core said. ``pace`` is the one the listener keeps, in case it has missed a SetPace."""

    core: str
    status: UpgradeStatus
    pace: Pace


class HeightSeen(Coalesced, Struct, frozen=True, kw_only=True):
    """The height the core's REST server told."""

    core: str
    height: int


# operators


class HoldUpgrade(Struct, frozen=True, kw_only=True):
    """Do not switch until told to resume. None: whichever upgrade is pending."""

    tag: str | None


class ResumeUpgrade(Struct, frozen=True, kw_only=True):
    """Go on with what is held, or with what visor refused to decide alone."""

    tag: str | None


class PrepareUpgrade(Struct, frozen=True, kw_only=True):
    """Fetch and check this release now, whether or not the network has accepted it."""

    tag: str
