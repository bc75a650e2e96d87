"""Where the keys of a TOML document are.

No TOML library tells positions, so this walks a document that has already been parsed: because it is known
to be valid, stepping over values needs nothing but strings, brackets and comments.
"""

from __future__ import annotations

import ast
import re

from msgspec import Struct, field

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"[ \t]*")
# Four kinds of string; the multi-line ones first, and each may end with up to two quotes of its own.
_STRING = re.compile(
    "|".join(
        (
            r'"""(?:[^\\]|\\.)*?"{3,5}',
            r"'''.*?'{3,5}",
            r'"(?:[^"\\\n]|\\.)*"',
            r"'[^'\n]*'",
        )
    ),
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")


class _Walk(Struct):
    text: str
    at: int = 0
    places: dict[Path, int] = field(default_factory=dict)
    counts: dict[Path, int] = field(default_factory=dict)

    def document(self) -> dict[Path, int]:
        table: Path = ()
        while True:
            self.blank()
            if self.at >= len(self.text):
                return self.places
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)

    def header(self) -> Path:
        start = self.at
        many = self.text.startswith("[[", start)
        self.at += 2 if many else 1
        path = self.resolve(self.key())
        self.at = self.text.index("]", self.at) + (2 if many else 1)
        if many:
            index = self.counts.get(path, -1) + 1
            self.counts[path] = index
            self.places.setdefault(path, start)
            path = (*path, index)
        self.mark(path, start)
        return path

    def resolve(self, names: Path) -> Path:
        """Put the index of the newest entry behind every name that is an array of tables."""
        path: Path = ()
        for position, name in enumerate(names):
            path = (*path, name)
            if position < len(names) - 1 and path in self.counts:
                path = (*path, self.counts[path])
        return path

    def pair(self, table: Path) -> None:
        start = self.at
        path = (*table, *self.key())
        self.mark(path, start, floor=len(table))
        self.at = self.text.index("=", self.at) + 1
        self.space()
        self.value(path)

    def mark(self, path: Path, start: int, floor: int = 0) -> None:
        for length in range(floor + 1, len(path) + 1):
            self.places.setdefault(path[:length], start)
        if floor == 0:
            self.places.setdefault(path, start)

    def key(self) -> Path:
        names: list[str] = []
        while True:
            self.space()
            quoted = _STRING.match(self.text, self.at)
            if quoted is not None:
                names.append(_unquote(quoted.group()))
                self.at = quoted.end()
            else:
                bare = _BARE.match(self.text, self.at)
                assert bare is not None, "the document was parsed before it is walked"
                names.append(bare.group())
                self.at = bare.end()
            self.space()
            if self.text[self.at] != ".":
                return tuple(names)
            self.at += 1

    def value(self, path: Path) -> None:
        match self.text[self.at]:
            case "[":
                self.at += 1
                index = 0
                while self.more("]"):
                    self.places[(*path, index)] = self.at
                    self.value((*path, index))
                    index += 1
            case "{":
                self.at += 1
                while self.more("}"):
                    self.pair(path)
            case _:
                found = _STRING.match(self.text, self.at) or _SCALAR.match(self.text, self.at)
                assert found is not None, "the document was parsed before it is walked"
                self.at = found.end()

    def more(self, end: str) -> bool:
        self.blank()
        if self.text[self.at] == ",":
            self.at += 1
            self.blank()
        if self.text[self.at] == end:
            self.at += 1
            return False
        return True

    def space(self) -> None:
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def blank(self) -> None:
        match = _BLANK.match(self.text, self.at)
        assert match is not None
        self.at = match.end()


def _unquote(text: str) -> str:
    if text.startswith("'"):
        return text[1:-1]
    # TOML's escapes are Python's, but for \e, which Python would keep as it is: harmless in the name of a
    # key.
    return str(ast.literal_eval(text))


def toml_places(text: str) -> dict[Path, tuple[int, int]]:
    """Map the path of every table, key and list entry of a valid TOML document to its line and column, from
    1.
    """
    # tomli reads \r\n as \n as well; columns do not change by it.
    offsets = _Walk(text.replace("\r\n", "\n")).document()
    plain = text.replace("\r\n", "\n")
    starts = [0, *(match.end() for match in re.finditer("\n", plain))]
    return {path: _line_and_column(starts, offset) for path, offset in offsets.items()}


def _line_and_column(starts: list[int], offset: int) -> tuple[int, int]:
    import bisect

    line = bisect.bisect_right(starts, offset)
    return line, offset - starts[line - 1] + 1
