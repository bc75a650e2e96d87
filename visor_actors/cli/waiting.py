"""Waiting for a command to take effect, with a line of progress on a terminal."""

from __future__ import annotations

import contextlib
import select
import sys
import time
from collections.abc import Callable, Iterator

import click


class ProgressLine:
    """One line that is rewritten in place on a terminal and not printed anywhere else. Use as a context
    manager."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._text = ""

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._shown and text != self._text:
            self._text = text
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._text:
            click.echo("\r\x1b[K", nl=False, err=True)


@contextlib.contextmanager
def quiet_interrupt() -> Iterator[None]:
    """End what is inside at ^C as if it had come to its end: so one leaves a command that follows."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(err=True)


def bar(done: int, total: int | None, width: int = 24) -> str:
    """Return a bar of ``width`` characters; an empty text while the total is unknown."""
    if not total:
        return ""
    full = min(width, width * done // total)
    return "[" + "#" * full + "-" * (width - full) + "] "


def until(look: Callable[[], bool], *, timeout: float, every: float = 0.1) -> bool:
    """Call ``look`` until it is True or ``timeout`` seconds have passed; return whether it became True."""
    deadline = time.monotonic() + timeout
    while not look():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(every, left))
    return True


def until_gone(pidfd: int, *, timeout: float | None, tick: Callable[[float], None]) -> bool:
    """Wait for the end of a process; ``tick`` is called with the seconds passed, about twice a second."""
    began = time.monotonic()
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    while not poll.poll(500):
        passed = time.monotonic() - began
        tick(passed)
        if timeout is not None and passed >= timeout:
            return False
    return True
