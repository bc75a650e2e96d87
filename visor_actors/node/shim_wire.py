"""The protocol between visor and a shim, as bytes: one JSON object a line. See docs/custody.md.

Unknown fields are ignored and unknown kinds of messages skipped, so that an older and a newer release
understand each other; a message that is known and malformed raises :class:`ValueError`.
"""

from __future__ import annotations

import json
from typing import Any, assert_never

from visor_actors.node.custody_types import (
    Exited,
    ExitRecord,
    HolderInfo,
    InheritedOutput,
    LaunchOrder,
    LogsDropped,
    OutputFiles,
    RefusalKind,
    Refused,
    RunningBinary,
    ShimMessage,
    Started,
    StartRefused,
    StopProgress,
    StopStep,
)

PROTOCOLS = (1, 2)
MAX_COMMAND = 512 * 1024
MAX_MESSAGE = 1024 * 1024
_STEPS = frozenset(step.value for step in StopStep)


def encode(command: dict[str, Any]) -> bytes:
    """Return ``command`` as one line."""
    return json.dumps(command, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Return the object in ``line``; raise ValueError for anything else."""
    try:
        value = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict) or not isinstance(value.get("is"), str):
        raise ValueError("not a message of a shim")
    return value


def encode_order(order: LaunchOrder) -> dict[str, Any]:
    """Return ``order`` as the shim expects it."""
    output: dict[str, Any] | None
    match order.output:
        case InheritedOutput():
            output = None
        case OutputFiles() as files:
            output = {
                "directory": str(files.directory),
                "name": files.name,
                "max_bytes": files.max_bytes,
                "keep": files.keep,
            }
        case _:
            assert_never(order.output)
    return {
        "executable": order.executable,
        "argv": list(order.argv),
        "env": dict(order.env),
        "working_directory": order.working_directory,
        "output": output,
        "limits": dict(order.limits),
        "user": order.user,
        "home_lock": order.home_lock,
    }


def parse_message(fields: dict[str, Any]) -> ShimMessage | None:
    """Return the message that ``fields`` describe, or None for a kind this release does not know."""
    try:
        match fields["is"]:
            case "started":
                unguarded = fields.get("unguarded", "its shim is of an earlier release, which takes none")
                return Started(
                    request=int(fields["request"]),
                    binary=parse_binary(fields["binary"]),
                    unguarded=None if unguarded is None else str(unguarded),
                )
            case "start-refused":
                return StartRefused(
                    request=int(fields["request"]),
                    kind=_kind(fields["kind"]),
                    problem=str(fields["problem"]),
                    next_step=str(fields["next_step"]),
                )
            case "exited":
                return Exited(record=parse_exit(fields["record"]))
            case "progress":
                request = fields["request"]
                if fields["step"] not in _STEPS:
                    return None
                return StopProgress(
                    request=None if request is None else int(request),
                    step=StopStep(fields["step"]),
                    detail=str(fields["detail"]),
                )
            case "dropped":
                return LogsDropped(
                    dropped=int(fields["bytes"]), total=int(fields["total"]), problem=str(fields["problem"])
                )
            case "refused":
                return Refused(request=int(fields["request"]), problem=str(fields["problem"]))
            case _:
                return None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"malformed {fields['is']} message: {error!r}") from error


def parse_binary(fields: dict[str, Any]) -> RunningBinary:
    """Return the running binary that ``fields`` describe."""
    return RunningBinary(
        incarnation=int(fields["incarnation"]),
        pid=int(fields["pid"]),
        start_ticks=int(fields["start_ticks"]),
        boot_id=str(fields["boot_id"]),
        executable=str(fields["executable"]),
        argv=tuple(str(word) for word in fields["argv"]),
        started_at=float(fields["started_at"]),
        adopted=bool(fields["adopted"]),
        stopping=bool(fields["stopping"]),
    )


def parse_exit(fields: dict[str, Any]) -> ExitRecord:
    """Return the exit that ``fields`` describe."""
    code, signal = fields["code"], fields["signal"]
    return ExitRecord(
        incarnation=int(fields["incarnation"]),
        pid=int(fields["pid"]),
        code=None if code is None else int(code),
        signal=None if signal is None else int(signal),
        known=bool(fields["known"]),
        requested=bool(fields["requested"]),
        started_at=float(fields["started_at"]),
        ended_at=float(fields["ended_at"]),
        user_seconds=float(fields["user_seconds"]),
        system_seconds=float(fields["system_seconds"]),
        max_rss_kib=int(fields["max_rss_kib"]),
        last_lines=tuple(str(line) for line in fields["last_lines"]),
        earlier_boot=bool(fields.get("earlier_boot", False)),
    )


def parse_holder(fields: dict[str, Any]) -> HolderInfo:
    """Return the holder that ``fields`` describe."""
    pid, executable = fields["pid"], fields["executable"]
    return HolderInfo(
        pid=None if pid is None else int(pid),
        executable=None if executable is None else str(executable),
        problem=str(fields["problem"]),
    )


def _kind(name: object) -> RefusalKind:
    try:
        return RefusalKind(name)
    except ValueError:
        return RefusalKind.UNKNOWN
