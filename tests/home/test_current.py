"""The link ``current`` in every state it can be found in, and its replacement."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from visor_actors.home.current import (
    LinkDangling,
    LinkedTo,
    LinkMissing,
    OutsideHome,
    RealFolder,
    read_current,
    switch_current,
)
from visor_actors.home.errors import CurrentRefused, HomeUnusable
from visor_actors.home.layout import HomeLayout


@pytest.fixture
def home(tmp_path: Path) -> HomeLayout:
    root = tmp_path / "home"
    for name in ("genesis", "v1", "v2"):
        (root / name).mkdir(parents=True)
    return HomeLayout(root)


def test_every_state_is_told_apart(home: HomeLayout, tmp_path: Path) -> None:
    assert read_current(home) == LinkMissing()

    home.current.symlink_to("genesis")
    assert read_current(home) == LinkedTo(name="genesis", folder=home.genesis)

    home.current.unlink()
    home.current.symlink_to("v9")
    assert read_current(home) == LinkDangling(target=home.root / "v9", name="v9")

    home.current.unlink()
    home.current.symlink_to(tmp_path)
    assert read_current(home) == OutsideHome(target=tmp_path)

    home.current.unlink()
    (home.root / "v1" / "inner").mkdir()
    home.current.symlink_to("v1/inner")
    assert read_current(home) == OutsideHome(target=home.root / "v1" / "inner")

    home.current.unlink()
    home.current.mkdir()
    assert read_current(home) == RealFolder(path=home.current)


def test_absolute_links_of_the_original_visor_are_understood(home: HomeLayout, tmp_path: Path) -> None:
    home.current.symlink_to(home.root / "v1")
    assert read_current(home) == LinkedTo(name="v1", folder=home.root / "v1")

    # The same home by another name.
    (tmp_path / "alias").symlink_to(home.root)
    other = HomeLayout(tmp_path / "alias")
    assert read_current(other) == LinkedTo(name="v1", folder=other.root / "v1")


def test_a_dangling_link_out_of_the_home_has_no_name(home: HomeLayout) -> None:
    home.current.symlink_to("/nowhere/v1")
    assert read_current(home) == LinkDangling(target=Path("/nowhere/v1"), name=None)


def test_switching_leaves_a_relative_link_and_nothing_else(home: HomeLayout) -> None:
    switch_current(home, "v1")
    switch_current(home, "v2")
    switch_current(home, "v2")
    assert os.readlink(home.current) == "v2"
    assert sorted(os.listdir(home.root)) == ["current", "genesis", "v1", "v2"]


def test_switching_replaces_dangling_foreign_and_absolute_links(home: HomeLayout, tmp_path: Path) -> None:
    for target in ("v9", str(tmp_path), str(home.root / "v1")):
        home.current.unlink(missing_ok=True)
        home.current.symlink_to(target)
        switch_current(home, "v2")
        assert os.readlink(home.current) == "v2"


def test_a_leftover_of_a_killed_visor_is_no_obstacle(home: HomeLayout) -> None:
    (home.root / ".current.new").symlink_to("genesis")
    switch_current(home, "v1")
    assert os.readlink(home.current) == "v1"
    assert not os.path.lexists(home.root / ".current.new")


def test_a_real_folder_in_the_way_is_refused_with_words(home: HomeLayout) -> None:
    home.current.mkdir()
    (home.current / "precious").write_text("x")
    with pytest.raises(CurrentRefused, match="is not a link") as raised:
        switch_current(home, "v1")
    assert "Move" in raised.value.next_step
    assert (home.current / "precious").read_text() == "x"


@pytest.mark.parametrize("name", ["v9", "../v1", "current", "", ".visor"])
def test_there_must_be_a_folder_to_switch_to(home: HomeLayout, name: str) -> None:
    home.current.symlink_to("genesis")
    with pytest.raises(CurrentRefused):
        switch_current(home, name)
    assert os.readlink(home.current) == "genesis"


def test_a_home_that_cannot_be_written_is_told_with_words(tmp_path: Path) -> None:
    # A process without the right to write: root would not notice modes, /proc is not writable for anybody.
    with pytest.raises((HomeUnusable, CurrentRefused)):
        switch_current(HomeLayout(Path("/proc/self")), "task")


def test_a_reader_never_sees_a_moment_without_a_link(home: HomeLayout) -> None:
    switch_current(home, "v1")
    done = threading.Event()
    seen: set[str] = set()

    def read() -> None:
        while not done.is_set():
            state = read_current(home)
            seen.add(state.name if isinstance(state, LinkedTo) else repr(state))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(100):
        switch_current(home, "v2")
        switch_current(home, "v1")
    done.set()
    reader.join()
    assert seen <= {"v1", "v2"}


def test_killed_at_any_moment_it_leaves_the_old_link_or_the_new(home: HomeLayout) -> None:
    switch_current(home, "genesis")
    code = (
        "import sys, pathlib\n"
        "from visor_actors.home.current import switch_current\n"
        "from visor_actors.home.layout import HomeLayout\n"
        "home = HomeLayout(pathlib.Path(sys.argv[1]))\n"
        "print('go', flush=True)\n"
        "while True:\n"
        "    switch_current(home, 'v1')\n"
        "    switch_current(home, 'v2')\n"
    )
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", code, str(home.root)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            for _ in range(50):
                assert isinstance(read_current(home), LinkedTo)
            child.kill()
        assert isinstance(read_current(home), LinkedTo)
        switch_current(home, "genesis")
        assert os.readlink(home.current) == "genesis"
