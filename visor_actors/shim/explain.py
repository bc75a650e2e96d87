"""Why a binary could not be started, in words."""

# contextlib.suppress would cost 1 MiB of memory in every shim

import errno
import os


class Refusal(Exception):
    """A start that cannot be carried out: kind, problem and next step in words."""

    def __init__(self, kind: str, problem: str, next_step: str) -> None:
        super().__init__(problem)
        self.kind = kind
        self.problem = problem
        self.next_step = next_step


def explain_exec(path: str, number: int, reason: str) -> Refusal:
    """Say why executing ``path`` failed with errno ``number`` (``reason``): look at what is there."""
    head = b""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            head = os.read(fd, 65536)
        finally:
            os.close(fd)
    except OSError:
        pass
    if number == errno.ENOENT and not os.path.exists(path):
        return Refusal("executable-missing", f"{path} does not exist", "install it or correct `path`")
    interpreter = interpreter_of(head)
    if interpreter is not None and not os.access(interpreter, os.X_OK):
        return Refusal(
            "interpreter-missing",
            f"{path} needs {interpreter} to run, which is missing or not executable here",
            "install it, or use a binary built for this system",
        )
    machine = machine_of(head)
    own = machine_of(read_head("/proc/self/exe"))
    if machine and own and machine != own:
        return Refusal(
            "wrong-architecture",
            f"{path} is built for {MACHINES.get(machine, machine)}, this machine is {MACHINES.get(own, own)}",
            "install the binary for this machine's architecture",
        )
    if os.path.isdir(path):
        return Refusal("not-executable", f"{path} is a folder", "give the path of the binary")
    if number == errno.EACCES and os.path.exists(path) and not os.access(path, os.X_OK):
        return Refusal("not-executable", f"{path} is not executable", f"chmod +x {path}")
    if number == errno.EACCES and os.path.exists(path) and os.statvfs(path).f_flag & 8:  # ST_NOEXEC
        return Refusal(
            "not-executable", f"{path} is on a noexec file system", "move it or mount it with exec"
        )
    if number == errno.ENOEXEC:
        what = "is empty" if not head else "is neither a binary for this machine nor a script with a #! line"
        return Refusal("not-executable", f"{path} {what}", "install the binary again")
    if number in (errno.EACCES, errno.EPERM):
        return Refusal("permission", f"{path}: {reason}", "check the permissions of the file and its folders")
    if number == errno.E2BIG:
        return Refusal("invalid", f"{path}: arguments and environment are too long", "shorten them")
    return Refusal("resources", f"{path}: {reason}", "check memory, limits and the file system")


MACHINES = {
    3: "x86",
    40: "arm",
    62: "x86-64",
    183: "arm64",
    243: "risc-v",
    21: "ppc64",
    22: "s390x",
    8: "mips",
}


def read_head(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(fd, 64)
    finally:
        os.close(fd)


def machine_of(head: bytes) -> int:
    """The machine number of an ELF file's head (its two bytes at 18); 0 if it is no ELF file."""
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return 0
    return int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")


def interpreter_of(head: bytes) -> "str | None":
    """The program that a script (``#!``) or a 64-bit ELF file (PT_INTERP) names to run it."""
    if head[:2] == b"#!":
        words = head[2:].partition(b"\n")[0].split()
        return os.fsdecode(words[0]) if words else ""
    if head[:5] != b"\x7fELF\x02" or head[5:6] != b"\x01" or len(head) < 64:
        return None
    table = int.from_bytes(head[32:40], "little")
    size, count = int.from_bytes(head[54:56], "little"), int.from_bytes(head[56:58], "little")
    for start in range(table, table + size * count, size or 56):
        entry = head[start : start + 56]
        if len(entry) == 56 and entry[:4] == b"\x03\0\0\0":
            offset, length = int.from_bytes(entry[8:16], "little"), int.from_bytes(entry[32:40], "little")
            name = head[offset : offset + length].rstrip(b"\0")
            return os.fsdecode(name) if name else None
    return None
