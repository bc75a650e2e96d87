"""How long a shim may do nothing before it is ended, so that a successor adopts the node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from visor_actors.node.shim_process import end_unresponsive_shim

OVERDUE_SECONDS = 5.0
"""How long the shim may take for what takes it milliseconds, before the actor asks whether it still lives."""
UNRESPONSIVE_SECONDS = 10.0
"""How long a living shim may leave a greeting unanswered before it is ended. The node does not notice; but it
then has a shim that is not its parent, and nobody will know how it ended.
"""


class ShimPatience:
    """Counts how long a slot's shim has not answered. ``greeting``: seconds that one attempt waits."""

    def __init__(self, slot_dir: Path, monotonic: Callable[[], float], *, greeting: float) -> None:
        self._slot_dir = slot_dir
        self._monotonic = monotonic
        self._greeting = greeting
        self._since: float | None = None

    def answered(self) -> None:
        """It has answered: begin anew."""
        self._since = None

    def exhausted(self) -> bool:
        """Called after each greeting that was not answered; True once the shim has had its time."""
        now = self._monotonic()
        if self._since is None:
            self._since = now - self._greeting
        return now - self._since >= UNRESPONSIVE_SECONDS

    def end(self) -> bool:
        """End the shim and begin anew; return whether it is gone. Blocks for a few seconds at most."""
        self._since = None
        return end_unresponsive_shim(self._slot_dir)
