"""What happens to messages, requests, timers and jobs while actors die around them."""

from __future__ import annotations

import math
import os
import threading
from dataclasses import dataclass

import pytest

from tests.actor.trees import Bench, bench, faulty, raising, scripts, waiting
from visor_actors.actor import (
    Actor,
    ActorSystem,
    Address,
    AskTimedOut,
    Backoff,
    BlockingAskInActor,
    CallbackFailed,
    CancelToken,
    ChildSpec,
    Coalesced,
    Context,
    DeadLetter,
    DeadLetterReason,
    JobCancelled,
    JobDone,
    JobFailed,
    OutcomeKind,
    ReceiverDied,
    Replayable,
    Reply,
    Request,
    RequestFailed,
    RestartScheduled,
    SupervisorSpec,
    Token,
    WrongThread,
)
from visor_actors.actor.switchboard import STASH_LIMIT
from visor_actors.testing import FakeClock, Probe, running
from visor_actors.testing.faulty import Action, Do, Lived

A, B = Address("a"), Address("b")
SLOW = Backoff(base=1000.0, maximum=1000.0, jitter=0.0)
BOOM = raising(RuntimeError("boom"))


@dataclass(frozen=True)
class Keep(Replayable):
    value: int


@dataclass(frozen=True)
class Newest(Replayable, Coalesced):
    value: int


@dataclass(frozen=True)
class Poison(Replayable):
    pass


class Asking(Actor):
    """Runs what it is told with its context, and records every other message."""

    def __init__(self, context: Context, probe: Probe) -> None:
        super().__init__(context)
        self._probe = probe

    def handle(self, message: object) -> None:
        if isinstance(message, Do):
            message.action()
        elif callable(message):
            message(self.context)
        elif isinstance(message, Poison):
            self._probe.record(message)
            raise RuntimeError("poisoned")
        else:
            self._probe.record(message)


def asking(name: str, probe: Probe, **changes: object) -> ChildSpec:
    _, (script,) = scripts(name)
    return faulty(script, factory=lambda context: Asking(context, probe), **changes)


def down(it: Bench, name: str = "a") -> None:
    """Crash the child and wait until it waits for its restart."""
    it.started(name, 1)
    it.system.tell(Address(name), Do(BOOM))
    it.events.expect(RestartScheduled)


# --- while the receiver is down


def test_replayable_messages_wait_for_the_restart_others_are_dead_letters() -> None:
    clock, probe = FakeClock(), Probe()
    with bench(asking("a", probe, backoff=SLOW), clock=clock) as it:
        down(it)
        it.system.tell(A, Keep(1))
        it.system.tell(A, "lost")
        it.system.tell(A, Keep(2))
        letter = it.events.expect(DeadLetter, lambda event: event.message_type == "str")
        assert letter.reason is DeadLetterReason.NOT_RUNNING
        clock.advance(1000.0)
        assert [probe.expect(Keep).value for _ in range(2)] == [1, 2]
    assert it.system.dead_letters == 1


def test_of_a_coalesced_kind_only_the_newest_waits() -> None:
    clock, probe = FakeClock(), Probe()
    with bench(asking("a", probe, backoff=SLOW), clock=clock) as it:
        down(it)
        for value in range(1000):
            it.system.tell(A, Newest(value))
        clock.advance(1000.0)
        assert probe.expect(Newest).value == 999
    assert probe.count(Newest) == 1


def test_only_so_many_messages_wait() -> None:
    clock, probe = FakeClock(), Probe()
    with bench(asking("a", probe, backoff=SLOW), clock=clock) as it:
        down(it)
        for value in range(STASH_LIMIT + 10):
            it.system.tell(A, Keep(value))
        assert it.events.expect(DeadLetter).reason is DeadLetterReason.STASH_FULL
        clock.advance(1000.0)
        probe.wait_until(lambda: probe.count(Keep) == STASH_LIMIT)
    assert it.system.dead_letters == 10


def test_messages_that_were_queued_behind_a_crash_reach_the_next_incarnation_if_they_are_replayable() -> None:
    probe, go = Probe(), threading.Event()
    with bench(asking("a", probe)) as it:
        it.started("a", 1)

        def crash_late() -> None:
            assert go.wait(20)
            raise RuntimeError("boom")

        it.do("a", crash_late)
        for value in range(5):
            it.system.tell(A, Keep(value))
        it.system.tell(A, "lost")
        go.set()
        assert [probe.expect(Keep).value for _ in range(5)] == list(range(5))
        assert it.events.expect(DeadLetter).message_type == "str"


