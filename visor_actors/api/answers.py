"""The bodies that are the API's own: everything else it answers is a report."""

from __future__ import annotations

from msgspec import Struct

from visor_actors.actors.reports import UpgradeReport
from visor_actors.api.http import Response
from visor_actors.api.wire import dump


class Upgrades(Struct, frozen=True, kw_only=True):
    """The answer to ``GET /upgrades``, newest first."""

    upgrades: tuple[UpgradeReport, ...] = ()


class Problem(Struct, frozen=True, kw_only=True):
    """Why a request was refused and what to do next."""

    problem: str
    next_step: str | None = None


class Refusal(Struct, frozen=True, kw_only=True):
    """The body of every answer that is no success."""

    error: Problem


def refuse(status: int, problem: str, next_step: str | None = None) -> Response:
    """Return the response that says why not."""
    headers = (("WWW-Authenticate", "Bearer"),) if status == 401 else ()
    body = dump(Refusal(error=Problem(problem=problem, next_step=next_step))) + "\n"
    return Response(status=status, body=body.encode(), headers=headers)
