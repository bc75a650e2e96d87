"""The coordinator's view of the node, and its answers to the lifecycle's question what to run.

Runs on the coordinator's thread. Every answer names the question it belongs to, so one that comes late is
ignored.
"""

from __future__ import annotations

from visor_actors.actor import Context
from visor_actors.actors.addresses import LIFECYCLE
from visor_actors.actors.ledger import Key
from visor_actors.actors.messages import HoldOrder, NodePhase, NodeState, Occasion, RecycleNode, RunOrder
from visor_actors.actors.upgrade_machine import NodeIs
from visor_actors.actors.world import World

_PHASE_IS = {
    NodePhase.UNKNOWN: NodeIs.UNKNOWN,
    NodePhase.ASKING: NodeIs.DOWN,
    NodePhase.HELD: NodeIs.DOWN,
    NodePhase.PLANNING: NodeIs.COMING_UP,
    NodePhase.STARTING: NodeIs.COMING_UP,
    NodePhase.RUNNING: NodeIs.UP,
    NodePhase.STOPPING: NodeIs.GOING_DOWN,
    NodePhase.WAITING: NodeIs.GOING_DOWN,
    NodePhase.STOPPED: NodeIs.UNKNOWN,
    NodePhase.GAVE_UP: NodeIs.UNKNOWN,
}


class NodeOrders:
    """See the module. ``state`` is what the lifecycle said last, None before it said anything."""

    def __init__(self, context: Context, world: World) -> None:
        self._context = context
        self._world = world
        self._stopped: tuple[Key, int] | None = None
        self.state: NodeState | None = None

    @property
    def node(self) -> NodeIs:
        """The node as far as a switch cares."""
        if self.state is None:
            return NodeIs.UNKNOWN
        known = _PHASE_IS[self.state.phase]
        return NodeIs.FOUND if known is NodeIs.DOWN and self.state.occupied else known

    @property
    def asked(self) -> bool:
        """Whether the lifecycle waits for an answer."""
        return self.node in (NodeIs.DOWN, NodeIs.FOUND)

    def runs(self, core: str) -> bool:
        """Whether the node is up, with this core."""
        return self.node is NodeIs.UP and self.state is not None and self.state.core == core

    def run(
        self, folder: str, *, upgrade_height: int | None, occasion: Occasion = Occasion.ANY_OTHER
    ) -> None:
        """Answer: run ``folder``. What runs already is taken over and never started."""
        if self.state is None or not self.asked:
            return
        order = RunOrder(
            ask=self.state.ask,
            folder=self._world.layout.root / folder,
            upgrade_height=upgrade_height,
            occasion=Occasion.TAKE_OVER if self.node is NodeIs.FOUND else occasion,
        )
        self._context.tell(LIFECYCLE, order)

    def hold(self, reason: str) -> None:
        """Answer: start nothing now."""
        if self.state is not None and self.asked:
            self._context.tell(LIFECYCLE, HoldOrder(ask=self.state.ask, reason=reason))

    def stop(self, upgrade: Key) -> None:
        """Have the node stopped for this upgrade; said once for each run of the node."""
        assert self.state is not None
        run = (upgrade, self.state.ask)
        if self._stopped != run:
            self._stopped = run
            self._context.tell(LIFECYCLE, RecycleNode(reason=f"upgrade to {upgrade[0]}"))
