"""What a binary finds when it starts, and what is said when it cannot."""

from __future__ import annotations

import ast
import os
import resource
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.shim.conftest import PYTHON, SlotDriver, alive, wait_until
from visor_actors.node.custody_errors import OrderTooLarge
from visor_actors.node.custody_types import (
    InheritedOutput,
    LaunchOrder,
    RefusalKind,
    Refused,
    StartRefused,
)

LOOK_AROUND = """
import os, resource
print("argv", __import__("sys").argv[1:])
print("env", sorted(os.environ.items()))
print("cwd", os.getcwd())
print("fds", sorted(int(n) for n in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + n)))
print("lock", os.readlink("/proc/self/fd/3"))
print("stdin", os.readlink("/proc/self/fd/0"))
print("nofile", resource.getrlimit(resource.RLIMIT_NOFILE))
print("leader", os.getsid(0) == os.getpid() == os.getpgid(0))
for line in open("/proc/self/status"):
    if line.startswith(("SigBlk", "SigIgn")):
        print(line.split()[0], int(line.split()[1], 16))
    if line.startswith("Umask"):
        print(*line.split())
"""


@pytest.mark.parametrize("limits", [{}, {"nofile": 77}], ids=["spawned", "forked"])
def test_a_binary_gets_exactly_what_the_order_says(slot: SlotDriver, limits: dict[str, int]) -> None:
    connection = slot.open()
    work = slot.folder / "work"
    work.mkdir()
    order = slot.order(
        "/bin/sh",
        "-c",
        f"exec {PYTHON} -I -S -c '{LOOK_AROUND}' --home 'a b'",
        env={"ONLY": "this", "EMPTY": ""},
        working_directory=str(work),
        limits=limits,
    )
    slot.start(connection, order)
    assert slot.exit(connection).code == 0
    seen = dict(line.split(" ", 1) for line in slot.log().splitlines())
    assert seen["argv"] == "['--home', 'a b']"
    environment = {
        name: value
        for name, value in ast.literal_eval(seen["env"])
        if name not in ("PWD", "_", "SHLVL", "OLDPWD", "VISOR_CUSTODY")
    }
    assert environment == {"ONLY": "this", "EMPTY": ""} | {
        name: value for name, value in environment.items() if name == "LC_CTYPE"
    }
    assert seen["cwd"] == str(work)
    assert seen["fds"] == "[0, 1, 2, 3]"
    assert seen["lock"] == str(slot.folder / "lock")
    assert seen["stdin"] == "/dev/null"
    limit = limits.get("nofile")
    ours = resource.getrlimit(resource.RLIMIT_NOFILE) if limit is None else (limit, limit)
    assert seen["nofile"] == str(ours)
    umask = os.umask(0o077)
    os.umask(umask)
    assert int(seen["Umask:"], 8) == umask
    assert seen["leader"] == "True"
    assert int(seen["SigBlk:"]) == 0
    # Python itself ignores SIGPIPE (13) and SIGXFSZ (25) when it starts, and posix_spawn of glibc the
    # signals it keeps for itself (32, 33). Nothing else may be ignored.
    assert int(seen["SigIgn:"]) & ~(1 << 31 | 1 << 32) == (1 << 12 | 1 << 24)


