"""The coordinator without threads: what it tells whom, when it asks, and what it keeps in the journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from visor_actors.actor import JobDone
from visor_actors.actors.acceptance import AT_HEIGHT_SECONDS, AtHeight
from visor_actors.actors.gate import HookOutcome
from visor_actors.actors.installer import CancelInstall, InstallFailed, InstallRelease, ReleaseInstalled
from visor_actors.actors.messages import (
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
from visor_actors.actors.preparations import LOOK_AGAIN_SECONDS, PATIENCE_SECONDS, LookAgain
from visor_actors.actors.reports import Board, HoldsReport, UpgradeReport
from visor_actors.actors.upgrade_coordinator import UpgradeCoordinatorActor
from visor_actors.actors.world import Intent, Settings, World
from visor_actors.home.config import load_config
from visor_actors.home.journal import Journal
from visor_actors.home.layout import HomeLayout
from visor_actors.home.settings import Hook, VisorConfig
from visor_actors.install.messages import FailureKind, Proof, Verification
from visor_actors.node.upgrade_status import Release, UpgradeStatus
from visor_actors.node.witness import Doneness, HeightVerdict
from visor_actors.simulator import build_binary
from visor_actors.telemetry.events import Event, EventBus, Severity
from visor_actors.testing import RecordingContext

KEY = ("v2.0.0", 40)
CORE = "10@100"
NEW_CORE = "20@200"


@dataclass
class Stage:
    """A coordinator on a home of its own; whatever it does is written down."""

    root: Path
    time: float = 1000.0
    events: list[Event] = field(default_factory=list)
    board: Board = field(default_factory=Board)
    context: RecordingContext = field(init=False)
    actor: UpgradeCoordinatorActor = field(init=False)
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        self.root.mkdir()
        (self.root / "config.toml").write_text("[autoInstall]\nenabled = false\n")
        self.layout = HomeLayout(self.root)
        self.layout.prepare_private()
        self.settings = Settings(load_config(self.layout).config)
        self.provide("genesis", "v1.0.0")
        self.open()

    def open(self) -> None:
        bus = EventBus()
        bus.subscribe(self.events.append)
        world = World(
            layout=self.layout,
            bus=bus,
            board=self.board,
            settings=self.settings,
            intent=Intent(lambda: None),
            now=lambda: self.time,
            monotonic=lambda: self.time,
        )
        self.context = RecordingContext("upgrade-coordinator")
        self.actor = UpgradeCoordinatorActor(self.context, world=world)
        self.actor.init()

    def again(self) -> None:
        """The coordinator's next incarnation."""
        self.actor.terminate()
        self.open()

    def configure(self, **changes: object) -> None:
        self.settings.replace(msgspec.structs.replace(self.settings.current, **changes))

    def provide(self, folder: str, version: str) -> None:
        build_binary(self.root / folder / "fury", version=version)
        (self.root / folder / "run-config.toml").write_text(
            f'name = "{folder}"\n[fury.binary]\npath = "fury"\nargs = ["start"]\n'
            '[fury.rpc]\nsocketPath = "/tmp/fury.sock"\nhttpPath = "/rpc"\n'
        )

    # what is heard

    def say(self, message: object) -> None:
        self.actor.handle(message)

    def node(
        self,
        phase: NodePhase,
        *,
        ask: int = 1,
        core: str | None = None,
        incarnation: int = 1,
        occupied: bool | None = None,
    ) -> None:
        self.say(
            NodeState(
                phase=phase,
                ask=ask,
                core=core,
                core_incarnation=incarnation,
                occupied=core is not None if occupied is None else occupied,
            )
        )

    def up(self, core: str = CORE, *, ask: int = 1, incarnation: int = 1) -> None:
        self.node(NodePhase.RUNNING, ask=ask, core=core, incarnation=incarnation)

    def down(self, *, ask: int, incarnation: int = 1) -> None:
        self.node(NodePhase.ASKING, ask=ask, incarnation=incarnation)

    def status(
        self, tag: str | None = KEY[0], height: int = KEY[1], *, ready: bool = False, core: str = CORE
    ) -> None:
        release = None if tag is None else Release(tag=tag, height=height)
        self.say(StatusSeen(core=core, status=UpgradeStatus(release=release, ready=ready), pace=Pace.FAST))

    def finish_checks(self) -> None:
        for key in [key for key in self.context.jobs if isinstance(key, tuple) and key[0] == "check"]:
            self.say(self.context.finish_job(key))

    def wait(self, seconds: float) -> None:
        self.time += seconds
        self.say(LookAgain())

    def prepared(self) -> None:
        """Bring the upgrade to v2.0.0 to *prepared*, with the old core up."""
        self.up()
        self.status()
        self.finish_checks()
        assert self.state() == "prepared"

    # what was done

    def state(self, key: tuple[str, int] = KEY) -> str | None:
        with Journal.open_reader(self.layout.journal) as journal:
            row = journal.upgrade(*key)
        return None if row is None else row.state

    def log(self, key: tuple[str, int] = KEY) -> list[str]:
        with Journal.open_reader(self.layout.journal) as journal:
            return [state for state, _, _ in journal.upgrade_log(*key)]

    def told(self, name: str, kind: type[object]) -> list[object]:
        return [message for message in self.context.messages_to(name) if isinstance(message, kind)]

    def orders(self) -> list[RunOrder]:
        return [message for message in self.told("lifecycle", RunOrder) if isinstance(message, RunOrder)]

    def alarms(self) -> list[str]:
        return [event.message for event in self.events if event.severity is Severity.ALARM]

    def report(self) -> UpgradeReport:
        report = self.board.read(f"upgrade:{KEY[1]:020d}:{KEY[0]}", UpgradeReport)
        assert report is not None
        return report


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path / "home")
    stage.provide("v2.0.0", "v2.0.0")
    yield stage
    stage.actor.terminate()