def test_a_message_that_kills_two_generations_is_dead_lettered() -> None:
    probe = Probe()
    with bench(asking("a", probe)) as it:
        it.started("a", 1)
        it.system.tell(A, Poison())
        it.system.tell(A, Keep(1))
        it.started("a", 3)
        assert it.events.expect(DeadLetter).reason is DeadLetterReason.POISON
        assert probe.expect(Keep).value == 1
    assert probe.count(Poison) == 2


def test_a_message_to_nobody_is_a_dead_letter() -> None:
    with bench() as it:
        it.system.tell(Address("nobody"), "hello")
        letter = it.events.expect(DeadLetter)
        assert (letter.child, letter.reason) == ("nobody", DeadLetterReason.NO_SUCH_ADDRESS)
        with pytest.raises(ReceiverDied):
            it.ask("nobody", 1)


def test_a_full_inbox_drops_with_a_count_and_a_stop_overtakes_what_is_in_it() -> None:
    lives, (a,) = scripts("a")
    go = threading.Event()
    with bench(faulty(a, capacity=10_000), lives=lives) as it:
        it.started("a", 1)
        it.do("a", lambda: waiting(go))
        it.lives.wait_until(lambda: len(lives.all(object)) == 2)
        for number in range(10_003):
            it.system.tell(A, number)
        assert it.system.tree().children[0].inbox_depth == 10_000
        assert it.system.dead_letters == 3
        cell = it.cell("a")
        it.system.stop()
        it.events.wait_until(lambda: cell.stop_ordered)
        go.set()
        it.run.outcome()
    assert not [life for life in lives.all(Lived) if isinstance(life.what, int)]
    assert it.system.dead_letters == 10_003


# --- requests


def test_a_request_is_answered_with_its_token() -> None:
    probe = Probe()
    _, (b,) = scripts("b")
    tokens: list[Token] = []
    with bench(asking("a", probe), faulty(b)) as it:
        it.started("b", 1)
        it.system.tell(A, lambda context: tokens.append(context.request(B, "question", timeout=20.0)))
        assert probe.expect(Reply) == Reply(tokens[0], "question")
        assert len(it.cell("a").actor_inbox._timers) == 0, "its timeout is not needed any more"


@pytest.mark.parametrize("how", ["crash", "stop", "absent", "unknown"])
def test_a_request_fails_as_soon_as_nobody_will_answer(how: str) -> None:
    probe, silent = Probe(), Probe()
    clock = FakeClock()  # no timeout can help
    with bench(asking("a", probe), asking("b", silent, backoff=SLOW), clock=clock) as it:
        it.started("b", 1)
        to = Address("nobody") if how == "unknown" else B
        if how == "absent":
            it.do("b", BOOM)
            it.events.expect(RestartScheduled)
        it.system.tell(A, lambda context: context.request(to, "question", timeout=20.0))
        if how in ("crash", "stop"):
            silent.expect(Request)
        if how == "crash":
            it.do("b", BOOM)
        if how == "stop":
            it.system.tell(B, lambda context: context.stop())
        assert probe.expect(RequestFailed).failure.type_name == "ReceiverDied"
        assert probe.count(RequestFailed) == 1


def test_a_request_times_out_and_the_late_answer_is_dropped() -> None:
    clock, probe, silent = FakeClock(), Probe(), Probe()
    with bench(asking("a", probe), asking("b", silent), clock=clock) as it:
        it.started("b", 1)
        it.system.tell(A, lambda context: context.request(B, "question", timeout=5.0))
        request = silent.expect(Request)
        clock.advance(5.0)
        assert probe.expect(RequestFailed).failure.type_name == "AskTimedOut"
        it.system.tell(B, lambda context: context.reply(request, "late"))
        letter = it.events.expect(DeadLetter)
        assert letter.reason is DeadLetterReason.LATE_ANSWER
        it.system.tell(A, "end")
        probe.expect(str)
    assert probe.count(Reply) == 0


def test_an_answer_to_an_earlier_incarnation_is_dropped() -> None:
    probe, silent = Probe(), Probe()
    with bench(asking("a", probe), asking("b", silent)) as it:
        it.started("b", 1)
        it.system.tell(A, lambda context: context.request(B, "question", timeout=20.0))
        request = silent.expect(Request)
        it.do("a", BOOM)
        it.started("a", 2)
        it.system.tell(B, lambda context: context.reply(request, "for the dead"))
        assert it.events.expect(DeadLetter).reason is DeadLetterReason.LATE_ANSWER
    assert probe.count(Reply) == 0