def test_started_is_told_with_what_makes_the_process_unique(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    fields = Path(f"/proc/{binary.pid}/stat").read_text().rpartition(")")[2].split()
    assert binary.start_ticks == int(fields[19])
    assert binary.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert binary.argv == ("sleep", "60")
    assert not binary.adopted
    assert slot.state()["running"]["pid"] == binary.pid


def test_a_second_start_is_refused_while_one_runs(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    request = connection.start(slot.order("/bin/sleep", "61"))
    refused = slot.next(connection, StartRefused)
    assert (refused.request, refused.kind) == (request, RefusalKind.RUNNING)
    assert str(binary.pid) in refused.problem
    assert alive(binary.pid)


def test_two_starts_sent_at_once_start_one(slot: SlotDriver) -> None:
    connection = slot.open()
    first = connection.start(slot.order("/bin/sleep", "60"))
    second = connection.start(slot.order("/bin/sleep", "60"))
    refused = slot.next(connection, StartRefused)
    assert refused.request == second != first
    assert refused.kind is RefusalKind.RUNNING


def test_inherited_output_goes_to_the_descriptors_that_were_passed(slot: SlotDriver) -> None:
    connection = slot.open()
    out_read, out = os.pipe()
    err_read, err = os.pipe()
    try:
        text = "import os; os.write(1, b'to out'); os.write(2, b'to err')"
        slot.start(connection, slot.script(text, output=InheritedOutput(stdout=out, stderr=err)))
        record = slot.exit(connection)
    finally:
        os.close(out)
        os.close(err)
    # End of file comes only if the shim kept no copy.
    with os.fdopen(out_read, "rb") as stdout, os.fdopen(err_read, "rb") as stderr:
        assert stdout.read() == b"to out"
        assert stderr.read() == b"to err"
    assert record.last_lines == ()


def make(path: Path, content: bytes, mode: int = 0o755) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def foreign_binary(path: Path) -> Path:
    head = bytearray(Path(PYTHON).read_bytes()[:4096])
    head[18:20] = (183 if head[18] != 183 else 62).to_bytes(2, "little")
    return make(path, bytes(head))


REFUSALS: dict[str, tuple[Callable[[Path], Path], RefusalKind, str]] = {
    "missing": (lambda folder: folder / "nothing", RefusalKind.EXECUTABLE_MISSING, "does not exist"),
    "not executable": (
        lambda folder: make(folder / "plain", b"#!/bin/sh\n", 0o644),
        RefusalKind.NOT_EXECUTABLE,
        "not executable",
    ),
    "a folder": (lambda folder: folder, RefusalKind.NOT_EXECUTABLE, "is a folder"),
    "another architecture": (
        lambda folder: foreign_binary(folder / "foreign"),
        RefusalKind.WRONG_ARCHITECTURE,
        "is built for",
    ),
    "no such interpreter": (
        lambda folder: make(folder / "script", b"#!/usr/bin/nothing-here\n"),
        RefusalKind.INTERPRETER_MISSING,
        "/usr/bin/nothing-here",
    ),
    "empty": (lambda folder: make(folder / "empty", b""), RefusalKind.NOT_EXECUTABLE, "is empty"),
    "text without #!": (
        lambda folder: make(folder / "text", b"hello"),
        RefusalKind.NOT_EXECUTABLE,
        "neither a binary",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_why_an_executable_cannot_be_started_is_said_in_words(
    slot: SlotDriver, tmp_path: Path, case: str
) -> None:
    provide, kind, words = REFUSALS[case]
    connection = slot.open()
    request = connection.start(slot.order(provide(tmp_path)))
    refused = slot.next(connection, StartRefused)
    assert (refused.request, refused.kind) == (request, kind)
    assert words in refused.problem
    assert refused.next_step
    assert slot.state()["running"] is None
    slot.start(connection, slot.order("/bin/sleep", "60"))  # the lock and the slot are free again


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"working_directory": "/nowhere/at/all"}, RefusalKind.DIRECTORY_MISSING, "/nowhere/at/all"),
        ({"working_directory": "/bin/sh"}, RefusalKind.DIRECTORY_MISSING, "/bin/sh"),
        ({"limits": {"no_such": 1}}, RefusalKind.LIMITS, "no_such"),
        ({"user": "nobody-of-that-name"}, RefusalKind.USER_UNKNOWN, "nobody-of-that-name"),
        ({"argv": ()}, RefusalKind.INVALID, "argv"),
        ({"argv": ("a\0b",)}, RefusalKind.INVALID, "NUL"),
        ({"env": {"A": "b\0c"}}, RefusalKind.INVALID, "NUL"),
        ({"env": {"A=B": "c"}}, RefusalKind.INVALID, "variable"),
    ],
)
def test_a_wrong_order_is_refused_in_words(
    slot: SlotDriver, changes: dict[str, Any], kind: RefusalKind, words: str
) -> None:
    connection = slot.open()
    connection.start(slot.order("/bin/true", **changes))
    refused = slot.next(connection, StartRefused)
    assert refused.kind is kind
    assert words in refused.problem


