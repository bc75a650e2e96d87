"""What may stand between *ready* and the stop: the operator's hold, the pre-upgrade hook, the stop delay.

Part of the coordinator; runs on its thread. Holds and the outcome of hooks are in the journal: neither is
forgotten by a restart, and a hook that has succeeded does not run again.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from msgspec import Struct

from visor_actors.actor import Context
from visor_actors.actors.hooks import HookResult, run_hook
from visor_actors.actors.ledger import Entry, Key
from visor_actors.actors.reports import HoldsReport
from visor_actors.actors.upgrade_voice import UpgradeVoice
from visor_actors.actors.world import World
from visor_actors.home.journal import Journal
from visor_actors.home.settings import Hook
from visor_actors.telemetry.events import Severity

HOLDS_KEY = "upgrade.holds"
"""Journal: the tags that are held; ``*`` for whichever comes next."""
HOOK_KEY = "upgrade.hook"
"""Journal: how the last pre-upgrade hook ended, as [tag, height, outcome]."""
POST_HOOK_KEY = "upgrade.post-hook"
"""Journal: the confirmed upgrade whose post-upgrade hook has not ended yet, as [tag, height, folder]."""
EVERY = "*"


class HookOutcome(enum.StrEnum):
    """What the pre-upgrade hook of an upgrade means for its switch; the value is what the journal holds."""

    PASSED = "passed"
    FAILED = "failed"


class Settled(Struct, frozen=True):
    """The stop delay is over."""

    key: Key


class Gate:
    """Lets an upgrade pass from *ready* to the stop. ``journal`` returns the open journal or raises
    JournalUnavailable.
    """

    def __init__(
        self, context: Context, world: World, voice: UpgradeVoice, journal: Callable[[], Journal]
    ) -> None:
        self._context = context
        self._world = world
        self._voice = voice
        self._journal = journal
        self._held: set[str] = set()
        self._hook: tuple[Key, HookOutcome] | None = None
        self._running_hook: Key | None = None
        self._settling: Key | None = None
        self._settled: Key | None = None

    def recall(self) -> None:
        """Read what earlier incarnations have left, and finish a post-upgrade hook of theirs."""
        journal = self._journal()
        holds = journal.get(HOLDS_KEY)
        self._held = {str(tag) for tag in holds} if isinstance(holds, list) else set()
        match journal.get(HOOK_KEY):
            case [str(tag), int(height), ("passed" | "failed") as outcome]:
                self._hook = ((tag, height), HookOutcome(outcome))
            case _:
                self._hook = None
        self._publish()
        match journal.get(POST_HOOK_KEY):
            case [str(tag), int(height), str(folder)]:
                self._start_post_hook((tag, height), folder)
            case _:
                pass

    # holds

    @property
    def held(self) -> frozenset[str]:
        """The tags that are held; :data:`EVERY` for whichever comes next."""
        return frozenset(self._held)

    def holds(self, tag: str) -> bool:
        """Whether ``tag`` is held."""
        return tag in self._held or EVERY in self._held

    def hold(self, tag: str | None) -> None:
        """Do not let ``tag`` pass; None: whichever comes next."""
        self._change(self._held | {tag or EVERY})
        subject = "the next switch" if tag is None else f"the switch to {tag}"
        self._voice.say("upgrade.held", f"{subject} waits for `visor-actors upgrades resume`", tag=tag)

    def resume(self, tag: str | None) -> None:
        """Let ``tag`` pass; None: everything. A hook that has failed was looked at by whoever resumes and is
        not run once more."""
        match self._hook:
            case (key, HookOutcome.FAILED) if tag in (None, key[0]):
                self._note_hook(key, HookOutcome.PASSED)
            case _:
                pass
        self._change(set() if tag is None else self._held - {tag, EVERY})
        self._voice.say("upgrade.resumed", "upgrades go on", tag=tag)

    def release(self, tag: str) -> None:
        """There is nothing more to hold of ``tag``."""
        if tag in self._held:
            self._change(self._held - {tag})

    def _change(self, held: set[str]) -> None:
        if held != self._held:
            self._journal().put(HOLDS_KEY, [*sorted(held)] or None)
            self._held = held
        self._publish()

    def _publish(self) -> None:
        self._world.board.publish("holds", HoldsReport(tags=tuple(sorted(self._held))))

    # the hook before

    def hook_done(self, key: Key) -> bool:
        """Whether nothing is left to run before the stop of ``key``."""
        return self._world.settings.current.hooks.pre_upgrade is None or self._hook == (
            key,
            HookOutcome.PASSED,
        )

    def run_hook(self, entry: Entry) -> None:
        """Run the pre-upgrade hook, unless it runs already."""
        hook = self._world.settings.current.hooks.pre_upgrade
        if hook is not None and self._running_hook != entry.key:
            self._running_hook = entry.key
            self._start("hook", hook, entry.key, entry.folder)

    def hook_ended(self, key: Key, result: HookResult) -> None:
        """The pre-upgrade hook has ended. One that failed holds the switch."""
        self._running_hook = None
        tag, _ = key
        self._tell("preUpgrade", key, result, next_step=f"mend it, then `visor-actors upgrades resume {tag}`")
        if result.problem is None:
            self._note_hook(key, HookOutcome.PASSED)
        else:
            self._note_hook(key, HookOutcome.FAILED)
            self._change(self._held | {tag})

    def _note_hook(self, key: Key, outcome: HookOutcome) -> None:
        self._hook = (key, outcome)
        self._journal().put(HOOK_KEY, [*key, outcome.value])

    # the delay

    def settled(self, key: Key) -> bool:
        """Whether the stop delay of ``key`` is over."""
        return self._world.settings.current.stop_delay_seconds <= 0 or self._settled == key

    def delay(self, entry: Entry) -> None:
        """Begin the stop delay, unless it has begun."""
        if self._settling == entry.key:
            return
        self._settling = entry.key
        seconds = self._world.settings.current.stop_delay_seconds
        tag, height = entry.key
        self._voice.say(
            "upgrade.delayed",
            f"upgrade to {tag}: stopping in {seconds:g} s, as configured",
            tag=tag,
            height=height,
        )
        self._context.after(seconds, Settled(entry.key), key=("settled", *entry.key))

    def delay_over(self, key: Key) -> None:
        """The delay's timer came."""
        self._settled = key

    # the hook after

    def promise_post_hook(self, entry: Entry) -> None:
        """Before an upgrade is confirmed: note that its post-upgrade hook is due; no kill drops it."""
        if self._world.settings.current.hooks.post_upgrade is not None:
            self._journal().put(POST_HOOK_KEY, [*entry.key, entry.folder])

    def run_post_hook(self, entry: Entry) -> None:
        """The upgrade is confirmed."""
        self._start_post_hook(entry.key, entry.folder)

    def _start_post_hook(self, key: Key, folder: str) -> None:
        hook = self._world.settings.current.hooks.post_upgrade
        if hook is not None:
            self._start("post", hook, key, folder)

    def post_hook_ended(self, key: Key, result: HookResult) -> None:
        """The post-upgrade hook has ended; the upgrade is done either way."""
        self._tell("postUpgrade", key, result, next_step="run it by hand, if its work is needed")
        self._journal().put(POST_HOOK_KEY, None)

    # hooks

    def _start(self, kind: str, hook: Hook, key: Key, folder: str) -> None:
        tag, height = key
        variables = {
            "VISOR_HOME": str(self._world.layout.root),
            "VISOR_UPGRADE_TAG": tag,
            "VISOR_UPGRADE_HEIGHT": str(height),
            "VISOR_UPGRADE_FOLDER": str(self._world.layout.root / folder),
        }
        self._voice.say(
            "hook.started", f"running {hook.argv[0]} for {tag}", tag=tag, height=height, hook=kind
        )
        self._context.run_job(lambda token: run_hook(hook, variables, token), key=(kind, tag, height))

    def _tell(self, name: str, key: Key, result: HookResult, *, next_step: str) -> None:
        tag, height = key
        failed = result.problem is not None
        self._voice.say(
            "hook.failed" if failed else "hook.done",
            f"{name} for {tag} failed: {result.problem}" if failed else f"{name} for {tag} is done",
            severity=Severity.ALARM if failed else Severity.INFO,
            next_step=next_step if failed else None,
            lines=result.lines,
            tag=tag,
            height=height,
            hook=name,
        )
