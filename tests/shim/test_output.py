"""Output in files: nothing lost, cut only at line ends, and never in the binary's way."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.shim.conftest import SlotDriver, alive, state_of, wait_until
from visor_actors.node import shim_process
from visor_actors.node.custody_types import LogsDropped, OutputFiles, RefusalKind, StartRefused
from visor_actors.node.logs_reader import LogFollower, last_lines, log_path, rotated_files
from visor_actors.shim.capture import Capture
from visor_actors.shim.loop import Loop
from visor_actors.shim.output import Output

FLOOD = """
import os
data = b"".join(b"%08d " % n + b"x" * (n % 90) + b"\\n" for n in range({lines}))
view = memoryview(data)
while view:
    view = view[os.write(1, view[:65536]):]
"""


def flood(lines: int) -> str:
    return FLOOD.format(lines=lines)


def flooded(lines: int) -> bytes:
    return b"".join(b"%08d " % number + b"x" * (number % 90) + b"\n" for number in range(lines))


def whole_log(output: OutputFiles) -> bytes:
    files = rotated_files(log_path(output.directory, output.name))
    return b"".join(file.read_bytes() for file in reversed(files))


def test_no_byte_of_a_flood_is_lost_and_both_streams_arrive(slot: SlotDriver) -> None:
    connection = slot.open()
    slot.start(connection, slot.script(flood(100_000) + "\nos.write(2, b'the end\\n')"))
    record = slot.exit(connection)
    assert whole_log(slot.files()) == flooded(100_000) + b"the end\n"
    assert record.last_lines[-1] == "the end"
    assert len(record.last_lines) == 20


def test_many_small_lines_arrive(slot: SlotDriver) -> None:
    connection = slot.open()
    slot.start(connection, slot.script("import os\nfor n in range(20000): os.write(1, b'%d\\n' % n)"))
    slot.exit(connection)
    assert slot.log().split() == [str(number) for number in range(20000)]


def test_files_are_rotated_at_line_ends_and_the_oldest_are_dropped(slot: SlotDriver) -> None:
    connection = slot.open()
    output = slot.files(max_bytes=100_000, keep=3)
    slot.start(connection, slot.script(flood(20_000), output=output))
    slot.exit(connection)
    files = rotated_files(log_path(output.directory, output.name))
    assert [file.name for file in files] == ["core.log", "core.log.1", "core.log.2", "core.log.3"]
    for file in files:
        content = file.read_bytes()
        assert content.endswith(b"\n")
        assert re.match(rb"\d{8} x*\n", content)
        assert len(content) <= 100_000 + 200
    assert flooded(20_000).endswith(whole_log(output))


def test_rotation_loses_nothing_while_enough_files_are_kept(slot: SlotDriver) -> None:
    connection = slot.open()
    output = slot.files(max_bytes=50_000, keep=100)
    slot.start(connection, slot.script(flood(40_000), output=output))
    slot.exit(connection)
    assert whole_log(output) == flooded(40_000)


def test_no_rotated_file_is_kept_where_none_is_wanted(slot: SlotDriver) -> None:
    connection = slot.open()
    output = slot.files(max_bytes=10_000, keep=0)
    slot.start(connection, slot.script(flood(2_000), output=output))
    slot.exit(connection)
    assert [path.name for path in output.directory.iterdir()] == ["core.log"]


def test_an_endless_line_is_cut_some_time(slot: SlotDriver) -> None:
    connection = slot.open()
    output = slot.files(max_bytes=100_000, keep=50)
    slot.start(
        connection, slot.script("import os\nfor _ in range(60): os.write(1, b'y' * 65536)", output=output)
    )
    slot.exit(connection)
    assert whole_log(output) == b"y" * 65536 * 60
    # At what it is for, and not at every write: files of max_bytes and 1 MiB of the line.
    assert 1 < len(rotated_files(log_path(output.directory, output.name))) < 6


def test_an_earlier_log_is_continued(slot: SlotDriver) -> None:
    connection = slot.open()
    for word in ("one", "two"):
        slot.start(connection, slot.order("/bin/echo", word))
        record = slot.exit(connection)
        assert record.last_lines == (word,)
    assert slot.log() == "one\ntwo\n"


def test_last_lines_reach_over_a_rotation_and_bytes_that_are_no_text_do_no_harm(slot: SlotDriver) -> None:
    connection = slot.open()
    text = "import os\nos.write(1, b'a' * 60 + b'\\n' + b'\\xff\\xfe\\n' + b'b\\n')"
    slot.start(connection, slot.script(text, output=slot.files(max_bytes=10)))
    assert slot.exit(connection).last_lines == ("a" * 60, "\ufffd\ufffd", "b")


# death around it


def test_no_line_is_lost_and_no_sigpipe_comes_when_the_shim_dies_in_a_flood(slot: SlotDriver) -> None:
    """The binary blocks while nobody reads, and goes on when the next shim does."""
    connection = slot.open()
    binary = slot.start(connection, slot.script(flood(100_000)))
    wait_until(lambda: (slot.folder / "logs" / "core.log").stat().st_size > 0)
    slot.kill_shim(connection)
    again = slot.open()
    for _ in range(3):
        slot.kill_shim(again)
        again = slot.open()
    record = again.hello.exits[0] if again.hello.exits else slot.exit(again)
    assert record.incarnation == binary.incarnation
    assert whole_log(slot.files()) == flooded(100_000)


def test_no_sigpipe_comes_when_shim_and_client_die_in_a_flood(slot: SlotDriver) -> None:
    """Nobody else has the pipe open then; the binary has its own end of it for reading too."""
    connection = slot.open()
    go = slot.folder / "go"
    text = (
        "import os, time\nos.write(1, b'')\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.005)\n" + flood(60_000)
    )
    binary = slot.start(connection, slot.script(text))
    slot.kill_shim(connection)
    connection.close()
    go.touch()
    asleep = 0

    def blocked() -> bool:
        nonlocal asleep
        asleep = asleep + 1 if state_of(binary.pid) == "S" else 0
        return asleep == 40

    wait_until(blocked, "waiting for a reader")
    assert alive(binary.pid)
    again = slot.open()
    slot.exit(again)
    assert whole_log(slot.files()) == flooded(60_000)


def test_no_line_is_lost_when_the_client_dies_in_a_flood(slot: SlotDriver) -> None:
    connection = slot.open()
    slot.start(connection, slot.script(flood(100_000)))
    connection.close()
    wait_until(lambda: bool(slot.state()["exits"]))
    (record,) = slot.open().hello.exits
    assert record.code == 0
    assert whole_log(slot.files()) == flooded(100_000)


def test_an_idle_binary_keeps_its_output_over_the_death_of_the_shim(slot: SlotDriver) -> None:
    connection = slot.open()
    go = slot.folder / "go"
    text = (
        "import os, time\nos.write(1, b'before\\n')\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.005)\n"
        "os.write(1, b'while nobody reads\\n'); time.sleep(600)"
    )
    slot.start(connection, slot.script(text))
    wait_until(lambda: "before" in slot.log())
    slot.kill_shim(connection)
    go.touch()
    slot.open()
    wait_until(lambda: slot.log() == "before\nwhile nobody reads\n")


def test_last_words_outlive_binary_and_shim_while_a_client_is_attached(slot: SlotDriver) -> None:
    connection = slot.open()
    go = slot.folder / "go"
    text = (
        "import os, time\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.005)\n"
        "os.write(1, b'last words\\n')"
    )
    binary = slot.start(connection, slot.script(text))
    os.kill(connection.hello.shim_pid, signal.SIGSTOP)
    go.touch()
    wait_until(lambda: not alive(binary.pid), "the end of the binary")
    slot.kill_shim(connection)
    again = slot.open()
    assert [record.incarnation for record in again.hello.exits] == [binary.incarnation]
    assert slot.log() == "last words\n"


def test_what_leftovers_wrote_after_the_leader_s_end_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = Output(Loop(), lambda _: None)
    output.resume({"directory": str(tmp_path), "name": "core", "max_bytes": 1000, "keep": 1})
    leftover = os.open("output", os.O_WRONLY)
    try:
        os.write(leftover, b"the leader's last line\n")
        record: dict[str, Any] = {"last_lines": []}
        output.finish(record)
        os.write(leftover, b"and one of its child's\n")
    finally:
        os.close(leftover)
    output.end()
    assert record["last_lines"] == ["the leader's last line"]
    assert (tmp_path / "core.log").read_text() == "the leader's last line\nand one of its child's\n"


# disks


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small disk at ``folder``; skips the test where none can be mounted."""
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mount.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mount.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", "size=256k") as folder:
        yield folder


