"""The rehearsal: what is wrong is found, each finding has its fix, and there is one verdict."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.api.fake_visor import FakeVisor
from tests.cli.running import Runner, golden, masked
from tests.cli.test_output import conforms
from visor_actors.cli.reference import documents
from visor_actors.home.layout import HomeLayout
from visor_actors.simulator.release import build_asset_zip, build_binary
from visor_actors.simulator.release_server import ReleaseServer

RUN_CONFIG = """
name = "{name}"
[fury.binary]
path = "fury"
args = ["start", "--home", "{home}"{more}]
[fury.rpc]
socketPath = "{home}/fury.sock"
"""


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_binary(tmp_path_factory.mktemp("binary") / "fury", version="v1.0.0")


@pytest.fixture
def ready(layout: HomeLayout, binary: Path, monkeypatch: pytest.MonkeyPatch) -> HomeLayout:
    """A home with which nothing is wrong, on a machine of which the same is said."""
    monkeypatch.setattr("visor_actors.cli.checks.machine.UNIT_FOLDERS", ())
    monkeypatch.setattr("visor_actors.cli.checks.machine._check_clock", _clock_is_fine)
    monkeypatch.setattr("visor_actors.cli.checks.machine._FEW_FILES", 1)
    node = layout.root.parent / "node"
    node.mkdir()
    configure(layout, "genesis")
    os.link(binary, layout.genesis / "fury")
    layout.current.symlink_to("genesis")
    return layout


def _clock_is_fine() -> object:
    from visor_actors.cli.checks.finding import ok

    return ok("clock", "in step")


def configure(layout: HomeLayout, folder: str, more: str = "") -> None:
    (layout.root / folder).mkdir(exist_ok=True)
    text = RUN_CONFIG.format(name=folder, home=layout.root.parent / "node", more=more)
    (layout.root / folder / "run-config.toml").write_text(text)


@dataclass(frozen=True, slots=True)
class Checked:
    code: int
    problems: dict[str, str]
    notes: dict[str, str]
    messages: str


def check(run: Runner, layout: HomeLayout, *arguments: str) -> Checked:
    offline = () if "--online" in arguments else ("--offline",)
    given = [argument for argument in arguments if argument != "--online"]
    ran = run("--home", layout.root, "check", *offline, *given, "--output", "json")
    document = json.loads(ran.out)
    conforms(documents()["check"], document, "check")
    for finding in document["findings"]:
        assert finding["level"] == "ok" or finding["fix"], finding
    assert document["ready"] == (ran.code == 0)

    def of(level: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for one in document["findings"]:
            if one["level"] == level:
                found[one["subject"]] = found.get(one["subject"], "") + one["message"] + "\n"
        return found

    every = "\n".join(one["message"] for one in document["findings"])
    return Checked(ran.code, of("problem"), of("note"), every)


def test_a_home_with_which_nothing_is_wrong_is_ready(run: Runner, ready: HomeLayout) -> None:
    ran = run("--home", ready.root, "check", "--offline")
    assert ran.code == 0
    golden("human/check.txt", masked(ran.out, ready.root))


def test_a_home_that_is_not_there(run: Runner, tmp_path: Path) -> None:
    ran = run("--home", tmp_path / "absent", "check", "--offline")
    assert ran.code == 1
    assert "visor-actors init" in ran.out
    assert "NOT READY for a start: 1 problem to put right" in ran.out


def test_loose_permissions(run: Runner, ready: HomeLayout) -> None:
    ready.config_file.chmod(0o666)
    assert "config.toml" in check(run, ready).problems["home"]


def test_a_wrong_configuration(run: Runner, ready: HomeLayout) -> None:
    ready.config_file.write_text("maxNumberOfRestart = 3\n")
    checked = check(run, ready)
    assert checked.code == 1
    assert "maxNumberOfRestarts" in checked.problems["configuration"]


@pytest.mark.parametrize("target", ["absent", "/usr"])
def test_a_link_that_leads_nowhere_or_outside(run: Runner, ready: HomeLayout, target: str) -> None:
    ready.current.unlink()
    ready.current.symlink_to(target)
    assert target in check(run, ready).problems["current"]


def test_a_folder_in_place_of_the_link(run: Runner, ready: HomeLayout) -> None:
    ready.current.unlink()
    ready.current.mkdir()
    assert "no link" in check(run, ready).problems["current"]


def test_a_binary_that_is_missing(run: Runner, ready: HomeLayout) -> None:
    (ready.genesis / "fury").unlink()
    assert "there is no" in check(run, ready).problems["genesis"]


def test_a_binary_for_another_machine(run: Runner, ready: HomeLayout) -> None:
    (ready.genesis / "fury").unlink()
    (ready.genesis / "fury").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xf3\x00" + bytes(44))
    (ready.genesis / "fury").chmod(0o755)
    assert "riscv64" in check(run, ready).problems["genesis"]


def test_what_is_wrong_in_a_folder_that_does_not_run_is_only_a_note(run: Runner, ready: HomeLayout) -> None:
    configure(ready, "v0.9.0")
    checked = check(run, ready)
    assert checked.code == 0
    assert "there is no" in checked.notes["v0.9.0"]


def test_a_flag_without_its_value(run: Runner, ready: HomeLayout) -> None:
    configure(ready, "genesis", ', "--snapshot.load-from-block-height"')
    assert "--snapshot.load-from-block-height" in check(run, ready).problems["genesis"]


def test_a_snapshot_height_that_stayed_in_the_arguments(run: Runner, ready: HomeLayout) -> None:
    configure(ready, "genesis", ', "--snapshot.load-from-block-height=7"')
    assert "deletes later snapshots" in check(run, ready).notes["genesis"]


def test_a_node_without_its_home_and_its_sockets_folder(run: Runner, ready: HomeLayout) -> None:
    (ready.root.parent / "node").rmdir()
    problem = check(run, ready).problems["genesis"]
    assert "is no folder" in problem
    assert "does not exist" in problem


def test_a_journal_that_cannot_be_read(run: Runner, ready: HomeLayout) -> None:
    ready.journal.write_text("no database " * 500)
    assert "journal.db" in check(run, ready).problems["journal"]


def test_an_alarm_of_the_running_visor(run: Runner, ready: HomeLayout, served: FakeVisor) -> None:
    assert "v0.76.0 <is> missing" in check(run, ready).problems["visor"]


def test_a_disk_that_is_full(run: Runner, ready: HomeLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visor_actors.cli.checks.machine.MIB", 1 << 60)
    assert "0 MiB are free" in check(run, ready).problems["disk"]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("", "KillMode=process"),
        ("KillMode=process", "OOMPolicy=continue"),
        ("KillMode=process\nOOMPolicy=continue\nPrivateTmp=true", "PrivateTmp"),
    ],
)
def test_a_service_unit_that_would_harm_the_node(
    run: Runner, ready: HomeLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, wanted: str
) -> None:
    monkeypatch.setattr("visor_actors.cli.checks.machine.UNIT_FOLDERS", (tmp_path,))
    assert "no systemd unit" in check(run, ready).notes["service"]
    unit = f"[Service]\nExecStart=/usr/bin/visor-actors run --home {ready.root}\n{line}\n"
    (tmp_path / "node.service").write_text(unit)
    assert wanted in check(run, ready).problems["service"]


def test_our_own_unit_passes(
    run: Runner, ready: HomeLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visor_actors.cli.checks.machine.UNIT_FOLDERS", (tmp_path,))
    assert run("--home", ready.root, "service", "install", "--directory", tmp_path).code == 0
    checked = check(run, ready)
    assert checked.code == 0
    assert "set up as it should be" in checked.messages


# rehearsals of an upgrade


def from_folder(layout: HomeLayout, folder: Path, more: str = "") -> None:
    text = f'[autoInstall]\nenabled = true\nverify = "off"\nsource = "{folder}"\n{more}'
    layout.config_file.write_text(text)


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    build_asset_zip(tmp_path / "releases" / "v2.0.0" / "asset.zip", version="v2.0.0")
    return tmp_path / "releases"


ASSET = '[autoInstall.asset]\nname = "asset.zip"\nbinaryName = "fury"\n'


def test_an_upgrade_is_rehearsed_up_to_the_switch(run: Runner, ready: HomeLayout, releases: Path) -> None:
    from_folder(ready, releases, ASSET)
    ran = run("--home", ready.root, "check", "--upgrade", "v2.0.0")
    assert ran.code == 0, ran.out
    assert "would start:" in ran.out
    assert "--snapshot.load-from-block-height=HEIGHT" in ran.out
    assert "everything up to the switch has been rehearsed" in ran.out
    assert "READY for the upgrade to v2.0.0" in ran.out
    assert (ready.root / "v2.0.0" / "fury").exists()
    assert os.readlink(ready.current) == "genesis"


def test_offline_nothing_is_fetched(run: Runner, ready: HomeLayout, releases: Path) -> None:
    from_folder(ready, releases, ASSET)
    checked = check(run, ready, "--upgrade", "v2.0.0")
    assert "has not been fetched" in checked.notes["upgrade v2.0.0"]
    assert not (ready.root / "v2.0.0").exists()


def test_a_release_that_does_not_exist(run: Runner, ready: HomeLayout, releases: Path) -> None:
    from_folder(ready, releases, ASSET)
    checked = check(run, ready, "--online", "--upgrade", "v3.0.0")
    assert checked.code == 1
    assert "could not be prepared" in checked.problems["upgrade v3.0.0"]


def test_a_folder_with_another_version_than_its_name(run: Runner, ready: HomeLayout, binary: Path) -> None:
    configure(ready, "v2.0.0")
    os.link(binary, ready.root / "v2.0.0" / "fury")
    checked = check(run, ready, "--upgrade", "v2.0.0")
    assert "v1.0.0" in checked.problems["v2.0.0"]


def test_without_automatic_installation_the_folder_must_be_there(run: Runner, ready: HomeLayout) -> None:
    ready.config_file.write_text("[autoInstall]\nenabled = false\n")
    assert "there is no folder" in check(run, ready, "--upgrade", "v2.0.0").problems["upgrade v2.0.0"]


def test_what_runs_already_is_no_upgrade(run: Runner, ready: HomeLayout) -> None:
    ready.config_file.write_text('[upgradeFolders]\n"v1.0.0" = "genesis"\n')
    assert "runs already" in check(run, ready, "--upgrade", "v1.0.0").notes["upgrade v1.0.0"]


def test_prepare_without_a_visor_fetches_by_itself(run: Runner, ready: HomeLayout, releases: Path) -> None:
    from_folder(ready, releases, ASSET)
    ran = run("--home", ready.root, "prepare", "v2.0.0", "--output", "json")
    document = json.loads(ran.out)
    conforms(documents()["prepare"], document, "prepare")
    assert (document["folder"], document["by"]) == ("v2.0.0", "command")
    assert (ready.root / "v2.0.0" / "fury").exists()
    again = run("--home", ready.root, "prepare", "v2.0.0")
    assert (again.code, "was there already" in again.out) == (0, True)


# where releases come from


@pytest.fixture
def server() -> Iterator[ReleaseServer]:
    with ReleaseServer() as server:
        yield server


def from_server(layout: HomeLayout, server: ReleaseServer, more: str = "") -> None:
    layout.config_file.write_text(
        f"""[autoInstall]
