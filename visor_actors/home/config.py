"""Loading visor's configuration, and saying what a newer one changes.

The settings themselves are in :mod:`~visor_actors.home.settings`, the keys of the file in
:mod:`~visor_actors.home.config_keys`.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from visor_actors.home.brands import Brand, brand
from visor_actors.home.config_keys import CONFIG_KEYS
from visor_actors.home.documents import Document, read_document
from visor_actors.home.errors import ConfigurationInvalid, Problem
from visor_actors.home.kinds import FilePath, Key, Tables, TakesEffect
from visor_actors.home.layout import HomeLayout
from visor_actors.home.legacy import modernise
from visor_actors.home.masking import display
from visor_actors.home.reader import Found, Reading, problems_of, read_keys
from visor_actors.home.run_config import peek_brand
from visor_actors.home.settings import (
    ActorOverrides,
    ApiConfig,
    AutoInstallConfig,
    Hook,
    HooksConfig,
    LogFormat,
    LogLevel,
    LogMode,
    LogsConfig,
    OnExit,
    SentryConfig,
    SupervisionConfig,
    Verify,
    VisorConfig,
)

__all__ = [
    "ApiConfig",
    "AutoInstallConfig",
    "ConfigurationInvalid",
    "Hook",
    "HooksConfig",
    "KeyChange",
    "LoadedConfig",
    "LogFormat",
    "LogLevel",
    "LogMode",
    "LogsConfig",
    "OnExit",
    "Origin",
    "SentryConfig",
    "SupervisionConfig",
    "TakesEffect",
    "Verify",
    "VisorConfig",
    "describe_changes",
    "is_loopback",
    "load_config",
    "value_of",
]

SENTRY_VARIABLE = "SENTRY_DSN"


class Origin(enum.Enum):
    """Where an effective value comes from."""

    FILE = "file"
    DEFAULT = "default"
    BRAND = "brand"
    ENVIRONMENT = "environment"


class LoadedConfig(Struct, frozen=True, kw_only=True):
    """A configuration, the file it was read from, what to warn of, and for each key where its value comes
    from.
    """

    config: VisorConfig
    path: Path
    warnings: tuple[str, ...]
    origins: Mapping[str, Origin]


class KeyChange(Struct, frozen=True, kw_only=True):
    """One key whose value changed. ``old`` and ``new`` are texts to show (secrets masked), "not set" where
    absent.
    """

    key: str
    old: str
    new: str
    takes_effect: TakesEffect

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}, takes effect {self.takes_effect.value}"


def load_config(
    layout: HomeLayout, *, environ: Mapping[str, str] | None = None, node_brand: str | None = None
) -> LoadedConfig:
    """Read the configuration of ``layout``'s home. Blocks on the disk only.

    Keys that are absent have their default; those of ``[autoInstall]`` that depend on the brand follow
    ``node_brand``, or the brand of the run configuration behind ``current`` (or in ``genesis``). Raises
    :class:`ConfigurationInvalid` with all problems of the file.
    """
    environ = os.environ if environ is None else environ
    document = read_document(layout.config_file)
    modern = modernise(document.values)
    reading = read_keys(modern.values, CONFIG_KEYS)
    reading.warnings[:0] = modern.warnings
    origins = {key.path: Origin.FILE if key.path in reading.values else Origin.DEFAULT for key in CONFIG_KEYS}
    problems = _from_environment(reading, origins, environ)
    reading.found += _across_keys(reading)
    problems = (*problems_of(document, reading.found), *problems)
    if problems:
        raise ConfigurationInvalid(problems)
    _from_brand(reading, origins, layout, node_brand)
    return LoadedConfig(
        config=_build(reading.values, document),
        path=document.path,
        warnings=tuple(reading.warnings),
        origins=MappingProxyType(origins),
    )


def _from_environment(
    reading: Reading, origins: dict[str, Origin], environ: Mapping[str, str]
) -> tuple[Problem, ...]:
    dsn = environ.get(SENTRY_VARIABLE)
    if not dsn or "sentry.dsn" in reading.values:
        return ()
    inner = read_keys({"sentry": {"dsn": dsn}}, CONFIG_KEYS)
    reading.values.update(inner.values)
    origins["sentry.dsn"] = Origin.ENVIRONMENT
    return tuple(
        Problem(file=Path(f"${SENTRY_VARIABLE}"), key=one.key, found=one.found, allowed=one.allowed)
        for one in inner.found
    )


def _from_brand(
    reading: Reading, origins: dict[str, Origin], layout: HomeLayout, node_brand: str | None
) -> None:
    missing = [path for path in _BRANDED if path not in reading.values]
    if not missing:
        return
    mine = brand(node_brand) if node_brand else peek_brand(layout)
    for path in missing:
        reading.values[path] = _BRANDED[path](mine)
        origins[path] = Origin.BRAND


_BRANDED: dict[str, Callable[[Brand], str]] = {
    "autoInstall.repositoryOwner": lambda mine: mine.owner,
    "autoInstall.repository": lambda mine: mine.repository,
    "autoInstall.asset.name": lambda mine: mine.asset(),
    "autoInstall.asset.binaryName": lambda mine: mine.binary,
}


def _across_keys(reading: Reading) -> list[Found]:
    """Rules that no key can check alone."""
    values = reading.values
    found: list[Found] = []
    least, most = values.get("supervision.delaySeconds", 0.2), values.get("supervision.maxDelaySeconds", 30.0)
    if isinstance(least, float) and isinstance(most, float) and most < least:
        at = (
            "supervision.maxDelaySeconds"
            if "supervision.maxDelaySeconds" in values
            else "supervision.delaySeconds"
        )
        found.append(
            Found(
                place=tuple(at.split(".")),
                key=at,
                found=f"maxDelaySeconds {most:g} and delaySeconds {least:g}",
                allowed="maxDelaySeconds must not be less than delaySeconds",
            )
        )
    listen = values.get("api.listen")
    if isinstance(listen, str):
        host, _, port = listen.rpartition(":")
        if not 0 <= int(port) <= 65535:
            found.append(
                Found(
                    place=("api", "listen"), key="api.listen", found=port, allowed="a port is at most 65535"
                )
            )
        if not is_loopback(host) and "api.tokenFile" not in values:
            found.append(
                Found(
                    place=("api", "listen"),
                    key="api.listen",
                    found=f'"{listen}"',
                    allowed="anybody on the network could read it",
                    suggestion="set api.tokenFile, or listen on 127.0.0.1",
                )
            )
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host`` (a name other than localhost is not looked up: it may be
    anything).
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _build(values: Mapping[str, object], document: Document) -> VisorConfig:
    fields: dict[str, Any] = {}
    for key in CONFIG_KEYS:
        *tables, name = key.attribute.split(".")
        target = fields
        for table in tables:
            target = target.setdefault(table, {})
        target[name] = _held(key, values.get(key.path, key.default), document.path.parent)
    hooks = {name: _hook(**hook) for name, hook in fields.pop("hooks").items()}
    return VisorConfig(
        **{
            **fields,
            "auto_install": AutoInstallConfig(**fields["auto_install"]),
            "supervision": SupervisionConfig(**fields["supervision"]),
            "logs": LogsConfig(**fields["logs"]),
            "api": ApiConfig(**fields["api"]),
            "sentry": SentryConfig(**fields["sentry"]),
            "hooks": HooksConfig(**hooks),
        }
    )


def _held(key: Key, value: object, folder: Path) -> object:
    match key.kind, value:
        case FilePath(), str():
            return folder / value
        case Tables(keys=inner), dict():
            return MappingProxyType(
                {
                    name: ActorOverrides(**{one.attribute: entry.get(one.path) for one in inner})
                    for name, entry in value.items()
                }
            )
        case _, dict():
            return MappingProxyType(dict(value))
        case _:
            return value


def _hook(argv: tuple[str, ...], timeout_seconds: float) -> Hook | None:
    return Hook(argv=argv, timeout_seconds=timeout_seconds) if argv else None


def value_of(config: VisorConfig, key: Key) -> object:
    """The value that ``config`` holds for ``key``."""
    value: object = functools.reduce(
        lambda holder, name: None if holder is None else getattr(holder, name),
        key.attribute.split("."),
        config,
    )
    return key.default if value is None else value


def describe_changes(old: VisorConfig, new: VisorConfig) -> tuple[KeyChange, ...]:
    """Every key whose value differs, in the order of the table; entries of free tables one by one."""
    changes: list[KeyChange] = []
    for key in CONFIG_KEYS:
        before, after = value_of(old, key), value_of(new, key)
        if before == after:
            continue
        for name, one, other in _parts(key, before, after):
            changes.append(
                KeyChange(
                    key=name, old=display(key, one), new=display(key, other), takes_effect=key.takes_effect
                )
            )
    return tuple(changes)


def _parts(key: Key, before: object, after: object) -> list[tuple[str, object, object]]:
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return [(key.path, before, after)]
    names = sorted({*before, *after})
    pairs = [(f'{key.path}."{name}"', before.get(name), after.get(name)) for name in names]
    return [(name, one, other) for name, one, other in pairs if one != other]
