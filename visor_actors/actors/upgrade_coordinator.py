"""UpgradeCoordinatorActor: what the node should run, and how it gets from one release to the next.

The actor is a loop of one shape: something was heard (a status of the core, a state of the node, the end of a
job), so :meth:`_reconcile` asks the pure machine which step the journal and the facts call for, carries that
step out, and asks again until nothing is left to do. It keeps no plan in memory; killed anywhere, its
successor asks the same question of the same journal.

Its parts, each with one concern: the ledger (what is journalled), the acceptance (what a core's answers do to
it), the preparations (folders), the gate (what may stand before the stop), the inquest (a node that died
before its height was seen), the linked folder (what runs when no upgrade is under way), the orders (answers
to the lifecycle) and the voice (what people are told).
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from visor_actors.actor import Actor, Context, JobDone, JobFailed
from visor_actors.actors.acceptance import Acceptance, AtHeight
from visor_actors.actors.addresses import LIFECYCLE, RPC_LISTENER
from visor_actors.actors.config_watcher import ConfigChanged
from visor_actors.actors.gate import Gate, Settled
from visor_actors.actors.hold_reasons import HoldReason, why_held, why_standing
from visor_actors.actors.hooks import HookResult
from visor_actors.actors.inquest import Inquest
from visor_actors.actors.installer import InstallFailed, ReleaseInstalled
from visor_actors.actors.ledger import Entry, JournalKeeper, Key, Ledger
from visor_actors.actors.linked_folder import LinkedFolder
from visor_actors.actors.messages import (
    DescribeNode,
    ForgetRestarts,
    HeightSeen,
    HoldUpgrade,
    NodePhase,
    NodeState,
    Occasion,
    Pace,
    PrepareUpgrade,
    ResumeUpgrade,
    SetPace,
    StatusSeen,
)
from visor_actors.actors.node_orders import NodeOrders
from visor_actors.actors.preparations import FetchAgain, LookAgain, Preparations
from visor_actors.actors.upgrade_machine import (
    COMMITTED,
    UNDECIDED,
    Facts,
    Folder,
    Height,
    NodeIs,
    State,
    Step,
    next_step,
)
from visor_actors.actors.upgrade_voice import UpgradeReports, UpgradeVoice
from visor_actors.actors.world import World
from visor_actors.home.current import switch_current
from visor_actors.home.errors import HomeError
from visor_actors.home.journal import Journal, JournalUnavailable
from visor_actors.telemetry.events import Severity

TRY_AGAIN_SECONDS = 1.0
"""How long after the link could not be replaced it is tried again."""
JOURNAL_RETRY_SECONDS = 2.0
UNCONFIRMED_SECONDS = 60.0
"""How long the new node may be silent before the operator is told; it goes on being awaited."""


class _TryAgain(Struct, frozen=True):
    """What could not be done may be possible now."""


class _Unconfirmed(Struct, frozen=True):
    """The new node has been silent for long."""

    key: Key


class UpgradeCoordinatorActor(Actor):
    """Owns the journal's upgrades and the link ``current``. Started last; asked by the lifecycle before every
    start.
    """

    def __init__(self, context: Context, *, world: World) -> None:
        super().__init__(context)
        self._world = world
        self._keeper = JournalKeeper(world.layout.journal, now=world.now, fenced=lambda: self.context.fenced)
        self._voice = UpgradeVoice(world)
        self._reports = UpgradeReports(world)
        self._preparations = Preparations(context, world, self._voice)
        self._gate = Gate(context, world, self._voice, self._journal)
        self._inquest = Inquest(context, world, self._voice, self._journal)
        self._linked = LinkedFolder(world, self._voice, self._journal)
        self._orders = NodeOrders(context, world)
        self._acceptance = Acceptance(
            context,
            world,
            self._voice,
            ledger=self._ledger,
            preparations=self._preparations,
            gate=self._gate,
            linked=self._linked,
            changed=self._tell_pace,
        )
        self._answered_core: str | None = None
        self._unwritten: StatusSeen | None = None
        self._awaited: set[Key] = set()

    # the actor

    def init(self) -> None:
        """Read the journal. Where it cannot be read, nothing is started until it can."""
        try:
            self._attend_journal()
        except JournalUnavailable as error:
            self._journal_failed(error)
        self.context.tell(LIFECYCLE, DescribeNode())

    def terminate(self) -> None:
        """Let go of the journal."""
        self._keeper.close()

    def handle(self, message: object) -> None:
        """Take one message in, then do what is due."""
        try:
            self._attend_journal()
        except JournalUnavailable as error:
            self._journal_failed(error)
        try:
            self._take_in(message)
            if self._keeper.ledger is not None:
                if self._unwritten is not None:
                    self._hear(self._unwritten)
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
                self._preparations.installed(tag)
            case InstallFailed():
                self._preparations.install_failed(message)
            case JobDone(key=("check", str(tag), str(path)), value=value):
                self._preparations.checked(tag, path, value)
            case JobFailed(key=("check", str(tag), str(path)), failure=failure):
                self._preparations.check_broke(tag, path, failure.message)
            case JobDone(key=("hook", str(tag), int(height)), value=HookResult() as result):
                self._gate.hook_ended((tag, height), result)
            case JobFailed(key=("hook", str(tag), int(height)), failure=failure):
                self._gate.hook_ended((tag, height), HookResult(problem=failure.message))
            case JobDone(key=("post", str(tag), int(height)), value=HookResult() as result):
                self._gate.post_hook_ended((tag, height), result)
            case JobFailed(key=("post", str(tag), int(height)), failure=failure):
                self._gate.post_hook_ended((tag, height), HookResult(problem=failure.message))
            case JobDone(key=("witnesses", int(ask)), value=value):
                self._inquest.judged(ask, value)
            case JobFailed(key=("witnesses", int(ask)), failure=failure):
                self._inquest.broke(ask, failure.message)
            case HoldUpgrade(tag=tag):
                self._hold(tag)
            case ResumeUpgrade(tag=tag):
                self._resume(tag)
            case PrepareUpgrade(tag=tag):
                self._preparations.by_hand(tag)
            case LookAgain():
                self._preparations.look_again()
            case FetchAgain(tag=tag):
                self._preparations.fetch_again(tag)
            case Settled(key=key):
                self._gate.delay_over(key)
            case _Unconfirmed(key=key):
                self._still_unconfirmed(key)
            case AtHeight(key=key):
                self._acceptance.still_at_height(key)
            case ConfigChanged():
                self._preparations.reconfigured()
            case _:
                pass

    # the journal

    def _ledger(self) -> Ledger:
        if self._keeper.ledger is None:
            raise JournalUnavailable("the journal is not open", next_step="wait: visor tries again by itself")
        return self._keeper.ledger

    def _journal(self) -> Journal:
        return self._ledger().journal

    def _attend_journal(self) -> None:
        fresh = self._keeper.ledger is None
        trouble = self._keeper.attend(self._world.monotonic())
        if fresh and self._keeper.ledger is not None:
            self._gate.recall()
            self._tell_pace()
        if trouble is not None:
            self._voice.say(
                "journal.set-aside",
                f"{trouble}; what visor knows of upgrades is written anew, what runs is taken from `current`",
                severity=Severity.ALARM,
                next_step="compare `visor-actors status` with what you expect before the next upgrade",
            )

    def _journal_failed(self, error: JournalUnavailable) -> None:
        self._keeper.doubt(self._world.monotonic() + JOURNAL_RETRY_SECONDS)
        self._voice.say_once(
            "upgrade.journal",
            "",
            f"the journal cannot be used, so no upgrade step is taken: {error}",
            next_step="free disk space or mend the permissions of .visor; visor tries again by itself",
        )
        self._orders.hold("the journal cannot be used")
        self.context.after(JOURNAL_RETRY_SECONDS, _TryAgain(), key="try-again")

    # what is heard

    def _node_changed(self, state: NodeState) -> None:
        before, self._orders.state = self._orders.state, state
        if state.core is not None:
            self._inquest.core_is(state.core)
        active = self._active()
        if (
            active is not None
            and active.upgrade.state is State.STARTING
            and state.failure is not None
            and (before is None or before.failure != state.failure)
        ):
            self._alarm_phase(active, f"the new node failed: {state.failure}")

    def _status_seen(self, seen: StatusSeen) -> None:
        if seen.pace is not self._pace():
            self._tell_pace()
        if self._keeper.ledger is None or not self._orders.runs(seen.core):
            return  # a core on its way out, or one nobody has told us of yet: it will be asked again
        self._answered_core = seen.core
        # An upgrade that this answer confirms is confirmed before the answer may begin the next one.
        self._reconcile()
        self._hear(seen)

    def _hear(self, seen: StatusSeen) -> None:
        """Act on what a core has said. What the journal does not take is said to it again before anything
        else is decided: a core that dies meanwhile cannot say it once more.
        """
        self._unwritten = seen
        self._acceptance.heard(seen.status, seen.core)
        self._unwritten = None

    def _height_seen(self, core: str, height: int) -> None:
        state = self._orders.state
        if self._keeper.ledger is None or state is None or core != state.core:
            return
        self._inquest.height_seen(height, state.core_incarnation)
        self._acceptance.height_seen(height)

    # the machine

    def _active(self) -> Entry | None:
        return self._keeper.ledger.active() if self._keeper.ledger is not None else None

    def _facts(self, entry: Entry, folder: Folder) -> Facts:
        node = self._orders.state
        first = entry.detail.get("core_incarnation")
        new_runs = isinstance(first, int) and node is not None and node.core_incarnation > first
        return Facts(
            node=self._orders.node,
            folder=folder,
            held=self._gate.holds(entry.upgrade.tag),
            hook_done=self._gate.hook_done(entry.key),
            settled=self._gate.settled(entry.key),
            answered=node is not None and node.core is not None and self._answered_core == node.core,
            old_runs=not new_runs,
            height=self._inquest.verdict(entry, node.ask) if node is not None else Height.NOT_ASKED,
        )

    def _reconcile(self) -> None:
        ledger = self._ledger()
        while (entry := ledger.active()) is not None:
            folder = Folder.COMPLETE
            if entry.upgrade.state in UNDECIDED:
                # Until the switch begins, the folder is the one the configuration maps the tag to.
                entry = replace(entry, folder=self._preparations.folder_name(entry.upgrade.tag))
                folder = self._preparations.attend(entry.key, entry.folder)
            if not self._carry_out(next_step(entry.upgrade.state, self._facts(entry, folder)), entry):
                break
        else:
            self._run_linked()
        self._reports.publish(ledger, self._preparations.by_upgrade, self._gate.held)

    def _carry_out(self, step: Step, entry: Entry) -> bool:
        """Do one step. True: the journal has moved on, ask again; False: wait for what comes next."""
        ledger = self._ledger()
        match step:
            case Step.PREPARE:
                ledger.advance(entry, State.PREPARING)
                return True
            case Step.MARK_PREPARED:
                ledger.advance(entry, State.PREPARED)
                return True
            case Step.MARK_READY:
                self._acceptance.ready(entry.key, because="the node is down there, as its witnesses say")
                return True
            case Step.MARK_STOPPING:
                ledger.advance(entry, State.STOPPING)
                self._say_step(entry, "stopping", "stopping the old node")
                return True
            case Step.MARK_STOPPED:
                ledger.advance(entry, State.STOPPED)
                return True
            case Step.SWITCH:
                return self._switch(entry)
            case Step.MARK_STARTING:
                state = self._orders.state
                incarnation = state.core_incarnation if state is not None else 0
                ledger.advance(entry, State.STARTING, core_incarnation=incarnation)
                return True
            case Step.CONFIRM:
                self._confirm(entry)
                return True
            case Step.STOP:
                self._orders.stop(entry.key)
            case Step.RUN_NEW:
                self._run_new(entry)
            case Step.TAKE_OVER_NEW:
                self._orders.run(entry.folder, upgrade_height=entry.upgrade.height)
            case Step.RUN_OLD | Step.TAKE_OVER_OLD:
                self._run_linked()
            case Step.ASK_WITNESSES:
                if self._orders.state is not None:
                    self._inquest.ask(entry, self._orders.state)
            case Step.HOLD:
                tag, height = entry.key
                problem, remedy = self._preparations.problem_of(entry.key)
                why = why_held(entry, held=self._gate.holds(tag), problem=problem, remedy=remedy)
                self._hold_node(f"{tag}@{height}", why)
            case Step.RUN_HOOK:
                self._gate.run_hook(entry)
            case Step.DELAY:
                self._gate.delay(entry)
            case Step.NOTHING:
                pass
        return False

    def _switch(self, entry: Entry) -> bool:
        ledger = self._ledger()
        try:
            if self.context.fenced:
                return False  # a successor owns the link
            switch_current(self._world.layout, entry.folder)
        except (HomeError, OSError) as error:
            self._alarm_phase(entry, f"the link `current` cannot be replaced: {error}")
            self._orders.hold("the link `current` cannot be replaced")
            self.context.after(TRY_AGAIN_SECONDS, _TryAgain(), key="try-again")
            return False
        ledger.advance(entry, State.SWITCHED)
        self._say_step(entry, "switched", f"`current` points to {entry.folder}")
        return True

    def _run_new(self, entry: Entry) -> None:
        # The first start counts once it has got somewhere. One that ended before, because it found no
        # snapshot of the height for instance, must not be followed by a plain start from below the height.
        first = entry.detail.get("core_incarnation")
        lived = self._orders.state.core_lived if self._orders.state is not None else 0
        got_somewhere = isinstance(first, int) and lived > first
        occasion = Occasion.ANY_OTHER if got_somewhere else Occasion.FIRST_AFTER_UPGRADE
        self._orders.run(entry.folder, occasion=occasion, upgrade_height=entry.upgrade.height)
        if entry.key not in self._awaited:
            self._awaited.add(entry.key)
            self.context.after(UNCONFIRMED_SECONDS, _Unconfirmed(entry.key), key=("unconfirmed", *entry.key))

    def _confirm(self, entry: Entry) -> None:
        ledger = self._ledger()
        self._gate.promise_post_hook(entry)
        ledger.advance(entry, State.CONFIRMED)
        self.context.tell(LIFECYCLE, ForgetRestarts())
        self._say_step(entry, "confirmed", f"the node runs {entry.upgrade.tag} and answers")
        self._preparations.drop(entry.key)
        self._gate.release(entry.upgrade.tag)
        self._tell_pace()
        self._gate.run_post_hook(entry)

    # what the lifecycle is told

    def _run_linked(self) -> None:
        """Run what ``current`` points to, if the lifecycle asks; or take it over, if it runs."""
        if not self._orders.asked:
            return
        linked = self._ledger().linked()
        chosen = self._linked.choose(linked)
        if chosen.folder is None:
            self._orders.hold(chosen.problem)
            return
        stands = self._acceptance.stands(chosen.folder)
        if stands is not None and self._orders.node is NodeIs.DOWN:
            self._hold_node("stands", why_standing(stands))
            return
        height = linked.upgrade.height if linked is not None and linked.folder == chosen.folder else None
        self._orders.run(chosen.folder, upgrade_height=height)

    def _hold_node(self, subject: str, why: HoldReason) -> None:
        if why.next_step is not None:
            self._voice.say_once("upgrade.hold", subject, why.reason, next_step=why.next_step)
        self._orders.hold(why.reason)

    # operators

    def _hold(self, tag: str | None) -> None:
        active = self._active()
        begun = active is not None and active.upgrade.state in COMMITTED
        if begun and active is not None and active.upgrade.state is not State.READY:
            if tag in (None, active.upgrade.tag):
                self._voice.say(
                    "upgrade.held",
                    f"the switch to {active.upgrade.tag} has begun and cannot be held any more",
                    severity=Severity.WARNING,
                    tag=active.upgrade.tag,
                )
                return
        elif tag is None and active is not None:
            tag = active.upgrade.tag
        self._gate.hold(tag)

    def _resume(self, tag: str | None) -> None:
        self._gate.resume(tag)
        state = self._orders.state
        if state is not None and state.phase is NodePhase.HELD:
            self._inquest.overrule()
            self._acceptance.forget_standing()
            self._linked.accept(self._ledger().linked())
        self._voice.forget()

    # what others are told

    def _pace(self) -> Pace:
        return Pace.FAST if self._active() is not None else Pace.NORMAL

    def _tell_pace(self) -> None:
        self.context.tell(RPC_LISTENER, SetPace(pace=self._pace()))

    def _still_unconfirmed(self, key: Key) -> None:
        active = self._active()
        if active is not None and active.key == key and active.upgrade.state is State.STARTING:
            self._alarm_phase(active, "the new node has not answered yet; it is still awaited")

    def _alarm_phase(self, entry: Entry, problem: str) -> None:
        tag, height = entry.key
        self._voice.say_once(
            "upgrade.phase",
            f"{tag}@{height}",
            f"upgrade to {tag}, phase {entry.upgrade.state}: {problem}",
            next_step=f"see `visor-actors history` and the log of {tag}; do not start the old binary again",
            tag=tag,
            height=height,
        )

    def _say_step(self, entry: Entry, step: str, message: str) -> None:
        tag, height = entry.key
        self._voice.say(f"upgrade.{step}", f"upgrade to {tag}: {message}", tag=tag, height=height)
