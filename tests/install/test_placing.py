"""The last steps: the staged folder is checked, put on the disk and renamed; what is there already is
respected.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.install.conftest import ASSET, RUN_CONFIG, TAG, Bench
from visor_actors.home.layout import HomeLayout
from visor_actors.install.check import check_folder
from visor_actors.install.elf import ExecutableKind, describe_header
from visor_actors.install.errors import Busy, Unfit
from visor_actors.install.messages import FailureKind, JobMessage, Phase, Progress, Proof
from visor_actors.install.order import Limits, machine_architecture
from visor_actors.install.staging import DestinationExists, Staging
from visor_actors.simulator import VersionFaults, build_asset_zip, build_binary


def add_asset(bench: Bench, tmp_path: Path, **options: object) -> None:
    """Publish a release v3 whose node behaves as ``options`` say."""
    path = build_asset_zip(tmp_path / ASSET, **options)  # type: ignore[arg-type]  # checked at run time
    bench.server.add_release("v3", {ASSET: path.read_bytes()})


def test_a_binary_of_another_version_is_refused(bench: Bench, tmp_path: Path) -> None:
    add_asset(bench, tmp_path, version="v3.0.1")
    error = bench.fail(tag="v3", folder_name="v3")
    assert error.kind is FailureKind.WRONG_VERSION
    assert "v3.0.1" in error.message


def test_a_binary_that_does_not_tell_its_version_is_refused(bench: Bench, tmp_path: Path) -> None:
    add_asset(bench, tmp_path, version="v3", faults=VersionFaults(mode="hang"))
    error = bench.fail(tag="v3", folder_name="v3", limits=Limits(version_seconds=0.5))
    assert error.kind is FailureKind.WRONG_VERSION
    assert "did not end within" in error.message


def test_a_binary_for_another_machine_is_refused_without_being_run(bench: Bench) -> None:
    machine = b"\xb7\x00" if machine_architecture() == "amd64" else b"\x3e\x00"
    bench.server.add_release(
        "v3", {ASSET: b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + machine + bytes(100)}
    )
    error = bench.fail(tag="v3", folder_name="v3")
    assert error.kind is FailureKind.WRONG_ARCHITECTURE
    assert f"linux-{machine_architecture()}" in error.next_step


def test_a_binary_of_another_name_is_named_in_the_failure(bench: Bench) -> None:
    error = bench.fail(binary_name="vega")
    assert error.kind is FailureKind.BINARY_MISSING
    assert "it holds fury" in error.message


def test_a_complete_folder_is_left_as_it_is(bench: Bench) -> None:
    first = bench.run()
    inode = first.folder.stat().st_ino
    again = bench.run()
    assert again.verification.proofs == (Proof.PRESENT,)
    assert again.folder.stat().st_ino == inode


def test_an_incomplete_folder_is_neither_used_nor_touched(bench: Bench) -> None:
    (bench.home / TAG).mkdir()
    (bench.home / TAG / "fury").write_text("half")
    with pytest.raises(Unfit) as caught:
        bench.run()
    assert caught.value.kind is FailureKind.FOLDER_INCOMPLETE
    assert (bench.home / TAG / "fury").read_text() == "half"


@pytest.mark.parametrize("content", [None, "mine"], ids=["empty", "with a file"])
def test_a_folder_that_appears_meanwhile_is_respected(bench: Bench, content: str | None) -> None:
    class Appearing(list[JobMessage]):
        def append(self, message: JobMessage) -> None:
            super().append(message)
            if isinstance(message, Progress) and message.phase is Phase.FINISHING:
                (bench.home / TAG).mkdir()
                if content is not None:
                    (bench.home / TAG / "file").write_text(content)

    bench.said = Appearing()
    with pytest.raises(Unfit) as caught:
        bench.run()
    assert caught.value.kind is FailureKind.FOLDER_INCOMPLETE
    assert os.listdir(bench.home / TAG) == ([] if content is None else ["file"])


def test_a_dangling_link_at_the_destination_is_not_replaced(bench: Bench) -> None:
    (bench.home / TAG).symlink_to("nowhere")
    with pytest.raises(Unfit):
        bench.run()
    assert os.readlink(bench.home / TAG) == "nowhere"


def test_the_run_configuration_is_carried_over_and_says_from_where(bench: Bench) -> None:
    (bench.home / "current").symlink_to("genesis")
    done = bench.run(source_folder=bench.home / "current")
    text = (done.folder / "run-config.toml").read_text()
    assert text.startswith("# Written by visor-actors")
    assert "genesis/run-config.toml" in text.splitlines()[1]
    assert f'name = "{TAG}"' in text
    assert "# as the guide says" in text


def test_a_home_without_run_configuration_is_a_clear_failure(bench: Bench) -> None:
    (bench.home / "genesis" / "run-config.toml").unlink()
    assert bench.fail().kind is FailureKind.RUN_CONFIG


def test_a_tag_that_is_no_plain_name_gets_a_staging_folder_of_its_own(bench: Bench) -> None:
    layout = HomeLayout(bench.home)
    tags = ("release/v1", "..", ".", "a%2Fb", "v1", "v1.lock")
    stages = [Staging(layout, tag) for tag in tags]
    assert all(stage.folder.parent == layout.staging for stage in stages)
    assert all(stage.folder.name not in (".", "..") for stage in stages)
    assert len({stage.folder for stage in stages}) == len(tags)


# One release, one job


def test_a_second_job_is_told_who_holds_the_release(bench: Bench) -> None:
    with Staging(HomeLayout(bench.home), TAG) as held:
        held.acquire(requested_by="visor-actors prepare", timeout=0)
        with pytest.raises(Busy) as caught:
            bench.run()
    assert f"visor-actors prepare (process {os.getpid()}" in caught.value.message
    assert caught.value.transient
    assert bench.run().bytes


def test_another_release_can_be_worked_on_at_the_same_time(bench: Bench) -> None:
    with Staging(HomeLayout(bench.home), "another") as held:
        held.acquire(requested_by="somebody", timeout=0)
        assert bench.run().bytes


def test_a_stale_lock_file_is_no_lock(bench: Bench) -> None:
    code = (
        "import sys; from pathlib import Path; from visor_actors.home.layout import HomeLayout;"
        "from visor_actors.install.staging import Staging;"
        f"Staging(HomeLayout(Path(sys.argv[1])), {TAG!r}).acquire(requested_by='a dead process', timeout=0)"
    )
    subprocess.run([sys.executable, "-c", code, str(bench.home)], check=True)
    assert bench.run().bytes


def test_publishing_replaces_nothing(tmp_path: Path) -> None:
    with Staging(HomeLayout(tmp_path), "v1") as staging:
        staging.acquire(requested_by="test", timeout=0)
        (staging.new_tree() / "file").touch()
        (tmp_path / "v1").mkdir()
        with pytest.raises(DestinationExists):
            staging.publish(tmp_path / "v1")
        assert not os.listdir(tmp_path / "v1")
        (tmp_path / "v1").rmdir()
        staging.publish(tmp_path / "v1")
        assert os.listdir(tmp_path / "v1") == ["file"]


def test_staging_of_releases_long_gone_is_removed(bench: Bench) -> None:
    old = bench.home / ".visor" / "staging" / "v0"
    old.mkdir(parents=True)
    os.utime(old, (time.time() - 30 * 24 * 3600,) * 2)
    bench.run()
    assert not old.exists()


# A disk that is really full


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own, of 300 KiB unless the test's parameter says otherwise."""
    folder = tmp_path / "small"
    folder.mkdir()
    size = getattr(request, "param", "300k")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "none", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting needs rights that this process has not")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("room", [20_000, 150_000, 290_000])
