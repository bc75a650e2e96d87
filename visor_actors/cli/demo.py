"""``demo``: the main job in under a minute, on a simulated node in a temporary home, told as it happens."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
from msgspec import Struct
from msgspec.structs import asdict

from visor_actors.cli import terminal
from visor_actors.cli.errors import CommandError
from visor_actors.cli.framework import Command, Invocation, Output, with_invocation

if TYPE_CHECKING:
    from visor_actors.api.client import ControlClient
    from visor_actors.home.journal import HistoryEntry
    from visor_actors.simulator import ChainReport
    from visor_actors.simulator.release_server import ReleaseServer

T = TypeVar("T")

BLOCK_MS = 40
FIRST_HEIGHT = 120
SECOND_HEIGHT = 260
PATIENCE_SECONDS = 45.0
"""How long one part of the story may take on a busy machine before the demo gives up."""

_CONFIG = """\
pollIntervalSeconds = 0.5
restartsDelaySeconds = 0.2
stopSignalTimeoutSeconds = 10
[logs]
mode = "files"
format = "json"
[autoInstall]
enabled = true
repositoryOwner = "{owner}"
repository = "{repository}"
apiUrl = "{api_url}"
[autoInstall.asset]
name = "fury.zip"
binaryName = "fury"
"""

_RUN_CONFIG = """\
name = "{name}"
[fury.binary]
path = "fury"
args = {core_args}
[fury.rpc]
socketPath = "{socket}"
httpPath = "/rpc"
[data_node.binary]
path = "fury"
args = {data_node_args}
"""


class Gap(Struct, frozen=True, kw_only=True):
    """How long the chain stood still for one upgrade, from the last old block to the first new one."""

    tag: str
    height: int
    milliseconds: float | None


class Summary(Struct, frozen=True, kw_only=True):
    """What ``demo --output json`` prints last."""

    blocks: int
    gaps: tuple[Gap, ...]
    restarts: int
    actor_restarts: int
    problems: tuple[str, ...]
    seconds: float


@click.command(cls=Command, examples=("visor-actors demo", "visor-actors demo --keep --output json"))
@click.option("--keep", is_flag=True, help="Keep the temporary home, to look at it afterwards.")
@with_invocation
def command(invocation: Invocation, keep: bool) -> int:
    """Take a simulated core and data node through two upgrades, kill a binary and an actor on the way.

    Everything happens in a temporary folder and on loopback. The exit code is 0 only if the node's chain is
    intact at the end."""
    folder = Path(tempfile.mkdtemp(prefix="visor-demo-"))
    try:
        summary = _Story(folder, invocation.output).tell()
    finally:
        if keep:
            click.echo(f"kept: {folder}", err=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    _print(summary, invocation.output)
    return 1 if summary.problems else 0


class _Story:
    """One run of the demo. The visor is a process of its own, exactly as an operator would start it."""

    def __init__(self, folder: Path, output: Output) -> None:
        self._folder = folder
        self._home = folder / "home"
        self._node_home = folder / "node"
        self._output = output
        self._began = time.monotonic()
        self._told_to = 0

    def tell(self) -> Summary:
        from visor_actors.simulator.release_server import ReleaseServer

        with ReleaseServer(owner="demo", repository="fury") as server:
            self._prepare(server)
            visor = self._start()
            try:
                self._play(visor)
            finally:
                self._end(visor)
        return self._sum_up(visor)

    # the scenes

    def _prepare(self, server: ReleaseServer) -> None:
        from visor_actors.simulator import build_asset_zip, build_binary, init_chain

        upgrades = [("v2.0.0", FIRST_HEIGHT), ("v3.0.0", SECOND_HEIGHT)]
        chain = init_chain(
            self._node_home, upgrades=upgrades, data_node=True, block_ms=BLOCK_MS, accept_before=50
        )
        for name, version in (("genesis", "v1.0.0"), ("v2.0.0", "v2.0.0")):
            build_binary(self._home / name / "fury", version=version)
            text = _RUN_CONFIG.format(
                name=name,
                core_args=list(chain.core_args),
                data_node_args=list(chain.data_node_args),
                socket=chain.socket_path,
            )
            (self._home / name / "run-config.toml").write_text(text.replace("'", '"'))
        asset = build_asset_zip(self._folder / "fury.zip", version="v3.0.0")
        server.add_release("v3.0.0", {"fury.zip": asset.read_bytes()})
        config = _CONFIG.format(owner=server.owner, repository=server.repository, api_url=server.api_url)
        (self._home / "config.toml").write_text(config)
        self._say(f"a home in {self._home}: core and data node v1.0.0, a block every {BLOCK_MS} ms")
        self._say(f"the network will upgrade to v2.0.0 at height {FIRST_HEIGHT}; its folder is there already")
        self._say(f"and to v3.0.0 at height {SECOND_HEIGHT}; that one is on a release server")

    def _start(self) -> subprocess.Popen[bytes]:
        self._say(f"$ visor-actors run --home {self._home}", strong=True)
        with (self._folder / "visor.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "visor_actors", "run", "--home", str(self._home)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # The demo makes an actor fail; only a visor under test lets anybody do that.
                env={**os.environ, "VISOR_TESTING": "1", "PYTHONWARNINGS": "default"},
                start_new_session=True,
            )

    def _play(self, visor: subprocess.Popen[bytes]) -> None:
        from visor_actors.actors.control import Fault

        self._wait(visor, lambda: self._height() > 30, "the first blocks")
        core = self._pid("core")
        self._say(f"kill -9 {core}: the core dies", strong=True)
        os.kill(core, signal.SIGKILL)
        self._wait(visor, lambda: self._count("node.up") > 1, "the node to be restarted")
        self._wait(visor, lambda: self._confirmed("v2.0.0"), "v2.0.0 to run")
        before = self._pid("core")
        self._say("the actor that decides about upgrades is made to crash", strong=True)
        self._client.inject("upgrade-coordinator", Fault.CRASH)
        self._wait(visor, lambda: self._count("actor.restarting") > 0, "the actor to be restarted")
        if self._pid("core") == before:
            self._say(f"the node did not notice: its pid is still {before}")
        self._wait(visor, lambda: self._confirmed("v3.0.0"), "v3.0.0 to run")
        self._wait(visor, lambda: self._height() > SECOND_HEIGHT + 20, "blocks of v3.0.0")

    def _end(self, visor: subprocess.Popen[bytes]) -> None:
        if visor.poll() is None:
            self._say(f"kill {visor.pid}: visor is asked to stop", strong=True)
            visor.terminate()
        try:
            visor.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            visor.kill()
            visor.wait()
        self._narrate()

    def _sum_up(self, visor: subprocess.Popen[bytes]) -> Summary:
        report = self._report()
        problems = [str(problem) for problem in report.problems]
        if visor.returncode != 0:
            problems.append(f"visor ended with exit code {visor.returncode}; see its log (--keep)")
        missing = {"v2.0.0", "v3.0.0"} - {one.version for one in report.versions}
        problems += [f"{tag} never ran" for tag in sorted(missing)]
        gaps = tuple(Gap(tag=one.tag, height=one.height, milliseconds=one.gap_ms) for one in report.upgrades)
        return Summary(
            blocks=report.blocks,
            gaps=gaps,
            restarts=self._count("node.restarting"),
            actor_restarts=self._count("actor.restarting"),
            problems=tuple(problems),
            seconds=round(time.monotonic() - self._began, 1),
        )

    # watching

    @property
    def _client(self) -> ControlClient:
        from visor_actors.api.client import ControlClient

        return ControlClient(self._home / ".visor" / "visor.sock")

    def _wait(self, visor: subprocess.Popen[bytes], condition: Callable[[], T], what: str) -> T:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and visor.poll() is None:
            self._narrate()
            if value := condition():
                self._narrate()
                return value
            time.sleep(0.05)
        self._narrate()
        state = "visor has ended" if visor.poll() is not None else f"waited {PATIENCE_SECONDS:g} s"
        raise CommandError(
            f"the demo failed while waiting for {what}: {state}",
            where=str(self._folder / "visor.log"),
            next_step="run it again with --keep and read that log",
        )

    def _pid(self, slot: str) -> int:
        binary = next((one for one in self._client.status().binaries if one.slot == slot), None)
        if binary is None or binary.pid is None:
            raise CommandError(f"the {slot} does not run", next_step="run the demo again with --keep")
        return binary.pid

    def _height(self) -> int:
        return self._report().blocks

    def _report(self) -> ChainReport:
        from visor_actors.simulator import check_chain

        return check_chain(self._node_home)

    def _confirmed(self, tag: str) -> bool:
        return any(one.fields.get("tag") == tag for one in self._history("upgrade.confirmed"))

    def _count(self, name: str) -> int:
        return len(self._history(name))

    def _history(self, name: str | None = None, *, after: int = 0) -> tuple[HistoryEntry, ...]:
        from visor_actors.home.errors import JournalUnavailable
        from visor_actors.home.journal import Journal

        try:
            with Journal.open_reader(self._home / ".visor" / "journal.db") as journal:
                return journal.events(name=name, after_id=after)
        except JournalUnavailable:
            return ()  # visor has not made it yet

    # telling

    def _narrate(self) -> None:
        """Tell what visor's history has gained since the last look."""
        from visor_actors.telemetry.events import Severity

        for entry in self._history(after=self._told_to):
            self._told_to = entry.id
            colour = "yellow" if entry.severity >= Severity.WARNING else None
            if entry.name == "upgrade.confirmed":
                colour = "green"
            self._say(entry.message, source=entry.name, colour=colour)

    def _say(
        self, text: str, *, source: str = "demo", strong: bool = False, colour: str | None = None
    ) -> None:
        if self._output is Output.JSON:
            return
        seconds = time.monotonic() - self._began
        label = terminal.quiet(f"{seconds:6.2f} s  {source:<20}")
        click.echo(f"{label}  {terminal.style(text, sys.stdout, fg=colour, bold=strong)}")
        sys.stdout.flush()


def _print(summary: Summary, output: Output) -> None:
    if output is Output.JSON:
        terminal.print_json(asdict(summary))
        return
    gaps = [
        (
            f"upgrade to {gap.tag}",
            "no block came" if gap.milliseconds is None else f"{gap.milliseconds:.0f} ms between two blocks",
        )
        for gap in summary.gaps
    ]
    verdict = "intact" if not summary.problems else terminal.bad("; ".join(summary.problems))
    click.echo()
    click.echo(
        terminal.pairs(
            [
                ("blocks", str(summary.blocks)),
                *gaps,
                ("restarts of the node", f"{summary.restarts} (one was provoked)"),
                ("restarts of actors", f"{summary.actor_restarts} (one was provoked)"),
                ("the chain", terminal.good(verdict) if not summary.problems else verdict),
                ("took", f"{summary.seconds:.0f} s"),
            ]
        )
    )
