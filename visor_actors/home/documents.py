"""Reading a TOML or YAML file into plain values, and finding the place of a key in it when there is
something to say.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import tomli
from msgspec import Struct

from visor_actors.home.errors import ConfigurationInvalid, Problem

if TYPE_CHECKING:
    import yaml

Place = tuple[str | int, ...]
MAX_BYTES = 1 << 20


class Document(Struct, frozen=True, kw_only=True):
    """A parsed file: ``values`` as read, and the text, which is walked again only to find places."""

    path: Path
    text: str
    values: Mapping[str, object]

    def places(self) -> Mapping[Place, tuple[int, int]]:
        """Line and column of every key; costs a second look at the text."""
        if self.path.suffix == ".toml":
            from visor_actors.home.toml_places import toml_places

            return toml_places(self.text)
        return _yaml_places(self.text)


def read_document(path: Path) -> Document:
    """Read and parse ``path``. Blocks on the disk only. Raises :class:`ConfigurationInvalid`."""
    return parse_document(path, read_text(path))


def parse_document(path: Path, text: str) -> Document:
    """Parse ``text``, which was read from ``path``. Raises :class:`ConfigurationInvalid`."""
    values = _parse_toml(path, text) if path.suffix == ".toml" else _parse_yaml(path, text)
    return Document(path=path, text=text, values=values)


def read_text(path: Path) -> str:
    """Read ``path``: a regular file of bounded size, in UTF-8. Raises :class:`ConfigurationInvalid`."""
    try:
        # A fifo in the place of the file would block for ever; O_NONBLOCK and the check below make that an
        # error.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                found = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
                raise _invalid(path, found=found, allowed="must be a file")
            data = b""
            while len(data) <= MAX_BYTES and (more := os.read(fd, max(status.st_size + 1, 4096))):
                data += more
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise _invalid(
            path, allowed="the file does not exist", suggestion="create it with `visor-actors init`"
        ) from None
    except OSError as error:
        raise _invalid(path, allowed=f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise _invalid(
            path, found=f"more than {MAX_BYTES} bytes", allowed="is too long for a configuration file"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _invalid(
            path, line=line, found="bytes that are not UTF-8", allowed="must be UTF-8 text"
        ) from None


def _invalid(
    path: Path,
    *,
    allowed: str,
    found: str | None = None,
    line: int | None = None,
    column: int | None = None,
    key: str | None = None,
    suggestion: str | None = None,
) -> ConfigurationInvalid:
    problem = Problem(
        file=path, line=line, column=column, key=key, found=found, allowed=allowed, suggestion=suggestion
    )
    return ConfigurationInvalid((problem,))


def _parse_toml(path: Path, text: str) -> Mapping[str, object]:
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise _invalid(
            path, line=error.lineno, column=error.colno, allowed=f"is no valid TOML here: {_lower(error.msg)}"
        ) from None
    except RecursionError:
        raise _invalid(path, allowed="is nested too deeply") from None


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _parse_yaml(path: Path, text: str) -> Mapping[str, object]:
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise _invalid(path, line=1, column=1, allowed="must be a table of keys and values")
        problems = _repeated_keys(path, node, set())
        if problems:
            raise ConfigurationInvalid(tuple(problems))
        values = _load_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "cannot be understood"
        raise _invalid(
            path,
            line=mark.line + 1 if mark else None,
            column=mark.column + 1 if mark else None,
            allowed=f"is no valid YAML here: {what}",
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise _invalid(path, allowed=f"is no valid YAML: {error}") from None
    except RecursionError:
        raise _invalid(path, allowed="is nested too deeply") from None
    assert isinstance(values, dict)
    return values


def _load_yaml(text: str) -> object:
    """Load with every key as the text it is written as: a version 1.20 is not the number 1.2, and ``on`` not
    true."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    key.tag = "tag:yaml.org,2002:str"
            loaded: dict[object, object] = super().construct_mapping(node, deep=deep)
            return loaded

    return yaml.load(text, Loader=Loader)  # a SafeLoader


def _repeated_keys(path: Path, node: yaml.Node, seen: set[int]) -> list[Problem]:
    """YAML would silently keep the last of two; an operator who wrote both meant one of them.

    ``seen`` is shared by the whole walk: anchors make a graph of the document, which has few nodes but can
    have very many paths.
    """
    import yaml

    if id(node) in seen:
        return []
    seen.add(id(node))
    problems: list[Problem] = []
    if isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            problems += _repeated_keys(path, entry, seen)
    if isinstance(node, yaml.MappingNode):
        known: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in known and name != "<<":
                mark = key.start_mark
                problems.append(
                    Problem(
                        file=path,
                        line=mark.line + 1,
                        column=mark.column + 1,
                        key=name,
                        allowed="the key is there twice",
                        suggestion="remove one",
                    )
                )
            known.add(name)
            problems += _repeated_keys(path, value, seen)
    return problems


def _yaml_places(text: str) -> Mapping[Place, tuple[int, int]]:
    import yaml

    places: dict[Place, tuple[int, int]] = {}

    seen: set[int] = set()

    def walk(node: yaml.Node, path: Place) -> None:
        if id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                below = (*path, str(key.value))
                places[below] = (key.start_mark.line + 1, key.start_mark.column + 1)
                walk(value, below)
        elif isinstance(node, yaml.SequenceNode):
            for index, entry in enumerate(node.value):
                below = (*path, index)
                places[below] = (entry.start_mark.line + 1, entry.start_mark.column + 1)
                walk(entry, below)

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None:
        walk(root, ())
    return places
