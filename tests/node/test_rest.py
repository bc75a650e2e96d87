"""The core's height from its REST server."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.node.nasty_server import NastyServer, Peer, answer
from visor_actors.node.rest import DEFAULT_ADDRESS, Address, RestClient, RestError, config_file, rest_address

STATISTICS = '{"statistics":{"blockHeight":"35","appVersion":"v0.79.0","chainId":"x"}}'


def asked(behaviour: object, *, total_timeout: float = 10.0, max_body: int = 256 * 1024) -> int:
    with NastyServer(behaviour) as server:  # type: ignore[arg-type]  # every test passes a behaviour
        address: Address = ("127.0.0.1", server.port)
        with RestClient(address, connect_timeout=5, total_timeout=total_timeout, max_body=max_body) as client:
            return client.height()


def serving(pages: dict[bytes, bytes]) -> object:
    def core(peer: Peer) -> None:
        request = peer.request()
        assert request is not None
        peer.send(pages.get(request.split(b" ")[1], answer("Not Found", status="404 Not Found")))
        peer.wait_for_the_end()

    return core


@pytest.mark.parametrize(
    "pages",
    [
        {b"/statistics": answer(STATISTICS)},
        {b"/statistics": answer('{"statistics":{"blockHeight":35}}')},
        {b"/blockchain/height": answer('{"height":"35"}')},
        {
            b"/statistics": answer("", status="501 Not Implemented"),
            b"/blockchain/height": answer('{"height":35}'),
        },
    ],
)
def test_the_height_is_found_in_either_place(pages: dict[bytes, bytes]) -> None:
    assert asked(serving(pages)) == 35


def test_the_request_is_plain_http() -> None:
    seen: list[bytes] = []

    def core(peer: Peer) -> None:
        request = peer.request()
        assert request is not None
        seen.append(request)
        peer.send(answer(STATISTICS))

    asked(core)
    lines = seen[0].split(b"\r\n")
    assert lines[0] == b"GET /statistics HTTP/1.1"
    assert lines[1].startswith(b"Host: 127.0.0.1:")
    assert b"Connection: close" in lines


@pytest.mark.parametrize(
    "pages",
    [
        {},
        {b"/statistics": answer("{}")},
        {b"/statistics": answer("[]")},
        {b"/statistics": answer("garbage")},
        {b"/statistics": answer('{"statistics":{"blockHeight":"-1"}}')},
        {b"/statistics": answer('{"statistics":{"blockHeight":"٣"}}')},
        {b"/statistics": answer('{"statistics":{"blockHeight":true}}')},
        {b"/statistics": answer('{"statistics":{"blockHeight":"' + "9" * 25 + '"}}')},
        {b"/statistics": b"nonsense\r\n\r\n"},
        {b"/statistics": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"},
    ],
)
def test_anything_else_is_an_error_with_the_address(pages: dict[bytes, bytes]) -> None:
    with pytest.raises(RestError) as caught:
        asked(serving(pages))
    assert f"127.0.0.1:{caught.value.address[1]}" in str(caught.value)


def test_a_server_that_never_answers_is_given_up() -> None:
    with pytest.raises(RestError, match=r"no answer within 0\.2 s"):
        asked(Peer.wait_for_the_end, total_timeout=0.2)


def test_slow_bytes_do_not_stretch_the_deadline() -> None:
    def core(peer: Peer) -> None:
        peer.request()
        for byte in answer(STATISTICS):
            peer.send(bytes([byte]))
            if peer.over.wait(0.02):
                return

    with pytest.raises(RestError, match="no answer within"):
        asked(core, total_timeout=0.3)


def test_a_server_that_closes_early_is_an_error() -> None:
    def core(peer: Peer) -> None:
        peer.request()
        peer.send(answer(STATISTICS)[:60])

    with pytest.raises(RestError, match="ended after 60 bytes"):
        asked(core)


def test_nobody_there_is_an_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address: Address = ("127.0.0.1", unused.getsockname()[1])
        with pytest.raises(RestError, match="refused"):
            RestClient(address).height()


# Where it is


def configured(home: Path, text: str) -> Address:
    path = home / "config" / "node" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return rest_address(home)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[API]\n  [API.REST]\n    IP = "127.0.0.2"\n    Port = 4000\n', ("127.0.0.2", 4000)),
        ('[API.REST]\nIP = "0.0.0.0"\nPort = 4000\n', ("127.0.0.1", 4000)),
        ('[API.REST]\nIP = "::"\nPort = 4000\n', ("::1", 4000)),
        ("[API.REST]\nPort = 4000\n", ("127.0.0.1", 4000)),
        ('[API.REST]\nIP = "10.0.0.1"\n', ("10.0.0.1", 3003)),
        ("[API]\nPort = 3002\n", DEFAULT_ADDRESS),
        ("[API.REST]\nPort = 0\n", DEFAULT_ADDRESS),
        ('[API.REST]\nPort = "4000"\n', DEFAULT_ADDRESS),
        ("[API.REST]\nIP = 5\n", DEFAULT_ADDRESS),
        ("API = 5\n", DEFAULT_ADDRESS),
        ("", DEFAULT_ADDRESS),
        ("[API.REST\n", DEFAULT_ADDRESS),
    ],
)
def test_the_address_is_the_cores_own_setting(tmp_path: Path, text: str, expected: Address) -> None:
    assert configured(tmp_path, text) == expected


def test_an_unreadable_configuration_means_the_default(tmp_path: Path) -> None:
    assert rest_address(tmp_path) == DEFAULT_ADDRESS
    (tmp_path / "config" / "node" / "config.toml").mkdir(parents=True)
    assert rest_address(tmp_path) == DEFAULT_ADDRESS


def test_a_core_without_a_home_keeps_its_configuration_with_the_users() -> None:
    assert config_file(None, "fury", {"HOME": "/home/f"}) == Path("/home/f/.config/fury/node/config.toml")
    assert config_file(None, "vega", {"XDG_CONFIG_HOME": "/x"}) == Path("/x/vega/node/config.toml")
    assert config_file(Path("/h"), "vega") == Path("/h/config/node/config.toml")
