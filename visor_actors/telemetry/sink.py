"""Writing lines to a file descriptor that may be slow, full or gone, without ever waiting for it for long."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

# A pipe that polls as writable takes this much without blocking; what is longer is written in pieces.
_PIECE = select.PIPE_BUF
_BACKLOG_BYTES = 256 * 1024
_FOREVER_GONE = (errno.EPIPE, errno.EBADF, errno.ECONNRESET, errno.ENOTCONN, errno.EIO)


class LineSink:
    """Writes whole lines to ``fd``, which it does not own. Any thread may write; lines never mix.

    A reader that has stopped costs a writer at most ``patience`` seconds once, and nothing more until it
    reads again: up to 256 KiB of lines wait, older ones are dropped, and how many is said as soon as the
    descriptor takes lines again. A full disk drops the line it happens on. A closed pipe ends the output
    for good; the process goes on.
    """

    def __init__(
        self, fd: int, *, patience: float = 0.05, note: Callable[[int], bytes] | None = None
    ) -> None:
        self._fd = fd
        self._patience = patience
        self._note = note
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._stuck = False
        # Where lines begin matters: a note may go between two of them, never into one.
        self._partly_written = False
        self._unsaid = 0
        self._saying = 0
        self.dropped = 0
        """Lines that nobody will ever see."""
        self.gone = False
        """Whether the other side has closed for good."""

    def write(self, line: bytes) -> None:
        """Write ``line``, which ends with a newline, now or as soon as there is room. Never raises."""
        with self._lock:
            if self.gone:
                self.dropped += 1
                return
            self._push(line)
            self._drain(0.0 if self._stuck else self._patience)

    def flush(self, timeout: float) -> bool:
        """Try for ``timeout`` seconds to write what waits; True when nothing does any more."""
        with self._lock:
            self._drain(timeout)
            return not self._waiting

    def _push(self, line: bytes) -> None:
        self._waiting.append(line)
        self._bytes += len(line)
        # The first one may have been written in part, or be a note: it stays.
        while self._bytes > _BACKLOG_BYTES and len(self._waiting) > 2:
            self._bytes -= len(self._waiting[1])
            del self._waiting[1]
            self._drop()

    def _drop(self) -> None:
        self.dropped += 1
        self._unsaid += 1

    def _drain(self, timeout: float) -> None:
        deadline = monotonic() + timeout
        while self._waiting and not self.gone:
            self._stuck = not self._writable(max(0.0, deadline - monotonic())) or not self._write_some()
            if self._stuck:
                return

    def _writable(self, timeout: float) -> bool:
        poller = select.poll()
        poller.register(self._fd, select.POLLOUT)
        return bool(poller.poll(timeout * 1000))

    def _write_some(self) -> bool:
        if self._unsaid and not self._partly_written and not self._saying and self._note is not None:
            self._saying, self._unsaid = self._unsaid, 0
            self._waiting.appendleft(self._note(self._saying))
            self._bytes += len(self._waiting[0])
        line = self._waiting[0]
        try:
            written = os.write(self._fd, line[:_PIECE])
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _FOREVER_GONE:
                self._give_up()
                return False
            self._lose_first()
            return True
        self._bytes -= written
        if written < len(line):
            self._waiting[0] = line[written:]
            self._partly_written = True
        else:
            self._waiting.popleft()
            self._partly_written = False
            self._saying = 0
        return True

    def _lose_first(self) -> None:
        """A full disk, a quota: the first line is lost, and so is a note that was to precede it, until
        later."""
        if self._saying:
            self._bytes -= len(self._waiting.popleft())
            self._unsaid, self._saying = self._saying, 0
        if self._waiting:
            self._bytes -= len(self._waiting.popleft())
            self._drop()
        self._partly_written = False

    def _give_up(self) -> None:
        self.gone = True
        self.dropped += len(self._waiting) - (1 if self._saying else 0)
        self._waiting.clear()
        self._bytes = 0