def test_a_full_disk_leaves_nothing_that_looks_installed(bench: Bench, small_disk: Path, room: int) -> None:
    home = small_disk / "home"
    (home / "genesis").mkdir(parents=True)
    (home / "genesis" / "run-config.toml").write_text(RUN_CONFIG)
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "filler").write_bytes(bytes(max(0, free - room)))
    order = msgspec.structs.replace(
        bench.order, home=home, source_folder=home / "genesis", limits=Limits(reserve_mib=0, attempts=1)
    )
    full = dataclasses.replace(bench, home=home, order=order)
    assert full.fail().kind is FailureKind.DISK_FULL
    (small_disk / "filler").unlink()
    assert not (home / TAG).exists()


@pytest.mark.parametrize("small_disk", ["8m"], indirect=True)
def test_staging_on_another_file_system_is_a_clear_failure(bench: Bench, small_disk: Path) -> None:
    (bench.home / ".visor").symlink_to(small_disk)
    error = bench.fail(limits=Limits(reserve_mib=0))
    assert error.kind is FailureKind.FILE_SYSTEM
    assert "one file system" in error.next_step


def test_what_staging_holds_is_nobody_else_s(bench: Bench) -> None:
    old = os.umask(0)
    try:
        bench.fail(source_folder=None)
    finally:
        os.umask(old)
    for folder in (bench.home / ".visor", bench.staging.parent, bench.staging):
        assert folder.stat().st_mode & 0o777 == 0o700


