"""The files that ``init`` writes: configuration files with every key explained, made from the tables of keys.

Prose begins with ``# ``; a key that is left to its default stands as ``#key = value``, ready to be
uncommented.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from visor_actors.home.brands import Brand
from visor_actors.home.config_keys import CONFIG_KEYS, SECTIONS
from visor_actors.home.kinds import Key, Table, Tables, TakesEffect, to_toml
from visor_actors.home.run_config_keys import BINARY_KEYS, RPC_KEYS

_WIDTH = 100


def config_toml(brand: Brand) -> str:
    """config.toml of a new home: what the original visor wrote is set, everything newer is a comment."""
    lines = [
        "# Configuration of visor-actors. It is read again whenever it changes; a bad edit is reported and",
        "# the last good configuration stays in force. A key that is not set has the default shown here.",
    ]
    section: tuple[str, ...] | None = None
    for key in CONFIG_KEYS:
        if section_of(key) != section:
            section = section_of(key)
            lines += ["", *_comment(SECTIONS[".".join(section)])]
            if section and not isinstance(key.kind, Tables):
                lines.append(f"[{'.'.join(section)}]")
        lines += ["", *_comment(_explain(key)), *_setting(key, brand)]
    return "\n".join(lines) + "\n"


def section_of(key: Key) -> tuple[str, ...]:
    """The table that ``key`` stands in; a free table is one itself."""
    return key.parts if isinstance(key.kind, Table | Tables) else key.parts[:-1]


def _explain(key: Key) -> str:
    when = "" if key.takes_effect is TakesEffect.IMMEDIATELY else f" Takes effect {key.takes_effect.value}."
    return f"{key.doc}{when}"


def _setting(key: Key, brand: Brand) -> Iterator[str]:
    match key.kind:
        case Table():
            yield f"{'' if key.classic else '#'}{key.example}"
        case Tables(keys=inner):
            yield f"#[{key.path}.installer]"
            for one in inner:
                yield f"#{one.path} = {to_toml(_default_of_all(key, one))}"
        case _:
            value = _branded(key, brand) or key.example
            if value is None:
                value = to_toml(key.default)
            yield f"{'' if key.classic else '#'}{key.parts[-1]} = {value}"


def _default_of_all(tables: Key, inner: Key) -> object:
    table = ".".join(tables.parts[:-1])
    return next(key.default for key in CONFIG_KEYS if key.path == f"{table}.{inner.path}")


def _branded(key: Key, brand: Brand) -> str | None:
    value = {
        "autoInstall.repositoryOwner": brand.owner,
        "autoInstall.repository": brand.repository,
        "autoInstall.asset.name": brand.asset(),
        "autoInstall.asset.binaryName": brand.binary,
    }.get(key.path)
    return None if value is None else to_toml(value)


def run_config_toml(name: str, brand: Brand, *, data_node: bool) -> str:
    """run-config.toml of the folder ``name``."""
    lines = [
        "# What visor runs from this folder, and how.",
        "",
        "# A name for people; visor goes by the folder's.",
        f"name = {to_toml(name)}",
        "",
        "# The core node.",
        f"[{brand.name}.binary]",
        *_table(BINARY_KEYS, {"path": brand.binary, "args": ("start",)}),
        "",
        "# The admin socket on which the core tells visor about upgrades.",
        f"[{brand.name}.rpc]",
        *_table(RPC_KEYS, {"socketPath": brand.default_socket, "httpPath": "/rpc"}),
        "",
    ]
    command = {"path": brand.binary, "args": ("datanode", "start")}
    if data_node:
        lines += ["# The data node; it takes the same keys as the core.", "[data_node.binary]"]
        lines += [f"{name} = {to_toml(value)}" for name, value in command.items()]
    else:
        lines += ["# A data node beside the core; it takes the same keys.", "#[data_node.binary]"]
        lines += [f"#{name} = {to_toml(value)}" for name, value in command.items()]
    return "\n".join(lines) + "\n"


def _table(keys: tuple[Key, ...], values: dict[str, object]) -> Iterator[str]:
    for key in keys:
        yield ""
        yield from _comment(key.doc)
        if key.path in values:
            yield f"{key.path} = {to_toml(values[key.path])}"
        else:
            yield f"#{key.path} = {key.example or to_toml(key.default)}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
