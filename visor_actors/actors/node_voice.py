"""What the lifecycle tells people: one method an event."""

from __future__ import annotations

from pathlib import Path

from visor_actors.actors.addresses import Slot
from visor_actors.actors.launching import Launch, describe_exit
from visor_actors.home.errors import JournalUnavailable
from visor_actors.node.custody_types import ExitRecord, RunningBinary
from visor_actors.telemetry.events import Event, EventBus, Scalar, Severity

START_AGAIN = "see `visor-actors history` for the exits, mend the cause, then `visor-actors run`"


EXITED = "binary.exited"


def exit_event(slot: Slot, record: ExitRecord) -> Event:
    """The event that tells a binary's end. The lifecycle writes it into the history together with the fact
    that the exit was dealt with, so that neither is ever there without the other.
    """
    return Event(
        name=EXITED,
        message=f"the {slot.words} (pid {record.pid}) {describe_exit(record)}",
        severity=Severity.ERROR if record.is_failure else Severity.INFO,
        lines=record.last_lines,
        fields={
            "slot": slot.value,
            "pid": record.pid,
            "incarnation": record.incarnation,
            "code": record.code,
            "signal": record.signal,
            "requested": record.requested,
            "seconds": round(record.ended_at - record.started_at, 3),
            "user_seconds": record.user_seconds,
            "system_seconds": record.system_seconds,
            "max_rss_kib": record.max_rss_kib,
        },
    )


class NodeVoice:
    """Emits events. For the lifecycle's thread."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self._said: dict[str, str] = {}

    # a binary

    def starting(self, slot: Slot, launch: Launch) -> None:
        """The binary is about to be started."""
        core = slot is Slot.CORE
        why = f" ({launch.plan.reason})" if core else ""
        self._say(
            "binary.starting",
            f"starting the {slot.words} of {launch.folder.name}{why}",
            slot=slot.value,
            folder=launch.folder.name,
            height=launch.plan.height if core else None,
        )
        if core and launch.plan.warning is not None:
            self._say(
                "node.snapshot-height",
                launch.plan.warning,
                severity=Severity.WARNING,
                next_step=launch.plan.next_step,
            )

    def started(self, slot: Slot, binary: RunningBinary) -> None:
        """The binary runs."""
        self._say(
            "binary.started",
            f"the {slot.words} runs, pid {binary.pid}",
            slot=slot.value,
            pid=binary.pid,
            incarnation=binary.incarnation,
        )

    def refused(self, slot: Slot, problem: str, next_step: str | None) -> None:
        """The binary could not be started."""
        self._say(
            "binary.refused",
            f"the {slot.words} could not be started: {problem}",
            severity=Severity.ERROR,
            next_step=next_step,
            slot=slot.value,
        )

    # the node

    def up(self, folder: str, *, attached: bool) -> None:
        """Every binary runs."""
        self._said.clear()
        how = "was found running" if attached else "is started"
        self._say("node.up", f"the node of {folder} {how}", folder=folder, attached=attached)

    def failed(self, reason: str, *, restarts: int, left: int) -> None:
        """Something ended that nobody had asked to."""
        self._say(
            "node.failed",
            f"the node failed: {reason}; restarts left: {left}",
            severity=Severity.WARNING,
            reason=reason,
            restarts=restarts,
            left=left,
        )

    def restarting(self, seconds: float) -> None:
        """The restart delay begins."""
        self._say("node.restarting", f"starting the node again in {seconds:g} s", seconds=seconds)

    def recycling(self, reason: str) -> None:
        """The node is stopped, to be started again."""
        self._say("node.recycling", f"stopping the node: {reason}")

    def stopping(self, reason: str) -> None:
        """The node is stopped for good."""
        self._say("node.stopping", f"stopping the node for good: {reason}")

    def stopped(self) -> None:
        """Nothing of the node is left."""
        self._say("node.stopped", "the node is stopped and nothing of it is left")

    def gave_up(self, message: str) -> None:
        """The restart budget is used up."""
        self._say("node.gave-up", message, severity=Severity.ALARM, next_step=START_AGAIN)

    def answered(self) -> None:
        """The core answers its RPC for the first time."""
        self._say("core.answered", "the core is up and answers")

    def silent(self, problem: str) -> None:
        """The core's connection budget is used up."""
        self._say(
            "core.silent",
            f"the core runs but has not answered within its budget: {problem}",
            severity=Severity.ALARM,
            next_step="visor restarts the node; look at the core's log for what it waited for",
        )

    # what keeps the node from being started

    def run_config_invalid(self, folder: Path, error: Exception) -> None:
        """The run configuration cannot be used. Said once for each way in which it is wrong."""
        self._once(
            "run-config.invalid",
            f"the run configuration of {folder.name} cannot be used: {error}",
            "correct it; visor looks again every second",
        )

    def journal_failed(self, error: JournalUnavailable) -> None:
        """The journal cannot be used. Said once for each reason, until the node is up again."""
        self._once(
            "journal.unavailable",
            f"the journal cannot be used: {error}",
            "free disk space or mend the permissions of .visor; the node goes on meanwhile",
        )

    def _once(self, name: str, message: str, next_step: str) -> None:
        if self._said.get(name) != message:
            self._said[name] = message
            self._say(name, message, severity=Severity.ALARM, next_step=next_step)

    def _say(
        self,
        name: str,
        message: str,
        *,
        severity: Severity = Severity.INFO,
        next_step: str | None = None,
        lines: tuple[str, ...] = (),
        **fields: Scalar,
    ) -> None:
        self._bus.emit(
            Event(
                name=name,
                message=message,
                severity=severity,
                next_step=next_step,
                lines=lines,
                fields=fields,
            )
        )
