from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from tests.api.fake_visor import FakeVisor
from visor_actors.actors.control import ControlRefused, Fault, StopMode
from visor_actors.actors.reports import Health, StatusReport
from visor_actors.api.http import Request, Response
from visor_actors.api.routes import Origin, Router
from visor_actors.api.wire import build

READ_ONLY = ("/", "/status", "/tree", "/upgrades", "/metrics", "/health")
COMMANDS = ("/restart", "/stop", "/hold", "/resume", "/prepare", "/inject")


def ask(
    visor: FakeVisor,
    path: str,
    *,
    method: str = "GET",
    body: bytes = b"",
    origin: Origin = Origin.CONTROL_SOCKET,
    token: str | None = None,
    testing: bool = False,
    **headers: str,
) -> Response:
    request = Request(method=method, path=path, headers=headers, body=body)
    return Router(visor, testing=testing).answer(request, origin, token)


def parsed(response: Response) -> Any:
    return json.loads(response.body)


def test_the_status_is_the_ports(visor: FakeVisor) -> None:
    response = ask(visor, "/status")
    assert response.status == 200
    assert build(StatusReport, parsed(response)) == visor.report


def test_the_tree_and_the_upgrades_are_the_ports(visor: FakeVisor) -> None:
    assert [child["id"] for child in parsed(ask(visor, "/tree"))["children"]] == [
        "config-watcher",
        "node",
        "installer",
    ]
    assert [entry["tag"] for entry in parsed(ask(visor, "/upgrades"))["upgrades"]] == ["v0.76.0", "v0.75.0"]


@pytest.mark.parametrize(
    ("path", "body", "command"),
    [
        ("/restart", b"", ("restart", None)),
        ("/restart", b'{"slot": "core"}', ("restart", "core")),
        ("/stop", b"", ("stop", StopMode.STOP)),
        ("/stop", b'{"mode": "detach"}', ("stop", StopMode.DETACH)),
        ("/hold", b'{"tag": "v1"}', ("hold", "v1")),
        ("/resume", b"{}", ("resume", None)),
        ("/prepare", b'{"tag": "v1"}', ("prepare", "v1")),
    ],
)
def test_a_command_reaches_the_port(
    visor: FakeVisor, path: str, body: bytes, command: tuple[object, ...]
) -> None:
    response = ask(visor, path, method="POST", body=body)
    assert response.status == 202
    assert visor.commands == [command]


@pytest.mark.parametrize("path", READ_ONLY)
def test_everybody_who_may_connect_may_read(visor: FakeVisor, path: str) -> None:
    for origin in (Origin.CONTROL_SOCKET, Origin.TCP_LOOPBACK):
        response = ask(visor, path, origin=origin, host="127.0.0.1:9464")
        assert response.status in (200, 503)
        assert response.body


@pytest.mark.parametrize("path", COMMANDS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_command_is_taken_over_tcp_not_even_with_the_token(
    visor: FakeVisor, path: str, method: str
) -> None:
    for origin in (Origin.TCP_LOOPBACK, Origin.TCP_TOKEN):
        response = ask(
            visor, path, method=method, origin=origin, token="t", testing=True, authorization="Bearer t"
        )
        assert response.status == 403
    assert visor.commands == []


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic secret", "secret", "Bearer sécret"]
)
def test_without_the_token_nothing_is_told(visor: FakeVisor, authorization: str) -> None:
    response = ask(visor, "/status", origin=Origin.TCP_TOKEN, token="secret", authorization=authorization)
    assert response.status == 401
    assert ("WWW-Authenticate", "Bearer") in response.headers


def test_the_token_opens(visor: FakeVisor) -> None:
    for given in ("Bearer secret", "bearer secret"):
        assert ask(visor, "/tree", origin=Origin.TCP_TOKEN, token="secret", authorization=given).status == 200


def test_no_token_configured_opens_to_nobody(visor: FakeVisor) -> None:
    assert ask(visor, "/tree", origin=Origin.TCP_TOKEN, token=None, authorization="Bearer ").status == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9464", "localhost.evil.example"])
