"""Running the operator's hooks: argv lists without a shell, in a session of their own, with a deadline."""

from __future__ import annotations

import os
from collections.abc import Mapping

from msgspec import Struct

from visor_actors.home.settings import Hook
from visor_actors.node.command import Cancellation, CommandFailed, Surroundings, run

LINES_KEPT = 50


class HookResult(Struct, frozen=True, kw_only=True):
    """How a hook ended. ``problem`` is None if it succeeded; ``lines`` are the last lines of its output."""

    problem: str | None
    lines: tuple[str, ...] = ()


def run_hook(hook: Hook, variables: Mapping[str, str], cancel: Cancellation | None = None) -> HookResult:
    """Run ``hook`` with ``variables`` added to the environment. Blocks until it ends, is cancelled, or its
    time is up.

    Call it from a job. A hook that does not end in time is killed with its process group.
    """
    try:
        finished = run(
            hook.argv,
            timeout=hook.timeout_seconds,
            cancel=cancel,
            surroundings=Surroundings(env=dict(variables)),
        )
    except CommandFailed as failure:
        return HookResult(problem=str(failure.problem))
    output = (finished.stdout + b"\n" + finished.stderr).decode("utf-8", "replace")
    lines = tuple(line for line in output.splitlines() if line.strip())[-LINES_KEPT:]
    if finished.code != 0:
        return HookResult(
            problem=f"{os.path.basename(hook.argv[0])} ended with {finished.ending}", lines=lines
        )
    return HookResult(problem=None, lines=lines)