# the whole way


def test_an_upgrade_goes_its_way_with_one_order_for_each_step(stage: Stage) -> None:
    stage.down(ask=1, incarnation=0)
    (first,) = stage.orders()
    assert (first.folder.name, first.upgrade_height, first.occasion) == ("genesis", None, Occasion.ANY_OTHER)
    stage.prepared()
    stage.status(ready=True)
    stage.status(ready=True)
    assert stage.state() == "stopping"
    assert len(stage.told("lifecycle", RecycleNode)) == 1, "said once, however often the core is heard"
    stage.node(NodePhase.STOPPING, core=CORE)
    stage.status(ready=True)
    stage.down(ask=2)
    assert stage.state() == "starting"
    order = stage.orders()[-1]
    assert (order.ask, order.folder.name, order.upgrade_height, order.occasion) == (
        2,
        "v2.0.0",
        40,
        Occasion.FIRST_AFTER_UPGRADE,
    )
    stage.up(NEW_CORE, ask=2, incarnation=2)
    assert stage.state() == "starting", "only its own answer confirms the new core"
    stage.status(core=CORE, ready=True)
    assert stage.state() == "starting", "not what the old one has said"
    stage.status(core=NEW_CORE)
    assert stage.state() == "confirmed"
    assert stage.log() == [
        "announced",
        "preparing",
        "prepared",
        "ready",
        "stopping",
        "stopped",
        "switched",
        "starting",
        "confirmed",
    ]
    assert stage.told("rpc-listener", SetPace)[-1] == SetPace(pace=Pace.NORMAL)
    assert stage.alarms() == []


@pytest.mark.parametrize("at", ["prepared", "stopping", "starting"])
def test_a_node_that_is_found_running_is_taken_over_and_never_started(stage: Stage, at: str) -> None:
    stage.prepared()
    if at != "prepared":
        stage.status(ready=True)
    if at == "starting":
        stage.down(ask=2)
    assert stage.state() == at
    stage.again()
    stage.node(NodePhase.ASKING, ask=7, core=CORE)
    order = stage.orders()[-1]
    assert order.occasion is Occasion.TAKE_OVER
    assert order.folder.name == ("v2.0.0" if at == "starting" else "genesis")
    assert not [key for key in stage.context.jobs if isinstance(key, tuple) and key[0] == "witnesses"]
    assert stage.state() == at, "nothing is decided as if it were down"


def test_the_old_core_found_after_the_switch_is_stopped(stage: Stage) -> None:
    stage.prepared()
    stage.status(ready=True)
    stage.down(ask=2)
    assert stage.state() == "starting"
    stage.up(CORE, ask=3, incarnation=1)
    stage.status(core=CORE)
    assert stage.state() == "starting"
    assert len(stage.told("lifecycle", RecycleNode)) == 2


# the witnesses


def verdict(doneness: Doneness) -> HeightVerdict:
    return HeightVerdict(doneness=doneness, because=("a test says so",))


