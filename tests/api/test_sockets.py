from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from visor_actors.api.sockets import PrivateSocket, TcpAddress, connect_private, listen_tcp, peer_is_ours


def test_only_the_owner_may_open_the_socket(tmp_path: Path) -> None:
    private = PrivateSocket(tmp_path / "visor.sock")
    assert stat.S_IMODE(os.lstat(tmp_path / "visor.sock").st_mode) == 0o600
    private.close()


def test_a_socket_works_under_a_path_longer_than_a_socket_address(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["a" * 100] * 5)
    folder.mkdir(parents=True)
    private = PrivateSocket(folder / "visor.sock")
    with connect_private(folder / "visor.sock", 20.0) as client:
        private.listener.setblocking(True)
        served, _ = private.listener.accept()
        with served:
            served.sendall(b"hello")
        assert client.recv(10) == b"hello"
    private.close()


def test_the_socket_of_a_dead_visor_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "visor.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    with pytest.raises(ConnectionRefusedError):
        connect_private(path, 20.0)
    private = PrivateSocket(path)
    connect_private(path, 20.0).close()
    private.close()


def test_closing_removes_the_socket_and_leaves_nothing_else_behind(tmp_path: Path) -> None:
    PrivateSocket(tmp_path / "visor.sock").close()
    assert list(tmp_path.iterdir()) == []


def test_closing_leaves_the_socket_of_a_successor_alone(tmp_path: Path) -> None:
    path = tmp_path / "visor.sock"
    old = PrivateSocket(path)
    new = PrivateSocket(path)
    old.close()
    connect_private(path, 20.0).close()
    new.close()


def test_a_socket_that_cannot_be_made_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "visor.sock").mkdir()
    with pytest.raises(OSError, match=r".+"):
        PrivateSocket(tmp_path / "visor.sock")
    with pytest.raises(FileNotFoundError):
        PrivateSocket(tmp_path / "absent" / "visor.sock")
    assert len(os.listdir("/proc/self/fd")) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["visor.sock"]


def test_a_peer_of_our_own_user_is_ours() -> None:
    here, there = socket.socketpair()
    with here, there:
        assert peer_is_ours(here)


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:9464", "127.0.0.1", 9464, True),
        ("localhost:1", "localhost", 1, True),
        ("[::1]:80", "::1", 80, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        (":9464", "", 9464, False),
        ("node.example:9464", "node.example", 9464, False),
    ],
)
def test_addresses_are_read(text: str, host: str, port: int, loopback: bool) -> None:
    address = TcpAddress.parse(text)
    assert (address.host, address.port, address.loopback) == (host, port, loopback)


@pytest.mark.parametrize("text", ["", "9464", "host:", "host:x", "host:65536", "host:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        TcpAddress.parse(text)


def test_a_taken_port_raises_and_leaves_no_descriptor_behind() -> None:
    with listen_tcp(TcpAddress(host="127.0.0.1", port=0)) as listener:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="in use"):
            listen_tcp(TcpAddress(host="127.0.0.1", port=listener.getsockname()[1]))
        assert len(os.listdir("/proc/self/fd")) == before
