"""Fetching a release from the command line: by the running visor, or by a job of our own when none runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from visor_actors.actors.reports import InstallReport, UpgradeReport
from visor_actors.cli.errors import CommandError
from visor_actors.cli.framework import Invocation

if TYPE_CHECKING:
    from visor_actors.home.config import VisorConfig
    from visor_actors.home.layout import HomeLayout
    from visor_actors.install.order import InstallOrder

_SETTLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What ``prepare --output json`` prints. ``by``: ``visor`` or ``command``; ``verification`` only for
    the latter."""

    tag: str
    folder: str
    by: str
    verification: str | None = None


def prepare(invocation: Invocation, tag: str, show: Callable[[InstallReport], None]) -> Prepared:
    """Fetch, verify and unpack ``tag``; ``show`` is called with the progress. Raises CommandError."""
    from visor_actors.api.client import NotRunning

    try:
        invocation.client.prepare(tag)
    except NotRunning:
        return _prepare_here(invocation.layout, tag, show)
    return _follow(invocation, tag, show)


def _follow(invocation: Invocation, tag: str, show: Callable[[InstallReport], None]) -> Prepared:
    """Watch the running visor do it."""
    client = invocation.client
    idle_since: float | None = None
    while True:
        report = client.status()
        install = report.install if report.install is not None and report.install.tag == tag else None
        if install is not None:
            idle_since = None
            show(install)
            if install.phase == "failed":
                raise _failed(tag, install.problem, None)
        else:
            known = next((upgrade for upgrade in client.upgrades() if upgrade.tag == tag), None)
            folder = _folder(invocation.layout, tag, known)
            if known is not None and known.problem:
                raise _failed(tag, known.problem, known.next_step)
            # Between two stages nothing may be shown for a moment.
            idle_since = idle_since or time.monotonic()
            if (known is not None and known.prepared) or time.monotonic() - idle_since > _SETTLE_SECONDS:
                if not (invocation.layout.root / folder).is_dir():
                    raise _failed(tag, "visor is at it no more, and the folder is not there", None)
                return Prepared(tag=tag, folder=folder, by="visor")
        time.sleep(0.2)


def _folder(layout: HomeLayout, tag: str, known: UpgradeReport | None) -> str:
    if known is not None and known.folder:
        return known.folder
    from visor_actors.home.config import load_config

    return load_config(layout).config.upgrade_folders.get(tag, tag)


def _failed(tag: str, problem: str | None, next_step: str | None) -> CommandError:
    return CommandError(
        f"{tag} could not be prepared: {problem or 'no reason was given'}",
        next_step=next_step or "see visor-actors history --kind installs",
    )


def _prepare_here(layout: HomeLayout, tag: str, show: Callable[[InstallReport], None]) -> Prepared:
    """Do it with a job of our own."""
    from visor_actors.home.config import load_config
    from visor_actors.install.launch import launch_job
    from visor_actors.install.messages import Installed, InstallFailed, Progress

    order = order_for(layout, load_config(layout).config, tag)
    layout.prepare_private()
    with launch_job(order) as job:
        for message in job.messages():
            match message:
                case Progress():
                    show(
                        InstallReport(
                            tag=tag,
                            phase=message.phase.value,
                            done=message.done,
                            total=message.total,
                            rate=message.rate,
                        )
                    )
                case InstallFailed():
                    raise _failed(tag, message.message, message.next_step)
                case Installed():
                    return Prepared(
                        tag=tag,
                        folder=message.folder.name,
                        by="command",
                        verification=message.verification.details,
                    )
                case _:
                    pass
    raise _failed(tag, "the installer ended without an answer", None)


def order_for(layout: HomeLayout, config: VisorConfig, tag: str) -> InstallOrder:
    """Return the order for ``tag`` as the configuration of this home has it."""
    import os

    from visor_actors.home.current import LinkedTo, read_current
    from visor_actors.home.run_config import peek_brand
    from visor_actors.install.order import InstallOrder

    auto = config.auto_install
    link = read_current(layout)
    token = os.environ.get("GITHUB_TOKEN")
    if auto.token_file is not None:
        token = auto.token_file.read_text().strip()
    return InstallOrder(
        home=layout.root,
        tag=tag,
        brand=peek_brand(layout).name,
        folder_name=config.upgrade_folders.get(tag, tag),
        source_folder=link.folder if isinstance(link, LinkedTo) else layout.genesis,
        owner=auto.repository_owner,
        repository=auto.repository,
        api_url=auto.api_url,
        asset_name=auto.asset_name,
        binary_name=auto.binary_name,
        token=token,
        verify=auto.verify,
        checksum_asset=auto.checksum_asset,
        public_key=auto.public_key,
        pinned=auto.checksums,
        max_size_mib=auto.max_size_mib,
        source=auto.source,
        requested_by="visor-actors prepare",
    )
