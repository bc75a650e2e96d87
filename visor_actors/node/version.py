"""Ask a binary for its version, without trusting it: it may hang, flood, be for another machine, or be no
node at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from visor_actors.node import bounded_json
from visor_actors.node.command import HERE, Cancellation, CommandFailed, Surroundings, run
from visor_actors.node.errors import NodeError


class VersionAnswer(Struct, frozen=True, kw_only=True):
    """What the binary said. ``version`` is never empty and starts with ``v`` in a release; ``hash`` may be
    empty."""

    version: str
    hash: str


class VersionUnknown(NodeError):
    """The binary did not tell its version. ``problem`` is a clause, ``next_step`` what the operator can
    do."""

    def __init__(self, executable: Path, problem: str, next_step: str | None) -> None:
        super().__init__(f"the version of {executable} is unknown: {problem}")
        self.executable = executable
        self.problem = problem
        self.next_step = next_step


def probe_version(
    executable: Path,
    *,
    prefix_args: Sequence[str] = (),
    timeout: float = 10.0,
    cancel: Cancellation | None = None,
    surroundings: Surroundings = HERE,
) -> VersionAnswer:
    """Run ``executable [prefix_args] version --output json`` and return its answer.

    ``prefix_args`` is ``("datanode",)`` for the data node inside the one binary. Blocks for at most
    ``timeout`` seconds. Raises :class:`VersionUnknown`. Whether the version is the wanted one is for the
    caller to say.
    """
    argv = (str(executable), *prefix_args, "version", "--output", "json")
    by_hand = f"run it by hand: {' '.join(argv)}"
    try:
        finished = run(argv, timeout=timeout, cancel=cancel, surroundings=surroundings, max_output=64 * 1024)
    except CommandFailed as failure:
        raise VersionUnknown(executable, failure.problem, failure.next_step or by_hand) from None
    if finished.code != 0:
        said = f": {finished.said}" if finished.said else ""
        raise VersionUnknown(executable, f"it ended with {finished.ending}{said}", by_hand)
    for answer in bounded_json.objects_in(finished.stdout):
        version, commit = answer.get("version"), answer.get("hash", "")
        if isinstance(version, str) and version and version.isprintable() and isinstance(commit, str):
            return VersionAnswer(version=version, hash=commit)
    said = f"it said {finished.said!r}" if finished.said else "it said nothing"
    raise VersionUnknown(executable, f"{said}, which is no version in JSON", by_hand)
