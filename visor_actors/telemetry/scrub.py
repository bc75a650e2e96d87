"""Taking secrets out of what leaves visor: the log, the history, the API and, most strictly, Sentry.

Secrets are found in three ways: by what they look like (tokens, user names in URLs, private keys), by what
stands before them (``passphrase = ...``, ``--token ...``), and by what visor has read itself and asked to
have hidden (:meth:`Scrubber.learn`). Scrubbing never raises and its cost is bounded: longer texts are cut.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence

MASK = "********"
LONGEST = 65_536
_CUT = " [cut]"

_WORDS = (
    r"pass(?:word|wd|phrase|code)?|secret|token|api[-_.]?key|access[-_.]?key|private[-_.]?key|mnemonic"
    r"|credentials?|dsn|auth(?:orization)?|cookie|signature|session[-_.]?id"
)
_SECRET_NAME = re.compile(rf"(?:^|[-_.\s]|(?<=[a-z])(?=[A-Z]))(?:{_WORDS})s?$", re.IGNORECASE)
_FILE_NAME = re.compile(r"(?:file|path|dir|folder)$", re.IGNORECASE)

# name=value, name: value, "name": "value" and the like; the value ends where a word or its quotes end. What
# stands before the word does not matter (GITHUB_TOKEN, apiToken), and every repetition is bounded: a
# hostile line must not cost more than its length.
_ASSIGNMENT = re.compile(
    rf"(?P<name>(?:{_WORDS})s?[\"']?)"
    r"(?P<between>\s{0,4}[:=]\s{0,4}(?:(?:bearer|basic|token)\s{1,4})?)"
    r"(?P<value>\"(?:[^\"\\]|\\.){0,2000}\"|'[^']{0,2000}'|[^\s,;&\"'}\])]+)",
    re.IGNORECASE,
)
_FLAG = re.compile(
    r"(?<!\S)(?P<flag>--?[A-Za-z][\w.-]{0,100})(?P<between>=|\s{1,4})(?P<value>(?!-)\"[^\"]*\"|(?!-)\S+)"
)
_LOOKS = (
    re.compile(r"(?<=://)[^/@\s\"']+(?=@)"),  # user names and passwords in URLs, the key of a Sentry DSN
    re.compile(r"\bgh[opsur]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,500}"),
    re.compile(r"\bxox[abprs]-[\w-]{10,500}|\bAKIA[0-9A-Z]{16}\b|\bsk_live_\w{10,}"),
    re.compile(r"\beyJ[\w-]{8,1000}\.[\w-]{8,4000}\.[\w-]{0,1000}"),
    re.compile(r"(?i)\b(?<=bearer )[\w.~+/=-]{8,}"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?<=/v[23]/)[0-9A-Za-z_-]{24,}"),  # project keys in the paths of Ethereum providers
    re.compile(r"(?i)(?<=[?&])(?:x-amz-[a-z]+|sig|se|sp|sv|key)=[^&\s\"']+"),
)


def is_secret_name(name: str) -> bool:
    """Whether a value of this name is a secret. The name of a file that holds one (``tokenFile``) is none."""
    return _FILE_NAME.search(name) is None and _SECRET_NAME.search(name) is not None


class Scrubber:
    """Masks secrets in texts, arguments and nested values. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._learned: tuple[str, ...] = ()

    def learn(self, secret: str | None) -> None:
        """Hide ``secret`` wherever it appears from now on. Too short ones would hide everything and are
        ignored.
        """
        if secret is None or len(secret) < 6:
            return
        with self._lock:
            if secret not in self._learned:
                self._learned = tuple(sorted((*self._learned, secret), key=len, reverse=True))

    def text(self, text: str) -> str:
        """``text`` without secrets, cut to 64 KiB."""
        if len(text) > LONGEST:
            text = text[:LONGEST] + _CUT
        for secret in self._learned:
            text = text.replace(secret, MASK)
        for pattern in _LOOKS:
            text = pattern.sub(MASK, text)
        text = _FLAG.sub(_mask_secret_flag, text)
        return _ASSIGNMENT.sub(_mask_assignment, text)

    def strict_text(self, text: str) -> str:
        """The same, and without the value of any command-line flag: for what leaves the machine."""
        return _FLAG.sub(_mask_any_flag, self.text(text))

    def arguments(self, argv: Sequence[str]) -> tuple[str, ...]:
        """A command line whose secret values are masked; other values stay."""
        return _arguments(tuple(self.text(word) for word in argv), strict=False)

    def strict_arguments(self, argv: Sequence[str]) -> tuple[str, ...]:
        """A command line of which only program, words before the first flag, and flags are left."""
        return _arguments(tuple(self.text(word) for word in argv), strict=True)

    def value(self, value: object, *, name: str = "", depth: int = 0) -> object:
        """A nested value of dictionaries, lists and scalars without secrets, for what leaves the machine."""
        if name and is_secret_name(name) and value not in (None, "", True, False):
            return MASK
        match value:
            case str():
                return self.strict_text(value)
            case Mapping():
                if depth > 20:
                    return MASK
                return {key: self.value(one, name=str(key), depth=depth + 1) for key, one in value.items()}
            case list() | tuple():
                if depth > 20:
                    return MASK
                if name in ("argv", "args", "arguments", "command"):
                    return list(self.strict_arguments([str(one) for one in value]))
                return [self.value(one, depth=depth + 1) for one in value]
            case _:
                return value


def _mask_secret_flag(match: re.Match[str]) -> str:
    return _masked(match) if is_secret_name(match["flag"]) else match[0]


def _mask_any_flag(match: re.Match[str]) -> str:
    return _masked(match)


def _masked(match: re.Match[str]) -> str:
    return f"{match['flag']}{match['between']}{MASK}"


def _mask_assignment(match: re.Match[str]) -> str:
    return match[0] if match["value"] == MASK else f"{match['name']}{match['between']}{MASK}"


def _arguments(argv: tuple[str, ...], *, strict: bool) -> tuple[str, ...]:
    masked: list[str] = []
    hide_next = False
    flags_seen = False
    for position, word in enumerate(argv):
        if position == 0:
            masked.append(word)
        elif word.startswith("-") and len(word) > 1:
            flag, equals, value = word.partition("=")
            hide = strict or is_secret_name(flag)
            masked.append(f"{flag}={MASK}" if equals and value and hide else word)
            hide_next = hide and not equals
            flags_seen = True
        else:
            masked.append(MASK if hide_next or (strict and flags_seen) else word)
            hide_next = False
    return tuple(masked)


scrubber = Scrubber()
"""The process's own: what one part of visor learns is hidden everywhere."""