def test_a_verdict_belongs_to_its_question(stage: Stage) -> None:
    stage.prepared()
    stage.down(ask=2)
    assert ("witnesses", 2) in stage.context.jobs
    stage.down(ask=3, incarnation=2)
    stage.say(JobDone(("witnesses", 2), verdict(Doneness.NOT_DONE)))
    assert stage.orders() == [], "whatever ran since may have done the height"
    stage.say(JobDone(("witnesses", 3), verdict(Doneness.NOT_DONE)))
    assert [(order.ask, order.folder.name) for order in stage.orders()] == [(3, "genesis")]
    stage.down(ask=4, incarnation=3)
    assert ("witnesses", 4) in stage.context.jobs, "and after the next death they are asked again"
    assert len(stage.orders()) == 1


def test_what_the_operator_decides_is_good_for_one_start(stage: Stage) -> None:
    stage.prepared()
    for ask in (2, 3):
        stage.down(ask=ask, incarnation=ask)
        stage.say(JobDone(("witnesses", ask), verdict(Doneness.UNKNOWN)))
        held = stage.told("lifecycle", HoldOrder)[-1]
        assert isinstance(held, HoldOrder)
        assert held.ask == ask
        assert "no witness can tell" in held.reason
        stage.node(NodePhase.HELD, ask=ask, incarnation=ask)
        stage.say(ResumeUpgrade(tag=None))
        assert stage.orders()[-1].ask == ask
    assert len([alarm for alarm in stage.alarms() if "no witness" in alarm]) == 2


def test_a_height_that_is_done_leads_to_the_switch_and_never_to_the_old_folder(stage: Stage) -> None:
    stage.prepared()
    stage.down(ask=2)
    stage.say(JobDone(("witnesses", 2), verdict(Doneness.DONE)))
    assert stage.state() == "starting"
    assert [order.folder.name for order in stage.orders()] == ["v2.0.0"]


def test_an_operator_who_links_to_the_new_folder_says_that_the_height_is_done(stage: Stage) -> None:
    stage.prepared()
    (stage.root / "current").unlink(missing_ok=True)
    (stage.root / "current").symlink_to("v2.0.0")
    stage.down(ask=2)
    assert stage.state() == "starting"


# announcements


def test_a_core_that_was_started_meanwhile_is_not_believed_at_once_that_a_vote_is_gone(stage: Stage) -> None:
    stage.prepared()
    stage.up("11@110", ask=2, incarnation=2)
    stage.status(None, core="11@110")
    assert stage.state() == "prepared", "it may be replaying blocks of before the vote"
    stage.time += 100
    stage.status(None, core="11@110")
    assert stage.state() == "withdrawn"


def test_a_withdrawn_upgrade_frees_its_hold_and_its_installation(stage: Stage) -> None:
    stage.configure(auto_install=msgspec.structs.replace(stage.settings.current.auto_install, enabled=True))
    stage.up()
    stage.status("v3.0.0", 90)
    assert [type(one) for one in stage.context.messages_to("installer")] == [InstallRelease]
    stage.say(HoldUpgrade(tag="v3.0.0"))
    stage.status(None)
    assert stage.state(("v3.0.0", 90)) == "withdrawn"
    assert stage.context.messages_to("installer")[-1] == CancelInstall(tag="v3.0.0")
    assert stage.board.read("holds", HoldsReport) == HoldsReport()


@pytest.mark.parametrize(("folder", "mapped"), [("v3.0.0", {}), ("by-hand", {"v3.0.0": "by-hand"})])
def test_a_release_linked_by_hand_is_what_later_votes_are_compared_with(
    stage: Stage, folder: str, mapped: dict[str, str]
) -> None:
    stage.configure(upgrade_folders=mapped)
    stage.prepared()
    stage.status(ready=True)
    stage.down(ask=2)
    stage.up(NEW_CORE, ask=2, incarnation=2)
    stage.status(core=NEW_CORE)
    stage.provide(folder, "v3.0.0")
    (stage.root / "current").unlink()
    (stage.root / "current").symlink_to(folder)
    stage.status("v2.5.0", 90, core=NEW_CORE)
    assert "older than v3.0.0" in stage.alarms()[-1]
    assert stage.state(("v2.5.0", 90)) is None


def test_standing_at_the_height_is_an_alarm_however_often_the_height_is_told(stage: Stage) -> None:
    stage.prepared()
    for _ in range(3):
        stage.say(HeightSeen(core=CORE, height=40))
    delay, message = stage.context.timers["at-height", *KEY]
    assert (delay, message) == (AT_HEIGHT_SECONDS, AtHeight(KEY))
    stage.context.timers.clear()
    stage.say(HeightSeen(core=CORE, height=40))
    assert ("at-height", *KEY) not in stage.context.timers, "it is not put off by being told again"
    stage.say(message)
    assert "is still not ready" in stage.alarms()[-1]
    stage.say(HeightSeen(core=CORE, height=41))
    assert "has passed" in stage.alarms()[-1]