def test_a_full_disk_neither_blocks_nor_ends_the_binary_and_what_is_lost_is_counted(
    slot: SlotDriver, small_disk: Path
) -> None:
    connection = slot.open()
    output = OutputFiles(directory=small_disk, name="core")
    go = slot.folder / "go"
    text = (
        flood(40_000)
        + f"\nimport time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.005)\n"
        + "for n in range(300): os.write(1, b'after %d\\n' % n); time.sleep(0.01)\n"
    )
    binary = slot.start(connection, slot.script(text, output=output))
    lost = slot.next(connection, LogsDropped)
    assert "No space left" in lost.problem
    assert 0 < lost.dropped <= lost.total
    assert alive(binary.pid)
    kept = (small_disk / "core.log").read_bytes()
    assert flooded(40_000).startswith(kept)
    # Room is made: the log says what is missing and goes on at the beginning of a line.
    (small_disk / "core.log").unlink()
    go.touch()
    record = slot.exit(connection)
    assert record.code == 0
    lines = (small_disk / "core.log").read_text().splitlines()
    notes = [line for line in lines if "bytes of output dropped" in line]
    assert notes
    rest = lines[lines.index(notes[-1]) + 1 :]
    assert rest[-1] == "after 299"
    assert all(re.fullmatch(r"after \d+", line) for line in rest)


def fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_on_a_full_disk_a_binary_starts_unless_it_cannot_be_recorded(small_disk: Path) -> None:
    driver = SlotDriver(small_disk / "core")
    try:
        connection = driver.open()
        order = driver.order("/bin/sleep", "60", output=OutputFiles(directory=small_disk, name="x"))
        driver.start(connection, order)
        fill = small_disk / "fill"
        with pytest.raises(OSError, match="No space"):
            fill_up(fill)
        connection.stop(signal=signal.SIGKILL, timeout=0)
        record = driver.exit(connection)
        assert record.known
        connection.acknowledge(record.incarnation)
        driver.start(connection, order)  # the state's room was reserved
        connection.stop(signal=signal.SIGKILL, timeout=0)
        assert driver.exit(connection).known
        large = driver.order("/bin/sleep", *["x" * 40_000] * 3, output=order.output)
        connection.start(large)
        refused = driver.next(connection, StartRefused)
        assert refused.kind is RefusalKind.RESOURCES
        assert "No space left" in refused.problem
        fill.unlink()
        driver.start(connection, large)
    finally:
        driver.clean_up()


def test_on_a_full_disk_a_binary_whose_shim_was_killed_is_adopted(small_disk: Path) -> None:
    driver = SlotDriver(small_disk / "core")
    try:
        connection = driver.open()
        output = OutputFiles(directory=small_disk, name="x")
        binary = driver.start(connection, driver.order("/bin/sleep", "60", output=output))
        with pytest.raises(OSError, match="No space"):
            fill_up(small_disk / "fill")
        driver.kill_shim(connection)
        connection = driver.open()
        assert connection.hello.running is not None
        assert connection.hello.running.pid == binary.pid
        assert shim_process.find_shim(driver.folder) == connection.hello.shim_pid
        driver.kill_shim(connection)
        os.truncate(driver.folder / "shim.lock", 0)  # the room for its pid goes to somebody else
        with pytest.raises(OSError, match="No space"):
            fill_up(small_disk / "fill more")
        connection = driver.open()
        driver.pids.add(connection.hello.shim_pid)
        assert connection.hello.running is not None
        assert connection.hello.running.pid == binary.pid
    finally:
        driver.clean_up()


