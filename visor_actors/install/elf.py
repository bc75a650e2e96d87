"""What kind of executable a file is: enough of the ELF header to tell the architecture, without running
anything.
"""

from __future__ import annotations

import enum
import struct
from pathlib import Path

from msgspec import Struct

# e_machine numbers as the ELF specification assigns them, spelled the way releases spell architectures.
_MACHINES = {
    3: "386",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "amd64",
    183: "arm64",
    243: "riscv64",
    258: "loong64",
}
_EXECUTABLE_TYPES = (2, 3)  # ET_EXEC, and ET_DYN for position-independent executables
_HEADER = 20


class ExecutableKind(enum.Enum):
    """What the first bytes say. ``FOREIGN`` is an executable of another operating system."""

    ELF = "elf"
    SCRIPT = "script"
    FOREIGN = "foreign"
    UNKNOWN = "unknown"


class ExecutableInfo(Struct, frozen=True, kw_only=True):
    """``architecture`` is None for anything but ELF; ``what`` is a phrase for messages."""

    kind: ExecutableKind
    what: str
    architecture: str | None = None


def describe_executable(path: Path) -> ExecutableInfo:
    """Read the header of ``path``. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        return describe_header(file.read(64))


def describe_header(head: bytes) -> ExecutableInfo:
    """Tell from the first 64 bytes what kind of executable they begin."""
    if head.startswith(b"#!"):
        return ExecutableInfo(kind=ExecutableKind.SCRIPT, what="a script")
    if head.startswith(b"MZ"):
        return ExecutableInfo(kind=ExecutableKind.FOREIGN, what="a Windows executable")
    if head[:4] in (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe"):
        return ExecutableInfo(kind=ExecutableKind.FOREIGN, what="a macOS executable")
    if not head.startswith(b"\x7fELF"):
        return ExecutableInfo(kind=ExecutableKind.UNKNOWN, what="not an executable" if head else "empty")
    if len(head) < _HEADER or head[5] not in (1, 2):
        return ExecutableInfo(kind=ExecutableKind.UNKNOWN, what="a damaged ELF file")
    order = "<" if head[5] == 1 else ">"
    file_type, machine = struct.unpack(f"{order}HH", head[16:20])
    architecture = _MACHINES.get(machine, f"machine {machine}")
    if machine == 21 and order == "<":
        architecture = "ppc64le"
    if file_type not in _EXECUTABLE_TYPES:
        return ExecutableInfo(kind=ExecutableKind.UNKNOWN, what="an ELF file that is no executable")
    return ExecutableInfo(
        kind=ExecutableKind.ELF, what=f"an ELF executable for {architecture}", architecture=architecture
    )
