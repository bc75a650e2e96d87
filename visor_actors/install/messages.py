"""What an installer job tells its owner: JSON lines on its standard output, closed by exactly one outcome.

``Progress`` and ``Note`` may come any number of times; ``Installed`` or ``InstallFailed`` comes once, last. A
job that ends without one has died: :mod:`.launch` then makes the outcome from how it ended.
"""

from __future__ import annotations

import enum
import json
from pathlib import Path

from msgspec import Struct


class Phase(enum.Enum):
    """What a job is doing."""

    STARTING = "starting"
    RESOLVING = "resolving"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    UNPACKING = "unpacking"
    CHECKING = "checking"
    FINISHING = "finishing"


class FailureKind(enum.Enum):
    """Why an installation failed."""

    NETWORK = "network"
    SERVER_ERROR = "server-error"
    RATE_LIMITED = "rate-limited"
    ACCESS_DENIED = "access-denied"
    REPOSITORY_MISSING = "repository-missing"
    RELEASE_MISSING = "release-missing"
    ASSET_MISSING = "asset-missing"
    TOO_LARGE = "too-large"
    DISK_FULL = "disk-full"
    VERIFICATION_FAILED = "verification-failed"
    NOTHING_TO_VERIFY = "nothing-to-verify"
    ARCHIVE_REFUSED = "archive-refused"
    BINARY_MISSING = "binary-missing"
    WRONG_ARCHITECTURE = "wrong-architecture"
    WRONG_VERSION = "wrong-version"
    RUN_CONFIG = "run-config"
    FOLDER_INCOMPLETE = "folder-incomplete"
    BUSY = "busy"
    LIMIT_REACHED = "limit-reached"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    KILLED = "killed"
    ORDER_INVALID = "order-invalid"
    FILE_SYSTEM = "file-system"
    INTERNAL = "internal"


class Proof(enum.Enum):
    """How a release was verified. ``PRESENT``: the folder was there already, nothing was fetched."""

    SIGNATURE = "signature"
    PINNED = "pinned"
    CHECKSUM_ASSET = "checksum-asset"
    DIGEST = "digest"
    NOTHING = "nothing"
    PRESENT = "present"


class Verification(Struct, frozen=True, kw_only=True):
    """What proved a release genuine. ``proofs`` is never empty; ``details`` is one sentence for a person."""

    proofs: tuple[Proof, ...]
    details: str
    sha256: str | None = None


class Progress(Struct, frozen=True, kw_only=True):
    """How far the job is. Bytes and bytes a second; ``total`` is None while unknown."""

    phase: Phase
    done: int = 0
    total: int | None = None
    rate: float = 0.0


class Note(Struct, frozen=True, kw_only=True):
    """Something worth an event: ``name`` is dotted (``install.retrying``); ``loud`` notes are warnings."""

    name: str
    message: str
    loud: bool = False


class Installed(Struct, frozen=True, kw_only=True):
    """The release is in ``folder``, complete. ``bytes`` is the asset's size; 0 when the folder was there
    already.
    """

    folder: Path
    verification: Verification
    bytes: int


class InstallFailed(Struct, frozen=True, kw_only=True):
    """Nothing was installed. ``transient``: trying again may help, no sooner than after ``retry_after``
    seconds.
    """

    kind: FailureKind
    message: str
    next_step: str
    transient: bool
    retry_after: float | None = None


Outcome = Installed | InstallFailed
JobMessage = Progress | Note | Installed | InstallFailed


class NotAMessage(ValueError):
    """A line that no job of this version writes."""


_TYPES: dict[str, type[Progress | Note | Installed | InstallFailed]] = {
    "progress": Progress,
    "note": Note,
    "installed": Installed,
    "failed": InstallFailed,
}
_NAMES = {kind: name for name, kind in _TYPES.items()}


def encode(message: JobMessage) -> bytes:
    """Return ``message`` as one line."""
    record: dict[str, object] = {"type": _NAMES[type(message)]}
    for name in message.__struct_fields__:
        value = getattr(message, name)
        match value:
            case enum.Enum():
                value = value.value
            case Path():
                value = str(value)
            case Verification():
                value = {
                    "proofs": [proof.value for proof in value.proofs],
                    "details": value.details,
                    "sha256": value.sha256,
                }
            case _:
                pass
        record[name] = value
    return json.dumps(record).encode() + b"\n"


def decode(line: bytes) -> JobMessage:
    """Read one line of a job; :class:`NotAMessage` when it is none."""
    try:
        record = json.loads(line)
        match record.pop("type"):
            case "progress":
                return Progress(**{**record, "phase": Phase(record["phase"])})
            case "note":
                return Note(**record)
            case "installed":
                found = record["verification"]
                verification = Verification(
                    proofs=tuple(Proof(proof) for proof in found["proofs"]),
                    details=found["details"],
                    sha256=found["sha256"],
                )
                return Installed(
                    folder=Path(record["folder"]), verification=verification, bytes=record["bytes"]
                )
            case "failed":
                return InstallFailed(**{**record, "kind": FailureKind(record["kind"])})
            case other:
                raise NotAMessage(f"unknown type {other!r}")
    except NotAMessage:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NotAMessage(str(error)) from error
