"""kill -9 of visor right before and right after each of its writes to the journal, while the node crashes and
is started again, and while it is stopped.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness import Home, Visor, make_home, wait_for
from tests.e2e.processes import kill_visor
from visor_actors.home.journal import Journal

# The moment is chosen by counting commits; the death is a real one. Imported by each Python that starts.
DIES_AT_A_COMMIT = """
import os, signal, sqlite3

class Connection(sqlite3.Connection):
    def execute(self, statement, *values):
        if statement != "COMMIT":
            return super().execute(statement, *values)
        global commits
        commits += 1
        if when == "before" and commits == at:
            os.kill(os.getpid(), signal.SIGKILL)
        done = super().execute(statement)
        if when == "after" and commits == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

when, _, at = os.environ.get("TEST_DIES", "").partition(" ")
if at:
    at, commits, connect = int(at), 0, sqlite3.connect
    sqlite3.connect = lambda *words, **named: connect(*words, **named, factory=Connection)
"""


def crash(visor: Visor) -> None:
    pid = visor.running_pid()
    if pid is None:
        return  # visor died while it attached
    os.kill(pid, signal.SIGKILL)

    def over() -> bool:
        status = visor.status()
        answers = status is not None and status.rpc is not None and status.rpc.connected
        return visor.process.poll() is not None or (answers and visor.running_pid() not in (None, pid))

    wait_for(over, f"another core that answers, or visor's death\n{visor.tail()}")


def stop(visor: Visor) -> None:
    if visor.process.poll() is None:
        visor.process.send_signal(signal.SIGTERM)
        visor.process.wait(60)


def consumed(home: Home) -> list[int]:
    with Journal.open_reader(home.root / ".visor" / "journal.db") as journal:
        return sorted(int(key.partition("@")[0]) for key, _, _ in journal.exits("core"))


def exits(home: Home, *, requested: bool) -> list[object]:
    return [
        entry.fields["incarnation"]
        for entry in home.history("binary.exited")
        if entry.fields["requested"] is requested
    ]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", [crash, stop])
def test_a_visor_killed_at_each_write_to_its_journal_counts_every_exit_once(
    tmp_path: Path, what: Callable[[Visor], None], when: str
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "sitecustomize.py").write_text(DIES_AT_A_COMMIT)
    home = make_home(tmp_path / "home")
    home.configure(maxNumberOfRestarts=1_000, restartsDelaySeconds=0)
    with Visor(home=home) as visor:
        for number in itertools.count(1):
            visor.wait_running()
            kill_visor(visor)
            visor.environment = {"PYTHONPATH": str(tmp_path / "lib"), "TEST_DIES": f"{when} {number}"}
            visor.start()
            wait_for(
                lambda: visor.process.poll() is not None or visor.running_pid() is not None,
                "the node to be attached to, or visor's death",
            )
            what(visor)
            died = visor.process.poll() == -signal.SIGKILL
            kill_visor(visor)
            visor.environment = {}
            visor.start()
            visor.wait_running()
            status = wait_for(visor.status, "a status")
            failures = exits(home, requested=False)
            if what is crash:
                assert status.node.restarts == len(failures)
            else:
                assert (status.node.restarts, failures) == (0, []), "what was asked for is no failure"
            if not died:
                break
        stop(visor)
    ended = consumed(home)
    assert ended == list(range(1, len(ended) + 1)), "every exit once"
    told = [entry.fields["incarnation"] for entry in home.history("binary.exited")]
    assert told == ended, "every exit once in the history"
