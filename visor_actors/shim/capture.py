"""The binary's output in files: moved by the kernel, rotated at line ends, never in the binary's way."""

# ruff: noqa: SIM105  # contextlib.suppress would cost 1 MiB of memory in every shim

import errno
import fcntl
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from visor_actors.shim.lean import Record

LAST_LINES = 20
LAST_BYTES = 8 * 1024
PIPE_BYTES = 1024 * 1024


class Capture:
    """Moves the binary's output from the FIFO ``output`` to ``directory/name.log``, rotated at line ends.

    Nothing here may ever block the binary for long: what cannot be written is read all the same, dropped
    and counted.
    """

    def __init__(self, plan: "Record") -> None:
        self.path = os.path.join(str(plan["directory"]), str(plan["name"]) + ".log")
        self.max_bytes = max(1, int(plan["max_bytes"]))
        self.keep = max(0, int(plan["keep"]))
        self.dropped = 0  # since the last report
        self.dropped_total = 0
        self.problem = ""
        self._broken_until = 0.0
        self._mid_line = False  # the line under way lost its beginning
        self._captured = 0
        self._file = -1
        self._size = 0
        self._null = -1
        try:
            os.mkfifo("output", 0o600)
        except FileExistsError:
            pass
        # Open for reading and writing: no hang-up is ever seen, and data waits in the pipe while no binary
        # runs.
        self.fifo = os.open("output", os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.fcntl(self.fifo, 1031, PIPE_BYTES)  # F_SETPIPE_SZ
        except OSError:
            pass  # more than an unprivileged user may have: the default of 64 KiB works too

    def open_file(self) -> None:
        """Open the log file for appending; raise OSError if that is impossible."""
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o640)  # splice refuses O_APPEND
        self._size = os.lseek(self._file, 0, os.SEEK_END)

    def close(self) -> None:
        for fd in (self.fifo, self._file, self._null):
            if fd >= 0:
                os.close(fd)
        self.fifo = self._file = self._null = -1

    def move(self) -> int:
        """Move what is in the pipe now (1 MiB at most, more at a rotation); return the number of bytes
        taken from it.
        """
        if time.monotonic() < self._broken_until:
            return self._drop()
        try:
            if self._file >= 0 and not os.fstat(self._file).st_nlink:
                os.close(self._file)  # deleted: nobody would ever read what goes there
                self._file = -1
            if self._file < 0:
                self.open_file()
            if self._mid_line or self.dropped_since_write():
                return self._resume()
            if self._size >= self.max_bytes:
                return self._finish_line_and_rotate()
            moved = os.splice(
                self.fifo,
                self._file,
                min(PIPE_BYTES, self.max_bytes - self._size),
                flags=os.SPLICE_F_NONBLOCK,
            )
            self._size += moved
            self._captured += moved
            return moved
        except BlockingIOError:
            return 0
        except OSError as error:
            self._break(error)
            return self._drop()

    def drain(self) -> None:
        """Take what is left when the binary has ended; bounded, as something else may still write."""
        taken = 0
        while taken < 4 * PIPE_BYTES:
            moved = self.move()
            if not moved:
                return
            taken += moved

    def last_lines(self) -> "list[str]":
        """The last lines captured since this object was made."""
        want = min(LAST_BYTES, self._captured)
        tail = b""
        try:
            if want and self._file >= 0:
                tail = os.pread(self._file, min(want, self._size), max(0, self._size - want))
            if len(tail) < want:
                fd = os.open(self.path + ".1", os.O_RDONLY)
                try:
                    size = os.fstat(fd).st_size
                    missing = min(want - len(tail), size)
                    tail = os.pread(fd, missing, size - missing) + tail
                finally:
                    os.close(fd)
        except OSError:
            pass
        lines = tail.decode("utf-8", "replace").splitlines()
        if self._captured > len(tail) and len(lines) > 1:
            del lines[0]  # cut in the middle
        return lines[-LAST_LINES:]

    def dropped_since_write(self) -> bool:
        return bool(self._broken_until)

    def _break(self, error: OSError) -> None:
        self.problem = os.strerror(error.errno or 0)
        self._broken_until = time.monotonic() + 1.0
        if self._file >= 0:
            os.close(self._file)  # a deleted or moved folder: the next try opens anew
            self._file = -1

    def _count_dropped(self, number: int) -> None:
        self.dropped += number
        self.dropped_total += number

    def _drop(self) -> int:
        if self._null < 0:
            self._null = os.open("/dev/null", os.O_WRONLY)
        try:
            number = os.splice(self.fifo, self._null, PIPE_BYTES, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return 0
        self._mid_line = True
        self._count_dropped(number)
        return number

    def _resume(self) -> int:
        """After output was dropped: say so in the file, then go on at the beginning of a line."""
        if self.dropped_since_write():
            said = f"{self.dropped_total} bytes of output dropped here: {self.problem}"
            note = f"[visor-actors: {said}]\n".encode()
            if self._size and os.pread(self._file, 1, self._size - 1) != b"\n":
                note = b"\n" + note
            if os.write(self._file, note) < len(note):
                raise OSError(errno.ENOSPC, "")
            self._size += len(note)
            self._broken_until = 0.0
        if not self._mid_line:
            return 1
        data = os.read(self.fifo, 65536)
        self._mid_line = False
        rest = data.partition(b"\n")[2]
        self._count_dropped(len(data) - len(rest))
        self._write(rest)
        return len(data)

    def _finish_line_and_rotate(self) -> int:
        # Only once more output is there: an empty file would say nothing. Bounded, for what is read here is
        # copied.
        data = rest = os.read(self.fifo, min(65536, max(4096, self.max_bytes)))
        try:
            if os.pread(self._file, 1, self._size - 1) != b"\n":
                line, newline, rest = data.partition(b"\n")
                self._write(line + newline)
                if not newline and self._size < self.max_bytes + PIPE_BYTES:
                    return len(data)  # the line goes on; one longer than this is cut
            self._rotate()
        except OSError:
            self._lose(rest)
            raise
        self._write(rest)
        return len(data)

    def _lose(self, data: bytes) -> None:
        self._count_dropped(len(data))
        self._mid_line = True

    def _write(self, data: bytes) -> None:
        """Raises OSError; what could not be written is counted then."""
        while data:
            try:
                written = os.write(self._file, data)
            except OSError:
                self._lose(data)
                raise
            self._size += written
            self._captured += written
            data = data[written:]

    def _rotate(self) -> None:
        os.close(self._file)
        self._file = -1
        for number in range(self.keep, 0, -1):
            older = self.path if number == 1 else f"{self.path}.{number - 1}"
            try:
                os.rename(older, f"{self.path}.{number}")
            except FileNotFoundError:
                pass
        if not self.keep:
            os.unlink(self.path)
        self.open_file()
