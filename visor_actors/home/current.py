"""The link ``current``: which folder runs. Read as one of a closed set of states, replaced atomically."""

from __future__ import annotations

import os
from pathlib import Path
from typing import assert_never

from msgspec import Struct

from visor_actors.home.errors import CurrentRefused, HomeUnusable
from visor_actors.home.layout import HomeLayout, is_folder_name

# Fixed, so that what a killed visor left behind is found and removed by the next.
_TEMPORARY = ".current.new"


class LinkMissing(Struct, frozen=True, kw_only=True):
    """There is no ``current``."""


class LinkDangling(Struct, frozen=True, kw_only=True):
    """The link's ``target`` does not exist. ``name`` is the folder it means, None where that is outside the
    home.
    """

    target: Path
    name: str | None


class RealFolder(Struct, frozen=True, kw_only=True):
    """``current`` is no link but a folder or file of its own, which nobody may replace unasked."""

    path: Path


class OutsideHome(Struct, frozen=True, kw_only=True):
    """The link leads to ``target``, which is no folder directly in the home."""

    target: Path


class LinkedTo(Struct, frozen=True, kw_only=True):
    """The link leads to the folder called ``name`` in the home; ``folder`` is its path."""

    name: str
    folder: Path


CurrentLink = LinkMissing | LinkDangling | RealFolder | OutsideHome | LinkedTo


def read_current(layout: HomeLayout) -> CurrentLink:
    """Say what ``current`` is. Blocks on the disk only. Raises :class:`HomeUnusable` if the home cannot be
    read.
    """
    try:
        text = os.readlink(layout.current)
    except FileNotFoundError:
        return LinkMissing()
    except OSError as error:
        if os.path.lexists(layout.current):
            return RealFolder(path=layout.current)
        raise HomeUnusable(
            f"cannot read {layout.current}: {error.strerror}", next_step=f"Let this user read {layout.root}."
        ) from error
    target = Path(os.path.normpath(layout.root / text))
    name = target.name
    # The original visor writes absolute links; the home may also be reached by another name than then.
    inside = is_folder_name(name) and _same_folder(target.parent, layout.root)
    if not target.is_dir():
        return LinkDangling(target=target, name=name if inside else None)
    return LinkedTo(name=name, folder=layout.root / name) if inside else OutsideHome(target=target)


def _same_folder(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def switch_current(layout: HomeLayout, folder_name: str) -> None:
    """Make ``current`` lead to ``folder_name`` (relative), atomically and durably: old or new, never neither.

    Safe to repeat. Blocks on the disk, for one fsync. Raises :class:`CurrentRefused` when a real folder is
    in the way or the folder to link to does not exist, :class:`HomeUnusable` when the home cannot be
    written.
    """
    if not is_folder_name(folder_name):
        raise CurrentRefused(f"{folder_name!r} is no folder name", next_step="Name a folder in the home.")
    if not (layout.root / folder_name).is_dir():
        raise CurrentRefused(
            f"there is no folder {layout.root / folder_name} to switch to",
            next_step=f"Provide {layout.root / folder_name} with a run configuration and the binaries.",
        )
    match read_current(layout):
        case RealFolder(path=path):
            raise CurrentRefused(
                f"{path} is not a link, and visor does not replace what it did not make",
                next_step=f"Move {path} away; visor makes the link itself.",
            )
        case LinkMissing() | LinkDangling() | OutsideHome() | LinkedTo():
            _replace(layout, folder_name)
        case other:
            assert_never(other)


def _replace(layout: HomeLayout, folder_name: str) -> None:
    try:
        root = os.open(layout.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                os.symlink(folder_name, _TEMPORARY, dir_fd=root)
            except FileExistsError:
                os.unlink(_TEMPORARY, dir_fd=root)
                os.symlink(folder_name, _TEMPORARY, dir_fd=root)
            os.rename(_TEMPORARY, layout.current.name, src_dir_fd=root, dst_dir_fd=root)
            os.fsync(root)
        finally:
            os.close(root)
    except OSError as error:
        raise HomeUnusable(
            f"cannot replace {layout.current}: {error.strerror}",
            next_step=f"Let this user write to {layout.root}, and see that the disk has room.",
        ) from error
