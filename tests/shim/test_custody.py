"""Who dies when, and what is known afterwards: kill -9 of client, shim and both; adoption; and what must
never be hit.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.shim.conftest import PYTHON, SlotDriver, alive, end, wait_until
from visor_actors.node.custody_errors import ShimGone
from visor_actors.node.custody_types import RefusalKind, StartRefused
from visor_actors.node.shim_client import ShimConnection
from visor_actors.node.shim_process import end_unresponsive_shim, find_shim

ANOTHER_BOOT = "00000000-0000-0000-0000-000000000000"

EXITS_WITH_FILE = """
import os, time
os.write(1, b"ready\\n")
while not os.path.exists({path!r}):
    time.sleep(0.005)
os._exit(5)
"""


def test_the_binary_goes_on_when_its_client_detaches(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    connection.close()
    assert slot.open().hello.running == binary


def test_the_binary_goes_on_when_the_client_is_killed(slot: SlotDriver, tmp_path: Path) -> None:
    client = f"""
import sys, time
from pathlib import Path
from visor_actors.node.shim_client import ShimConnection
from visor_actors.node.custody_types import *
c = ShimConnection.open(Path({str(slot.folder)!r}), epoch=1)
c.start(LaunchOrder(executable="/bin/sleep", argv=("sleep", "60"), env={{}}, working_directory="/"))
while not (m := c.receive()):
    time.sleep(0.001)
