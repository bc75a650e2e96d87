"""The socket between client and shim under everything that can come over it, from either side."""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.shim.conftest import DEADLINE, SlotDriver, alive, wait_until
from visor_actors.node import shim_process, shim_wire
from visor_actors.node.custody_errors import (
    ShimFenced,
    ShimGone,
    ShimIncompatible,
    ShimNotStarted,
    ShimReplaced,
    ShimUnavailable,
    ShimUnresponsive,
)
from visor_actors.node.custody_types import (
    Exited,
    InheritedOutput,
    Refused,
    RunningBinary,
    Started,
    StopProgress,
)
from visor_actors.node.shim_client import ShimConnection


def raw(slot: SlotDriver) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(DEADLINE)
    folder = os.open(slot.folder, os.O_PATH)
    try:
        sock.connect(f"/proc/self/fd/{folder}/shim.sock")
    finally:
        os.close(folder)
    return sock


def hello(epoch: int, *protocols: int) -> bytes:
    return json.dumps({"do": "hello", "protocols": protocols or (1, 2), "epoch": epoch}).encode() + b"\n"


def until_closed(sock: socket.socket) -> bytes:
    said = b""
    try:
        while data := sock.recv(65536):
            said += data
    except ConnectionResetError:
        pass
    return said


@pytest.fixture
def running(slot: SlotDriver) -> tuple[ShimConnection, RunningBinary]:
    connection = slot.open()
    return connection, slot.start(connection, slot.order("/bin/sleep", "60"))