# folders


def test_a_folder_is_looked_at_once_a_second_and_not_with_every_answer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visor_actors.actors import preparation

    looks = 0
    real = preparation.signature

    def counting(folder: Path, executables: tuple[Path, ...] = ()) -> preparation.Signature | None:
        nonlocal looks
        looks += 1
        return real(folder, executables)

    stage.prepared()
    monkeypatch.setattr(preparation, "signature", counting)
    for _ in range(20):
        stage.status()
    assert looks == 0
    stage.wait(LOOK_AGAIN_SECONDS)
    assert looks == 1
    stage.status(ready=True)
    assert looks == 2, "and once more before the switch"


def test_a_folder_that_changed_just_before_ready_is_checked_before_the_switch(stage: Stage) -> None:
    stage.prepared()
    build_binary(stage.root / "v2.0.0" / "fury", version="v2.0.1")
    stage.status(ready=True)
    assert stage.state() == "ready"
    stage.finish_checks()
    assert stage.state() == "ready"
    assert stage.told("lifecycle", RecycleNode) == []
    build_binary(stage.root / "v2.0.0" / "fury", version="v2.0.0")
    stage.wait(LOOK_AGAIN_SECONDS)
    stage.finish_checks()
    assert stage.state() == "stopping"


def test_what_is_missing_for_long_is_an_alarm_and_is_taken_when_it_comes(stage: Stage) -> None:
    stage.up()
    stage.status("v3.0.0", 90)
    assert stage.alarms() == [], "whoever provides it writes file by file"
    stage.wait(PATIENCE_SECONDS)
    (alarm,) = stage.alarms()
    assert "v3.0.0 is missing" in alarm
    stage.wait(PATIENCE_SECONDS)
    assert len(stage.alarms()) == 1
    stage.provide("v3.0.0", "v3.0.0")
    stage.wait(LOOK_AGAIN_SECONDS)
    stage.finish_checks()
    assert stage.state(("v3.0.0", 90)) == "prepared"


def install_failed(tag: str, *, retry_in: float | None) -> InstallFailed:
    return InstallFailed(
        tag=tag,
        kind=FailureKind.NETWORK,
        message="it cannot be reached",
        next_step="see the network",
        transient=retry_in is not None,
        attempt=1,
        retry_in=retry_in,
    )


def test_after_a_failed_fetch_the_operator_may_provide_the_folder(stage: Stage) -> None:
    stage.configure(auto_install=msgspec.structs.replace(stage.settings.current.auto_install, enabled=True))
    stage.up()
    stage.status("v3.0.0", 90)
    stage.say(install_failed("v3.0.0", retry_in=5.0))
    stage.say(install_failed("v3.0.0", retry_in=None))
    stage.wait(PATIENCE_SECONDS)
    assert "it cannot be reached" in stage.alarms()[-1]
    assert len(stage.told("installer", InstallRelease)) == 1, "it is not asked for again every second"
    stage.provide("v3.0.0", "v3.0.0")
    stage.wait(LOOK_AGAIN_SECONDS)
    stage.finish_checks()
    assert stage.state(("v3.0.0", 90)) == "prepared"


def test_an_installed_release_is_checked_like_any_other(stage: Stage) -> None:
    stage.configure(auto_install=msgspec.structs.replace(stage.settings.current.auto_install, enabled=True))
    stage.up()
    stage.status("v3.0.0", 90)
    stage.provide("v3.0.0", "v3.0.0")
    stage.say(
        ReleaseInstalled(
            tag="v3.0.0",
            folder=stage.root / "v3.0.0",
            verification=Verification(sha256="0" * 64, proofs=(Proof.DIGEST,), details="by a test"),
        )
    )
    assert stage.state(("v3.0.0", 90)) == "preparing"
    stage.finish_checks()
    assert stage.state(("v3.0.0", 90)) == "prepared"


def test_a_release_nobody_has_voted_for_can_be_prepared_by_hand(stage: Stage) -> None:
    stage.configure(auto_install=msgspec.structs.replace(stage.settings.current.auto_install, enabled=True))
    stage.up()
    stage.say(PrepareUpgrade(tag="v9.0.0"))
    assert [type(one) for one in stage.context.messages_to("installer")] == [InstallRelease]
    stage.provide("v9.0.0", "v9.0.0")
    stage.wait(LOOK_AGAIN_SECONDS)
    stage.finish_checks()
    assert any(event.name == "upgrade.prepared" for event in stage.events)
    assert stage.state(("v9.0.0", 0)) is None
    stage.say(PrepareUpgrade(tag="../../etc"))
    assert "cannot name an upgrade folder" in stage.events[-1].message
    assert len(stage.told("installer", InstallRelease)) == 1


