"""An actor's inbox, which is its event loop: messages, timers and readable descriptors, one at a time.

It stands where Pykka expects a queue (``put``, ``get``, ``empty``). The order in :meth:`Inbox.get` is:
control, due timers, ready descriptors, messages; after a run of timers or descriptors one message is let
through, so that nothing starves. Sending takes no lock: appending to a deque is atomic, and a sender that
finds the inbox closed after it has appended takes back what is left, so every message is either delivered
or given to ``on_leftover``, exactly once.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from pykka._envelope import Envelope

from visor_actors.actor.clock import Clock
from visor_actors.actor.messages import Coalesced
from visor_actors.actor.timers import TimerQueue
from visor_actors.actor.waiting import Waiter

_BURST = (
    16  # timers and descriptors in a row while messages wait; messages in a row while descriptors are watched
)


class Refusal(enum.Enum):
    """Why an inbox did not take a message."""

    FULL = "full"
    CLOSED = "closed"


class _Newest:
    """Stands in the lane for the newest message of a coalesced class."""

    __slots__ = ("kind",)

    def __init__(self, kind: type) -> None:
        self.kind = kind


class Closed:
    """Delivered once the inbox is closed, again and again: there is nothing else to come."""

    __slots__ = ()


CLOSED = Closed()


class Inbox:
    """See the module. ``offer``, ``control``, ``put``, ``close`` and ``drain`` are for any thread, the rest
    for the owner."""

    def __init__(self) -> None:
        self._control: deque[object] = deque()
        self._lane: deque[object] = deque()
        self._pykka: deque[Envelope[Any]] = deque()
        self._newest: dict[type, object] = {}
        self._newest_lock = threading.Lock()
        self._timers = TimerQueue()
        self._ready: deque[int] = deque()
        self._waiter = Waiter()
        self._waiting = False
        self._closed = False
        self._streak = 0
        self._polled = _BURST
        self._envelope: Envelope[Any] = Envelope(None)
        self._unsubscribe: Callable[[], None] | None = None
        self.configure(clock=None, capacity=1000, on_leftover=None)

    def configure(
        self, *, clock: Clock | None, capacity: int, on_leftover: Callable[[object], None] | None
    ) -> None:
        """Set what Pykka's constructor cannot pass. Before the first use."""
        self._capacity = capacity
        self._clock = clock
        self._on_leftover = on_leftover
        if clock is not None:
            self._unsubscribe = clock.subscribe(self._nudge)

    # --- any thread

    def offer(self, message: object) -> Refusal | None:
        """Take ``message`` for delivery, or say why not. Never blocks."""
        if self._closed:
            return Refusal.CLOSED
        if isinstance(message, Coalesced):
            kind = type(message)
            with self._newest_lock:
                known = kind in self._newest
                self._newest[kind] = message
            if known:
                return None
            self._lane.append(_Newest(kind))
        elif len(self._lane) >= self._capacity:
            return Refusal.FULL
        else:
            self._lane.append(message)
        if self._waiting:
            self._nudge()
        if self.closed:  # meanwhile
            self._return_leftovers()
        return None

    def offer_answer(self, message: object) -> bool:
        """Take a message that the owner asked for; there is room for it always. False: closed."""
        if self._closed:
            return False
        self._lane.append(message)
        if self._waiting:
            self._nudge()
        if self.closed:  # meanwhile
            self._return_leftovers()
        return True

    def control(self, message: object) -> bool:
        """Take a message that overtakes all others. False: closed."""
        if self._closed:
            return False
        self._control.append(message)
        if self._waiting:
            self._nudge()
        return True

    def put(self, envelope: Envelope[Any], /) -> None:
        """Pykka's side entrance (``ActorRef.tell``, ``ask``, ``stop``); this package does not use it."""
        self._pykka.append(envelope)
        if self._waiting:
            self._nudge()

    def close(self) -> None:
        """Take nothing any more; what is left goes to ``on_leftover``, here and now."""
        self._closed = True
        self._return_leftovers()
        self._nudge()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def depth(self) -> int:
        """Return how many messages wait."""
        return len(self._lane)

    def _nudge(self) -> None:
        self._waiting = False
        self._waiter.wake()

    def _return_leftovers(self) -> None:
        while True:
            try:
                item = self._lane.popleft()
            except IndexError:
                return
            message = self._unwrap(item)
            if message is not None and self._on_leftover is not None:
                self._on_leftover(message)

    def _unwrap(self, item: object) -> object:
        if isinstance(item, _Newest):
            with self._newest_lock:
                return self._newest.pop(item.kind, None)
        return item

    # --- the owner's thread

    def empty(self) -> bool:
        """Return whether nothing is left that Pykka would have to answer."""
        return not self._pykka

    def get(self) -> Envelope[Any]:
        """Block for the next message and return it. The envelope is reused by the next call."""
        envelope = self._envelope
        while True:
            if self._control:
                envelope.message = self._control.popleft()
                return envelope
            if self._pykka:
                return self._pykka.popleft()
            urgent = self._next_urgent()
            if urgent is not None:
                envelope.message = urgent[0]
                return envelope
            if self._lane:
                self._streak = 0
                try:
                    item = self._lane.popleft()
                except IndexError:
                    continue  # closed by another thread, which has taken it
                envelope.message = item if type(item) is not _Newest else self._unwrap(item)
                if envelope.message is None:
                    continue
                return envelope
            if self._closed:
                envelope.message = CLOSED
                return envelope
            self._wait()

    def _next_urgent(self) -> tuple[object] | None:
        """Return a due timer's or ready descriptor's message, unless others have waited for too many of
        them."""
        if len(self._timers) and not (self._streak >= _BURST and (self._lane or self._waiter.watches)):
            assert self._clock is not None
            due = self._timers.take_due(self._clock.now())
            if due is not None:
                self._streak += 1
                return due
        if self._ready:
            message = self._waiter.message_of(self._ready.popleft())
            if message is not None:
                return message
        if self._lane and self._waiter.watches:
            self._polled -= 1
            if self._polled <= 0:
                self._polled = _BURST
                self._ready.extend(self._waiter.sleep(0.0))
        return None

    def _wait(self) -> None:
        self._streak = 0
        self._waiting = True
        if self._control or self._lane or self._pykka or self._closed:
            self._waiting = False
            return
        patience = None
        deadline = self._timers.next_deadline()
        if deadline is not None:
            assert self._clock is not None
            patience = self._clock.patience(deadline)
        try:
            self._ready.extend(self._waiter.sleep(patience))
        finally:
            self._waiting = False

    def arm(self, delay: float, message: object, key: Hashable = None) -> None:
        """Deliver ``message`` in ``delay`` seconds; an armed timer of the same key is replaced."""
        assert self._clock is not None
        self._timers.arm(self._clock.now() + delay, message, key)

    def cancel(self, key: Hashable) -> bool:
        """Drop the timer of ``key``; return whether there was one."""
        return self._timers.cancel(key)

    def watch(self, fd: int, message: object) -> None:
        """Deliver ``message`` again and again while ``fd`` is readable."""
        self._waiter.watch(fd, message)

    def unwatch(self, fd: int) -> bool:
        """Stop watching ``fd``; return whether it was watched."""
        return self._waiter.unwatch(fd)

    def dispose(self) -> None:
        """Close, and give back every resource. The last thing the owner's thread does with its inbox."""
        self.close()
        self._timers.clear()
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._waiter.close()
