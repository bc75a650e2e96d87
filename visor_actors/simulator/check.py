"""Judges what a run left behind: whether the chain of a simulated node came through unharmed."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from visor_actors.simulator.chain import Upgrade, planned_upgrades
from visor_actors.simulator.records import ProcessRecord, read_records


class ProblemKind(enum.Enum):
    """What can be wrong with a chain."""

    WRONG_VERSION = "a block was executed by a version that the plan does not allow"
    EXECUTED_TWICE = "a block was executed by two versions"
    GAP = "a block is missing"
    TWO_PROCESSES = "a second process was started while the first one lived"
    STATE_MISMATCH = "a node found that the state was ruined"
    HUNG_AT_UPGRADE = "the core was asked to stop while it waited at its upgrade height"
    SNAPSHOTS_LOST = "an older snapshot was loaded than needed, which deleted the later ones"
    SNAPSHOT_MISSING = "the core was started with a height that has no snapshot"
    DATA_NODE_BEHIND = "the core started ahead of the data node"
    VERSIONS_MIXED = "core and data node of different versions met"
    DATA_NODE_FORKED = "the data node holds blocks that the chain does not have"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, with the numbers that show it."""

    kind: ProblemKind
    detail: str

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRange:
    """The heights ``first`` to ``last`` were executed by ``version``."""

    version: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeTiming:
    """When the node itself saw the steps of an upgrade; CLOCK_MONOTONIC nanoseconds, None: not seen."""

    tag: str
    height: int
    last_block_ns: int | None
    ready_ns: int | None
    sigterm_ns: int | None
    start_ns: int | None
    next_block_ns: int | None

    @property
    def gap_ms(self) -> float | None:
        """From the last block before the upgrade to the first one after it."""
        if self.last_block_ns is None or self.next_block_ns is None:
            return None
        return (self.next_block_ns - self.last_block_ns) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainReport:
    """``blocks`` counts heights, ``versions`` are contiguous; no ``problems``: the chain is sound."""

    blocks: int
    versions: tuple[VersionRange, ...]
    problems: tuple[Problem, ...]
    upgrades: tuple[UpgradeTiming, ...]
    starts: int
    executions: int


@dataclass(frozen=True, slots=True)
class _Execution:
    height: int
    version: str
    pid: int
    kind: str
    hash: str
    mono_ns: int


def check_chain(home: Path) -> ChainReport:
    """Judge what the nodes of ``home`` wrote, also while they run; a home without blocks is sound."""
    history_home = _data_node_home(home)
    processed = _processed(
        history_home
    )  # read first: on a live chain the data node is the one that is behind
    executions = tuple(_executions(home))
    records = read_records(home)
    if history_home is not None and history_home.resolve() != home.resolve():
        records += read_records(history_home, role="data_node")
    plan = planned_upgrades(home)
    first: dict[int, _Execution] = {}
    for execution in executions:
        if execution.kind == "new":
            first.setdefault(execution.height, execution)
    problems = [
        *_versions_as_planned(executions, plan),
        *_executed_once(executions),
        *_without_gaps(first),
        *_one_at_a_time(records),
        *_reported_trouble(records),
        *_snapshots_kept(records),
        *_same_blocks(processed, first),
    ]
    return ChainReport(
        blocks=len(first),
        versions=tuple(_ranges(first)),
        problems=tuple(problems),
        upgrades=tuple(_timing(upgrade, first, records) for upgrade in plan),
        starts=sum(r.event == "start" and r.role == "core" for r in records),
        executions=len(executions),
    )


def _executions(home: Path) -> Iterator[_Execution]:
    path = home / "state" / "node" / "blocks.log"
    if not path.exists():
        return
    for line in path.read_text(encoding="ascii").split("\n")[:-1]:
        words = line.split(" ")
        if len(words) != 6:
            continue  # torn by a kill in the middle of the write
        height, version, pid, kind, hash_, mono_ns = words
        yield _Execution(int(height), version, int(pid), kind, hash_, int(mono_ns))


def _versions_as_planned(executions: Sequence[_Execution], plan: Sequence[Upgrade]) -> Iterator[Problem]:
    genesis = executions[0].version if executions else ""
    said: set[tuple[int, str]] = set()
    for execution in executions:
        tags = [upgrade.tag for upgrade in plan if upgrade.height < execution.height]
        expected = tags[-1] if tags else genesis
        key = (execution.height, execution.version)
        if execution.version != expected and execution.kind != "mismatch" and key not in said:
            said.add(key)
            yield Problem(
                kind=ProblemKind.WRONG_VERSION,
                detail=f"block {execution.height} by {execution.version} (pid {execution.pid}), "
                f"expected {expected}",
            )


def _executed_once(executions: Sequence[_Execution]) -> Iterator[Problem]:
    seen: dict[int, _Execution] = {}
    for execution in executions:
        before = seen.get(execution.height)
        seen[execution.height] = execution
        if before is None:
            continue
        # A replay by the same version is how a node comes back after a crash; anything else is a fork.
        if execution.kind == "new" or (execution.version, execution.hash) != (before.version, before.hash):
            yield Problem(
                kind=ProblemKind.EXECUTED_TWICE,
                detail=f"block {execution.height} by {before.version} (pid {before.pid}), "
                f"then by {execution.version} (pid {execution.pid})",
            )


