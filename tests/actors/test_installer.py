"""The installer actor: one job at a time, retried, cancelled, reported; a crash of it costs only time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from visor_actors.actor import (
    Actor,
    ActorStarted,
    ActorSystem,
    Address,
    Backoff,
    ChildSpec,
    Context,
    SupervisorSpec,
)
from visor_actors.actors.config_watcher import ConfigChanged
from visor_actors.actors.installer import (
    BOARD_KEY,
    CancelInstall,
    InstallerActor,
    InstallFailed,
    InstallRelease,
    ReleaseInstalled,
    retry_delay,
)
from visor_actors.actors.reports import Board, InstallReport
from visor_actors.home.config import load_config
from visor_actors.home.layout import HomeLayout
from visor_actors.home.settings import AutoInstallConfig, Verify
from visor_actors.install import messages
from visor_actors.install.check import check_folder
from visor_actors.install.launch import InstallJob, JobNotStarted, launch_job
from visor_actors.install.messages import FailureKind, Proof
from visor_actors.install.order import InstallOrder, default_asset_name
from visor_actors.simulator import build_asset_zip
from visor_actors.simulator import release_faults as faults
from visor_actors.simulator.release_faults import At
from visor_actors.simulator.release_server import ReleaseServer
from visor_actors.telemetry.events import Event, EventBus, Severity
from visor_actors.testing import Probe, RecordingContext, running

TAG = "v1.2.3"
ASSET = default_asset_name("fury")
INSTALLER = Address("installer")
BOSS = Address("boss")
RUN_CONFIG = '[fury.binary]\npath = "fury"\nargs = ["start"]\n'


class Boss(Actor):
    """Whom the installer notifies."""

    def __init__(self, context: Context, probe: Probe) -> None:
        super().__init__(context)
        self._probe = probe

    def handle(self, message: object) -> None:
        self._probe(message)


class Office:
    """An installer actor in a running system, with everything it does on one probe."""

    def __init__(self, home: Path, server: ReleaseServer) -> None:
        self.home = home
        self.server = server
        self.probe = Probe()
        self.board = Board()
        self.bus = EventBus()
        self.bus.subscribe(self.probe)
        self.jobs: list[InstallJob] = []
        self.most_at_once = 0
        self.config = AutoInstallConfig(
            enabled=True,
            repository_owner=server.owner,
            repository=server.repository,
            api_url=server.api_url,
            token_file=None,
            verify=Verify.REQUIRED,
            checksum_asset=None,
            public_key=None,
            max_size_mib=64,
            source=None,
            checksums={},
            asset_name=ASSET,
            binary_name="fury",
        )
        child = ChildSpec(
            id=INSTALLER.name,
            factory=self.actor,
            start_timeout=20.0,
            heartbeat=20.0,
            backoff=Backoff(base=0.01, maximum=0.05, jitter=0.0, reset_after=60.0),
        )
        boss = ChildSpec(id=BOSS.name, factory=lambda context: Boss(context, self.probe))
        self.system = ActorSystem(SupervisorSpec(id="root", children=(boss, child)), on_event=self.probe)

    def actor(self, context: Context) -> InstallerActor:
        return InstallerActor(
            context,
            layout=HomeLayout(self.home),
            bus=self.bus,
            board=self.board,
            config=lambda: self.config,
            notify=BOSS,
            launch=self.launch,
            rng=random.Random(1),
        )

    def launch(self, order: InstallOrder) -> InstallJob:
        job = launch_job(order)
        self.jobs.append(job)
        self.most_at_once = max(
            self.most_at_once, sum(Path(f"/proc/{job.pid}").exists() for job in self.jobs)
        )
        return job

    def request(self, tag: str = TAG, folder: str | None = None) -> InstallRelease:
        return InstallRelease(
            tag=tag, brand="fury", folder_name=folder or tag, source_folder=self.home / "genesis"
        )

    def ask(self, tag: str = TAG) -> None:
        self.system.tell(INSTALLER, self.request(tag))

    def wait_for_phase(self, phase: str) -> InstallReport:
        self.probe.wait_until(lambda: (found := self.report()) is not None and found.phase == phase)
        found = self.report()
        assert found is not None
        return found

    def report(self) -> InstallReport | None:
        return self.board.read(BOARD_KEY, InstallReport)

    def wait_for_requests(self, count: int) -> None:
        self.probe.wait_until(lambda: len(self.server.seen("store")) >= count)


@pytest.fixture(scope="module")
def asset(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build_asset_zip(tmp_path_factory.mktemp("asset") / ASSET, version=TAG).read_bytes()


@pytest.fixture
def office(tmp_path: Path, asset: bytes) -> Iterator[Office]:
    (tmp_path / "genesis").mkdir()
    (tmp_path / "genesis" / "run-config.toml").write_text(RUN_CONFIG)
    with ReleaseServer() as server:
        server.add_release(TAG, {ASSET: asset})
        office = Office(tmp_path, server)
        with running(office.system):
            yield office
        assert not any(Path(f"/proc/{job.pid}").exists() for job in office.jobs)


def test_a_release_that_is_asked_for_is_installed_and_reported(office: Office) -> None:
    office.ask()
    done = office.probe.expect(ReleaseInstalled)
    assert done.folder == office.home / TAG
    assert done.verification.proofs == (Proof.DIGEST,)
    assert check_folder(done.folder, tag=TAG).ready
    names = [event.name for event in office.probe.all(Event)]
    assert [name for name in names if name.startswith("install.")] == [
        "install.started",
        "install.downloaded",
        "install.verified",
        "install.done",
    ]
    assert office.report() is None


def test_asking_twice_is_one_job(office: Office) -> None:
    office.server.inject(faults.Drip(at=At.CONTENT, size=20_000, pause=0.05))
    for _ in range(5):
        office.ask()
    office.probe.expect(ReleaseInstalled)
    assert len(office.jobs) == 1


def test_progress_is_on_the_board(office: Office) -> None:
    office.server.inject(faults.Stall(at=At.CONTENT, after=20_000))
    office.ask()
    office.probe.wait_until(lambda: (found := office.report()) is not None and found.total is not None)
    assert office.wait_for_phase("downloading").tag == TAG


def test_two_releases_are_installed_one_after_the_other(office: Office, asset: bytes, tmp_path: Path) -> None:
    other = build_asset_zip(tmp_path / "other.zip", version="v2.0.0").read_bytes()
    office.server.add_release("v2.0.0", {ASSET: other})
    office.ask()
    office.ask("v2.0.0")
    assert {office.probe.expect(ReleaseInstalled).tag for _ in range(2)} == {TAG, "v2.0.0"}
    assert office.most_at_once == 1


def test_what_cannot_be_installed_is_said_and_not_tried_again(office: Office) -> None:
    office.ask("v9.9.9")
    failed = office.probe.expect(InstallFailed)
    assert (failed.kind, failed.transient, failed.retry_in) == (FailureKind.RELEASE_MISSING, False, None)
    assert office.wait_for_phase("failed").problem == failed.message
    event = office.probe.expect(Event, lambda event: event.name == "install.failed")
    assert event.severity is Severity.ERROR
    assert event.next_step


def test_a_failed_release_is_tried_again_when_asked_for(office: Office, asset: bytes) -> None:
    office.server.remove_release(TAG)
    office.ask()
    office.probe.expect(InstallFailed)
    office.server.add_release(TAG, {ASSET: asset})
    office.ask()
    office.probe.expect(ReleaseInstalled)


def test_a_changed_configuration_is_tried_at_once(office: Office) -> None:
    office.config = msgspec.structs.replace(office.config, asset_name="nothing.zip")
    office.ask()
    assert office.probe.expect(InstallFailed).kind is FailureKind.ASSET_MISSING
    office.config = msgspec.structs.replace(office.config, asset_name=ASSET)
    office.system.tell(INSTALLER, config_changed(office.home))
    office.probe.expect(ReleaseInstalled)


def test_a_job_does_not_go_on_under_settings_that_are_no_longer_in_force(office: Office) -> None:
    office.server.inject(faults.Stall(at=At.CONTENT, after=20_000))
    office.ask()
    office.wait_for_requests(1)
    office.config = msgspec.structs.replace(office.config, checksums={f"{TAG}/{ASSET}": "sha256:" + "0" * 64})
    office.system.tell(INSTALLER, config_changed(office.home))
    assert office.probe.expect(InstallFailed).kind is FailureKind.VERIFICATION_FAILED
    assert not (office.home / TAG).exists()


def config_changed(home: Path) -> ConfigChanged:
    """Only that it comes matters: the actor asks for the settings itself."""
    (home / "config.toml").touch()
    return ConfigChanged(config=load_config(HomeLayout(home)).config, changes=())


def test_a_withdrawn_release_is_cancelled(office: Office) -> None:
    office.server.inject(faults.Stall(at=At.CONTENT, after=20_000))
    office.ask()
    office.wait_for_requests(1)
    office.system.tell(INSTALLER, CancelInstall(tag=TAG))
    office.probe.expect(Event, lambda event: event.name == "install.cancelled")
    assert office.report() is None
    assert not (office.home / TAG).exists()
    office.ask()
    office.probe.expect(ReleaseInstalled)


def test_a_killed_job_is_an_event_and_is_tried_again(office: Office) -> None:
    office.server.inject(faults.Stall(at=At.CONTENT, after=20_000))
    office.ask()
    part = office.home / ".visor" / "staging" / TAG / "download.part"
    office.probe.wait_until(lambda: part.exists() and part.stat().st_size == 20_000)
    office.jobs[0]._process.kill()
    failed = office.probe.expect(InstallFailed)
    assert (failed.kind, failed.transient) == (FailureKind.KILLED, True)
    assert failed.retry_in is not None
    assert office.wait_for_phase("waiting").attempt == 1
    office.ask()  # rather than to wait
    office.probe.expect(ReleaseInstalled)
    assert office.server.seen("store")[-1].headers.get("range", "").startswith("bytes=")


def test_a_crash_of_the_actor_ends_its_job_and_its_successor_goes_on(office: Office) -> None:
    office.server.inject(faults.Stall(at=At.CONTENT, after=20_000))
    office.probe.expect(ActorStarted, lambda event: event.child == INSTALLER.name)
    office.ask()
    office.wait_for_requests(1)

    def crash() -> None:
        raise RuntimeError("injected")

    office.system.inject(INSTALLER, crash)
    office.probe.expect(ActorStarted, lambda event: event.child == INSTALLER.name)
    assert office.probe.expect(ReleaseInstalled).tag == TAG
    assert len(office.jobs) == 2
    assert office.most_at_once == 1


def test_a_folder_that_is_there_is_reported_as_installed(office: Office) -> None:
    office.ask()
    office.probe.expect(ReleaseInstalled)
    office.ask()
    assert office.probe.expect(ReleaseInstalled).verification.proofs == (Proof.PRESENT,)


def test_a_token_that_cannot_be_read_is_a_clear_failure(office: Office, tmp_path: Path) -> None:
    office.config = msgspec.structs.replace(office.config, token_file=tmp_path / "nothing")
    office.ask()
    failed = office.probe.expect(InstallFailed)
    assert failed.kind is FailureKind.ORDER_INVALID
    assert str(tmp_path / "nothing") in failed.message


# Without threads


@contextmanager
def alone(
    office: Office, launch: Callable[[InstallOrder], InstallJob]
) -> Iterator[tuple[InstallerActor, RecordingContext]]:
    context = RecordingContext(INSTALLER.name)
    actor = InstallerActor(
        context,
        layout=HomeLayout(office.home),
        bus=office.bus,
        board=Board(),
        config=lambda: office.config,
        notify=BOSS,
        launch=launch,
        rng=random.Random(1),
    )
    actor.init()
    try:
        yield actor, context
    finally:
        actor.terminate()


def test_a_job_that_cannot_be_started_is_tried_again_later(office: Office) -> None:
    def refuse(order: InstallOrder) -> InstallJob:
        raise JobNotStarted(11, "no more processes")

    with alone(office, refuse) as (actor, context):
        for attempt in range(1, 4):
            actor.handle(office.request() if attempt == 1 else context.fire(("retry", TAG)))
            (failed,) = context.messages_to(BOSS.name)[attempt - 1 :]
            assert isinstance(failed, InstallFailed)
            assert (failed.attempt, failed.transient) == (attempt, True)
            assert context.timers[("retry", TAG)][0] == failed.retry_in


def test_a_job_past_its_deadline_is_ended(office: Office) -> None:
    office.server.inject(faults.Stall(at=At.CONTENT, after=20_000))
    with alone(office, launch_job) as (actor, context):
        actor.handle(office.request())
        stir = next(iter(context.watched.values()))
        assert context.timers["deadline"][0] == 3600.0
        actor.handle(context.fire("deadline"))
        while context.watched:
            actor.handle(stir)
        (failed,) = context.messages_to(BOSS.name)
        assert isinstance(failed, InstallFailed)
        assert failed.kind is FailureKind.DEADLINE
        assert not context.watched


def test_stale_timers_and_unknown_messages_do_nothing(office: Office) -> None:
    with alone(office, launch_job) as (actor, context):
        actor.handle(office.request())
        stir = next(iter(context.watched.values()))
        actor.handle(CancelInstall(tag=TAG))
        actor.handle(stir)
        actor.handle(CancelInstall(tag="never heard of"))
        actor.handle("what is this")
        assert not context.watched
        assert not context.timers
        assert not context.told


@pytest.mark.parametrize("attempt", [1, 2, 5, 50])
def test_retries_back_off_but_never_come_sooner_than_asked(attempt: int) -> None:
    failure = messages.InstallFailed(
        kind=FailureKind.NETWORK, message="m", next_step="n", transient=True, retry_after=None
    )
    delay = retry_delay(failure, attempt, random.Random(1))
    assert delay is not None
    assert min(300.0, 5.0 * 2.0 ** (attempt - 1)) / 2 <= delay <= 300.0
    asked = msgspec.structs.replace(failure, retry_after=1800.0)
    assert retry_delay(asked, attempt, random.Random(1)) == 1800.0
    assert retry_delay(msgspec.structs.replace(asked, transient=False), attempt, random.Random(1)) is None
