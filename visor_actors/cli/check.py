"""``check``: the rehearsal of a start or an upgrade, with one verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from visor_actors.cli.errors import ExitCode
from visor_actors.cli.framework import Command, Invocation, Output, with_invocation

if TYPE_CHECKING:
    from visor_actors.cli.checks.finding import Finding


class CheckDocument(Struct, frozen=True, kw_only=True):
    """What ``check --output json`` prints."""

    ready: bool
    verdict: str
    findings: tuple[Finding, ...]


@click.command(
    cls=Command,
    examples=(
        "visor-actors check --home /srv/visor",
        "visor-actors check --upgrade v0.76.0",
        "visor-actors check --offline --output json",
    ),
)
@click.option(
    "--upgrade", "tag", metavar="TAG", help="Also rehearse this upgrade, up to but without the switch."
)
@click.option("--offline", is_flag=True, help="Ask no server; with --upgrade, fetch nothing.")
@with_invocation
def command(invocation: Invocation, tag: str | None, offline: bool) -> int:
    """Look at everything a start needs, say what is wrong and how to put it right. Exits with 0 or 1.

    With --upgrade the release is fetched if it is missing, verified and checked, and the command lines are
    shown that the switch would start. The running node is not touched."""
    from visor_actors.cli.checks.finding import Level
    from visor_actors.cli.terminal import print_json

    human = invocation.output is Output.HUMAN
    findings: list[Finding] = []
    for finding in _look(invocation, tag, offline=offline):
        findings.append(finding)
        if human:
            click.echo(_render(finding))
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    document = CheckDocument(ready=not problems, verdict=_verdict(problems, tag), findings=tuple(findings))
    if human:
        click.echo(f"\n{_coloured(document)}")
    else:
        print_json(document)
    return ExitCode.DONE if document.ready else ExitCode.FAILED


def _look(invocation: Invocation, tag: str | None, *, offline: bool) -> Iterator[Finding]:
    from visor_actors.cli.checks import at_home, folders, machine, release, upgrade
    from visor_actors.cli.folders import run_folders
    from visor_actors.home.current import LinkedTo, read_current
    from visor_actors.home.errors import HomeUnusable

    layout = invocation.layout
    yield from at_home.check_home(layout)
    if not layout.root.is_dir():
        return
    loaded, found = at_home.check_config(layout)
    yield from found
    try:
        link = read_current(layout)
    except HomeUnusable:
        return  # said above
    yield at_home.check_link(layout, link)
    runs = link.folder if isinstance(link, LinkedTo) else layout.genesis
    target = layout.root / loaded.config.upgrade_folders.get(tag, tag) if tag and loaded else None
    for folder in sorted({runs, *run_folders(layout)}):
        if folder.name != "vX.X.X" and folder != target:
            yield from folders.check_run_folder(folder, tag=None, needed=folder == runs)
    yield at_home.check_journal(layout)
    yield at_home.check_running(layout)
    yield from machine.check_machine(layout, loaded.config if loaded else None)
    yield from machine.check_service(layout)
    if loaded is not None:
        if not offline:
            yield from release.check_source(layout, loaded.config)
        if tag is not None:
            yield from upgrade.check_upgrade(invocation, loaded.config, link, tag, fetch=not offline)


def _render(finding: Finding) -> str:
    from visor_actors.cli.checks.finding import Level
    from visor_actors.cli.terminal import bad, doubtful, good

    match finding.level:
        case Level.OK:
            mark = good("ok     ")
        case Level.NOTE:
            mark = doubtful("note   ")
        case Level.PROBLEM:
            mark = bad("problem")
    text = f"{mark}  {finding.subject}: {finding.message}"
    return f"{text}\n         fix: {finding.fix}" if finding.fix else text


def _verdict(problems: int, tag: str | None) -> str:
    what = f"the upgrade to {tag}" if tag else "a start"
    if problems:
        return f"NOT READY for {what}: {problems} problem{'' if problems == 1 else 's'} to put right"
    return f"READY for {what}"


def _coloured(document: CheckDocument) -> str:
    from visor_actors.cli.terminal import bad, good

    return good(document.verdict) if document.ready else bad(document.verdict)
