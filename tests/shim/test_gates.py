"""What keeps a node from running twice, and an exit from being lost, when files are deleted, copied or cannot
be used.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.shim.conftest import PYTHON, SlotDriver, alive, end, wait_until
from visor_actors.node import shim_process
from visor_actors.node.custody_errors import ShimGone, ShimUnresponsive
from visor_actors.node.custody_types import (
    InheritedOutput,
    LaunchOrder,
    RefusalKind,
    Started,
    StartRefused,
    StopProgress,
    StopStep,
)
from visor_actors.node.shim_client import ShimConnection

# Forks a child into a session of its own with an empty environment, which keeps the descriptors {keep} only.
LEAVES_A_CHILD = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    for fd in (3, 4):
        if fd not in {keep}:
            os.close(fd)
    os.execve({python!r}, ["child", "-I", "-S", "-c", "import time; time.sleep(600)"], {{}})
os.write(1, b"ready\\n")
time.sleep(600)
"""


@pytest.fixture
def other(slot: SlotDriver, tmp_path: Path) -> Iterator[SlotDriver]:
    """Another slot, as of another visor's home."""
    driver = SlotDriver(tmp_path / "other")
    yield driver
    driver.end_all()  # ``slot``, whose shims may still live, waits for the end of them all


def node_home(tmp_path: Path) -> str:
    """The path of the lock in a node's home."""
    home = tmp_path / "node"
    home.mkdir(exist_ok=True)
    return str(home / ".visor-core.lock")


def refused(slot: SlotDriver, connection: ShimConnection, order: LaunchOrder) -> StartRefused:
    request = connection.start(order)
    answer = slot.next(connection, StartRefused)
    assert answer.request == request
    return answer


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(connection: ShimConnection, slot: SlotDriver) -> None:
    with pytest.raises(ShimGone):
        slot.next(connection, StartRefused)


# the second gate


def test_two_slots_run_a_node_once_and_the_refusal_names_who_runs(
    slot: SlotDriver, other: SlotDriver, tmp_path: Path
) -> None:
    lock = node_home(tmp_path)
    connection, second = slot.open(), other.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60", home_lock=lock))
    answer = refused(other, second, other.order("/bin/sleep", "61", home_lock=lock))
    assert answer.kind is RefusalKind.HELD
    assert f"pid {binary.pid}" in answer.problem
    assert other.state()["running"] is None
    end(binary.pid)
    slot.exit(connection)
    other.start(second, other.order("/bin/sleep", "61", home_lock=lock))


def test_core_and_data_node_may_share_a_home(slot: SlotDriver, other: SlotDriver, tmp_path: Path) -> None:
    slot.start(slot.open(), slot.order("/bin/sleep", "60", home_lock=node_home(tmp_path)))
    lock = str(tmp_path / "node" / ".visor-data_node.lock")
    other.start(other.open(), other.order("/bin/sleep", "61", home_lock=lock))


def test_the_second_gate_stands_when_the_slot_was_deleted_and_its_shim_killed(
    slot: SlotDriver, tmp_path: Path
) -> None:
    lock = node_home(tmp_path)
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60", home_lock=lock))
    shutil.rmtree(slot.folder)
    slot.kill_shim(connection)
    again = slot.open()
    assert again.hello.running is None
    answer = refused(slot, again, slot.order("/bin/sleep", "61", home_lock=lock))
    assert (answer.kind, str(binary.pid) in answer.problem) == (RefusalKind.HELD, True)


def test_descendants_hold_the_second_gate_too(slot: SlotDriver, tmp_path: Path) -> None:
    """Of an adopted binary, a child that proves to be its own by nothing but the lock in the node's home."""
    connection = slot.open()
    text = LEAVES_A_CHILD.format(keep="(4,)", python=PYTHON)
    binary = slot.start(connection, slot.script(text, home_lock=node_home(tmp_path)))
    wait_until(lambda: bool(children_of(binary.pid)) and "ready" in slot.log())
    (child,) = children_of(binary.pid)
    slot.pids.add(child)
    wait_until(lambda: not Path(f"/proc/{child}/environ").read_bytes(), "the child's own program")
    slot.kill_shim(connection)
    again = slot.open()
    os.kill(binary.pid, signal.SIGKILL)
    assert f"pid {child}" in slot.next(again, StopProgress).detail
    assert alive(child), "what does not prove to be a descendant is not ended"
    end(child)
    assert slot.exit(again).incarnation == binary.incarnation