GARBAGE: dict[str, bytes] = {
    "no JSON": b"hello\n",
    "not UTF-8": b"\xff\xfe\n",
    "a list": b"[1]\n",
    "a number": b"5\n",
    "empty line": b"\n",
    "open object": b"{\n",
    "deep nesting": b"[" * 100_000 + b"\n",
    "no command": b"{}\n",
    "command of a wrong type": b'{"do": 5, "request": {}}\n',
    "zeros": b"\0" * 1000 + b"\n",
    "oversize": b"x" * 700_000,
    "hello without epoch": b'{"do": "hello", "protocols": [2]}\n',
    "hello with a huge epoch": b'{"do": "hello", "protocols": [2], "epoch": 1e400}\n',
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_before_the_hello_costs_only_its_sender(
    slot: SlotDriver, running: tuple[ShimConnection, RunningBinary], case: str
) -> None:
    connection, binary = running
    with raw(slot) as sock:
        try:
            sock.sendall(GARBAGE[case])
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it closed already
        until_closed(sock)
    connection.stop(signal=signal.SIGTERM, timeout=60)
    assert slot.exit(connection).incarnation == binary.incarnation


BAD_COMMANDS: dict[str, bytes] = {
    "signal 0": b'{"do":"stop","request":1,"signal":0,"timeout":1}\n',
    "signal 99": b'{"do":"stop","request":1,"signal":99,"timeout":1}\n',
    "timeout NaN": b'{"do":"stop","request":1,"signal":15,"timeout":NaN}\n',
    "timeout in words": b'{"do":"stop","request":1,"signal":15,"timeout":"soon"}\n',
    "negative timeout": b'{"do":"stop","request":1,"signal":15,"timeout":-1}\n',
    "start without order": b'{"do":"start","request":1}\n',
    "garbage": b"garbage\n",
}


@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_a_client_that_talks_nonsense_is_dropped_and_the_binary_goes_on(slot: SlotDriver, case: str) -> None:
    connection = slot.open()
    binary = slot.start(connection, slot.order("/bin/sleep", "60"))
    with raw(slot) as sock:
        sock.sendall(hello(100) + BAD_COMMANDS[case])
        until_closed(sock)
    again = slot.open(epoch=101)
    assert again.hello.running == binary


def test_an_unknown_command_is_refused_and_the_connection_stays(slot: SlotDriver) -> None:
    slot.open()
    with raw(slot) as sock:
        sock.sendall(hello(100) + b'{"do":"dance","request":7}\n')
        file = sock.makefile("rb")
        assert json.loads(file.readline())["is"] == "hello"
        refused = shim_wire.parse_message(json.loads(file.readline()))
        assert refused == Refused(request=7, problem="unknown command 'dance'")
        file.close()


def test_a_malformed_order_is_refused_and_nothing_starts(slot: SlotDriver) -> None:
    slot.open()
    with raw(slot) as sock:
        sock.sendall(hello(100) + b'{"do":"start","request":7,"order":{"argv":[]}}\n')
        file = sock.makefile("rb")
        file.readline()
        assert json.loads(file.readline())["kind"] == "invalid"
        file.close()


def test_commands_without_a_hello_are_refused(
    slot: SlotDriver, running: tuple[ShimConnection, RunningBinary]
) -> None:
    _, binary = running
    with raw(slot) as sock:
        sock.sendall(b'{"do":"stop","request":3,"signal":9,"timeout":0}\n')
        assert json.loads(sock.recv(65536)) == {"is": "refused", "request": 3, "problem": "not attached"}
    assert alive(binary.pid)


def test_a_command_in_single_bytes_is_understood(slot: SlotDriver) -> None:
    slot.open()
    with raw(slot) as sock:
        for byte in hello(100):
            sock.send(bytes([byte]))
        assert json.loads(sock.recv(65536))["is"] == "hello"


def test_a_half_close_detaches(slot: SlotDriver, running: tuple[ShimConnection, RunningBinary]) -> None:
    _, binary = running
    with raw(slot) as sock:
        sock.sendall(hello(100))
        sock.shutdown(socket.SHUT_WR)
        until_closed(sock)
    assert alive(binary.pid)


def test_a_client_that_never_reads_does_not_hold_up_the_binary(slot: SlotDriver) -> None:
    """Its exits are kept, and the shim goes on to serve others."""
    slot.open()
    with raw(slot) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        order = shim_wire.encode_order(slot.order("/nowhere/" + "x" * 60_000))
        sock.sendall(hello(100))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # dropped, once it owes too much
            for number in range(60):
                sock.sendall(shim_wire.encode({"do": "start", "request": number, "order": order}))
        again = slot.open(epoch=101)
        slot.start(again, slot.order("/bin/true"))
        assert slot.exit(again).code == 0


def test_too_many_connections_are_turned_away_and_places_become_free(
    slot: SlotDriver, running: tuple[ShimConnection, RunningBinary]
) -> None:
    crowd = [raw(slot) for _ in range(12)]
    try:
        assert any(not sock.recv(1) for sock in crowd[7:])
    finally:
        for sock in crowd:
            sock.close()
    assert slot.open().hello.running == running[1]


def test_a_shim_that_leaves_starts_nothing_any_more(slot: SlotDriver) -> None:
    slot.open().close()
    start = {"do": "start", "request": 1, "order": shim_wire.encode_order(slot.order("/bin/sleep", "60"))}
    with raw(slot) as sock:
        sock.sendall(hello(99) + shim_wire.encode({"do": "leave", "request": 0}) + shim_wire.encode(start))
        assert b"started" not in until_closed(sock)
    wait_until(lambda: not shim_process.own_shims(), "leaving")
    assert slot.state()["running"] is None


def test_a_start_whose_descriptors_did_not_come_is_refused(slot: SlotDriver) -> None:
    slot.open().close()
    order = shim_wire.encode_order(slot.order("/bin/sleep", "60", output=InheritedOutput()))
    with raw(slot) as sock:
        sock.sendall(hello(99) + shim_wire.encode({"do": "start", "request": 1, "order": order, "fds": 2}))
        said = b""
        while said.count(b"\n") < 2:
            said += sock.recv(65536)
    answer = json.loads(said.splitlines()[1])
    assert (answer["is"], answer["kind"]) == ("start-refused", "resources")


def test_descriptors_sent_without_need_are_closed(slot: SlotDriver) -> None:
    connection = slot.open()
    read, write = os.pipe()
    with raw(slot) as sock:
        sock.sendmsg([hello(100)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [write] * 3))])
        until_hello = sock.recv(65536)
        assert b"hello" in until_hello
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b""
    assert alive(connection.hello.shim_pid)


# who may speak


def test_a_newer_client_replaces_the_older_one(
    slot: SlotDriver, running: tuple[ShimConnection, RunningBinary]
) -> None:
    old, binary = running
    new = slot.open()
    with pytest.raises(ShimReplaced):
        slot.exit(old)
    with pytest.raises(ShimGone):
        old.stop(signal=signal.SIGKILL, timeout=0)
    assert new.receive() == []
    assert alive(binary.pid)


