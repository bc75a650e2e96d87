"""Gets releases into their folders: one installer job at a time, watched, retried, reported.

The actor holds no network code and never waits: the job's pipe and pidfd arrive in its inbox like messages.
Which releases are wanted is on the board, so that a restarted actor goes on with them; what was fetched so
far is in staging.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from visor_actors.actor import Actor, Address, Context, Replayable
from visor_actors.actors.config_watcher import ConfigChanged
from visor_actors.actors.reports import Board, InstallReport
from visor_actors.home.layout import HomeLayout
from visor_actors.home.settings import AutoInstallConfig
from visor_actors.install import messages
from visor_actors.install.launch import InstallJob, JobNotStarted, launch_job
from visor_actors.install.messages import FailureKind, Installed, JobMessage, Note, Progress, Verification
from visor_actors.install.order import InstallOrder, OrderInvalid
from visor_actors.install.ordering import make_order
from visor_actors.install.retry import backoff_delay
from visor_actors.telemetry.events import Event, EventBus, Scalar, Severity

BOARD_KEY = "install"
_WANTED_KEY = "installer:wanted"
_RETRY_BASE = 5.0
_RETRY_MAXIMUM = 300.0


class InstallRelease(Replayable, Struct, frozen=True, kw_only=True):
    """Get ``tag`` into ``folder_name``, with the run configuration of ``source_folder`` carried over.

    Idempotent: what is in work goes on; what waits for its next try or has failed for good is tried now.
    """

    tag: str
    brand: str
    folder_name: str
    source_folder: Path | None


class CancelInstall(Replayable, Struct, frozen=True, kw_only=True):
    """``tag`` is not wanted any more: its job is killed. What was fetched stays in staging."""

    tag: str


class ReleaseInstalled(Replayable, Struct, frozen=True, kw_only=True):
    """``folder`` is there and complete."""

    tag: str
    folder: Path
    verification: Verification


class InstallFailed(Replayable, Struct, frozen=True, kw_only=True):
    """An attempt has failed. ``retry_in`` seconds later it is tried again by itself; None: it is not."""

    tag: str
    kind: FailureKind
    message: str
    next_step: str
    transient: bool
    attempt: int
    retry_in: float | None


class WantedReleases(Struct, frozen=True, kw_only=True):
    """What the actor has been asked for and not finished, on the board for its successor."""

    requests: tuple[InstallRelease, ...]


class _JobStirs(Struct, frozen=True):
    """The job with this pid has something to say, or has ended."""

    pid: int


class _TimeIsUp(Struct, frozen=True):
    pid: int


class _TryAgain(Struct, frozen=True):
    tag: str


class _Wanted(Struct):
    """One release. It is *due* while it waits for its turn only; otherwise for a timer or for new orders."""

    request: InstallRelease
    attempt: int = 0
    due: bool = True


class InstallerActor(Actor):
    """See the module. ``config`` is asked for the newest settings whenever a job is started.

    ``launch`` and ``rng`` are for tests.
    """

    def __init__(
        self,
        context: Context,
        *,
        layout: HomeLayout,
        bus: EventBus,
        board: Board,
        config: Callable[[], AutoInstallConfig],
        notify: Address,
        launch: Callable[[InstallOrder], InstallJob] = launch_job,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(context)
        self._layout = layout
        self._bus = bus
        self._board = board
        self._config = config
        self._notify = notify
        self._launch = launch
        self._rng = rng or random.Random()
        self._wanted: dict[str, _Wanted] = {}
        self._job: InstallJob | None = None
        self._used: AutoInstallConfig | None = None
        self._report: InstallReport | None = None

    def init(self) -> None:
        """Go on with what the previous incarnation had been asked for."""
        self._used = self._config()
        left = self._board.read(_WANTED_KEY, WantedReleases)
        for request in left.requests if left is not None else ():
            self._wanted[request.tag] = _Wanted(request)
        self._start_next()

    def handle(self, message: object) -> None:
        """Dispatch."""
        match message:
            case InstallRelease():
                self._want(message)
            case CancelInstall(tag=tag):
                self._forget(tag)
            case _JobStirs(pid=pid):
                if self._job is not None and self._job.pid == pid:
                    self._receive(self._job)
            case _TimeIsUp(pid=pid):
                if self._job is not None and self._job.pid == pid:
                    self._job.end_at_deadline()
            case _TryAgain(tag=tag):
                if tag in self._wanted:
                    self._wanted[tag].due = True
                    self._start_next()
            case ConfigChanged():
                self._reconsider()
            case _:
                pass

    def terminate(self) -> None:
        """Kill the job: a successor starts one of its own, which goes on from staging."""
        if self._job is not None:
            self._job.close()
            self._job = None

    def _want(self, request: InstallRelease) -> None:
        known = self._wanted.get(request.tag)
        running = self._job is not None and self._job.order.tag == request.tag
        if known is not None and running:
            if known.request == request:
                return
            self._abandon_job()
        self._wanted[request.tag] = _Wanted(request, attempt=0 if known is None else known.attempt)
        self._remember()
        self._start_next()

    def _forget(self, tag: str) -> None:
        if self._wanted.pop(tag, None) is None:
            return
        self.context.cancel(("retry", tag))
        self._remember()
        if self._job is not None and self._job.order.tag == tag:
            self._abandon_job()
            self._emit("install.cancelled", f"{tag} is not wanted any more: its installation was ended", tag)
        if self._report is not None and self._report.tag == tag:
            self._show(None)
        self._start_next()

    def _reconsider(self) -> None:
        """Settings that have changed may help what failed, and what runs must not go on under those of
        before.
        """
        if self._config() == self._used:
            return
        self._abandon_job()
        for wanted in self._wanted.values():
            wanted.due, wanted.attempt = True, 0
        self._start_next()

    def _start_next(self) -> None:
        if self._job is not None:
            return
        wanted = next((wanted for wanted in self._wanted.values() if wanted.due), None)
        if wanted is not None:
            self._start(wanted)

    def _start(self, wanted: _Wanted) -> None:
        request = wanted.request
        wanted.due = False
        wanted.attempt += 1
        self.context.cancel(("retry", request.tag))
        self._used = self._config()
        try:
            order = make_order(
                self._used,
                home=self._layout.root,
                tag=request.tag,
                brand=request.brand,
                folder_name=request.folder_name,
                source_folder=request.source_folder,
                requested_by="the running visor",
            )
            job = self._launch(order)
        except OrderInvalid as error:
            self._failed(
                request.tag,
                messages.InstallFailed(
                    kind=FailureKind.ORDER_INVALID,
                    message=str(error),
                    next_step="correct autoInstall in the configuration",
                    transient=False,
                ),
            )
            return
        except JobNotStarted as error:
            self._failed(
                request.tag,
                messages.InstallFailed(
                    kind=FailureKind.INTERNAL,
                    message=error.strerror or str(error),
                    next_step="free memory, processes or file descriptors; it is tried again",
                    transient=True,
                ),
            )
            return
        self._job = job
        self.context.watch(job.stdout_fd, _JobStirs(job.pid))
        self.context.watch(job.pidfd, _JobStirs(job.pid))
        self.context.after(order.limits.deadline_seconds, _TimeIsUp(job.pid), key="deadline")
        self._show(InstallReport(tag=request.tag, phase="starting", attempt=wanted.attempt))
        self._emit("install.started", f"fetching {request.tag} (attempt {wanted.attempt})", request.tag)

    def _receive(self, job: InstallJob) -> None:
        for message in job.receive():
            self._take(job, message)
        if self._job is job and job.at_end_of_output:
            self.context.unwatch(job.stdout_fd)  # or it would be readable for ever; the pidfd tells the rest

    def _take(self, job: InstallJob, message: JobMessage) -> None:
        tag = job.order.tag
        match message:
            case Progress():
                shown = self._report or InstallReport(tag=tag, phase="")
                self._show(
                    replace(
                        shown,
                        phase=message.phase.value,
                        done=message.done,
                        total=message.total,
                        rate=message.rate,
                    )
                )
            case Note():
                severity = Severity.WARNING if message.loud else Severity.INFO
                self._emit(message.name, f"{tag}: {message.message}", tag, severity=severity)
            case Installed():
                self._abandon_job()
                self._installed(tag, message)
            case messages.InstallFailed():
                self._abandon_job()
                self._failed(tag, message)
            case _ as never:
                assert_never(never)

    def _installed(self, tag: str, outcome: Installed) -> None:
        self._wanted.pop(tag, None)
        self._remember()
        self._show(None)
        proofs = ", ".join(proof.value for proof in outcome.verification.proofs)
        self._emit(
            "install.done",
            f"{tag} is in {outcome.folder}: {outcome.verification.details}",
            tag,
            folder=str(outcome.folder),
            verified_by=proofs,
            sha256=outcome.verification.sha256,
            bytes=outcome.bytes,
        )
        self.context.tell(
            self._notify,
            ReleaseInstalled(tag=tag, folder=outcome.folder, verification=outcome.verification),
        )
        self._start_next()

    def _failed(self, tag: str, outcome: messages.InstallFailed) -> None:
        wanted = self._wanted.get(tag)
        if wanted is None:
            return
        retry_in = retry_delay(outcome, wanted.attempt, self._rng)
        if retry_in is not None:
            self.context.after(retry_in, _TryAgain(tag), key=("retry", tag))
        self._show(
            InstallReport(
                tag=tag,
                phase="failed" if retry_in is None else "waiting",
                attempt=wanted.attempt,
                problem=outcome.message,
            )
        )
        again = "" if retry_in is None else f"; tried again in {retry_in:.0f} s"
        self._emit(
            "install.failed",
            f"{tag} could not be installed: {outcome.message}{again}",
            tag,
            severity=Severity.ERROR if retry_in is None else Severity.WARNING,
            next_step=outcome.next_step,
            kind=outcome.kind.value,
            attempt=wanted.attempt,
        )
        self.context.tell(
            self._notify,
            InstallFailed(
                tag=tag,
                kind=outcome.kind,
                message=outcome.message,
                next_step=outcome.next_step,
                transient=outcome.transient,
                attempt=wanted.attempt,
                retry_in=retry_in,
            ),
        )
        self._start_next()

    def _abandon_job(self) -> None:
        """Give the job up, dead or alive."""
        job, self._job = self._job, None
        if job is None:
            return
        self.context.unwatch(job.stdout_fd)
        self.context.unwatch(job.pidfd)
        self.context.cancel("deadline")
        job.close()

    def _remember(self) -> None:
        requests = tuple(wanted.request for wanted in self._wanted.values())
        self._board.publish(_WANTED_KEY, WantedReleases(requests=requests))

    def _show(self, report: InstallReport | None) -> None:
        self._report = report
        if report is None:
            self._board.withdraw(BOARD_KEY)
        else:
            self._board.publish(BOARD_KEY, report)

    def _emit(
        self,
        name: str,
        message: str,
        tag: str,
        *,
        severity: Severity = Severity.INFO,
        next_step: str | None = None,
        **fields: Scalar,
    ) -> None:
        self._bus.emit(
            Event(
                name=name,
                message=message,
                severity=severity,
                next_step=next_step,
                fields={"tag": tag, **fields},
            )
        )


def retry_delay(outcome: messages.InstallFailed, attempt: int, rng: random.Random) -> float | None:
    """Return in how many seconds to try again by itself, None for not at all."""
    if not outcome.transient:
        return None
    delay = backoff_delay(attempt, rng, base=_RETRY_BASE, maximum=_RETRY_MAXIMUM)
    return max(delay, outcome.retry_after or 0.0)
