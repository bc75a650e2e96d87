"""Fixtures of the API's tests: a home, a fake visor on it, and its API served."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.fake_visor import FakeVisor, fake_visor, make_home, serve
from visor_actors.home.layout import HomeLayout


@pytest.fixture
def layout(tmp_path: Path) -> HomeLayout:
    return make_home(tmp_path / "home")


@pytest.fixture
def visor(layout: HomeLayout) -> FakeVisor:
    return fake_visor(layout, pid=os.getpid())


@pytest.fixture
def served(layout: HomeLayout, visor: FakeVisor) -> Iterator[FakeVisor]:
    with serve(layout, visor):
        yield visor
