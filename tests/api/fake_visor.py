"""A visor without a node: a control port with made-up reports, and its API served by a real actor system."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from visor_actors.actor import (
    ActorSystem,
    Backoff,
    ChildSpec,
    Failure,
    Intensity,
    NodeSnapshot,
    Restart,
    Strategy,
    SupervisorSpec,
)
from visor_actors.actors.control import Accepted, ControlRefused, Fault, StopMode
from visor_actors.actors.reports import (
    AlarmReport,
    BinaryReport,
    ConfigReport,
    ExitReport,
    Health,
    InstallReport,
    NodeReport,
    RpcReport,
    StatusReport,
    UpgradeReport,
)
from visor_actors.home.config import load_config
from visor_actors.home.initialise import initialise
from visor_actors.home.layout import HomeLayout
from visor_actors.home.settings import ApiConfig, VisorConfig
from visor_actors.telemetry.events import Event

NOON = 1_767_268_800.0

UPGRADE = UpgradeReport(
    tag="v0.76.0",
    height=1200,
    state="preparing",
    folder="v0.76.0",
    prepared=False,
    problem="the asset is not there yet",
    next_step="wait for its publication",
    steps=(("announced", NOON - 600), ("preparing", NOON - 590)),
)
OLD_UPGRADE = UpgradeReport(
    tag="v0.75.0",
    height=800,
    state="confirmed",
    folder="v0.75.0",
    prepared=True,
    steps=(("announced", NOON - 90000), ("confirmed", NOON - 86400)),
)


def sample_status(home: Path, pid: int) -> StatusReport:
    """A status with something in every field."""
    return StatusReport(
        version="0.1.0",
        pid=pid,
        started_at=NOON - 7380,
        home=str(home),
        health=Health.DEGRADED,
        node=NodeReport(phase="running", folder="v0.75.0", brand="vega", restarts=1, restarts_max=3),
        binaries=(
            BinaryReport(
                slot="core",
                phase="running",
                custody="attached",
                pid=pid,
                shim_pid=pid,
                started_at=NOON - 7200,
                argv=("/srv/visor/v0.75.0/vega", "start"),
                last_exit=ExitReport(code=None, signal=9, requested=False, at=NOON - 7205, lines=("panic",)),
            ),
            BinaryReport(
                slot="data_node", phase="stopped", custody="none", problem="its shim is unreachable"
            ),
        ),
        rpc=RpcReport(
            connected=True, last_answer_at=NOON - 1, tag="v0.76.0", upgrade_height=1200, height=1111
        ),
        upgrade=UPGRADE,
        install=InstallReport(
            tag="v0.76.0", phase="downloading", done=12_345_678, total=40_000_000, rate=2_000_000.0, attempt=2
        ),
        config=ConfigReport(
            path=str(home / "config.toml"), loaded_at=NOON - 7380, problem="line 3: no", warnings=("old key",)
        ),
        alarms=(
            AlarmReport(
                name="upgrade.missing", message="v0.76.0 <is> missing", next_step="prepare it", at=NOON - 60
            ),
        ),
        counters={"binary.exited": 1, "visor.started": 1},
    )


def sample_tree() -> NodeSnapshot:
    """A tree with a supervisor, an actor that failed once and one that waits."""

    def node(name: str, **fields: object) -> NodeSnapshot:
        base = NodeSnapshot(
            id=name,
            kind="actor",
            state="running",
            generation=1,
            restarts=0,
            degraded=False,
            last_failure=None,
            inbox_depth=0,
            dead_letters=0,
            busy_seconds=None,
        )
        return replace(base, **fields)

    failure = Failure("ValueError", "no such\nheight", "Traceback ...")
    return node(
        "root",
        kind="supervisor",
        children=(
            node("config-watcher"),
            node(
                "node",
                kind="supervisor",
                children=(node("process:core", generation=3, restarts=2, last_failure=failure),),
            ),
            node(
                "installer", state="waiting", degraded=True, inbox_depth=4, dead_letters=2, busy_seconds=2.5
            ),
        ),
    )


class FakeVisor:
    """A ControlPort whose answers a test sets and whose commands it reads. Thread-safe."""

    def __init__(self, home: Path, config: VisorConfig, *, pid: int) -> None:
        self.report = sample_status(home, pid)
        self.snapshot = sample_tree()
        self.known: tuple[UpgradeReport, ...] = (UPGRADE, OLD_UPGRADE)
        self.settings = config
        self.commands: list[tuple[object, ...]] = []
        self.events: list[Event] = []
        self.refusal: ControlRefused | None = None
        self.bug: Exception | None = None
        self.on_command: Callable[[], None] = lambda: None
        self.gate = threading.Event()
        self.gate.set()

    def status(self) -> StatusReport:
        self.gate.wait(20)
        if self.bug is not None:
            raise self.bug
        return self.report

    def tree(self) -> NodeSnapshot:
        return self.snapshot

    def upgrades(self) -> tuple[UpgradeReport, ...]:
        return self.known

    def counters(self) -> Mapping[str, int]:
        return self.report.counters

    def config(self) -> VisorConfig:
        return self.settings

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def restart(self, slot: str | None) -> Accepted:
        return self._command("restart", slot)

    def stop(self, mode: StopMode) -> Accepted:
        return self._command("stop", mode)

    def hold(self, tag: str | None) -> Accepted:
        return self._command("hold", tag)

    def resume(self, tag: str | None) -> Accepted:
        return self._command("resume", tag)

    def prepare(self, tag: str) -> Accepted:
        return self._command("prepare", tag)

    def inject(self, actor: str, fault: Fault) -> Accepted:
        return self._command("inject", actor, fault)

    def _command(self, *words: object) -> Accepted:
        if self.refusal is not None:
            raise self.refusal
        self.commands.append(words)
        self.on_command()
        return Accepted(message=f"{words[0]} accepted")


def make_home(root: Path) -> HomeLayout:
    """A fresh home."""
    initialise(root)
    return HomeLayout(root)


def listening(config: VisorConfig, listen: str | None, token_file: Path | None = None) -> VisorConfig:
    """``config`` with another [api]."""
    return replace(config, api=ApiConfig(listen=listen, token_file=token_file))


@contextmanager
def serve(layout: HomeLayout, visor: FakeVisor) -> Iterator[ActorSystem]:
    """Serve ``visor`` with a real ApiActor under a real supervisor until the block ends."""
    from visor_actors.api.actor import ApiActor

    backoff = Backoff(base=0.01, maximum=0.1, jitter=0.0, reset_after=60.0)
    root = SupervisorSpec(
        id="root",
        strategy=Strategy.ONE_FOR_ONE,
        intensity=Intensity(restarts=50, window=60.0),
        restart=Restart.PERMANENT,
        backoff=backoff,
        children=(
            ChildSpec(
                id="api",
                factory=lambda context: ApiActor(context, port=visor, layout=layout),
                restart=Restart.PERMANENT,
                start_timeout=20.0,
                shutdown_timeout=20.0,
                heartbeat=20.0,
                backoff=backoff,
            ),
        ),
    )
    system = ActorSystem(root, on_event=lambda event: None)
    thread = threading.Thread(target=system.run)
    thread.start()
    try:
        wait_until(lambda: any(child.state == "running" for child in system.tree().children))
        yield system
    finally:
        visor.gate.set()
        system.stop()
        thread.join(20)
        assert not thread.is_alive()


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for ``condition()`` to be true; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def fake_visor(layout: HomeLayout, *, pid: int) -> FakeVisor:
    """A fake visor on a home."""
    return FakeVisor(layout.root, load_config(layout).config, pid=pid)
