"""Which folders have to be watched for a file, and where watching is not enough."""

from __future__ import annotations

import select
from pathlib import Path

from visor_actors.home.file_watch import Change, FileWatch, is_on_network, watch_points


def test_a_plain_file_needs_its_folder_only(tmp_path: Path) -> None:
    assert watch_points([tmp_path / "a", tmp_path / "b"]) == {tmp_path: {"a", "b"}}


def test_every_link_on_the_way_is_watched(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "one").symlink_to("real")
    (tmp_path / "two").symlink_to(tmp_path / "one" / ".." / "one")
    assert watch_points([tmp_path / "two" / "file"]) == {
        tmp_path: {"one", "two"},
        tmp_path / "real": {"file"},
    }


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert watch_points([tmp_path / "a"]) == {tmp_path: {"a", "b"}}


def test_what_happens_to_other_files_is_no_change(tmp_path: Path) -> None:
    watch = FileWatch(tmp_path, ["wanted"])
    (tmp_path / "other").write_text("x")
    assert select.select([watch.fd], [], [], 20)[0]
    assert watch.read() is Change.NONE
    assert watch.read() is Change.NONE
    (tmp_path / "wanted").write_text("x")
    assert watch.read() is Change.COMPLETE
    (tmp_path / "wanted").unlink()
    assert watch.read() is Change.BEGUN
    watch.close()


def test_a_lost_folder_is_found_again(tmp_path: Path) -> None:
    root = tmp_path / "home"
    root.mkdir()
    watch = FileWatch(root, ["file"])
    root.rename(tmp_path / "away")
    assert watch.read() is Change.BEGUN
    watch.renew()
    before = watch.lost
    root.mkdir()
    watch.renew()
    assert (before, watch.lost) == (True, False)
    (tmp_path / "away" / "file").write_text("x")
    assert watch.read() is Change.NONE
    (root / "file").write_text("x")
    assert watch.read() is Change.COMPLETE
    watch.close()


def test_network_file_systems_are_told_by_the_longest_mount(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"30 22 0:40 / {str(tmp_path).replace(' ', chr(92) + '040')} rw shared:1 - nfs4 server:/x rw\n"
        f"31 30 0:41 / {tmp_path}/local rw - tmpfs tmpfs rw\n"
        "nonsense\n"
    )
    assert is_on_network(tmp_path / "home", table)
    assert not is_on_network(tmp_path / "local" / "home", table)
    assert not is_on_network(Path("/etc"), table)
    assert not is_on_network(tmp_path, tmp_path / "nothing")
