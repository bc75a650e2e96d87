"""Where releases come from: GitHub's REST interface, a URL template or a local folder, behind one small
interface.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol
from urllib.parse import quote

from msgspec import Struct

from visor_actors.install.errors import (
    InstallError,
    ResumeRefused,
    TransferFailed,
    Unavailable,
)
from visor_actors.install.messages import FailureKind
from visor_actors.install.responses import parse_content_range, strong_validator, without_query
from visor_actors.install.transport import Answer, Transport

SMALL_FILE = 1 << 20


class Asset(Struct, frozen=True, kw_only=True):
    """One file of a release. ``identity`` changes whenever the file's content may have; ``url`` is for
    messages.
    """

    name: str
    identity: str
    url: str
    size: int | None = None
    sha256: str | None = None


class Resume(Struct, frozen=True, kw_only=True):
    """Ask for the rest of a file: from ``offset`` on, if its ``validator`` is still the same."""

    offset: int
    validator: str


class Body:
    """The content of an asset from ``offset`` on. ``total`` is the whole file's size. A context manager."""

    def __init__(
        self,
        *,
        offset: int,
        total: int | None,
        validator: str | None,
        read: Callable[[int], bytes],
        close: Callable[[], None],
    ) -> None:
        self.offset = offset
        self.total = total
        self.validator = validator
        self.read = read
        self._close = close

    def __enter__(self) -> Body:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


class Source(Protocol):
    """A place that has releases. Every method may raise :class:`InstallError`, transient or not."""

    def find(self, name: str) -> Asset:
        """Return the release's asset of exactly this name; ``ASSET_MISSING`` says what is there instead."""

    def open(self, asset: Asset, resume: Resume | None) -> Body:
        """Begin to read ``asset``. With ``resume`` the body may still begin at 0: then it has changed
        meanwhile.
        """

    def close(self) -> None:
        """Give back connections."""


def read_small(source: Source, name: str) -> bytes | None:
    """Return the whole content of a small asset (a checksum file, a signature), None when the release has
    none.
    """
    try:
        asset = source.find(name)
        with source.open(asset, None) as body:
            parts: list[bytes] = []
            length = 0
            while data := body.read(1 << 16):
                length += len(data)
                if length > SMALL_FILE:
                    raise Unavailable(
                        FailureKind.VERIFICATION_FAILED,
                        f"{name} is larger than {SMALL_FILE} bytes: it is no checksum file and no signature",
                        "check autoInstall.checksumAsset",
                    )
                parts.append(data)
    except InstallError as error:
        if error.kind is FailureKind.ASSET_MISSING:
            return None
        raise
    if body.total is not None and length != body.total:
        raise TransferFailed(
            FailureKind.NETWORK, f"{name} ended after {length} of {body.total} bytes", "it is tried again"
        )
    return b"".join(parts)


def http_body(
    transport: Transport,
    url: str,
    resume: Resume | None,
    *,
    headers: dict[str, str],
    on_refusal: Callable[[InstallError, int], InstallError] | None = None,
) -> Body:
    """Open ``url`` for reading, resuming where the server agrees that nothing has changed."""
    sent = dict(headers)
    if resume is not None:
        sent["Range"] = f"bytes={resume.offset}-"
        sent["If-Range"] = resume.validator
    answer = transport.get(url, headers=sent, on_refusal=on_refusal)
    try:
        offset, total = _extent(answer, resume)
    except InstallError:
        answer.__exit__(None, None, None)
        raise
    return Body(
        offset=offset,
        total=total,
        validator=strong_validator(answer.headers),
        read=answer.read,
        close=lambda: answer.__exit__(None, None, None),
    )