@pytest.mark.parametrize(
    ("room", "max_bytes", "problem"),
    [
        pytest.param("size=4m,nr_inodes=4", 20_050, "No space left", id="no new file"),
        pytest.param("size=32k", 32 * 1024, "No space left", id="no room for the end of a line"),
        pytest.param("size=64k", 20_000, "No space left", id="no room for the rest"),
    ],
)
def test_every_byte_is_kept_or_counted_when_a_rotation_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: str, max_bytes: int, problem: str
) -> None:
    disk = tmp_path / "small"
    monkeypatch.chdir(tmp_path)
    with mounted(disk, room):
        capture = Capture({"directory": str(disk), "name": "core", "max_bytes": max_bytes, "keep": 100})
        out = os.open("output", os.O_WRONLY)
        try:
            for number in range(2000):
                os.write(out, b"%099d\n" % number)
                if number % 50 == 49:
                    capture.move()
            while capture.move():
                pass
            kept = b"".join(path.read_bytes() for path in disk.iterdir())
        finally:
            capture.close()
            os.close(out)
    written = sum(len(line) + 1 for line in kept.splitlines() if b"visor-actors" not in line)
    written -= not kept.endswith(b"\n")
    assert problem in capture.problem
    assert written + capture.dropped_total == 2000 * 100


def test_a_log_file_that_is_deleted_is_made_again(slot: SlotDriver) -> None:
    connection = slot.open()
    output = slot.files(max_bytes=20_000, keep=2)
    go = slot.folder / "go"
    text = (
        "import os, time\nos.write(1, b'before\\n')\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.005)\n"
        "os.write(1, b'after\\n')"
    )
    slot.start(connection, slot.script(text, output=output))
    wait_until(lambda: slot.log() == "before\n")
    log_path(output.directory, output.name).unlink()
    go.touch()
    assert slot.exit(connection).code == 0
    assert slot.log() == "after\n"


def test_a_log_folder_that_is_taken_away_is_made_again(slot: SlotDriver) -> None:
    connection = slot.open()
    output = slot.files(max_bytes=20_000, keep=2)
    go = slot.folder / "go"
    text = (
        "import os, time\nos.write(1, b'one\\n')\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.005)\n"
        + flood(2_000)
        + "os.write(1, b'last\\n')"
    )
    slot.start(connection, slot.script(text, output=output))
    wait_until(lambda: "one" in slot.log())
    shutil.rmtree(output.directory)
    go.touch()
    assert slot.exit(connection).code == 0
    assert slot.log().endswith("last\n")


# reading them


def test_a_follower_sees_every_line_through_rotations(slot: SlotDriver) -> None:
    connection = slot.open()
    output = slot.files(max_bytes=50_000, keep=200)
    seen: list[bytes] = []
    with LogFollower(log_path(output.directory, output.name)) as follower:
        slot.start(connection, slot.script(flood(40_000), output=output))

        def complete() -> bool:
            seen.extend(follower.read())
            return len(seen) >= 40_000

        wait_until(complete)
    assert b"\n".join(seen) + b"\n" == flooded(40_000)
    assert last_lines(log_path(output.directory, output.name), 30_000) == seen[-30_000:]
    assert os.path.exists(output.directory / "core.log.5")