print(m[0].binary.pid, flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", client], stdout=subprocess.PIPE, start_new_session=True)
    with process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        slot.pids.add(pid)
        os.killpg(process.pid, signal.SIGKILL)
    running = slot.open().hello.running
    assert running is not None
    assert (running.pid, running.adopted) == (pid, False)


def test_an_exit_while_nobody_is_attached_is_told_until_it_is_acknowledged(slot: SlotDriver) -> None:
    connection = slot.open()
    go = slot.folder / "go"
    binary = slot.start(connection, slot.script(EXITS_WITH_FILE.format(path=str(go))))
    connection.close()
    go.touch()
    wait_until(lambda: not alive(binary.pid))
    for _ in range(2):  # not acknowledged the first time: told again
        connection = slot.open()
        (record,) = connection.hello.exits
        assert (record.incarnation, record.code, record.requested) == (binary.incarnation, 5, False)
        assert connection.hello.running is None
        connection.close()
    connection = slot.open()
    connection.acknowledge(binary.incarnation)
    connection.close()
    assert slot.open().hello.exits == ()


def test_exits_that_were_not_acknowledged_survive_the_shim(slot: SlotDriver) -> None:
    connection = slot.open()
    for code in (1, 2, 3):
        slot.start(connection, slot.order("/bin/sh", "-c", f"exit {code}"))
        assert slot.exit(connection).code == code
    connection.acknowledge(2)
    wait_until(lambda: len(slot.state()["exits"]) == 2)
    slot.kill_shim(connection)
    again = slot.open()
    assert [(record.incarnation, record.code) for record in again.hello.exits] == [(1, 1), (3, 3)]
    assert slot.start(again, slot.order("/bin/sleep", "60")).incarnation == 4


def test_an_exit_is_on_disk_before_it_is_told(slot: SlotDriver) -> None:
    connection = slot.open()
    for _ in range(20):
        slot.start(connection, slot.order("/bin/true"))
        record = slot.exit(connection)
        assert record.incarnation in [kept["incarnation"] for kept in slot.state()["exits"]]
        connection.acknowledge(record.incarnation)


def test_unacknowledged_exits_are_bounded_and_the_loss_is_counted(slot: SlotDriver) -> None:
    connection = slot.open()
    for _ in range(70):
        slot.start(connection, slot.order("/bin/true"))
        slot.exit(connection)
    connection.close()
    hello = slot.open().hello
    assert len(hello.exits) == 64
    assert hello.exits_lost == 6
    assert hello.exits[-1].incarnation == 70


def test_rusage_and_times_of_an_exit_are_recorded(slot: SlotDriver) -> None:
    connection = slot.open()
    before = time.time()
    slot.start(connection, slot.script("sum(range(3_000_000)); x = b'x' * 30_000_000"))
    record = slot.exit(connection)
    assert record.user_seconds > 0
    assert record.max_rss_kib > 30_000
    assert before - 1 <= record.started_at <= record.ended_at <= time.time() + 1


# the shim dies


def test_a_binary_whose_shim_was_killed_is_adopted_and_its_end_is_noticed(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    slot.kill_shim(connection)
    with pytest.raises(ShimGone):
        slot.exit(connection)
    again = slot.open()
    running = again.hello.running
    assert running is not None
    assert (running.pid, running.start_ticks, running.incarnation) == (
        binary.pid,
        binary.start_ticks,
        binary.incarnation,
    )
    assert running.adopted
    os.kill(binary.pid, signal.SIGKILL)
    record = slot.exit(again)
    assert (record.incarnation, record.known, record.code, record.signal) == (
        binary.incarnation,
        False,
        None,
        None,
    )
    assert not record.requested
    slot.start(again, slot.order("/bin/sleep", "60"))


def test_an_adopted_binary_can_be_stopped_with_all_it_left_behind(slot: SlotDriver) -> None:
    text = (
        "import os, signal, time\n"
        "for own in (0, 1):\n"
        "    if os.fork() == 0:\n"
        "        signal.signal(15, signal.SIG_IGN)\n"
        "        if own: os.setsid()\n"
        "        os.write(1, b'helper %d\\n' % os.getpid())\n"
        "        time.sleep(600)\n"
        "time.sleep(600)"
    )
    connection = slot.open()
    slot.start(connection, slot.script(text))
    wait_until(lambda: slot.log().count("helper") == 2)
    helpers = [int(word) for word in slot.log().split() if word.isdigit()]
    slot.pids.update(helpers)
    slot.kill_shim(connection)
    again = slot.open()
    assert all(map(alive, helpers))
    again.stop(signal=signal.SIGTERM, timeout=60)
    assert slot.exit(again).requested
    assert not any(map(alive, helpers))


def test_a_helper_that_let_go_of_the_lock_ends_with_an_adopted_binary(slot: SlotDriver) -> None:
    connection = slot.open()
    text = (
        "import os, subprocess, time\n"
        "helper = subprocess.Popen(['/bin/sleep', '600'], start_new_session=True)\n"  # closes all but 0, 1, 2
        "os.write(1, b'%d\\n' % helper.pid)\n"
        "time.sleep(600)"
    )
    binary = slot.start(connection, slot.script(text))
    wait_until(lambda: slot.log().endswith("\n"))
    helper = int(slot.log())
    slot.pids.add(helper)
    slot.kill_shim(connection)
    again = slot.open()
    os.kill(binary.pid, signal.SIGKILL)
    assert slot.exit(again).incarnation == binary.incarnation
    assert not alive(helper)


def test_an_adopted_binary_that_ignores_the_signal_is_killed(slot: SlotDriver) -> None:
    connection = slot.open()
    slot.start(
        connection,
        slot.script("import signal, os, time; signal.signal(15, 1); os.write(1, b'up'); time.sleep(600)"),
    )
    wait_until(lambda: "up" in slot.log())
    slot.kill_shim(connection)
    again = slot.open()
    again.stop(signal=signal.SIGTERM, timeout=0.05)
    assert slot.exit(again).requested


def test_a_binary_that_ended_while_no_shim_lived_is_told_once_with_an_unknown_status(
    slot: SlotDriver,
) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    slot.kill_shim(connection)
    os.kill(binary.pid, signal.SIGKILL)
    wait_until(lambda: not alive(binary.pid))
    again = slot.open()
    assert again.hello.running is None
    (record,) = again.hello.exits
    assert (record.pid, record.known, record.requested) == (binary.pid, False, False)
    again.acknowledge(record.incarnation)
    again.close()
    assert slot.open().hello.exits == ()


def test_shim_and_client_killed_together_lose_nothing(slot: SlotDriver) -> None:
    for _ in range(10):
        connection = slot.open()
        if connection.hello.running is None:
            binary = slot.start(connection, slot.order("/bin/sleep", "60"))
        assert alive(binary.pid)
        os.kill(connection.hello.shim_pid, signal.SIGKILL)
        connection.close()
    running = slot.open().hello.running
    assert running is not None
    assert (running.pid, running.incarnation) == (binary.pid, 1)


def test_a_shim_killed_at_any_moment_of_a_start_never_leads_to_two_binaries(
    slot: SlotDriver, tmp_path: Path
) -> None:
    """The binary itself proves it: it takes a lock of its own and says so if it cannot."""
    mine = tmp_path / "mine"
    twice = tmp_path / "twice"
    text = (
        "import fcntl, os, time\n"
        f"fd = os.open({str(mine)!r}, os.O_CREAT | os.O_RDWR)\n"
        "try: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        f"except OSError: os.close(os.open({str(twice)!r}, os.O_CREAT | os.O_RDWR))\n"
        "time.sleep(600)"
    )
    for step in range(30):
        connection = slot.open()
        if connection.hello.running is None:
            connection.start(slot.script(text))
        else:
            connection.stop(signal=signal.SIGKILL, timeout=0)
        pause = time.monotonic() + step * 0.0002
        while time.monotonic() < pause:
            pass
        os.kill(connection.hello.shim_pid, signal.SIGKILL)
        connection.close()
    connection = slot.open()
    assert connection.hello.held_by is None
    assert not twice.exists()


def test_a_stop_survives_the_shim(slot: SlotDriver) -> None:
    connection = slot.open()
    text = "import signal, os, time; signal.signal(15, 1); os.write(1, b'up'); time.sleep(600)"
    binary = slot.start(connection, slot.script(text))
    wait_until(lambda: "up" in slot.log())
    connection.stop(signal=signal.SIGTERM, timeout=60)
    wait_until(lambda: slot.state()["running"]["stopping"] is True)
    slot.kill_shim(connection)
    again = slot.open()
    assert again.hello.running is not None
    assert again.hello.running.stopping
    os.kill(binary.pid, signal.SIGKILL)
    assert slot.exit(again).requested


# what must never be signalled


def test_a_process_that_got_the_pid_of_a_dead_binary_is_never_signalled(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    slot.kill_shim(connection)
    end(binary.pid)
    with subprocess.Popen(["/bin/sleep", "60"], start_new_session=True) as stranger:
        try:
            # Started later than what is on record, as whoever gets the pid again must have been.
            slot.edit_state(
                lambda state: state["running"].update(pid=stranger.pid, start_ticks=binary.start_ticks - 1)
            )
            again = slot.open()
            assert again.hello.running is None
            (record,) = again.hello.exits
            assert not record.known
            again.stop(signal=signal.SIGKILL, timeout=0)
            slot.start(again, slot.order("/bin/sleep", "60"))
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_record_of_an_earlier_boot_is_an_end_and_no_reason_to_signal(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    slot.kill_shim(connection)
    end(binary.pid)
    with subprocess.Popen(["/bin/sleep", "60"], start_new_session=True) as stranger:
        try:
            # Pid, start time and executable agree: only the boot tells that it cannot be the same process.
            stat = Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()
            recorded: dict[str, Any] = {
                "pid": stranger.pid,
                "start_ticks": int(stat[19]),
                "boot_id": ANOTHER_BOOT,
            }
            slot.edit_state(lambda state: state["running"].update(recorded))
            again = slot.open()
            assert again.hello.running is None
            (record,) = again.hello.exits
            assert (record.known, record.earlier_boot, record.is_failure) == (False, True, False)
            again.stop(signal=signal.SIGKILL, timeout=0)
            slot.start(again, slot.order("/bin/sleep", "60"))
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_process_that_cannot_be_identified_blocks_the_slot_and_is_left_alone(slot: SlotDriver) -> None:
    slot.folder.mkdir(parents=True)
    with subprocess.Popen(["/bin/sleep", "60"], start_new_session=True) as stranger:
        try:
            fields = Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()
            write_state(slot, stranger.pid, int(fields[19]), image=[1, 1])
            connection = slot.open()
            assert connection.hello.running is None
            assert connection.hello.held_by is not None
            assert connection.hello.held_by.pid == stranger.pid
            connection.start(slot.order("/bin/sleep", "60"))
            refused = slot.next(connection, StartRefused)
            assert refused.kind is RefusalKind.HELD
            assert str(stranger.pid) in refused.problem
            assert stranger.poll() is None
        finally:
            stranger.kill()
    slot.start(connection, slot.order("/bin/sleep", "60"))  # it has ended: the slot is free


def write_state(slot: SlotDriver, pid: int, start_ticks: int, **more: Any) -> None:
    running = {
        "incarnation": 4,
        "pid": pid,
        "start_ticks": start_ticks,
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "executable": "/bin/sleep",
        "argv": ["sleep", "60"],
        "started_at": 1.0,
        "stopping": False,
        "output": None,
        "marker": "none",
        "image": None,
    } | more
    state = {
        "boot_id": running["boot_id"],
        "epoch": 0,
        "incarnation": 4,
        "exits": [],
        "exits_lost": 0,
        "ended": None,
        "running": running,
    }
    slot.write_state(state)


def test_a_lock_held_by_a_stranger_is_named_and_refuses_starts(slot: SlotDriver) -> None:
    slot.folder.mkdir(parents=True)
    with (slot.folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        connection = slot.open()
        held = connection.hello.held_by
        assert held is not None
        assert held.pid == os.getpid()
        assert held.executable == PYTHON
        connection.start(slot.order("/bin/sleep", "60"))
        refused = slot.next(connection, StartRefused)
        assert refused.kind is RefusalKind.HELD
        assert str(os.getpid()) in refused.problem
    slot.start(connection, slot.order("/bin/sleep", "60"))


def test_a_wrapper_script_that_becomes_another_program_is_adopted(slot: SlotDriver) -> None:
    connection = slot.open()
    go = slot.folder / "go"
    binary = slot.start(
        connection, slot.order("/bin/sh", "-c", f"while ! [ -e {go} ]; do sleep 0.01; done; exec sleep 60")
    )
    wait_until(lambda: slot.state()["running"]["image"] is not None)
    go.touch()
    wait_until(
        lambda: (
            "sleep" in os.readlink(f"/proc/{binary.pid}/exe")
            or "coreutils" in os.readlink(f"/proc/{binary.pid}/exe")
        )
    )
    slot.kill_shim(connection)
    running = slot.open().hello.running
    assert running is not None
    assert (running.pid, running.adopted) == (binary.pid, True)


@pytest.mark.parametrize("content", ["x", "{", "[]", '{"epoch": "x"}', '{"serial": 1, "end": 2}'])
def test_an_unreadable_state_is_not_believed_and_the_lock_guards(slot: SlotDriver, content: str) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    slot.kill_shim(connection)
    for name in ("state.0", "state.1"):
        (slot.folder / name).write_text(content)
    again = slot.open()
    assert again.hello.running is None
    assert again.hello.held_by is not None
    assert again.hello.held_by.pid == binary.pid
    again.start(slot.order("/bin/sleep", "60"))
    assert slot.next(again, StartRefused).kind is RefusalKind.HELD
    end(binary.pid)
    assert slot.start(again, slot.order("/bin/sleep", "60")).incarnation > 1_000_000


def test_a_state_that_was_not_written_to_its_end_gives_way_to_the_one_before(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    wait_until(lambda: slot.state()["running"]["image"] is not None)
    slot.kill_shim(connection)
    newest = slot.folder / f"state.{(slot.state()['serial'] + 1) % 2}"
    slot.edit_state(lambda state: state.update(running=None))
    whole = json.loads(newest.read_text())
    newest.write_text(json.dumps(whole | {"end": whole["end"] - 2}) + "\n")
    running = slot.open().hello.running
    assert running is not None
    assert running.pid == binary.pid


# shims that do not answer


def test_a_dead_socket_is_replaced(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    slot.kill_shim(connection)
    assert (slot.folder / "shim.sock").exists()
    running = slot.open().hello.running
    assert running is not None
    assert running.pid == binary.pid


def test_a_stopped_shim_is_said_to_be_unresponsive_and_goes_on_when_continued(slot: SlotDriver) -> None:
    from visor_actors.node.custody_errors import ShimUnresponsive

    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    shim = connection.hello.shim_pid
    os.kill(shim, signal.SIGSTOP)
    with pytest.raises(ShimUnresponsive, match=f"kill -CONT {shim}") as raised:
        ShimConnection.open(slot.folder, epoch=100, timeout=0.3)
    assert raised.value.pid == shim
    os.kill(binary.pid, signal.SIGKILL)
    os.kill(shim, signal.SIGCONT)
    again = slot.open(epoch=101)
    record = again.hello.exits[0] if again.hello.exits else slot.exit(again)
    assert record.signal == signal.SIGKILL


def test_a_shim_that_never_answers_again_can_be_ended_without_the_binary(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    os.kill(connection.hello.shim_pid, signal.SIGSTOP)
    assert end_unresponsive_shim(slot.folder)
    assert find_shim(slot.folder) is None
    running = slot.open().hello.running
    assert running is not None
    assert (running.pid, running.adopted) == (binary.pid, True)


def test_many_who_open_at_once_meet_one_shim(slot: SlotDriver) -> None:
    text = f"""
from pathlib import Path
from visor_actors.node.shim_client import ShimConnection
c = ShimConnection.open(Path({str(slot.folder)!r}), epoch=1)
print(c.hello.shim_pid, flush=True)
input()
"""
    clients = [
        subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    try:
        pids = {int(client.stdout.readline()) for client in clients if client.stdout}
        slot.pids.update(pids)
        assert len(pids) == 1
    finally:
        for client in clients:
            client.kill()
            client.communicate()
