"""What end-to-end tests of upgrades look at: the journal's log of steps, alarms, and the link."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Mapping

from tests.e2e.harness import Home, Visor, wait_for
from visor_actors.home.errors import JournalUnavailable
from visor_actors.home.journal import HistoryEntry, Journal
from visor_actors.telemetry.events import Severity

SWITCH = ("ready", "stopping", "stopped", "switched", "starting", "confirmed")
"""What the journal's log has of every upgrade, exactly once and in this order."""


def steps(home: Home) -> Mapping[tuple[str, int], tuple[str, ...]]:
    """The journal's log: the states of each upgrade, in the order in which they were written."""
    try:
        with Journal.open_reader(home.root / ".visor" / "journal.db") as journal:
            return {
                (row.tag, row.height): tuple(
                    state for state, _, _ in journal.upgrade_log(row.tag, row.height)
                )
                for row in journal.upgrades()
            }
    except JournalUnavailable:
        return {}


def state_of(home: Home, tag: str) -> str | None:
    return home.upgrade_states().get(tag)


def wait_state(visor: Visor, tag: str, *states: str) -> None:
    """Wait until the upgrade to ``tag`` is in one of ``states``."""
    try:
        wait_for(lambda: state_of(visor.home, tag) in states, f"{tag} to be {' or '.join(states)}")
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {state_of(visor.home, tag)}\n{visor.tail()}") from None


def alarms(home: Home, name: str = "upgrade.*") -> list[HistoryEntry]:
    return [entry for entry in home.history(name) if entry.severity >= Severity.ALARM]


def wait_alarm(visor: Visor, words: str, name: str = "upgrade.*") -> HistoryEntry:
    """Wait until an alarm has said ``words``."""

    def find() -> HistoryEntry | None:
        return next((alarm for alarm in alarms(visor.home, name) if words in alarm.message), None)

    try:
        found = wait_for(find, f"an alarm that says {words!r}")
    except AssertionError as error:
        said = "\n".join(alarm.message for alarm in alarms(visor.home, "*"))
        raise AssertionError(f"{error}; said was:\n{said}\n{visor.tail()}") from None
    assert isinstance(found, HistoryEntry)
    return found


def wait_other_core(visor: Visor, pid: int) -> None:
    """Wait until another core than ``pid`` runs."""
    wait_for(lambda: visor.running_pid() not in (None, pid), f"another core\n{visor.tail()}")


def wait_event(visor: Visor, name: str, beyond: int) -> None:
    """Wait until there are more than ``beyond`` events called ``name``."""
    wait_for(lambda: len(visor.home.history(name)) > beyond, f"{name}\n{visor.tail()}")


def wait_heard(visor: Visor) -> None:
    """Wait until the core's RPC is heard."""

    def heard() -> bool:
        status = visor.status()
        return status is not None and status.rpc is not None and status.rpc.connected

    wait_for(heard, f"the core to be heard\n{visor.tail()}")


def assert_each_once(home: Home, *upgrades: tuple[str, int]) -> None:
    """Each of ``upgrades`` was carried out exactly once, and link, journal and chain agree."""
    log = steps(home)
    for upgrade in upgrades:
        assert tuple(state for state in log[upgrade] if state in SWITCH) == SWITCH, log[upgrade]
        assert Counter(log[upgrade]).most_common(1)[0][1] == 1, f"a step was done twice: {log[upgrade]}"
    assert set(log) == set(upgrades)
    report = home.report()
    assert report.problems == ()
    assert [(one.version, one.last) for one in report.versions[1:-1]] == list(
        zip((tag for tag, _ in upgrades), (height for _, height in upgrades[1:]), strict=False)
    )
    assert home.current() == upgrades[-1][0]


def started(home: Home, role: str = "core") -> list[tuple[str, ...]]:
    """The command lines of all starts."""
    return [record.argv for record in home.starts(role) if record.event == "start"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port
