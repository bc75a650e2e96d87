"""Fixtures of the command line's tests: a home, a served fake visor, a runner, and a plain environment."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.fake_visor import FakeVisor, fake_visor, make_home, serve
from tests.cli.running import Runner
from visor_actors.home.layout import HomeLayout


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("VISOR_HOME", "NO_COLOR", "GITHUB_TOKEN", "SENTRY_DSN", "VISOR_TESTING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(capsys)


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
