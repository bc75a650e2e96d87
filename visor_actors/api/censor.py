"""Takes secrets out of what the API answers: arguments, last lines and messages may hold some."""

from __future__ import annotations

import enum
from typing import Any

from visor_actors.api.wire import plain
from visor_actors.telemetry.scrub import scrubber


class Audience(enum.Enum):
    """Who reads the answer: ``OPERATOR`` over the private socket, ``NETWORK`` anybody who reaches the
    TCP port."""

    OPERATOR = "operator"
    NETWORK = "network"


def censored(report: object, audience: Audience) -> Any:
    """Return ``report`` as plain JSON data without secrets; for the network also without values of arguments,
    output of the binaries and tracebacks."""
    return _censor(plain(report), "", audience)


def _censor(value: Any, name: str, audience: Audience) -> Any:
    network = audience is Audience.NETWORK
    match value:
        case dict():
            return {key: _censor(item, key, audience) for key, item in value.items()}
        case list() if name == "argv":
            scrub = scrubber.strict_arguments if network else scrubber.arguments
            return list(scrub(value))
        case list() if name == "lines" and network:
            return []
        case list():
            return [_censor(item, name, audience) for item in value]
        case str() if name == "traceback" and network:
            return ""
        case str():
            return scrubber.strict_text(value) if network else scrubber.text(value)
        case _:
            return value