# Checking a folder without network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as an operator would provide it."""
    path = tmp_path / TAG
    build_binary(path / "fury", version=TAG)
    text = RUN_CONFIG + '\n[data_node.binary]\npath = "fury"\nargs = ["datanode", "start"]\n'
    (path / "run-config.toml").write_text(text)
    return path


def test_a_complete_folder_is_ready(folder: Path) -> None:
    report = check_folder(folder, tag=TAG)
    assert report.ready
    assert report.version == TAG
    assert check_folder(folder, tag=None).ready


def problems_of(folder: Path, tag: str | None = TAG) -> list[str]:
    report = check_folder(folder, tag=tag)
    assert not report.ready
    assert all(problem.next_step for problem in report.problems)
    return [problem.what for problem in report.problems]


def test_a_binary_of_another_version_is_named_once_though_it_serves_twice(folder: Path) -> None:
    assert len([what for what in problems_of(folder, "v9") if "wanted is exactly v9" in what]) == 1


def test_an_absent_folder_is_said_to_be_absent(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "nothing")[0].startswith("there is no folder")


def test_a_folder_without_run_configuration_is_not_ready(folder: Path) -> None:
    (folder / "run-config.toml").unlink()
    assert "run-config" in problems_of(folder)[0]


def test_a_missing_binary_is_named(folder: Path) -> None:
    (folder / "fury").unlink()
    assert f"there is no {folder}/fury" in problems_of(folder)


def test_a_binary_that_is_not_executable_is_named(folder: Path) -> None:
    (folder / "fury").chmod(0o644)
    assert f"{folder}/fury is not executable" in problems_of(folder)


def test_a_folder_in_the_place_of_a_binary_is_named(folder: Path) -> None:
    (folder / "fury").unlink()
    (folder / "fury").mkdir()
    assert f"{folder}/fury is not a file" in problems_of(folder)


def test_a_half_copied_binary_is_not_ready(folder: Path) -> None:
    (folder / "fury").write_bytes((folder / "fury").read_bytes()[:100])
    assert problems_of(folder)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"#!/bin/sh", ExecutableKind.SCRIPT),
        (b"MZ\x90", ExecutableKind.FOREIGN),
        (b"\xcf\xfa\xed\xfe", ExecutableKind.FOREIGN),
        (b"\x7fELF", ExecutableKind.UNKNOWN),
        (b"\x7fELF\x02\x01" + bytes(10) + b"\x01\x00\x3e\x00", ExecutableKind.UNKNOWN),
        (b"", ExecutableKind.UNKNOWN),
        (Path(sys.executable).read_bytes()[:64], ExecutableKind.ELF),
    ],
)
def test_kinds_of_executables_are_told_from_the_header(head: bytes, kind: ExecutableKind) -> None:
    found = describe_header(head)
    assert found.kind is kind
    assert found.architecture == (machine_architecture() if kind is ExecutableKind.ELF else None)
