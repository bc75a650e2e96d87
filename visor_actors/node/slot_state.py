"""What a shim has saved of its slot, read without asking the shim: for when no visor runs."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from visor_actors.node import shim_wire
from visor_actors.node.custody_types import RunningBinary

STATE_FILES = ("state.0", "state.1")


def recorded_binary(slot_dir: Path) -> RunningBinary | None:
    """Return the binary that was running when the shim of ``slot_dir`` saved its state last; None if there
    is none.

    It may have ended since, if its shim died before: whether anything of it lives, the slot's lock tells.
    Files that cannot be read, or were not written to their end, count as absent. Raises nothing, takes no
    lock.
    """
    newest, found = -1, None
    for name in STATE_FILES:
        try:
            line = (slot_dir / name).read_bytes().partition(b"\n")[0].strip(b"\0")
            saved = json.loads(line)
            serial = int(saved["serial"])
            if serial != saved["end"] or serial <= newest:
                continue
            running = saved["running"]
            fields = None if running is None else {"adopted": False} | running
            newest, found = serial, None if fields is None else shim_wire.parse_binary(fields)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def was_ever_saved(slot_dir: Path) -> bool:
    """Whether a shim has saved anything of this slot since it was made. Raises nothing.

    A shim that comes up makes the files at once, empty or all zeros; it writes in them when a visor attaches.
    """
    for name in STATE_FILES:
        with contextlib.suppress(OSError), (slot_dir / name).open("rb") as file:
            if file.read(1) not in (b"", b"\0"):
                return True
    return False
