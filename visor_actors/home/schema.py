"""JSON Schemas of both files, so that editors complete and check them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import assert_never

from visor_actors.home.config_keys import CONFIG_KEYS
from visor_actors.home.kinds import (
    Choice,
    FilePath,
    Flag,
    Key,
    Kind,
    Number,
    Table,
    Tables,
    Text,
    Whole,
    Words,
    choices,
)
from visor_actors.home.run_config_keys import BINARY_KEYS, RPC_KEYS

Schema = dict[str, object]
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> Schema:
    """The schema of config.toml and config.yaml."""
    return {
        "$schema": _DIALECT,
        "title": "visor-actors: config.toml",
        **_object(CONFIG_KEYS, ()),
    }


def run_config_schema() -> Schema:
    """The schema of run-config.toml and run-config.yaml. The first table bears the brand's name."""
    binary: Schema = {**_object(BINARY_KEYS, ()), "required": ["path"]}
    rpc = _object(RPC_KEYS, ())
    core: Schema = {
        "type": "object",
        "description": "The core node.",
        "properties": {"binary": binary, "rpc": rpc},
        "required": ["binary"],
        "additionalProperties": False,
    }
    return {
        "$schema": _DIALECT,
        "title": "visor-actors: run-config.toml",
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "A name for people."},
            "data_node": {
                "type": "object",
                "description": "The data node.",
                "properties": {"binary": binary},
                "required": ["binary"],
                "additionalProperties": False,
            },
        },
        "patternProperties": {"^(?!data_node$|name$)[a-z][a-z0-9_-]*$": core},
        "additionalProperties": False,
    }


def _object(keys: tuple[Key, ...], at: tuple[str, ...]) -> Schema:
    properties: dict[str, object] = {}
    for key in keys:
        if key.parts[: len(at)] != at:
            continue
        name = key.parts[len(at)]
        if len(key.parts) == len(at) + 1:
            properties[name] = _described(key)
        elif name not in properties:
            properties[name] = _object(keys, (*at, name))
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _described(key: Key) -> Schema:
    schema: Schema = {"description": key.doc, **_kind(key.kind)}
    default = _json(key.default)
    if default is not None:
        schema["default"] = default
    return schema


def _json(value: object) -> object:
    match value:
        case enum.Enum():
            return value.value
        case tuple():
            return list(value)
        case Mapping():
            return dict(value)
        case _:
            return value


def _kind(kind: Kind) -> Schema:
    match kind:
        case Flag():
            return {"type": "boolean"}
        case Whole():
            return {"type": "integer", "minimum": kind.minimum, "maximum": kind.maximum}
        case Number():
            return {"type": "number", "minimum": kind.minimum, "maximum": kind.maximum}
        case Text():
            return {
                "type": "string",
                **({"pattern": f"^({kind.pattern})$"} if kind.pattern else {"minLength": 1}),
            }
        case FilePath():
            return {"type": "string", "minLength": 1}
        case Choice():
            return {"enum": list(choices(kind))}
        case Words():
            return {"type": "array", "items": {"type": "string"}}
        case Table():
            names = {"propertyNames": {"pattern": f"^({kind.name_pattern})$"}} if kind.name_pattern else {}
            return {"type": "object", **names, "additionalProperties": _kind(kind.value)}
        case Tables():
            inner = _object(kind.keys, ())
            return {
                "type": "object",
                "properties": dict.fromkeys(kind.names, inner),
                "additionalProperties": False,
            }
        case _:
            assert_never(kind)
