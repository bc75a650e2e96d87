"""UpgradeCoordinatorActor: what the node should run, and how it gets from one release to the next.

The actor is a loop of one shape: something was heard (a status of the core, a state of the node, the end of a
job), so
:meth:`_reconcile` asks the pure machine which step the journal and the facts call for, carries that step out,
and asks again until nothing is left to do. It keeps no plan in memory; killed anywhere, its successor asks
the same question of the same journal.
"""

from __future__ import annotations

from dataclasses import dataclass

from visor_actors.actor import Actor, Context, JobDone, JobFailed
from visor_actors.actors.addresses import INSTALLER, LIFECYCLE, RPC_LISTENER
from visor_actors.actors.config_watcher import ConfigChanged
from visor_actors.actors.current_folder import Refuse, Repair, Run, resolve
from visor_actors.actors.hooks import HookResult, run_hook
from visor_actors.actors.installer import CancelInstall, InstallFailed, InstallRelease, ReleaseInstalled
from visor_actors.actors.ledger import Entry, Ledger
from visor_actors.actors.messages import (
    DescribeNode,
    ForgetRestarts,
    HeightSeen,
    HoldOrder,
    HoldUpgrade,
    NodePhase,
    NodeState,
    Occasion,
    Pace,
    PrepareUpgrade,
    RecycleNode,
    ResumeUpgrade,
    RunOrder,
    SetPace,
    StatusSeen,
)
from visor_actors.actors.preparation import Need, Preparation, examine
from visor_actors.actors.reports import UpgradeReport
from visor_actors.actors.upgrade_machine import (
    COMMITTED,
    PENDING,
    Announced,
    Facts,
    Height,
    NodeIs,
    Nothing,
    Ready,
    State,
    Step,
    Suspicious,
    Withdrawn,
    next_step,
    observe,
)
from visor_actors.actors.witnesses import LAST_EXIT_KEY, LAST_HEIGHT_KEY, Memory, gather_and_judge
from visor_actors.actors.world import World
from visor_actors.home.current import LinkedTo, read_current, switch_current
from visor_actors.home.errors import HomeError
from visor_actors.home.journal import Journal, JournalUnavailable
from visor_actors.home.layout import GENESIS
from visor_actors.home.run_config import peek_brand
from visor_actors.home.settings import Hook
from visor_actors.install.check import FolderReport
from visor_actors.node.witness import HeightTrack, HeightVerdict
from visor_actors.telemetry.events import Event, Severity

HOLDS_KEY = "upgrade.holds"
LOOK_AGAIN_SECONDS = 1.0
"""How often a folder that is awaited from the operator is looked for."""
JOURNAL_RETRY_SECONDS = 2.0
INSTALL_AGAIN_SECONDS = 600.0
"""How long after a final failure a fetch is tried once more: the release may have been completed meanwhile.
"""
UNCONFIRMED_SECONDS = 60.0
"""How long the new node may be silent before the operator is told; it goes on being awaited."""
AT_HEIGHT_SECONDS = 60.0
"""How long a node may stand at the upgrade height without being ready before the operator is told."""

