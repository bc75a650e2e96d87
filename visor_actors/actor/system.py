"""A running tree: the root supervisor's loop in the thread that calls :meth:`ActorSystem.run`, and the way
in from outside."""

from __future__ import annotations

import enum
import random
import threading
from collections.abc import Callable, Mapping

from msgspec import Struct

from visor_actors.actor.cell import Cell, Injection, on_an_actors_thread
from visor_actors.actor.clock import Clock, MonotonicClock
from visor_actors.actor.errors import AskTimedOut, BlockingAskInActor, ReceiverDied, SystemAlreadyRan
from visor_actors.actor.events import ActorEvent, ExitReason
from visor_actors.actor.failure import Failure
from visor_actors.actor.messages import Address, Reply, Request, Token
from visor_actors.actor.requests import BlockingPort
from visor_actors.actor.runtime import Runtime
from visor_actors.actor.snapshot import NodeSnapshot, snapshot
from visor_actors.actor.spec import SupervisionSettings, SupervisorSpec, validate, walk
from visor_actors.actor.supervisor_cell import Callback, SettingsChanged, SupervisorCell

MAX_ABANDONED = 8


class OutcomeKind(enum.Enum):
    """Why the root's loop has ended."""

    STOPPED = "stopped"  # stop() was called
    START_FAILED = "start failed"  # a child's first start
    ESCALATED = "escalated"  # the root's budget was exhausted
    CRASHED = "crashed"  # the root supervisor itself
    TOO_MANY_ABANDONED = "too many abandoned threads"


class Outcome(Struct, frozen=True, kw_only=True):
    """How a run ended. Every child has been stopped, or abandoned and told of, in each case."""

    kind: OutcomeKind
    failure: Failure | None = None


_KINDS = {
    ExitReason.REQUESTED: OutcomeKind.STOPPED,
    ExitReason.START_FAILED: OutcomeKind.START_FAILED,
    ExitReason.ESCALATED: OutcomeKind.ESCALATED,
}


class ActorSystem:
    """One supervision tree. It runs once.

    ``on_event`` gets every :data:`ActorEvent`, one at a time, on a thread of its own. More than
    ``max_abandoned`` threads that could not be ended stop the system: the process should then be started
    anew. Raises SpecInvalid for a faulty tree.
    """

    def __init__(
        self,
        root: SupervisorSpec,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        on_event: Callable[[ActorEvent], None] | None = None,
        max_abandoned: int = MAX_ABANDONED,
    ) -> None:
        validate(root)
        self._runtime = Runtime(
            root=root,
            clock=clock or MonotonicClock(),
            rng=rng or random.Random(),
            on_event=on_event or _ignore,
            max_abandoned=max_abandoned,
            on_abandoned_limit=self._on_abandoned_limit,
        )
        self._lock = threading.Lock()
        self._ran = False
        self._too_many = False
        slot = self._runtime.switchboard.slot(root.id)
        self._root = SupervisorCell(self._runtime, slot, 1, report=_ignore)

    def run(self) -> Outcome:
        """Start the tree and serve its root in the calling thread until :meth:`stop`, or until it cannot go
        on.

        Returns when every child has ended or was abandoned. Raises SystemAlreadyRan the second time. A
        KeyboardInterrupt stops the tree in order (the second one gives the children up); it is noticed at
        once only if ``signal.set_wakeup_fd`` writes to a descriptor that is watched here.
        """
        with self._lock:
            if self._ran:
                raise SystemAlreadyRan("this ActorSystem has run; make a new one")
            self._ran = True
        self._runtime.publisher.start()
        try:
            self._root.slot.attach(self._root.actor_inbox, 1)
            self._root.live()
        finally:
            for spec in walk(self._runtime.declared):
                self._runtime.switchboard.slot(spec.id).retire()
            self._runtime.publisher.stop()
        if self._too_many:
            return Outcome(kind=OutcomeKind.TOO_MANY_ABANDONED)
        reason, failure = self._root.ending()
        return Outcome(kind=_KINDS.get(reason, OutcomeKind.CRASHED), failure=failure)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` on the root's loop whenever ``fd`` is readable. Before :meth:`run`, or on the
        root's loop.

        The callback must read ``fd`` and be quick: the root supervises nothing meanwhile.
        """
        self._root.actor_inbox.watch(fd, Callback(callback))

    def stop(self) -> None:
        """Have the children stopped in reverse order, each within its deadline. Returns at once; any
        thread, any time."""
        self._root.order_stop()

    def tell(self, to: Address, message: object) -> None:
        """Send ``message``. Any thread; never raises or blocks; what cannot be delivered is a dead letter."""
        self._runtime.switchboard.deliver(to, message)

    def ask(self, to: Address, body: object, *, timeout: float) -> object:
        """Send a Request and block for its answer, at most ``timeout`` seconds. For threads that are no
        actors.

        Raises AskTimedOut, ReceiverDied (at once, if the receiver ends or does not run) or
        BlockingAskInActor.
        """
        if on_an_actors_thread():
            raise BlockingAskInActor(f"an actor must not wait for {to}; use context.request")
        port = BlockingPort()
        now = self._runtime.clock.now()
        self._runtime.switchboard.deliver(to, Request(body, Token(), None, now + timeout, port))
        answer = port.wait(timeout)
        if isinstance(answer, Reply):
            return answer.value
        if answer is None:
            failure = Failure("AskTimedOut", f"{to} did not answer within {timeout:g} s")
            raise AskTimedOut(failure.message, receiver=to.name, failure=failure)
        raise ReceiverDied(str(answer.failure), receiver=to.name, failure=answer.failure)

    def inject(self, to: Address, action: Callable[[], None]) -> None:
        """Run ``action`` on the thread of the actor or supervisor behind ``to``, before its waiting messages.

        Fault injection: what ``action`` raises is a crash, what it waits for is a hang. Nothing happens if
        nobody serves there.
        """
        cell = self._find(self._root, to.name)
        if cell is not None:
            cell.actor_inbox.control(Injection(action))

    def reconfigure(self, settings: Mapping[str, SupervisionSettings]) -> None:
        """Let ``settings`` (by id, or EVERYWHERE) take the place of those given before, in the running tree
        too.

        Raises SpecInvalid, and changes nothing then. Any thread. Delays that are running already stay as
        they are.
        """
        self._runtime.configure(settings)
        self._root.actor_inbox.control(SettingsChanged())

    def tree(self) -> NodeSnapshot:
        """Return what the tree looks like now. Any thread, at any time; asks no actor anything."""
        return snapshot(self._runtime, self._root)

    @property
    def dead_letters(self) -> int:
        """How many messages reached nobody so far."""
        return self._runtime.switchboard.dead_letters

    @property
    def abandoned(self) -> int:
        """How many threads were given up and still live."""
        return self._runtime.abandoned.count

    @property
    def handler_failures(self) -> int:
        """How often ``on_event`` raised."""
        return self._runtime.publisher.failures

    @property
    def lost_events(self) -> int:
        """How many events ``on_event`` was too slow for, or that came after the end of the run."""
        return self._runtime.publisher.lost

    def _find(self, supervisor: SupervisorCell, name: str) -> Cell | None:
        if supervisor.slot.name == name:
            return supervisor
        for cell in list(supervisor.cells.values()):
            found = self._find(cell, name) if isinstance(cell, SupervisorCell) else None
            if found is None and cell.slot.name == name:
                found = cell
            if found is not None:
                return found
        return None

    def _on_abandoned_limit(self) -> None:
        self._too_many = True
        self.stop()


def _ignore(_: object) -> None:
    return
