"""Runs an ActorSystem beside a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from visor_actors.actor import ActorSystem, Outcome
from visor_actors.testing.probe import PATIENCE


class Run:
    """A system that runs on a thread of its own. ``outcome`` waits for its end."""

    def __init__(self, system: ActorSystem) -> None:
        self.system = system
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="test-root", daemon=True)

    def _run(self) -> None:
        try:
            self._outcome = self.system.run()
        except BaseException as error:
            self._error = error

    def start(self) -> None:
        """Start the system's root loop."""
        self._thread.start()

    def outcome(self, *, timeout: float = PATIENCE) -> Outcome:
        """Wait for the end of the run and return how it ended."""
        self._thread.join(timeout)
        if self._error is not None:
            raise self._error
        if self._outcome is None:
            raise AssertionError(f"the system still runs after {timeout:g} s: {self.system.tree()}")
        return self._outcome


@contextmanager
def running(system: ActorSystem) -> Iterator[Run]:
    """Run ``system`` while the block runs; then stop it and wait until it has ended."""
    run = Run(system)
    run.start()
    try:
        yield run
    finally:
        system.stop()
        run.outcome()
