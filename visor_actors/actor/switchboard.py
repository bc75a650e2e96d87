"""Addresses: which inbox serves behind each now, what waits for the next incarnation, and what reached
nobody.

The ids of a tree are fixed, so looking an address up needs no lock. A slot's lock is taken only when there
is no open inbox.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from msgspec import Struct

from visor_actors.actor.events import DeadLetter, DeadLetterReason
from visor_actors.actor.failure import Failure
from visor_actors.actor.inbox import Inbox, Refusal
from visor_actors.actor.messages import Address, Coalesced, Replayable, Request, RequestFailed

STASH_LIMIT = 256
"""How many replayable messages wait for one address while nobody serves it."""

DEATHS_OF_POISON = 2
"""How many incarnations may die of one message."""


class Replayed(Struct):
    """A message that is delivered once more, after ``deaths`` incarnations died while handling it."""

    message: object
    deaths: int


def is_replayable(message: object) -> bool:
    """Return whether ``message`` may wait for the next incarnation."""
    return isinstance(message.body if isinstance(message, Request) else message, Replayable)


class Slot:
    """One address. All methods may be called from any thread and never raise.

    No inbox is ever called while the lock is held: a closing inbox calls back.
    """

    def __init__(self, name: str, publish: Callable[[DeadLetter], None]) -> None:
        self.name = name
        self.generation = 0
        self.dead_letters = 0
        self._inbox: Inbox | None = None
        self._stash: deque[Replayed] = deque()
        self._retired = False
        self._publish = publish
        self._lock = threading.Lock()

    def depth(self) -> int:
        """Return how many messages wait, in the inbox or for the next one."""
        inbox = self._inbox
        return len(self._stash) + (inbox.depth() if inbox is not None else 0)

    def deliver(self, message: object) -> None:
        """Hand ``message`` to whoever serves, keep it for the next one, or count it as a dead letter."""
        inbox = self._inbox
        if inbox is not None:
            refusal = inbox.offer(message)
            if refusal is None:
                return
            if refusal is Refusal.FULL:
                self.dead(message, DeadLetterReason.INBOX_FULL)
                return
        self.take_back(message, deaths=0)

    def take_back(self, message: object, *, deaths: int) -> None:
        """Take a message that its inbox did not deliver, or that an incarnation died of (``deaths`` of them
        so far)."""
        if isinstance(message, Replayed):
            deaths += message.deaths
            message = message.message
        if deaths >= DEATHS_OF_POISON:
            self.dead(message, DeadLetterReason.POISON)
            return
        while True:
            inbox = self._inbox
            if inbox is not None and not inbox.closed:
                if deaths:
                    if inbox.offer_answer(Replayed(message, deaths)):
                        return
                else:
                    refusal = inbox.offer(message)
                    if refusal is None:
                        return
                    if refusal is Refusal.FULL:
                        self.dead(message, DeadLetterReason.INBOX_FULL)
                        return
            with self._lock:
                if self._inbox is not inbox:
                    continue  # somebody else serves since
                reason = self._keep(message, deaths)
            break
        if reason is not None:
            self.dead(message, reason)

    def _keep(self, message: object, deaths: int) -> DeadLetterReason | None:
        if self._retired or not is_replayable(message):
            return DeadLetterReason.NOT_RUNNING
        if isinstance(message, Coalesced):
            others = deque(kept for kept in self._stash if type(kept.message) is not type(message))
            if deaths and len(others) < len(self._stash):
                return None  # a newer one has come since
            self._stash = others
        if len(self._stash) >= STASH_LIMIT:
            return DeadLetterReason.STASH_FULL
        if deaths:
            self._stash.appendleft(Replayed(message, deaths))  # it came before all that wait
        else:
            self._stash.append(Replayed(message, deaths))
        return None

    def attach(self, inbox: Inbox, generation: int) -> None:
        """Let ``inbox`` serve this address; it first gets what has been waiting."""
        while True:
            with self._lock:
                if generation < self.generation:
                    return  # of a supervisor that was given up meanwhile; somebody newer serves
                waiting, self._stash = self._stash, deque()
                if not waiting or inbox.closed:
                    self._stash = waiting
                    self.generation = generation
                    self._retired = False
                    self._inbox = inbox
                    return
            for kept in waiting:
                if not kept.deaths and isinstance(kept.message, Coalesced):
                    taken = inbox.offer(kept.message) is None  # one that comes now takes its place
                else:
                    taken = inbox.offer_answer(kept if kept.deaths else kept.message)
                if not taken:
                    self.take_back(kept.message, deaths=kept.deaths)

    def claim(self, generation: int) -> None:
        """Use ``generation`` up: every later incarnation gets a greater number, whoever starts it."""
        with self._lock:
            self.generation = max(self.generation, generation)

    def detach(self, inbox: Inbox) -> None:
        """``inbox`` serves no more (if it still did)."""
        with self._lock:
            if self._inbox is inbox:
                self._inbox = None

    def retire(self) -> None:
        """Nobody will serve this address again: what waits is dead."""
        with self._lock:
            self._retired = True
            waiting = list(self._stash)
            self._stash.clear()
        for kept in waiting:
            self.dead(kept.message, DeadLetterReason.NOT_RUNNING)

    def dead(self, message: object, reason: DeadLetterReason, *, name: str | None = None) -> None:
        """Count ``message`` as a dead letter; if somebody waits for an answer, tell them. ``name`` is whom it
        was sent to, if not to this address."""
        name = self.name if name is None else name
        kind = message.body if isinstance(message, Request) else message
        with self._lock:
            self.dead_letters += 1
            total = self.dead_letters
        self._publish(DeadLetter(child=name, message_type=type(kind).__name__, reason=reason, total=total))
        if isinstance(message, Request):
            failure = Failure("ReceiverDied", f"{name}: {reason.value}")
            message.port.answer(RequestFailed(message.token, failure))


class Switchboard:
    """All addresses of one system."""

    def __init__(self, names: Iterable[str], publish: Callable[[DeadLetter], None]) -> None:
        self._slots = {name: Slot(name, publish) for name in names}
        self._nowhere = Slot("", publish)

    def slot(self, name: str) -> Slot:
        """Return the slot of an id of the tree."""
        return self._slots[name]

    def deliver(self, to: Address, message: object) -> None:
        """Send ``message``. Any thread; never raises or blocks."""
        slot = self._slots.get(to.name)
        if slot is not None:
            slot.deliver(message)
        else:
            self.unknown(to, message)

    def unknown(self, to: Address, message: object) -> None:
        """Count a message to an address that is not in the tree."""
        self._nowhere.dead(message, DeadLetterReason.NO_SUCH_ADDRESS, name=to.name)

    def find(self, to: Address) -> Slot | None:
        """Return the slot of ``to``, None if the tree has no such address."""
        return self._slots.get(to.name)

    @property
    def dead_letters(self) -> int:
        """How many messages reached nobody so far."""
        return self._nowhere.dead_letters + sum(slot.dead_letters for slot in self._slots.values())
