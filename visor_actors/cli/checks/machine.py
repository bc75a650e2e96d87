"""Checks of the machine: disk, clock, limits, and the service unit."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from visor_actors.cli.checks.finding import Finding, note, ok, problem
from visor_actors.home.config import VisorConfig
from visor_actors.home.layout import HomeLayout

MIB = 1024 * 1024
_FEW_INODES = 10_000
_FEW_FILES = 65_536
_TIME_ERROR = 5
UNIT_FOLDERS = (
    Path("/etc/systemd/system"),
    Path("/usr/local/lib/systemd/system"),
    Path("/usr/lib/systemd/system"),
)


def check_machine(layout: HomeLayout, config: VisorConfig | None) -> Iterator[Finding]:
    """Disk space, clock and limits."""
    yield from _check_disk(layout, config)
    yield _check_clock()
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < _FEW_FILES:
        yield note(
            "limits", f"{files} open files are few for a node here", "LimitNOFILE=1048576 in its service"
        )


def _check_disk(layout: HomeLayout, config: VisorConfig | None) -> Iterator[Finding]:
    try:
        disk = os.statvfs(layout.root)
    except OSError as error:
        yield problem("disk", f"{layout.root}: {error.strerror}", "see that the file system is mounted")
        return
    if disk.f_flag & os.ST_RDONLY:
        yield problem("disk", f"the file system of {layout.root} is read-only", "mount it writable")
    free = disk.f_bavail * disk.f_frsize // MIB
    # A release is there twice for a moment: fetched and unpacked.
    enabled = config is not None and config.auto_install.enabled
    wanted = 1024 if enabled else 128
    if free < wanted:
        yield problem(
            "disk", f"{free} MiB are free in the home, {wanted} should be", "make room, or move old releases"
        )
    elif disk.f_files and disk.f_favail < _FEW_INODES:
        yield problem("disk", f"only {disk.f_favail} inodes are free", "remove files that are not needed")
    else:
        yield ok("disk", f"{free} MiB free in the home")


def _check_clock() -> Finding:
    """Ask the kernel whether somebody keeps its clock in step."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        state = libc.adjtimex(ctypes.create_string_buffer(512))  # all zero: only asks
    except (OSError, AttributeError):
        return note("clock", "the kernel does not tell whether the clock is in step", "see timedatectl")
    if state < 0:
        return note("clock", "the kernel does not tell whether the clock is in step", "see timedatectl")
    if state == _TIME_ERROR:
        return note("clock", "nothing keeps this machine's clock in step", "run chrony or systemd-timesyncd")
    return ok("clock", "in step")


def check_service(layout: HomeLayout) -> Iterator[Finding]:
    """The systemd unit of this home, where there is systemd."""
    if not any(folder.is_dir() for folder in UNIT_FOLDERS):
        return
    unit = _find_unit(layout.root, UNIT_FOLDERS)
    if unit is None:
        fix = f"visor-actors service install --home {layout.root}"
        yield note("service", "no systemd unit runs this home", fix)
        return
    path, settings = unit
    fix = "compare with visor-actors service print"
    wanted = (
        ("KillMode", "process", "systemd would kill the node along with a crashed visor"),
        ("OOMPolicy", "continue", "systemd would stop everything when the node runs out of memory"),
    )
    found = False
    for key, value, why in wanted:
        if settings.get(key) != value:
            found = True
            yield problem("service", f"{path.name} has no {key}={value}: {why}", fix)
    if settings.get("PrivateTmp", "no").lower() in ("yes", "true", "1", "on"):
        found = True
        why = "after a restart of the unit, visor cannot see a node's socket in the old /tmp"
        yield problem("service", f"{path.name} has PrivateTmp: {why}", "PrivateTmp=no")
    if not found:
        yield ok("service", f"{path.name} is set up as it should be")


def _find_unit(home: Path, folders: tuple[Path, ...]) -> tuple[Path, dict[str, str]] | None:
    for folder in folders:
        for path in sorted(folder.glob("*.service")):
            try:
                text = path.read_text(errors="replace")
            except OSError:
                continue
            lines = (line.partition("=") for line in text.splitlines())
            settings = {key.strip(): value.strip() for key, _, value in lines if not key.startswith("#")}
            start = settings.get("ExecStart", "")
            named = str(home) in start or f"VISOR_HOME={home}" in text
            if "visor-actors" in start and named:
                return path, settings
    return None
