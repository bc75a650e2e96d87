"""The page docs/cli.md, made from the commands and the types of what they print: so it cannot be wrong."""

from __future__ import annotations

import enum
import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from msgspec import Struct

_TEXT = """\
# Command line

<!-- Made by visor_actors/cli/reference.py; `UPDATE_GOLDEN=1 make unit ARGS=tests/cli` writes it anew. -->

Every command works on one home folder: `--home PATH`, before or after the command's name, or
`VISOR_HOME`. Commands that talk to a running visor do it over the private control socket in the home;
without a running visor they say so and show what can be known from the home.

| exit code | means |
|---|---|
| 0 | done |
| 1 | not done: the message says why and what to do; also `status` without a visor, `check` if not ready |
| 2 | wrong usage |
| 70 | a fault of visor-actors itself |
| 75 | another visor holds the home |
| 78 | the configuration is wrong |
| 130 | interrupted with ^C |

Colours and lines that rewrite themselves appear on a terminal only; colours never with `NO_COLOR` set.

With `--output json` a command prints one JSON document on standard output (`logs` and
`history --follow` one a line), and errors on standard error as
`{"error": {"code", "problem", "where", "next_step"}}`. The fields below are stable: new ones may be added,
none is removed or changes its meaning within a major version. Times are Unix seconds, sizes are bytes, and a
field that is not known is null.

The same reports are served by the control API: `GET /status`, `/tree`, `/upgrades`, `/metrics`
(Prometheus), `/health` (200 ok, 503 degraded or stopping) and a status page on `/`, over the control socket
`HOME/.visor/visor.sock` (`curl --unix-socket HOME/.visor/visor.sock http://visor/status`) and, with
`[api] listen`, over TCP. Over TCP no commands are taken, and neither values of arguments nor output of the
binaries are told.
"""


_PLAIN = {
    str: "string",
    Path: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
}


def reference() -> str:
    """Return the whole page."""
    parts = [_TEXT, "## Commands\n"]
    for name, command in commands():
        parts.append(f"### {name}\n\n```\n{help_text(name, command)}```\n")
    parts.append("## JSON\n")
    described: list[type[Any]] = []
    for name, kind in documents().items():
        parts.append(f"### `{name}`\n\n{_describe(kind, described)}")
    parts.append("### Parts\n")
    for kind in described:
        parts.append(f"#### {kind.__name__}\n\n{_describe(kind, described)}")
    return "\n".join(parts)


def documents() -> Mapping[str, type[Any]]:
    """Return what each command prints with ``--output json``."""
    from visor_actors.actor import NodeSnapshot
    from visor_actors.actors.control import Accepted
    from visor_actors.cli.check import CheckDocument
    from visor_actors.cli.config import CheckedConfig, ConfigDocument
    from visor_actors.cli.demo import Summary
    from visor_actors.cli.history import HistoryDocument
    from visor_actors.cli.logs import LogLine
    from visor_actors.cli.preparing import Prepared
    from visor_actors.cli.restart import Restarted
    from visor_actors.cli.service import Unit
    from visor_actors.cli.status_view import StatusDocument
    from visor_actors.cli.stop import Stopped
    from visor_actors.cli.upgrades import UpgradesDocument
    from visor_actors.cli.version import Version
    from visor_actors.home.initialise import InitReport
    from visor_actors.telemetry.sentry import TestOutcome

    return {
        "init": InitReport,
        "check": CheckDocument,
        "status": StatusDocument,
        "tree": NodeSnapshot,
        "upgrades list": UpgradesDocument,
        "upgrades hold, upgrades resume": Accepted,
        "prepare": Prepared,
        "restart": Restarted,
        "stop": Stopped,
        "logs (each line)": LogLine,
        "history": HistoryDocument,
        "config show": ConfigDocument,
        "config check": CheckedConfig,
        "config sentry-test": TestOutcome,
        "service print, service install": Unit,
        "version": Version,
        "demo": Summary,
    }


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command that can be called, with its full name."""
    from visor_actors.cli.group import visor

    context = click.Context(visor)
    for name in visor.list_commands(context):
        command = visor.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for below, sub in command.commands.items():
                yield f"{name} {below}", sub


def help_text(name: str, command: click.Command) -> str:
    """Return a command's help as it is printed 100 columns wide."""
    context = click.Context(command, info_name=f"visor-actors {name}", terminal_width=100)
    context.help_option_names = ["-h", "--help"]
    return command.get_help(context) + "\n"


def hints(kind: type[Any]) -> Mapping[str, Any]:
    """Return the types of a document's fields; also those that only type checkers import."""
    from visor_actors.actor import NodeSnapshot
    from visor_actors.actors.control import StopMode
    from visor_actors.actors.reports import AlarmReport, UpgradeReport
    from visor_actors.cli.checks.finding import Finding
    from visor_actors.cli.disk import DiskReport
    from visor_actors.home.errors import Problem
    from visor_actors.home.journal import HistoryEntry

    known = (AlarmReport, NodeSnapshot, StopMode, UpgradeReport, Finding, DiskReport, Problem, HistoryEntry)
    return typing.get_type_hints(kind, localns={one.__name__: one for one in known})


def _describe(kind: type[Any], described: list[type[Any]]) -> str:
    text = " ".join((inspect.getdoc(kind) or "").split()).replace("``", "`")
    text = text.replace("None", "null")
    types_of = hints(kind)
    names = kind.__struct_fields__
    rows = [f"| `{name}` | {_type_name(types_of[name], described)} |\n" for name in names]
    return f"{text}\n\n| field | type |\n|---|---|\n{''.join(rows)}"


def _type_name(kind: Any, described: list[type[Any]]) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type_name(one, described) for one in arguments))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return f"list of {_type_name(arguments[0], described)}"
    if origin is tuple:
        return f"list [{', '.join(_type_name(one, described) for one in arguments)}]"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        simple = arguments[1] in _PLAIN
        return f"object of {_PLAIN[arguments[1]]}" if simple else "object"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"list of {_type_name(arguments[0], described)}"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return " or ".join(f'`"{member.value}"`' for member in kind)
    if isinstance(kind, type) and issubclass(kind, Struct):
        if kind not in described:
            described.append(kind)
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    plain = {
        str: "string",
        Path: "string",
        int: "integer",
        float: "number",
        bool: "boolean",
        type(None): "null",
    }
    return plain.get(kind, "any")
