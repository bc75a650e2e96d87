"""The bytes on the admin socket."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.harness import Nodes, connect, exchange, post, reach, read_to_end, seen, status_body
from visor_actors.simulator import SimulatedChain, build_binary, init_chain

NOTHING = '"AcceptedReleaseInfo":{"FuryReleaseTag":"","UpgradeBlockHeight":0},"ReadyToUpgrade":false'
METHOD = '"method":"protocolupgrade.UpgradeStatus"'


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, releases: dict[str, Path]) -> Iterator[SimulatedChain]:
    """A running node in which nothing is accepted."""
    folder = tmp_path_factory.mktemp("admin")
    chain = init_chain(folder / "home", block_ms=20)
    nodes = Nodes(folder)
    nodes.start_core(releases["v1"], chain)
    reach(chain, 1)
    yield chain
    nodes.close()


def test_a_status_answer_has_the_headers_and_bytes_of_the_real_server(chain: SimulatedChain) -> None:
    answer = exchange(
        chain.socket_path, post(b"{" + METHOD.encode() + b',"params":[null],"id":8422969733944541176}')
    )
    assert answer.raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert answer.body.decode() == f'{{"result":{{{NOTHING}}},"error":null,"id":8422969733944541176}}\n'


@pytest.mark.parametrize("raw_id", ["1", '"id"', '{"a": [1,2]}', "1.50", "true", "9223372036854775807"])
def test_the_id_is_echoed_byte_for_byte(chain: SimulatedChain, raw_id: str) -> None:
    body = exchange(chain.socket_path, post(f'{{{METHOD},"params":[],"id":{raw_id}}}'.encode())).body
    assert body.decode().endswith(f'"error":null,"id":{raw_id}}}\n')


@pytest.mark.parametrize(
    "body",
    [
        f'{{{METHOD},"params":[],"id":1}}',
        f'{{{METHOD},"params":[null],"id":1}}',
        f'{{{METHOD},"params":[{{}}],"id":1}}',
        f'{{{METHOD},"params":[{{}},{{}}],"id":1}}',
        f'{{"jsonrpc":"2.0",{METHOD},"params":[],"id":1}}',
        f' {{ "ID" : 1, "Params":[ ], {METHOD.replace("method", "METHOD", 1)} }} trailing garbage',
    ],
)
def test_calls_that_the_real_server_understands_are_answered(chain: SimulatedChain, body: str) -> None:
    answer = exchange(chain.socket_path, post(body.encode()))
    assert (answer.status, answer.body.decode()) == (200, f'{{"result":{{{NOTHING}}},"error":null,"id":1}}\n')


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            '{"method":"protocolupgrade.Nope","params":[],"id":1}',
            'rpc: can\'t find method "protocolupgrade.Nope"',
        ),
        (
            '{"method":"protocolupgrade.upgradeStatus","params":[],"id":1}',
            'rpc: can\'t find method "protocolupgrade.upgradeStatus"',
        ),
        (
            '{"method":"ProtocolUpgrade.UpgradeStatus","params":[],"id":1}',
            'rpc: can\'t find service "ProtocolUpgrade.UpgradeStatus"',
        ),
        (
            '{"method":"UpgradeStatus","params":[],"id":1}',
            'rpc: service/method request ill-formed: "UpgradeStatus"',
        ),
        (f'{{{METHOD},"id":1}}', "rpc: method request ill-formed: missing params field"),
        (f'{{{METHOD},"params":null,"id":1}}', "rpc: method request ill-formed: missing params field"),
        (
            f'{{{METHOD},"params":{{}},"id":1}}',
            "json: cannot unmarshal object into Go value of type [1]interface {}",
        ),
        ("x", "invalid character 'x' looking for beginning of value"),
        ("", "EOF"),
        ('{"method"', "unexpected EOF"),
        ('{"method" 1}', "invalid character '1' after object key"),
        ("{,}", "invalid character ',' looking for beginning of object key string"),
        ("[" * 5000, "exceeded max depth"),
    ],
)
def test_a_call_that_cannot_be_carried_out_is_refused_in_plain_text(
    chain: SimulatedChain, body: str, text: str
) -> None:
    answer = exchange(chain.socket_path, post(body.encode()))
    assert (answer.status, answer.body.decode()) == (400, text)
    assert answer.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize("tail", ["", ',"id":null'])
def test_a_call_without_id_gets_an_empty_answer_without_content_type(
    chain: SimulatedChain, tail: str
) -> None:
    answer = exchange(chain.socket_path, post(f'{{{METHOD},"params":[null]{tail}}}'.encode()))
    assert (answer.status, answer.body) == (200, b"")
    assert "Content-Type" not in answer.headers


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON"])
def test_spellings_of_the_content_type_are_accepted(chain: SimulatedChain, content_type: str) -> None:
    assert exchange(chain.socket_path, post(b"{}", content_type=content_type)).status == 400


@pytest.mark.parametrize(("content_type", "shown"), [("text/plain", "text/plain"), (None, "")])
def test_another_content_type_is_refused(chain: SimulatedChain, content_type: str | None, shown: str) -> None:
    answer = exchange(chain.socket_path, post(b"{}", content_type=content_type))
    assert (answer.status, answer.body.decode()) == (415, f"rpc: unrecognized Content-Type: {shown}")


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_only_post_is_allowed(chain: SimulatedChain, method: str) -> None:
    request = f"{method} /rpc HTTP/1.1\r\nHost: unix\r\nConnection: close\r\n\r\n".encode()
    answer = exchange(chain.socket_path, request)
    assert (answer.status, answer.body.decode()) == (405, f"rpc: POST method required, received {method}")


@pytest.mark.parametrize("path", ["/", "/rpc/", "/rpc2"])
def test_other_paths_are_not_found(chain: SimulatedChain, path: str) -> None:
    answer = exchange(chain.socket_path, post(b"{}", path=path))
    assert (answer.status, answer.body) == (404, b"404 page not found\n")


def test_a_failing_handler_answers_200_with_the_error_as_a_string(chain: SimulatedChain) -> None:
    answer = exchange(chain.socket_path, post(b'{"method":"NodeWallet.Show","params":[null],"id":7}'))
    assert answer.status == 200
    assert answer.body.decode() == '{"result":null,"error":"the simulated node has no wallets","id":7}\n'


def test_a_connection_is_kept_for_further_calls(chain: SimulatedChain) -> None:
    call = post(b"{" + METHOD.encode() + b',"params":[],"id":1}').replace(b"Connection: close\r\n", b"")
    with connect(chain.socket_path) as client:
        for _ in range(3):
            client.sendall(call)
            assert b'"ReadyToUpgrade":false' in client.recv(65536)
        client.sendall(call + call)
        client.shutdown(1)
        assert read_to_end(client).count(b"HTTP/1.1 200 OK") == 2


def test_before_the_first_block_nothing_is_known(home: Path, old: Path, nodes: Nodes) -> None:
    chain = init_chain(home, block_ms=3_600_000)
    nodes.start_core(old, chain)
    seen(home, "loaded")
    body = status_body(chain.socket_path)
    assert body == '{"result":{"AcceptedReleaseInfo":null,"ReadyToUpgrade":false},"error":null,"id":1}\n'


@pytest.mark.parametrize(("brand", "key"), [("vega", "VegaReleaseTag"), ("zeta", "ZetaReleaseTag")])
def test_the_release_tag_bears_the_brand(tmp_path: Path, nodes: Nodes, brand: str, key: str) -> None:
    binary = build_binary(tmp_path / brand, version="v1", brand=brand)
    chain = init_chain(tmp_path / "home", brand=brand, block_ms=5)
    nodes.start_core(binary, chain)
    reach(chain, 1)
    assert re.search(rf'{{"{key}":"","UpgradeBlockHeight":0}}', status_body(chain.socket_path))
