"""The job is a process: limited, killable, ended by its owner's death, and never a danger to what is
installed.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import select
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.install.conftest import ASSET, TAG, Bench
from visor_actors.install.check import check_folder
from visor_actors.install.launch import InstallJob, launch_job
from visor_actors.install.messages import (
    FailureKind,
    Installed,
    InstallFailed,
    JobMessage,
    NotAMessage,
    Note,
    Phase,
    Progress,
    Proof,
    Verification,
    decode,
    encode,
)
from visor_actors.install.order import InstallOrder, Limits, OrderInvalid
from visor_actors.simulator import release_faults as faults
from visor_actors.simulator.release_faults import At
from visor_actors.testing.probe import PATIENCE

ROOT = Path(__file__).resolve().parents[2]

Order = Callable[..., InstallOrder]


def outcome_of(job: InstallJob) -> Installed | InstallFailed:
    """Wait for the end of a job, as ``prepare`` does."""
    for _ in job.messages():
        pass
    assert job.outcome is not None
    return job.outcome


def wait_for(job: InstallJob, matching: Callable[[JobMessage], bool]) -> None:
    """Receive until a message matches."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        job.wait(timeout=1.0)
        if any(matching(message) for message in job.receive()):
            return
    raise AssertionError("the message did not come")


def downloading(message: JobMessage) -> bool:
    return isinstance(message, Progress) and message.phase is Phase.DOWNLOADING


def failure(order: InstallOrder) -> InstallFailed:
    with launch_job(order) as job:
        outcome = outcome_of(job)
    assert isinstance(outcome, InstallFailed)
    assert not order.destination.exists()
    return outcome


def test_a_job_installs_a_release(bench: Bench) -> None:
    with launch_job(bench.order) as job:
        outcome = outcome_of(job)
        assert job.receive() == ()
    assert isinstance(outcome, Installed)
    assert outcome.verification.proofs == (Proof.DIGEST,)
    assert job.exit_code in (0, -signal.SIGKILL)  # it may be killed once it has told its outcome