_NODE_IS = {
    NodePhase.UNKNOWN: NodeIs.UNKNOWN,
    NodePhase.ASKING: NodeIs.DOWN,
    NodePhase.HELD: NodeIs.DOWN,
    NodePhase.PLANNING: NodeIs.COMING_UP,
    NodePhase.STARTING: NodeIs.COMING_UP,
    NodePhase.RUNNING: NodeIs.UP,
    NodePhase.STOPPING: NodeIs.GOING_DOWN,
    NodePhase.WAITING: NodeIs.GOING_DOWN,
    NodePhase.STOPPED: NodeIs.UNKNOWN,
    NodePhase.GAVE_UP: NodeIs.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class _LookAgain:
    """Something outside visor may have changed."""


@dataclass(frozen=True, slots=True)
class _FetchAgain:
    """A release that could not be fetched may have been completed meanwhile."""

    tag: str


@dataclass(frozen=True, slots=True)
class _Settled:
    """The stop delay is over."""

    key: tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Unconfirmed:
    """The new node has been silent for long."""

    key: tuple[str, int]


@dataclass(frozen=True, slots=True)
class _AtHeight:
    """The node has stood at the upgrade height for long."""

    key: tuple[str, int]


class UpgradeCoordinatorActor(Actor):
    """Owns the journal's upgrades and the link ``current``. Started last; asked by the lifecycle before every
    start.
    """

    def __init__(self, context: Context, *, world: World) -> None:
        super().__init__(context)
        self._world = world
        self._journal: Journal | None = None
        self._ledger: Ledger | None = None
        self._node: NodeState | None = None
        self._preparations: dict[tuple[str, str], Preparation] = {}
        self._settled: set[tuple[str, int]] = set()
        self._settling: set[tuple[str, int]] = set()
        self._hooked: set[tuple[str, int]] = set()
        self._hooking: set[tuple[str, int]] = set()
        self._held: set[tuple[str, int]] = set()
        self._verdict = Height.NOT_ASKED
        self._judging = False
        self._track = HeightTrack()
        self._answered_core: str | None = None
        self._new_core_after = 0
        self._accepted_link: str | None = None
        self._told: dict[str, str] = {}

    # the actor

    def init(self) -> None:
        """Read the journal. Where it cannot be read, nothing is started until it can."""
        self._open_journal()
        self.context.tell(LIFECYCLE, DescribeNode())

    def terminate(self) -> None:
        """Let go of the journal."""
        if self._journal is not None:
            self._journal.close()

    def handle(self, message: object) -> None:
        """Take one message in, then do what is due."""
        try:
            self._take_in(message)
            self._reconcile()
        except JournalUnavailable as error:
            self._journal_failed(error)

    def _take_in(self, message: object) -> None:
        match message:
            case NodeState():
                self._node_changed(message)
            case StatusSeen():
                self._status_seen(message)
            case HeightSeen(core=core, height=height):
                self._height_seen(core, height)
            case ReleaseInstalled(tag=tag):
                self._installed(tag)
            case InstallFailed():
                self._install_failed(message)
            case JobDone(key=("check", str(tag), str(folder)), value=value):
                self._checked(tag, folder, value)
            case JobFailed(key=("check", str(tag), str(folder)), failure=failure):
                self._check_broke(tag, folder, failure.message)
            case JobDone(key=("hook", str(tag), int(height)), value=value):
                self._hook_done((tag, height), value)
            case JobFailed(key=("hook", str(tag), int(height)), failure=failure):
                self._hook_done((tag, height), HookResult(problem=failure.message))
            case JobDone(key=("post", str(tag), int(height)), value=value):
                self._post_hook_done(tag, height, value)
            case JobDone(key="witnesses", value=value):
                self._judged(value)
            case JobFailed(key="witnesses", failure=failure):
                self._judging = False
                self._tell_once("witnesses", f"the witnesses could not be asked: {failure.message}")
            case HoldUpgrade(tag=tag):
                self._hold(tag)
            case ResumeUpgrade(tag=tag):
                self._resume(tag)
            case PrepareUpgrade(tag=tag):
                self._prepare_by_hand(tag)
            case _FetchAgain(tag=tag):
                for preparation in self._preparations.values():
                    if preparation.tag == tag:
                        preparation.unfetchable = False
            case _Settled(key=key):
                self._settled.add(key)
            case _Unconfirmed(key=key):
                self._still_unconfirmed(key)
            case _AtHeight(key=key):
                self._still_at_height(key)
            case ConfigChanged():
                for preparation in self._preparations.values():
                    preparation.forget()
            case _:
                pass

    # the journal

    def _open_journal(self) -> None:
        try:
            self._journal = Journal.open(self._world.layout.journal)
            self._ledger = Ledger(self._journal, now=self._world.now)
        except JournalUnavailable as error:
            self._journal_failed(error)
            return
        if self._journal.set_aside is not None:
            self._emit(
                "journal.set-aside",
                f"the journal was damaged and is kept as {self._journal.set_aside.name}; "
                "what runs is taken from the link `current`",
                severity=Severity.ALARM,
                next_step="compare `visor-actors status` with what you expect before the next upgrade",
            )
        holds = self._journal.get(HOLDS_KEY)
        if isinstance(holds, list):
            self._held = {(str(hold[0]), int(str(hold[1]))) for hold in holds if isinstance(hold, list)}
        self._tell_pace()
        self._publish()

    def _journal_failed(self, error: JournalUnavailable) -> None:
        self._tell_once(
            "journal",
            f"the journal cannot be used, so no upgrade step is taken: {error}",
            severity=Severity.ALARM,
            next="free disk space or mend the permissions of .visor; visor tries again every two seconds",
        )
        self.context.after(JOURNAL_RETRY_SECONDS, _LookAgain(), key="look-again")

    # what is heard

    def _node_changed(self, state: NodeState) -> None:
        before, self._node = self._node, state
        if before is not None and before.core != state.core:
            self._verdict = Height.NOT_ASKED
            if state.core is not None:
                self._track = HeightTrack()
        active = self._active()
        if (
            active is not None
            and active.upgrade.state is State.STARTING
            and state.failure is not None
            and (before is None or before.failure != state.failure)
        ):
            self._alarm_phase(active, f"the new node failed: {state.failure}")

    def _status_seen(self, seen: StatusSeen) -> None:
        if self._ledger is None:
            return
        if seen.pace is not self._pace():
            self._tell_pace()
        if self._node is None or self._node.phase is not NodePhase.RUNNING or seen.core != self._node.core:
            return  # a core on its way out, or one nobody has told us of yet: it will be asked again
        self._answered_core = seen.core
        match observe(seen.status, self._ledger.upgrades, self._running_tag()):
            case Nothing():
                pass
            case Suspicious(problem=problem, next_step=advice):
                self._tell_once("suspicious", problem, severity=Severity.ALARM, next=advice)
            case Withdrawn(upgrades=upgrades):
                for upgrade in upgrades:
                    self._drop(self._entry(upgrade.tag, upgrade.height), State.WITHDRAWN)
            case Announced(tag=tag, height=height, replaces=replaces):
                for upgrade in replaces:
                    self._drop(self._entry(upgrade.tag, upgrade.height), State.SUPERSEDED)
                self._announce(tag, height)
            case Ready(tag=tag, height=height, replaces=replaces):
                for upgrade in replaces:
                    self._drop(self._entry(upgrade.tag, upgrade.height), State.SUPERSEDED)
                self._ready(tag, height, because="the node says so")

    def _announce(self, tag: str, height: int) -> Entry:
        assert self._ledger is not None
        entry = self._ledger.add(tag, height, self._folder_name(tag))
        self._emit(
            "upgrade.announced",
            f"the network has accepted {tag} for height {height}",
            tag=tag,
            height=height,
        )
        self._tell_pace()
        return entry

    def _ready(self, tag: str, height: int, *, because: str) -> None:
        assert self._ledger is not None
        entry = self._ledger.get(tag, height)
        if entry is None or entry.upgrade.state not in PENDING:
            entry = self._announce(tag, height)
        self._ledger.advance(entry, State.READY, because=because)
        self._emit(
            "upgrade.ready",
            f"height {height} is done: switching to {tag} ({because})",
            tag=tag,
            height=height,
            because=because,
        )

    def _drop(self, entry: Entry | None, state: State) -> None:
        if entry is None or self._ledger is None:
            return
        self._ledger.advance(entry, state)
        tag, height = entry.key
        self.context.tell(INSTALLER, CancelInstall(tag=tag))
        self._preparations.pop((tag, entry.folder), None)
        self._emit(
            f"upgrade.{state.value}",
            f"the upgrade to {tag} at height {height} is {state.value}; nothing is switched",
            severity=Severity.WARNING,
            tag=tag,
            height=height,
        )
        self._tell_pace()

    def _height_seen(self, core: str, height: int) -> None:
        if self._node is None or core != self._node.core:
            return
        at = self._world.now()
        self._track.saw(height, at)
        seen = self._track.witness(at)
        if self._journal is not None and seen is not None:
            self._journal.put(LAST_HEIGHT_KEY, {"height": height, "at": at, "pace": seen.pace})
        active = self._active()
        if active is None or active.upgrade.state not in PENDING:
            return
        tag, due = active.key
        if height > due:
            self._tell_once(
                f"passed:{tag}@{due}",
                f"height {due} of the upgrade to {tag} has passed ({height} now), the node was never ready",
                severity=Severity.ALARM,
                next="look at the core's log; the network may have gone on without the upgrade",
            )
        elif height == due:
            self.context.after(AT_HEIGHT_SECONDS, _AtHeight(active.key), key=("at-height", *active.key))

    def _still_at_height(self, key: tuple[str, int]) -> None:
        active = self._active()
        if active is not None and active.key == key and active.upgrade.state in PENDING:
            tag, height = key
            self._tell_once(
                f"stuck:{tag}@{height}",
                f"the node stands at height {height} of the upgrade to {tag} and is still not ready",
                severity=Severity.ALARM,
                next="with a data node, see its log: the core waits for it for ever; do not stop the core",
            )

    # preparing

    def _folder_name(self, tag: str) -> str:
        return self._world.settings.current.upgrade_folders.get(tag, tag)

    def _preparation(self, tag: str, folder: str) -> Preparation:
        key = (tag, folder)
        if key not in self._preparations:
            self._preparations[key] = Preparation(tag=tag, folder=self._world.layout.root / folder)
        return self._preparations[key]

    def _prepare(self, tag: str, folder: str) -> None:
        preparation = self._preparation(tag, folder)
        auto = self._world.settings.current.auto_install.enabled
        match preparation.need(auto_install=auto):
            case Need.NOTHING:
                pass
            case Need.CHECK:
                preparation.begin_check()
                path = preparation.folder
                self.context.run_job(lambda _token: examine(path, tag), key=("check", tag, folder))
            case Need.INSTALL:
                self._install(preparation, folder)
            case Need.OPERATOR if preparation.unfetchable:
                pass
            case Need.OPERATOR:
                preparation.problem = f"the folder {preparation.folder} is missing"
                preparation.next_step = (
                    f"put run-config.toml and the binaries of {tag} into {preparation.folder}, "
                    f"or run `visor-actors prepare {tag}`; it is picked up as soon as it is complete"
                )
        if preparation.problem is not None and not preparation.ready:
            self._tell_once(
                f"preparation:{tag}",
                f"the upgrade to {tag} is not prepared: {preparation.problem}",
                severity=Severity.ALARM,
                next=preparation.next_step,
            )
        if not preparation.ready:
            self.context.after(LOOK_AGAIN_SECONDS, _LookAgain(), key="look-again")

    def _install(self, preparation: Preparation, folder: str) -> None:
        preparation.installing = True
        current = self._world.layout.current
        self.context.tell(
            INSTALLER,
            InstallRelease(
                tag=preparation.tag,
                brand=peek_brand(self._world.layout).name,
                folder_name=folder,
                source_folder=current if current.is_dir() else None,
            ),
        )

    def _installed(self, tag: str) -> None:
        for preparation in self._preparations.values():
            if preparation.tag == tag:
                preparation.installing = False
                preparation.problem = preparation.next_step = None
                preparation.forget()

    def _install_failed(self, message: InstallFailed) -> None:
        for preparation in self._preparations.values():
            if preparation.tag != message.tag:
                continue
            preparation.problem, preparation.next_step = message.message, message.next_step
            if not message.transient:
                preparation.installing, preparation.unfetchable = False, True
                # The folder is watched all the same; should it come meanwhile, it is checked and this is
                # forgotten.
                self.context.after(
                    INSTALL_AGAIN_SECONDS, _FetchAgain(message.tag), key=("again", message.tag)
                )

    def _checked(self, tag: str, folder: str, value: object) -> None:
        preparation = self._preparation(tag, folder)
        if not isinstance(value, FolderReport):
            raise TypeError(f"a check returned {type(value).__name__}")
        preparation.finish_check(value)
        if preparation.ready:
            self._told.pop(f"preparation:{tag}", None)
            self._emit("upgrade.prepared", f"{folder} is complete: {tag} can be switched to", tag=tag)

    def _check_broke(self, tag: str, folder: str, problem: str) -> None:
        self._preparation(tag, folder).fail_check(problem)

    def _prepare_by_hand(self, tag: str) -> None:
        folder = self._folder_name(tag)
        self._preparation(tag, folder).forget()
        self._prepare(tag, folder)

    # the machine

    def _active(self) -> Entry | None:
        return self._ledger.active() if self._ledger is not None else None

    def _entry(self, tag: str, height: int) -> Entry | None:
        return self._ledger.get(tag, height) if self._ledger is not None else None

    def _running_tag(self) -> str | None:
        """The tag that runs now, as far as it is known: the last one switched to, else the folder's name."""
        assert self._ledger is not None
        linked = self._ledger.linked()
        if linked is not None:
            return linked.upgrade.tag
        match read_current(self._world.layout):
            case LinkedTo(name=name) if name != GENESIS:
                return name
            case _:
                return None

    def _facts(self, entry: Entry) -> Facts:
        key = entry.key
        node = NodeIs.UNKNOWN if self._node is None else _NODE_IS[self._node.phase]
        first = entry.detail.get("core_incarnation")
        new_runs = isinstance(first, int) and self._node is not None and self._node.core_incarnation > first
        return Facts(
            node=node,
            prepared=self._preparation(entry.upgrade.tag, entry.folder).ready
            or entry.upgrade.state not in (*PENDING, State.READY),
            held=key in self._held or self._holds_all(),
            hook_done=self._world.settings.current.hooks.pre_upgrade is None or key in self._hooked,
            settled=self._world.settings.current.stop_delay_seconds <= 0 or key in self._settled,
            answered=self._node is not None
            and self._node.core is not None
            and self._answered_core == self._node.core,
            old_runs=not new_runs,
            height=self._verdict,
        )

    def _reconcile(self) -> None:
        if self._ledger is None:
            self._open_journal()
            if self._ledger is None:
                self._answer_hold("the journal cannot be used")
                return
        while True:
            entry = self._active()
            if entry is None:
                self._run_current()
                break
            if entry.upgrade.state in (*PENDING, State.READY):
                self._prepare(entry.upgrade.tag, entry.folder)
            step = next_step(entry.upgrade.state, self._facts(entry))
            if not self._carry_out(step, entry):
                break
        self._publish()

    def _carry_out(self, step: Step, entry: Entry) -> bool:
        """Do one step. True: the journal has moved on, ask again; False: wait for what comes next."""
        assert self._ledger is not None
        match step:
            case Step.PREPARE:
                self._ledger.advance(entry, State.PREPARING)
                return True
            case Step.MARK_PREPARED:
                self._ledger.advance(entry, State.PREPARED)
                return True
            case Step.MARK_READY:
                self._ready(*entry.key, because="the node died there, and its witnesses say so")
                return True
            case Step.MARK_STOPPING:
                self._ledger.advance(entry, State.STOPPING)
                self._emit_step(entry, "stopping", "stopping the old node")
                return True
            case Step.MARK_STOPPED:
                self._ledger.advance(entry, State.STOPPED)
                return True
            case Step.SWITCH:
                return self._switch(entry)
            case Step.MARK_STARTING:
                incarnation = self._node.core_incarnation if self._node is not None else 0
                self._ledger.advance(entry, State.STARTING, core_incarnation=incarnation)
                return True
            case Step.CONFIRM:
                self._confirm(entry)
                return True
            case Step.STOP:
                self.context.tell(LIFECYCLE, RecycleNode(reason=f"upgrade to {entry.upgrade.tag}"))
            case Step.RUN_NEW:
                self._run_new(entry)
            case Step.RUN_OLD:
                self._run_current()
            case Step.ASK_WITNESSES:
                self._ask_witnesses(entry)
            case Step.HOLD:
                self._hold_node(entry)
            case Step.RUN_HOOK:
                self._run_pre_hook(entry)
            case Step.DELAY:
                self._delay(entry)
            case Step.NOTHING:
                pass
        return False

    def _switch(self, entry: Entry) -> bool:
        assert self._ledger is not None
        try:
            switch_current(self._world.layout, entry.folder)
        except (HomeError, OSError) as error:
            self._alarm_phase(entry, f"the link `current` cannot be replaced: {error}")
            self._answer_hold("the link `current` cannot be replaced")
            self.context.after(LOOK_AGAIN_SECONDS, _LookAgain(), key="look-again")
            return False
        self._ledger.advance(entry, State.SWITCHED)
        self._emit_step(entry, "switched", f"`current` points to {entry.folder}")
        return True

    def _run_new(self, entry: Entry) -> None:
        # The first start counts once it has got somewhere. One that ended before, because it found no
        # snapshot of the height for instance, must not be followed by a plain start from below the height.
        first = entry.detail.get("core_incarnation")
        lived = self._node.core_lived if self._node is not None else 0
        got_somewhere = isinstance(first, int) and lived > first
        occasion = Occasion.ANY_OTHER if got_somewhere else Occasion.FIRST_AFTER_UPGRADE
        self._order(entry.folder, occasion=occasion, upgrade_height=entry.upgrade.height)
        self.context.after(UNCONFIRMED_SECONDS, _Unconfirmed(entry.key), key=("unconfirmed", *entry.key))

    def _confirm(self, entry: Entry) -> None:
        assert self._ledger is not None
        self._ledger.advance(entry, State.CONFIRMED)
        self.context.cancel(("unconfirmed", *entry.key))
        self.context.tell(LIFECYCLE, ForgetRestarts())
        self._emit_step(entry, "confirmed", f"the node runs {entry.upgrade.tag} and answers")
        self._tell_pace()
        hook = self._world.settings.current.hooks.post_upgrade
        if hook is not None:
            self._start_hook("post", hook, entry)

    def _run_current(self) -> None:
        """No upgrade is committed: run what ``current`` points to, if the lifecycle asks."""
        if self._ledger is None or self._node is None or _NODE_IS[self._node.phase] is not NodeIs.DOWN:
            return
        linked = self._ledger.linked()
        expected = linked.folder if linked is not None else None
        layout = self._world.layout
        height = linked.upgrade.height if linked is not None else None
        match resolve(read_current(layout), expected, self._has_folder, accepted=self._accepted_link):
            case Run(folder=folder):
                self._order(folder, upgrade_height=height if folder == expected else None)
            case Repair(folder=folder, reason=reason):
                try:
                    switch_current(layout, folder)
                except (HomeError, OSError) as error:
                    self._refuse(f"the link `current` cannot be made: {error}", "mend the home's permissions")
                    return
                self._emit("current.linked", f"`current` now points to {folder}: {reason}", folder=folder)
                self._order(folder, upgrade_height=height if folder == expected else None)
            case Refuse(problem=problem, next_step=advice):
                self._refuse(problem, advice)

    def _has_folder(self, name: str) -> bool:
        return (self._world.layout.root / name).is_dir()

    def _refuse(self, problem: str, advice: str) -> None:
        self._tell_once("current", problem, severity=Severity.ALARM, next=advice)
        self._answer_hold(problem)

    def _order(
        self,
        folder: str,
        *,
        upgrade_height: int | None = None,
        occasion: Occasion = Occasion.ANY_OTHER,
    ) -> None:
        if self._node is not None and _NODE_IS[self._node.phase] is NodeIs.DOWN:
            order = RunOrder(
                ask=self._node.ask,
                folder=self._world.layout.root / folder,
                upgrade_height=upgrade_height,
                occasion=occasion,
            )
            self.context.tell(LIFECYCLE, order)

    def _answer_hold(self, reason: str) -> None:
        if self._node is not None and _NODE_IS[self._node.phase] is NodeIs.DOWN:
            self.context.tell(LIFECYCLE, HoldOrder(ask=self._node.ask, reason=reason))

    # ready, and what may come before the stop

    def _hold_node(self, entry: Entry) -> None:
        tag, height = entry.key
        facts = self._facts(entry)
        if facts.held and entry.upgrade.state is State.READY:
            reason = f"the upgrade to {tag} is held"
            advice = f"`visor-actors upgrades resume {tag}` lets it go on"
        elif entry.upgrade.state in COMMITTED:
            reason = f"height {height} is done, so the old node must not run, and {tag} is not prepared"
            advice = self._preparation(tag, entry.folder).next_step or "see `visor-actors upgrades`"
        else:
            reason = (
                f"the node died before the upgrade to {tag}, and no witness can tell whether height "
                f"{height} is done; an old binary past its height would ruin its state"
            )
            advice = (
                f"find out the last height from the core's log or the network; if {height} is not done, "
                "`visor-actors upgrades resume` starts the old node again"
            )
        self._tell_once(f"hold:{tag}@{height}", reason, severity=Severity.ALARM, next=advice)
        self._answer_hold(reason)

    def _run_pre_hook(self, entry: Entry) -> None:
        hook = self._world.settings.current.hooks.pre_upgrade
        if hook is not None and entry.key not in self._hooking:
            self._hooking.add(entry.key)
            self._start_hook("hook", hook, entry)

    def _start_hook(self, kind: str, hook: Hook, entry: Entry) -> None:
        tag, height = entry.key
        variables = {
            "VISOR_HOME": str(self._world.layout.root),
            "VISOR_UPGRADE_TAG": tag,
            "VISOR_UPGRADE_HEIGHT": str(height),
            "VISOR_UPGRADE_FOLDER": str(self._world.layout.root / entry.folder),
        }
        self._emit("hook.started", f"running {hook.argv[0]} for {tag}", tag=tag, height=height, hook=kind)
        self.context.run_job(lambda token: run_hook(hook, variables, token), key=(kind, tag, height))

    def _hook_done(self, key: tuple[str, int], value: object) -> None:
        self._hooking.discard(key)
        assert isinstance(value, HookResult)
        self._tell_hook("preUpgrade", key, value)
        if value.problem is None:
            self._hooked.add(key)
        else:
            self._held.add(key)
            self._save_holds()

    def _post_hook_done(self, tag: str, height: int, value: object) -> None:
        assert isinstance(value, HookResult)
        self._tell_hook("postUpgrade", (tag, height), value)

    def _tell_hook(self, name: str, key: tuple[str, int], result: HookResult) -> None:
        tag, height = key
        failed = result.problem is not None
        self._world.bus.emit(
            Event(
                name="hook.failed" if failed else "hook.done",
                message=f"{name} for {tag} failed: {result.problem}"
                if failed
                else f"{name} for {tag} is done",
                severity=Severity.ALARM if failed else Severity.INFO,
                next_step=f"mend it, then `visor-actors upgrades resume {tag}`"
                if failed and name == "preUpgrade"
                else None,
                lines=result.lines,
                fields={"tag": tag, "height": height, "hook": name},
            )
        )

    def _delay(self, entry: Entry) -> None:
        if entry.key not in self._settling:
            self._settling.add(entry.key)
            seconds = self._world.settings.current.stop_delay_seconds
            self._emit_step(entry, "delayed", f"stopping in {seconds:g} s, as configured")
            self.context.after(seconds, _Settled(entry.key), key=("settled", *entry.key))

    # the node died before its accepted upgrade

    def _ask_witnesses(self, entry: Entry) -> None:
        if self._judging:
            return
        self._judging = True
        assert self._journal is not None
        memory = Memory.recall(self._journal.get(LAST_HEIGHT_KEY), self._journal.get(LAST_EXIT_KEY))
        folder, height, now = self._world.layout.current, entry.upgrade.height, self._world.now()
        self.context.run_job(
            lambda token: gather_and_judge(folder, height, memory, now=now, cancel=token),
            key="witnesses",
            timeout=30.0,
        )

    def _judged(self, value: object) -> None:
        self._judging = False
        assert isinstance(value, HeightVerdict)
        self._verdict = Height[value.doneness.name]
        because = "; ".join(value.because)
        self._emit(
            "upgrade.witnesses",
            f"the node is down before an accepted upgrade, its height: {self._verdict.value} ({because})",
            severity=Severity.WARNING,
            because=because,
        )

    # operators

    def _holds_all(self) -> bool:
        return ("", 0) in self._held

    def _hold(self, tag: str | None) -> None:
        active = self._active()
        key = active.key if active is not None and tag in (None, active.upgrade.tag) else ("", 0)
        self._held.add(key)
        self._save_holds()
        self._emit("upgrade.held", "the next switch waits for `visor-actors upgrades resume`", tag=tag)

    def _resume(self, tag: str | None) -> None:
        active = self._active()
        if active is not None:
            # A hook that failed was looked at by whoever resumes; it is not run once more.
            self._hooked.add(active.key)
            if self._verdict is Height.UNKNOWN:
                self._verdict = Height.NOT_DONE
        match read_current(self._world.layout):
            case LinkedTo(name=name):
                self._accepted_link = name
            case _:
                pass
        self._held.clear()
        self._save_holds()
        self._told.clear()
        self._emit("upgrade.resumed", "upgrades go on", tag=tag)

    def _save_holds(self) -> None:
        if self._journal is not None:
            self._journal.put(HOLDS_KEY, [[tag, height] for tag, height in sorted(self._held)])

    # what others are told

    def _pace(self) -> Pace:
        active = self._active()
        return Pace.FAST if active is not None else Pace.NORMAL

    def _tell_pace(self) -> None:
        self.context.tell(RPC_LISTENER, SetPace(pace=self._pace()))

    def _still_unconfirmed(self, key: tuple[str, int]) -> None:
        active = self._active()
        if active is not None and active.key == key and active.upgrade.state is State.STARTING:
            self._alarm_phase(active, "the new node has not answered yet; it is still awaited")

    def _alarm_phase(self, entry: Entry, problem: str) -> None:
        tag, height = entry.key
        self._tell_once(
            f"phase:{tag}@{height}",
            f"upgrade to {tag}, phase {entry.upgrade.state}: {problem}",
            severity=Severity.ALARM,
            next=f"see `visor-actors history` and the log of {tag}; the old binary must not be started again",
        )

    def _emit_step(self, entry: Entry, step: str, message: str) -> None:
        tag, height = entry.key
        self._emit(f"upgrade.{step}", f"upgrade to {tag}: {message}", tag=tag, height=height)

    def _tell_once(
        self,
        key: str,
        message: str,
        *,
        severity: Severity = Severity.WARNING,
        next: str | None = None,
    ) -> None:
        """Emit ``message`` unless it was the last one said under ``key``: a state that lasts is one event."""
        if self._told.get(key) != message:
            self._told[key] = message
            self._emit(f"upgrade.{key.partition(':')[0]}", message, severity=severity, next_step=next)

    def _publish(self) -> None:
        if self._ledger is None:
            return
        for entry in self._ledger.entries:
            preparation = self._preparations.get((entry.upgrade.tag, entry.folder))
            tag, height = entry.key
            report = UpgradeReport(
                tag=tag,
                height=height,
                state=entry.upgrade.state.value,
                folder=entry.folder,
                prepared=preparation is not None and preparation.ready,
                problem=preparation.problem if preparation is not None else None,
                next_step=preparation.next_step if preparation is not None else None,
                held=entry.key in self._held or self._holds_all(),
                steps=self._ledger.steps(entry),
            )
            self._world.board.publish(f"upgrade:{height:020d}:{tag}", report)

    def _emit(
        self,
        name: str,
        message: str,
        *,
        severity: Severity = Severity.INFO,
        next_step: str | None = None,
        **fields: str | int | float | bool | None,
    ) -> None:
        self._world.bus.emit(
            Event(name=name, message=message, severity=severity, next_step=next_step, fields=fields)
        )
