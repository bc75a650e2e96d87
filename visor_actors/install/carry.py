"""Carries the run configuration of the current folder over into the folder of a new release.

Everything an operator wrote stays, comments too. Changed are only: ``name``, the binaries' paths (one binary
serves as core and as data node, whose first argument is then ``datanode``), and a snapshot height that was
meant for one start only. A note at the top says where the file came from. YAML is edited in place, value by
value, for the same reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import tomlkit
import yaml
from tomlkit.items import AoT, Array, Item
from tomlkit.items import Table as TomlTable

from visor_actors.home.errors import ConfigurationInvalid
from visor_actors.home.run_config import DATA_NODE, RunConfig, load_run_config
from visor_actors.install.errors import Unfit
from visor_actors.install.messages import FailureKind
from visor_actors.node.arguments import DATANODE, Role, command_line, without_flag
from visor_actors.node.height import SNAPSHOT_HEIGHT

NOTE = "# Written by visor-actors"
_MODE_KEPT = 0o664  # who may read it stays as the operator decided; nobody but owner and group may ever write


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What the note says. ``when`` is a date and time as text."""

    tag: str
    asset: str
    origin: str
    proof: str
    when: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """The new file: its name and mode (the old one's), its text, and whether a stale snapshot height was left
    out.
    """

    file_name: str
    mode: int
    text: str
    dropped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changes:
    """What is to be different, decided before any format is looked at. None: leave as it is."""

    tag: str
    brand: str
    binary: str
    core_args: tuple[str, ...] | None
    data_node: bool
    data_node_args: tuple[str, ...] | None


def carry_over(source: Path | None, *, binary: str, provenance: Provenance, brand: str) -> Carried:
    """Return the run configuration for the new release, made from that in the folder ``source``.

    ``binary`` is the new binary's path, relative to its folder. Raises :class:`Unfit` when there is nothing
    to carry over or it cannot be read.
    """
    if source is None:
        raise _unfit("no folder with a run configuration is known")
    try:
        source = source.resolve()  # the note names the folder, not the link ``current``
        config = load_run_config(source, brand)
        text = config.path.read_text(encoding="utf-8")
        mode = config.path.stat().st_mode & _MODE_KEPT
    except (ConfigurationInvalid, OSError, UnicodeDecodeError) as error:
        raise _unfit(f"the run configuration of {source.name} cannot be read: {error}") from error
    changes = plan_changes(config, tag=provenance.tag, binary=binary)
    edit: Callable[[str, _Changes], str] = _edit_toml if config.path.suffix == ".toml" else _edit_yaml
    try:
        edited = edit(_without_note(text), changes)
    except (ValueError, KeyError, TypeError) as error:
        raise _unfit(f"{config.path} cannot be edited: {error}") from error
    note = _note(provenance, f"{source.name}/{config.path.name}")
    dropped = changes.core_args is not None
    return Carried(file_name=config.path.name, mode=mode, text=note + edited, dropped=dropped)


def plan_changes(config: RunConfig, *, tag: str, binary: str) -> _Changes:
    """Decide what has to be different in the new file."""
    core_args = without_flag(config.core.args, SNAPSHOT_HEIGHT)
    data_node_args: tuple[str, ...] | None = None
    if config.data_node is not None:
        # Words that stood in the path, as in "vega data-node", move into the arguments.
        given = command_line(config, Role.DATA_NODE).arguments
        wanted = given if given[:1] == (DATANODE,) else (DATANODE, *given)
        data_node_args = wanted if wanted != tuple(_written_args(config)) else None
    return _Changes(
        tag=tag,
        brand=config.brand,
        binary=binary,
        core_args=core_args if core_args != config.core.args else None,
        data_node=config.data_node is not None,
        data_node_args=data_node_args,
    )


def _written_args(config: RunConfig) -> Sequence[str]:
    """Return the data node's arguments as they stand in the file, without words that come from its path."""
    document = config.path.read_text(encoding="utf-8")
    parsed = tomlkit.parse(document).unwrap() if config.path.suffix == ".toml" else yaml.safe_load(document)
    return cast(Sequence[str], parsed[DATA_NODE]["binary"].get("args") or ())


