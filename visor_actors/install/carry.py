"""Carries the run configuration of the current folder over into the folder of a new release.

Everything an operator wrote stays, comments too. Changed are only: ``name``, the binaries' paths (one binary
serves as core and as data node, whose first argument is then ``datanode``), and a snapshot height that was
meant for one start only. A note at the top says where the file came from. YAML is edited in place, value by
value, for the same reason.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import tomlkit
import yaml
from msgspec import Struct
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


class Provenance(Struct, frozen=True, kw_only=True):
    """What the note says. ``when`` is a date and time as text."""

    tag: str
    asset: str
    origin: str
    proof: str
    when: str


class Carried(Struct, frozen=True, kw_only=True):
    """The new file: its name and mode (the old one's), its text, and whether a stale snapshot height was left
    out.
    """

    file_name: str
    mode: int
    text: str
    dropped: bool


class _Changes(Struct, frozen=True, kw_only=True):
    """What is to be different, decided before any format is looked at. None: leave as it is."""

    tag: str
    brand: str
    binary: str
    core_args: tuple[str, ...] | None
    dropped: bool
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
    toml = config.path.suffix == ".toml"
    try:
        edited = (_edit_toml if toml else _edit_yaml)(_without_note(text), changes)
        _make_sure(edited, toml, changes)
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise _unfit(f"{config.path} cannot be edited: {error}") from error
    note = _note(provenance, f"{source.name}/{config.path.name}")
    return Carried(file_name=config.path.name, mode=mode, text=note + edited, dropped=changes.dropped)


def plan_changes(config: RunConfig, *, tag: str, binary: str) -> _Changes:
    """Decide what has to be different in the new file."""
    # Words that stood in a path, as in "vega data-node", move into the arguments.
    given = command_line(config, Role.CORE).arguments
    core_args = without_flag(given, SNAPSHOT_HEIGHT)
    data_node_args: tuple[str, ...] | None = None
    if config.data_node is not None:
        data_node_args = command_line(config, Role.DATA_NODE).arguments
        if data_node_args[:1] != (DATANODE,):
            data_node_args = (DATANODE, *data_node_args)
    return _Changes(
        tag=tag,
        brand=config.brand,
        binary=binary,
        core_args=_unless_written(config, config.brand, core_args),
        dropped=core_args != given,
        data_node=config.data_node is not None,
        data_node_args=None if data_node_args is None else _unless_written(config, DATA_NODE, data_node_args),
    )


def _unless_written(config: RunConfig, table: str, wanted: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return ``wanted``, or None if the file says exactly that already."""
    text = config.path.read_text(encoding="utf-8")
    parsed = tomllib.loads(text) if config.path.suffix == ".toml" else yaml.safe_load(text)
    return None if tuple(parsed[table]["binary"].get("args") or ()) == wanted else wanted


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
        _reduce(core, changes.core_args)
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


def _reduce(binary: TomlTable, wanted: Sequence[str]) -> None:
    """Make the arguments ``wanted``, with the comments between them if it is only a matter of leaving some
    out.
    """
    present = cast(Array, binary["args"]) if "args" in binary else None
    surplus = None if present is None else _surplus(list(present.unwrap()), wanted)
    if present is None or surplus is None:
        binary["args"] = list(wanted)
        return
    for index in reversed(surplus):
        del present[index]


def _surplus(items: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Return the indices to leave out of ``items`` to get ``wanted``; None when that is not enough."""
    surplus: list[int] = []
    found = 0
    for index, item in enumerate(items):
        if found < len(wanted) and item == wanted[found]:
            found += 1
        else:
            surplus.append(index)
    return surplus if found == len(wanted) else None


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
    if not isinstance(root, yaml.MappingNode):
        raise ValueError("it is no table")
    edits: list[_Edit] = []
    name = _yaml_entry(root, "name")
    if name is None:
        start = root.start_mark.index
        written = f"name: {_yaml_scalar(changes.tag)}"
        edits.append(
            (start + 1, start + 1, f"{written}, ") if root.flow_style else (start, start, f"{written}\n")
        )
    else:
        edits.append(_replaced(name.value, _yaml_scalar(changes.tag)))
    edits += _yaml_binary(root, changes.brand, changes.binary, changes.core_args)
    if changes.data_node:
        edits += _yaml_binary(root, DATA_NODE, changes.binary, changes.data_node_args)
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


_Edit = tuple[int, int, str]  # from, to (characters of the old text), what is written there instead


class _Entry(Struct, frozen=True):
    key: yaml.Node
    value: yaml.Node


def _yaml_binary(root: yaml.Node, table: str, binary: str, args: tuple[str, ...] | None) -> list[_Edit]:
    brand = _yaml_entry(root, table)
    node = None if brand is None else _yaml_entry(brand.value, "binary")
    path = None if node is None else _yaml_entry(node.value, "path")
    if node is None or path is None:
        raise ValueError(f"{table}.binary has no path")
    if args is None:
        return [_replaced(path.value, _yaml_scalar(binary))]
    present = _yaml_entry(node.value, "args")
    if present is not None:
        # From the key on: a block sequence may stand where a flow one may not.
        start, end = present.key.end_mark.index, present.value.end_mark.index
        if (
            isinstance(present.value, yaml.SequenceNode)
            and not present.value.flow_style
            and present.value.value
        ):
            end = present.value.value[-1].end_mark.index  # a block ends at the next key only
        return [_replaced(path.value, _yaml_scalar(binary)), (start, end, f": {_yaml_flow(args)}")]
    separator = (
        ", " if cast(yaml.MappingNode, node.value).flow_style else f"\n{' ' * path.key.start_mark.column}"
    )
    return [_replaced(path.value, f"{_yaml_scalar(binary)}{separator}args: {_yaml_flow(args)}")]


def _yaml_entry(node: yaml.Node, key: str) -> _Entry | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((_Entry(name, value) for name, value in node.value if name.value == key), None)


def _replaced(node: yaml.Node, new: str) -> _Edit:
    return node.start_mark.index, node.end_mark.index, new


def _yaml_flow(items: Sequence[str]) -> str:
    return yaml.safe_dump(list(items), default_flow_style=True, width=1 << 30).strip()


def _yaml_scalar(text: str) -> str:
    return _yaml_flow([text])[1:-1]


def _make_sure(text: str, toml: bool, changes: _Changes) -> None:
    """Raise ValueError unless the edited text says what was planned: an anchor used twice, say, cannot be
    edited.
    """
    found = tomllib.loads(text) if toml else yaml.safe_load(text)
    core = found[changes.brand]["binary"]
    data_node = found.get(DATA_NODE, {}).get("binary", {})
    as_planned = (
        found["name"] == changes.tag
        and core["path"] == changes.binary
        and changes.core_args in (None, tuple(core.get("args") or ()))
        and changes.data_node_args in (None, tuple(data_node.get("args") or ()))
        and (not changes.data_node or data_node["path"] == changes.binary)
    )
    if not as_planned:
        raise ValueError("its structure is too intricate")


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
