"""The rehearsal of one upgrade: everything up to the switch, and the command lines it would start."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from visor_actors.actors.reports import InstallReport
from visor_actors.cli.checks.finding import Finding, note, ok, problem
from visor_actors.cli.checks.folders import check_run_folder
from visor_actors.cli.errors import CommandError
from visor_actors.cli.framework import Invocation
from visor_actors.cli.preparing import prepare
from visor_actors.home.config import VisorConfig
from visor_actors.home.current import CurrentLink, LinkedTo
from visor_actors.home.errors import ConfigurationInvalid
from visor_actors.home.run_config import load_run_config
from visor_actors.node.arguments import Role, command_line, with_flag
from visor_actors.node.height import SNAPSHOT_HEIGHT


def check_upgrade(
    invocation: Invocation, config: VisorConfig, link: CurrentLink, tag: str, *, fetch: bool
) -> Iterator[Finding]:
    """Rehearse the upgrade to ``tag``. Fetches the release if it is not there and ``fetch`` allows it."""
    subject = f"upgrade {tag}"
    layout = invocation.layout
    folder = layout.root / config.upgrade_folders.get(tag, tag)
    if isinstance(link, LinkedTo) and link.name == folder.name:
        yield note(subject, f"{folder.name} is what runs already", "nothing; there is nothing to upgrade to")
        return
    if not folder.is_dir():
        if not config.auto_install.enabled:
            fix = "create it with the release's binary and a run configuration, or turn autoInstall on"
            yield problem(subject, f"there is no folder {folder}", fix)
            return
        if not fetch:
            yield note(subject, f"{tag} has not been fetched", f"visor-actors prepare {tag}")
            return
        try:
            prepared = prepare(invocation, tag, _ignore)
        except CommandError as error:
            yield problem(subject, error.problem, error.next_step or "see visor-actors history")
            return
        yield ok(subject, f"fetched into {prepared.folder}" + _proof(prepared.verification))
    complete = True
    for finding in check_run_folder(folder, tag=tag, needed=True):
        complete = complete and finding.fix is None
        yield finding
    try:
        run_config = load_run_config(folder)
    except ConfigurationInvalid:
        return  # said above
    core = command_line(run_config, Role.CORE)
    if run_config.data_node is not None:
        yield ok(subject, f"would start: {shlex.join(command_line(run_config, Role.DATA_NODE).argv)}")
    planned = with_flag(core.arguments, SNAPSHOT_HEIGHT, "HEIGHT")
    yield ok(subject, f"would start: {shlex.join((core.argv[0], *planned))}")
    if complete:
        yield ok(subject, "everything up to the switch has been rehearsed")


def _proof(verification: str | None) -> str:
    return f", {verification}" if verification else ""


def _ignore(_report: InstallReport) -> None:
    """Nobody watches the progress of a rehearsal."""