def test_a_replayable_request_survives_the_receivers_restart() -> None:
    clock, probe = FakeClock(), Probe()
    _, (b,) = scripts("b")
    with bench(asking("a", probe), faulty(b, backoff=SLOW), clock=clock) as it:
        down(it, "b")
        it.system.tell(A, lambda context: context.request(B, Keep(7), timeout=5000.0))
        it.system.tell(A, "asked")
        probe.expect(str)
        clock.advance(1000.0)
        assert probe.expect(Reply).value == Keep(7)


@pytest.mark.parametrize("timeout", [0.0, -1.0, math.inf, math.nan])
def test_a_request_needs_a_finite_timeout(timeout: float) -> None:
    probe = Probe()
    with bench(asking("a", probe)) as it:
        it.started("a", 1)

        def ask(context: Context) -> None:
            try:
                context.request(A, "question", timeout=timeout)
            except ValueError as error:
                probe.record(error)

        it.system.tell(A, ask)
        probe.expect(ValueError)


def test_a_blocking_ask_inside_an_actor_or_a_supervisor_raises() -> None:
    probe = Probe()
    with bench(asking("a", probe)) as it:
        it.started("a", 1)

        def ask() -> None:
            try:
                it.ask("a", "me")
            except BlockingAskInActor as error:
                probe.record(error)

        it.do("a", ask)
        probe.expect(BlockingAskInActor)
        it.system.inject(Address("root"), ask)
        probe.expect(BlockingAskInActor)


def test_nothing_waits_for_a_restart_once_the_system_has_ended() -> None:
    probe = Probe()
    with bench(asking("a", probe)) as it:
        it.started("a", 1)
    with pytest.raises(ReceiverDied):
        it.ask("a", Keep(1))


def test_an_ask_times_out() -> None:
    probe = Probe()
    with bench(asking("a", probe)) as it:
        it.started("a", 1)
        with pytest.raises(AskTimedOut) as error:
            it.ask("a", "anybody?", timeout=0.01)
        assert error.value.receiver == "a"


def test_20_000_asks_against_stops_all_end() -> None:
    lives, (a,) = scripts("a")
    answered, failed, other = [0] * 4, [0] * 4, []
    with bench(faulty(a), lives=lives) as it:
        it.started("a", 1)
        over = threading.Event()

        def crash() -> None:
            while not over.wait(0.002):
                it.do("a", BOOM)

        def ask(lane: int) -> None:
            for number in range(5000):
                try:
                    assert it.system.ask(A, number, timeout=20.0) == number
                    answered[lane] += 1
                except ReceiverDied:
                    failed[lane] += 1
                except BaseException as error:
                    other.append(error)

        threads = [threading.Thread(target=ask, args=(lane,)) for lane in range(4)]
        crasher = threading.Thread(target=crash)
        for thread in (*threads, crasher):
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        crasher.join()
    assert other == []
    assert sum(answered) + sum(failed) == 20_000
    assert min(sum(answered), sum(failed)) > 0
    assert a.tripped is None


# --- timers


def test_timers_die_with_their_incarnation() -> None:
    clock, probe = FakeClock(), Probe()
    with bench(asking("a", probe), clock=clock) as it:
        it.started("a", 1)
        it.system.tell(A, lambda context: context.after(5.0, "stale"))
        it.do("a", BOOM)
        it.started("a", 2)
        it.system.tell(A, lambda context: context.after(5.0, "fresh"))
        it.system.tell(A, "armed")
        assert probe.expect(str) == "armed"
        clock.advance(10.0)
        assert probe.expect(str) == "fresh"
        it.system.tell(A, "end")
        assert probe.expect(str) == "end"


def test_a_timer_is_re_armed_by_its_key_and_cancelled() -> None:
    clock, probe = FakeClock(), Probe()

    def arm(context: Context) -> None:
        context.after(1.0, "replaced", key="k")
        context.after(2.0, "kept", key="k")
        context.after(1.5, "cancelled", key="c")
        context.cancel("c")
        context.cancel("never armed")

    with bench(asking("a", probe), clock=clock) as it:
        it.started("a", 1)
        it.system.tell(A, arm)
        it.system.tell(A, "armed")
        probe.expect(str)
        clock.advance(5.0)
        assert probe.expect(str) == "kept"


# --- descriptors


