"""Making and completing a home, and what is said about its owners and modes."""

from __future__ import annotations

import os
import re
import resource
import signal
import threading
from pathlib import Path

import jsonschema
import pytest
import tomli

from visor_actors.home.brands import brand, this_arch
from visor_actors.home.config import load_config
from visor_actors.home.config_keys import CONFIG_KEYS
from visor_actors.home.errors import HomeUnusable
from visor_actors.home.initialise import initialise
from visor_actors.home.journal import Journal
from visor_actors.home.layout import HomeLayout, is_folder_name
from visor_actors.home.reference import reference
from visor_actors.home.run_config import load_run_config
from visor_actors.home.schema import config_schema, run_config_schema

ROOT = Path(__file__).resolve().parents[2]


def uncomment(file: Path) -> str:
    """The file with every key that stands there as a comment."""
    return re.sub(r"(?m)^#(?! )", "", file.read_text())


@pytest.mark.parametrize("word", ["fury", "vega", "zeta"])
def test_a_new_home_is_complete_and_loads(tmp_path: Path, word: str) -> None:
    root = tmp_path / "made" / "on the way"
    previous = os.umask(0o077)
    try:
        report = initialise(root, brand=word, with_data_node=True)
    finally:
        os.umask(previous)

    config = load_config(HomeLayout(root), environ={}).config
    assert config.auto_install.repository == word
    assert config.auto_install.asset_name == f"{word}-linux-{this_arch()}.zip"
    assert config.upgrade_folders == {"vX.X.X": "vX.X.X"}
    for name in ("genesis", "vX.X.X"):
        run = load_run_config(root / name)
        assert (run.name, run.brand) == (name, word)
        assert run.core.path == root / name / word
        assert run.data_node is not None
        assert run.data_node.args == ("datanode", "start")
        assert (root / name).stat().st_mode & 0o777 == 0o755
    assert root.stat().st_mode & 0o777 == 0o755
    assert (root / ".visor").stat().st_mode & 0o777 == 0o700
    for file in root.rglob("*.toml"):
        assert file.stat().st_mode & 0o777 == 0o600
    assert not report.kept
    assert not report.findings
    assert root / "config.toml" in report.created
    assert not list(root.rglob("*.new"))


def test_without_a_brand_it_is_fury_and_without_a_data_node_there_is_none(tmp_path: Path) -> None:
    initialise(tmp_path)
    run = load_run_config(tmp_path / "genesis")
    assert run.brand == "fury"
    assert run.data_node is None


def test_every_key_is_there_explained_and_can_be_uncommented(tmp_path: Path) -> None:
    initialise(tmp_path)
    text = (tmp_path / "config.toml").read_text()
    for key in CONFIG_KEYS:
        assert key.doc.split()[0] in text
    (tmp_path / "config.toml").write_text(uncomment(tmp_path / "config.toml"))
    loaded = load_config(HomeLayout(tmp_path), environ={})
    values = tomli.loads((tmp_path / "config.toml").read_text())
    for key in CONFIG_KEYS:
        found = values
        for part in key.parts:
            assert part in found, key.path
            found = found[part]
    assert loaded.warnings == ()
    run = tmp_path / "genesis" / "run-config.toml"
    run.write_text(uncomment(run))
    assert load_run_config(tmp_path / "genesis").data_node is not None


def test_what_is_commented_out_is_the_default(tmp_path: Path) -> None:
    initialise(tmp_path / "as-made")
    as_made = load_config(HomeLayout(tmp_path / "as-made"), environ={}).config
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.toml").write_text('[upgradeFolders]\n"vX.X.X" = "vX.X.X"\n')
    assert load_config(HomeLayout(tmp_path / "bare"), environ={}).config == as_made


def test_nothing_is_ever_overwritten_and_what_is_missing_is_completed(tmp_path: Path) -> None:
    (tmp_path / "genesis").mkdir()
    (tmp_path / "config.yaml").write_text("maxNumberOfRestarts: 9\n")
    (tmp_path / "genesis" / "run-config.toml").write_text("mine")

    report = initialise(tmp_path)

    assert (tmp_path / "config.yaml").read_text() == "maxNumberOfRestarts: 9\n"
    assert not (tmp_path / "config.toml").exists()
    assert (tmp_path / "genesis" / "run-config.toml").read_text() == "mine"
    assert (tmp_path / "vX.X.X" / "run-config.toml").exists()
    assert tmp_path / "genesis" / "run-config.toml" in report.kept
    again = initialise(tmp_path)
    assert not again.created


