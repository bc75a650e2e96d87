"""Unpacks a release: zip, tar (plain, gzip, zstd) or a bare binary, told apart by content and never by name
or type.

Only regular files and folders, only inside the destination, never more bytes than allowed. Links, devices,
encrypted entries and everything :mod:`.archive_names` refuses make the whole archive refused. Modes are set
here; the archive's are ignored. Errors of the parsing libraries on damaged input become
:class:`~.errors.Refused` as well.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol, cast

from msgspec import Struct

from visor_actors.install.archive_names import NameRegister, refused, shown
from visor_actors.install.elf import ExecutableKind, describe_header
from visor_actors.install.errors import InstallError, Refused, storage_error
from visor_actors.install.messages import FailureKind

_CHUNK = 1 << 20
_MOST_ENTRIES = 2000
_MODE_FILE = 0o644
_MODE_BINARY = 0o755
_RESERVED = frozenset({"run-config.toml", "run-config.yaml"})
_LARGEST_ZSTD_WINDOW = 128 << 20
_TAR_MAGIC_AT = 257


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Unpacked(Struct, frozen=True, kw_only=True):
    """What came out: the files, relative to the destination, and which of them is the binary."""

    files: tuple[str, ...]
    binary: str
    skipped: tuple[str, ...] = ()


def unpack(
    path: Path,
    destination: Path,
    *,
    binary_name: str,
    most_bytes: int,
    on_bytes: Callable[[int], None] = lambda _: None,
    on_file: Callable[[Path], None] = lambda _: None,
) -> Unpacked:
    """Unpack ``path`` into the empty folder ``destination`` and return what is there.

    The binary is the only file called ``binary_name``, at whatever depth; a bare binary gets that name. At
    most ``most_bytes`` come out. ``on_bytes`` is told how many each time, ``on_file`` each file when it is
    complete. Raises :class:`Refused`, and :class:`StorageFailed` when it cannot be written.
    """
    writer = _Writer(
        destination, binary_name=binary_name, most_bytes=most_bytes, on_bytes=on_bytes, on_file=on_file
    )
    try:
        with path.open("rb") as file:
            _unpack_any(file, writer)
    except (InstallError, MemoryError):
        raise
    except _DiskError as error:
        raise storage_error(error.reason, "unpack the release") from error
    except (
        Exception
    ) as error:  # the parsers raise nearly anything on damaged input; none of it may pass for a bug
        raise refused(f"it is damaged ({type(error).__name__}: {error})"[:300]) from error
    return writer.result()


def _unpack_any(file: IO[bytes], writer: _Writer) -> None:
    head = _peek(file)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        _unpack_zip(file, writer)
    elif head.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=file) as stream:
            _unpack_stream(cast(_Reader, stream), writer)
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        with _open_zstd(file) as stream:
            _unpack_stream(stream, writer)
    else:
        _unpack_stream(file, writer)


def _peek(file: IO[bytes]) -> bytes:
    head = file.read(64)
    file.seek(0)
    return head


def _unpack_stream(stream: _Reader, writer: _Writer) -> None:
    """Unpack what is left once compression is taken off: a tar archive or the binary itself."""
    bounded = _Bounded(stream, writer.most_bytes + (_MOST_ENTRIES << 10))
    head = bounded.peek(512)
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        _unpack_tar(bounded, writer)
        return
    if describe_header(head[:64]).kind is ExecutableKind.UNKNOWN:
        raise refused(_what_instead(head))
    writer.write_file(writer.binary_name, bounded, None)


def _what_instead(head: bytes) -> str:
    start = head.lstrip()[:15].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page: a proxy or a login stands between here and the release"
    if start.startswith((b"{", b"[")):
        return "it is a JSON document"
    if head.startswith((b"\xfd7zXZ", b"BZh", b"7z\xbc\xaf", b"Rar!")):
        return "its compression is not supported; zip, tar.gz, tar.zst and bare binaries are"
    return "it is neither an archive nor an executable"


def _unpack_zip(file: IO[bytes], writer: _Writer) -> None:
    with zipfile.ZipFile(file) as archive:
        register = NameRegister(most_entries=_MOST_ENTRIES)
        members: list[tuple[str, zipfile.ZipInfo]] = []
        for info in archive.infolist():
            _check_zip_entry(info)
            if info.orig_filename.endswith("/"):
                register.add_folder(info.orig_filename)
            else:
                members.append((register.add_file(info.orig_filename), info))
        if sum(info.file_size for _, info in members) > writer.most_bytes:
            raise refused(f"it would unpack to more than {writer.most_bytes} bytes")
        for name, info in members:
            with archive.open(info) as content:
                writer.write_file(name, cast(_Reader, content), info.file_size)


def _check_zip_entry(info: zipfile.ZipInfo) -> None:
    name = shown(info.orig_filename)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refused(f"{name} is a link or a device")
    if (kind == stat.S_IFDIR) != info.orig_filename.endswith("/") and kind != 0:
        raise refused(f"{name} is a file and a folder at once")
    if info.flag_bits & 0x1:
        raise refused(f"{name} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise refused(
            f"{name} has compression method {info.compress_type}; stored and deflated are supported"
        )


def _unpack_tar(stream: _Bounded, writer: _Writer) -> None:
    register = NameRegister(most_entries=_MOST_ENTRIES)
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|", errors="strict") as archive:
        for member in archive:
            if member.isdir():
                register.add_folder(member.name)
                continue
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                raise refused(f"{shown(member.name)} is a link, a device or a sparse file")
            name = register.add_file(member.name)
            content = archive.extractfile(member)
            assert content is not None, "a regular file has content"
            writer.write_file(name, cast(_Reader, content), member.size)
    stream.drain()  # so that the compression's own checksum is compared


@contextlib.contextmanager
def _open_zstd(file: IO[bytes]) -> Iterator[_Reader]:
    """Open a zstd stream with the interpreter's own module (3.14) or with zstandard."""
    try:
        import zstandard
    except ImportError:
        with _open_zstd_of_the_interpreter(file) as stream:
            yield stream
        return
    decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_ZSTD_WINDOW)
    with decompressor.stream_reader(file, read_across_frames=True, closefd=False) as stream:
        yield cast(_Reader, stream)


