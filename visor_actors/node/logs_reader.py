"""Reading the logs that a shim writes: the last lines over all rotated files, and what comes next."""

from __future__ import annotations

import glob
import itertools
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_BLOCK = 65536
_LOOKS = 20


def log_path(directory: Path, name: str) -> Path:
    """The file that is being written for the binary ``name``. ``.1`` is the newest rotated one."""
    return directory / f"{name}.log"


def rotated_files(path: Path) -> list[Path]:
    """The files of the log ``path`` that exist, newest first."""
    numbers = []
    for file in path.parent.glob(f"{glob.escape(path.name)}.*"):
        suffix = file.name.removeprefix(f"{path.name}.")
        if suffix.isdecimal():
            numbers.append(int(suffix))  # a shim killed in the middle of a rotation leaves a gap
    files = [path] if path.exists() else []
    return files + [path.with_name(f"{path.name}.{number}") for number in sorted(numbers)]


def last_lines(path: Path, count: int, *, end: int | None = None) -> list[bytes]:
    """Return the last ``count`` lines of the log ``path``, without line ends, reaching into rotated files.

    ``end`` limits what is read of the newest file. A last line without its end counts. A file that vanishes
    meanwhile ends the search; an absent log has no lines.
    """
    blocks: list[bytes] = []
    newlines = 0
    for file in rotated_files(path) if count > 0 else []:
        try:
            with file.open("rb") as stream:
                position = stream.seek(0, os.SEEK_END)
                if end is not None:
                    position, end = min(position, end), None
                while position > 0 and newlines <= count:
                    start = max(0, position - _BLOCK)
                    stream.seek(start)
                    block = stream.read(position - start)
                    newlines += block.count(b"\n")
                    blocks.append(block)
                    position = start
        except FileNotFoundError:
            break
        if newlines > count:
            break
    lines = b"".join(reversed(blocks)).split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return lines[-count:] if count > 0 else []


class LogFollower:
    """Reads what is appended to the log ``path`` from now on, through rotations. Belongs to one thread.

    ``lines`` first returns the last ``lines`` lines. The file need not exist yet. Nothing blocks: the
    caller decides how often to call :meth:`read`. No line is lost unless the log is rotated more than
    ``keep`` times between two calls.
    """

    def __init__(self, path: Path, *, lines: int = 0) -> None:
        self._path = path
        self._fd = -1
        self._position = 0
        self._partial = b""
        self._waiting: list[bytes] = []
        self._start(lines)

    def read(self) -> list[bytes]:
        """Return the complete lines that have come since the last call, without line ends."""
        found, self._waiting = self._waiting, []
        found.extend(self._drain())
        successors = self._open_successors()
        if successors:
            # What was written to ours between the last look and its rotation belongs before the new ones.
            found.extend(self._drain())
        for fd in successors:
            self.close()
            self._fd, self._position = fd, 0
            found.extend(self._drain())
        return found

    def close(self) -> None:
        """Close the file. May be called more than once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, lines: int) -> None:
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        self._position = os.fstat(self._fd).st_size
        self._waiting = last_lines(self._path, lines, end=self._position)
        if self._position and os.pread(self._fd, 1, self._position - 1) != b"\n":
            # A line under way is shown once, when it is complete; its beginning is not known without
            # ``lines``.
            self._partial = self._waiting.pop() if self._waiting else b""

    def _open_successors(self) -> list[int]:
        """Open the files that were begun after the one that is open, oldest first."""
        if self._fd < 0:
            return self._look()[0][::-1]  # there was no log: all there is now is new
        for _ in range(_LOOKS):
            newer, met_ours = self._look()
            if met_ours:
                return newer[::-1]
            for fd in newer:
                os.close(fd)
            time.sleep(0.001)
        # Ours was deleted. Of what is there only the present file is sure to follow on.
        newer, _ = self._look()
        for fd in newer[1:]:
            os.close(fd)
        return newer[:1]

    def _look(self) -> tuple[list[int], bool]:
        """Open what is newer than the open file, newest first; say whether that one was met.

        A rotation under way shifts the names while we look from the newest to the oldest: we may see a file
        twice or a gap before ours, but never miss one. So files are told apart by what they are and not by
        name.
        """
        known = {_identity(self._fd)} if self._fd >= 0 else set()
        newer: list[int] = []
        for number in itertools.count():
            name = f"{self._path.name}.{number}" if number else self._path.name
            try:
                fd = os.open(self._path.with_name(name), os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                break
            file = _identity(fd)
            if file not in known:
                known.add(file)
                newer.append(fd)
                continue
            os.close(fd)
            if self._fd >= 0 and file == _identity(self._fd):
                return newer, True
        return newer, False

    def _drain(self) -> list[bytes]:
        if self._fd < 0:
            return []
        if os.fstat(self._fd).st_size < self._position:
            self._position, self._partial = 0, b""  # truncated by somebody
        data = [self._partial]
        while block := os.pread(self._fd, _BLOCK, self._position):
            self._position += len(block)
            data.append(block)
        *lines, self._partial = b"".join(data).split(b"\n")
        return lines


def _identity(fd: int) -> tuple[int, int]:
    """What makes the open file ``fd`` the same file under any name."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
