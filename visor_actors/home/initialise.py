"""Making a home folder. What is there already is never touched, so a half-made home can be completed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from msgspec import Struct

from visor_actors.home.brands import DEFAULT_BRAND
from visor_actors.home.brands import brand as brand_of
from visor_actors.home.errors import HomeUnusable
from visor_actors.home.layout import CONFIG_NAMES, GENESIS, RUN_CONFIG_NAMES, Finding, HomeLayout
from visor_actors.home.templates import config_toml, run_config_toml

NEXT_VERSION = "vX.X.X"


class InitReport(Struct, frozen=True, kw_only=True):
    """What :func:`initialise` made and what it found and kept, as paths; ``findings`` are doubts about
    permissions.
    """

    created: tuple[Path, ...]
    kept: tuple[Path, ...]
    findings: tuple[Finding, ...] = ()


def initialise(root: Path, *, brand: str = DEFAULT_BRAND.name, with_data_node: bool = False) -> InitReport:
    """Make or complete the home ``root``: config.toml, ``genesis`` and ``vX.X.X`` with a run configuration
    each.

    Folders get mode 0755 and files 0600, whatever the umask; ``.visor`` gets 0700. Each file appears whole
    or not at all. Raises ValueError for a word that cannot be a brand and :class:`HomeUnusable` when the
    disk does not let it.
    """
    brand_ = brand_of(brand)
    created: list[Path] = []
    kept: list[Path] = []
    root = Path(os.path.abspath(root))
    try:
        for missing in _missing_parents(root):
            _folder(missing, created, kept)
        _file(root, CONFIG_NAMES, config_toml(brand_), created, kept)
        for name in (GENESIS, NEXT_VERSION):
            _folder(root / name, created, kept)
            text = run_config_toml(name, brand_, data_node=with_data_node)
            _file(root / name, RUN_CONFIG_NAMES, text, created, kept)
        layout = HomeLayout(root)
        fresh = not layout.visor_dir.exists()
        findings = layout.prepare_private()
        (created if fresh else kept).append(layout.visor_dir)
    except OSError as error:
        raise HomeUnusable(
            f"cannot make {error.filename or root}: {error.strerror}",
            next_step=f"Choose a folder that uid {os.geteuid()} may write to, on a disk with room.",
        ) from error
    return InitReport(created=tuple(created), kept=tuple(kept), findings=findings)


def _missing_parents(root: Path) -> list[Path]:
    missing = [folder for folder in root.parents if not os.path.lexists(folder)]
    return [*reversed(missing), root]


def _folder(path: Path, created: list[Path], kept: list[Path]) -> None:
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise
        kept.append(path)
    else:
        path.chmod(0o755)  # the umask has been applied to mkdir's own mode
        created.append(path)


def _file(folder: Path, names: tuple[str, ...], text: str, created: list[Path], kept: list[Path]) -> None:
    present = [folder / name for name in names if os.path.lexists(folder / name)]
    if present:
        kept.extend(present)
        return
    path = folder / names[0]
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=folder)  # mode 0600
    temporary = Path(name)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
        # link, not rename: it fails if somebody else has made the file in the meantime.
        os.link(temporary, path)
        created.append(path)
    except FileExistsError:
        kept.append(path)
    finally:
        temporary.unlink(missing_ok=True)
