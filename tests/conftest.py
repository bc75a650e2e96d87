"""For every test of the project: whoever leaves a thread, a descriptor, a socket or a child process behind
fails."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from visor_actors.testing.leaks import find_leaks, take_inventory

# Machines are shared and slow at times: no test fails for the time an example took.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


def pytest_configure() -> None:
    """Have SIGINT as it is at a terminal: whoever runs the tests in the background starts them with it
    ignored, and so would be every process that a test starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Compare what the process has before and after the test and its fixtures."""
    before = take_inventory()
    yield
    leaks = find_leaks(before)
    if leaks:
        pytest.fail(f"this test leaves behind: {leaks}", pytrace=False)
