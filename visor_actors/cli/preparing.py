"""Fetching a release from the command line: by the running visor, or by a job of our own when none runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from visor_actors.actors.reports import InstallReport, UpgradeReport
from visor_actors.cli.errors import CommandError
from visor_actors.cli.framework import Invocation

if TYPE_CHECKING:
    from visor_actors.home.config import VisorConfig
    from visor_actors.home.layout import HomeLayout
    from visor_actors.install.order import InstallOrder

_LOOK_SECONDS = 0.2
_SETTLE_SECONDS = 3.0


class Prepared(Struct, frozen=True, kw_only=True):
    """What ``prepare --output json`` prints. ``by``: ``visor`` or ``command``; ``verification`` only for
    the latter."""

    tag: str
    folder: str
    by: str
    verification: str | None = None


def prepare(invocation: Invocation, tag: str, show: Callable[[InstallReport], None]) -> Prepared:
    """Fetch, verify and unpack ``tag``; ``show`` is called with the progress. Raises CommandError."""
    from visor_actors.api.client import NotRunning

    client = invocation.client
    try:
        before = client.status().install
        client.prepare(tag)
    except NotRunning:
        return _prepare_here(invocation.layout, tag, show)
    return _follow(invocation, tag, before, show)


def _follow(
    invocation: Invocation, tag: str, before: InstallReport | None, show: Callable[[InstallReport], None]
) -> Prepared:
    """Watch the running visor do it. ``before`` is what was shown before it was asked: that is no news."""
    client = invocation.client
    idle_since = time.monotonic()
    while True:
        report = client.status()
        install = report.install if report.install is not None and report.install.tag == tag else None
        # Between two stages nothing may be shown for a moment.
        settled = time.monotonic() - idle_since > _SETTLE_SECONDS
        old = install == before and install is not None and install.phase in ("failed", "waiting")
        if install is not None and (not old or settled):
            if install.phase == "failed":
                raise _failed(tag, install.problem, None)
            idle_since = time.monotonic()
            before = None
            show(install)
        else:
            known = next((upgrade for upgrade in client.upgrades() if upgrade.tag == tag), None)
            folder = _folder(invocation.layout, tag, known)
            there = (invocation.layout.root / folder).is_dir()
            if there and ((known is not None and known.prepared) or (settled and not _troubled(known))):
                return Prepared(tag=tag, folder=folder, by="visor")
            if settled:
                problem = known.problem if known is not None else None
                step = known.next_step if known is not None else None
                raise _failed(tag, problem or "visor is at it no more, and the folder is not there", step)
        time.sleep(_LOOK_SECONDS)


def _troubled(upgrade: UpgradeReport | None) -> bool:
    return upgrade is not None and upgrade.problem is not None


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
    from visor_actors.install.order import OrderInvalid

    try:
        order = order_for(layout, load_config(layout).config, tag)
    except OrderInvalid as error:
        raise _failed(tag, str(error), "correct [autoInstall]; see visor-actors config show") from error
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
    """Return the order for ``tag`` as the configuration of this home has it. Raises OrderInvalid."""
    from visor_actors.home.current import LinkedTo, read_current
    from visor_actors.home.run_config import peek_brand
    from visor_actors.install.ordering import make_order

    link = read_current(layout)
    return make_order(
        config.auto_install,
        home=layout.root,
        tag=tag,
        brand=peek_brand(layout).name,
        folder_name=config.upgrade_folders.get(tag, tag),
        source_folder=link.folder if isinstance(link, LinkedTo) else layout.genesis,
        requested_by="visor-actors prepare",
    )
