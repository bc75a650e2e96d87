"""From a home to a running visor, in the order in which nothing is waited for that could go on beside it."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from visor_actors.cli.errors import CommandError, ExitCode
from visor_actors.home.config import load_config
from visor_actors.home.layout import CONFIG_NAMES, HomeLayout
from visor_actors.home.lock import HomeLock
from visor_actors.node.shim_process import warm_up_shim

if TYPE_CHECKING:
    from visor_actors.actor import Actor, Context
    from visor_actors.actors.control import ControlPort


def run_home(home: Path) -> NoReturn:
    """Run visor on ``home`` until it is told to leave, and end the process with the exit code. Main thread.

    Raises CommandError where there is no home, ConfigurationInvalid, HomeLocked or HomeUnusable; by then
    nothing has been changed that matters to a node.
    """
    layout = HomeLayout(home)
    if not layout.root.is_dir() or not any((layout.root / name).exists() for name in CONFIG_NAMES):
        raise CommandError(
            f"{layout.root} is no visor home: it has no {CONFIG_NAMES[0]}",
            next_step=f"create one with visor-actors init --home {layout.root}, or name another with --home",
            code=ExitCode.CONFIGURATION,
        )
    loaded = load_config(layout)  # first: what is wrong there is to be said before anything else is done
    findings = layout.prepare_private()
    with HomeLock.acquire(layout.root):
        warm_up_shim(layout.slot("core"))  # it comes up while we load the rest of ourselves

        # Loading makes thousands of objects that all stay: looking for garbage among them is a sixth of the
        # time to the first start, and would be repeated for as long as visor runs.
        gc.disable()
        from visor_actors.actors.application import run_visor
        from visor_actors.api.actor import ApiActor

        gc.freeze()
        gc.enable()

        def api(context: Context, port: ControlPort) -> Actor:
            return ApiActor(context, port=port, layout=layout)

        code = run_visor(layout, loaded=loaded, findings=findings, api_factory=api)
    # All is closed. To take the interpreter apart as well would only delay whoever waits for our end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
