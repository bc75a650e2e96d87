"""The incarnation of a supervisor: carries out what its core decides. Its thread runs no code of users, so
it does not hang."""

from __future__ import annotations

import sys
import traceback
from collections import deque
from collections.abc import Callable
from typing import assert_never

from msgspec import Struct

from visor_actors.actor.actor_cell import ActorCell
from visor_actors.actor.cell import Cell, Injection, StopOrder
from visor_actors.actor.core import SupervisorCore
from visor_actors.actor.decisions import (
    AbandonChild,
    Abort,
    ArmTimer,
    Begin,
    CancelTimer,
    ChildExited,
    ChildHung,
    ChildSettings,
    ChildStarted,
    Effect,
    Finished,
    Input,
    Publish,
    Ready,
    Reconfigure,
    RetireChild,
    StartChild,
    Stop,
    StopChild,
    TimerFired,
)
from visor_actors.actor.events import (
    ActorEvent,
    ActorExited,
    ActorHung,
    ActorStarting,
    CallbackFailed,
    DeadLetterReason,
    ExitReason,
)
from visor_actors.actor.failure import Failure
from visor_actors.actor.inbox import Closed
from visor_actors.actor.ledger import Phase
from visor_actors.actor.lifecycle import ChildState
from visor_actors.actor.messages import Request
from visor_actors.actor.runtime import Runtime
from visor_actors.actor.spec import AnySpec, ChildSpec, SupervisorSpec, walk
from visor_actors.actor.switchboard import Replayed, Slot

_SUPERVISOR_HEARTBEAT = 30.0
_LONGEST_TICK = 10.0
_SHORTEST_TICK = 0.02
_TICKS_PER_HEARTBEAT = 2


class _Tick(Struct, frozen=True):
    """Look whether a child hangs."""


class SettingsChanged(Struct, frozen=True):
    """The runtime has new settings."""


class Callback(Struct, frozen=True):
    """Run ``function`` on the supervisor's loop; what it raises is told and harms nothing."""

    function: Callable[[], None]


