"""Proves while a test runs that no binary of a node lives twice.

A thread looks every ten milliseconds. It lists the processes only if the kernel has given out a pid since the
last look, and then looks only at those that are new or known to be a node, because only those can be, or
become, a copy: a few hundredths of a core on a busy machine. A process is a copy of a node's binary if its
command line names a home below the watched folder and the verb ``start`` or ``node``. What a node forks off
has the node's command line too; the node's own records name it, and it is not counted.

What lives shorter than the gap between two looks is seen from the other side: the simulated node's database
lock refuses a second copy and writes that down, and its chain shows what two of them did.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from visor_actors.simulator import read_records

LOOK_SECONDS = 0.01
YOUNG_SECONDS = 1.0
"""For how long a process that is no node is looked at again: by then it is what it was started for."""
EVERYBODY_SECONDS = 1.0
"""How often all processes are looked at again: an old one, a wrapper say, may become a node as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One process that runs a node's binary."""

    pid: int
    home: str
    role: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Two copies that were alive at the same moment."""

    first: Copy
    second: Copy

    def __str__(self) -> str:
        words = [f"pid {copy.pid}: {' '.join(copy.argv)}" for copy in (self.first, self.second)]
        return f"two copies of the {self.first.role} of {self.first.home} at once: {' and '.join(words)}"


def command_of(pid: int) -> tuple[str, ...]:
    """The command line of ``pid``; empty for a zombie, for what has ended, and for the kernel's own."""
    try:
        fd = os.open(f"/proc/{pid}/cmdline", os.O_RDONLY)
    except OSError:
        return ()
    try:
        return tuple(os.fsdecode(os.read(fd, 65536)).split("\0")[:-1])
    except OSError:
        return ()
    finally:
        os.close(fd)


def copy_of(pid: int, argv: tuple[str, ...], below: str) -> Copy | None:
    """What ``pid`` is a copy of, None if it is no node of a home below ``below``."""
    verb = next((index for index, word in enumerate(argv) if word in ("start", "node")), None)
    if verb is None:
        return None
    before, after = argv[:verb], argv[verb + 1 :]
    home = next((word.partition("=")[2] for word in after if word.startswith("--home=")), None)
    if home is None and "--home" in after[:-1]:
        home = after[after.index("--home") + 1]
    if home is None or not home.startswith(below):
        return None
    data_node = "datanode" in before or any(Path(word).name.startswith("data-node") for word in before)
    return Copy(pid=pid, home=home, role="data_node" if data_node else "core", argv=argv)


class CopyWatch:
    """Looks from :meth:`start` to :meth:`stop`; then :attr:`overlaps` are what must not be.

    ``looks`` counts them and ``longest_gap`` is the longest time between two, in seconds: what was proved
    depends on both.
    """

    def __init__(self, below: Path) -> None:
        self._below = str(below)
        self._young: dict[str, float] = {}  # since when
        self._known: set[str] = set()  # what needs no look: copies, and what is none and no longer young
        self._copies: dict[int, Copy] = {}
        self._seen: dict[frozenset[int], Overlap] = {}
        self._load = -1
        self._newest = b""  # the pid given out last
        self._ended = threading.Event()
        self._everybody_at = time.monotonic() + EVERYBODY_SECONDS
        self._thread = threading.Thread(target=self._run, name="copy-watch", daemon=True)
        self.looks = 0
        self.longest_gap = 0.0
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    @property
    def overlaps(self) -> tuple[Overlap, ...]:
        """Every pair of copies that lived at the same moment."""
        forked = self._forked()
        return tuple(
            overlap
            for overlap in self._seen.values()
            if overlap.first.pid not in forked and overlap.second.pid not in forked
        )

    def _forked(self) -> set[int]:
        homes = {overlap.first.home for overlap in self._seen.values()}
        return {
            int(record.details["helper"])
            for home in homes
            for record in read_records(Path(home), event="helper")
        }

    def _run(self) -> None:
        last = time.monotonic()
        self._load = os.open("/proc/loadavg", os.O_RDONLY)
        try:
            while not self._ended.wait(LOOK_SECONDS):
                self.look()
                now = time.monotonic()
                self.looks += 1
                self.longest_gap = max(self.longest_gap, now - last)
                last = now
        except BaseException as error:
            self.failure = error  # a watch that is blind must not look like one that saw nothing
        finally:
            os.close(self._load)

    def look(self) -> None:
        """Look once."""
        now = time.monotonic()
        newest = os.pread(self._load, 256, 0).rpartition(b" ")[2]
        if now >= self._everybody_at:
            self._everybody_at = now + EVERYBODY_SECONDS
            listed = set(os.listdir("/proc"))
            self._known &= listed
            self._young = {name: since for name, since in self._young.items() if name in listed}
            unknown = {name for name in listed if name.isdigit() and int(name) not in self._copies}
        elif newest != self._newest:
            unknown = set(os.listdir("/proc")) - self._known
        else:
            unknown = set(self._young)
        self._newest = newest
        for name in unknown:
            self._examine(name, now)
        if len(self._copies) > 1:
            self._compare()
        for pid in [pid for pid in self._copies if not command_of(pid)]:
            del self._copies[pid]
            self._known.discard(str(pid))

    def _examine(self, name: str, now: float) -> None:
        if not name.isdigit():
            self._known.add(name)
            return
        found = copy_of(int(name), command_of(int(name)), self._below)
        if found is not None:
            self._copies[found.pid] = found
        if found is not None or now - self._young.setdefault(name, now) > YOUNG_SECONDS:
            self._known.add(name)
            self._young.pop(name, None)

    def _compare(self) -> None:
        by_binary: dict[tuple[str, str], Copy] = {}
        for copy in self._copies.values():
            other = by_binary.setdefault((copy.home, copy.role), copy)
            if other is copy:
                continue
            # First the one, then the other, then the one again: if it is still there, both were at once.
            if command_of(other.pid) and command_of(copy.pid) and command_of(other.pid):
                pair = frozenset((other.pid, copy.pid))
                self._seen.setdefault(pair, Overlap(first=other, second=copy))
            elif command_of(copy.pid):
                by_binary[copy.home, copy.role] = copy
