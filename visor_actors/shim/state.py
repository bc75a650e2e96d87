"""What survives a shim: ``state.json``."""

import os
import time

from visor_actors.shim.lean import decode, encode, note, read_text, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from visor_actors.shim.lean import Record

KEPT_EXITS = 64  # unacknowledged exits kept for a client that may come


class State:
    """``state.json``: replaced by rename, without fsync: it must survive a kill, not a power cut."""

    def __init__(self) -> None:
        self.boot_id = read_text("/proc/sys/kernel/random/boot_id").strip()
        self.epoch = (
            0  # the highest any client had since the machine was booted: no client is older than that
        )
        self.incarnation = 0
        self.running: Record | None = None
        self.ended: Record | None = None  # the exit of `running` while leftovers remain
        self.exits: list[Record] = []
        self.exits_lost = 0
        self.dirty = False

    def load(self) -> None:
        try:
            saved = decode(read_text("state.json").encode("utf-8", "surrogateescape"))
            self.epoch = int(saved["epoch"]) if saved["boot_id"] == self.boot_id else 0
            self.incarnation = int(saved["incarnation"])
            self.exits_lost = int(saved["exits_lost"])
            self.exits = [dict(exit_record) for exit_record in saved["exits"]]
            self.ended = None if saved["ended"] is None else dict(saved["ended"])
            self.running = None if saved["running"] is None else dict(saved["running"])
            if self.running is not None:
                for key in ("pid", "start_ticks", "incarnation"):
                    self.running[key] = int(self.running[key])
                for key in (
                    "boot_id",
                    "executable",
                    "argv",
                    "started_at",
                    "stopping",
                    "image",
                    "marker",
                    "output",
                ):
                    self.running[key]  # one that is missing makes the whole unreadable
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Unreadable: the lock is still the gate. Numbering goes on where no number was used before.
            note(f"state.json set aside: {error!r}")
            self.__init__()  # type: ignore[misc]  # a fresh start is what is meant
            self.incarnation = int(time.time())
            if os.path.exists("state.json"):
                os.rename("state.json", "state.bad")

    def save(self) -> None:
        """Raise OSError if it cannot be written; the earlier state is then still in place."""
        data = encode(
            {
                "boot_id": self.boot_id,
                "epoch": self.epoch,
                "incarnation": self.incarnation,
                "running": self.running,
                "ended": self.ended,
                "exits": self.exits,
                "exits_lost": self.exits_lost,
            }
        )
        self.dirty = True
        fd = os.open("state.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            write_all(fd, data)
        finally:
            os.close(fd)
        os.rename("state.new", "state.json")
        self.dirty = False

    def add_exit(self, record: "Record") -> None:
        self.exits.append(record)
        if len(self.exits) > KEPT_EXITS:
            del self.exits[0]
            self.exits_lost += 1
