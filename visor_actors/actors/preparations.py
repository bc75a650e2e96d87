"""All folders that are being prepared: looks at them, has them checked and fetched, and says what is missing.

Part of the coordinator; runs on its thread. What is attended to is looked at once a second, and whenever
there is news.
"""

from __future__ import annotations

from msgspec import Struct

from visor_actors.actor import Context
from visor_actors.actors.addresses import INSTALLER
from visor_actors.actors.installer import CancelInstall, InstallFailed, InstallRelease
from visor_actors.actors.ledger import Key
from visor_actors.actors.preparation import Examination, Need, Preparation, examine
from visor_actors.actors.upgrade_machine import Folder
from visor_actors.actors.upgrade_voice import UpgradeVoice
from visor_actors.actors.world import World
from visor_actors.home.layout import is_folder_name
from visor_actors.home.run_config import peek_brand
from visor_actors.telemetry.events import Severity

LOOK_AGAIN_SECONDS = 1.0
"""How often a folder is looked at."""
PATIENCE_SECONDS = 2.0
"""How long something may be missing before it is an alarm: whoever provides a folder writes it file by file.
"""
FETCH_AGAIN_SECONDS = 600.0
"""How long after a final failure a fetch is tried once more: the release may have been completed meanwhile.
"""


class LookAgain(Struct, frozen=True):
    """Time to look at the folders."""


class FetchAgain(Struct, frozen=True):
    """A release that could not be fetched may have been completed meanwhile."""

    tag: str


