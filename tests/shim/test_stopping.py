"""Stopping: the signal, the time, SIGKILL, and nothing of it left when the end is told."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.shim.conftest import DEADLINE, SlotDriver, alive, state_of, wait_until
from visor_actors.node.custody_types import Exited, RefusalKind, Started, StartRefused, StopProgress, StopStep

READY = "import os; os.write(1, b'ready\\n')\n"
GRACEFUL = f"import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(7))\n{READY}time.sleep(600)"
STUBBORN = f"import signal, time\nsignal.signal(15, signal.SIG_IGN)\n{READY}time.sleep(600)"


def lock_is_free(slot: SlotDriver) -> bool:
    with (slot.folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_stop_gives_the_binary_its_own_signal_and_tells_how_it_ended(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.script(GRACEFUL))
    wait_until(lambda: "ready" in slot.log())
    request = connection.stop(signal=signal.SIGTERM, timeout=60)
    progress = slot.next(connection, StopProgress)
    assert (progress.request, progress.step) == (request, StopStep.SIGNALLED)
    record = slot.exit(connection)
    assert (record.code, record.signal, record.known, record.requested) == (7, None, True, True)
    assert record.incarnation == binary.incarnation
    assert record.last_lines == ("ready",)
    assert not alive(binary.pid)
    assert lock_is_free(slot)


def test_another_stop_signal_is_used_when_told(slot: SlotDriver) -> None:
    connection = slot.open()
    slot.start(connection, slot.order("/bin/sleep", "60"))
    connection.stop(signal=signal.SIGINT, timeout=60)
    assert slot.exit(connection).signal == signal.SIGINT


def test_a_binary_that_ignores_the_signal_is_killed_after_the_timeout(slot: SlotDriver) -> None:
    connection = slot.open()
    slot.start(connection, slot.script(STUBBORN))
    wait_until(lambda: "ready" in slot.log())
    connection.stop(signal=signal.SIGTERM, timeout=0.05)
    steps = [slot.next(connection, StopProgress).step for _ in range(2)]
    assert steps == [StopStep.SIGNALLED, StopStep.KILLED]
    record = slot.exit(connection)
    assert (record.signal, record.requested) == (signal.SIGKILL, True)


def test_a_newer_stop_replaces_the_timeout_of_an_older_one(slot: SlotDriver) -> None:
    connection = slot.open()
    slot.start(connection, slot.script(STUBBORN))
    wait_until(lambda: "ready" in slot.log())
    connection.stop(signal=signal.SIGTERM, timeout=3600)
    last = connection.stop(signal=signal.SIGTERM, timeout=0)
    while (progress := slot.next(connection, StopProgress)).step is not StopStep.KILLED:
        pass
    assert progress.request == last
    assert slot.exit(connection).requested


def test_stopping_a_vacant_slot_says_that_nothing_runs(slot: SlotDriver) -> None:
    connection = slot.open()
    request = connection.stop(signal=signal.SIGTERM, timeout=1)
    progress = slot.next(connection, StopProgress)
    assert (progress.request, progress.step) == (request, StopStep.NOTHING_RUNS)


def test_a_stop_right_behind_a_start_takes_effect_at_once(slot: SlotDriver) -> None:
    connection = slot.open()
    for _ in range(10):
        start = connection.start(slot.order("/bin/sleep", "600"))
        connection.stop(signal=signal.SIGTERM, timeout=60)
        started = slot.next(connection, Started)
        record = slot.next(connection, Exited).record
        assert started.request == start
        assert record.incarnation == started.binary.incarnation
        assert (record.signal, record.requested) == (signal.SIGTERM, True)
        connection.acknowledge(record.incarnation)


def test_a_stop_behind_a_start_that_fails_ends_in_the_refusal(slot: SlotDriver) -> None:
    connection = slot.open()
    connection.start(slot.order("/nowhere"))
    connection.stop(signal=signal.SIGTERM, timeout=60)
    slot.next(connection, StartRefused)
    slot.start(connection, slot.order("/bin/sleep", "60"))


def test_a_stopped_process_can_be_stopped(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.script(GRACEFUL))
    wait_until(lambda: "ready" in slot.log())
    os.kill(binary.pid, signal.SIGSTOP)
    wait_until(lambda: state_of(binary.pid) == "T", "stopping by SIGSTOP")
    connection.stop(signal=signal.SIGTERM, timeout=60)
    assert slot.exit(connection).code == 7


def test_a_stop_goes_on_when_its_client_is_gone(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.script(STUBBORN))
    wait_until(lambda: "ready" in slot.log())
    connection.stop(signal=signal.SIGTERM, timeout=0.3)
    slot.next(connection, StopProgress)
    connection.close()
    wait_until(lambda: not alive(binary.pid))
    wait_until(lambda: bool(slot.state()["exits"]))
    (record,) = slot.open().hello.exits
    assert (record.signal, record.requested) == (signal.SIGKILL, True)


LEAVES_BEHIND = """
import os, signal, sys, time
def helper():
    signal.signal(15, signal.SIG_IGN)
    if {own_session}:
        os.setsid()
    if {closes_lock}:
        os.close(3)
    if {grandchild}:
        if os.fork():
            os._exit(0)
    os.write(1, b"helper %d\\n" % os.getpid())
    time.sleep(600)
