"""Checks of what is to be run: run configurations, binaries, arguments, sockets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from visor_actors.cli.checks.finding import Finding, note, ok, problem
from visor_actors.home.errors import ConfigurationInvalid
from visor_actors.home.run_config import RunConfig, load_run_config
from visor_actors.install.check import check_folder
from visor_actors.node.arguments import (
    FlagWithoutValue,
    Role,
    command_line,
    expand_variables,
    flag_value,
    home_of,
)
from visor_actors.node.height import SNAPSHOT_HEIGHT

_SOCKET_BYTES = 107


def check_run_folder(folder: Path, *, tag: str | None, needed: bool) -> Iterator[Finding]:
    """Everything in ``folder`` that a start needs. Where it is not ``needed``, faults are notes."""
    subject = folder.name
    report = check_folder(folder, tag=tag)
    for one in report.problems:
        yield (problem if needed else note)(subject, one.what, one.next_step)
    try:
        config = load_run_config(folder)
    except (ConfigurationInvalid, OSError):
        return  # said above
    for warning in config.warnings:
        yield note(subject, warning, f"correct {config.path}")
    if not needed:
        if report.ready:
            yield ok(subject, f"complete, version {report.version}")
        return
    yield from _check_arguments(config)
    yield from _check_socket(config)
    if report.ready:
        yield ok(subject, f"run configuration and binaries are complete, version {report.version}")


def _check_arguments(config: RunConfig) -> Iterator[Finding]:
    subject = config.folder.name
    for role in (Role.CORE, *((Role.DATA_NODE,) if config.data_node is not None else ())):
        arguments = command_line(config, role).arguments
        environment = {**os.environ, **command_line(config, role).surroundings.env}
        try:
            home = home_of(arguments)
            height = flag_value(arguments, SNAPSHOT_HEIGHT)
        except FlagWithoutValue as error:
            yield problem(subject, f"{role.value}: {error}", error.next_step or "correct the arguments")
            continue
        if home is not None and "$" in home:
            yield note(
                subject,
                f"{role.value}: --home {home} has a variable, and no shell expands it",
                "write the path out",
            )
        if home is not None and not Path(expand_variables(home, environment)).is_dir():
            yield problem(
                subject,
                f"{role.value}: its home {home} is no folder",
                "initialise the node there, or correct --home",
            )
        if height is not None:
            yield note(
                subject,
                f"{role.value}: {SNAPSHOT_HEIGHT} {height} is in its arguments; that deletes later snapshots",
                "remove it once the node is past that height; visor passes it itself when it is needed",
            )


def _check_socket(config: RunConfig) -> Iterator[Finding]:
    subject, path = config.folder.name, config.rpc.socket_path
    if len(os.fsencode(path)) > _SOCKET_BYTES:
        yield problem(
            subject,
            f"the core's socket path has {len(os.fsencode(path))} bytes, {_SOCKET_BYTES} are possible",
            "give the core and the run configuration a shorter socket path",
        )
    folder = path.parent
    if not folder.is_dir():
        yield problem(
            subject, f"the folder of the core's socket, {folder}, does not exist", f"mkdir -p {folder}"
        )
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield problem(
            subject, f"the core cannot make its socket in {folder}", f"let this user write to {folder}"
        )
