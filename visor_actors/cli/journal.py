"""What the journal tells a command. Opened for reading only, so that a command never disturbs a running
visor."""

from __future__ import annotations

from visor_actors.actors.reports import UpgradeReport
from visor_actors.home.journal import Detail, HistoryEntry, Journal, UpgradeRow
from visor_actors.home.layout import HomeLayout


def journal_upgrades(layout: HomeLayout) -> tuple[UpgradeReport, ...]:
    """Return all upgrades, newest first; none if there is no journal yet. Raises JournalUnavailable."""
    if not layout.journal.exists():
        return ()
    with Journal.open_reader(layout.journal) as journal:
        rows = journal.upgrades()
        return tuple(
            _report(row, journal.upgrade_log(row.tag, row.height))
            for row in sorted(rows, key=lambda row: (row.height, row.updated_at), reverse=True)
        )


def journal_events(
    layout: HomeLayout,
    *,
    name: str | None = None,
    least_severity: int = 0,
    since: float | None = None,
    after_id: int | None = None,
    limit: int | None = None,
) -> tuple[HistoryEntry, ...]:
    """Return the newest events that fit, oldest first; none if there is no journal yet."""
    if not layout.journal.exists():
        return ()
    with Journal.open_reader(layout.journal) as journal:
        return journal.events(
            name=name, least_severity=least_severity, since=since, after_id=after_id, limit=limit
        )


def _report(row: UpgradeRow, log: tuple[tuple[str, float, Detail], ...]) -> UpgradeReport:
    detail = row.detail
    return UpgradeReport(
        tag=row.tag,
        height=row.height,
        state=row.state,
        folder=row.folder,
        prepared=bool(detail.get("prepared", row.state not in ("announced", "preparing"))),
        problem=_text(detail, "problem"),
        next_step=_text(detail, "next_step"),
        held=detail.get("held") is True,
        steps=tuple((state, at) for state, at, _ in log),
    )


def _text(detail: Detail, key: str) -> str | None:
    value = detail.get(key)
    return value if isinstance(value, str) else None
