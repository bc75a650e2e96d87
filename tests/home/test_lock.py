"""One visor per home."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from visor_actors.home.errors import HomeUnusable
from visor_actors.home.lock import HomeLock, HomeLocked

HOLD = """
import sys, time
from pathlib import Path
from visor_actors.home.lock import HomeLock
lock = HomeLock.acquire(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def test_a_home_is_held_once_and_free_after_release(tmp_path: Path) -> None:
    with HomeLock.acquire(tmp_path) as lock:
        with pytest.raises(HomeLocked):
            HomeLock.acquire(tmp_path)
        lock.release()
        HomeLock.acquire(tmp_path).release()
    HomeLock.acquire(tmp_path).release()


def test_the_refusal_names_the_holder_and_ends_with_75(tmp_path: Path) -> None:
    with HomeLock.acquire(tmp_path), pytest.raises(HomeLocked) as raised:
        HomeLock.acquire(tmp_path)
    assert raised.value.exit_code == 75
    assert f"pid {os.getpid()}" in str(raised.value)
    assert "visor-actors stop" in raised.value.next_step


def test_the_lock_of_a_killed_visor_is_free(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as visor:
        assert visor.stdout is not None
        assert visor.stdout.readline() == b"held\n"
        with pytest.raises(HomeLocked, match=f"pid {visor.pid}"):
            HomeLock.acquire(tmp_path)
        visor.send_signal(signal.SIGKILL)
    HomeLock.acquire(tmp_path).release()


def is_free(root: Path) -> bool:
    try:
        HomeLock.acquire(root).release()
    except HomeLocked:
        return False
    return True


def test_children_do_not_inherit_the_lock(tmp_path: Path) -> None:
    lock = HomeLock.acquire(tmp_path)
    with subprocess.Popen(["/bin/sleep", "60"], close_fds=False) as child:
        try:
            lock.release()
            deadline = time.monotonic() + 20
            # The child is reported as started a moment before the kernel has closed its copies.
            while not is_free(tmp_path) and time.monotonic() < deadline:
                time.sleep(0.001)
            assert is_free(tmp_path)
        finally:
            child.kill()


@pytest.mark.parametrize("content", ["", "nonsense", "{}", "[]", '{"pid": "x"}'])
def test_a_holder_that_does_not_say_who_it_is_still_holds(tmp_path: Path, content: str) -> None:
    with HomeLock.acquire(tmp_path):
        (tmp_path / ".visor" / "visor.lock").write_text(content)
        with pytest.raises(HomeLocked, match="held by another visor") as raised:
            HomeLock.acquire(tmp_path)
        assert raised.value.holder is None


def test_a_home_whose_lock_cannot_be_made_is_unusable(tmp_path: Path) -> None:
    (tmp_path / ".visor").write_text("")
    with pytest.raises(HomeUnusable):
        HomeLock.acquire(tmp_path)
