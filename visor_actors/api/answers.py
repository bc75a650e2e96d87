"""The bodies that are the API's own: everything else it answers is a report."""

from __future__ import annotations

from dataclasses import dataclass

from visor_actors.actors.reports import UpgradeReport
from visor_actors.api.http import Response
from visor_actors.api.wire import dump


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrades:
    """The answer to ``GET /upgrades``, newest first."""

    upgrades: tuple[UpgradeReport, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a request was refused and what to do next."""

    problem: str
    next_step: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The body of every answer that is no success."""

    error: Problem


def refuse(status: int, problem: str, next_step: str | None = None) -> Response:
    """Return the response that says why not."""
    headers = (("WWW-Authenticate", "Bearer"),) if status == 401 else ()
    body = dump(Refusal(error=Problem(problem=problem, next_step=next_step))) + "\n"
    return Response(status=status, body=body.encode(), headers=headers)