def test_an_exit_is_not_told_while_anything_at_all_holds_the_lock(slot: SlotDriver, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        connection = slot.open()
        text = (
            "import socket\n"
            f"sock = socket.socket(socket.AF_UNIX); sock.connect({str(tmp_path / 's')!r})\n"
            "socket.send_fds(sock, [b'x'], [3]); sock.recv(1)\n"
        )
        binary = slot.start(connection, slot.order(PYTHON, "-c", text))
        with listener.accept()[0] as sock:
            _, (lock,), _, _ = socket.recv_fds(sock, 1, 1)  # now we hold it, who are nothing of the binary's
    try:
        wait_until(lambda: not alive(binary.pid))
        progress = slot.next(connection, object)
        assert isinstance(progress, StopProgress)
        assert progress.step is StopStep.LEFTOVERS
        assert f"pid {os.getpid()}" in progress.detail
    finally:
        os.close(lock)
    assert slot.exit(connection).code == 0


def test_an_exit_does_not_wait_for_another_visor_that_took_the_node_over(
    slot: SlotDriver, other: SlotDriver, tmp_path: Path
) -> None:
    lock = node_home(tmp_path)
    connection, second = slot.open(), other.open()
    lets_go = slot.script(
        "import os, time; os.close(4); os.write(1, b'ready\\n'); time.sleep(600)", home_lock=lock
    )
    binary = slot.start(connection, lets_go)
    wait_until(lambda: "ready" in slot.log())
    taker = other.start(second, other.order("/bin/sleep", "60", home_lock=lock))
    end(binary.pid)
    assert slot.exit(connection).pid == binary.pid
    assert alive(taker.pid)


def test_the_binary_finds_the_locks_in_its_descriptors_3_and_4(slot: SlotDriver, tmp_path: Path) -> None:
    connection = slot.open()
    lock = node_home(tmp_path)
    text = """
import os
fds = sorted(int(n) for n in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + n))
print(fds, os.readlink("/proc/self/fd/3"), os.readlink("/proc/self/fd/4"))
"""
    for limits in ({}, {"core": 0}):  # spawned and forked
        slot.start(connection, slot.script(text, home_lock=lock, limits=limits))
        assert slot.exit(connection).code == 0
        assert slot.log().splitlines()[-1] == f"[0, 1, 2, 3, 4] {slot.folder / 'lock'} {lock}"


UNGUARDED: dict[str, tuple[Callable[[Path], str | None], str]] = {
    "no home": (lambda base: None, "--home"),
    "no such folder": (lambda base: str(base / "nowhere" / ".visor-core.lock"), "No such file"),
    "not writable": (lambda base: "/proc/.visor-core.lock", "/proc/.visor-core.lock"),
    "a link": (lambda base: made(base, lambda path: path.symlink_to(base / "elsewhere")), "symbolic link"),
    "a pipe": (lambda base: made(base, os.mkfifo), "not a regular file"),
    "a folder": (lambda base: made(base, os.mkdir), "directory"),
}


def made(base: Path, make: Callable[[Path], Any]) -> str:
    path = Path(node_home(base))
    make(path)
    return str(path)


@pytest.mark.parametrize("case", UNGUARDED)
def test_a_start_without_the_second_gate_says_why_there_is_none(
    slot: SlotDriver, tmp_path: Path, case: str
) -> None:
    provide, words = UNGUARDED[case]
    connection = slot.open()
    connection.start(slot.order("/bin/sleep", "60", home_lock=provide(tmp_path)))
    started = slot.next(connection, Started)
    slot.pids.add(started.binary.pid)
    assert started.unguarded is not None
    assert words in started.unguarded
    assert not (tmp_path / "elsewhere").exists()
    end(started.binary.pid)
    slot.exit(connection)
    connection.start(slot.order("/bin/sleep", "60", home_lock=str(tmp_path / ".visor-core.lock")))
    started = slot.next(connection, Started)
    slot.pids.add(started.binary.pid)
    assert started.unguarded is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_second_gate_belongs_to_the_binary_s_user(slot: SlotDriver, tmp_path: Path) -> None:
    lock = node_home(tmp_path)
    connection = slot.open()
    slot.start(
        connection, slot.order("/bin/sleep", "60", home_lock=lock, user="65534", working_directory="/")
    )
    assert os.stat(lock).st_uid == 65534, "that user's own visor can open it later"
    strangers = tmp_path / "strangers"
    strangers.touch(0o600)
    hard = str(tmp_path / "hard.lock")
    os.link(strangers, hard)
    end(connection_pid(slot))
    slot.exit(connection)
    slot.start(
        connection, slot.order("/bin/sleep", "60", home_lock=hard, user="65534", working_directory="/")
    )
    assert os.stat(strangers).st_uid == 0, "a file that was there is not given away"


def connection_pid(slot: SlotDriver) -> int:
    return int(slot.state()["running"]["pid"])


# copies and moves


def test_a_copied_slot_neither_adopts_nor_tells_what_the_other_ran(
    slot: SlotDriver, other: SlotDriver
) -> None:
    connection = slot.open()
    slot.start(connection, slot.order("/bin/true"))
    slot.exit(connection)  # not acknowledged
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    no_sockets = shutil.ignore_patterns("*.sock", "output")
    shutil.copytree(slot.folder, other.folder, ignore=no_sockets)
    second = other.open()
    assert (second.hello.running, second.hello.exits, second.hello.held_by) == (None, (), None)
    mine = other.start(second, other.order("/bin/sleep", "61"))
    assert mine.incarnation > binary.incarnation
    other.kill_shim(second)
    running = other.open().hello.running
    assert running is not None, "what was started here is adopted here"
    assert running.pid == mine.pid
    assert alive(binary.pid)


def test_a_slot_that_was_moved_keeps_its_binary(slot: SlotDriver, tmp_path: Path) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    slot.kill_shim(connection)
    connection.close()
    slot.folder = slot.folder.rename(tmp_path / "moved")
    running = slot.open().hello.running
    assert running is not None
    assert running.pid == binary.pid


# what fails must not lose an exit, nor an answer


def test_an_exit_is_told_when_the_slot_was_deleted_and_the_next_shim_has_a_new_one(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    shutil.rmtree(slot.folder)
    end(binary.pid)
    record = slot.exit(connection)
    assert (record.pid, record.signal) == (binary.pid, signal.SIGKILL)
    gone(connection, slot)
    slot.start(slot.open(), slot.order("/bin/sleep", "60"))


def test_leftovers_are_ended_when_the_slot_was_deleted(slot: SlotDriver) -> None:
    connection = slot.open()
    text = LEAVES_A_CHILD.format(keep="(3,)", python=PYTHON).replace("fd not in", "fd != 4 and fd not in")
    binary = slot.start(connection, slot.script(text))
    wait_until(lambda: bool(children_of(binary.pid)) and "ready" in slot.log())
    (child,) = children_of(binary.pid)
    slot.pids.add(child)
    shutil.rmtree(slot.folder)
    end(binary.pid)
    slot.exit(connection)
    assert not alive(child)


def test_a_start_in_a_deleted_slot_is_refused_and_the_shim_leaves(slot: SlotDriver) -> None:
    connection = slot.open()
    shutil.rmtree(slot.folder)
    assert "deleted" in refused(slot, connection, slot.order("/bin/sleep", "60")).problem
    gone(connection, slot)
    slot.start(slot.open(), slot.order("/bin/sleep", "60"))


def test_a_deleted_lock_file_is_made_again_before_a_start(slot: SlotDriver) -> None:
    connection = slot.open()
    (slot.folder / "lock").unlink()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    assert os.path.samefile(slot.folder / "lock", f"/proc/{binary.pid}/fd/3")


def test_a_shim_without_descriptors_tells_an_exit_and_answers_a_start(
    slot: SlotDriver, tmp_path: Path
) -> None:
    connection = slot.open()
    order = slot.order("/bin/sleep", "60", home_lock=node_home(tmp_path))
    binary = slot.start(connection, order)
    before = resource.prlimit(connection.hello.shim_pid, resource.RLIMIT_NOFILE)
    resource.prlimit(connection.hello.shim_pid, resource.RLIMIT_NOFILE, (3, before[1]))
    end(binary.pid)
    assert slot.exit(connection).pid == binary.pid
    assert refused(slot, connection, order).kind is RefusalKind.RESOURCES
    resource.prlimit(connection.hello.shim_pid, resource.RLIMIT_NOFILE, before)
    slot.start(connection, order)


def test_an_adopting_shim_without_descriptors_tells_an_exit_once_it_can_be_sure(
    slot: SlotDriver, tmp_path: Path
) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60", home_lock=node_home(tmp_path)))
    slot.kill_shim(connection)
    again = slot.open()
    before = resource.prlimit(again.hello.shim_pid, resource.RLIMIT_NOFILE)
    resource.prlimit(again.hello.shim_pid, resource.RLIMIT_NOFILE, (3, before[1]))
    end(binary.pid)
    assert "cannot be found out" in slot.next(again, StopProgress).detail
    resource.prlimit(again.hello.shim_pid, resource.RLIMIT_NOFILE, before)
    assert slot.exit(again).pid == binary.pid


def test_an_exit_that_cannot_be_written_down_is_told(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(
        connection, slot.order("/bin/sleep", "60", output=InheritedOutput(stdout=1, stderr=2))
    )
    resource.prlimit(connection.hello.shim_pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    end(binary.pid)
    assert slot.exit(connection).pid == binary.pid
    assert refused(slot, connection, slot.order("/bin/sleep", "60")).kind is not RefusalKind.HELD
    assert slot.open().hello.exits[0].pid == binary.pid


@pytest.mark.parametrize(
    "changes", [{"env": {"A": "\ud800"}}, {"argv": ("\ud800",)}, {"working_directory": "\ud800"}]
)
def test_a_start_that_fails_unforeseen_is_answered(slot: SlotDriver, changes: dict[str, Any]) -> None:
    connection = slot.open()
    answer = refused(slot, connection, slot.order("/bin/sleep", "60", **changes))
    assert answer.kind is RefusalKind.UNKNOWN
    slot.start(connection, slot.order("/bin/sleep", "60"))  # the same connection, the same slot: free


# the socket


def test_a_shim_whose_socket_was_deleted_can_be_reached_again(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    (slot.folder / "shim.sock").unlink()
    connection.close()
    again = slot.open()
    assert again.hello.shim_pid == connection.hello.shim_pid
    assert again.hello.running == binary


def test_a_shim_that_nobody_attends_looks_after_its_socket(slot: SlotDriver) -> None:
    connection = slot.open()
    slot.start(connection, slot.order("/bin/sleep", "60"))
    connection.close()
    again = slot.open()  # so the shim has seen the first one go
    again.close()
    socket = slot.folder / "shim.sock"
    socket.unlink()
    socket.write_text("something else")
    wait_until(socket.is_socket, "a new socket")
    assert slot.open().hello.shim_pid == connection.hello.shim_pid


def test_a_shim_that_cannot_be_reached_is_told_from_one_that_does_not_answer(slot: SlotDriver) -> None:
    connection = slot.open()
    pid = connection.hello.shim_pid
    slot.start(connection, slot.order("/bin/sleep", "60"))
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ShimUnresponsive, match="does not answer"):
        ShimConnection.open(slot.folder, epoch=99, timeout=0.3)
    (slot.folder / "shim.sock").unlink()
    with pytest.raises(ShimUnresponsive, match=r"socket .* was deleted.*kill -9"):
        ShimConnection.open(slot.folder, epoch=99, timeout=0.3)
    wait_until(lambda: shim_process.own_shims() == {pid}, "the end of those that found the slot taken")
    os.kill(pid, signal.SIGCONT)
