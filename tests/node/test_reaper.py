"""Reaping as the first process of a container: orphans yes, what others wait for no."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from visor_actors.node.reaper import OrphanReaper, needs_reaper
from visor_actors.testing.clock import FakeClock


def zombie(code: int) -> int:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"exit {code}"], {})
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return pid


def test_a_zombie_is_collected_after_the_grace_period_and_not_before() -> None:
    clock = FakeClock()
    reaper = OrphanReaper(clock.now, grace=10)
    pid = zombie(3)
    assert reaper.scan() == []
    clock.advance(9)
    assert reaper.scan() == []
    clock.advance(1)
    (orphan,) = reaper.scan()
    assert (orphan.pid, os.waitstatus_to_exitcode(orphan.status)) == (pid, 3)
    assert reaper.scan() == []


def test_a_child_that_is_owned_keeps_its_exit_code_for_its_owner() -> None:
    clock = FakeClock()
    reaper = OrphanReaper(clock.now, grace=1)
    pid = zombie(4)
    for _ in range(3):
        assert reaper.scan(owned={pid}) == []
        clock.advance(100)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4


def test_running_children_and_children_reaped_meanwhile_are_left_alone() -> None:
    clock = FakeClock()
    reaper = OrphanReaper(clock.now, grace=1)
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        pid = zombie(0)
        reaper.scan()
        os.waitpid(pid, 0)
        clock.advance(5)
        assert reaper.scan() == []
        assert child.poll() is None
        child.kill()


def test_only_the_first_process_of_a_container_needs_it() -> None:
    assert needs_reaper() is (os.getpid() == 1)