@contextlib.contextmanager
def _open_zstd_of_the_interpreter(file: IO[bytes]) -> Iterator[_Reader]:
    import importlib

    try:
        zstd = importlib.import_module("compression.zstd")
    except ImportError:
        raise Refused(
            FailureKind.ARCHIVE_REFUSED,
            "the archive is compressed with zstd, which this Python cannot read",
            "pip install 'visor-actors[zstd]'",
        ) from None
    options = {zstd.DecompressionParameter.window_log_max: _LARGEST_ZSTD_WINDOW.bit_length() - 1}
    with zstd.ZstdFile(file, options=options) as stream:
        yield cast(_Reader, stream)


class _Bounded:
    """A stream that can be peeked into and that refuses to give more than ``most`` bytes."""

    def __init__(self, stream: _Reader, most: int) -> None:
        self._stream = stream
        self._left = most
        self._head = b""

    def peek(self, size: int) -> bytes:
        while len(self._head) < size and (data := self._take(size - len(self._head))):
            self._head += data
        return self._head

    def read(self, size: int, /) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._take(size)

    def drain(self) -> None:
        while self.read(_CHUNK):
            pass

    def _take(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise refused("it unpacks to far more than a release needs")
        return data


class _DiskError(Exception):
    """An OSError from writing, kept apart from those that parsers raise about damaged input."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _Writer:
    """Writes files below one folder, counting bytes over all of them."""

    def __init__(
        self,
        destination: Path,
        *,
        binary_name: str,
        most_bytes: int,
        on_bytes: Callable[[int], None],
        on_file: Callable[[Path], None],
    ) -> None:
        self.binary_name = binary_name
        self.most_bytes = most_bytes
        self._destination = destination
        self._left = most_bytes
        self._on_bytes = on_bytes
        self._on_file = on_file
        self._files: list[str] = []
        self._skipped: list[str] = []

    def write_file(self, name: str, content: _Reader, size: int | None) -> None:
        """Write one file; ``size`` is what the archive announced, None where it cannot know."""
        if name in _RESERVED:
            self._skipped.append(name)
            return
        path = self._destination / name
        mode = _MODE_BINARY if path.name == self.binary_name else _MODE_FILE
        with self._create(path, mode) as file:
            written = 0
            while data := content.read(_CHUNK):
                written += len(data)
                self._left -= len(data)
                if self._left < 0:
                    raise refused(f"it unpacks to more than {self.most_bytes} bytes")
                self._put(file, data)
                self._on_bytes(len(data))
            if size is not None and written != size:
                raise refused(f"{shown(name)} has {written} bytes instead of {size}")
        self._files.append(name)
        self._on_file(path)

    def result(self) -> Unpacked:
        """Find the binary among what was written."""
        found = [name for name in self._files if name.rpartition("/")[2] == self.binary_name]
        if self.binary_name in found:
            found = [self.binary_name]
        if len(found) != 1:
            there = ", ".join(sorted(self._files)[:10]) or "nothing"
            raise Refused(
                FailureKind.BINARY_MISSING,
                f"the release holds {len(found) or 'no'} files called {self.binary_name}; it holds {there}",
                "correct autoInstall.asset.binaryName",
            )
        return Unpacked(files=tuple(self._files), binary=found[0], skipped=tuple(self._skipped))

    def _create(self, path: Path, mode: int) -> io.FileIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, flags, mode)
            os.fchmod(descriptor, mode)  # whatever the umask says
        except OSError as error:
            raise _DiskError(error) from error
        return io.FileIO(descriptor, "wb")

    def _put(self, file: io.FileIO, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
        except OSError as error:
            raise _DiskError(error) from error
