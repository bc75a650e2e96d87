"""Is this folder ready to run? Asked of upgrade folders, by whoever made them, without network.

Cheap to import: main asks it about folders that an operator provided, the installer job about what it has
staged.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderProblem:
    """One thing that keeps a folder from being run, and what to do about it."""

    what: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderReport:
    """What :func:`check_folder` found. ``version`` is what the core binary says of itself, None while
    unknown.
    """

    problems: tuple[FolderProblem, ...]
    version: str | None = None

    @property
    def ready(self) -> bool:
        """Whether the folder can be run."""
        return not self.problems
