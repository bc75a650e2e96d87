"""Short commands of a node: bounded in time, output and in what they leave behind."""

from __future__ import annotations

import os
import pwd
import threading
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests.node.scripts import gone, script
from visor_actors.node.command import Cancelled, NotStarted, RanTooLong, Surroundings, run


def wait_until_gone(pid: int) -> None:
    deadline = monotonic() + 20
    while not gone(pid):
        assert monotonic() < deadline, f"process {pid} is left behind"
        sleep(0.005)


def wait_for(path: Path) -> str:
    deadline = monotonic() + 20
    while not path.exists() or not path.read_text().endswith("\n"):
        assert monotonic() < deadline, f"{path} was never written"
        sleep(0.005)
    return path.read_text().strip()


def test_output_and_code_come_back(tmp_path: Path) -> None:
    finished = run([str(script(tmp_path, "echo out; echo err >&2; exit 7"))], timeout=20)
    assert (finished.code, finished.stdout, finished.stderr) == (7, b"out\n", b"err\n")
    assert not finished.truncated
    assert finished.ending == "exit code 7"
    assert finished.said == "err"


def test_a_signal_is_told_by_its_name(tmp_path: Path) -> None:
    finished = run([str(script(tmp_path, "kill -SEGV $$"))], timeout=20)
    assert finished.code == -11
    assert finished.ending == "signal SIGSEGV"


def test_arguments_reach_the_command_untouched(tmp_path: Path) -> None:
    path = script(tmp_path, 'printf "%s|" "$@"')
    finished = run([str(path), "a b", "$HOME", "*", "", "'"], timeout=20)
    assert finished.stdout == b"a b|$HOME|*||'|"


def test_surroundings_are_the_binarys_own(tmp_path: Path) -> None:
    where = tmp_path / "work"
    where.mkdir()
    path = script(tmp_path, 'pwd; echo "$OWN"; echo "$PATH"')
    around = Surroundings(env={"OWN": "yes"}, working_directory=where)
    finished = run([str(path)], timeout=20, surroundings=around)
    assert finished.stdout.decode().splitlines() == [str(where), "yes", os.environ["PATH"]]


def test_visors_own_secrets_are_not_for_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    monkeypatch.setenv("VISOR_FAILPOINTS", "x=kill")
    monkeypatch.setenv("INHERITED", "yes")
    finished = run([str(script(tmp_path, "env"))], timeout=20, surroundings=Surroundings(env={"OWN": "1"}))
    names = {line.partition("=")[0] for line in finished.stdout.decode().splitlines()}
    assert {"INHERITED", "OWN"} <= names
    assert not {"GITHUB_TOKEN", "VISOR_FAILPOINTS"} & names


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_command_runs_as_the_user_of_its_binary() -> None:
    finished = run(["/bin/sh", "-c", "id -un"], timeout=20, surroundings=Surroundings(user="nobody"))
    assert finished.stdout == b"nobody\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_command_finds_the_home_of_its_user_unless_it_is_given_another() -> None:
    nobody = pwd.getpwnam("nobody")
    print_home = ["/bin/sh", "-c", "echo $HOME $USER $LOGNAME"]
    finished = run(print_home, timeout=20, surroundings=Surroundings(user="nobody"))
    assert finished.stdout.decode().split() == [nobody.pw_dir, "nobody", "nobody"]
    given = Surroundings(user="nobody", env={"HOME": "/elsewhere"})
    assert run(print_home, timeout=20, surroundings=given).stdout.startswith(b"/elsewhere nobody")


def test_an_unknown_user_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotStarted, match="no user 'no-such-user'"):
        run([str(script(tmp_path, ""))], timeout=20, surroundings=Surroundings(user="no-such-user"))


