"""What the service manager is told, over a real datagram socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from visor_actors.node.systemd import ServiceNotifier, without_service_variables


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)
        yield sock


def test_each_message_reaches_the_manager_as_it_expects_it(manager: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname()}
    with ServiceNotifier.from_environment(environment) as notifier:
        assert notifier.enabled
        notifier.ready("core runs")
        notifier.status("two\nlines")
        notifier.watchdog()
        notifier.extend_timeout(1.5)
        notifier.stopping("asked to")
        said = [manager.recv(4096) for _ in range(5)]
    assert said == [
        b"READY=1\nSTATUS=core runs",
        b"STATUS=two lines",
        b"WATCHDOG=1",
        b"EXTEND_TIMEOUT_USEC=1500000",
        b"STOPPING=1\nSTATUS=asked to",
    ]


def test_an_abstract_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = f"visor-actors-test-{os.getpid()}"
        sock.bind("\0" + name)
        sock.settimeout(20)
        with ServiceNotifier.from_environment({"NOTIFY_SOCKET": "@" + name}) as notifier:
            notifier.ready()
            assert sock.recv(100) == b"READY=1"


def test_the_watchdog_is_fed_twice_as_often_as_it_must_be(manager: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "30000000"}
    with ServiceNotifier.from_environment(environment) as notifier:
        assert notifier.watchdog_seconds == 15.0
    with ServiceNotifier.from_environment(environment | {"WATCHDOG_PID": str(os.getpid())}) as notifier:
        assert notifier.watchdog_seconds == 15.0


@pytest.mark.parametrize(
    "changes",
    [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_PID": "x"}],
)
def test_a_watchdog_that_is_not_ours_is_not_fed(manager: socket.socket, changes: dict[str, str]) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "30000000"} | changes
    with ServiceNotifier.from_environment(environment) as notifier:
        assert notifier.watchdog_seconds is None


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_manager_nothing_happens(environment: dict[str, str]) -> None:
    with ServiceNotifier.from_environment(environment) as notifier:
        assert not notifier.enabled
        assert notifier.watchdog_seconds is None
        notifier.ready()


def test_a_manager_that_is_gone_or_full_is_no_reason_to_fail_or_wait(
    tmp_path: Path, manager: socket.socket
) -> None:
    with ServiceNotifier(str(tmp_path / "nobody")) as notifier:
        notifier.ready()
    with ServiceNotifier(manager.getsockname()) as notifier:
        for _ in range(10_000):
            notifier.status("x" * 1000)
        notifier.close()
        notifier.status("after the end")


def test_the_node_does_not_get_what_is_meant_for_visor() -> None:
    environment = {"PATH": "/bin", "NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "LISTEN_FDS": "1"}
    assert without_service_variables(environment) == {"PATH": "/bin"}
