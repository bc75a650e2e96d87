from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.api.fake_visor import FakeVisor, listening, serve, wait_until
from visor_actors.actor import ActorSystem, Address
from visor_actors.actors.config_watcher import ConfigChanged
from visor_actors.actors.control import ControlRefused, StopMode
from visor_actors.api.actor import MAX_CONNECTIONS
from visor_actors.api.client import ClientError, ControlClient, NotRunning, Unreachable
from visor_actors.api.http import Response, parse_response, render_request
from visor_actors.api.sockets import connect_private
from visor_actors.home.layout import HomeLayout

PATIENT = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def exchange(connection: socket.socket, request: bytes) -> Response:
    with connection:
        connection.sendall(request)
        data = bytearray()
        while more := connection.recv(65536):
            data += more
    return parse_response(bytes(data))


def over_tcp(port: int, path: str, token: str | None = None) -> Response:
    request = render_request("GET", path, None)
    host = b"Host: 127.0.0.1\r\n"
    if token is not None:
        host += b"Authorization: Bearer " + token.encode() + b"\r\n"
    request = request.replace(b"Host: visor\r\n", host)
    return exchange(socket.create_connection(("127.0.0.1", port), PATIENT), request)


def change(visor: FakeVisor, system: ActorSystem, listen: str | None, token_file: Path | None = None) -> None:
    visor.settings = listening(visor.settings, listen, token_file)
    system.tell(Address("api"), ConfigChanged(config=visor.settings, changes=()))


def settles(look: Callable[[], bool]) -> None:
    """Wait until ``look`` is true; nobody answering meanwhile is not true."""

    def looked() -> bool:
        try:
            return look()
        except (OSError, ClientError):
            return False

    wait_until(looked, PATIENT)


def test_the_client_gets_what_the_port_says(layout: HomeLayout, served: FakeVisor) -> None:
    client = ControlClient(layout.socket)
    assert client.status() == served.report
    assert client.tree() == served.snapshot
    assert client.upgrades() == served.known
    assert client.counters() == served.report.counters


def test_the_client_gives_every_command(layout: HomeLayout, served: FakeVisor) -> None:
    client = ControlClient(layout.socket)
    client.restart("core")
    client.stop(StopMode.DETACH)
    client.hold("v1")
    client.resume(None)
    assert client.prepare("v1").message == "prepare accepted"
    assert served.commands == [
        ("restart", "core"),
        ("stop", StopMode.DETACH),
        ("hold", "v1"),
        ("resume", None),
        ("prepare", "v1"),
    ]


def test_a_refusal_arrives_as_it_was_raised(layout: HomeLayout, served: FakeVisor) -> None:
    served.refusal = ControlRefused("not now", "later")
    with pytest.raises(ControlRefused) as caught:
        ControlClient(layout.socket).restart(None)
    assert (caught.value.problem, caught.value.next_step) == ("not now", "later")


def test_without_a_visor_the_client_says_so(layout: HomeLayout) -> None:
    with pytest.raises(NotRunning):
        ControlClient(layout.socket).status()


def test_the_socket_a_killed_visor_left_means_that_none_runs(layout: HomeLayout) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(layout.socket))
    dead.close()
    with pytest.raises(NotRunning):
        ControlClient(layout.socket).status()


def test_a_visor_that_does_not_answer_is_told_from_none(layout: HomeLayout) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(layout.socket))
        silent.listen()
        with pytest.raises(Unreachable, match="did not answer within"):
            ControlClient(layout.socket, timeout=0.05).status()


def test_an_answer_that_is_cut_short_is_not_taken_for_one(layout: HomeLayout) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(layout.socket))
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unreachable, match="cut short"):
            ControlClient(layout.socket).status()
        thread.join()


def test_the_control_socket_is_private_and_gone_after_a_stop(layout: HomeLayout, visor: FakeVisor) -> None:
    with serve(layout, visor):
        assert layout.socket.stat().st_mode & 0o777 == 0o600
    assert not layout.socket.exists()


def test_two_hundred_connections_at_once_are_all_answered(layout: HomeLayout, served: FakeVisor) -> None:
    start = threading.Barrier(50)

    def four(_: int) -> int:
        start.wait(PATIENT)
        client = ControlClient(layout.socket, timeout=PATIENT)
        return sum(client.status() == served.report for _ in range(4))

    with ThreadPoolExecutor(50) as pool:
        assert sum(pool.map(four, range(50))) == 200


