"""How the supervision tree looks on a terminal."""

from __future__ import annotations

from visor_actors.api.treeview import TreeRow
from visor_actors.cli.terminal import bad, doubtful, good, quiet, table


def render(rows: tuple[TreeRow, ...]) -> str:
    """Return the tree as a table, one row an actor."""
    return table(
        ("ACTOR", "STATE", "GENERATION", "RESTARTS", "INBOX", "LAST FAILURE"),
        [
            (
                quiet(_branches(row.last)) + row.id,
                _state(row),
                str(row.generation),
                str(row.restarts),
                _inbox(row),
                _one_line(row.failure) if row.failure else "-",
            )
            for row in rows
        ],
    )


def _branches(last: tuple[bool, ...]) -> str:
    if not last:
        return ""
    above = "".join("   " if closed else "│  " for closed in last[:-1])
    return above + ("└─ " if last[-1] else "├─ ")


def _state(row: TreeRow) -> str:
    if row.degraded:
        return bad(f"{row.state}, degraded")
    return good(row.state) if row.state == "running" else doubtful(row.state)


def _inbox(row: TreeRow) -> str:
    busy = (
        f", busy {row.busy_seconds:.1f} s" if row.busy_seconds is not None and row.busy_seconds >= 1 else ""
    )
    lost = f", {row.dead_letters} lost" if row.dead_letters else ""
    return f"{row.inbox_depth}{busy}{lost}"


def _one_line(text: str, width: int = 100) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
