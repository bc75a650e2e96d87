"""The folder that `current` leads to, as the coordinator uses it: what to run when nothing is to be switched,
and which release that is.

The decision is in :mod:`visor_actors.actors.current_folder`; here it is fed from the disk and carried out.
Runs on the coordinator's thread.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from visor_actors.actors.current_folder import Refuse, Repair, Run, resolve
from visor_actors.actors.ledger import Entry
from visor_actors.actors.upgrade_voice import UpgradeVoice
from visor_actors.actors.world import World
from visor_actors.home.current import LinkedTo, read_current, switch_current
from visor_actors.home.errors import HomeError
from visor_actors.home.journal import Journal
from visor_actors.home.layout import GENESIS

ACCEPTED_KEY = "current.accepted"
"""Journal: the folder the operator has agreed to run instead of the last upgrade's, as [folder, instead]."""


class Choice(Struct, frozen=True, kw_only=True):
    """The ``folder`` to run, or None and the ``problem`` that keeps any from being run."""

    folder: str | None
    problem: str = ""


class LinkedFolder:
    """See the module. ``journal`` returns the open journal or raises JournalUnavailable."""

    def __init__(self, world: World, voice: UpgradeVoice, journal: Callable[[], Journal]) -> None:
        self._world = world
        self._voice = voice
        self._journal = journal

    def choose(self, linked: Entry | None) -> Choice:
        """Which folder to run, given the last upgrade that was switched to. Mends the link where it may."""
        layout = self._world.layout
        expected = linked.folder if linked is not None else None
        try:
            link = read_current(layout)
        except HomeError as error:
            return self._refuse(str(error), "let visor read its home")
        match resolve(link, expected, self._has_folder, accepted=self._accepted(expected)):
            case Run(folder=folder):
                self._voice.unsay("upgrade.current", "")
                return Choice(folder=folder)
            case Repair(folder=folder, reason=reason):
                try:
                    switch_current(layout, folder)
                except (HomeError, OSError) as error:
                    return self._refuse(
                        f"the link `current` cannot be made: {error}", "mend the home's permissions"
                    )
                self._voice.say(
                    "current.linked", f"`current` now points to {folder}: {reason}", folder=folder
                )
                return Choice(folder=folder)
            case Refuse(problem=problem, next_step=advice):
                return self._refuse(problem, advice)

    def running_tag(self, linked: Entry | None) -> str | None:
        """The tag of the release that `current` leads to; None for the first one, which nobody has named."""
        try:
            link = read_current(self._world.layout)
        except HomeError:
            link = None
        match link:
            case LinkedTo(name=name) if linked is None or name != linked.folder:
                if name == GENESIS:
                    return None
                mapped = self._world.settings.current.upgrade_folders.items()
                return next((tag for tag, folder in mapped if folder == name), name)
            case _:
                return linked.upgrade.tag if linked is not None else None

    def running_folder(self) -> str | None:
        """The name of the folder that `current` leads to, None if it leads to none of this home."""
        try:
            link = read_current(self._world.layout)
        except HomeError:
            return None
        return link.name if isinstance(link, LinkedTo) else None

    def accept(self, linked: Entry | None) -> None:
        """The operator means the folder that `current` leads to, although another was upgraded to."""
        match read_current(self._world.layout):
            case LinkedTo(name=name) if linked is not None and name != linked.folder:
                self._journal().put(ACCEPTED_KEY, [name, linked.folder])
            case _:
                pass

    def _accepted(self, expected: str | None) -> str | None:
        match self._journal().get(ACCEPTED_KEY):
            case [str(folder), instead] if instead == expected:
                return folder
            case _:
                return None

    def _has_folder(self, name: str) -> bool:
        return (self._world.layout.root / name).is_dir()

    def _refuse(self, problem: str, advice: str) -> Choice:
        self._voice.say_once("upgrade.current", "", problem, next_step=advice)
        return Choice(folder=None, problem=problem)
