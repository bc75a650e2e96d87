"""For every end-to-end test: no binary ran twice at any moment, and every chain is intact afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.copies import CopyWatch
from visor_actors.simulator import ProblemKind, check_chain


@dataclass(slots=True)
class Judgement:
    """What a test may find on a chain: nothing, unless it says with :meth:`expect` that it ruins one."""

    expected: set[ProblemKind] = field(default_factory=set)

    def expect(self, *kinds: ProblemKind) -> None:
        """Do not fail for these: the test brings them about on purpose."""
        self.expected.update(kinds)


@pytest.fixture
def judgement() -> Judgement:
    """For tests that ruin a chain on purpose."""
    return Judgement()


@pytest.fixture(autouse=True)
def runs_nothing_twice(
    leaves_nothing_behind: None, tmp_path: Path, judgement: Judgement
) -> Iterator[CopyWatch]:
    """Watch all processes of the test's homes; in the end judge their chains."""
    watch = CopyWatch(tmp_path)
    watch.start()
    yield watch
    watch.stop()
    _Tally.add(watch)
    if watch.failure is not None:
        pytest.fail(f"the watch for second copies broke: {watch.failure!r}", pytrace=False)
    if watch.overlaps:
        pytest.fail("; ".join(map(str, watch.overlaps)), pytrace=False)
    for home in _node_homes(tmp_path):
        problems = [str(one) for one in check_chain(home).problems if one.kind not in judgement.expected]
        if problems:
            pytest.fail(f"the chain of {home.name}: {'; '.join(problems)}", pytrace=False)


def _node_homes(folder: Path) -> list[Path]:
    return [path.parents[2] for path in folder.glob("*/config/node/network.toml")]


class _Tally:
    """What all watches together have seen."""

    looks = 0
    tests = 0
    longest_gap = 0.0

    @classmethod
    def add(cls, watch: CopyWatch) -> None:
        cls.looks += watch.looks
        cls.tests += 1
        cls.longest_gap = max(cls.longest_gap, watch.longest_gap)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how closely was looked."""
    if _Tally.tests:
        terminalreporter.write_line(
            f"looked for second copies {_Tally.looks} times during {_Tally.tests} end-to-end tests; "
            f"the longest gap was {_Tally.longest_gap * 1000:.0f} ms"
        )
