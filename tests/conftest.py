"""For every test of the project: whoever leaves a thread, a descriptor, a socket or a child process behind
fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from visor_actors.testing.leaks import find_leaks, take_inventory


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Compare what the process has before and after the test and its fixtures."""
    before = take_inventory()
    yield
    leaks = find_leaks(before)
    if leaks:
        pytest.fail(f"this test leaves behind: {leaks}", pytrace=False)
