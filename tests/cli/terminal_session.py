"""A command on a pseudo-terminal, and the screen it would show: as much of a terminal as it takes."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Screen:
    """The text on a terminal after what was written to it. Knows home, clearing, and the ends of lines."""

    def __init__(self) -> None:
        self.lines: list[str] = [""]
        self._row = self._column = 0
        self.sequences: set[str] = set()

    def write(self, text: str) -> None:
        position = 0
        while position < len(text):
            match = _SEQUENCE.match(text, position)
            if match:
                self._control(match[1], match[2])
                position = match.end()
                continue
            self._character(text[position])
            position += 1

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).strip("\n")

    def _control(self, parameters: str, kind: str) -> None:
        self.sequences.add(kind)
        match kind:
            case "H":
                self._row = self._column = 0
            case "K":
                self.lines[self._row] = self.lines[self._row][: self._column]
            case "J" if parameters == "2":
                self.lines = [""] * len(self.lines)
            case "J":
                self.lines[self._row] = self.lines[self._row][: self._column]
                del self.lines[self._row + 1 :]
            case _:
                pass

    def _character(self, character: str) -> None:
        match character:
            case "\n":
                self._row += 1
                if self._row == len(self.lines):
                    self.lines.append("")
            case "\r":
                self._column = 0
            case _:
                line = self.lines[self._row].ljust(self._column)
                self.lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
                self._column += 1


class Session:
    """Runs ``visor-actors`` with ``arguments`` on a terminal of its own. Use as a context manager."""

    def __init__(self, home: Path, *arguments: str, **environment: str) -> None:
        self.screen = Screen()
        self.raw = ""
        self._reader, writer = pty.openpty()
        base = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "VISOR_HOME")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "visor_actors.cli", "--home", str(home), *arguments],
            stdin=writer,
            stdout=writer,
            stderr=writer,
            env={**base, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "50", **environment},
            start_new_session=True,
        )
        os.close(writer)

    def until(self, seen: Callable[[str], bool], seconds: float = 30.0) -> str:
        """Read until ``seen(screen text)``; return the text. Fails after ``seconds`` or at the end."""
        deadline = time.monotonic() + seconds
        while not seen(self.screen.text):
            left = deadline - time.monotonic()
            assert left > 0, f"waited in vain; the screen shows:\n{self.screen.text}"
            assert self._read(left), f"it ended; the screen shows:\n{self.screen.text}"
        return self.screen.text

    def finish(self, seconds: float = 30.0) -> int:
        """Read to the end; return the exit code."""
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            assert time.monotonic() < deadline, "it did not end"
        return self.process.wait(seconds)

    def interrupt(self) -> None:
        """Press ^C."""
        self.process.send_signal(signal.SIGINT)

    def _read(self, timeout: float) -> bool:
        ready, _, _ = select.select([self._reader], [], [], max(timeout, 0))
        if not ready:
            return True
        try:
            data = os.read(self._reader, 65536)
        except OSError:  # EIO: the other end was closed
            return False
        text = data.decode("utf-8", "replace")
        self.raw += text
        self.screen.write(text)
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._reader)
