from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.harness import Nodes
from visor_actors.simulator import build_binary


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One executable of each version."""
    folder = tmp_path_factory.mktemp("releases")
    return {
        version: build_binary(folder / version / "fury", version=version) for version in ("v1", "v2", "v3")
    }


@pytest.fixture
def old(releases: dict[str, Path]) -> Path:
    return releases["v1"]


@pytest.fixture
def new(releases: dict[str, Path]) -> Path:
    return releases["v2"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    folder = tmp_path / "output"
    folder.mkdir()
    running = Nodes(folder)
    yield running
    running.close()
