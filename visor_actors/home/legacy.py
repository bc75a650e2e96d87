"""Shapes of configuration files that were published once and are still about, turned into today's with a
warning.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

_OLD_ASSET_KEYS = {"asset_name": "name", "assetname": "name", "name": "name"}
_OLD_BINARY_KEYS = {"binary_name": "binaryName", "binaryname": "binaryName"}


class Modern(Struct, frozen=True, kw_only=True):
    """The values in today's shape, and what was changed for that."""

    values: Mapping[str, object]
    warnings: tuple[str, ...]


def modernise(values: Mapping[str, object]) -> Modern:
    """Return ``values`` of a config file in today's shape. What is not understood is left for the reader to
    refuse.
    """
    modern = dict(values)
    warnings: list[str] = []
    if isinstance(modern.get("Admin"), Mapping):
        del modern["Admin"]
        warnings.append("Admin: a table of the node's own configuration, ignored here; remove it")
    table = next((name for name in modern if str(name).lower() == "autoinstall"), None)
    install = modern.get(table) if table is not None else None
    if table is not None and isinstance(install, Mapping):
        old = install.get("assets")
        asset = _asset(old) if isinstance(old, Mapping) else None
        if asset is not None:
            rest = {name: value for name, value in install.items() if name != "assets"}
            present = rest.get("asset")
            rest["asset"] = {**asset, **present} if isinstance(present, Mapping) else asset
            modern[table] = rest
            warnings.append(
                "autoInstall.assets: an old table, still understood; write [autoInstall.asset] instead"
            )
    return Modern(values=modern, warnings=tuple(warnings))


def _asset(old: Mapping[str, object]) -> dict[str, object] | None:
    """The asset of an old table: its keys directly, or under the brand (the core's comes first, if there
    are several).
    """
    known = _OLD_ASSET_KEYS | _OLD_BINARY_KEYS
    if all(str(name).lower() in known for name in old):
        return {known[str(name).lower()]: value for name, value in old.items()}
    inner = [(name, entry) for name, entry in old.items() if isinstance(entry, Mapping)]
    if len(inner) != len(old):
        return None
    core = next((entry for name, entry in inner if name not in ("data_node", "dataNode", "data-node")), None)
    return _asset(core) if core is not None else None