class SupervisorCell(Cell):
    """One incarnation of one supervisor."""

    def __init__(
        self,
        runtime: Runtime,
        slot: Slot,
        generation: int,
        *,
        report: Callable[[object], object],
    ) -> None:
        super().__init__(runtime, slot, generation, capacity=1000, report=report)
        self.spec = runtime.supervisor_spec(slot.name)
        generations = {
            child.id: runtime.switchboard.slot(child.id).generation for child in self.spec.children
        }
        self.core = SupervisorCore(spec=self.spec, rng=runtime.rng, generations=generations)
        self.cells: dict[str, Cell] = {}
        self._open: dict[str, int] = {}  # generations whose start has been told and whose exit has not
        self._inputs: deque[Input] = deque()
        self._feeding = False
        self._begun = False
        self._heartbeats = {
            spec.id: _SUPERVISOR_HEARTBEAT if isinstance(spec, SupervisorSpec) else spec.heartbeat
            for spec in self.spec.children
        }

    # --- this supervisor's thread

    def on_start(self) -> None:
        """Start the children; this start is acknowledged when they all serve."""
        if self._begun:
            return
        self._begun = True
        watched = [heartbeat for heartbeat in self._heartbeats.values() if heartbeat is not None]
        if watched:
            tick = min(watched) / _TICKS_PER_HEARTBEAT
            self._tick = min(_LONGEST_TICK, max(_SHORTEST_TICK, tick))
            self.actor_inbox.arm(self._tick, _Tick(), key=_Tick)
        try:
            self._feed(Stop() if self.stop_ordered else Begin())
        except BaseException as error:
            self._survive(error)

    def dispatch(self, message: object) -> None:
        """Handle one message. A failure here is a bug or an injected fault: the children are stopped in
        order first."""
        try:
            self._dispatch(message)
        except BaseException as error:
            self._survive(error)

    def recover(self, error: BaseException) -> None:
        """Stop the children in order all the same. A second break gives them up."""
        self._survive(error)
        self._actor_loop_running()

    def _dispatch(self, message: object) -> None:
        match message:
            case TimerFired() | ChildStarted() | ChildExited():
                self._feed(message)
            case _Tick():
                self.actor_inbox.arm(self._tick, message, key=_Tick)
                self._look_for_hung_children()
            case StopOrder():
                self._feed(Stop())
            case SettingsChanged():
                self._apply_settings()
            case Callback(function):
                self._call(function)
            case Injection(action):
                action()
            case Closed():
                self.finish(ExitReason.REQUESTED)  # fenced: its children have been fenced with it
            case _:
                self.slot.dead(message, DeadLetterReason.NO_SUCH_ADDRESS)  # supervisors take no messages

    def _survive(self, error: BaseException) -> None:
        """Stop the children in order and then fail; if not even that works, give them up and fail now."""
        try:
            self._feed(Abort(Failure.of(error)))
        except BaseException:
            self.fail(error)

    def _feed(self, event: Input) -> None:
        """Let the core decide and carry its effects out; what they lead to at once is decided after them."""
        self._inputs.append(event)
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._inputs:
                for effect in self.core.handle(self._inputs.popleft(), self._now()):
                    self._carry_out(effect)
        finally:
            self._feeding = False

    def _carry_out(self, effect: Effect) -> None:
        if self.fenced:
            return
        match effect:
            case Publish(event):
                self._publish(event)
            case ArmTimer(key, delay):
                self.actor_inbox.arm(delay, TimerFired(key), key)
            case CancelTimer(key):
                self.actor_inbox.cancel(key)
            case StartChild(child, generation):
                self._start_child(child, generation)
            case StopChild(child):
                self.cells[child].order_stop()
            case AbandonChild(child, _, reason):
                self.cells.pop(child).fence(reason)
            case RetireChild(child):
                for spec in walk(self.runtime.spec(child)):
                    self.runtime.switchboard.slot(spec.id).retire()
            case Ready():
                self._report(ChildStarted(self.slot.name, self.generation))
            case Finished(reason, failure):
                self.finish(reason, failure)
            case _:
                assert_never(effect)

    def _publish(self, event: ActorEvent) -> None:
        match event:
            case ActorStarting():
                with self._end_lock:  # whoever gives this supervisor up either sees the start or prevents it
                    if self.fenced:
                        return
                    self.runtime.switchboard.slot(event.child).claim(event.generation)
                    self._open[event.child] = event.generation
                    self.runtime.publish(event)
                return
            case ActorExited() if self._open.pop(event.child, None) is None:
                return  # told by whoever gave this supervisor up
        self.runtime.publish(event)

    def _start_child(self, child: str, generation: int) -> None:
        try:
            cell = self._build(self.runtime.spec(child), generation)
            with self._end_lock:
                if self.fenced:
                    return
                self.cells[child] = cell
            cell.slot.attach(cell.actor_inbox, generation)
            cell.launch()
        except Exception as error:  # an interrupt is none of the child's: it stops this supervisor, in order
            failure = Failure.of(error)
            self._feed(ChildExited(child, generation, ExitReason.START_FAILED, failure))

    def _build(self, spec: AnySpec, generation: int) -> Cell:
        slot = self.runtime.switchboard.slot(spec.id)
        report = self.actor_inbox.control
        if isinstance(spec, ChildSpec):
            return ActorCell(self.runtime, slot, generation, spec=spec, report=report)
        return SupervisorCell(self.runtime, slot, generation, report=report)

    def _look_for_hung_children(self) -> None:
        now = self._now()
        for name, cell in list(self.cells.items()):
            heartbeat = self._heartbeats[name]
            busy = cell.busy
            if heartbeat is None or busy is None or now - busy[0] <= heartbeat:
                continue
            if self.core.children[name].state is not ChildState.RUNNING:
                continue
            kind = _kind_of(busy[1])
            seconds = now - busy[0]
            self.runtime.publish(
                ActorHung(
                    child=name,
                    generation=cell.generation,
                    message_type=kind,
                    seconds=seconds,
                    stack=_stack_of(cell),
                )
            )
            failure = Failure(
                "ActorHung",
                f"{kind} took {seconds:.1f} s; at most {heartbeat:g} s are allowed",
                cause=cell.ending()[1],  # it failed first, and then hung while cleaning up
            )
            self._feed(ChildHung(name, cell.generation, failure))

    def _apply_settings(self) -> None:
        spec = self.runtime.supervisor_spec(self.slot.name)
        children = {
            child.id: ChildSettings(child.backoff, child.intensity if isinstance(child, ChildSpec) else None)
            for child in spec.children
        }
        self._feed(Reconfigure(spec.intensity, children))
        for cell in self.cells.values():
            if isinstance(cell, SupervisorCell):
                cell.actor_inbox.control(SettingsChanged())

    def _call(self, function: Callable[[], None]) -> None:
        try:
            function()
        except KeyboardInterrupt:
            raise  # whoever presses Ctrl-C means the whole tree, not this callback
        except BaseException as error:
            self.runtime.publish(CallbackFailed(child=self.slot.name, failure=Failure.of(error)))

    def clean_up(self) -> None:
        """Nothing may be left running. After an orderly end nothing is."""
        if self.core.phase is not Phase.FINISHED:
            self._give_up_children(ExitReason.CRASHED)
        self.cells.clear()

    # --- any thread

    def fence(self, reason: ExitReason) -> None:
        """Give up this supervisor and everything below it. The healthy threads among them end by
        themselves."""
        super().fence(reason)
        self._give_up_children(reason)

    def _give_up_children(self, reason: ExitReason) -> None:
        for cell in list(self.cells.values()):
            cell.fence(reason)
        failure = Failure("SupervisorGivenUp", f"{self.slot.name}: {reason.value}")
        while self._open:
            try:
                child, generation = self._open.popitem()
            except KeyError:
                return
            self.runtime.publish(
                ActorExited(child=child, generation=generation, reason=reason, failure=failure)
            )


def _kind_of(message: object) -> str:
    if isinstance(message, Replayed):
        message = message.message
    if isinstance(message, Request):
        message = message.body
    return type(message).__name__


def _stack_of(cell: Cell) -> str:
    ident = cell.thread.ident if cell.thread is not None else None
    frame = sys._current_frames().get(ident) if ident is not None else None
    return "".join(traceback.format_stack(frame)) if frame is not None else ""