def test_a_foreign_name_for_loopback_is_refused(visor: FakeVisor, host: str) -> None:
    assert ask(visor, "/status", origin=Origin.TCP_LOOPBACK, host=host).status == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:9464", "127.0.0.1", "[::1]:9464", "[::1]"])
def test_loopback_by_its_own_names_is_served(visor: FakeVisor, host: str) -> None:
    assert ask(visor, "/tree", origin=Origin.TCP_LOOPBACK, host=host).status == 200


def test_a_fault_is_injected_only_into_a_visor_under_test(visor: FakeVisor) -> None:
    body = b'{"actor": "api", "fault": "hang"}'
    assert ask(visor, "/inject", method="POST", body=body).status == 404
    assert ask(visor, "/inject", method="POST", body=body, testing=True).status == 202
    assert visor.commands == [("inject", "api", Fault.HANG)]


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/nowhere", "GET", 404),
        ("/status/", "GET", 404),
        ("/status", "POST", 405),
        ("/status", "DELETE", 405),
        ("/stop", "GET", 405),
        ("/stop", "PUT", 405),
    ],
)
def test_wrong_paths_and_methods_are_told_apart(
    visor: FakeVisor, path: str, method: str, status: int
) -> None:
    response = ask(visor, path, method=method)
    assert response.status == status
    assert parsed(response)["error"]["problem"]
    assert (status == 405) == any(name == "Allow" for name, _ in response.headers)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/stop", b'{"mode": "explode"}'),
        ("/stop", b"not json"),
        ("/stop", b"[]"),
        ("/hold", b'{"tag": 7}'),
        ("/prepare", b"{}"),
        ("/restart", b"\xff"),
    ],
)
def test_a_body_of_the_wrong_shape_is_refused_and_nothing_is_done(
    visor: FakeVisor, path: str, body: bytes
) -> None:
    assert ask(visor, path, method="POST", body=body).status == 400
    assert visor.commands == []


def test_a_refusal_of_the_port_carries_its_next_step(visor: FakeVisor) -> None:
    visor.refusal = ControlRefused("an upgrade is under way", "wait for it")
    response = ask(visor, "/restart", method="POST")
    assert response.status == 409
    assert parsed(response)["error"] == {"problem": "an upgrade is under way", "next_step": "wait for it"}


def test_a_bug_behind_the_port_costs_one_answer(visor: FakeVisor) -> None:
    visor.bug = RuntimeError("a bug")
    assert ask(visor, "/status").status == 500
    visor.bug = None
    assert ask(visor, "/status").status == 200


@pytest.mark.parametrize(
    ("health", "status"), [(Health.OK, 200), (Health.DEGRADED, 503), (Health.STOPPING, 503)]
)
def test_health_is_a_status_code(visor: FakeVisor, health: Health, status: int) -> None:
    visor.report = replace(visor.report, health=health)
    response = ask(visor, "/health")
    assert response.status == status
    assert parsed(response)["health"] == health.value


def test_secrets_are_in_no_answer_and_argument_values_leave_no_machine(visor: FakeVisor) -> None:
    core = replace(
        visor.report.binaries[0],
        argv=("vega", "start", "--passphrase", "hunter2hunter2", "--home", "/srv/node"),
        problem="dial https://user:hunter2hunter2@host failed",
    )
    visor.report = replace(visor.report, binaries=(core,))
    for path in ("/", "/status", "/metrics"):
        for origin in (Origin.CONTROL_SOCKET, Origin.TCP_LOOPBACK):
            assert b"hunter2" not in ask(visor, path, origin=origin).body
    local = parsed(ask(visor, "/status"))["binaries"][0]
    remote = parsed(ask(visor, "/status", origin=Origin.TCP_LOOPBACK))["binaries"][0]
    assert "/srv/node" in local["argv"]
    assert "/srv/node" not in remote["argv"]
    assert local["last_exit"]["lines"] == ["panic"]
    assert remote["last_exit"]["lines"] == []
