"""docs/architecture.md, held to its word: which way imports point, what main loads, how large modules are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "visor_actors"

MAY_IMPORT: Mapping[str, frozenset[str]] = {
    "actor": frozenset(),
    "shim": frozenset(),
    "home": frozenset(),
    "telemetry": frozenset(),
    "testing.failpoints": frozenset(),
    "node": frozenset({"home", "telemetry"}),
    "install": frozenset({"home", "telemetry", "node"}),
    "actors": frozenset({"actor", "home", "node", "install", "telemetry", "testing.failpoints"}),
    "api": frozenset({"actors", "actor", "home", "telemetry"}),
    "simulator": frozenset(),
    "testing": frozenset({"actor", "testing.failpoints"}),
}
"""Everything but ``cli``, which may import all of them."""

STAND_ALONE = frozenset({"shim", "simulator", "testing.failpoints"})
"""They do not even need the package's version."""

THIRD_PARTY: Mapping[str, str] = {
    "click": "cli",
    "cryptography": "install",
    "inotify_simple": "home",
    "psutil": "cli",
    "pykka": "actor",
    "requests": "install",
    "sentry_sdk": "telemetry",
    "tomli": "home",
    "tomlkit": "install",
    "urllib3": "install",
    "zstandard": "install",
}
"""Each library has one place; the others reach it through that. Missing are YAML, which has two, and msgspec,
which makes the records of every part but those that stand alone."""

NOT_IN_MAIN = frozenset(
    {
        "asyncio",
        "cryptography",
        "email",
        "http.client",
        "logging.config",
        "multiprocessing",
        "psutil",
        "requests",
        "sentry_sdk",
        "ssl",
        "tomlkit",
        "unittest",
        "urllib3",
        "visor_actors.cli",
        "visor_actors.install.transport",
        "visor_actors.simulator",
        "yaml",
    }
)
"""Loaded when they are needed, or in a process of their own: main's memory is a budget."""

LINES = 450
LARGER: Mapping[str, str] = {
    "actor/core.py": "the supervisor's decisions: one state machine, read as a whole",
    "actors/node_machine.py": "the node's life: one state machine with its events and effects",
    "actors/lifecycle.py": "one case for each message and each effect of the node's state machine",
    "actors/upgrade_coordinator.py": "one case for each message and each step of an upgrade",
    "shim/custody.py": "one binary from start to last descendant; the shim imports as few files as it can",
    "simulator/node.py": "must run as one file, copied and renamed",
}


def modules() -> Iterator[tuple[str, str, Path]]:
    """Every module of the package: its dotted name, the part of the system it belongs to, its file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        words = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(words[:-1] if words[-1] == "__init__" else words)
        yield name, part_of(name), path


def part_of(name: str) -> str:
    """The part of the system that a dotted name belongs to; empty for the package itself."""
    inner = name.removeprefix("visor_actors").lstrip(".")
    return "testing.failpoints" if inner == "testing.failpoints" else inner.partition(".")[0]


def imports(path: Path) -> set[str]:
    """The dotted names of all modules that a file imports, wherever in it, also for types alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        match node:
            case ast.Import(names=names):
                found.update(alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=0):
                assert module is not None
                # `from package import module` names a module too.
                found.update(f"{module}.{one.name}" if is_package(module) else module for one in names)
            case ast.ImportFrom():
                raise AssertionError(f"{path}: a relative import; others search for full names")
            case _:
                pass
    return found


def is_package(name: str) -> bool:
    return (ROOT.joinpath(*name.split(".")) / "__init__.py").is_file()


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_point_where_the_architecture_says(part: str) -> None:
    allowed = {part, *MAY_IMPORT[part]} | (set() if part in STAND_ALONE else {""})
    wrong = {
        f"{path.relative_to(ROOT)} imports {target}"
        for _, owner, path in modules()
        if owner == part
        for target in imports(path)
        if target.partition(".")[0] == "visor_actors" and target_part(target) not in allowed
    }
    assert not wrong


def target_part(name: str) -> str:
    """Like :func:`part_of`, for what was imported: a name of the package itself belongs to nobody."""
    part = part_of(name)
    return part if part == "testing.failpoints" or (PACKAGE / part).is_dir() else ""


def test_every_part_has_its_rule() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == {part for part in MAY_IMPORT if "." not in part} | {"cli"}


@pytest.mark.parametrize("part", ["shim", "simulator", "testing.failpoints"])
def test_what_runs_alone_needs_the_standard_library_only(part: str) -> None:
    foreign = {
        f"{path.relative_to(ROOT)} imports {target}"
        for _, owner, path in modules()
        if owner == part
        for target in imports(path)
        if target.partition(".")[0] not in {*sys.stdlib_module_names, "visor_actors"}
    }
    assert not foreign


def test_every_library_is_used_in_one_place() -> None:
    used: dict[str, set[str]] = {}
    for _, part, path in modules():
        for target in imports(path):
            library = target.partition(".")[0]
            if library not in sys.stdlib_module_names and library != "visor_actors":
                used.setdefault(library, set()).add(part)
    assert used.pop("yaml") == {"home", "install"}
    assert not used.pop("msgspec") & STAND_ALONE
    assert {library: sorted(parts) for library, parts in used.items()} == {
        library: [part] for library, part in THIRD_PARTY.items()
    }


def test_main_loads_nothing_heavy() -> None:
    script = (
        "import sys, visor_actors.actors.application, visor_actors.api.actor\nprint('\\n'.join(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )
    loaded = set(ran.stdout.split())
    assert "visor_actors.actors.application" in loaded
    assert not loaded & NOT_IN_MAIN


def test_a_module_is_small_or_says_why_not() -> None:
    large = {
        str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines())
        for _, _, path in modules()
    }
    assert {name: lines for name, lines in large.items() if lines > LINES and name not in LARGER} == {}
    assert set(LARGER) <= set(large), "a module of that name is gone"


def test_every_package_says_what_it_is_for() -> None:
    silent = [
        name
        for name, _, path in modules()
        if path.name == "__init__.py" and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


# Spelt in pieces, so that this file does not find itself.
FORBIDDEN = re.compile(
    "|".join(
        (
            r"(?<![\w.@-])/" + r"(?:work|root|opt/py" + r"pi)\b",  # folders of one machine
            r"py" + r"pi\.org",
            r"python" + r"hosted",
            r"npm" + r"js\.",
            r"ghcr\." + r"io",
            r"docker\." + r"io",
            r"proxy\.go" + r"lang",
            r"\b(?:NODE|DESIGN|FAULTS|STYLE)" + r"\.md",  # nobody outside can read them
        )
    )
)


def texts() -> Iterator[Path]:
    """Every text that is published."""
    for name in ("visor_actors", "tests", "docs", "benchmarks", "config-samples", ".ci"):
        for path in sorted((ROOT / name).rglob("*")):
            if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
                yield path
    for pattern in ("*.md", "*.cfg", "*.toml", "Makefile", ".gitignore"):
        yield from sorted(ROOT.glob(pattern))


def test_the_repository_names_nothing_of_the_machine_it_was_made_on() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
        )
        if FORBIDDEN.search(line)
    ]
    assert found == []


LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_links_between_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "config-samples").glob("*.md")]
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in LINK.findall(document.read_text(encoding="utf-8"))
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert broken == []