def test_a_log_folder_that_cannot_be_made_is_a_refusal(slot: SlotDriver, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    connection = slot.open()
    output = slot.files()
    blocked = type(output)(directory=tmp_path / "file" / "logs", name="core")
    connection.start(slot.order("/bin/true", output=blocked))
    assert slot.next(connection, StartRefused).kind is RefusalKind.OUTPUT
    slot.start(connection, slot.order("/bin/true"))
    assert slot.exit(connection).code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="another user needs root")
def test_a_binary_runs_as_the_user_of_the_order_and_with_no_group_of_ours(slot: SlotDriver) -> None:
    ours = os.getgroups()
    os.setgroups([0, 4])
    try:
        connection = slot.open()  # its shim is in the same groups
    finally:
        os.setgroups(ours)
    order = LaunchOrder(
        executable="/bin/sh",
        argv=("sh", "-c", "id -u; id -g; echo again > /dev/stdout; id -G"),
        env={"PATH": "/usr/bin:/bin"},
        working_directory="/",
        output=slot.files(),
        user="nobody",
    )
    slot.start(connection, order)
    assert slot.exit(connection).code == 0
    assert slot.log().split()[0] == "65534"
    assert slot.log().split()[2] == "again"
    assert slot.log().split()[3:] == ["65534"]


def test_a_large_environment_gets_through_and_a_huge_one_is_refused_here(slot: SlotDriver) -> None:
    connection = slot.open()
    env = {f"SERVICE_{number}_PORT": "x" * 100 for number in range(3000)}
    slot.start(connection, slot.order("/bin/sh", "-c", "echo $SERVICE_2999_PORT", env=env))
    slot.exit(connection)
    assert slot.log().strip() == "x" * 100
    with pytest.raises(OrderTooLarge):
        connection.start(slot.order("/bin/true", env=env | {"MORE": "x" * 600_000}))


def test_a_very_long_home_works(slot: SlotDriver) -> None:
    deep = slot.folder
    while len(str(deep)) < 1000:
        deep = deep / ("d" * 200)
    driver = SlotDriver(deep)
    try:
        connection = driver.open()
        driver.start(connection, driver.order("/bin/sleep", "60"))
        connection.close()
        assert driver.open().hello.running is not None
    finally:
        driver.clean_up()
        shutil.rmtree(slot.folder)
        slot.folder.mkdir()


def test_the_slot_is_private(slot: SlotDriver) -> None:
    connection = slot.open()
    slot.start(connection, slot.order("/bin/sleep", "60"))
    for name in ("shim.sock", "shim.lock", "lock", "state.0", "output", "shim.err"):
        assert stat.S_IMODE((slot.folder / name).stat().st_mode) & 0o077 == 0, name


def test_the_shim_leads_a_session_of_its_own_and_keeps_none_of_our_descriptors(slot: SlotDriver) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        connection = slot.open()
    finally:
        os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b""  # end of file: the shim has no copy
    assert os.getsid(connection.hello.shim_pid) == connection.hello.shim_pid


def test_a_shim_leaves_a_vacant_unattended_slot(slot: SlotDriver) -> None:
    connection = slot.open(linger=0.05)
    connection.close()
    wait_until(lambda: not alive(connection.hello.shim_pid), "leaving")
    assert not (slot.folder / "shim.sock").exists()


def test_a_shim_leaves_when_told_and_not_while_a_binary_runs(slot: SlotDriver) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    os.kill(connection.hello.shim_pid, signal.SIGTERM)
    connection.leave()
    assert "runs" in slot.next(connection, Refused).problem
    os.kill(binary.pid, signal.SIGKILL)
    assert slot.exit(connection).signal == signal.SIGKILL
    connection.leave()
    wait_until(lambda: not alive(connection.hello.shim_pid), "leaving")
