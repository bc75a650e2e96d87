"""Checks of the home itself: permissions, configuration, link, journal, sockets."""

from __future__ import annotations

import os
from collections.abc import Iterator

from visor_actors.api.client import ControlClient, NotRunning, Unreachable
from visor_actors.cli.checks.finding import Finding, note, ok, problem
from visor_actors.home.config import LoadedConfig, load_config
from visor_actors.home.current import (
    CurrentLink,
    LinkDangling,
    LinkedTo,
    LinkMissing,
    OutsideHome,
    RealFolder,
)
from visor_actors.home.errors import ConfigurationInvalid, HomeError, JournalUnavailable
from visor_actors.home.journal import Journal
from visor_actors.home.layout import HomeLayout


def check_home(layout: HomeLayout) -> Iterator[Finding]:
    """Permissions and owners."""
    root = layout.root
    if not root.is_dir():
        yield problem("home", f"{root} is no folder", f"visor-actors init --home {root}")
        return
    if not os.access(root, os.W_OK | os.X_OK):
        yield problem(
            "home", f"{root} cannot be written by uid {os.geteuid()}", "run as its owner, or chown it"
        )
    doubts = layout.inspect()
    for doubt in doubts:
        yield problem("home", f"{doubt.path}: {doubt.message}", doubt.next_step)
    if not doubts:
        yield ok("home", f"{root}: owner and modes are fine")


def check_config(layout: HomeLayout) -> tuple[LoadedConfig | None, tuple[Finding, ...]]:
    """The visor's configuration; None with the findings when it cannot be used."""
    try:
        loaded = load_config(layout)
    except ConfigurationInvalid as error:
        found = (problem("configuration", str(one), "correct the file") for one in error.problems)
        return None, tuple(found)
    warnings = tuple(note("configuration", text, "bring the file up to date") for text in loaded.warnings)
    return loaded, (*warnings, ok("configuration", f"{loaded.path} is valid"))


def check_link(layout: HomeLayout, link: CurrentLink) -> Finding:
    """The link ``current``."""
    match link:
        case LinkedTo():
            return ok("current", f"links to {link.name}")
        case LinkMissing() if layout.genesis.is_dir():
            return note("current", "there is no link yet", "nothing: the first run links it to genesis")
        case LinkMissing():
            return problem("current", "there is neither a link nor a genesis folder", "visor-actors init")
        case LinkDangling():
            fix = f"put the folder back, or link anew: ln -sfn FOLDER {layout.current}"
            return problem("current", f"links to {link.target}, which does not exist", fix)
        case OutsideHome():
            fix = f"link a folder of the home: ln -sfn FOLDER {layout.current}"
            return problem("current", f"links to {link.target}, which is no folder of this home", fix)
        case RealFolder():
            fix = f"rename it to its version and link it: ln -s VERSION {layout.current}"
            return problem("current", "is no link but a folder or a file of its own", fix)


def check_journal(layout: HomeLayout) -> Finding:
    """The journal can be read."""
    if not layout.journal.exists():
        return ok("journal", "none yet; the first run begins it")
    try:
        with Journal.open_reader(layout.journal) as journal:
            upgrades = len(journal.upgrades())
    except JournalUnavailable as error:
        fix = "visor sets a damaged journal aside and goes by the home; see docs/operating.md"
        return problem("journal", str(error), fix)
    return ok("journal", f"readable, {upgrades} upgrade{'' if upgrades == 1 else 's'}")


def check_running(layout: HomeLayout) -> Finding:
    """The running visor, if there is one."""
    try:
        report = ControlClient(layout.socket).status()
    except NotRunning:
        return ok("visor", "none runs on this home")
    except Unreachable as error:
        fix = "see its log; if it hangs, end it with SIGKILL (the node goes on) and run it again"
        return problem("visor", f"one runs but does not answer: {error}", fix)
    except HomeError as error:
        return problem("visor", str(error), error.next_step)
    if report.alarms:
        alarm = report.alarms[-1]
        return problem("visor", f"alarm: {alarm.message}", alarm.next_step or "see visor-actors status")
    return ok("visor", f"runs, {report.health.value}; node {report.node.phase}")