class Preparations:
    """The folders of upgrades, and those the operator asked for by hand."""

    def __init__(self, context: Context, world: World, voice: UpgradeVoice) -> None:
        self._context = context
        self._world = world
        self._voice = voice
        self._known: dict[Key, Preparation] = {}
        self._by_hand: dict[str, Preparation] = {}
        self._armed = False

    # what the coordinator asks

    @property
    def by_upgrade(self) -> dict[Key, Preparation]:
        """The preparations of upgrades; not to be changed."""
        return self._known

    def folder_name(self, tag: str) -> str:
        """The folder for ``tag``, as the configuration maps it."""
        return self._world.settings.current.upgrade_folders.get(tag, tag)

    def attend(self, key: Key, folder: str) -> Folder:
        """See to the folder of an upgrade whose switch has not begun; return what is known of it."""
        if not is_folder_name(folder):
            problem, advice = self.problem_of(key)
            message = f"{key[0]} is not prepared: {problem}"
            self._voice.say_once("upgrade.preparation", key[0], message, next_step=advice, tag=key[0])
            return Folder.INCOMPLETE
        path = self._world.layout.root / folder
        preparation = self._known.get(key)
        if preparation is None or preparation.folder != path:
            if preparation is not None and preparation.installing:
                self._context.tell(INSTALLER, CancelInstall(tag=preparation.tag))
            preparation = self._known[key] = Preparation(tag=key[0], folder=path)
        self._see_to(preparation)
        if not self._armed:
            self._armed = True
            self._context.after(LOOK_AGAIN_SECONDS, LookAgain(), key="look-again")
        return preparation.state

    def look_now(self) -> None:
        """Something may have changed: the next :meth:`attend` looks, whenever the last look was."""
        for preparation in self._all():
            preparation.looked_at = None

    def problem_of(self, key: Key) -> tuple[str | None, str | None]:
        """What is wrong with an upgrade's folder, and what to do about it."""
        folder = self.folder_name(key[0])
        if not is_folder_name(folder):
            return (
                f"{folder!r} cannot name an upgrade folder",
                f'map it to one: "{key[0]}" = "FOLDER" under [upgradeFolders]',
            )
        preparation = self._known.get(key)
        return (None, None) if preparation is None else (preparation.problem, preparation.next_step)

    def drop(self, key: Key) -> None:
        """The upgrade is not wanted any more, or done."""
        preparation = self._known.pop(key, None)
        if preparation is not None and preparation.installing:
            self._context.tell(INSTALLER, CancelInstall(tag=preparation.tag))
        self._voice.unsay("upgrade.preparation", key[0])

    def by_hand(self, tag: str) -> None:
        """The operator wants ``tag`` prepared, whether or not an upgrade to it is known."""
        folder = self.folder_name(tag)
        if not is_folder_name(folder):
            self._voice.say(
                "upgrade.preparation",
                f"{folder!r} cannot name an upgrade folder, so {tag} is not prepared",
                severity=Severity.WARNING,
                next_step=f'map it: "{tag}" = "FOLDER" under [upgradeFolders]',
            )
            return
        path = self._world.layout.root / folder
        preparation = next((one for one in self._known.values() if one.folder == path), None)
        if preparation is None:
            preparation = self._by_hand.setdefault(tag, Preparation(tag=tag, folder=path))
        preparation.forget()
        self.look_now()
        self._see_to(preparation)
        self._keep_looking()

    # what comes back

    def look_again(self) -> None:
        """The timer came. The coordinator attends to its upgrade by itself."""
        self._armed = False
        self.look_now()
        for preparation in tuple(self._by_hand.values()):
            self._see_to(preparation)
        self._keep_looking()

    def checked(self, tag: str, path: str, value: object) -> None:
        """A check is done."""
        if not isinstance(value, Examination):
            raise TypeError(f"a check returned {type(value).__name__}")
        for preparation in self._all():
            if preparation.checking and (preparation.tag, str(preparation.folder)) == (tag, path):
                preparation.finish_check(value, now=self._now())
                if preparation.complete:
                    self._completed(preparation)

    def check_broke(self, tag: str, path: str, problem: str) -> None:
        """A check itself failed."""
        for preparation in self._all():
            if preparation.checking and (preparation.tag, str(preparation.folder)) == (tag, path):
                preparation.fail_check(problem, now=self._now())

    def installed(self, tag: str) -> None:
        """The installer has put the folder into place; it is checked like any other."""
        for preparation in self._all():
            if preparation.tag == tag:
                preparation.installing = False
                preparation.solved()
                preparation.forget()
        self.look_now()

    def install_failed(self, failure: InstallFailed) -> None:
        """An attempt has failed. The folder is watched all the same."""
        for preparation in self._all():
            if preparation.tag != failure.tag:
                continue
            preparation.trouble(failure.message, failure.next_step, now=self._now())
            if failure.retry_in is None:
                preparation.installing, preparation.unfetchable = False, True
                self._context.after(
                    FETCH_AGAIN_SECONDS, FetchAgain(failure.tag), key=("fetch-again", failure.tag)
                )
        if failure.retry_in is None:
            self._by_hand.pop(failure.tag, None)  # the failure is the answer to who asked

    def fetch_again(self, tag: str) -> None:
        """Try once more what has failed for good."""
        for preparation in self._all():
            if preparation.tag == tag:
                preparation.unfetchable = False
        self.look_now()

    def reconfigured(self) -> None:
        """The configuration has changed: everything is looked at with new eyes."""
        for preparation in self._all():
            preparation.forget()
        self.look_now()

    # one folder

    def _see_to(self, preparation: Preparation) -> None:
        now = self._now()
        looked_at = preparation.looked_at
        if looked_at is not None and now - looked_at < LOOK_AGAIN_SECONDS:
            return
        preparation.looked_at = now
        match preparation.need(auto_install=self._world.settings.current.auto_install.enabled, now=now):
            case Need.NOTHING:
                pass
            case Need.CHECK:
                self._check(preparation)
            case Need.INSTALL:
                self._install(preparation)
            case Need.OPERATOR if preparation.unfetchable:
                pass  # what kept it from being fetched is the problem already
            case Need.OPERATOR:
                preparation.trouble(
                    f"the folder {preparation.folder} is missing",
                    f"put run-config.toml and the binaries of {preparation.tag} into {preparation.folder}, "
                    f"or switch autoInstall on; it is picked up as soon as it is complete",
                    now=now,
                )
        self._alarm_if_due(preparation, now)

    def _check(self, preparation: Preparation) -> None:
        preparation.begin_check()
        path, tag = preparation.folder, preparation.tag
        self._context.run_job(lambda token: examine(path, tag, token), key=("check", tag, str(path)))

    def _install(self, preparation: Preparation) -> None:
        preparation.installing = True
        current = self._world.layout.current
        self._context.tell(
            INSTALLER,
            InstallRelease(
                tag=preparation.tag,
                brand=peek_brand(self._world.layout).name,
                folder_name=preparation.folder.name,
                source_folder=current if current.is_dir() else None,
            ),
        )

    def _completed(self, preparation: Preparation) -> None:
        if preparation.installing:
            # Somebody else was faster.
            preparation.installing = False
            self._context.tell(INSTALLER, CancelInstall(tag=preparation.tag))
        self._by_hand.pop(preparation.tag, None)
        self._voice.unsay("upgrade.preparation", preparation.tag)
        self._voice.say(
            "upgrade.prepared",
            f"{preparation.folder.name} is complete and can be switched to",
            tag=preparation.tag,
        )

    def _alarm_if_due(self, preparation: Preparation, now: float) -> None:
        since = preparation.troubled_since
        if preparation.problem is None or since is None or now - since < PATIENCE_SECONDS:
            return
        by_hand = preparation.tag in self._by_hand
        self._voice.say_once(
            "upgrade.preparation",
            preparation.tag,
            f"{preparation.tag} is not prepared: {preparation.problem}",
            severity=Severity.WARNING if by_hand else Severity.ALARM,
            next_step=preparation.next_step,
            tag=preparation.tag,
        )

    def _keep_looking(self) -> None:
        if self._by_hand and not self._armed:
            self._armed = True
            self._context.after(LOOK_AGAIN_SECONDS, LookAgain(), key="look-again")

    def _all(self) -> tuple[Preparation, ...]:
        return (*self._known.values(), *self._by_hand.values())

    def _now(self) -> float:
        return self._world.monotonic()
