"""What a simulated release server holds and what it remembers: plain data."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """One request. ``server`` is ``interface`` or ``store``; header names are in lower case."""

    server: str
    path: str
    headers: Mapping[str, str]
    status: int


@dataclass(slots=True, kw_only=True)
class SimulatedAsset:
    """One file of a release: ``path`` or, without one, ``content``. ``size`` and ``digest`` are what is
    listed.
    """

    id: int
    name: str
    path: Path | None
    content: bytes
    digest: str | None
    content_type: str
    state: str
    version: int = 1
    size: int = 0

    @property
    def etag(self) -> str:
        """The entity tag of the content as it is now."""
        return f'"{self.id}-{self.version}-{self.size}"'

    def open(self) -> BinaryIO:
        """Open the content for reading."""
        if self.path is not None:
            return self.path.open("rb")
        return io.BytesIO(self.content)


@dataclass(slots=True, kw_only=True)
class SimulatedRelease:
    """One release and its files by name."""

    id: int
    tag: str
    draft: bool
    prerelease: bool
    assets: dict[str, SimulatedAsset] = field(default_factory=dict)
