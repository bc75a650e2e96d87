"""How a release server can misbehave: a closed list of faults that :class:`~.release_server.ReleaseServer`
replays.

A fault names the requests it strikes (``at``) and how often (``times``; None: every time). The first one that
fits a request strikes it, and only that one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class At(enum.Enum):
    """Which requests: release by tag, list of releases, pages of assets, link to an asset, the content
    itself.
    """

    RELEASE = "release"
    RELEASES = "releases"
    ASSETS = "assets"
    LINK = "link"
    CONTENT = "content"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What all faults have in common. ``name`` limits it to the asset of that name."""

    at: At
    times: int | None = 1
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Fault):
    """Answer with this status instead: 500, 403 and 429 with whatever headers, a redirect to anywhere."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedirectToSelf(Fault):
    """Redirect to the very same address."""

    times: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut(Fault):
    """Close the connection after ``after`` bytes of the body, as if it were complete."""

    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset(Fault):
    """Reset the connection after ``after`` bytes of the body."""

    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall(Fault):
    """Send ``after`` bytes of the body and then nothing, the connection open until the server is closed."""

    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drip(Fault):
    """Send the body in pieces of ``size`` bytes with ``pause`` seconds between them."""

    size: int
    pause: float
    times: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrupt(Fault):
    """Turn over the bits of the byte at ``position`` of the file."""

    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoreRange(Fault):
    """Send the whole file although a part was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongRange(Fault):
    """Answer 206 with a part that begins ``shift`` bytes away from the one that was asked for."""

    shift: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WithoutLength(Fault):
    """Send the body chunked, without saying how long it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded(Fault):
    """Send the body gzip-encoded although nobody accepts that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endless(Fault):
    """Send zeros for as long as somebody reads, without saying how many."""


AnyFault = (
    Answer
    | RedirectToSelf
    | Cut
    | Reset
    | Stall
    | Drip
    | Corrupt
    | IgnoreRange
    | WrongRange
    | WithoutLength
    | Encoded
    | Endless
)
