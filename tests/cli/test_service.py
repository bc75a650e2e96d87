from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.cli.running import Runner
from visor_actors.cli.unit_text import unit_text
from visor_actors.home.layout import HomeLayout


def install(run: Runner, layout: HomeLayout, folder: Path, *more: str) -> int:
    return run("--home", layout.root, "service", "install", "--directory", folder, *more).code


def test_the_unit_is_written_readable_for_systemd(run: Runner, layout: HomeLayout, tmp_path: Path) -> None:
    ran = run("--home", layout.root, "service", "install", "--directory", tmp_path, "--user", "visor")
    unit = tmp_path / "visor-actors.service"
    assert ran.code == 0
    assert "systemctl daemon-reload" in ran.out
    assert stat.S_IMODE(unit.stat().st_mode) == 0o644
    assert "User=visor\n" in unit.read_text()
    assert [path.name for path in tmp_path.glob("*service*")] == ["visor-actors.service"]


def test_a_unit_that_says_something_else_is_replaced_only_by_force(
    run: Runner, layout: HomeLayout, tmp_path: Path
) -> None:
    unit = tmp_path / "visor-actors.service"
    unit.write_text("[Service]\n# changed by hand\n")
    assert install(run, layout, tmp_path) == 1
    assert "by hand" in unit.read_text()
    assert install(run, layout, tmp_path, "--force") == 0
    assert "by hand" not in unit.read_text()
    assert install(run, layout, tmp_path) == 0


def test_it_never_takes_the_node_with_it() -> None:
    text = unit_text(home=Path("/srv/visor"), user="visor", executable=Path("/bin/visor"), stop_seconds=30)
    for line in ("KillMode=process", "Delegate=yes", "OOMPolicy=continue", "PrivateTmp=no", "Type=notify"):
        assert f"\n{line}\n" in text
    assert "\nTimeoutStopSec=75\n" in text


def test_a_visor_that_hangs_is_started_again() -> None:
    text = unit_text(home=Path("/srv/visor"), user="visor", executable=Path("/bin/visor"), stop_seconds=30)
    assert "\nWatchdogSec=60\n" in text
    assert "\nRestart=on-failure\n" in text


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/srv/visor", "--home /srv/visor"),
        ("/srv/my visor", '--home "/srv/my visor"'),
        ("/srv/100%/$x", "--home /srv/100%%/$$x"),
        ('/srv/a"b\\c', '--home "/srv/a\\"b\\\\c"'),
    ],
)
def test_any_path_is_written_as_systemd_reads_it(path: str, written: str) -> None:
    text = unit_text(home=Path(path), user="visor", executable=Path("/bin/visor"), stop_seconds=30)
    assert f"ExecStart=/bin/visor run {written}\n" in text


def test_root_keeps_the_rights_to_start_binaries_as_other_users() -> None:
    def text(user: str) -> str:
        return unit_text(home=Path("/h"), user=user, executable=Path("/v"), stop_seconds=1)

    assert "CapabilityBoundingSet" not in text("root")
    assert "CapabilityBoundingSet=\n" in text("visor")


def test_a_home_that_does_not_exist_gets_no_unit(run: Runner, tmp_path: Path) -> None:
    ran = run("--home", tmp_path / "absent", "service", "print")
    assert ran.code == 1
    assert "visor-actors init" in ran.err
