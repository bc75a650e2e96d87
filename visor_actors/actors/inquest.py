"""Whether the height of a pending upgrade is done, once the node is down and cannot be asked any more.

Part of the coordinator; runs on its thread. While a core lives its heights are noted; when it is down the
witnesses are asked, in a job. A verdict belongs to one question of the lifecycle: whatever has been started
since may have done the height.
"""

from __future__ import annotations

from collections.abc import Callable

from visor_actors.actor import Context
from visor_actors.actors.ledger import Entry
from visor_actors.actors.messages import NodeState
from visor_actors.actors.upgrade_machine import Height
from visor_actors.actors.upgrade_voice import UpgradeVoice
from visor_actors.actors.witnesses import LAST_EXIT_KEY, LAST_HEIGHT_KEY, Memory, gather_and_judge
from visor_actors.actors.world import World
from visor_actors.home.current import LinkedTo, read_current
from visor_actors.home.journal import Journal
from visor_actors.node.witness import HeightTrack, HeightVerdict
from visor_actors.telemetry.events import Severity

WITNESS_SECONDS = 30.0


class Inquest:
    """Notes heights, asks witnesses. ``journal`` returns the open journal or raises JournalUnavailable."""

    def __init__(
        self, context: Context, world: World, voice: UpgradeVoice, journal: Callable[[], Journal]
    ) -> None:
        self._context = context
        self._world = world
        self._voice = voice
        self._journal = journal
        self._core: str | None = None
        self._track = HeightTrack()
        self._judging: int | None = None
        self._verdict: tuple[int, Height] | None = None

    def core_is(self, core: str) -> None:
        """This core runs now."""
        if core != self._core:
            self._core, self._track = core, HeightTrack()

    def height_seen(self, height: int, incarnation: int) -> None:
        """The running core was at ``height``; keep it for the day when it cannot be asked any more."""
        at = self._world.now()
        self._track.saw(height, at)
        seen = self._track.witness(at)
        if seen is not None:
            self._journal().put(
                LAST_HEIGHT_KEY, {"height": height, "at": at, "pace": seen.pace, "incarnation": incarnation}
            )

    def verdict(self, entry: Entry, ask: int) -> Height:
        """What is known for question ``ask``."""
        match read_current(self._world.layout):
            case LinkedTo(name=name) if name == entry.folder:
                # Only an operator links to a release before its height is known to be done, and means it.
                return Height.DONE
            case _:
                pass
        return self._verdict[1] if self._verdict is not None and self._verdict[0] == ask else Height.NOT_ASKED

    def ask(self, entry: Entry, node: NodeState) -> None:
        """Ask the witnesses, unless they are being asked already."""
        if self._judging == node.ask:
            return
        self._judging = node.ask
        journal = self._journal()
        memory = Memory.recall(
            journal.get(LAST_HEIGHT_KEY), journal.get(LAST_EXIT_KEY), incarnation=node.core_incarnation
        )
        layout, height, now = self._world.layout, entry.upgrade.height, self._world.now()
        self._context.run_job(
            lambda token: gather_and_judge(layout, height, memory, now=now, cancel=token),
            key=("witnesses", node.ask),
            timeout=WITNESS_SECONDS,
        )

    def judged(self, ask: int, value: object) -> None:
        """The witnesses have answered."""
        assert isinstance(value, HeightVerdict)
        if self._judging != ask:
            return
        self._judging = None
        height = Height[value.doneness.name]
        self._verdict = (ask, height)
        because = "; ".join(value.because)
        self._voice.say(
            "upgrade.witnesses",
            f"the node is down before an accepted upgrade, its height: {height.value} ({because})",
            severity=Severity.WARNING,
            because=because,
        )

    def broke(self, ask: int, problem: str) -> None:
        """The witnesses could not be asked; nobody knows, then."""
        if self._judging == ask:
            self._judging = None
            self._verdict = (ask, Height.UNKNOWN)
            self._voice.say_once("upgrade.witnesses", "", f"the witnesses could not be asked: {problem}")

    def overrule(self) -> None:
        """The operator says that the height is not done, where no witness could tell."""
        if self._verdict is not None and self._verdict[1] is Height.UNKNOWN:
            self._verdict = (self._verdict[0], Height.NOT_DONE)