enabled = true
apiUrl = "{server.api_url}"
repositoryOwner = "simulated"
repository = "node"
{more}"""
    )


def test_a_server_that_answers(run: Runner, ready: HomeLayout, server: ReleaseServer) -> None:
    server.add_release("v2.0.0", {"asset.zip": b"x"})
    from_server(ready, server)
    checked = check(run, ready, "--online")
    assert checked.code == 0
    assert "simulated/node can be reached without a token" in checked.messages


def test_a_private_repository_needs_its_token(
    run: Runner, ready: HomeLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ReleaseServer(token="s3cret-token") as server:
        from_server(ready, server)
        assert "simulated/node" in check(run, ready, "--online").problems["releases"]
        monkeypatch.setenv("GITHUB_TOKEN", "s3cret-token")
        assert "can be reached with a token" in check(run, ready, "--online").messages
        monkeypatch.delenv("GITHUB_TOKEN")
        (tmp_path / "token").write_text("s3cret-token\n")
        from_server(ready, server, f'tokenFile = "{tmp_path / "token"}"')
        checked = check(run, ready, "--online")
        assert "can be reached with a token" in checked.messages
        assert "s3cret" not in checked.messages


def test_a_token_file_that_is_missing(run: Runner, ready: HomeLayout, server: ReleaseServer) -> None:
    from_server(ready, server, 'tokenFile = "absent"')
    assert "tokenFile" in check(run, ready, "--online").problems["releases"]


def test_a_server_that_is_down(run: Runner, ready: HomeLayout, server: ReleaseServer) -> None:
    from_server(ready, server)
    server.__exit__(None, None, None)
    assert "simulated/node" in check(run, ready, "--online").problems["releases"]
