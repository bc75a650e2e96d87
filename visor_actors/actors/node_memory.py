"""What the lifecycle must still know after it, or all of visor, was killed: a few values in the journal.

None of it is needed to keep a healthy node running. A journal that cannot be used is reported, and what could
not be written is written with the next change; until then it is known to this incarnation only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from visor_actors.actors.addresses import Slot
from visor_actors.actors.witnesses import LAST_EXIT_KEY
from visor_actors.home.errors import JournalUnavailable
from visor_actors.home.journal import Journal, Json
from visor_actors.node.custody_types import ExitRecord
from visor_actors.telemetry.events import Event

RESTARTS_KEY = "lifecycle.restarts"
INCARNATION_KEY = "lifecycle.core-incarnation"
CLEAN_KEY = "lifecycle.clean"
"""Whether the node's last end was asked for. Absent before the first start, and after a power cut ``false``.
"""
LIVED_KEY = "lifecycle.core-lived"


class NodeMemory:
    """Owned by the lifecycle's thread. ``trouble`` is told of a journal that cannot be used.

    ``clean``: the node's last end was asked for. ``core_lived``: the newest incarnation of the core that got
    somewhere.
    """

    def __init__(self, path: Path, trouble: Callable[[JournalUnavailable], None]) -> None:
        self._path = path
        self._trouble = trouble
        self._journal: Journal | None = None
        self._unwritten: dict[str, Json] = {}
        self._collecting = False
        self._consumed: set[tuple[Slot, str]] = set()
        self._incarnations: dict[Slot, int] = {}
        self._watched: dict[Slot, int] = {}
        self.restarts = 0
        self.clean = True
        self.core_lived = 0

    def open(self) -> None:
        """Read what earlier incarnations have left."""
        try:
            journal = self._opened()
            self.restarts = _number(journal.get(RESTARTS_KEY))
            self._incarnations[Slot.CORE] = _number(journal.get(INCARNATION_KEY))
            self.core_lived = _number(journal.get(LIVED_KEY))
            self.clean = journal.get(CLEAN_KEY) is not False
        except JournalUnavailable as error:
            self._failed(error)

    def close(self) -> None:
        """Let go of the journal."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def incarnation(self, slot: Slot) -> int:
        """The newest incarnation of the slot that was ever seen; 0: none."""
        return self._incarnations.get(slot, 0)

    # changes

    def count_restarts(self, restarts: int) -> None:
        """Keep the number of restarts in a row."""
        if restarts != self.restarts:
            self.restarts = restarts
            self._keep(RESTARTS_KEY, restarts)

    def saw_start(self, slot: Slot, incarnation: int) -> None:
        """Keep that this incarnation of the slot was started now: nobody can have dealt with its exit."""
        self._watched[slot] = incarnation
        self.saw_incarnation(slot, incarnation)

    def saw_incarnation(self, slot: Slot, incarnation: int) -> None:
        """Keep that this incarnation of the slot exists or existed."""
        if incarnation > self.incarnation(slot):
            self._incarnations[slot] = incarnation
            if slot is Slot.CORE:
                # The coordinator tells from it whether a release has ever been started.
                self._keep(INCARNATION_KEY, incarnation)

    def core_got_somewhere(self, incarnation: int) -> None:
        """Keep that this incarnation of the core has answered, or lived for long enough."""
        if incarnation > self.core_lived:
            self.core_lived = incarnation
            self._keep(LIVED_KEY, incarnation)

    def ended(self, *, clean: bool) -> None:
        """Keep whether the node's end was asked for; a start is no clean end until it has had one."""
        if clean != self.clean:
            self.clean = clean
            self._keep(CLEAN_KEY, clean)

    def core_exited(self, record: ExitRecord) -> None:
        """Keep how the core ended last: a witness of what it had reached."""
        last: dict[str, Json] = {
            "incarnation": record.incarnation,
            "at": record.ended_at,
            "code": record.code,
            "requested": record.requested,
            "lines": list(record.last_lines),
        }
        self._keep(LAST_EXIT_KEY, last)

    # exits

    def has_consumed(self, slot: Slot, record: ExitRecord) -> bool:
        """Whether this exit was dealt with before, by whichever visor."""
        key = _key(record)
        if (slot, key) in self._consumed:
            return True
        if self._watched.get(slot) == record.incarnation:
            return False
        try:
            return self._opened().has_consumed(slot.value, key)
        except JournalUnavailable as error:
            self._failed(error)
            return False

    @contextmanager
    def consuming(self, slot: Slot, record: ExitRecord, event: Event) -> Iterator[None]:
        """Within, it is decided what the exit means. Afterwards that it was dealt with, all changes made
        within, and ``event`` in the history are kept at once.

        Killed before that, the next visor deals with the exit as if nobody had. An exception within keeps
        nothing.
        """
        self._collecting = True
        try:
            yield
        finally:
            self._collecting = False
        key = _key(record)
        self._consumed.add((slot, key))
        details: dict[str, Json] = {"code": record.code, "signal": record.signal, "at": record.ended_at}
        try:
            self._opened().consume_exit(slot.value, key, details, values=self._unwritten, event=event)
            self._unwritten.clear()
        except JournalUnavailable as error:
            self._failed(error)

    # the journal

    def _keep(self, key: str, value: Json) -> None:
        self._unwritten[key] = value
        if self._collecting:
            return
        try:
            journal = self._opened()
            for waiting in list(self._unwritten):
                journal.put(waiting, self._unwritten[waiting])
                del self._unwritten[waiting]
        except JournalUnavailable as error:
            self._failed(error)

    def _opened(self) -> Journal:
        if self._journal is None:
            self._journal = Journal.open(self._path)
        return self._journal

    def _failed(self, error: JournalUnavailable) -> None:
        self.close()
        self._trouble(error)


def _key(record: ExitRecord) -> str:
    return f"{record.incarnation}@{record.pid}@{record.started_at:.3f}"


def _number(value: Json) -> int:
    return value if isinstance(value, int) else 0
