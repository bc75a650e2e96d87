"""Why an installation stops. Raised only inside the job; crosses to its owner as an ``InstallFailed``
message.

::

    InstallError
    ├── TransferFailed         the network or a server misbehaved; trying again may help
    │   ├── RateLimited        the server named the time to come back
    │   └── ResumeRefused      a partial download is of no use any more
    ├── Unavailable            the server answered, but what was asked for is not there or not for us
    ├── Refused                what was fetched must not be installed
    ├── StorageFailed          the disk or the file system did not do what it was asked
    ├── Unfit                  the order or the home does not allow the installation
    └── Busy                   another job works on this release
"""

from __future__ import annotations

import errno
from typing import ClassVar

from visor_actors.install.messages import FailureKind, InstallFailed


class InstallError(Exception):
    """One reason, with the kind, the sentence and the next step the operator is shown. ``retry_after`` in
    seconds.
    """

    transient: ClassVar[bool] = False

    def __init__(
        self, kind: FailureKind, message: str, next_step: str, *, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.next_step = next_step
        self.retry_after = retry_after

    def to_message(self) -> InstallFailed:
        """Return the failure as data."""
        return InstallFailed(
            kind=self.kind,
            message=self.message,
            next_step=self.next_step,
            transient=self.transient,
            retry_after=self.retry_after,
        )


class TransferFailed(InstallError):
    """The network or a server misbehaved."""

    transient = True


class RateLimited(TransferFailed):
    """The server told when to come back."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(
            FailureKind.RATE_LIMITED,
            message,
            "nothing, it is tried again then; a token (autoInstall.tokenFile) raises the limit",
            retry_after=retry_after,
        )


class ResumeRefused(TransferFailed):
    """The answer to a request for the rest of a file makes no sense: what was fetched so far is given up."""

    def __init__(self, url: str) -> None:
        super().__init__(
            FailureKind.SERVER_ERROR,
            f"{url} answers a request for a part with something else",
            "nothing, the download starts again from its beginning",
        )


class Unavailable(InstallError):
    """The server answered, but what was asked for is not there or not for us."""


class Refused(InstallError):
    """What was fetched must not be installed."""


class StorageFailed(InstallError):
    """The disk or the file system did not do what it was asked."""

    transient = True


class Unfit(InstallError):
    """The order or the home does not allow the installation."""


class Busy(InstallError):
    """Another job works on the release."""

    transient = True


def storage_error(error: OSError, doing: str) -> InstallError:
    """Translate an error of the file system; ``doing`` is what was attempted, as in "cannot ...: reason"."""
    reason = error.strerror or str(error)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return StorageFailed(
                FailureKind.DISK_FULL,
                f"the disk is full: cannot {doing}",
                "free some space; it is tried again",
                retry_after=30.0,
            )
        case errno.EFBIG:
            return Refused(
                FailureKind.TOO_LARGE,
                f"cannot {doing}: the file grew past its limit",
                "raise autoInstall.maxSizeMiB if the release really is this large",
            )
        case _:
            return StorageFailed(
                FailureKind.FILE_SYSTEM,
                f"cannot {doing}: {reason}",
                "check that the home is writable for the user visor runs as",
                retry_after=30.0,
            )