def test_a_watched_descriptor_is_delivered_until_it_is_unwatched_and_dies_with_the_incarnation() -> None:
    probe = Probe()
    reader, writer = os.pipe2(os.O_NONBLOCK)

    class Reading(Asking):
        def init(self) -> None:
            self.context.watch(reader, "readable")

        def handle(self, message: object) -> None:
            if message == "readable":
                try:
                    self._probe.record((self.context.generation, os.read(reader, 1)))
                except BlockingIOError:
                    return
            else:
                super().handle(message)

    _, (a,) = scripts("a")
    with bench(faulty(a, factory=lambda context: Reading(context, probe))) as it:
        it.started("a", 1)
        os.write(writer, b"xy")
        assert [probe.expect(tuple) for _ in range(2)] == [(1, b"x"), (1, b"y")]
        it.do("a", BOOM)
        it.started("a", 2)
        os.write(writer, b"z")
        assert probe.expect(tuple) == (2, b"z")
        it.system.tell(A, lambda context: context.unwatch(reader))
        it.system.tell(A, "unwatched")
        probe.expect(str)
        os.write(writer, b"!")
        it.system.tell(A, "end")
        probe.expect(str)
        assert os.read(reader, 1) == b"!"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    "error", [ValueError("bad signal"), SystemExit("bad signal"), GeneratorExit("bad signal")]
)
def test_the_root_calls_back_for_its_descriptors_and_survives_what_they_raise(error: BaseException) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    _, (a,) = scripts("a")
    events = Probe()
    system = ActorSystem(SupervisorSpec(id="root", children=(faulty(a),)), on_event=events)

    def readable() -> None:
        if os.read(reader, 1) == b"!":
            raise error
        system.stop()

    system.watch(reader, readable)
    with running(system) as run:
        os.write(writer, b"!")
        assert events.expect(CallbackFailed).failure.message == "bad signal"
        os.write(writer, b"s")
        assert run.outcome().kind is OutcomeKind.STOPPED
    os.close(reader)
    os.close(writer)


# --- jobs


def test_a_job_reports_its_value_or_its_failure() -> None:
    probe = Probe()

    def fail(token: CancelToken) -> None:
        raise SystemExit("job")

    with bench(asking("a", probe)) as it:
        it.started("a", 1)
        it.system.tell(A, lambda context: context.run_job(lambda token: 42, key="good"))
        assert probe.expect(JobDone) == JobDone("good", 42)
        it.system.tell(A, lambda context: context.run_job(fail, key="bad", timeout=20.0))
        failed = probe.expect(JobFailed)
        assert (failed.key, failed.failure.type_name) == ("bad", "SystemExit")


@pytest.mark.parametrize("how", ["crash", "stop", "cancel", "replace", "timeout"])
def test_a_job_that_is_not_wanted_any_more_is_cancelled_and_its_result_never_comes(how: str) -> None:
    clock, probe, ended = FakeClock(), Probe(), Probe()

    def work(token: CancelToken) -> str:
        ended.record("begun")
        assert token.wait(20)
        try:
            token.check()
        except JobCancelled as cancelled:
            ended.record(cancelled)
        return "too late"

    with bench(asking("a", probe), clock=clock) as it:
        it.started("a", 1)
        it.system.tell(A, lambda context: context.run_job(work, key="k", timeout=5.0))
        ended.expect(str)
        match how:
            case "crash":
                it.do("a", BOOM)
                it.started("a", 2)
            case "stop":
                it.system.stop()
            case "cancel":
                it.system.tell(A, lambda context: context.cancel_job("k"))
            case "replace":
                it.system.tell(A, lambda context: context.run_job(lambda token: "new", key="k"))
                assert probe.expect(JobDone).value == "new"
            case "timeout":
                clock.advance(5.0)
                assert probe.expect(JobFailed).failure.type_name == "JobTimedOut"
        ended.expect(JobCancelled)
        if how != "stop":
            it.system.tell(A, "end")
            assert probe.expect(str) == "end"
    assert not [done for done in probe.all(JobDone) if done.value == "too late"]


def test_a_context_is_for_its_own_thread() -> None:
    probe = Probe()

    def misuse(context: Context) -> Action:
        def work(token: CancelToken) -> None:
            context.tell(A, "allowed anywhere")
            context.after(1.0, "not here")

        return lambda: context.run_job(work, key="k")

    with bench(asking("a", probe)) as it:
        it.started("a", 1)
        it.system.tell(A, lambda context: misuse(context)())
        assert probe.expect(str) == "allowed anywhere"
        assert probe.expect(JobFailed).failure.type_name == WrongThread.__name__
