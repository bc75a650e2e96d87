"""RpcListenerActor: asks the core node, again and again, what it knows of an upgrade, and passes the answers
on.

It decides nothing about upgrades. Its own judgement is only about silence: a core has a budget of polls to
answer for the first time, and another one to come back after it stopped answering; past either it is reported
to the lifecycle, once.

A poll blocks this actor's thread for a few seconds at most, so a core that hangs keeps nobody else waiting.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from visor_actors.actor import Actor, CancelToken, Context, JobDone, JobFailed
from visor_actors.actors.addresses import LIFECYCLE, UPGRADE_COORDINATOR
from visor_actors.actors.config_watcher import ConfigChanged
from visor_actors.actors.messages import (
    Budget,
    CoreAnswered,
    CoreSilent,
    HeightSeen,
    Listen,
    Pace,
    SetPace,
    StatusSeen,
    StopListening,
    WhoRuns,
)
from visor_actors.actors.reports import RpcReport
from visor_actors.actors.world import World
from visor_actors.node.admin_rpc import AdminRpcClient, AdminRpcError
from visor_actors.node.rest import RestClient, RestError, rest_address
from visor_actors.node.upgrade_status import UpgradeStatus
from visor_actors.telemetry.events import Event, Severity

FAST_SECONDS = 0.05
"""Between polls while an upgrade is pending: this is most of the time between *ready* and the switch."""
EAGER_SECONDS = 0.1
"""Between polls right after a start, when the first answer is due within moments."""
EAGER_FOR_SECONDS = 15.0
REPEAT_POLLS = 10
"""After so many polls without news the coordinator is told the same once more."""
SHOW_SECONDS = 1.0
"""How old what status shows of the last answer may be, however often the core is asked."""
AWAY_SECONDS = 5.0
"""A poll that comes so much later than it should says nothing of how long the core was silent."""
ANSWER_TIMEOUT_SECONDS = 2.0
TOTAL_TIMEOUT_SECONDS = 4.0


class _Poll(Struct, frozen=True):
    core: str


class RpcListenerActor(Actor):
    """Polls one core at a time. ``Listen`` says which; ``StopListening`` ends it."""

    def __init__(self, context: Context, *, world: World) -> None:
        super().__init__(context)
        self._world = world
        self._target: Listen | None = None
        self._client: AdminRpcClient | None = None
        self._pace = Pace.NORMAL
        self._since = 0.0
        self._answered = False
        self._answered_at: float | None = None
        self._left = 0
        self._charged_at = 0.0
        self._due_at = 0.0
        self._silent_told = False
        self._problem: str | None = None
        self._status: UpgradeStatus | None = None
        self._height: int | None = None
        self._height_asked_at = 0.0
        self._asking_height = False
        self._quiet_polls = 0
        self._shown_at = 0.0

    def init(self) -> None:
        """Ask the lifecycle whom to listen to: this actor remembers nothing of an earlier life."""
        self.context.tell(LIFECYCLE, WhoRuns())

    def handle(self, message: object) -> None:
        """Poll, and obey."""
        match message:
            case Listen():
                self._listen(message)
            case StopListening():
                self._close()
                self._publish(problem="no core runs")
            case SetPace(pace=pace):
                self._quiet_polls = REPEAT_POLLS  # it may come from a coordinator that has just started
                if pace is not self._pace:
                    self._pace = pace
                    self._schedule(0.0)
            case ConfigChanged():
                self._schedule(self._interval())
            case _Poll(core=core):
                if self._target is not None and self._target.core == core:
                    self._poll(self._target)
            case JobDone(key="height", value=height):
                self._asking_height = False
                self._height_known(height)
            case JobFailed(key="height"):
                self._asking_height = False
            case _:
                pass

    def terminate(self) -> None:
        """Close the connection to the core."""
        self._close()

    def _listen(self, target: Listen) -> None:
        if self._target is not None and self._target.core == target.core:
            if self._answered:
                self.context.tell(LIFECYCLE, CoreAnswered(core=target.core))
            return
        self._close()
        self._target = target
        self._client = AdminRpcClient(
            target.socket_path,
            target.http_path,
            brand=target.brand,
            answer_timeout=ANSWER_TIMEOUT_SECONDS,
            total_timeout=TOTAL_TIMEOUT_SECONDS,
        )
        self._since = self._charged_at = self._world.monotonic()
        self._left = self._budget(target.budget)
        self._schedule(0.0)

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
        self.context.cancel("poll")
        self._client = self._target = self._status = self._answered_at = self._problem = self._height = None
        self._answered = self._silent_told = False

    def _budget(self, budget: Budget) -> int:
        config = self._world.settings.current
        match budget:
            case Budget.FIRST_START:
                return config.max_number_of_first_connection_retries
            case Budget.RESTART:
                return config.max_number_of_restart_connection_retries

    def _schedule(self, delay: float) -> None:
        self._due_at = self._world.monotonic() + delay
        if self._target is not None:
            self.context.after(delay, _Poll(self._target.core), key="poll")

    def _interval(self) -> float:
        normal = self._world.settings.current.poll_interval_seconds
        if not self._answered and self._world.monotonic() - self._since < EAGER_FOR_SECONDS:
            return min(EAGER_SECONDS, normal)
        return min(FAST_SECONDS, normal) if self._pace is Pace.FAST else normal

    def _poll(self, target: Listen) -> None:
        assert self._client is not None
        now = self._world.monotonic()
        if now - self._due_at > AWAY_SECONDS:
            self._charged_at = now  # it was visor that was away: stopped, or starved
        try:
            status = self._client.upgrade_status()
        except AdminRpcError as error:
            self._no_answer(target, error)
        else:
            self._answer(target, status)
        self._schedule(self._interval())

    def _answer(self, target: Listen, status: UpgradeStatus) -> None:
        config = self._world.settings.current
        if not self._answered:
            self._answered = True
            self.context.tell(LIFECYCLE, CoreAnswered(core=target.core))
            self._emit("rpc.connected", "the core answers its admin RPC")
        elif self._problem is not None:
            self._emit("rpc.recovered", "the core answers its admin RPC again")
        recovered = self._problem is not None
        self._problem, self._silent_told = None, False
        # From now on silence is what a node that hangs looks like: it has the shorter budget to come back.
        self._left = config.max_number_of_restart_connection_retries
        now = self._world.monotonic()
        self._charged_at = now
        self._answered_at = self._world.now()
        changed = status != self._status or recovered
        self._status = status
        if changed or self._pace is Pace.FAST or self._quiet_polls >= REPEAT_POLLS:
            # At rest nobody needs to hear the same again; but now and then, lest a lost message stays lost.
            self._quiet_polls = 0
            self.context.tell(
                UPGRADE_COORDINATOR, StatusSeen(core=target.core, status=status, pace=self._pace)
            )
        self._quiet_polls += 1
        if changed or now - self._shown_at >= SHOW_SECONDS:
            self._shown_at = now
            self._publish()
        self._ask_height(target)

    def _no_answer(self, target: Listen, error: AdminRpcError) -> None:
        now = self._world.monotonic()
        problem = str(error)
        if self._answered and self._problem is None:
            self._emit(
                "rpc.silent",
                f"the core has stopped answering: {problem}",
                severity=Severity.WARNING,
                next_step=error.next_step,
            )
        if problem != self._problem:
            self._problem = problem
            self._publish(problem=problem)
        if error.answered:
            # Whatever it says, it is alive: no reason to restart it.
            self._charged_at = now
            return
        # The budget counts polls at the configured interval; the eager ones in between are free.
        while (
            now - self._charged_at >= self._world.settings.current.poll_interval_seconds and self._left >= 0
        ):
            self._charged_at += self._world.settings.current.poll_interval_seconds
            self._left -= 1
        if self._left < 0 and not self._silent_told:
            self._silent_told = True
            self._publish(problem=problem)
            self.context.tell(LIFECYCLE, CoreSilent(core=target.core, problem=problem))

    def _ask_height(self, target: Listen) -> None:
        """From acceptance on the height is worth knowing: it shows a missed readiness, and is a witness
        later.
        """
        now = self._world.monotonic()
        if (
            self._pace is not Pace.FAST
            or self._asking_height
            or target.core_home is None
            or now - self._height_asked_at < min(1.0, self._world.settings.current.poll_interval_seconds)
        ):
            return
        self._asking_height = True
        self._height_asked_at = now
        home = target.core_home
        self.context.run_job(lambda token: _rest_height(home, token), key="height", timeout=10.0)

    def _height_known(self, height: object) -> None:
        if isinstance(height, int) and self._target is not None:
            if height != self._height:
                self._height = height
                self._publish()
            self.context.tell(UPGRADE_COORDINATOR, HeightSeen(core=self._target.core, height=height))

    def _publish(self, *, problem: str | None = None) -> None:
        release = self._status.release if self._status is not None else None
        self._world.board.publish(
            "rpc",
            RpcReport(
                connected=self._answered and problem is None,
                last_answer_at=self._answered_at,
                attempts_left=max(0, self._left) if self._target is not None else None,
                problem=problem,
                tag=release.tag if release is not None else None,
                upgrade_height=release.height if release is not None else None,
                ready=self._status.ready if self._status is not None else False,
                height=self._height,
            ),
        )

    def _emit(
        self, name: str, message: str, *, severity: Severity = Severity.INFO, next_step: str | None = None
    ) -> None:
        self._world.bus.emit(Event(name=name, message=message, severity=severity, next_step=next_step))


def _rest_height(core_home: Path, _token: CancelToken) -> int | None:
    """Ask the core's REST server for its height; None where it has none or does not answer."""
    try:
        with RestClient(rest_address(core_home)) as client:
            return client.height()
    except RestError:
        return None
