"""The fault kit itself: what tests of the project rely on must not lie."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import threading

import pytest

from visor_actors.actor import Actor, Address, JobDone, JobFailed, Request, Token
from visor_actors.testing import (
    FakeClock,
    Probe,
    ProbeTimedOut,
    RecordingContext,
    Script,
    StartedTwice,
    find_leaks,
    take_inventory,
)

# --- the clock


def test_a_fake_clock_moves_only_when_told_and_never_back() -> None:
    clock = FakeClock(5.0)
    assert (clock.now(), clock.advance(2.5), clock.now()) == (5.0, 7.5, 7.5)
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1.0)


def test_a_fake_clock_wakes_its_subscribers_until_they_leave() -> None:
    clock, woken = FakeClock(), Probe()
    leave = clock.subscribe(lambda: woken.record("woken"))
    clock.advance(1.0)
    leave()
    clock.advance(1.0)
    assert woken.count(str) == 1


def test_nobody_waits_for_a_fake_clock_in_real_time() -> None:
    clock = FakeClock(5.0)
    assert clock.patience(5.0) == 0.0
    assert clock.patience(6.0) is None


# --- the probe


def test_a_probe_waits_for_what_another_thread_records() -> None:
    probe = Probe()
    thread = threading.Timer(0.01, probe, args=("late",))
    thread.start()
    assert probe.expect(str) == "late"
    thread.join()


def test_a_probe_returns_each_item_once_and_finds_the_one_that_matches() -> None:
    probe = Probe()
    for item in (1, "a", 2, 3):
        probe.record(item)
    assert probe.expect(int, lambda item: item > 1) == 2
    assert [probe.expect(int), probe.expect(int)] == [1, 3]
    assert probe.all(int) == [1, 2, 3]


def test_a_probe_that_waited_in_vain_says_what_did_happen() -> None:
    probe = Probe()
    probe.record("something else")
    with pytest.raises(ProbeTimedOut, match="something else"):
        probe.expect(int, timeout=0.01)


# --- the tripwire


def test_the_tripwire_finds_two_incarnations_at_once_unless_the_first_was_given_up() -> None:
    script = Script("a")
    first, second, third = (RecordingContext("a", generation=number) for number in (1, 2, 3))
    actor = script.factory(first)
    with pytest.raises(StartedTwice, match="generation 2 started while 1 was alive"):
        script.factory(second)
    assert script.tripped is not None
    first.is_fenced = True
    script.factory(second)
    second.is_fenced = True
    actor.terminate()
    script.factory(third)


# --- leaks


def test_a_leaked_thread_is_found_and_named() -> None:
    before, over = take_inventory(), threading.Event()
    thread = threading.Thread(target=over.wait, name="forgotten")
    thread.start()
    assert find_leaks(before, settle=0.01).threads == ("thread 'forgotten'",)
    over.set()
    thread.join()
    assert not find_leaks(before)


def test_a_leaked_descriptor_is_found_with_what_it_refers_to() -> None:
    before = take_inventory()
    fd = os.open(os.devnull, os.O_RDONLY)
    assert f"file descriptor {fd} (/dev/null)" in find_leaks(before, settle=0.01).descriptors
    os.close(fd)
    assert not find_leaks(before)


def test_a_leaked_socket_is_found() -> None:
    before = take_inventory()
    leaked = socket.socket(socket.AF_UNIX)
    assert "socket:" in str(find_leaks(before, settle=0.01))
    leaked.close()
    assert not find_leaks(before)


def test_a_leaked_child_is_found_running_or_zombie() -> None:
    before = take_inventory()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert f"child process {child.pid}" in str(find_leaks(before, settle=0.01))
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert f"child process {child.pid} (zombie" in str(find_leaks(before, settle=0.01))
    child.wait()
    assert not find_leaks(before)


def test_what_goes_by_itself_within_the_settling_time_is_no_leak() -> None:
    before = take_inventory()
    threading.Timer(0.05, lambda: None).start()
    assert not find_leaks(before)


# --- the context without threads


class Greeter(Actor):
    def handle(self, message: object) -> None:
        if isinstance(message, Request):
            self.context.reply(message, "hello")
        else:
            self.context.tell(Address("world"), message)
            self.context.after(3.0, "again", key="timer")
            self.context.watch(7, "readable")
            self.context.run_job(lambda token: 40 + 2, key="sum")
            self.context.run_job(lambda token: 1 // 0, key="bad", timeout=1.0)
            self.context.request(Address("oracle"), "question", timeout=2.0)


def test_a_recording_context_shows_what_an_actor_did() -> None:
    context = RecordingContext("greeter")
    actor = Greeter(context)
    actor.handle("hi")
    assert context.messages_to("world") == ["hi"]
    assert context.timers == {"timer": (3.0, "again")}
    assert context.fire("timer") == "again"
    assert context.watched == {7: "readable"}
    assert context.finish_job("sum") == JobDone("sum", 42)
    failed = context.finish_job("bad")
    assert isinstance(failed, JobFailed)
    assert failed.failure.type_name == "ZeroDivisionError"
    assert list(context.requests.values()) == [(Address("oracle"), "question", 2.0)]
    request = Request("?", Token(), None, 0.0, _Nowhere())
    actor.handle(request)
    assert context.replies == [(request, "hello")]


def test_a_recording_context_that_is_fenced_does_as_little_as_a_real_one() -> None:
    context = RecordingContext("greeter")
    actor = Greeter(context)
    context.run_job(lambda token: None, key="kept")
    context.is_fenced = True
    actor.handle("hi")
    actor.handle(Request("?", Token(), None, 0.0, _Nowhere()))
    context.cancel_job("kept")
    context.stop()
    assert (context.told, context.timers, context.watched) == ([], {}, {})
    assert (context.requests, context.replies, list(context.jobs)) == ({}, [], ["kept"])
    assert not context.stopped


@pytest.mark.parametrize("timeout", [0.0, -1.0, math.inf, math.nan])
def test_a_recording_context_refuses_the_timeouts_that_the_real_one_refuses(timeout: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        RecordingContext().request(Address("oracle"), "question", timeout=timeout)


def test_whatever_a_recorded_job_raises_is_a_failed_job() -> None:
    context = RecordingContext()
    context.run_job(lambda token: sys.exit("job"), key="k")
    failed = context.finish_job("k")
    assert isinstance(failed, JobFailed)
    assert failed.failure.type_name == "SystemExit"


class _Nowhere:
    def answer(self, answer: object) -> None:
        raise AssertionError("a recording context answers nobody")


# --- imports


def test_failpoints_can_be_imported_without_the_rest_of_the_kit() -> None:
    code = (
        "import sys, visor_actors.testing.failpoints\n"
        "heavy = {'pykka', 'pytest', 'visor_actors.actor', 'hypothesis'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_every_exported_name_exists() -> None:
    import visor_actors.testing as kit

    for name in kit.__all__:
        assert getattr(kit, name) is not None
    with pytest.raises(AttributeError):
        kit.no_such_thing  # noqa: B018  # looking it up is the point