if os.fork() == 0:
    helper()
time.sleep(600 if {stays} else 0.2)
"""


@pytest.mark.parametrize("own_session", [False, True], ids=["same session", "own session"])
@pytest.mark.parametrize("closes_lock", [False, True], ids=["holds the lock", "closed the lock"])
@pytest.mark.parametrize("grandchild", [False, True], ids=["child", "daemon"])
@pytest.mark.parametrize("stays", [False, True], ids=["ends by itself", "is stopped"])
def test_what_a_binary_leaves_behind_is_ended_before_its_end_is_told(
    slot: SlotDriver, own_session: bool, closes_lock: bool, grandchild: bool, stays: bool
) -> None:
    connection = slot.open()
    text = LEAVES_BEHIND.format(
        own_session=own_session, closes_lock=closes_lock, grandchild=grandchild, stays=stays
    )
    slot.start(connection, slot.script(text))
    wait_until(lambda: "helper" in slot.log())
    helper = int(slot.log().split()[1])
    slot.pids.add(helper)
    if stays:
        connection.stop(signal=signal.SIGTERM, timeout=60)
    record = slot.exit(connection)
    assert record.requested is stays
    assert (record.code, record.signal) == ((None, signal.SIGTERM) if stays else (0, None))
    assert not alive(helper)
    assert lock_is_free(slot)


def test_orphans_that_end_meanwhile_do_not_stay_as_zombies(slot: SlotDriver) -> None:
    connection = slot.open()
    text = (
        "import os, time\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(0.05); os._exit(0)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        f"{READY}time.sleep(600)"
    )
    binary = slot.start(connection, slot.script(text))
    wait_until(lambda: "ready" in slot.log())
    wait_until(lambda: children_of(connection.hello.shim_pid) == [binary.pid], "reaping")


def children_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found


def test_an_end_is_not_told_while_anybody_holds_the_lock(slot: SlotDriver, tmp_path: Path) -> None:
    """Who was given the descriptor is no child of the shim's, and yet may do what the binary did."""
    connection = slot.open()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(DEADLINE)
        listener.bind(str(tmp_path / "here"))
        listener.listen()
        text = (
            "import socket\n"
            f"sock = socket.socket(socket.AF_UNIX); sock.connect({str(tmp_path / 'here')!r})\n"
            "socket.send_fds(sock, [b'x'], [3])"
        )
        slot.start(connection, slot.script(text))
        given, _ = listener.accept()
    with given:
        _, fds, _, _ = socket.recv_fds(given, 1, 1)
    try:
        progress = slot.next(connection, StopProgress)
        assert progress.step is StopStep.LEFTOVERS
        assert f"pid {os.getpid()}" in progress.detail
        connection.start(slot.order("/bin/true"))
        refused = slot.next(connection, StartRefused)
        assert refused.kind is RefusalKind.RUNNING
        assert "left behind" in refused.problem
    finally:
        os.close(fds[0])
    assert slot.exit(connection).code == 0
