"""Can this machine execute that file? Told from its first bytes, without running it, in words an operator
understands."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

# Numbers of the ELF specification (e_machine), with the names that the kernel gives the same machines.
_MACHINES = {
    3: "i686",
    21: "ppc64le",
    22: "s390x",
    40: "armv7l",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}
_ALSO_RUNS = {
    "x86_64": {"i686"},
    "aarch64": {"armv7l"},
    "armv8l": {"armv7l"},
    "armv6l": {"armv7l"},
    "i586": {"i686"},
}
_EXECUTABLE_TYPES = (2, 3)  # a fixed or a position-independent executable
_HEAD = 256


def architecture(path: Path) -> str | None:
    """The machine that the ELF executable ``path`` is for, as ``uname -m`` spells it; None when it is no ELF
    file.

    A machine without a name here is ``machine N``. Raises OSError when the file cannot be read.
    """
    with path.open("rb") as file:
        return _elf_machine(file.read(_HEAD))


def executable_problem(path: Path, *, machine: str | None = None) -> str | None:
    """Return why ``path`` cannot be executed on ``machine`` (default: this one), as a clause; None when
    nothing is seen.

    Reads the head of the file only. Never raises.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return "it is a folder" if stat.S_ISDIR(mode) else "it is no regular file"
        if not os.access(path, os.X_OK):
            return "it is not executable (chmod +x)"
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        return "it does not exist"
    except PermissionError:
        return None  # executable, yet not readable by us: the kernel will tell
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    return _head_problem(head, machine or os.uname().machine)


def _head_problem(head: bytes, machine: str) -> str | None:
    if not head:
        return "it is empty"
    if head.startswith(b"#!"):
        return _script_problem(head)
    if head.startswith(b"MZ"):
        return "it is a Windows program"
    if head[:4] in (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe"):
        return "it is a macOS program"
    if head.startswith(b"PK\x03\x04"):
        return "it is a zip archive, not yet unpacked"
    if head.startswith(b"\x1f\x8b"):
        return "it is a gzip archive, not yet unpacked"
    built_for = _elf_machine(head)
    if built_for is None:
        return "it is neither a program nor a script"
    if int.from_bytes(head[16:18], _byte_order(head)) not in _EXECUTABLE_TYPES:
        return "it is an object file, not a program"
    if built_for != machine and built_for not in _ALSO_RUNS.get(machine, ()):
        return f"it is built for {built_for}, and this machine is {machine}"
    return None


def _script_problem(head: bytes) -> str | None:
    line = head[2:].split(b"\n", 1)[0].strip()
    words = line.split(None, 1)
    if not words:
        return "it is a script that names no interpreter"
    interpreter = Path(os.fsdecode(words[0]))
    return None if interpreter.exists() else f"it is a script for {interpreter}, which does not exist"


def _elf_machine(head: bytes) -> str | None:
    if not head.startswith(b"\x7fELF") or len(head) < 20:
        return None
    number = int.from_bytes(head[18:20], _byte_order(head))
    return _MACHINES.get(number, f"machine {number}")


def _byte_order(head: bytes) -> Literal["big", "little"]:
    return "big" if head[5] == 2 else "little"
