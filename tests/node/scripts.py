"""Little programs that stand for a node's binary in a test."""

from __future__ import annotations

from pathlib import Path


def script(folder: Path, text: str, name: str = "node") -> Path:
    """Write an executable shell script and return its path."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def gone(pid: int) -> bool:
    """Whether no process of that pid runs any more; one that waits to be reaped by others does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")
