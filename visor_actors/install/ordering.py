"""Makes an order from the configuration: what the installer actor and ``visor-actors prepare`` have in
common.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from visor_actors.home.settings import AutoInstallConfig
from visor_actors.install.order import InstallOrder, OrderInvalid

TOKEN_VARIABLE = "GITHUB_TOKEN"
_LONGEST_TOKEN = 4096


def make_order(
    config: AutoInstallConfig,
    *,
    home: Path,
    tag: str,
    brand: str,
    folder_name: str,
    source_folder: Path | None,
    requested_by: str,
    environment: Mapping[str, str] | None = None,
) -> InstallOrder:
    """Return the order for one release. Reads the token's small file. Raises :class:`OrderInvalid`."""
    return InstallOrder(
        home=home,
        tag=tag,
        brand=brand,
        folder_name=folder_name,
        source_folder=source_folder,
        owner=config.repository_owner,
        repository=config.repository,
        api_url=config.api_url,
        asset_name=config.asset_name,
        binary_name=config.binary_name,
        token=read_token(config.token_file, os.environ if environment is None else environment),
        verify=config.verify,
        checksum_asset=config.checksum_asset,
        public_key=config.public_key,
        pinned=config.checksums,
        max_size_mib=config.max_size_mib,
        source=config.source,
        requested_by=requested_by,
    )


def read_token(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """Return the token in ``file``; without one that in ``GITHUB_TOKEN``. Raises :class:`OrderInvalid`."""
    if file is None:
        token = environment.get(TOKEN_VARIABLE, "").strip()
        return token or None
    try:
        with file.open("rb") as opened:
            token = opened.read(_LONGEST_TOKEN).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OrderInvalid(f"the token in {file} cannot be read: {error}") from error
    if not token or not token.isprintable() or " " in token:
        raise OrderInvalid(f"{file} does not hold a token")
    return token
