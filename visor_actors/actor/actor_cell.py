"""The incarnation of an actor: runs the user's class, and is the world its context shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import TypeVar

from msgspec import Struct

from visor_actors.actor.actor import Actor, Context
from visor_actors.actor.cell import Cell, Injection, StopOrder
from visor_actors.actor.decisions import ChildStarted
from visor_actors.actor.errors import WrongThread
from visor_actors.actor.events import DeadLetterReason, ExitReason
from visor_actors.actor.failure import Failure
from visor_actors.actor.inbox import Closed
from visor_actors.actor.jobs import JobEnded, JobExpired, Jobs
from visor_actors.actor.messages import Address, CancelToken, Reply, Request, RequestFailed, Token
from visor_actors.actor.requests import InboxPort
from visor_actors.actor.runtime import Runtime
from visor_actors.actor.spec import ChildSpec
from visor_actors.actor.switchboard import Replayed, Slot, is_replayable

T = TypeVar("T")

_OUTSTANDING_BEFORE_PRUNING = 512


class _RequestExpired(Struct, frozen=True):
    token: Token
    to: str
    timeout: float


class ActorCell(Cell):
    """One incarnation of one actor."""

    def __init__(
        self,
        runtime: Runtime,
        slot: Slot,
        generation: int,
        *,
        spec: ChildSpec,
        report: Callable[[object], object],
    ) -> None:
        super().__init__(runtime, slot, generation, capacity=spec.capacity, report=report)
        self._factory = spec.factory
        self._actor: Actor | None = None
        self._handle: Callable[[object], None] = _nobody
        self.context = LiveContext(self)
        self.jobs = Jobs(f"{slot.name}#{generation}", self.actor_inbox)
        self.port = InboxPort(self.actor_inbox, slot)
        self.asked: dict[Token, None] = {}  # requests of this actor that are not answered yet
        self.owed: dict[Token, Request] = {}  # requests to this actor that it has not answered yet
        self._prune_at = _OUTSTANDING_BEFORE_PRUNING

    def on_start(self) -> None:
        """Build the actor and initialise it; the supervisor hears of it either way."""
        if self.stop_ordered or self.fenced:
            self.finish(ExitReason.REQUESTED)
            return
        try:
            self._actor = self._factory(self.context)
            self._handle = self._actor.handle
            self._actor.init()
        except BaseException as error:
            self.fail(error, ExitReason.START_FAILED)
        else:
            if not self.fenced:
                self._report(ChildStarted(self.slot.name, self.generation))

    def dispatch(self, message: object) -> None:
        """Hand ``message`` to the actor, unless it is the runtime's own."""
        special = _SPECIAL.get(type(message))
        if special is None:
            self._handle(message)
        else:
            special(self, message)

    def _dispatch_order(self, message: object) -> None:
        super().dispatch(message)

    def _dispatch_replayed(self, message: Replayed) -> None:
        self.dispatch(message.message)

    def _dispatch_request(self, request: Request) -> None:
        if len(self.owed) >= self._prune_at:
            self._forget_expired()
        self.owed[request.token] = request
        self._handle(request)

    def _forget_expired(self) -> None:
        """Drop what nobody waits for any more. Other threads may answer, and settle, at the same time."""
        now = self._now()
        for token, request in list(self.owed.items()):
            if request.expires <= now:
                self.owed.pop(token, None)
        self._prune_at = max(_OUTSTANDING_BEFORE_PRUNING, 2 * len(self.owed))

    def _dispatch_answer(self, answer: Reply | RequestFailed) -> None:
        if answer.token not in self.asked:
            self.slot.dead(answer, DeadLetterReason.LATE_ANSWER)
            return
        del self.asked[answer.token]
        self.actor_inbox.cancel(answer.token)
        self._handle(answer)

    def _dispatch_expired(self, expired: _RequestExpired) -> None:
        if self.asked.pop(expired.token, self) is None:
            failure = Failure("AskTimedOut", f"{expired.to} did not answer within {expired.timeout:g} s")
            self._handle(RequestFailed(expired.token, failure))

    def _dispatch_job(self, event: JobEnded | JobExpired) -> None:
        result = self.jobs.accept(event)
        if result is not None:
            self._handle(result)

    def _condemn(self, message: object) -> None:
        deaths = 1
        if isinstance(message, Replayed):
            deaths += message.deaths
            message = message.message
        if type(message) in _SPECIAL and not isinstance(message, Request):
            return
        if not is_replayable(message):
            return  # lost with its incarnation, as every hint may be; whoever asked is told by clean_up
        if isinstance(message, Request):
            self.owed.pop(message.token, None)
        self.slot.take_back(message, deaths=deaths)

    def clean_up(self) -> None:
        """Let the actor terminate, then settle everything that others wait for."""
        try:
            if self._actor is not None:
                self._actor.terminate()
        finally:
            self.settle()
            self._actor = None
            self._handle = _nobody

    def settle(self) -> None:
        """Cancel the jobs and fail every request that this incarnation owes an answer to. Any thread."""
        self.jobs.cancel_all()
        cause = self._failure
        failure = Failure("ReceiverDied", f"{self.slot.name} ended before it answered", cause=cause)
        while self.owed:
            try:
                token, request = self.owed.popitem()
            except KeyError:
                return
            request.port.answer(RequestFailed(token, failure))

    def fence(self, reason: ExitReason) -> None:
        """Give up, and settle at once what the hung thread never will."""
        super().fence(reason)
        self.settle()

    def _leftover(self, message: object) -> None:
        if type(message) in _SPECIAL and not isinstance(message, Request | Replayed):
            if isinstance(message, Reply | RequestFailed):
                self.slot.dead(message, DeadLetterReason.LATE_ANSWER)
            return
        super()._leftover(message)