def test_an_older_epoch_is_fenced_even_after_the_shim_was_killed(
    slot: SlotDriver, running: tuple[ShimConnection, RunningBinary]
) -> None:
    connection, _ = running
    slot.open(epoch=50)
    with pytest.raises(ShimFenced) as fenced:
        slot.open(epoch=49)
    assert fenced.value.highest == 50
    slot.kill_shim(connection)
    with pytest.raises(ShimFenced):
        slot.open(epoch=49)
    assert slot.open(epoch=50).hello.running is not None


def test_epochs_of_an_earlier_boot_fence_nobody(slot: SlotDriver) -> None:
    connection = slot.open(epoch=10**18)
    slot.kill_shim(connection)
    slot.edit_state(lambda state: state.update(boot_id="00000000-0000-0000-0000-000000000000"))
    assert slot.open(epoch=1).hello.running is None


def test_the_same_epoch_may_attach_again(slot: SlotDriver) -> None:
    slot.open(epoch=5)
    slot.open(epoch=5)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_user_is_turned_away(slot: SlotDriver, running: tuple[ShimConnection, RunningBinary]) -> None:
    _, binary = running
    for folder in (slot.folder, *slot.folder.parents):
        if folder == Path("/"):
            break
        folder.chmod(folder.stat().st_mode | 0o755)
    (slot.folder / "shim.sock").chmod(0o777)
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(DEADLINE)
            os.chdir(slot.folder)
            sock.connect("shim.sock")
            try:
                sock.sendall(hello(1000) + b'{"do":"stop","request":1,"signal":9,"timeout":0}\n')
                os._exit(0 if until_closed(sock) == b"" else 1)
            except BrokenPipeError:
                os._exit(0)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert alive(binary.pid)


# versions


def test_a_client_of_the_previous_protocol_is_served_without_what_it_does_not_know(slot: SlotDriver) -> None:
    slot.open()
    with raw(slot) as sock:
        sock.sendall(hello(100, 1))
        file = sock.makefile("rb")
        assert json.loads(file.readline())["protocol"] == 1
        order = shim_wire.encode_order(slot.order("/bin/sleep", "60"))
        sock.sendall(shim_wire.encode({"do": "start", "request": 1, "order": order}))
        sock.sendall(b'{"do":"stop","request":2,"signal":15,"timeout":60}\n')
        assert [json.loads(file.readline())["is"] for _ in range(2)] == ["started", "exited"]
        file.close()


def test_a_client_of_an_unknown_protocol_is_told_which_ones_there_are(slot: SlotDriver) -> None:
    slot.open()
    with raw(slot) as sock:
        sock.sendall(hello(100, 77))
        assert json.loads(until_closed(sock)) == {"is": "unspoken", "protocols": [1, 2]}