def test_the_token_is_in_no_argument_and_no_environment(
    bench: Bench, make_order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghp-secret")
    bench.server.token = "ghp-secret"
    bench.server.inject(faults.Stall(at=At.CONTENT, after=10))
    with launch_job(make_order(token="ghp-secret")) as job:
        wait_for(job, downloading)
        for name in ("cmdline", "environ"):
            assert b"ghp-secret" not in Path(f"/proc/{job.pid}/{name}").read_bytes()
    assert "ghp-secret" not in repr(bench.order) + repr(make_order(token="ghp-secret"))


def test_an_owner_that_only_watches_two_descriptors_gets_everything(bench: Bench) -> None:
    with launch_job(bench.order) as job:
        received: list[JobMessage] = []
        deadline = time.monotonic() + PATIENCE
        while job.outcome is None and time.monotonic() < deadline:
            select.select([job.stdout_fd, job.pidfd], [], [], 1.0)
            received += job.receive()
    assert received[-1] is job.outcome
    assert isinstance(job.outcome, Installed)


def test_a_cancelled_job_is_gone_and_says_so(bench: Bench) -> None:
    bench.server.inject(faults.Stall(at=At.CONTENT, after=10_000))
    with launch_job(bench.order) as job:
        wait_for(job, downloading)
        job.cancel()
        outcome = outcome_of(job)
        assert not Path(f"/proc/{job.pid}").exists()
    assert isinstance(outcome, InstallFailed)
    assert outcome.kind is FailureKind.CANCELLED
    bench.server.clear_faults()
    assert bench.run().bytes  # and staging is free


def test_a_job_past_its_time_is_ended(bench: Bench, make_order: Order) -> None:
    bench.server.inject(faults.Stall(at=At.CONTENT, after=10_000, times=None))
    outcome = failure(make_order(limits=Limits(deadline_seconds=1.0)))
    assert (outcome.kind, outcome.transient) == (FailureKind.DEADLINE, True)


def test_a_killed_job_is_an_event_and_the_next_one_resumes(bench: Bench) -> None:
    bench.server.inject(faults.Stall(at=At.CONTENT, after=10_000))
    part = bench.staging / "download.part"
    with launch_job(bench.order) as job:
        deadline = time.monotonic() + PATIENCE
        while not (part.exists() and part.stat().st_size == 10_000) and time.monotonic() < deadline:
            job.wait(timeout=0.01)
            job.receive()
        os.kill(job.pid, signal.SIGKILL)
        outcome = outcome_of(job)
    assert isinstance(outcome, InstallFailed)
    assert (outcome.kind, outcome.transient) == (FailureKind.KILLED, True)
    assert bench.run().bytes
    assert bench.server.seen("store")[-1].headers["range"] == "bytes=10000-"


def test_a_hanging_version_command_ends_with_its_job(bench: Bench, make_order: Order, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    script = f"#!/bin/sh\necho $$ > {mark}.new; mv {mark}.new {mark}; exec sleep 600\n".encode()
    bench.server.add_release("v5", {ASSET: script})
    with launch_job(make_order(tag="v5", folder_name="v5")) as job:
        deadline = time.monotonic() + PATIENCE
        while not mark.exists() and time.monotonic() < deadline:
            job.wait(timeout=0.05)
            job.receive()
        pid = int(mark.read_text())
        assert Path(f"/proc/{pid}").exists()
        job.cancel()
    deadline = time.monotonic() + PATIENCE
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_job_that_needs_too_much_memory_fails_and_says_so(bench: Bench, make_order: Order) -> None:
    """An extended header of a gigabyte, in a few kilobytes of gzip: the parser wants it whole."""
    header = tarfile.TarInfo("PaxHeaders/fury")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as packed:
        packed.write(header.tobuf())
        for _ in range(800):
            packed.write(bytes(1 << 20))
    bench.server.add_release("v5", {ASSET: buffer.getvalue()})
    outcome = failure(make_order(tag="v5", folder_name="v5", limits=Limits(memory_mib=500)))
    assert (outcome.kind, outcome.transient) == (FailureKind.LIMIT_REACHED, False)


def test_a_job_that_uses_too_much_cpu_is_ended_by_the_kernel(bench: Bench, make_order: Order) -> None:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as packed:
        member = tarfile.TarInfo("fury")
        member.size = 3000 << 20
        packed.write(member.tobuf())
        packed.write(bytes(400 << 20))
    bench.server.add_release("v5", {ASSET: buffer.getvalue()})
    outcome = failure(make_order(tag="v5", folder_name="v5", limits=Limits(cpu_seconds=1)))
    assert outcome.kind in (FailureKind.LIMIT_REACHED, FailureKind.ARCHIVE_REFUSED)


def test_a_file_past_its_limit_is_not_written(bench: Bench, make_order: Order) -> None:
    bench.server.add_release("v5", {ASSET: gzip.compress(b"\x7fELF" + bytes(9 << 20), compresslevel=1)})
    limits = Limits(unpacked_mib=4)
    outcome = failure(make_order(tag="v5", folder_name="v5", limits=limits, max_size_mib=2))
    assert outcome.kind in (FailureKind.ARCHIVE_REFUSED, FailureKind.TOO_LARGE)


def test_two_jobs_for_one_release_do_not_meet(bench: Bench) -> None:
    bench.server.inject(faults.Stall(at=At.CONTENT, after=10_000))
    with launch_job(bench.order) as first, launch_job(bench.order) as second:
        kinds: list[FailureKind] = []
        wait_for(first, downloading) if first.receive() else None
        both = (first, second)
        deadline = time.monotonic() + PATIENCE
        while not kinds and time.monotonic() < deadline:
            for job in both:
                job.wait(timeout=0.05)
                job.receive()
                if isinstance(job.outcome, InstallFailed):
                    kinds.append(job.outcome.kind)
                    assert "by visor (process" in job.outcome.message
    assert kinds == [FailureKind.BUSY]


def test_the_death_of_the_owner_is_the_end_of_the_job(bench: Bench) -> None:
    bench.server.inject(faults.Stall(at=At.CONTENT, after=10_000))
    owner = Owner(bench.order)
    job = owner.wait_for_job()
    deadline = time.monotonic() + PATIENCE
    while not bench.server.seen("store") and time.monotonic() < deadline:
        time.sleep(0.01)  # from here on the job says nothing, so that only its input can tell it
    owner.kill()
    deadline = time.monotonic() + PATIENCE
    while _alive(job) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _alive(job)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.STARTING])
def test_a_job_killed_in_any_phase_leaves_nothing_or_everything(bench: Bench, phase: Phase) -> None:
    with launch_job(bench.order) as job:
        wait_for(job, lambda message: isinstance(message, Progress) and message.phase is phase)
        os.kill(job.pid, signal.SIGKILL)
        outcome_of(job)
    assert not bench.order.destination.exists() or check_folder(bench.order.destination, tag=TAG).ready
    assert bench.run().folder == bench.order.destination


def test_a_folder_is_complete_from_the_moment_it_is_there(bench: Bench, make_order: Order) -> None:
    """With a binary so large that nothing but a rename could be done before the kill."""
    binary = b'#!/bin/sh\necho \'{"version":"v4","hash":""}\'\nexit 0\n' + bytes(48 << 20)
    bench.server.add_release("v4", {ASSET: gzip.compress(binary, compresslevel=1)})
    order = make_order(tag="v4", folder_name="v4")
    with launch_job(order) as job:
        deadline = time.monotonic() + PATIENCE
        while not order.destination.exists() and time.monotonic() < deadline:
            pass  # no pause: the moment itself is what matters
        os.kill(job.pid, signal.SIGKILL)
        outcome_of(job)
    assert (order.destination / "fury").stat().st_size == len(binary)
    assert check_folder(order.destination, tag="v4").ready