def test_two_hundred_silent_connections_do_not_lock_the_operator_out(
    layout: HomeLayout, served: FakeVisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visor_actors.api.exchange.REQUEST_SECONDS", 600.0)  # not that is to end them
    silent = [connect_private(layout.socket, PATIENT) for _ in range(200)]
    try:
        assert ControlClient(layout.socket, timeout=PATIENT).status() == served.report
    finally:
        for connection in silent:
            connection.close()


def test_a_client_that_sends_a_byte_at_a_time_gets_no_more_time_than_others(
    layout: HomeLayout, served: FakeVisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visor_actors.api.exchange.REQUEST_SECONDS", 0.3)
    with connect_private(layout.socket, PATIENT) as slow:
        stop = threading.Event()

        def dribble() -> None:
            try:
                while not stop.wait(0.05):
                    slow.sendall(b"G")
            except OSError:
                pass

        thread = threading.Thread(target=dribble)
        thread.start()
        try:
            data = slow.recv(65536)
        finally:
            stop.set()
            thread.join()
        assert data.startswith(b"HTTP/1.1 408 ")


def test_a_client_that_never_reads_its_answer_does_not_keep_its_place(
    layout: HomeLayout, served: FakeVisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visor_actors.api.exchange.RESPONSE_SECONDS", 0.2)
    many = {f"event.{number}-{'x' * 200}": number for number in range(2000)}
    served.report = replace(served.report, counters=many)  # more than any socket buffer holds
    deaf = [connect_private(layout.socket, PATIENT) for _ in range(MAX_CONNECTIONS)]
    try:
        for connection in deaf:
            connection.sendall(render_request("GET", "/metrics", None))
        assert ControlClient(layout.socket, timeout=PATIENT).tree() == served.snapshot
    finally:
        for connection in deaf:
            connection.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /stop HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 200_000, 413),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"\x00" * 100 + b"\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\n\r\n", 501),
        (b"DELETE /status HTTP/1.1\r\n\r\n", 405),
    ],
)
def test_hostile_requests_get_their_status_even_if_they_never_end(
    layout: HomeLayout, served: FakeVisor, request_bytes: bytes, status: int
) -> None:
    with connect_private(layout.socket, PATIENT) as connection:
        connection.sendall(request_bytes)
        assert connection.recv(65536).startswith(b"HTTP/1.1 %d " % status)
    assert served.commands == []


def test_a_client_that_hangs_up_harms_nobody(layout: HomeLayout, served: FakeVisor) -> None:
    for piece in (b"", b"GET /sta", render_request("GET", "/status", None)):
        with connect_private(layout.socket, PATIENT) as connection:
            connection.sendall(piece)
    assert ControlClient(layout.socket).status() == served.report


def test_a_question_that_hangs_holds_up_no_other(layout: HomeLayout, served: FakeVisor) -> None:
    served.gate.clear()
    with connect_private(layout.socket, PATIENT) as waiting:
        waiting.sendall(render_request("GET", "/status", None))
        assert ControlClient(layout.socket).tree() == served.snapshot
        served.gate.set()
        assert waiting.recv(100).startswith(b"HTTP/1.1 200 ")


def test_serving_leaves_no_descriptor_and_no_thread_behind(layout: HomeLayout, visor: FakeVisor) -> None:
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    with serve(layout, visor):
        for _ in range(50):
            ControlClient(layout.socket).status()
    wait_until(lambda: threading.active_count() == threads)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_restarted_api_serves_the_same_socket(layout: HomeLayout, visor: FakeVisor) -> None:
    with serve(layout, visor) as system:
        for _ in range(3):
            generation = system.tree().children[0].generation
            system.inject(Address("api"), _crash)
            wait_until(partial(_newer_than, system, generation))
            settles(lambda: ControlClient(layout.socket).status() == visor.report)


def _newer_than(system: ActorSystem, generation: int) -> bool:
    return system.tree().children[0].generation > generation


def _crash() -> None:
    raise RuntimeError("a bug")


def test_tcp_is_read_only_and_needs_no_token_on_loopback(layout: HomeLayout, visor: FakeVisor) -> None:
    port = free_port()
    visor.settings = listening(visor.settings, f"127.0.0.1:{port}")
    with serve(layout, visor):
        assert over_tcp(port, "/status").status == 200
        assert over_tcp(port, "/metrics").content_type.startswith("text/plain; version=0.0.4")
        assert b"<h1>visor" in over_tcp(port, "/").body
        assert over_tcp(port, "/stop").status == 403
        assert visor.commands == []