def test_the_input_is_empty(tmp_path: Path) -> None:
    assert run([str(script(tmp_path, "cat; echo end"))], timeout=20).stdout == b"end\n"


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("absent", "No such file"),
        ("folder", "Permission denied"),
        ("not executable", "Permission denied"),
        ("no program", "no program of this machine"),
        ("no interpreter", "the interpreter or loader that it names does not exist"),
        ("no working directory", "work does not exist"),
    ],
)
def test_what_cannot_be_started_is_said(tmp_path: Path, kind: str, problem: str) -> None:
    path = tmp_path / "node"
    around = Surroundings()
    match kind:
        case "folder":
            path.mkdir()
        case "not executable":
            path.write_text("#!/bin/sh\n")
        case "no program":
            path.write_bytes(b"\x7fELF garbage")
            path.chmod(0o755)
        case "no interpreter":
            path.write_text("#!/nowhere/sh\n")
            path.chmod(0o755)
        case "no working directory":
            script(tmp_path, "true")
            around = Surroundings(working_directory=tmp_path / "work")
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(NotStarted) as caught:
        run([str(path)], timeout=20, surroundings=around)
    assert problem in caught.value.problem
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_command_that_hangs_is_killed_with_its_helpers(tmp_path: Path) -> None:
    # The leader waits for its helper, and both ignore everything but SIGKILL.
    path = script(tmp_path, f"trap '' TERM INT HUP; sleep 600 & echo $! > {tmp_path}/helper; wait; wait")
    with pytest.raises(RanTooLong) as caught:
        run([str(path)], timeout=0.5)
    assert "0.5 s" in caught.value.problem
    wait_until_gone(int(wait_for(tmp_path / "helper")))


def test_a_command_can_be_cancelled(tmp_path: Path) -> None:
    cancel = threading.Event()
    path = script(tmp_path, f"echo $$ > {tmp_path}/leader; sleep 600")
    outcome: list[BaseException] = []

    def job() -> None:
        try:
            run([str(path)], timeout=600, cancel=cancel)
        except Cancelled as error:
            outcome.append(error)

    thread = threading.Thread(target=job)
    thread.start()
    pid = int(wait_for(tmp_path / "leader"))
    cancel.set()
    thread.join(20)
    assert not thread.is_alive()
    assert len(outcome) == 1
    wait_until_gone(pid)


def test_a_helper_that_keeps_the_output_open_is_not_waited_for(tmp_path: Path) -> None:
    path = script(tmp_path, f"sleep 600 & echo $! > {tmp_path}/helper; echo answer")
    finished = run([str(path)], timeout=600)
    assert finished.code == 0
    assert finished.stdout == b"answer\n"
    wait_until_gone(int(wait_for(tmp_path / "helper")))


def test_a_flood_is_cut_off_and_does_not_block_the_command(tmp_path: Path) -> None:
    path = script(tmp_path, "head -c 5000000 /dev/zero; head -c 5000000 /dev/zero >&2; exit 3")
    finished = run([str(path)], timeout=60, max_output=1000)
    assert finished.code == 3
    assert (len(finished.stdout), len(finished.stderr)) == (1000, 1000)
    assert finished.truncated


def test_outputs_closed_early_do_not_end_the_wait(tmp_path: Path) -> None:
    path = script(tmp_path, f"exec >&- 2>&-; sleep 0.2; echo done > {tmp_path}/done; exit 4")
    assert run([str(path)], timeout=60).code == 4
    assert (tmp_path / "done").exists()


def test_many_at_once_leave_nothing_behind(tmp_path: Path) -> None:
    path = script(tmp_path, "echo $1; exit $1")
    before = set(os.listdir("/proc/self/fd"))
    codes: list[int] = []

    def job(number: int) -> None:
        for _ in range(5):
            finished = run([str(path), str(number)], timeout=60)
            assert finished.stdout == b"%d\n" % number
            codes.append(finished.code)

    threads = [threading.Thread(target=job, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(codes) == sorted([*range(8)] * 5)
    assert set(os.listdir("/proc/self/fd")) == before