_SPECIAL: dict[type, Callable[[ActorCell, object], None]] = {
    StopOrder: ActorCell._dispatch_order,
    Closed: ActorCell._dispatch_order,
    Injection: ActorCell._dispatch_order,
    Replayed: ActorCell._dispatch_replayed,  # type: ignore[dict-item]  # the key is the type of the argument
    Request: ActorCell._dispatch_request,  # type: ignore[dict-item]  # the same
    Reply: ActorCell._dispatch_answer,  # type: ignore[dict-item]  # the same
    RequestFailed: ActorCell._dispatch_answer,  # type: ignore[dict-item]  # the same
    _RequestExpired: ActorCell._dispatch_expired,  # type: ignore[dict-item]  # the same
    JobEnded: ActorCell._dispatch_job,  # type: ignore[dict-item]  # the same
    JobExpired: ActorCell._dispatch_job,  # type: ignore[dict-item]  # the same
}


def _nobody(message: object) -> None:
    raise AssertionError(f"{message!r} was dispatched without an actor")


class LiveContext(Context):
    """The context of a running incarnation."""

    __slots__ = ("_address", "_cell", "_deliver")

    def __init__(self, cell: ActorCell) -> None:
        self._cell = cell
        self._address = Address(cell.slot.name)
        self._deliver = cell.runtime.switchboard.deliver

    @property
    def address(self) -> Address:
        """See the base class."""
        return self._address

    @property
    def generation(self) -> int:
        """See the base class."""
        return self._cell.generation

    @property
    def fenced(self) -> bool:
        """See the base class."""
        return self._cell.fenced

    def now(self) -> float:
        """See the base class."""
        return self._cell.runtime.clock.now()

    def tell(self, to: Address, message: object) -> None:
        """See the base class."""
        if self._cell.fenced:
            self._cell.slot.dead(message, DeadLetterReason.SENDER_FENCED)
        else:
            self._deliver(to, message)

    def after(self, delay: float, message: object, *, key: Hashable | None = None) -> None:
        """See the base class."""
        if self._usable(message):
            self._cell.actor_inbox.arm(delay, message, None if key is None else ("user", key))

    def cancel(self, key: Hashable) -> None:
        """See the base class."""
        if self._usable():
            self._cell.actor_inbox.cancel(("user", key))

    def watch(self, fd: int, message: object) -> None:
        """See the base class."""
        if self._usable():
            self._cell.actor_inbox.watch(fd, message)

    def unwatch(self, fd: int) -> None:
        """See the base class."""
        if self._usable():
            self._cell.actor_inbox.unwatch(fd)

    def request(self, to: Address, body: object, *, timeout: float) -> Token:
        """See the base class."""
        if not 0 < timeout < math.inf:
            raise ValueError(f"a request to {to} needs a finite timeout above 0 seconds, not {timeout!r}")
        token = Token()
        cell = self._cell
        if self._usable(body):
            cell.asked[token] = None
            cell.actor_inbox.arm(timeout, _RequestExpired(token, to.name, timeout), token)
            self._deliver(to, Request(body, token, self._address, self.now() + timeout, cell.port))
        return token

    def reply(self, request: Request, value: object) -> None:
        """See the base class."""
        if self._cell.fenced:
            self._cell.slot.dead(value, DeadLetterReason.SENDER_FENCED)
            return
        self._cell.owed.pop(request.token, None)
        request.port.answer(Reply(request.token, value))

    def run_job(
        self, function: Callable[[CancelToken], T], *, key: Hashable, timeout: float | None = None
    ) -> None:
        """See the base class."""
        if self._usable():
            self._cell.jobs.run(function, key, timeout)

    def cancel_job(self, key: Hashable) -> None:
        """See the base class."""
        if self._usable():
            self._cell.jobs.cancel(key)

    def stop(self) -> None:
        """See the base class."""
        if self._usable():
            self._cell.finish(ExitReason.NORMAL)

    def _usable(self, message: object = None) -> bool:
        """Return whether the incarnation counts; what a fenced one would have sent is a dead letter."""
        if self._cell.fenced:
            if message is not None:
                self._cell.slot.dead(message, DeadLetterReason.SENDER_FENCED)
            return False
        if not self._cell.is_own_thread():
            raise WrongThread(
                f"the context of {self._address} was used on another thread than the actor's own"
            )
        return True
