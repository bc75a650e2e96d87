"""The folders of a home that hold something to run."""

from __future__ import annotations

from pathlib import Path

from visor_actors.home.layout import RUN_CONFIG_NAMES, HomeLayout, is_folder_name


def run_folders(layout: HomeLayout) -> tuple[Path, ...]:
    """Return every folder of the home with a run configuration in it, by name. Raises OSError."""
    if not layout.root.is_dir():
        return ()
    return tuple(
        folder
        for folder in sorted(layout.root.iterdir())
        if is_folder_name(folder.name)
        and folder.is_dir()
        and any((folder / name).exists() for name in RUN_CONFIG_NAMES)
    )
