"""What goes to the terminal: colours only where they can be seen, tables, times and sizes for people."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

import click


def colourful(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal whose user wants colours (NO_COLOR unset, TERM not dumb)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(text: str, stream: TextIO, *, fg: str | None = None, bold: bool = False, dim: bool = False) -> str:
    """Return ``text`` in colour if ``stream`` can show it."""
    if not colourful(stream):
        return text
    return click.style(text, fg=fg, bold=bold or None, dim=dim or None)


def good(text: str) -> str:
    """Return ``text`` as good news."""
    return style(text, sys.stdout, fg="green")


def bad(text: str) -> str:
    """Return ``text`` as bad news."""
    return style(text, sys.stdout, fg="red", bold=True)


def doubtful(text: str) -> str:
    """Return ``text`` as something to keep an eye on."""
    return style(text, sys.stdout, fg="yellow")


def quiet(text: str) -> str:
    """Return ``text`` as a side note."""
    return style(text, sys.stdout, dim=True)


def heading(text: str) -> str:
    """Return ``text`` as a heading."""
    return style(text, sys.stdout, bold=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return ``rows`` under ``head`` in aligned columns, without trailing blanks; only the head if there
    are none."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            _pad(_head(cell) if number == 0 else cell, width)
            for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for number, line in enumerate(lines)
    )


def pairs(rows: Iterable[tuple[str, str | None]]) -> str:
    """Return ``rows`` as label and value; rows without a value are left out."""
    known = [(label, value) for label, value in rows if value]
    width = max((len(label) for label, _ in known), default=0)
    return "\n".join(f"{quiet(_pad(label, width))}  {value}" for label, value in known)


def moment(at: float | None) -> str:
    """Return a point in time in the local time zone; ``-`` if unknown."""
    if at is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def size(count: float) -> str:
    """Return ``count`` bytes in the unit that suits: ``12.3 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def print_json(value: object) -> None:
    """Print ``value`` as one indented JSON document."""
    from visor_actors.api.wire import dump

    click.echo(dump(value, indent=2))


def refresh(render: Callable[[], str], every: float) -> None:
    """Show what ``render`` returns and show it anew every ``every`` seconds, in place on a terminal,
    until ^C."""
    from visor_actors.cli.waiting import quiet_interrupt

    in_place = sys.stdout.isatty()
    with quiet_interrupt():
        while True:
            text = render()
            if in_place:
                # Home, then clear the rest of each line and all below: no flicker, nothing left behind.
                text = "\x1b[H" + text.replace("\n", "\x1b[K\n") + "\x1b[K\n\x1b[J"
            click.echo(text, nl=not in_place)
            time.sleep(every)


def _head(cell: str) -> str:
    return style(cell, sys.stdout, bold=True)


def _width(text: str) -> int:
    return len(click.unstyle(text))


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))