class Owner:
    """``tests.install.owner`` as a process."""

    def __init__(self, order: InstallOrder) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.install.owner"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(order.to_line())
        self.process.stdin.close()
        self._out = self.process.stdout

    def wait_for_job(self) -> int:
        return int(self._out.readline().split()[1])

    def kill(self) -> None:
        self.process.kill()
        self.finish()

    def finish(self) -> None:
        self._out.read()
        self._out.close()
        self.process.wait()


@pytest.mark.parametrize(
    "rounds",
    [10, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(600)])],
    ids=["short", "soak"],
)
def test_kill_9_at_random_moments_leaves_the_folder_absent_or_complete(
    bench: Bench, make_order: Order, rounds: int, request: pytest.FixtureRequest
) -> None:
    if rounds > 10 and not request.config.getoption("-m"):
        pytest.skip("a soak; run it with -m soak")
    rng = random.Random(rounds)
    bench.server.inject(faults.Drip(at=At.CONTENT, size=16_000, pause=0.01))
    complete = killed = 0
    for number in range(rounds):
        order = make_order(folder_name=f"f{number}")
        destination = order.destination
        for _ in range(8):
            owner = Owner(order)
            job = owner.wait_for_job()
            ended = threading.Event()
            victim = rng.choice(["owner", "job", "both", "nobody"])
            if victim != "nobody":
                ended.wait(rng.random() * 0.6)
                for name, pid in (("owner", owner.process.pid), ("job", job)):
                    if victim in (name, "both"):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                killed += 1
            owner.finish()
            if destination.exists():
                break
        if destination.exists():
            complete += 1
            assert check_folder(destination, tag=TAG).ready
    for number in range(rounds):
        path = bench.home / f"f{number}"
        assert not path.exists() or check_folder(path, tag=TAG).ready
    assert complete
    assert killed
    print(f"{rounds} rounds: {complete} complete, {killed} kills")


# What crosses the pipe

texts = st.text(max_size=30)
messages = st.one_of(
    st.builds(
        Progress,
        phase=st.sampled_from(Phase),
        done=st.integers(0),
        total=st.one_of(st.none(), st.integers(0)),
        rate=st.floats(0, 1e12),
    ),
    st.builds(Note, name=texts, message=texts, loud=st.booleans()),
    st.builds(
        Installed,
        folder=texts.map(Path),
        verification=st.builds(
            Verification,
            proofs=st.lists(st.sampled_from(Proof)).map(tuple),
            details=texts,
            sha256=st.one_of(st.none(), texts),
        ),
        bytes=st.integers(0),
    ),
    st.builds(
        InstallFailed,
        kind=st.sampled_from(FailureKind),
        message=texts,
        next_step=texts,
        transient=st.booleans(),
        retry_after=st.one_of(st.none(), st.floats(0, 1e6)),
    ),
)


@given(messages)
def test_messages_arrive_as_they_were_sent(message: JobMessage) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode(line) == message


@given(st.one_of(st.binary(), st.sampled_from([b"{}", b"[]", b'{"type": "note"}', b'{"type": []}', b"null"])))
def test_what_is_no_message_is_said_to_be_none(line: bytes) -> None:
    with pytest.raises(NotAMessage):
        decode(line)


def test_orders_arrive_as_they_were_sent(make_order: Order) -> None:
    order = make_order(
        token="t", pinned={f"{TAG}/{ASSET}": "sha256:00"}, limits=Limits(attempts=1), source_folder=None
    )
    assert InstallOrder.from_line(order.to_line()) == order


@pytest.mark.parametrize("line", [b"", b"{}", b"[]\n", b'{"protocol": 999}\n', b'{"protocol": 1}\n', b"\xff"])
def test_orders_of_another_kind_are_refused(line: bytes) -> None:
    with pytest.raises(OrderInvalid):
        InstallOrder.from_line(line)


@pytest.mark.parametrize(
    "changes",
    [
        {"folder_name": "../x"},
        {"folder_name": "current"},
        {"folder_name": ".visor"},
        {"folder_name": "a/b"},
        {"tag": ""},
        {"brand": "x y"},
    ],
)
def test_orders_that_could_do_harm_are_refused(make_order: Order, changes: dict[str, object]) -> None:
    with pytest.raises(OrderInvalid):
        make_order(**changes)


def test_main_pays_nothing_for_the_installer_s_libraries() -> None:
    code = (
        "import sys, visor_actors.install.launch, visor_actors.install.check, visor_actors.install.ordering;"
        "heavy = {'requests', 'urllib3', 'cryptography', 'tomlkit', 'zipfile', 'tarfile', 'zstandard'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
