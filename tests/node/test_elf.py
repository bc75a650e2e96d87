"""What kind of file is it, and can this machine execute it?"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from visor_actors.node.elf import architecture, executable_problem


def elf(machine: int, *, kind: int = 2, big_endian: bool = False) -> bytes:
    order = ">" if big_endian else "<"
    ident = b"\x7fELF" + bytes([2, 2 if big_endian else 1, 1]) + bytes(9)
    return ident + struct.pack(f"{order}HH", kind, machine) + bytes(44)


def executable(folder: Path, data: bytes) -> Path:
    path = folder / "node"
    path.write_bytes(data)
    path.chmod(0o755)
    return path


def test_this_machines_own_programs_can_be_executed() -> None:
    python = Path(sys.executable).resolve()
    assert architecture(python) == os.uname().machine
    assert executable_problem(python) is None
    assert executable_problem(Path("/bin/sh")) is None


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (elf(62), None),
        (elf(62, kind=3), None),
        (elf(3), None),
        (elf(183), "it is built for aarch64, and this machine is x86_64"),
        (elf(22, big_endian=True), "it is built for s390x, and this machine is x86_64"),
        (elf(999), "it is built for machine 999, and this machine is x86_64"),
        (elf(62, kind=1), "it is an object file, not a program"),
        (b"", "it is empty"),
        (b"\x7fELF", "it is neither a program nor a script"),
        (b"<html>Not Found</html>", "it is neither a program nor a script"),
        (b"MZ\x90\x00", "it is a Windows program"),
        (b"\xcf\xfa\xed\xfe\x07", "it is a macOS program"),
        (b"PK\x03\x04rest", "it is a zip archive, not yet unpacked"),
        (b"\x1f\x8b\x08", "it is a gzip archive, not yet unpacked"),
        (b"#!/bin/sh\n", None),
        (b"#! /bin/sh -e\n", None),
        (b"#!/nowhere/python3 -I\n", "it is a script for /nowhere/python3, which does not exist"),
        (b"#!\n", "it is a script that names no interpreter"),
    ],
)
def test_a_file_is_judged_by_its_first_bytes(tmp_path: Path, data: bytes, problem: str | None) -> None:
    assert executable_problem(executable(tmp_path, data), machine="x86_64") == problem


def test_what_is_no_executable_file_is_said(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(elf(62))
    plain.chmod(0o644)
    assert executable_problem(plain, machine="x86_64") == "it is not executable (chmod +x)"
    assert executable_problem(tmp_path / "none") == "it does not exist"
    assert executable_problem(tmp_path) == "it is a folder"
    os.mkfifo(tmp_path / "fifo")
    assert executable_problem(tmp_path / "fifo") == "it is no regular file"
    (tmp_path / "dangling").symlink_to("nowhere")
    assert executable_problem(tmp_path / "dangling") == "it does not exist"


def test_only_elf_files_have_an_architecture(tmp_path: Path) -> None:
    assert architecture(executable(tmp_path, b"#!/bin/sh\n")) is None
    assert architecture(executable(tmp_path, elf(183))) == "aarch64"
