"""The status page: one self-contained HTML document that refreshes itself and runs no script."""

from __future__ import annotations

import time
from collections.abc import Iterable
from html import escape as escape_html
from typing import TYPE_CHECKING

from visor_actors.actors.reports import BinaryReport, StatusReport, UpgradeReport
from visor_actors.api.duration import since
from visor_actors.api.treeview import flatten
from visor_actors.telemetry.scrub import scrubber

if TYPE_CHECKING:
    from visor_actors.actor import NodeSnapshot

CONTENT_TYPE = "text/html; charset=utf-8"
HEADERS = (
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
)

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; --ok: #1a7f37; --bad: #cf222e;
--warn: #9a6700 }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem } h2 { font-size: 1rem; margin: 1.6rem 0 .3rem } p { margin: .3rem 0 }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .25rem .8rem .25rem 0;
border-bottom: 1px solid var(--line); vertical-align: top } th { color: var(--soft); font-weight: 500 }
.ok { color: var(--ok) } .degraded, .bad { color: var(--bad) } .stopping, .warn { color: var(--warn) }
small { color: var(--soft) } code { font-size: .92em; overflow-wrap: anywhere }
"""


def render_page(status: StatusReport, tree: NodeSnapshot) -> str:
    """Return the page. All that comes from outside is escaped."""
    now = time.time()
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        "<meta http-equiv=refresh content=5>",
        f"<title>visor: {escape(status.health.value)}</title><style>{_STYLE}</style>",
        f"<h1>visor <span class={status.health.value}>{escape(status.health.value)}</span></h1>",
        f"<p>version {escape(status.version)}, pid {status.pid}, up {since(status.started_at, now)}</p>",
        f"<p>home <code>{escape(status.home)}</code></p>",
        *_alarms(status, now),
        f"<h2>Node: {escape(status.node.phase)}</h2>",
        f"<p>{escape(status.node.reason or '')}</p>" if status.node.reason else "",
        f"<p>folder {escape(status.node.folder or 'none')}{_height(status)}</p>",
        f"<p>restarts {status.node.restarts} of {status.node.restarts_max}</p>",
        _table(
            ("binary", "phase", "pid", "up", "last exit"),
            (_binary(binary, now) for binary in status.binaries),
        ),
        *_upgrade(status.upgrade),
        "<h2>Actors</h2>",
        _table(
            ("actor", "state", "generation", "restarts", "last failure"),
            (
                (
                    "&emsp;" * row.depth + escape(row.id),
                    escape(row.state),
                    str(row.generation),
                    str(row.restarts),
                    escape(row.failure or ""),
                )
                for row in flatten(tree)
            ),
        ),
        f"<p><small>as of {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(now))}</small></p></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """Return ``text`` for HTML, without secrets: the page has no other readers than the network."""
    return escape_html(scrubber.strict_text(text))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    titles = "".join(f"<th>{title}</th>" for title in head)
    return f"<table><tr>{titles}</tr>{body}</table>"


def _alarms(status: StatusReport, now: float) -> list[str]:
    if not status.alarms:
        return []
    rows = (
        (
            f"<span class=bad>{escape(alarm.message)}</span>",
            escape(alarm.next_step or ""),
            since(alarm.at, now) + " ago",
        )
        for alarm in status.alarms
    )
    return ["<h2 class=bad>Alarms</h2>", _table(("what", "what to do", "when"), rows)]


def _height(status: StatusReport) -> str:
    if status.rpc is None or status.rpc.height is None:
        return ""
    return f", height {status.rpc.height}"


def _binary(binary: BinaryReport, now: float) -> tuple[str, ...]:
    last = binary.last_exit
    ended = ""
    if last is not None:
        how = f"signal {last.signal}" if last.signal is not None else f"code {last.code}"
        how = "unknown" if last.code is None and last.signal is None else how
        ended = f"{how}, {since(last.at, now)} ago"
    phase = escape(binary.phase) + (f"<br><small>{escape(binary.problem)}</small>" if binary.problem else "")
    return (
        escape(binary.slot),
        phase,
        str(binary.pid or "-"),
        since(binary.started_at if binary.pid else None, now),
        ended,
    )


def _upgrade(upgrade: UpgradeReport | None) -> list[str]:
    if upgrade is None:
        return []
    ready = "<span class=ok>READY</span>" if upgrade.prepared else "<span class=warn>MISSING</span>"
    lines = [
        "<h2>Upgrade</h2>",
        f"<p>{escape(upgrade.tag)} at height {upgrade.height}: {escape(upgrade.state)}</p>",
    ]
    if upgrade.before_switch:
        lines.append(f"<p>release {ready}{', <b>held</b>' if upgrade.held else ''}</p>")
    if upgrade.problem:
        lines.append(f"<p class=bad>{escape(upgrade.problem)} {escape(upgrade.next_step or '')}</p>")
    return lines
