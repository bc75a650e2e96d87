"""Checks of where releases come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from visor_actors.cli.checks.finding import Finding, note, ok, problem
from visor_actors.home.config import VisorConfig
from visor_actors.home.layout import HomeLayout

_SECONDS = 10.0


def check_source(layout: HomeLayout, config: VisorConfig) -> Iterator[Finding]:
    """Whether releases can be fetched: the server answers, the repository is there, the token is right."""
    auto = config.auto_install
    if not auto.enabled:
        yield ok("releases", "autoInstall is off: you put every release into its folder yourself")
        return
    if auto.source is not None:
        yield from _check_own_source(auto.source)
        return
    yield _check_github(layout, config)


def _check_own_source(source: str) -> Iterator[Finding]:
    if "://" in source:
        yield ok(
            "releases",
            f"come from {source.split('?', maxsplit=1)[0]}; whether a release is there, --upgrade TAG tells",
        )
        return
    folder = Path(source.split("{", maxsplit=1)[0])
    if folder.is_dir():
        yield ok("releases", f"come from the folder {folder}")
    else:
        yield problem("releases", f"the folder {folder} does not exist", "correct autoInstall.source")


def _check_github(layout: HomeLayout, config: VisorConfig) -> Finding:
    from visor_actors.cli.preparing import order_for
    from visor_actors.install.errors import InstallError
    from visor_actors.install.order import Limits, OrderInvalid
    from visor_actors.install.transport import Transport

    auto = config.auto_install
    name = f"{auto.repository_owner}/{auto.repository}"
    try:
        token = order_for(layout, config, "v0").token
    except OrderInvalid as error:
        return problem(
            "releases", f"autoInstall.tokenFile: {error}", "put the token there, or remove the key"
        )
    limits = Limits(connect_seconds=_SECONDS, stall_seconds=_SECONDS)
    transport = Transport(limits=limits, token=token, token_url=auto.api_url)
    try:
        url = f"{auto.api_url.rstrip('/')}/repos/{name}/releases?per_page=1"
        with transport.get(url, headers={"Accept": "application/vnd.github+json"}) as answer:
            left = answer.headers.get("X-RateLimit-Remaining")
    except InstallError as error:
        return problem("releases", f"{name}: {error.message}", error.next_step)
    finally:
        transport.close()
    if left is not None and left.isdigit() and int(left) < 10:
        fix = "set autoInstall.tokenFile or GITHUB_TOKEN: 5000 requests an hour instead of 60"
        return note("releases", f"{auto.api_url} allows only {left} more requests this hour", fix)
    how = "with a token" if token else "without a token"
    return ok("releases", f"{name} can be reached {how}")
