"""One incarnation: a Pykka actor whose every end is reported exactly once, last of all.

Pykka gives the thread, the receive loop and the place of the inbox. What this class adds, and why, is in
docs/supervision.md; which of Pykka's internals it relies on is held by tests/actor/test_pykka_contract.py.
Actors here are never in Pykka's registry: nothing that stops "all actors" can reach them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pykka
from msgspec import Struct

from visor_actors.actor.decisions import ChildExited
from visor_actors.actor.events import ExitReason
from visor_actors.actor.failure import Failure
from visor_actors.actor.inbox import Closed, Inbox
from visor_actors.actor.runtime import Runtime
from visor_actors.actor.switchboard import Slot


class StopOrder(Struct, frozen=True):
    """The supervisor wants this incarnation to end."""


class Injection(Struct, frozen=True):
    """Run ``action`` on the actor's thread as if a message had caused it."""

    action: Callable[[], None]


class Terminating(Struct, frozen=True):
    """Stands where the current message is shown while an incarnation cleans up: that may hang as well."""


_threads = threading.local()


def on_an_actors_thread() -> bool:
    """Return whether the calling thread runs an actor or a supervisor."""
    return getattr(_threads, "cell", None) is not None


class Cell(pykka.ThreadingActor):
    """Base of actors and supervisors. ``fence``, ``order_stop`` and the attributes may be used from any
    thread."""

    use_daemon_thread = True  # a thread that hangs for good must not keep the process from ending
    actor_inbox: Inbox

    def __init__(
        self,
        runtime: Runtime,
        slot: Slot,
        generation: int,
        *,
        capacity: int,
        report: Callable[[object], object],
    ) -> None:
        super().__init__()
        self.runtime = runtime
        self.slot = slot
        self.generation = generation
        self.fenced = False
        self.stop_ordered = False
        self.busy: tuple[float, object] | None = None
        self.thread: threading.Thread | None = None
        self._report = report
        self._reason: ExitReason | None = None
        self._failure: Failure | None = None
        self._ident = 0
        self._ended = False
        self._end_lock = threading.Lock()
        self._now = runtime.clock.now
        self.actor_inbox.configure(clock=runtime.clock, capacity=capacity, on_leftover=self._leftover)

    @staticmethod
    def _create_actor_inbox() -> Inbox:
        return Inbox()

    def launch(self) -> None:
        """Start the thread. Raises what the operating system raises if there can be none."""
        try:
            self._start_actor_loop()
        except Exception:
            self.slot.detach(self.actor_inbox)
            self.actor_inbox.dispose()
            raise

    def _start_actor_loop(self) -> None:
        self.thread = threading.Thread(
            target=self.live, name=f"{self.slot.name}#{self.generation}", daemon=self.use_daemon_thread
        )
        self.thread.start()

    def order_stop(self) -> None:
        """Ask this incarnation to end; the order overtakes all messages, and a start that has not begun."""
        self.actor_inbox.control(StopOrder())
        self.stop_ordered = True

    # --- the thread

    def live(self) -> None:
        """Run this incarnation from start to end on the calling thread."""
        _threads.cell = self
        self._ident = threading.get_ident()
        try:
            try:
                self._actor_loop()
            except BaseException as error:  # from the inbox: Pykka guards the handlers only
                self.recover(error)
        except BaseException as error:
            self.fail(error)
        finally:
            _threads.cell = None
            self._end()

    def on_receive(self, message: Any) -> None:
        """Handle one message. Whatever it raises ends this incarnation and nothing else."""
        self.busy = (self._now(), message)
        try:
            self.dispatch(message)
        except BaseException as error:
            self.fail(error)
            self.actor_inbox.close()  # what waits goes back first, then what it died of goes before that
            self._condemn_current()
        self.busy = None

    def recover(self, error: BaseException) -> None:
        """The loop itself was broken off by ``error``, on this thread."""
        self.fail(error)

    def dispatch(self, message: object) -> None:
        """Handle one message; what it raises is a crash."""
        match message:
            case StopOrder() | Closed():
                self.finish(ExitReason.REQUESTED)
            case Injection(action):
                action()
            case _:
                raise NotImplementedError

    def finish(self, reason: ExitReason, failure: Failure | None = None) -> None:
        """Have the loop end. The first reason counts."""
        if self._reason is None:
            self._reason = reason
            self._failure = failure
        self.actor_stopped.set()

    def ending(self) -> tuple[ExitReason, Failure | None]:
        """Return why this incarnation has ended."""
        return self._reason or ExitReason.CRASHED, self._failure

    def fail(self, error: BaseException, reason: ExitReason = ExitReason.CRASHED) -> None:
        """End because of ``error``, also if a normal end had been asked for before it was raised."""
        if self._reason is ExitReason.NORMAL:
            self._reason = None
        self.finish(reason, Failure.of(error))

    def _condemn(self, message: object) -> None:
        """This incarnation died of ``message``: see whether another may try."""

    def _condemn_current(self) -> None:
        """Condemn the current message, once: one that hung and then raised has killed one incarnation."""
        with self._end_lock:
            busy, self.busy = self.busy, None
        if busy is not None:
            self._condemn(busy[1])

    def clean_up(self) -> None:
        """Give back what this incarnation holds. On its own thread, last before its exit is reported."""

    def _end(self) -> None:
        try:
            self.actor_inbox.close()
            self.busy = (self._now(), Terminating())
            self.clean_up()
        except BaseException as error:
            if self._reason is ExitReason.NORMAL:
                self._reason = ExitReason.CRASHED
            if self._failure is None:
                self._failure = Failure.of(error)
        finally:
            try:
                self.slot.detach(self.actor_inbox)
                self.actor_inbox.dispose()
            finally:
                self._report_end()

    def _report_end(self) -> None:
        with self._end_lock:
            self._ended = True
            self.busy = None
            given_up, self.fenced = self.fenced, True  # what its jobs still send does not count
        if given_up:
            self.runtime.abandoned.ended(self.slot.name, self.generation)
        else:
            reason, failure = self.ending()
            self._report(ChildExited(self.slot.name, self.generation, reason, failure))

    # --- any thread

    def is_own_thread(self) -> bool:
        """Return whether the caller runs on this incarnation's thread."""
        return threading.get_ident() == self._ident

    def fence(self, reason: ExitReason) -> None:
        """Give this incarnation up: nothing it still does has an effect, and its address is free for the
        next one."""
        with self._end_lock:
            if self._ended or self.fenced:
                return
            self.fenced = True
            # Within the lock: the thread may end at any time, and its end is counted after this.
            self.runtime.abandoned.add(self.slot.name, self.generation, reason)
        self.actor_stopped.set()
        self.slot.detach(self.actor_inbox)
        self.actor_inbox.close()
        self._condemn_current()

    def _leftover(self, message: object) -> None:
        self.slot.take_back(message, deaths=0)
