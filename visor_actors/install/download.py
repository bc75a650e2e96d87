"""Brings an asset into staging, hashing it on the way, and goes on where an earlier attempt stopped.

What is needed to resume lies beside the partial file: the asset's identity, the server's validator and the
boot this was written in. A partial file of another boot is not trusted: the disk may have lost its end.
Whatever is resumed is hashed again from its first byte, so a damaged part cannot survive verification.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

from msgspec import Struct
from msgspec.structs import asdict

from visor_actors.install.errors import (
    InstallError,
    Refused,
    ResumeRefused,
    StorageFailed,
    TransferFailed,
    storage_error,
)
from visor_actors.install.messages import FailureKind
from visor_actors.install.retry import Patience
from visor_actors.install.sources import Asset, Body, Resume, Source
from visor_actors.install.staging import Staging

_CHUNK = 1 << 20
_MIB = 1 << 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Downloaded(Struct, frozen=True, kw_only=True):
    """A complete file. ``resumed`` is how many of its bytes an earlier attempt had brought."""

    path: Path
    size: int
    sha256: str
    resumed: int


class _PartState(Struct, frozen=True, kw_only=True):
    identity: str
    validator: str
    boot: str


class Download:
    """The download of one asset into one staging area."""

    def __init__(
        self,
        source: Source,
        asset: Asset,
        staging: Staging,
        *,
        max_bytes: int,
        reserve_bytes: int,
        patience: Patience,
        on_progress: Callable[[int, int | None], None],
        boot: Callable[[], str] = lambda: _BOOT_ID.read_text().strip(),
    ) -> None:
        self._source = source
        self._asset = asset
        self._staging = staging
        self._max_bytes = max_bytes
        self._reserve = reserve_bytes
        self._patience = patience
        self._on_progress = on_progress
        self._boot = boot()
        self._resumed = 0

    def run(self) -> Downloaded:
        """Fetch until complete. Raises :class:`InstallError` when patience ends or what comes must be
        refused.
        """
        if self._asset.size is not None:
            self._check_size(self._asset.size)
        while True:
            before = _size_of(self._staging.part)
            try:
                return self._attempt()
            except InstallError as error:
                if isinstance(error, ResumeRefused):
                    self._staging.discard_download()
                if _size_of(self._staging.part) > before:
                    self._patience.progressed()
                self._patience.wait_after(error)

    def _attempt(self) -> Downloaded:
        try:
            with self._staging.part.open("a+b", buffering=0) as file:
                return self._fetch_into(file)
        except OSError as error:
            raise storage_error(error, "write the download") from error

    def _fetch_into(self, file: IO[bytes]) -> Downloaded:
        resume = self._resume_of(file)
        if resume is not None and resume.offset == self._asset.size:
            return self._complete(file, resume.offset)
        with self._source.open(self._asset, resume) as body:
            if body.offset != file.tell():
                file.truncate(0)  # in append mode the next write goes to the new end
                file.seek(0)
            total = self._expected_total(body)
            self._check_space(total, file.tell())
            self._remember(body)
            self._resumed = body.offset
            digest = _hash_of(file)
            size = self._copy(body, file, digest, total)
        return Downloaded(
            path=self._staging.part, size=size, sha256=digest.hexdigest(), resumed=self._resumed
        )

    def _complete(self, file: IO[bytes], size: int) -> Downloaded:
        digest = _hash_of(file)
        self._on_progress(size, size)
        return Downloaded(path=self._staging.part, size=size, sha256=digest.hexdigest(), resumed=size)

    def _copy(self, body: Body, file: IO[bytes], digest: hashlib._Hash, total: int | None) -> int:
        size = file.tell()
        self._on_progress(size, total)
        while data := body.read(_CHUNK):
            size += len(data)
            if size > self._max_bytes or (total is not None and size > total):
                raise self._too_large(size) if size > self._max_bytes else self._wrong_size(size, total)
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            digest.update(data)
            self._on_progress(size, total)
        if total is not None and size != total:
            raise self._wrong_size(size, total)
        return size

    def _resume_of(self, file: IO[bytes]) -> Resume | None:
        """Return from where to resume and leave ``file`` at its end; empty it when it cannot be resumed."""
        offset = file.seek(0, os.SEEK_END)
        state = _read_state(self._staging.part_state)
        usable = (
            state is not None
            and state.identity == self._asset.identity
            and state.boot == self._boot
            and 0 < offset <= (self._asset.size or self._max_bytes)
        )
        if state is None or not usable:
            file.truncate(0)
            file.seek(0)
            return None
        return Resume(offset=offset, validator=state.validator)

    def _remember(self, body: Body) -> None:
        if body.validator is None:
            self._staging.part_state.unlink(missing_ok=True)
            return
        state = _PartState(identity=self._asset.identity, validator=body.validator, boot=self._boot)
        written = self._staging.part_state.with_suffix(".new")
        written.write_text(json.dumps(asdict(state)))
        written.replace(self._staging.part_state)

    def _expected_total(self, body: Body) -> int | None:
        announced, served = self._asset.size, body.total
        if announced is not None and served is not None and announced != served:
            raise TransferFailed(
                FailureKind.SERVER_ERROR,
                f"{self._asset.name} should have {announced} bytes, the server sends {served}",
                "check the proxy between here and the release server",
            )
        total = served if served is not None else announced
        if total is not None:
            self._check_size(total)
        return total

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise self._too_large(size)
        if size == 0:
            raise Refused(
                FailureKind.ARCHIVE_REFUSED,
                f"{self._asset.name} is empty",
                "ask the publisher to upload it again",
            )

    def _check_space(self, total: int | None, have: int) -> None:
        needed = (total or 0) - have + self._reserve
        free = shutil.disk_usage(self._staging.folder).free
        if free < needed:
            raise not_enough_space(self._staging.folder, free, needed)

    def _too_large(self, size: int) -> Refused:
        return Refused(
            FailureKind.TOO_LARGE,
            f"{self._asset.name} has {size / _MIB:.0f} MiB or more, at most"
            f" {self._max_bytes / _MIB:.0f} are allowed",
            "raise autoInstall.maxSizeMiB if the release really is this large",
        )

    def _wrong_size(self, size: int, total: int | None) -> TransferFailed:
        return TransferFailed(
            FailureKind.NETWORK,
            f"the connection ended after {size} of {total} bytes of {self._asset.name}",
            "nothing, the download is resumed",
        )


def not_enough_space(folder: Path, free: int, needed: int) -> StorageFailed:
    """Return the error for a disk that is too full before anything is written."""
    return StorageFailed(
        FailureKind.DISK_FULL,
        f"{folder} has {free / _MIB:.0f} MiB free, {needed / _MIB:.0f} MiB are needed",
        "free some space; it is tried again",
        retry_after=30.0,
    )


def _hash_of(file: IO[bytes]) -> hashlib._Hash:
    """Return the hash of what ``file`` holds so far, and leave it at its end."""
    digest = hashlib.sha256()
    file.seek(0)
    while data := file.read(_CHUNK):
        digest.update(data)
    return digest


def _read_state(path: Path) -> _PartState | None:
    try:
        record = json.loads(path.read_text())
        return _PartState(**record)
    except (OSError, ValueError, TypeError):
        return None


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
