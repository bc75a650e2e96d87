"""What the network has accepted: from a core's answers to the ledger.

Part of the coordinator; runs on its thread. What an answer means is decided in
:mod:`visor_actors.actors.observation`; here the ledger follows, and people are told.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from visor_actors.actor import Context
from visor_actors.actors.gate import Gate
from visor_actors.actors.ledger import Key, Ledger
from visor_actors.actors.linked_folder import LinkedFolder
from visor_actors.actors.observation import (
    Announced,
    Disappearances,
    Nothing,
    Ready,
    Suspicious,
    Withdrawn,
    observe,
)
from visor_actors.actors.preparations import Preparations
from visor_actors.actors.upgrade_machine import PENDING, State
from visor_actors.actors.upgrade_voice import UpgradeVoice
from visor_actors.actors.world import World
from visor_actors.node.upgrade_status import UpgradeStatus
from visor_actors.telemetry.events import Severity

STANDS_KEY = "upgrade.stands"
"""Journal: the folder whose core has done an upgrade height that visor does not act upon; [folder, why]."""
AT_HEIGHT_SECONDS = 60.0
"""How long a node may stand at the upgrade height without being ready before the operator is told."""


class AtHeight(Struct, frozen=True):
    """The node has stood at the upgrade height for long."""

    key: Key


class Acceptance:
    """Keeps the ledger in step with what the core says. ``changed`` is called whenever an upgrade has come or
    gone.
    """

    def __init__(
        self,
        context: Context,
        world: World,
        voice: UpgradeVoice,
        *,
        ledger: Callable[[], Ledger],
        preparations: Preparations,
        gate: Gate,
        linked: LinkedFolder,
        changed: Callable[[], None],
    ) -> None:
        self._context = context
        self._world = world
        self._voice = voice
        self._ledger = ledger
        self._preparations = preparations
        self._gate = gate
        self._linked = linked
        self._changed = changed
        self._disappearances = Disappearances()
        self._reminded: set[Key] = set()
        self._standing: str | None = (
            ""  # as noted last; at first what an earlier visor noted, whatever that is
        )

    def heard(self, status: UpgradeStatus, core: str) -> None:
        """``core``, which runs, has given this answer."""
        ledger = self._ledger()
        observed = observe(status, ledger.upgrades, self._linked.running_tag(ledger.linked()))
        self._note_standing(
            observed.problem if isinstance(observed, Suspicious) and observed.stands else None
        )
        match observed:
            case Nothing():
                pass
            case Suspicious(problem=problem, next_step=advice):
                self._voice.say_once("upgrade.suspicious", problem, problem, next_step=advice)
            case Withdrawn(upgrades=upgrades):
                for upgrade in upgrades:
                    if self._disappearances.believed(
                        upgrade.tag, upgrade.height, core, self._world.monotonic()
                    ):
                        self._drop((upgrade.tag, upgrade.height), State.WITHDRAWN)
                return
            case Announced(tag=tag, height=height, replaces=replaces):
                self._announce(tag, height)
                for upgrade in replaces:
                    self._drop((upgrade.tag, upgrade.height), State.SUPERSEDED)
            case Ready(tag=tag, height=height, replaces=replaces):
                self._announce(tag, height)
                for upgrade in replaces:
                    self._drop((upgrade.tag, upgrade.height), State.SUPERSEDED)
                self.ready((tag, height), because="the node says so")
        if status.release is not None:
            self._disappearances.shown(status.release.tag, status.release.height, core)

    def stands(self, folder: str) -> str | None:
        """Why the binaries of ``folder`` must not be started again, None if they may."""
        match self._ledger().journal.get(STANDS_KEY):
            case [str(stood), str(problem)] if stood == folder:
                return problem
            case _:
                return None

    def forget_standing(self) -> None:
        """The operator wants the node started all the same."""
        self._ledger().journal.put(STANDS_KEY, None)
        self._standing = None

    def _note_standing(self, problem: str | None) -> None:
        if problem != self._standing:
            folder = self._linked.running_folder()
            self._ledger().journal.put(STANDS_KEY, None if problem is None else [folder, problem])
            self._standing = problem

    def _announce(self, tag: str, height: int) -> None:
        """Have the upgrade pending; a tag that leads to no folder too, for its height will be done like any
        other's.
        """
        ledger = self._ledger()
        known = ledger.get(tag, height)
        if known is not None and known.upgrade.state in PENDING:
            return
        ledger.add(tag, height, self._preparations.folder_name(tag))
        self._voice.say(
            "upgrade.announced",
            f"the network has accepted {tag} for height {height}",
            tag=tag,
            height=height,
        )
        self._changed()

    def ready(self, key: Key, *, because: str) -> None:
        """The height of a pending upgrade is done."""
        ledger = self._ledger()
        tag, height = key
        entry = ledger.get(tag, height)
        assert entry is not None
        ledger.advance(entry, State.READY, because=because)
        # Whether the folder is still what was checked is looked at once more before the switch.
        self._preparations.look_now()
        self._voice.say(
            "upgrade.ready",
            f"height {height} is done, {tag} is next ({because})",
            tag=tag,
            height=height,
            because=because,
        )

    def _drop(self, key: Key, state: State) -> None:
        ledger = self._ledger()
        tag, height = key
        entry = ledger.get(tag, height)
        if entry is None:
            return
        ledger.advance(entry, state)
        self._preparations.drop(key)
        self._gate.release(tag)
        self._voice.say(
            f"upgrade.{state.value}",
            f"the upgrade to {tag} at height {height} is {state.value}; nothing is switched",
            severity=Severity.WARNING,
            tag=tag,
            height=height,
        )
        self._changed()

    def height_seen(self, height: int) -> None:
        """The running core is at ``height``: past or at an upgrade that it was not ready for?"""
        active = self._ledger().active()
        if active is None or active.upgrade.state not in PENDING:
            return
        tag, due = active.key
        if height > due:
            self._voice.say_once(
                "upgrade.passed",
                f"{tag}@{due}",
                f"height {due} of the upgrade to {tag} has passed, the node goes on and was never ready",
                next_step="look at the core's log; the network may have gone on without the upgrade",
                tag=tag,
                height=due,
            )
        elif height == due and active.key not in self._reminded:
            self._reminded.add(active.key)
            self._context.after(AT_HEIGHT_SECONDS, AtHeight(active.key), key=("at-height", *active.key))

    def still_at_height(self, key: Key) -> None:
        """The reminder came."""
        active = self._ledger().active()
        if active is not None and active.key == key and active.upgrade.state in PENDING:
            tag, height = key
            self._voice.say_once(
                "upgrade.stuck",
                f"{tag}@{height}",
                f"the node stands at height {height} of the upgrade to {tag} and is still not ready",
                next_step="with a data node, see its log: the core waits for it; do not stop the core",
                tag=tag,
                height=height,
            )
