"""An actor that does what the test tells it: serve, fail, hang; in init, in a handler, while terminating.

One :class:`Script` stands for all incarnations of one child. It has a tripwire: if two incarnations that
both count are alive at once, :class:`StartedTwice` is raised in the second and kept in ``script.tripped``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from visor_actors.actor import Actor, Context, Request
from visor_actors.testing.probe import Probe

Action = Callable[[], None]


class StartedTwice(AssertionError):
    """Two incarnations of one child were alive at the same time."""


class Do(Struct, frozen=True):
    """Told to a FaultyActor: run ``action`` in ``handle``."""

    action: Action


class Lived(Struct, frozen=True, kw_only=True):
    """What a FaultyActor records in the probe: ``what`` is init, terminate or the message it handled."""

    name: str
    generation: int
    what: object


class Script:
    """What the incarnations of one child do. Any thread may change it at any time.

    ``in_init`` and ``in_terminate`` are queues: each incarnation takes one action and runs it; none left:
    it succeeds.
    """

    def __init__(self, name: str, probe: Probe | None = None) -> None:
        self.name = name
        self.probe = probe or Probe()
        self.in_init: deque[Action] = deque()
        self.in_terminate: deque[Action] = deque()
        self.tripped: StartedTwice | None = None
        self.starts = 0
        self._alive: Context | None = None
        self._lock = threading.Lock()

    def factory(self, context: Context) -> FaultyActor:
        """Build one incarnation; give this to the child spec."""
        return FaultyActor(context, self)

    def begin(self, context: Context) -> None:
        """Count a start and check the tripwire."""
        with self._lock:
            self.starts += 1
            other = self._alive
            if other is not None and not other.fenced:
                self.tripped = StartedTwice(
                    f"{self.name}: generation {context.generation} started while {other.generation} was alive"
                )
                raise self.tripped
            self._alive = context

    def end(self, context: Context) -> None:
        """Note that an incarnation is gone."""
        with self._lock:
            if self._alive is context:
                self._alive = None


class FaultyActor(Actor):
    """Records its life in the script's probe, answers requests with their body, and runs what :class:`Do`
    brings."""

    def __init__(self, context: Context, script: Script) -> None:
        super().__init__(context)
        self._script = script
        script.begin(context)

    def init(self) -> None:
        """Run the script's next action for init."""
        try:
            self._run_next(self._script.in_init)
        except BaseException:
            self._record("failed init")
            raise
        self._record("init")

    def handle(self, message: object) -> None:
        """Do what the message says."""
        self._record(message)
        if isinstance(message, Request):
            self.context.reply(message, message.body)
        elif isinstance(message, Do):
            message.action()

    def terminate(self) -> None:
        """Run the script's next action for terminate."""
        try:
            self._record("terminate")
            self._run_next(self._script.in_terminate)
        finally:
            self._script.end(self.context)

    def _record(self, what: object) -> None:
        self._script.probe.record(
            Lived(name=self._script.name, generation=self.context.generation, what=what)
        )

    def _run_next(self, actions: deque[Action]) -> None:
        try:
            action = actions.popleft()
        except IndexError:
            return
        action()
