"""Runs the command line in this process, and compares what it prints with golden files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from visor_actors import __version__
from visor_actors.cli.main import main

GOLDEN = Path(__file__).parent / "golden"
DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


class Runner:
    """Calls the entry point as a user would."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Ran:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = self._capsys.readouterr()
        code = caught.value.code
        assert isinstance(code, int)
        return Ran(code=int(code), out=out, err=err)


_MASKS: Mapping[str, str] = {
    r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b": "<time>",
    r"\b\d+[dhm] \d+[hms]\b|\b\d+s ago": "<span>",
    r"\b\d+\.\d [KMG]iB +\d+\.\d%": "<usage>",
    r'"(memory|cpu|seconds)": [\d.]+': r'"\1": 0',
    r'"python": "[\d.]+"': '"python": "<python>"',
    r"\(Python [\d.]+\)": "(Python <python>)",
    r"\d+ MiB free": "<free> MiB free",
    r"-linux-(amd64|arm64)": "-linux-<arch>",
}


def masked(text: str, home: Path) -> str:
    """``text`` with everything replaced that differs from run to run."""
    text = text.replace(str(home), "<home>").replace(str(home.parent), "<parent>")
    text = re.sub(rf"\b{os.getpid()}\b", "<pid>", text)
    text = text.replace(f'"{__version__}"', '"<version>"').replace(f", {__version__}\n", ", <version>\n")
    text = text.replace(f"visor-actors {__version__} ", "visor-actors <version> ")
    for pattern, mask in _MASKS.items():
        text = re.sub(pattern, mask, text)
    return re.sub(r" {2,}(?=\S)", "  ", text) if "<usage>" in text or "<pid>" in text else text


def agrees(path: Path, text: str) -> None:
    """Assert that the golden file at ``path`` says ``text``; UPDATE_GOLDEN=1 makes it so."""
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path} is missing; make it with UPDATE_GOLDEN=1 and look at it"
    assert text == path.read_text()


def golden(name: str, text: str) -> None:
    """Assert that the golden file ``name`` says ``text``."""
    agrees(GOLDEN / name, text)
