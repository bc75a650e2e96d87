"""First act, then tell: what can wait until a start that is on its way has been carried out.

Between an unasked exit and the next start nothing should stand that the start does not need. Events, and
messages to actors that have no part in it, are put off here in the order in which they came, for a few
milliseconds as a rule: each of them would wake a thread that competes with those that start the binary.
"""

from __future__ import annotations

from collections.abc import Callable


class Afterwards:
    """A row of things to do. For one thread."""

    __slots__ = ("_row",)

    def __init__(self) -> None:
        self._row: list[Callable[[], None]] = []

    def __bool__(self) -> bool:
        return bool(self._row)

    def do(self, action: Callable[[], None]) -> None:
        """Have ``action`` done when :meth:`catch_up` is called."""
        self._row.append(action)

    def catch_up(self) -> None:
        """Do all that was put off, oldest first. An exception of one is raised once all have been done."""
        row, self._row = self._row, []
        failure: BaseException | None = None
        for action in row:
            try:
                action()
            except BaseException as error:
                failure = failure or error
        if failure is not None:
            raise failure
