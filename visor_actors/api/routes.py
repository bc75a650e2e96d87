"""Which request gets which answer: the whole control API on one page.

    GET  /            status page for people               everywhere
    GET  /status      StatusReport                         everywhere
    GET  /tree        supervision tree                     everywhere
    GET  /upgrades    every upgrade visor knows of         everywhere
    GET  /metrics     Prometheus text format               everywhere
    GET  /health      200 ok, 503 degraded or stopping     everywhere
    POST /restart     {"slot": "core" | null}              control socket only
    POST /stop        {"mode": "stop" | "detach"}          control socket only
    POST /hold        {"tag": "v1.2.3" | null}             control socket only
    POST /resume      {"tag": "v1.2.3" | null}             control socket only
    POST /prepare     {"tag": "v1.2.3"}                    control socket only
    POST /inject      {"actor": "...", "fault": "crash"}   control socket only, with VISOR_TESTING=1

Refusals are JSON too: ``{"error": {"problem": "...", "next_step": "..."}}``.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Mapping

from msgspec import Struct

from visor_actors.actors.control import Accepted, ControlPort, ControlRefused, Fault, StopMode
from visor_actors.actors.reports import Health
from visor_actors.api.answers import Upgrades, refuse
from visor_actors.api.censor import Audience, censored
from visor_actors.api.http import HttpProblem, Request, Response
from visor_actors.api.wire import WireError, dump, load


class Origin(enum.Enum):
    """Where a request came in: what it may ask depends on it."""

    CONTROL_SOCKET = "control-socket"
    TCP_LOOPBACK = "tcp-loopback"
    TCP_TOKEN = "tcp-token"


class SlotBody(Struct, frozen=True, kw_only=True):
    """Which binary; None: the whole node."""

    slot: str | None = None


class ModeBody(Struct, frozen=True, kw_only=True):
    """What becomes of the node."""

    mode: StopMode = StopMode.STOP


class TagBody(Struct, frozen=True, kw_only=True):
    """Which release; None: the pending one."""

    tag: str | None = None


class FaultBody(Struct, frozen=True, kw_only=True):
    """Which actor is to fail, and how."""

    actor: str
    fault: Fault


class Router:
    """Answers requests from a control port. Any thread; several at once."""

    def __init__(self, port: ControlPort, *, testing: bool) -> None:
        self._port = port
        self._questions: Mapping[str, Callable[[Audience], Response]] = {
            "/": self._page,
            "/status": lambda audience: _json(censored(port.status(), audience)),
            "/tree": lambda audience: _json(censored(port.tree(), audience)),
            "/upgrades": lambda audience: _json(censored(Upgrades(upgrades=port.upgrades()), audience)),
            "/metrics": self._metrics,
            "/health": self._health,
        }
        commands: dict[str, Callable[[bytes], Accepted]] = {
            "/restart": lambda body: port.restart(load(SlotBody, body or b"{}").slot),
            "/stop": lambda body: port.stop(load(ModeBody, body or b"{}").mode),
            "/hold": lambda body: port.hold(load(TagBody, body or b"{}").tag),
            "/resume": lambda body: port.resume(load(TagBody, body or b"{}").tag),
            "/prepare": self._prepare,
        }
        if testing:
            commands["/inject"] = self._inject
        self._commands: Mapping[str, Callable[[bytes], Accepted]] = commands

    def answer(self, request: Request, origin: Origin, token: str | None) -> Response:
        """Return the response to ``request``. Never raises.

        ``token`` is what a ``TCP_TOKEN`` sender must present."""
        try:
            _admit(request, origin, token)
            return self._dispatch(request, origin)
        except HttpProblem as problem:
            return refuse(problem.status, problem.problem)
        except ControlRefused as refused:
            return refuse(409, refused.problem, refused.next_step)
        except WireError as error:
            return refuse(400, f"the body is not what this request takes: {error}")
        except Exception as error:
            # A bug behind the port must cost one answer, not the API.
            return refuse(500, f"{type(error).__name__}: {error}", "please report it; the node goes on")

    def _dispatch(self, request: Request, origin: Origin) -> Response:
        question = self._questions.get(request.path)
        command = self._commands.get(request.path)
        if question is not None:
            if request.method not in ("GET", "HEAD"):
                return _wrong_method("GET, HEAD")
            local = origin is Origin.CONTROL_SOCKET
            return question(Audience.OPERATOR if local else Audience.NETWORK)
        if command is None:
            return refuse(404, f"there is no {request.path[:100]} here")
        if origin is not Origin.CONTROL_SOCKET:
            return refuse(
                403, "commands are taken on the control socket only", "run visor-actors on that machine"
            )
        if request.method != "POST":
            return _wrong_method("POST")
        return _json(command(request.body), status=202)

    def _prepare(self, body: bytes) -> Accepted:
        tag = load(TagBody, body or b"{}").tag
        if not tag:
            raise HttpProblem(400, 'say which release: {"tag": "v1.2.3"}')
        return self._port.prepare(tag)

    def _inject(self, body: bytes) -> Accepted:
        fault = load(FaultBody, body)
        return self._port.inject(fault.actor, fault.fault)

    def _health(self, _audience: Audience) -> Response:
        status = self._port.status()
        body = {"health": status.health.value, "node": status.node.phase, "alarms": len(status.alarms)}
        return _json(body, status=200 if status.health is Health.OK else 503)

    def _metrics(self, _audience: Audience) -> Response:
        from visor_actors.api.metrics import CONTENT_TYPE, render_metrics

        text = render_metrics(self._port.status(), self._port.tree(), self._port.counters())
        return Response(status=200, body=text.encode(), content_type=CONTENT_TYPE)

    def _page(self, _audience: Audience) -> Response:
        from visor_actors.api.page import CONTENT_TYPE, HEADERS, render_page

        text = render_page(self._port.status(), self._port.tree())
        return Response(status=200, body=text.encode(), content_type=CONTENT_TYPE, headers=HEADERS)


def _json(value: object, *, status: int = 200) -> Response:
    return Response(status=status, body=(dump(value) + "\n").encode())


def _wrong_method(allowed: str) -> Response:
    refusal = refuse(405, f"use {allowed}")
    return Response(status=405, body=refusal.body, headers=(("Allow", allowed),))


def _admit(request: Request, origin: Origin, token: str | None) -> None:
    match origin:
        case Origin.CONTROL_SOCKET:
            pass
        case Origin.TCP_LOOPBACK:
            # Without this, any page in a browser on this machine could read the status by DNS rebinding.
            if not _is_local_name(request.headers.get("host", "localhost")):
                raise HttpProblem(403, "ask for localhost or an address, not for another name")
        case Origin.TCP_TOKEN:
            import hmac

            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            wanted = (token or "").encode()
            if (
                scheme.lower() != "bearer"
                or not wanted
                or not hmac.compare_digest(given.strip().encode(), wanted)
            ):
                raise HttpProblem(401, "send the token of [api] tokenFile as: Authorization: Bearer TOKEN")


def _is_local_name(host: str) -> bool:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if name in ("localhost", ""):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
