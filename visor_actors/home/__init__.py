"""The home folder: where everything is, what is configured, what runs, and what has happened so far.

What others may use is exported here, and imported only when it is asked for. (``initialise`` is in its module
of that name.)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visor_actors.home.brands import Brand, brand
    from visor_actors.home.config import KeyChange, LoadedConfig, describe_changes, load_config
    from visor_actors.home.current import CurrentLink, read_current, switch_current
    from visor_actors.home.errors import (
        ConfigurationInvalid,
        CurrentRefused,
        HomeError,
        HomeUnusable,
        JournalUnavailable,
        Problem,
    )
    from visor_actors.home.initialise import InitReport
    from visor_actors.home.journal import HistoryEntry, Journal, UpgradeRow
    from visor_actors.home.layout import Finding, HomeLayout
    from visor_actors.home.run_config import BinaryConfig, RpcConfig, RunConfig, load_run_config
    from visor_actors.home.settings import VisorConfig

_MODULES = {
    "brands": ("Brand", "brand"),
    "config": ("KeyChange", "LoadedConfig", "describe_changes", "load_config"),
    "current": ("CurrentLink", "read_current", "switch_current"),
    "errors": (
        "ConfigurationInvalid",
        "CurrentRefused",
        "HomeError",
        "HomeUnusable",
        "JournalUnavailable",
        "Problem",
    ),
    "initialise": ("InitReport",),
    "journal": ("HistoryEntry", "Journal", "UpgradeRow"),
    "layout": ("Finding", "HomeLayout"),
    "run_config": ("BinaryConfig", "RpcConfig", "RunConfig", "load_run_config"),
    "settings": ("VisorConfig",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "BinaryConfig",
    "Brand",
    "ConfigurationInvalid",
    "CurrentLink",
    "CurrentRefused",
    "Finding",
    "HistoryEntry",
    "HomeError",
    "HomeLayout",
    "HomeUnusable",
    "InitReport",
    "Journal",
    "JournalUnavailable",
    "KeyChange",
    "LoadedConfig",
    "Problem",
    "RpcConfig",
    "RunConfig",
    "UpgradeRow",
    "VisorConfig",
    "brand",
    "describe_changes",
    "load_config",
    "load_run_config",
    "read_current",
    "switch_current",
]


def __getattr__(name: str) -> object:
    module = _HOMES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