# holds and hooks


def hooked(config: VisorConfig, *, post: bool = False) -> dict[str, object]:
    hook = Hook(argv=("/bin/true",), timeout_seconds=5.0)
    return {
        "hooks": msgspec.structs.replace(
            config.hooks, pre_upgrade=None if post else hook, post_upgrade=hook if post else None
        )
    }


def test_a_hold_of_one_release_holds_no_other(stage: Stage) -> None:
    stage.prepared()
    stage.say(HoldUpgrade(tag="v9.0.0"))
    stage.status(ready=True)
    assert stage.state() == "stopping"


@pytest.mark.parametrize("tag", [None, "v2.0.0"])
def test_a_hold_survives_the_coordinator_and_resume_takes_it_back(stage: Stage, tag: str | None) -> None:
    stage.prepared()
    stage.say(HoldUpgrade(tag=tag))
    assert stage.report().held
    stage.again()
    stage.up()
    stage.status(ready=True)
    stage.finish_checks()
    assert stage.state() == "ready"
    assert "is held" in stage.alarms()[-1]
    stage.say(ResumeUpgrade(tag="v2.0.0"))
    assert stage.state() == "stopping"


def test_a_hold_before_any_vote_holds_whichever_comes_next(stage: Stage) -> None:
    stage.up()
    stage.say(HoldUpgrade(tag=None))
    stage.prepared()
    stage.status(ready=True)
    assert stage.state() == "ready"
    stage.say(ResumeUpgrade(tag=None))
    assert stage.state() == "stopping"


def test_a_hold_that_was_taken_back_does_not_spare_the_hook(stage: Stage) -> None:
    stage.configure(**hooked(stage.settings.current))
    stage.prepared()
    stage.say(HoldUpgrade(tag=None))
    stage.say(ResumeUpgrade(tag=None))
    stage.status(ready=True)
    assert stage.state() == "ready"
    assert ("hook", *KEY) in stage.context.jobs
    stage.status(ready=True)
    stage.say(stage.context.finish_job(("hook", *KEY)))
    assert stage.state() == "stopping"


def test_a_hook_that_succeeded_is_not_run_again_by_the_next_coordinator(stage: Stage) -> None:
    stage.configure(**hooked(stage.settings.current), stop_delay_seconds=5.0)
    stage.prepared()
    stage.status(ready=True)
    stage.say(stage.context.finish_job(("hook", *KEY)))
    assert stage.state() == "ready", "the stop delay"
    with Journal.open_reader(stage.layout.journal) as journal:
        assert journal.get("upgrade.hook") == [*KEY, HookOutcome.PASSED.value]
    stage.again()
    stage.up()
    stage.finish_checks()
    assert ("hook", *KEY) not in stage.context.jobs
    stage.say(stage.context.fire(("settled", *KEY)))
    assert stage.state() == "stopping"


def test_a_post_upgrade_hook_that_was_cut_short_runs_again(stage: Stage) -> None:
    stage.configure(**hooked(stage.settings.current, post=True))
    stage.prepared()
    stage.status(ready=True)
    stage.down(ask=2)
    stage.up(NEW_CORE, ask=2, incarnation=2)
    stage.status(core=NEW_CORE)
    assert stage.state() == "confirmed"
    stage.again()
    stage.say(stage.context.finish_job(("post", *KEY)))
    stage.again()
    assert ("post", *KEY) not in stage.context.jobs


# the journal and the board


def test_a_ready_that_the_journal_does_not_take_stops_nothing_and_is_tried_again(stage: Stage) -> None:
    stage.prepared()
    with sqlite3.connect(stage.layout.journal) as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON upgrade_log BEGIN SELECT RAISE(FAIL, 'full'); END"
        )
    other.close()
    for _ in range(3):
        stage.status(ready=True)
    assert stage.state() == "prepared"
    assert stage.told("lifecycle", RecycleNode) == []
    assert len([alarm for alarm in stage.alarms() if "journal cannot be used" in alarm]) == 1
    with sqlite3.connect(stage.layout.journal) as other:
        other.execute("DROP TRIGGER full")
    other.close()
    stage.time += 10
    stage.status(ready=True)
    stage.finish_checks()
    assert stage.state() == "stopping"


def test_only_reports_that_have_changed_are_published(stage: Stage) -> None:
    stage.prepared()
    before = stage.report()
    for _ in range(3):
        stage.status()
    assert stage.report() is before
    stage.say(HoldUpgrade(tag=None))
    assert stage.report() is not before