def _edit_toml(text: str, changes: _Changes) -> str:
    document = tomlkit.parse(text)
    core = _toml_binary(document[changes.brand])
    if "name" in document:
        document["name"] = changes.tag
    else:
        text = f"name = {json.dumps(changes.tag)}\n" + text
        document = tomlkit.parse(text)
        core = _toml_binary(document[changes.brand])
    core["path"] = changes.binary
    if changes.core_args is not None:
        _reduce(cast(Array, core["args"]), changes.core_args)
    if changes.data_node:
        data_node = _toml_binary(document[DATA_NODE])
        data_node["path"] = changes.binary
        if changes.data_node_args is not None:
            _prepend(data_node, changes.data_node_args)
    return tomlkit.dumps(document)


def _toml_binary(table: object) -> TomlTable:
    if isinstance(table, AoT) or not isinstance(table, Mapping):
        raise TypeError("a table was expected")
    return cast(TomlTable, table["binary"])


def _reduce(array: Array, wanted: Sequence[str]) -> None:
    """Remove from ``array`` what is not in ``wanted``, which is the same list with some items left out."""
    for index in reversed(_surplus(list(array.unwrap()), wanted)):
        del array[index]


def _surplus(items: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return the indices to leave out of ``items`` to get ``wanted``."""
    surplus: list[int] = []
    found = 0
    for index, item in enumerate(items):
        if found < len(wanted) and item == wanted[found]:
            found += 1
        else:
            surplus.append(index)
    if found != len(wanted):
        raise ValueError("the arguments are not what was read before")
    return surplus


def _prepend(binary: TomlTable, wanted: Sequence[str]) -> None:
    """Make the arguments ``wanted``: those that are there already, behind new ones."""
    present = cast(Array, binary["args"]) if "args" in binary else None
    if present is None:
        binary["args"] = list(wanted)
        return
    items = list(present.unwrap())
    new = len(wanted) - len(items)
    if "\n" not in present.as_string() or new < 0 or list(wanted[new:]) != items:
        binary["args"] = list(wanted)
        return
    for word in reversed(wanted[:new]):
        present.insert(0, cast(Item, word))


def _edit_yaml(text: str, changes: _Changes) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        raise ValueError("it is empty")
    replacements: list[tuple[int, int, str]] = []
    name = _yaml_value(root, "name")
    if name is None:
        replacements.append(
            (root.start_mark.index, root.start_mark.index, f"name: {json.dumps(changes.tag)}\n")
        )
    else:
        replacements.append(_replace(name, json.dumps(changes.tag)))
    core = _yaml_value(_yaml_value(root, changes.brand), "binary")
    replacements += _yaml_binary(core, changes.binary, changes.core_args)
    if changes.data_node:
        data_node = _yaml_value(_yaml_value(root, DATA_NODE), "binary")
        replacements += _yaml_binary(data_node, changes.binary, changes.data_node_args)
    for start, end, new in sorted(replacements, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _yaml_binary(
    node: yaml.Node | None, binary: str, args: tuple[str, ...] | None
) -> list[tuple[int, int, str]]:
    path = _yaml_value(node, "path")
    if node is None or path is None:
        raise ValueError("a binary has no path")
    replacements = [_replace(path, json.dumps(binary))]
    if args is not None:
        present = _yaml_value(node, "args")
        flow = json.dumps(list(args), ensure_ascii=False)
        if present is None:
            replacements[0] = _replace(
                path, f"{json.dumps(binary)}\n{' ' * node.start_mark.column}args: {flow}"
            )
        else:
            replacements.append(_replace(present, flow))
    return replacements


def _yaml_value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _replace(node: yaml.Node, new: str) -> tuple[int, int, str]:
    """Return what to put where ``node`` stands. The end of a block sequence lies at the next key: leave line
    ends.
    """
    start, end = node.start_mark.index, node.end_mark.index
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        last = node.value[-1].end_mark.index if node.value else start
        end = min(end, last)
    return start, end, new


def _note(provenance: Provenance, carried_from: str) -> str:
    lines = (
        f"{NOTE} on {provenance.when} for {provenance.tag}.",
        f"# Carried over from {carried_from}; {provenance.asset} came from {provenance.origin}.",
        f"# {provenance.proof}.",
    )
    return "".join(f"{_one_line(line)}\n" for line in lines) + "\n"


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _without_note(text: str) -> str:
    """Return ``text`` without the note of the installation before."""
    if not text.startswith(NOTE):
        return text
    lines = text.splitlines(keepends=True)
    rest = lines[3:]
    if rest and not rest[0].strip():
        rest = rest[1:]
    return "".join(rest)


def _unfit(why: str) -> Unfit:
    return Unfit(
        FailureKind.RUN_CONFIG,
        f"no run configuration can be written for the new release: {why}",
        "write run-config.toml into the upgrade folder by hand, with the binary beside it",
    )
