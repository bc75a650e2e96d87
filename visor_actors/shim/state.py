"""What survives a shim: the files ``state.0`` and ``state.1``, written in turn."""

# ruff: noqa: SIM105  # contextlib.suppress would cost 1 MiB of memory in every shim

import os
import time

from visor_actors.shim.lean import decode, encode, note, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from visor_actors.shim.lean import Record

KEPT_EXITS = 64  # unacknowledged exits kept for a client that may come
RESERVED_BYTES = 16 * 1024  # of disk for each file: enough for the usual, so that a full disk does not matter
BINARY_FIELDS = (
    *("incarnation", "pid", "start_ticks", "boot_id", "executable", "argv", "started_at"),
    *("stopping", "image", "marker", "output"),
)


class State:
    """What has to be known to the next shim. It must survive a killed process, not a power cut: no fsync.

    Each file holds one JSON line with a serial number at both ends, and is overwritten in place. The valid
    one with the higher number counts: a write that was cut short leaves different numbers in one, and the
    other as it was. Replacing a file by rename would be simpler; on common file systems it costs 50 times
    as much, twice between a crash and the new start, and fails on a full disk.
    """

    def __init__(self) -> None:
        here = os.stat(".")
        self.folder = [here.st_dev, here.st_ino]  # keeps them when it is moved; a copy has others
        self.boot_id = read_text("/proc/sys/kernel/random/boot_id").strip()
        self.epoch = 0  # the highest of any client since the machine was booted
        self.incarnation = 0
        self.running: Record | None = None
        self.ended: Record | None = None  # the exit of `running` while leftovers remain
        self.exits: list[Record] = []
        self.exits_lost = 0
        self.dirty = False
        self._serial = 0
        self._files: list[int] = []

    def load(self) -> None:
        """Open the files, creating them where needed, and take over what they say. Raises OSError."""
        readable: list[Record] = []
        written = 0
        for name in ("state.0", "state.1"):
            fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
            self._files.append(fd)
            try:
                os.posix_fallocate(fd, 0, RESERVED_BYTES)
            except OSError:
                pass  # not possible here, or no room: then a full disk matters
            line = read_text(name).partition("\n")[0].strip("\0")
            if not line:
                continue
            written += 1
            try:
                readable.append(_checked(decode(line.encode("utf-8", "surrogateescape"))))
            except (ValueError, KeyError, TypeError) as error:
                note(f"{name} is not readable: {error!r}")
        if readable:
            self._take_over(max(readable, key=lambda saved: int(saved["serial"])))
        elif written:
            # The lock is still the gate. Numbering goes on where no number was used before.
            self.incarnation = int(time.time())

    def _take_over(self, saved: "Record") -> None:
        self._serial = saved["serial"]
        self.incarnation = saved["incarnation"]
        if saved["boot_id"] == self.boot_id:
            if saved.get("folder", self.folder) != self.folder:
                # What ran there is not ours to adopt, to end or to report: its own folder knows it. Where
                # that is gone, the locks that the binary holds are the gate.
                note("this folder is a copy of another slot's: what that one ran is left alone")
                return
            self.epoch = saved["epoch"]
        self.running, self.ended = saved["running"], saved["ended"]
        self.exits, self.exits_lost = saved["exits"], saved["exits_lost"]

    def save(self) -> None:
        """Raise OSError if it cannot be written; the state before is then still in the other file."""
        self.dirty = True
        serial = self._serial + 1
        data = encode(
            {
                "serial": serial,
                "boot_id": self.boot_id,
                "folder": self.folder,
                "epoch": self.epoch,
                "incarnation": self.incarnation,
                "running": self.running,
                "ended": self.ended,
                "exits": self.exits,
                "exits_lost": self.exits_lost,
                "end": serial,
            }
        )
        if os.pwrite(self._files[serial % 2], data, 0) < len(data):
            raise OSError(28, "No space left on device")
        self._serial = serial
        self.dirty = False

    def add_exit(self, record: "Record") -> None:
        self.exits.append(record)
        if len(self.exits) > KEPT_EXITS:
            del self.exits[0]
            self.exits_lost += 1


def _checked(saved: "Record") -> "Record":
    """Return ``saved`` if it is whole; raise ValueError, KeyError or TypeError if it is not."""
    numbers = [saved[name] for name in ("serial", "end", "epoch", "incarnation", "exits_lost")]
    if saved["serial"] != saved["end"] or not all(isinstance(number, int) for number in numbers):
        raise ValueError("not written to its end")
    running, ended = saved["running"], saved["ended"]
    if running is not None:
        pid, start_ticks, incarnation = (running[name] for name in ("pid", "start_ticks", "incarnation"))
        if not isinstance(pid + start_ticks + incarnation, int) or set(BINARY_FIELDS) - set(running):
            raise ValueError("not a binary")
    if ended is not None:
        ended["incarnation"]
    for record in saved["exits"]:
        record["incarnation"]
    return saved
