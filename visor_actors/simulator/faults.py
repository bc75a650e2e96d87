"""The faults of a simulated node, switched on for one home by :func:`write_faults` and picked up by running
nodes.

Every field of these classes is one key of ``HOME/faults.toml``; what each does is said in
``docs/simulator.md``. Fields that are ``None`` are left out. A node that finds a key it does not know ends
with 64.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RpcFault = Literal[
    "hang",
    "slow",
    "close",
    "close_at_once",
    "stall",
    "http_500",
    "content_type",
    "wrong_id",
    "rpc_error",
    "null_result",
    "garbage",
    "not_http",
    "huge",
    "deep",
]
StatusFault = Literal[
    "ready_without_info", "ready_empty_tag", "ready", "not_ready", "flapping", "withdrawn", "null"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFaults:
    """What core node and data node have in common. Times in milliseconds unless the name says otherwise."""

    crash_at_height: int | None = None
    crash_after_ms: int | None = None
    crash_exit_code: int | None = None  # default 1; 0 ends gracefully
    crash_signal: int | None = None  # dies by this signal instead
    crash_times: int | None = None  # default 1, counted over all starts of the home; 0: every time
    fail_first_starts: int | None = None
    startup_delay_ms: int | None = None
    ignore_sigterm: bool | None = None
    stop_ms: int | None = None
    helper_seconds: int | None = None
    helper_session: Literal["same", "own"] | None = None
    flood_lines: int | None = None
    flood_line_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreFaults(ProcessFaults):
    rpc: RpcFault | None = None
    rpc_from_height: int | None = None
    rpc_slow_ms: int | None = None
    rpc_huge_bytes: int | None = None
    status: StatusFault | None = None
    status_tag: str | None = None
    status_height: int | None = None
    die_at_upgrade: Literal["before_snapshot", "after_snapshot", "before_ready"] | None = None
    die_when_ready_ms: int | None = None
    stall_at_height: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataNodeFaults(ProcessFaults):
    at_upgrade: Literal["die", "never_ready"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFaults:
    mode: Literal["hang", "fail", "garbage", "silent", "noisy"] | None = None
    exit_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFaults:
    mode: Literal["hang", "fail", "garbage", "noisy"] | None = None
    exit_code: int | None = None
    value: str | None = None


def write_faults(
    home: Path,
    *,
    core: CoreFaults | None = None,
    data_node: DataNodeFaults | None = None,
    history: HistoryFaults | None = None,
) -> None:
    """Replace the faults of ``home`` (none given: switch all off) and forget how often earlier ones fired.

    Running nodes see the change at their next block or request. ``version`` knows no home: its faults are
    given to ``build_binary``, or through the environment variable ``SIMNODE_FAULTS``.
    """
    counts = home / "state" / "fault-counts"
    for count in counts.glob("*") if counts.is_dir() else ():
        count.unlink(missing_ok=True)
    temporary = home / "faults.toml.new"
    temporary.write_text(faults_text(core=core, data_node=data_node, history=history), encoding="utf-8")
    os.replace(temporary, home / "faults.toml")


def faults_text(
    *,
    core: CoreFaults | None = None,
    data_node: DataNodeFaults | None = None,
    history: HistoryFaults | None = None,
    version: VersionFaults | None = None,
) -> str:
    """The faults as the text of a faults file, also good as the value of ``SIMNODE_FAULTS``."""
    lines: list[str] = []
    tables = (("core", core), ("data_node", data_node), ("history", history), ("version", version))
    for name, table in tables:
        if table is None:
            continue
        lines.append(f"[{name}]")
        for field in dataclasses.fields(table):
            value = getattr(table, field.name)
            if value is not None:
                lines.append(f"{field.name} = {toml_scalar(value)}")
    return "\n".join([*lines, ""]) if lines else ""


def toml_scalar(value: object) -> str:
    """``value`` in the flat TOML that the simulated node reads."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