def _extent(answer: Answer, resume: Resume | None) -> tuple[int, int | None]:
    """Return where the body begins and how long the whole file is; TransferFailed when the answer contradicts
    itself.
    """
    length = answer.headers.get("content-length", "").strip()
    size = int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
    if answer.status == 200:
        return 0, size
    extent = parse_content_range(answer.headers.get("content-range"))
    if resume is None or extent is None or extent[0] != resume.offset:
        raise ResumeRefused(without_query(answer.url))
    first, last, total = extent
    if size is not None and size != last - first + 1:
        raise ResumeRefused(without_query(answer.url))
    tag = strong_validator(answer.headers)
    if tag is not None and tag != resume.validator:
        raise ResumeRefused(without_query(answer.url))
    if total is not None and last + 1 != total:
        raise ResumeRefused(without_query(answer.url))
    return first, total if total is not None else last + 1


class UrlSource:
    """Releases at addresses made from a template with ``{tag}`` and ``{asset}``."""

    def __init__(self, template: str, tag: str, transport: Transport) -> None:
        self._template = template if "{asset}" in template else template.rstrip("/") + "/{tag}/{asset}"
        self._tag = tag
        self._transport = transport

    def find(self, name: str) -> Asset:
        """Return where the asset would be; whether it is there shows when it is opened."""
        url = self._template.replace("{tag}", quote(self._tag, safe="")).replace(
            "{asset}", quote(name, safe="")
        )
        return Asset(name=name, identity=url, url=without_query(url))

    def open(self, asset: Asset, resume: Resume | None) -> Body:
        """Begin to read."""
        return http_body(self._transport, asset.identity, resume, headers={"Accept": "*/*"})

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


class FolderSource:
    """Releases in a local or mounted folder."""

    def __init__(self, template: str, tag: str) -> None:
        template = template.removeprefix("file://")
        self._template = template if "{asset}" in template else os.path.join(template, "{tag}", "{asset}")
        if ".." in tag.split("/"):
            raise Unavailable(
                FailureKind.RELEASE_MISSING, f"{tag!r} names no folder", "check the release's tag"
            )
        self._tag = tag

    def find(self, name: str) -> Asset:
        """Return the file; ``ASSET_MISSING`` names what lies beside it."""
        path = Path(self._template.replace("{tag}", self._tag).replace("{asset}", name))
        try:
            found = path.stat()
        except FileNotFoundError:
            raise self._missing(path) from None
        except OSError as error:
            raise _unreadable(path, error) from error
        if not stat.S_ISREG(found.st_mode):
            raise Unavailable(
                FailureKind.ASSET_MISSING, f"{path} is not a file", "correct autoInstall.source"
            )
        return Asset(name=name, identity=_file_identity(path, found), url=str(path), size=found.st_size)

    def open(self, asset: Asset, resume: Resume | None) -> Body:
        """Begin to read."""
        try:
            file = Path(asset.url).open("rb", buffering=0)  # noqa: SIM115 - closed by the body
            found = os.fstat(file.fileno())
            validator = _file_identity(Path(asset.url), found)
            offset = 0
            if resume is not None and resume.validator == validator:
                offset = file.seek(resume.offset)
        except OSError as error:
            raise _unreadable(asset.url, error) from error

        def read(size: int) -> bytes:
            try:
                return file.read(size)
            except OSError as error:
                raise _unreadable(asset.url, error) from error

        return Body(offset=offset, total=found.st_size, validator=validator, read=read, close=file.close)

    def close(self) -> None:
        """Nothing is kept open."""

    def _missing(self, path: Path) -> Unavailable:
        for folder in path.parents:
            try:
                names = sorted(entry.name for entry in os.scandir(folder))
            except OSError:
                continue
            there = ", ".join(names[:10]) or "nothing"
            return Unavailable(
                FailureKind.ASSET_MISSING,
                f"there is no {path}; {folder} holds {there}",
                "put the release there or correct autoInstall.source and autoInstall.asset.name",
            )
        return Unavailable(FailureKind.ASSET_MISSING, f"there is no {path}", "correct autoInstall.source")


def _unreadable(path: str | Path, error: OSError) -> TransferFailed:
    return TransferFailed(
        FailureKind.FILE_SYSTEM,
        f"{path} cannot be read: {error.strerror or error}",
        "check autoInstall.source, its mount, and who may read it",
    )


def _file_identity(path: Path, found: os.stat_result) -> str:
    return f"{path}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"
