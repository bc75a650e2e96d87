"""How an exception crosses a boundary: as text. A live exception would keep frames, and through them the
dead actor, alive."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

from msgspec import Struct

_LONGEST_TRACEBACK = 16_000  # characters; a RecursionError alone formats to more
_LONGEST_MESSAGE = 2_000


class Failure(Struct, frozen=True):
    """What went wrong, as data. ``cause`` is the failure that led to this one: an escalation names the
    crash behind it."""

    type_name: str
    message: str
    traceback: str = ""
    cause: Failure | None = None

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe ``error``. Never raises, whatever its ``__str__`` does."""
        try:
            message = str(error)[:_LONGEST_MESSAGE]
        except BaseException as broken:
            message = f"<its message could not be read: {type(broken).__name__}>"
        try:
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        except BaseException:
            text = ""
        if len(text) > _LONGEST_TRACEBACK:
            half = _LONGEST_TRACEBACK // 2
            text = f"{text[:half]}\n  [...]\n{text[-half:]}"
        return cls(type(error).__name__, message, text)

    def chain(self) -> Iterator[Failure]:
        """Yield this failure, its cause, the cause of that, and so on."""
        failure: Failure | None = self
        while failure is not None:
            yield failure
            failure = failure.cause

    def __str__(self) -> str:
        return ", because of ".join(f"{link.type_name}: {link.message}" for link in self.chain())
