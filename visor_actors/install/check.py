"""Is this folder ready to run? Asked of upgrade folders, by whoever made them, without network.

Cheap to import: main asks it about folders that an operator provided, the installer job about what it has
staged.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from visor_actors.home.errors import ConfigurationInvalid
from visor_actors.home.run_config import RunConfig, load_run_config
from visor_actors.install.elf import ExecutableKind, describe_executable
from visor_actors.install.order import machine_architecture
from visor_actors.node.arguments import DATANODE, Command, Role, command_line, is_datanode_subcommand
from visor_actors.node.command import Cancellation, Surroundings
from visor_actors.node.version import VersionUnknown, probe_version


class FolderProblem(Struct, frozen=True, kw_only=True):
    """One thing that keeps a folder from being run, and what to do about it."""

    what: str
    next_step: str


class FolderReport(Struct, frozen=True, kw_only=True):
    """What :func:`check_folder` found. ``version`` is what the core binary says of itself, None while
    unknown.
    """

    problems: tuple[FolderProblem, ...]
    version: str | None = None

    @property
    def ready(self) -> bool:
        """Whether the folder can be run."""
        return not self.problems


def check_folder(
    folder: Path,
    *,
    tag: str | None,
    timeout: float = 20.0,
    brand: str | None = None,
    cancel: Cancellation | None = None,
    surroundings_of: Callable[[Command], Surroundings] = lambda command: command.surroundings,
) -> FolderReport:
    """Look whether everything is in ``folder`` that a start needs, and whether it is version ``tag``.

    The run configuration must be readable, every binary present, executable, for this machine, and of exactly
    version ``tag`` (None: of whatever version). Runs each binary's ``version`` command, at most ``timeout``
    seconds each, once nothing else is wrong with it. ``surroundings_of`` says as whom and where; default: as
    configured. Never raises for what is wrong with the folder. Blocks: call it in a job, not in an actor's
    handler.
    """
    if not folder.is_dir():
        return _only(
            f"there is no folder {folder}", f"create {folder} with the release and its run configuration"
        )
    try:
        config = load_run_config(folder, brand)
    except ConfigurationInvalid as error:
        return FolderReport(
            problems=tuple(
                FolderProblem(what=str(problem), next_step="correct the run configuration")
                for problem in error.problems
            )
        )
    version: str | None = None
    problems: list[FolderProblem] = []
    for role in _roles(config):
        command = command_line(config, role)
        problem = _look_at(command.executable)
        if problem is not None:
            problems.append(problem)
            continue
        found, problem = _ask(command, tag, timeout, cancel, surroundings_of(command))
        if role is Role.CORE:
            version = found
        if problem is not None:
            problems.append(problem)
    # Core and data node are mostly one file: what is wrong with it is said once.
    return FolderReport(problems=tuple(dict.fromkeys(problems)), version=version)


def _roles(config: RunConfig) -> tuple[Role, ...]:
    return (Role.CORE,) if config.data_node is None else (Role.CORE, Role.DATA_NODE)


def _look_at(executable: Path) -> FolderProblem | None:
    """Return what is wrong with the file, without running it."""
    try:
        mode = executable.stat().st_mode
        if not stat.S_ISREG(mode):
            return FolderProblem(
                what=f"{executable} is not a file", next_step="put the binary there or correct its path"
            )
        if not os.access(executable, os.X_OK):
            return FolderProblem(what=f"{executable} is not executable", next_step=f"chmod 0755 {executable}")
        info = describe_executable(executable)
    except FileNotFoundError:
        return FolderProblem(
            what=f"there is no {executable}", next_step="put the binary there or correct its path"
        )
    except OSError as error:
        return FolderProblem(
            what=f"{executable} cannot be read: {error.strerror}",
            next_step="check owner and mode of the file",
        )
    here = machine_architecture()
    match info.kind:
        case ExecutableKind.ELF if info.architecture == here:
            return None
        case ExecutableKind.SCRIPT:
            return None
        case _:
            return FolderProblem(
                what=f"{executable} is {info.what}, this machine needs an ELF executable for {here}",
                next_step=f"fetch the release's linux-{here} asset",
            )


def _ask(
    command: Command, tag: str | None, timeout: float, cancel: Cancellation | None, surroundings: Surroundings
) -> tuple[str | None, FolderProblem | None]:
    """Ask the binary for its version and compare."""
    prefix = (DATANODE,) if is_datanode_subcommand(command) else ()
    try:
        answer = probe_version(
            command.executable, prefix_args=prefix, timeout=timeout, cancel=cancel, surroundings=surroundings
        )
    except VersionUnknown as error:
        return None, FolderProblem(what=str(error), next_step=error.next_step or "run it by hand")
    if tag is None or answer.version == tag:
        return answer.version, None
    problem = FolderProblem(
        what=f"{command.executable} is version {answer.version}, wanted is exactly {tag}",
        next_step=f"put the binary of {tag} there",
    )
    return answer.version, problem


def _only(what: str, next_step: str) -> FolderReport:
    return FolderReport(problems=(FolderProblem(what=what, next_step=next_step),))
