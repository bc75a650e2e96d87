"""Where everything is in a home folder, and whether the folder is fit to be trusted."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from msgspec import Struct

from visor_actors.home.errors import ConfigurationInvalid, HomeUnusable, Problem

CONFIG_NAMES = ("config.toml", "config.yaml")
RUN_CONFIG_NAMES = ("run-config.toml", "run-config.yaml")
GENESIS = "genesis"
CURRENT = "current"

# SQLite cannot open a path longer than 512 bytes; the longest suffix it appends to the journal's name is
# "-journal".
_LONGEST_ROOT = 512 - len("/.visor/journal.db-journal")
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,127}")


def is_folder_name(name: str) -> bool:
    """Whether ``name`` may name an upgrade folder: one plain path component that is not visor's own."""
    return _FOLDER_NAME.fullmatch(name) is not None and name not in (CURRENT, *CONFIG_NAMES)


def either(folder: Path, names: tuple[str, ...]) -> Path:
    """Return the one of ``names`` that exists in ``folder``; the first when none does.

    Raises :class:`ConfigurationInvalid` when several exist: nobody could tell which one is meant.
    """
    present = [folder / name for name in names if os.path.lexists(folder / name)]
    if len(present) > 1:
        found = " and ".join(path.name for path in present)
        problem = Problem(
            file=folder, found=found, allowed="only one of them may exist", suggestion="remove one"
        )
        raise ConfigurationInvalid((problem,))
    return present[0] if present else folder / names[0]


class Finding(Struct, frozen=True, kw_only=True):
    """Something doubtful about the permissions of ``path``, with what to do about it."""

    path: Path
    message: str
    next_step: str


class HomeLayout(Struct, frozen=True):
    """Names every path of the home folder ``root``. Looks at the disk only where a method says so."""

    root: Path

    @property
    def config_file(self) -> Path:
        """config.toml, or config.yaml where that exists. Looks; raises :class:`ConfigurationInvalid` if
        both do.
        """
        return either(self.root, CONFIG_NAMES)

    @property
    def current(self) -> Path:
        """The link to the folder that runs."""
        return self.root / CURRENT

    @property
    def genesis(self) -> Path:
        """The folder of the first start."""
        return self.root / GENESIS

    @property
    def visor_dir(self) -> Path:
        """What visor keeps for itself (0700)."""
        return self.root / ".visor"

    @property
    def journal(self) -> Path:
        """The SQLite file of upgrades and history."""
        return self.visor_dir / "journal.db"

    @property
    def lock(self) -> Path:
        """The lock that keeps a second visor out."""
        return self.visor_dir / "visor.lock"

    @property
    def socket(self) -> Path:
        """The control socket. May be longer than a socket address can hold: bind and connect through a
        folder's fd.
        """
        return self.visor_dir / "visor.sock"

    @property
    def shims(self) -> Path:
        """Parent of the shims' folders."""
        return self.visor_dir / "shims"

    def slot(self, name: str) -> Path:
        """The folder of one shim: lock, socket, state."""
        return self.shims / name

    @property
    def staging(self) -> Path:
        """Installs in progress; on the same file system as the upgrade folders."""
        return self.visor_dir / "staging"

    @property
    def logs(self) -> Path:
        """Output of the binaries, when it is kept in files."""
        return self.visor_dir / "logs"

    def folder(self, version: str) -> Path:
        """The upgrade folder called ``version``. Raises ValueError for anything but one plain path
        component.
        """
        if not is_folder_name(version):
            raise ValueError(f"{version!r} cannot name an upgrade folder")
        return self.root / version

    def prepare_private(self) -> tuple[Finding, ...]:
        """Create ``.visor`` and its folders (0700) and say what is doubtful about owners and modes.

        Raises :class:`HomeUnusable` when the home is absent, no folder, or cannot be written.
        """
        if not self.root.is_dir():
            raise HomeUnusable(
                f"{self.root} is not a folder",
                next_step=f"Create it with `visor-actors init --home {self.root}`, or name another.",
            )
        try:
            for folder in (self.visor_dir, self.shims, self.staging, self.logs):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise HomeUnusable(
                f"cannot create {self.visor_dir}: {error.strerror}",
                next_step=f"Let uid {os.geteuid()} write to {self.root}, and see that the disk has room.",
            ) from error
        return self.inspect()

    def inspect(self) -> tuple[Finding, ...]:
        """Say what is doubtful about owners, modes and the length of the path. Changes nothing, never
        raises.
        """
        findings: list[Finding] = []
        if len(os.fsencode(self.root)) > _LONGEST_ROOT:
            findings.append(
                Finding(
                    path=self.root,
                    message=f"the path has more than {_LONGEST_ROOT} bytes: SQLite cannot open the journal",
                    next_step="Move the home to a shorter path.",
                )
            )
        for path in (self.root, self.visor_dir, *self._config_files()):
            findings.extend(_doubts(path, private=path == self.visor_dir))
        return tuple(findings)

    def _config_files(self) -> list[Path]:
        return [self.root / name for name in CONFIG_NAMES if (self.root / name).exists()]


def _doubts(path: Path, *, private: bool) -> list[Finding]:
    try:
        status = path.stat()
    except OSError:
        return []
    findings: list[Finding] = []
    mode = stat.S_IMODE(status.st_mode)
    # Root may own what an unprivileged visor only reads; anybody else could swap what visor executes.
    if status.st_uid not in (os.geteuid(), 0):
        findings.append(
            Finding(
                path=path,
                message=f"belongs to uid {status.st_uid}, visor runs as uid {os.geteuid()}",
                next_step=f"chown {os.geteuid()} {path}",
            )
        )
    if private and mode & 0o077:
        findings.append(
            Finding(path=path, message=f"mode {mode:04o} lets others in", next_step=f"chmod 0700 {path}")
        )
    elif not private and mode & 0o022:
        findings.append(
            Finding(path=path, message=f"mode {mode:04o} lets others write", next_step=f"chmod go-w {path}")
        )
    return findings