def test_an_address_for_others_is_not_served_without_a_token(layout: HomeLayout, visor: FakeVisor) -> None:
    visor.settings = listening(visor.settings, f"0.0.0.0:{free_port()}")
    with serve(layout, visor):
        assert ControlClient(layout.socket).status() == visor.report
        assert [event.name for event in visor.events] == ["api.listen-failed"]


def test_with_a_token_file_the_token_is_needed_everywhere(
    layout: HomeLayout, visor: FakeVisor, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    port = free_port()
    visor.settings = listening(visor.settings, f"0.0.0.0:{port}", tmp_path / "token")
    with serve(layout, visor):
        assert over_tcp(port, "/status").status == 401
        assert over_tcp(port, "/status", "wrong").status == 401
        assert over_tcp(port, "/status", "s3cret").status == 200


def test_a_reload_moves_the_port_and_closes_the_old_one(layout: HomeLayout, visor: FakeVisor) -> None:
    first, second = free_port(), free_port()
    visor.settings = listening(visor.settings, f"127.0.0.1:{first}")
    with serve(layout, visor) as system:
        assert over_tcp(first, "/tree").status == 200
        change(visor, system, f"127.0.0.1:{second}")
        settles(lambda: over_tcp(second, "/tree").status == 200)
        with pytest.raises(ConnectionRefusedError):
            over_tcp(first, "/tree")
        change(visor, system, None)
        settles(lambda: _refused(second))
        assert ControlClient(layout.socket).status() == visor.report


def _refused(port: int) -> bool:
    try:
        over_tcp(port, "/tree")
    except ConnectionRefusedError:
        return True
    return False


def test_a_taken_port_is_reported_once_and_served_when_it_is_free(
    layout: HomeLayout, visor: FakeVisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visor_actors.api.actor._RETRY_SECONDS", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        visor.settings = listening(visor.settings, f"127.0.0.1:{port}")
        with serve(layout, visor):
            assert ControlClient(layout.socket).status() == visor.report
            other.close()
            settles(lambda: over_tcp(port, "/tree").status == 200)
            assert [event.name for event in visor.events] == ["api.listen-failed", "api.listen-served"]
            assert visor.events[0].next_step


def test_a_control_socket_that_cannot_be_made_is_reported_and_tried_again(
    layout: HomeLayout, visor: FakeVisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visor_actors.api.actor._RETRY_SECONDS", 0.02)
    layout.socket.mkdir()
    with serve(layout, visor):
        wait_until(lambda: [event.name for event in visor.events] == ["api.socket-failed"])
        layout.socket.rmdir()
        settles(lambda: _serves(layout, visor))
        assert [event.name for event in visor.events] == ["api.socket-failed", "api.socket-served"]


def _serves(layout: HomeLayout, visor: FakeVisor) -> bool:
    try:
        return ControlClient(layout.socket).status() == visor.report
    except NotRunning:
        return False


def test_the_answer_to_stop_arrives_although_the_api_ends(layout: HomeLayout, visor: FakeVisor) -> None:
    for _ in range(10):
        with serve(layout, visor) as system:
            visor.on_command = system.stop
            assert ControlClient(layout.socket).stop(StopMode.STOP).message == "stop accepted"


def test_the_api_waits_a_moment_for_answers_that_are_under_way(
    layout: HomeLayout, visor: FakeVisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visor_actors.api.actor._GOODBYE_SECONDS", PATIENT)
    asked, answered = threading.Event(), threading.Event()
    with serve(layout, visor):

        def dawdle() -> None:
            asked.set()
            wait_until(lambda: not layout.socket.exists())
            threading.Event().wait(0.2)  # long enough for an API that does not wait to be gone
            answered.set()

        visor.on_command = dawdle
        connection = connect_private(layout.socket, PATIENT)
        connection.sendall(render_request("POST", "/stop", b"{}"))
        assert asked.wait(PATIENT)
    assert answered.is_set()
    connection.close()


def test_questions_that_hang_do_not_hold_up_the_end(layout: HomeLayout, visor: FakeVisor) -> None:
    visor.gate.clear()
    waiting: list[socket.socket] = []
    with serve(layout, visor) as system:
        for _ in range(20):
            waiting.append(connect_private(layout.socket, PATIENT))
            waiting[-1].sendall(render_request("GET", "/status", None))
        wait_until(lambda: ControlClient(layout.socket).tree() == visor.snapshot)
        system.stop()
        wait_until(lambda: not layout.socket.exists())
        # Abandoned would mean that its shutdown timeout of 20 seconds had passed.
        wait_until(lambda: system.tree().children[0].state == "down")
        assert system.tree().children[0].last_failure is None
        visor.gate.set()
    for connection in waiting:
        connection.close()