def test_of_many_that_make_a_home_at_once_each_file_is_made_by_one(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    made: list[Path] = []

    def make(word: str) -> None:
        barrier.wait(20)
        made.extend(path for path in initialise(tmp_path, brand=word).created if path.suffix == ".toml")

    threads = [threading.Thread(target=make, args=(f"brand{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == sorted(tmp_path.rglob("*.toml"))
    assert len(made) == 3


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "config.toml").symlink_to("/nowhere/config.toml")
    report = initialise(tmp_path)
    assert tmp_path / "config.toml" in report.kept
    assert os.readlink(tmp_path / "config.toml") == "/nowhere/config.toml"


def test_a_home_that_cannot_be_made_is_told_with_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/visor")):
        with pytest.raises(HomeUnusable) as raised:
            initialise(root)
        assert raised.value.next_step


def test_a_disk_that_fills_up_leaves_no_half_file_and_a_later_try_completes(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(HomeUnusable, match="File too large"):
            initialise(tmp_path / "home")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]

    initialise(tmp_path / "home")
    load_config(HomeLayout(tmp_path / "home"), environ={})


def test_only_a_word_can_be_a_brand(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no brand"):
        initialise(tmp_path, brand="../Evil")
    assert not list(tmp_path.iterdir())
    assert brand("other").release_key == "OtherReleaseTag"
    assert brand("vega").asset("linux", "x86_64") == "vega-linux-amd64.zip"
    assert brand("vega").asset("darwin", "aarch64") == "vega-darwin-arm64.zip"


def test_loose_modes_are_told_each_with_its_remedy(tmp_path: Path) -> None:
    initialise(tmp_path)
    layout = HomeLayout(tmp_path)
    assert layout.inspect() == ()
    layout.visor_dir.chmod(0o750)
    tmp_path.chmod(0o777)
    (tmp_path / "config.toml").chmod(0o666)
    steps = {finding.path: finding.next_step for finding in layout.prepare_private()}
    assert steps == {
        tmp_path: f"chmod go-w {tmp_path}",
        layout.visor_dir: f"chmod 0700 {layout.visor_dir}",
        tmp_path / "config.toml": f"chmod go-w {tmp_path / 'config.toml'}",
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_a_foreign_owner_is_told(tmp_path: Path) -> None:
    initialise(tmp_path)
    os.chown(tmp_path / ".visor", 12345, -1)
    (finding,) = HomeLayout(tmp_path).inspect()
    assert "12345" in finding.message


def test_preparing_a_home_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HomeUnusable, match="is not a folder"):
        HomeLayout(tmp_path / "nothing").prepare_private()


def test_folders_have_plain_names_only(tmp_path: Path) -> None:
    layout = HomeLayout(tmp_path)
    assert layout.folder("v0.74.10-fix.1") == tmp_path / "v0.74.10-fix.1"
    assert is_folder_name("v0.55.0+dev")
    for name in ("", ".", "..", "a/b", ".visor", "current", "-x", "a\0b", "x" * 200, "config.toml"):
        with pytest.raises(ValueError, match="cannot name"):
            layout.folder(name)


def test_a_long_path_works_up_to_what_sqlite_takes_and_is_told_beyond(tmp_path: Path) -> None:
    def home_of(length: int) -> Path:
        root = tmp_path
        while len(os.fsencode(root)) + 101 < length:
            root = root / ("x" * min(100, length - len(os.fsencode(root)) - 102))
        return root / ("y" * (length - len(os.fsencode(root)) - 1))

    longest = 512 - len("/.visor/journal.db-journal")
    root = home_of(longest)
    assert len(os.fsencode(root)) == longest
    assert initialise(root).findings == ()
    with Journal.open(HomeLayout(root).journal) as journal:
        journal.put("a", 1, durable=True)
    beyond = home_of(longest + 40)
    (finding,) = initialise(beyond).findings
    assert "SQLite" in finding.message


def test_the_schema_accepts_what_init_writes_and_refuses_what_the_reader_refuses(tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(config_schema())
    jsonschema.Draft202012Validator.check_schema(run_config_schema())
    config = jsonschema.Draft202012Validator(config_schema())
    run = jsonschema.Draft202012Validator(run_config_schema())
    initialise(tmp_path, with_data_node=True)
    everything = tomli.loads(uncomment(tmp_path / "config.toml"))
    assert not list(config.iter_errors(everything))
    assert not list(run.iter_errors(tomli.loads(uncomment(tmp_path / "genesis" / "run-config.toml"))))
    assert list(config.iter_errors({"maxNumberOfRestart": 3}))
    assert list(config.iter_errors({"maxNumberOfRestarts": "3"}))
    assert list(config.iter_errors({"logs": {"mode": "nowhere"}}))
    assert list(config.iter_errors({"upgradeFolders": {"v1": "current"}}))
    assert list(run.iter_errors({"vega": {"binary": {}}}))


def test_the_reference_page_is_current() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == reference(), "run: python -m visor_actors.home.reference > docs/configuration.md"