def _without_gaps(first: dict[int, _Execution]) -> Iterator[Problem]:
    for lower, upper in pairwise([0, *sorted(first)]):
        if upper != lower + 1:
            yield Problem(kind=ProblemKind.GAP, detail=f"nothing between {lower} and {upper}")


def _one_at_a_time(records: Sequence[ProcessRecord]) -> Iterator[Problem]:
    for record in records:
        if record.event == "refused":
            yield Problem(
                kind=ProblemKind.TWO_PROCESSES,
                detail=f"{record.role} pid {record.pid} while pid {record.details['holder']} "
                "held the database",
            )


def _reported_trouble(records: Sequence[ProcessRecord]) -> Iterator[Problem]:
    for record in records:
        reason = str(record.details.get("reason", ""))
        if record.event == "panic":
            yield Problem(kind=ProblemKind.STATE_MISMATCH, detail=f"pid {record.pid}: {reason}")
        elif record.event == "mixed":
            detail = f"core {record.details['core']}, data node {record.version} (pid {record.pid})"
            yield Problem(kind=ProblemKind.VERSIONS_MIXED, detail=detail)
        elif record.event == "error" and "is too high" in reason:
            yield Problem(kind=ProblemKind.DATA_NODE_BEHIND, detail=reason)
        elif record.event == "failed" and "no snapshot found" in reason:
            yield Problem(kind=ProblemKind.SNAPSHOT_MISSING, detail=reason)
        elif record.event == "sigterm" and record.details["state"] in (
            "core-ready",
            "waiting for the data node",
        ):
            yield Problem(
                kind=ProblemKind.HUNG_AT_UPGRADE, detail=f"pid {record.pid} at height {record.height}"
            )


def _snapshots_kept(records: Sequence[ProcessRecord]) -> Iterator[Problem]:
    for record in records:
        if record.event != "loaded" or not record.details["deleted"]:
            continue
        segment = record.details["segment"]
        if record.height != segment:
            end = "there is no data node" if segment < 0 else f"the data node's history ends at {segment}"
            yield Problem(
                kind=ProblemKind.SNAPSHOTS_LOST,
                detail=f"loaded {record.height}, lost {record.details['deleted']}; {end}",
            )


def _data_node_home(home: Path) -> Path | None:
    import tomllib

    plan = tomllib.loads((home / "config" / "node" / "network.toml").read_text(encoding="utf-8"))
    folder = str(plan.get("data_node_home", ""))
    return Path(folder) if folder else None


def _processed(history_home: Path | None) -> dict[int, set[str]]:
    """The states that the data node was told of, by height."""
    found: dict[int, set[str]] = {}
    path = history_home / "state" / "data-node" / "processed.log" if history_home else None
    if path is not None and path.exists():
        for line in path.read_text(encoding="ascii").split("\n")[:-1]:
            height, hash_, _pid = line.split(" ")
            found.setdefault(int(height), set()).add(hash_)
    return found


def _same_blocks(processed: dict[int, set[str]], first: dict[int, _Execution]) -> Iterator[Problem]:
    for height, hashes in processed.items():
        if height not in first:
            yield Problem(kind=ProblemKind.DATA_NODE_FORKED, detail=f"the core never executed block {height}")
        elif hashes != {first[height].hash}:
            yield Problem(kind=ProblemKind.DATA_NODE_FORKED, detail=f"block {height} has another state")


def _ranges(first: dict[int, _Execution]) -> Iterator[VersionRange]:
    start: _Execution | None = None
    previous: _Execution | None = None
    for _, execution in sorted(first.items()):
        if start is None or previous is None or execution.version != start.version:
            if start is not None and previous is not None:
                yield VersionRange(version=start.version, first=start.height, last=previous.height)
            start = execution
        previous = execution
    if start is not None and previous is not None:
        yield VersionRange(version=start.version, first=start.height, last=previous.height)


def _timing(
    upgrade: Upgrade, first: dict[int, _Execution], records: Sequence[ProcessRecord]
) -> UpgradeTiming:
    core = [record for record in records if record.role == "core"]
    ready = [r.mono_ns for r in core if r.event == "ready" and r.height == upgrade.height]
    stopped = [
        int(r.details["sigterm_ns"])
        for r in core
        if r.event == "sigterm" and r.height == upgrade.height and r.details["state"] == "ready"
    ]
    started = [r.mono_ns for r in core if r.event == "start" and r.version == upgrade.tag]
    last, following = first.get(upgrade.height), first.get(upgrade.height + 1)
    return UpgradeTiming(
        tag=upgrade.tag,
        height=upgrade.height,
        last_block_ns=last.mono_ns if last else None,
        ready_ns=ready[0] if ready else None,
        sigterm_ns=stopped[0] if stopped else None,
        start_ns=started[0] if started else None,
        next_block_ns=following.mono_ns if following else None,
    )