class FakeShim:
    """Listens where a shim would and says what the test wants."""

    def __init__(self, folder: Path, answer: Callable[[socket.socket], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(folder / "shim.sock"))
        self.listener.listen()
        self.listener.settimeout(DEADLINE)
        self.answer = answer
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        sock, _ = self.listener.accept()
        with sock:
            sock.settimeout(DEADLINE)
            sock.recv(65536)
            self.answer(sock)

    def __enter__(self) -> FakeShim:
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join()
        self.listener.close()


HELLO: dict[str, Any] = {
    "is": "hello",
    "protocol": 2,
    "shim_pid": 0,
    "running": None,
    "held_by": None,
    "exits": 0,
    "exits_lost": 0,
}


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


@pytest.mark.parametrize(
    "said",
    [b"nonsense\n", b"[]\n", b'{"is":"hello"}\n', b'{"is":"dance"}\n', b'{"is":5}\n', b"[" * 100_000 + b"\n"],
)
def test_whatever_is_no_shim_is_said_to_be_none(slot: SlotDriver, said: bytes) -> None:
    with (
        FakeShim(slot.folder, lambda sock: sock.sendall(said)),
        pytest.raises(ShimUnavailable, match="not a shim"),
    ):
        slot.open()


def test_a_shim_that_never_answers_is_unresponsive(slot: SlotDriver) -> None:
    done = threading.Event()
    with FakeShim(slot.folder, lambda sock: [None for _ in [done.wait(DEADLINE)]].clear()):
        with pytest.raises(ShimUnresponsive):
            ShimConnection.open(slot.folder, epoch=1, timeout=0.1)
        done.set()


def test_a_shim_that_speaks_none_of_our_versions_is_incompatible(slot: SlotDriver) -> None:
    said = line(**{"is": "unspoken", "protocols": [9]})
    with FakeShim(slot.folder, lambda sock: sock.sendall(said)), pytest.raises(ShimIncompatible, match="9"):
        slot.open()


def test_a_shim_of_the_previous_protocol_is_understood(slot: SlotDriver) -> None:
    """It has fewer messages, and hello without the count of lost exits."""
    fields = {key: value for key, value in HELLO.items() if key != "exits_lost"} | {"protocol": 1}
    with FakeShim(slot.folder, lambda sock: sock.sendall(line(**fields))):
        connection = slot.open()
    assert connection.hello.protocol == 1
    assert connection.hello.exits_lost == 0


@pytest.mark.parametrize(
    "said",
    [
        b"nonsense\n",
        b'{"is":"exited"}\n',
        b'{"is":"started","request":"x","binary":{}}\n',
        b"x" * 1_200_000,
        b'{"is":"exited","record":5}\n',
    ],
)
def test_nonsense_from_the_shim_ends_the_connection(slot: SlotDriver, said: bytes) -> None:
    def answer(sock: socket.socket) -> None:
        sock.sendall(line(**HELLO))
        with contextlib.suppress(OSError):  # closed by the client, as it should be
            sock.sendall(said)

    with FakeShim(slot.folder, answer):
        connection = slot.open()
        with pytest.raises(ShimGone):
            slot.exit(connection)
        connection.close()


def test_what_came_before_the_end_of_the_connection_is_still_returned(slot: SlotDriver) -> None:
    said = line(**{"is": "refused", "request": 4, "problem": "no"}) + line(**{"is": "a newer kind"})
    with FakeShim(slot.folder, lambda sock: sock.sendall(line(**HELLO) + said)):
        connection = slot.open()
    assert slot.next(connection, Refused) == Refused(request=4, problem="no")
    for _ in range(2):
        with pytest.raises(ShimGone):
            connection.receive()


def test_a_message_right_behind_the_hello_makes_the_descriptor_readable(slot: SlotDriver) -> None:
    said = line(**HELLO) + line(**{"is": "refused", "request": 4, "problem": "no"})
    with FakeShim(slot.folder, lambda sock: sock.sendall(said)):
        connection = slot.open()
    assert slot.next(connection, Refused).request == 4


def test_a_shim_that_stops_reading_does_not_block_a_start_for_ever(slot: SlotDriver) -> None:
    done = threading.Event()

    def answer(sock: socket.socket) -> None:
        sock.sendall(line(**HELLO))
        done.wait(DEADLINE)

    with FakeShim(slot.folder, answer):
        connection = slot.open()
        order = slot.order("/bin/true", env={"A": "x" * 400_000})
        try:
            with pytest.raises(ShimGone, match="does not take commands"):
                connection.start(order)
        finally:
            done.set()


def test_shims_that_cannot_live_are_reported_and_not_started_for_ever(slot: SlotDriver) -> None:
    slot.folder.mkdir(parents=True)
    (slot.folder / "shim.lock").mkdir()
    with pytest.raises(ShimNotStarted, match="IsADirectoryError"):
        slot.open()


def test_a_slot_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ShimNotStarted, match="cannot be made"):
        ShimConnection.open(tmp_path / "file" / "slot", epoch=1)


def test_messages_keep_their_order(slot: SlotDriver) -> None:
    connection = slot.open()
    connection.start(slot.order("/bin/sleep", "60"))
    connection.stop(signal=signal.SIGTERM, timeout=60)
    seen: list[type] = []

    def ended() -> bool:
        seen.extend(type(message) for message in connection.receive())
        return Exited in seen

    wait_until(ended)
    assert seen == [Started, StopProgress, Exited]
