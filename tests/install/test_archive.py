"""Archives: what a good one gives, and that a bad one gives nothing outside its folder and nothing
unexpected.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from visor_actors.install.archive import unpack
from visor_actors.install.archive_names import NameRegister, safe_name
from visor_actors.install.errors import InstallError, Refused
from visor_actors.install.messages import FailureKind

ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00" + bytes(44) + b"the rest of it" * 50
MIB = 1 << 20

Unpack = Callable[..., "list[str]"]


@pytest.fixture
def unpacked(tmp_path: Path) -> Unpack:
    """Unpack bytes into ``tmp_path/out`` and return what is there; nothing may ever appear beside it."""
    out = tmp_path / "out"
    out.mkdir()
    asset = tmp_path / "asset"

    def run(content: bytes, *, most_bytes: int = MIB) -> list[str]:
        asset.write_bytes(content)
        try:
            unpack(asset, out, binary_name="fury", most_bytes=most_bytes)
        finally:
            assert sorted(os.listdir(tmp_path)) == ["asset", "out"]
            for path in out.rglob("*"):
                assert path.is_dir() or stat.S_ISREG(path.lstat().st_mode)
        return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())

    return run


def make_zip(*entries: tuple[str, bytes], mode: int = 0o100755) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o040755 if name.endswith("/") else mode) << 16
            info.create_system = 3
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()


def make_tar(*entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def as_is(content: bytes) -> bytes:
    return content


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


@pytest.mark.parametrize(
    "content",
    [
        make_zip(("fury", ELF)),
        make_tar(("fury", ELF)),
        gzip.compress(make_tar(("fury", ELF))),
        zstd(make_tar(("fury", ELF))),
        ELF,
        gzip.compress(ELF),
        zstd(ELF),
        b"#!/bin/sh\n",
    ],
    ids=["zip", "tar", "tar.gz", "tar.zst", "binary", "gz", "zst", "script"],
)
def test_every_kind_is_told_by_its_content(unpacked: Unpack, tmp_path: Path, content: bytes) -> None:
    assert unpacked(content) == ["fury"]
    assert stat.S_IMODE((tmp_path / "out" / "fury").stat().st_mode) == 0o755


def test_modes_are_ours(unpacked: Unpack, tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        assert unpacked(make_zip(("fury", ELF), ("notes.txt", b"x"), mode=0o104777)) == ["fury", "notes.txt"]
    finally:
        os.umask(old)
    assert (tmp_path / "out" / "fury").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "out" / "notes.txt").stat().st_mode & 0o7777 == 0o644


def test_a_binary_in_a_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "asset").write_bytes(make_zip(("fury-linux/", b""), ("fury-linux/fury", ELF)))
    (tmp_path / "out").mkdir()
    found = unpack(tmp_path / "asset", tmp_path / "out", binary_name="fury", most_bytes=MIB)
    assert found.binary == "fury-linux/fury"


def test_a_run_configuration_of_the_archive_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "asset").write_bytes(make_zip(("fury", ELF), ("run-config.toml", b"evil")))
    (tmp_path / "out").mkdir()
    found = unpack(tmp_path / "asset", tmp_path / "out", binary_name="fury", most_bytes=MIB)
    assert found.skipped == ("run-config.toml",)
    assert os.listdir(tmp_path / "out") == ["fury"]


@pytest.mark.parametrize("entries", [(), (("vega", ELF),), (("a/fury", ELF), ("b/fury", ELF))])
def test_a_release_without_exactly_one_binary_is_refused(
    unpacked: Unpack, entries: tuple[tuple[str, bytes], ...]
) -> None:
    with pytest.raises(Refused) as caught:
        unpacked(make_zip(*entries))
    assert caught.value.kind is FailureKind.BINARY_MISSING


BAD_NAMES = [
    "/fury",
    "../fury",
    "a/../../fury",
    "a/..",
    "..\\fury",
    "C:fury",
    "fury\n",
    "a/" * 20 + "fury",
    "x" * 300,
    "..",
    "/",
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("pack", [as_is, gzip.compress, zstd], ids=["tar", "tar.gz", "tar.zst"])
def test_a_tar_with_a_bad_name_is_refused(
    unpacked: Unpack, name: str, pack: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(Refused) as caught:
        unpacked(pack(make_tar(("fury", ELF), (name, b"x"))))
    assert caught.value.kind in (FailureKind.ARCHIVE_REFUSED, FailureKind.BINARY_MISSING)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_zip_with_a_bad_name_is_refused(unpacked: Unpack, name: str) -> None:
    with pytest.raises(Refused) as caught:
        unpacked(make_zip(("fury", ELF), (name, b"" if name.endswith("/") else b"x"), mode=0))
    assert caught.value.kind is FailureKind.ARCHIVE_REFUSED


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CONTTYPE,
        tarfile.GNUTYPE_SPARSE,
    ],
)
def test_a_tar_with_anything_but_files_is_refused(unpacked: Unpack, kind: bytes) -> None:
    with pytest.raises(Refused) as caught:
        unpacked(make_tar(("fury", b""), kind=kind, link="/etc/passwd"))
    assert caught.value.kind is FailureKind.ARCHIVE_REFUSED


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_a_zip_with_anything_but_files_is_refused(unpacked: Unpack, kind: int) -> None:
    with pytest.raises(Refused) as caught:
        unpacked(make_zip(("fury", b"/etc/passwd"), mode=kind | 0o777))
    assert caught.value.kind is FailureKind.ARCHIVE_REFUSED


@pytest.mark.parametrize(
    "names", [("fury", "fury"), ("fury", "./fury"), ("fury", "fury/x"), ("a/fury", "a"), ("fury/", "fury")]
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_for_one_place_are_refused(unpacked: Unpack, names: tuple[str, str]) -> None:
    entries = [(name, b"" if name.endswith("/") else ELF) for name in names]
    with pytest.raises(Refused):
        unpacked(make_zip(*entries, mode=0))


@pytest.mark.parametrize("pack", [gzip.compress, zstd], ids=["tar.gz", "tar.zst"])
def test_a_bomb_in_a_stream_is_refused_while_it_unpacks(
    unpacked: Unpack, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(Refused, match="more than"):
        unpacked(pack(make_tar(("fury", bytes(8 * MIB)))))
    assert (tmp_path / "out" / "fury").stat().st_size <= MIB


def test_a_bomb_in_a_zip_is_refused_before_it_is_unpacked(unpacked: Unpack, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="would unpack to more"):
        unpacked(make_zip(("fury", bytes(8 * MIB))))
    assert not os.listdir(tmp_path / "out")


def test_a_zip_that_lies_about_a_size_is_refused(unpacked: Unpack) -> None:
    content = bytearray(make_zip(("fury", bytes(4 * MIB))))
    central = content.rindex(b"PK\x01\x02")
    content[central + 24 : central + 28] = (1000).to_bytes(4, "little")
    with pytest.raises(Refused):
        unpacked(bytes(content))


def test_too_many_entries_are_refused(unpacked: Unpack) -> None:
    with pytest.raises(Refused, match="entries"):
        unpacked(make_zip(*((f"f{number}", b"") for number in range(2100))))


def test_an_encrypted_entry_is_refused(unpacked: Unpack) -> None:
    content = bytearray(make_zip(("fury", ELF)))
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(Refused, match="encrypted"):
        unpacked(bytes(content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>please log in</html>", "web page"),
        (b'{"message": "Not Found"}', "JSON"),
        (b"\xfd7zXZ\x00" + bytes(100), "compression is not supported"),
        (b"no archive at all", "neither"),
        (b"", "neither"),
    ],
)
def test_what_is_no_release_is_said_to_be_what_it_is(unpacked: Unpack, content: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        unpacked(content)


def test_a_truncated_archive_is_refused(unpacked: Unpack, tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(5000)
    for whole in (make_zip(("fury", noise)), gzip.compress(make_tar(("fury", noise))), zstd(ELF + noise)):
        with pytest.raises(Refused):
            unpacked(whole[: len(whole) // 2])
        for path in (tmp_path / "out").iterdir():
            path.unlink()


pieces = st.sampled_from(["/", ".", "..", "a", "fury", "\\", "\0", "\n", "C:", "é", "\udc80", "~", " "])
names = st.lists(pieces, max_size=12).map("".join)


@given(name=st.one_of(names, st.text(max_size=40)))
def test_a_name_is_either_refused_or_stays_inside(name: str) -> None:
    try:
        safe = safe_name(name)
    except Refused:
        return
    joined = os.path.normpath(os.path.join("/folder", safe))
    assert joined == "/folder" or joined.startswith("/folder/")
    assert safe == "" or joined == f"/folder/{safe}"
    assert safe_name(safe) == safe if safe else True


@given(
    st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from("ab"), min_size=1, max_size=3)), max_size=8)
)
def test_accepted_names_never_meet(entries: list[tuple[bool, list[str]]]) -> None:
    register = NameRegister(most_entries=100)
    files: set[str] = set()
    folders: set[str] = set()
    for is_file, parts in entries:
        try:
            if is_file:
                name = register.add_file("/".join(parts))
                assert name not in files
                files.add(name)
            else:
                name = register.add_folder("/".join(parts) + "/")
                folders.add(name)
        except Refused:
            return
        folders.update(name.rsplit("/", cut)[0] for cut in range(1, name.count("/") + 1))
        assert not files & folders


SEEDS = [
    make_zip(("fury", ELF), ("dir/", b""), ("dir/notes.txt", b"some notes" * 20)),
    make_tar(("fury", ELF), ("x" * 150, b"long names need more headers")),
    gzip.compress(make_tar(("fury", ELF)), mtime=0),
    zstd(make_tar(("fury", ELF))),
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    cut=st.floats(0, 1),
    end=st.binary(max_size=30),
)
def test_mutated_archives_are_unpacked_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
    seed: bytes,
    edits: list[tuple[float, int]],
    cut: float,
    end: bytes,
) -> None:
    content = bytearray(seed)
    for position, value in edits:
        content[int(position * len(content))] = value
    if cut < 0.3:
        content = content[: int(cut / 0.3 * len(content))]
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "asset").write_bytes(bytes(content) + end)
    (folder / "out").mkdir()
    with contextlib.suppress(InstallError):
        unpack(folder / "asset", folder / "out", binary_name="fury", most_bytes=64 << 10)
    assert sorted(os.listdir(folder)) == ["asset", "out"]
    total = 0
    for path in (folder / "out").rglob("*"):
        kind = path.lstat()
        assert stat.S_ISDIR(kind.st_mode) or stat.S_ISREG(kind.st_mode)
        total += kind.st_size if stat.S_ISREG(kind.st_mode) else 0
    assert total <= 64 << 10
