"""The one command line that has to be quick: ``run`` as a service manager says it.

Between ``run`` and the node's start lies nothing but loading code, and the library that reads all other
command lines is a sixth of it. So a ``run`` with nothing but ``--home`` is recognised here. Whatever is not
exactly that, a misspelt option too, is left to the library.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path


def absolute_home(named: str | Path) -> Path:
    """The home folder as it was ``named`` by an operator, absolute; ``~`` is a user's home."""
    return Path(os.path.abspath(Path(named).expanduser()))


def home_of_plain_run(words: Sequence[str], environ: Mapping[str, str]) -> Path | None:
    """The home of a command line that is ``run``, with ``--home`` or VISOR_HOME and nothing else; else
    None."""
    homes: list[str] = []
    commands: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word.startswith("--home="):
            homes.append(word.removeprefix("--home="))
        elif word == "--home" and left:
            homes.append(left.pop(0))
        else:
            commands.append(word)
    named = homes or [environ.get("VISOR_HOME", "")]
    if commands != ["run"] or len(named) != 1 or not named[0] or named[0].startswith("-"):
        return None
    return absolute_home(named[0])
