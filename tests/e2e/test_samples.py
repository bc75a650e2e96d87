"""Configurations that operators published, under the real ``visor-actors run``: each works as it stands."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.harness import Home, Visor, wait_for
from visor_actors.simulator import (
    SampleHome,
    build_asset_zip,
    build_binary,
    check_chain,
    install_sample,
    sample_folders,
    set_upgrades,
)

ROOT = Path(__file__).parents[2] / "config-samples"
SAMPLES = sample_folders(ROOT)
FLAG = "--snapshot.load-from-block-height"
TAG = "v1.0.0"


@dataclass(kw_only=True)
class PublishedVisor(Visor):
    """``visor --home=X run``: the guides write the option before the command, and in one word."""

    def start(self) -> None:
        self.log = self.home.root.parent / "visor.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "visor_actors", f"--home={self.home.root}", "run"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "VISOR_TESTING": "1"},
                start_new_session=True,
            )


def home_of(installed: SampleHome) -> Home:
    return Home(
        root=installed.visor_home,
        chain=installed.chain,
        brand=installed.brand,
        data_node=installed.data_node is not None,
    )


def sample(name: str) -> Path:
    return next(folder for folder in SAMPLES if folder.name == name)


def events(visor: Visor) -> list[str]:
    return [entry.name for entry in visor.home.history()]


@pytest.mark.parametrize("folder", SAMPLES, ids=lambda path: path.name)
def test_a_published_configuration_runs_as_it_stands(folder: Path, tmp_path: Path) -> None:
    installed = install_sample(folder, tmp_path)
    before = check_chain(installed.chain.home).blocks
    linked = os.readlink(tmp_path / "visor" / "current") if "current" in os.listdir(folder) else "genesis"
    with PublishedVisor(home=home_of(installed)) as visor:
        slots = ("core", "data_node") if installed.data_node else ("core",)
        pids = visor.wait_running(*slots)
        wait_for(lambda: "core.answered" in events(visor), f"an answer of the core\n{visor.tail()}")
        wait_for(lambda: check_chain(installed.chain.home).blocks >= before + 5, "blocks")
        assert visor.wait_running(*slots) == pids, "nothing was restarted"
        visor.process.send_signal(signal.SIGTERM)
        assert visor.process.wait(30) == 0, visor.tail()
        assert visor.leftovers() == []
    assert os.readlink(tmp_path / "visor" / "current") == linked, "a link that somebody made is kept"
    assert check_chain(installed.chain.home).problems == ()
    assert not {"node.failed", "binary.refused", "run-config.invalid"} & set(events(visor))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("setup-data-node", id="a data node as `vega data-node`"),
        pytest.param("upgrade-network", id="core and data node in one home, linked by hand"),
        pytest.param("mainnet-patch-release", id="a snapshot height forgotten in the arguments"),
    ],
)
def test_a_published_configuration_is_upgraded_with_its_run_configuration_copied(
    name: str, tmp_path: Path
) -> None:
    installed = install_sample(sample(name), tmp_path)
    following = installed.visor_home / TAG
    following.mkdir()
    shutil.copy(installed.folder / "run-config.toml", following)
    build_binary(following / installed.brand, version=TAG, brand=installed.brand)
    config = installed.visor_home / "config.toml"
    config.write_text("pollIntervalSeconds = 0.2\n" + config.read_text())
    height = check_chain(installed.chain.home).blocks + 60
    set_upgrades(installed.chain.home, [(TAG, height)])
    with PublishedVisor(home=home_of(installed)) as visor:
        visor.wait_upgraded(TAG)
        wait_for(lambda: check_chain(installed.chain.home).blocks > height + 5, "blocks of the new release")
    report = check_chain(installed.chain.home)
    assert report.problems == (), visor.tail()
    last = [record.argv for record in visor.home.starts() if record.event == "start"][-1]
    assert [word for word in last if word.startswith(FLAG)] == [f"{FLAG}={height}"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("setup-data-node", id="a data node as `vega data-node`"),
        pytest.param("archival-data-node", id="the older shape of autoInstall"),
    ],
)
def test_the_automatic_installation_of_a_published_configuration_works(name: str, tmp_path: Path) -> None:
    installed = install_sample(sample(name), tmp_path)
    build_asset_zip(tmp_path / "releases" / TAG / "vega-linux-amd64.zip", version=TAG, brand=installed.brand)
    # Where the releases lie is the one thing that cannot be as published.
    config = installed.visor_home / "config.toml"
    mirror = f'[autoInstall]\n  source = "{tmp_path}/releases"'
    config.write_text("pollIntervalSeconds = 0.2\n" + config.read_text().replace("[autoInstall]", mirror))
    height = check_chain(installed.chain.home).blocks + 150
    set_upgrades(installed.chain.home, [(TAG, height)])
    with PublishedVisor(home=home_of(installed)) as visor:
        visor.wait_upgraded(TAG)
        wait_for(lambda: check_chain(installed.chain.home).blocks > height + 5, "blocks of the new release")
    assert check_chain(installed.chain.home).problems == (), visor.tail()
    assert "install.done" in events(visor)
    assert os.readlink(installed.visor_home / "current") == TAG
