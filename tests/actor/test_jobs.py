"""Jobs that overlap, end late, or cannot begin."""

from __future__ import annotations

import threading

import pytest

from tests.actor.test_messages import asking
from tests.actor.trees import bench, waiting
from visor_actors.actor import Address, CancelToken, Context, JobDone, JobFailed
from visor_actors.testing import FakeClock, Probe

A = Address("a")


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
def test_a_replaced_job_that_ends_while_its_successor_runs_is_not_taken_for_it(fails: bool) -> None:
    probe, old_may_end, new_may_end, old_runs = (
        Probe(),
        threading.Event(),
        threading.Event(),
        threading.Event(),
    )
    threads: list[threading.Thread] = []

    def old(token: CancelToken) -> str:
        threads.append(threading.current_thread())
        old_runs.set()
        waiting(old_may_end)
        if fails:
            raise RuntimeError("old")
        return "old"

    def new(token: CancelToken) -> str:
        waiting(new_may_end)
        return "new"

    with bench(asking("a", probe)) as it:
        it.started("a", 1)
        it.system.tell(A, lambda context: context.run_job(old, key="k"))
        waiting(old_runs)
        it.system.tell(A, lambda context: context.run_job(new, key="k"))
        it.system.tell(A, "replaced")
        assert probe.expect(str) == "replaced"
        old_may_end.set()
        threads[0].join(20)
        it.system.tell(A, "the old one has ended")
        probe.expect(str)
        new_may_end.set()
        assert probe.expect(JobDone) == JobDone("k", "new")
    assert probe.count(JobDone) + probe.count(JobFailed) == 1


def test_a_job_whose_time_is_up_is_told_so_and_what_it_returns_later_is_dropped() -> None:
    clock, probe, running = FakeClock(), Probe(), threading.Event()
    tokens: list[CancelToken] = []

    def work(token: CancelToken) -> str:
        tokens.append(token)
        running.set()
        assert token.wait(20)
        return "too late"

    with bench(asking("a", probe), clock=clock) as it:
        it.started("a", 1)
        it.system.tell(A, lambda context: context.run_job(work, key="k", timeout=5.0))
        waiting(running)
        clock.advance(5.0)
        assert probe.expect(JobFailed).failure.type_name == "JobTimedOut"
        assert tokens[0].cancelled


def test_a_job_whose_thread_cannot_be_started_is_a_failed_job(monkeypatch: pytest.MonkeyPatch) -> None:
    probe, start = Probe(), threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if "/job " in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    def run(context: Context) -> None:
        context.run_job(lambda token: 42, key="k", timeout=20.0)

    with bench(asking("a", probe)) as it:
        it.started("a", 1)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        it.system.tell(A, run)
        failed = probe.expect(JobFailed)
        assert (failed.key, failed.failure.message) == ("k", "can't start new thread")
        monkeypatch.undo()
        it.system.tell(A, run)
        assert probe.expect(JobDone) == JobDone("k", 42)
