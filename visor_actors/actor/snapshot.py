"""What a tree looks like at one moment, gathered without asking anybody: nothing here can wait for a hung
actor."""

from __future__ import annotations

from msgspec import Struct

from visor_actors.actor.failure import Failure
from visor_actors.actor.ledger import Child, Phase
from visor_actors.actor.lifecycle import ChildState
from visor_actors.actor.runtime import Runtime
from visor_actors.actor.spec import AnySpec, SupervisorSpec
from visor_actors.actor.supervisor_cell import SupervisorCell


class NodeSnapshot(Struct, frozen=True, kw_only=True):
    """One node of the tree.

    ``state``: ``down``, ``waiting`` (for its restart), ``starting``, ``running``, ``stopping`` or
    ``retired``. ``restarts`` counts since its supervisor started. ``busy_seconds`` is how long the current
    message has taken, None when idle.
    """

    id: str
    kind: str
    state: str
    generation: int
    restarts: int
    degraded: bool
    last_failure: Failure | None
    inbox_depth: int
    dead_letters: int
    busy_seconds: float | None
    children: tuple[NodeSnapshot, ...] = ()


_ROOT_STATES = {
    Phase.NEW: "down",
    Phase.STARTING: "starting",
    Phase.RUNNING: "running",
    Phase.STOPPING: "stopping",
    Phase.FINISHED: "down",
}


def snapshot(runtime: Runtime, root: SupervisorCell) -> NodeSnapshot:
    """Return the tree below and with ``root``. Any thread."""
    return _node(runtime, root.spec, root, None, None)


def _node(
    runtime: Runtime,
    spec: AnySpec,
    cell: object,
    child: Child | None,
    parent: SupervisorCell | None,
) -> NodeSnapshot:
    slot = runtime.switchboard.slot(spec.id)
    supervisor = cell if isinstance(cell, SupervisorCell) else None
    children: tuple[NodeSnapshot, ...] = ()
    if isinstance(spec, SupervisorSpec):
        core = supervisor.core if supervisor is not None else None
        children = tuple(
            _node(
                runtime,
                below,
                supervisor.cells.get(below.id) if supervisor is not None else None,
                core.children[below.id] if core is not None else None,
                supervisor,
            )
            for below in spec.children
        )
    if child is not None and parent is not None:
        waiting = child.state is ChildState.DOWN and parent.core.pending_restart(spec.id)
        state = "waiting" if waiting else child.state.value
    else:
        state = _ROOT_STATES[supervisor.core.phase] if supervisor is not None else "down"
    busy = getattr(cell, "busy", None)
    return NodeSnapshot(
        id=spec.id,
        kind="supervisor" if isinstance(spec, SupervisorSpec) else "actor",
        state=state,
        generation=child.generation if child is not None else slot.generation,
        restarts=child.restarts if child is not None else 0,
        degraded=child.degraded if child is not None else False,
        last_failure=child.failure if child is not None else None,
        inbox_depth=slot.depth(),
        dead_letters=slot.dead_letters,
        busy_seconds=runtime.clock.now() - busy[0] if busy is not None else None,
        children=children,
    )
