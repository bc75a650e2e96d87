"""Reporting to Sentry, with the real SDK, against a receiver that reads its envelopes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

import pytest

from tests.telemetry.sentry_receiver import Received, Receiver, receiving, refusing_port
from visor_actors.telemetry.events import Event, EventBus, Severity, Trouble
from visor_actors.telemetry.rate_limit import RateLimit
from visor_actors.telemetry.scrub import MASK, Scrubber
from visor_actors.telemetry.sentry import SentryReporter, TestResult, send_test
from visor_actors.telemetry.sentry_event import fingerprint, is_reported, sentry_event


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


MakeReporter = Callable[..., SentryReporter]


@pytest.fixture
def make(receiver: Receiver) -> Iterator[MakeReporter]:
    made: list[SentryReporter] = []

    def reporter(**settings: object) -> SentryReporter:
        arguments: dict[str, object] = {"dsn": receiver.dsn, "scrubber": Scrubber(), **settings}
        one = SentryReporter(**arguments)  # type: ignore[arg-type]  # whatever the test wants to set
        one.start()
        made.append(one)
        return one

    yield reporter
    receiver.answering.set()
    for one in made:
        one.close(20)


def deeper() -> None:
    raise ValueError("height 3 token=abc123secret")


def outer() -> None:
    try:
        deeper()
    except ValueError as error:
        raise RuntimeError("outer") from error


def trouble() -> Trouble:
    with pytest.raises(RuntimeError) as raised:
        outer()
    text = "".join(traceback.format_exception(raised.value))
    return Trouble(type_name="RuntimeError", message=str(raised.value), traceback=text)


def alarm(name: str = "upgrade.failed", **fields: str | int) -> Event:
    return Event(name=name, message="it failed", severity=Severity.ALARM, fields=fields)


def test_a_crash_arrives_with_its_traceback_tags_and_last_lines(
    receiver: Receiver, make: MakeReporter
) -> None:
    reporter = make(environment="mainnet", tags=lambda: {"brand": "vega", "node_release": "v1"})
    bus = EventBus()
    bus.subscribe(reporter.record)
    bus.emit(
        Event(
            name="actor.crashed",
            message="the installer crashed",
            severity=Severity.ERROR,
            next_step="nothing: it was restarted",
            fields={
                "actor": "installer",
                "generation": 3,
                "height": 35,
                "phase": "preparing",
                "rss": 4096,
                **{f"field-{number}": number for number in range(20)},
            },
            lines=tuple(f"line {number}" for number in range(80)),
            trouble=trouble(),
        )
    )
    report = receiver.expect("actor.crashed")

    assert report["level"] == "error"
    assert report["environment"] == "mainnet"
    assert report["release"].startswith("visor-actors@")
    assert report["tags"] == {
        "event": "actor.crashed",
        "brand": "vega",
        "node_release": "v1",
        "actor": "installer",
        "generation": "3",
        "height": "35",
        "phase": "preparing",
    }
    assert report["contexts"]["event"]["rss"] == 4096
    assert report["contexts"]["event"]["field-19"] == 19
    assert report["extra"]["next_step"] == "nothing: it was restarted"
    assert report["extra"]["last_lines"].splitlines() == [f"line {number}" for number in range(30, 80)]
    cause, outer = report["exception"]["values"]
    assert (cause["type"], outer["type"]) == ("ValueError", "RuntimeError")
    assert [frame["function"] for frame in cause["stacktrace"]["frames"]] == ["outer", "deeper"]
    assert cause["stacktrace"]["frames"][0]["context_line"] == "deeper()"
    assert "breadcrumbs" not in report
    assert report["sdk"]["name"].startswith("sentry.python")


def test_envelopes_are_compressed_and_carry_the_key(receiver: Receiver, make: MakeReporter) -> None:
    make().record(alarm())
    received = receiver.probe.expect(Received)
    assert received.encoding == "gzip"
    assert "sentry_key=0123456789abcdef" in received.auth


def test_no_secret_and_no_value_of_an_argument_leaves_the_machine(
    receiver: Receiver, make: MakeReporter
) -> None:
    scrubber = Scrubber()
    scrubber.learn("learned-secret")
    make(scrubber=scrubber, tags=lambda: {"folder": "learned-secret"}).record(
        Event(
            name="binary.exited",
            message=f"vega start --home /srv/hidden-home --token tok1 ended; dsn {receiver.dsn}",
            severity=Severity.ALARM,
            fields={
                "argv": "vega start --tendermint-home=/srv/hidden-tm",
                "apiToken": "tok2",
                "reason": "passphrase: tok3",
            },
            lines=("Authorization: Bearer tok4444444", "https://user:tok5@host.invalid", "learned-secret"),
            trouble=trouble(),
        )
    )
    text = json.dumps(receiver.expect("binary.exited"))
    for secret in (
        "hidden-",
        "tok1",
        "tok2",
        "tok3",
        "tok4",
        "tok5",
        "0123456789abcdef",
        "learned",
        "abc123",
    ):
        assert secret not in text, secret
    assert MASK in text


def test_only_what_matters_is_reported() -> None:
    assert is_reported(Event(name="a", message="", severity=Severity.ERROR))
    assert is_reported(Event(name="a", message="", severity=Severity.WARNING, lines=("last words",)))
    assert is_reported(Event(name="a", message="", severity=Severity.WARNING, trouble=trouble()))
    assert not is_reported(Event(name="a", message="", severity=Severity.WARNING))
    assert not is_reported(Event(name="a", message="", severity=Severity.INFO, lines=("x",)))
    assert not is_reported(Event(name="sentry.lost", message="", severity=Severity.ALARM))


def test_causes_are_grouped_by_what_and_where_and_not_by_numbers() -> None:
    one = Event(name="a", message="pid 3", fields={"slot": "core", "pid": 3, "height": 1}, trouble=trouble())
    other = Event(
        name="a", message="pid 4", fields={"slot": "core", "pid": 4, "height": 2}, trouble=trouble()
    )
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one) == ("a", "slot=core", "RuntimeError", "test_sentry.py:outer")
    for different in (
        Event(name="b", message="", fields={"slot": "core"}, trouble=trouble()),
        Event(name="a", message="", fields={"slot": "data_node"}, trouble=trouble()),
        Event(name="a", message="", fields={"slot": "core"}),
    ):
        assert fingerprint(different) != fingerprint(one)


def test_a_traceback_of_any_shape_makes_a_report() -> None:
    for text in ("", "nonsense", "Traceback (most recent call last):", '  File "x", line 3\n' * 3, "\n" * 9):
        event = Event(name="a", message="", trouble=Trouble(type_name="E", message="m", traceback=text))
        report = sentry_event(event, tags={}, suppressed=0, release="r")
        assert report["exception"]
        fingerprint(event)


def test_a_crash_loop_is_rate_limited_and_counted(receiver: Receiver, make: MakeReporter) -> None:
    now = [0.0]
    reporter = make(rate_limit=RateLimit(first=60), clock=lambda: now[0])
    for _ in range(50):
        reporter.record(alarm())
    receiver.expect("upgrade.failed")
    receiver.probe.wait_until(lambda: reporter.statistics.suppressed == 49)
    now[0] = 60.0
    reporter.record(alarm())
    assert receiver.expect("upgrade.failed")["extra"]["suppressed_since_last"] == 49
    assert receiver.probe.count(Received) == 2


def test_sampling_leaves_alarms_alone(receiver: Receiver, make: MakeReporter) -> None:
    reporter = make(sample_rate=0.5, draw=lambda: 0.7)
    reporter.record(Event(name="error", message="", severity=Severity.ERROR))
    reporter.record(alarm())
    receiver.expect("upgrade.failed")
    assert receiver.probe.count(Received) == 1


def test_what_waits_is_flushed_at_the_end(receiver: Receiver, make: MakeReporter) -> None:
    reporter = make()
    for number in range(20):
        reporter.record(alarm(reason=f"cause {number}"))
    assert reporter.close(20)
    assert receiver.probe.count(Received) == 20
    reporter.record(alarm(reason="too late"))
    assert reporter.close()
    assert reporter.statistics.reported == 20


def test_a_sentry_that_does_not_answer_delays_neither_the_work_nor_the_end(
    receiver: Receiver, make: MakeReporter
) -> None:
    receiver.answering.clear()
    reporter = make(rate_limit=RateLimit(burst=50))
    finished = threading.Event()

    def work() -> None:
        for number in range(2000):
            reporter.record(alarm(reason=f"cause {number}"))
        reporter.close(0.2)
        finished.set()

    thread = threading.Thread(target=work)
    thread.start()
    # The request is held for as long as the test wants: whoever waited for it would not get here.
    assert finished.wait(20)
    thread.join()
    assert reporter.statistics.dropped > 0
    receiver.answering.set()


def test_a_sentry_that_is_not_there_harms_nothing(make: MakeReporter) -> None:
    with refusing_port() as port:
        reporter = make(dsn=f"http://0123456789abcdef@127.0.0.1:{port}/42")
        reporter.record(alarm())
        reporter.close(20)
        assert reporter.statistics.last_loss == "network"


def test_a_sentry_that_refuses_is_left_alone_until_its_time(receiver: Receiver, make: MakeReporter) -> None:
    receiver.status = 429
    receiver.headers = {"Retry-After": "600"}
    reporter = make()
    reporter.record(alarm(reason="one"))
    receiver.expect("upgrade.failed")
    receiver.probe.wait_until(lambda: reporter.statistics.dropped == 1)
    for number in range(10):
        reporter.record(alarm(reason=f"more {number}"))
    assert reporter.close(20)
    assert receiver.requests == 1
    assert reporter.statistics.dropped == 11


def test_a_broken_dsn_is_said_once_and_visor_goes_on(make: MakeReporter) -> None:
    failures: list[str] = []
    reporter = make(dsn="nonsense-but-secret", on_failure=failures.append)
    reporter.record(alarm())
    assert reporter.close(20)
    assert len(failures) == 1
    assert "secret" not in failures[0]


def test_an_event_that_cannot_be_turned_into_a_report_does_not_stop_the_next(
    receiver: Receiver, make: MakeReporter
) -> None:
    broken = iter([True, False])

    def tags() -> dict[str, str]:
        if next(broken):
            raise RuntimeError("injected")
        return {}

    reporter = make(tags=tags)
    reporter.record(alarm(reason="one"))
    reporter.record(alarm(reason="two"))
    assert receiver.expect("upgrade.failed")["tags"]["reason"] == "two"
    assert reporter.statistics.last_loss == "RuntimeError"


def test_a_reporter_with_nothing_to_report_ends_at_once_without_the_sdk() -> None:
    code = (
        "import sys, threading\n"
        "from visor_actors.telemetry.sentry import SentryReporter\n"
        "reporter = SentryReporter(dsn='http://0123456789abcdef@127.0.0.1:1/42')\n"
        "reporter.start()\n"
        "assert reporter.close()\n"
        "assert 'sentry_sdk' not in sys.modules, 'imported'\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_sdk_writes_nothing_of_its_own(receiver: Receiver) -> None:
    receiver.status = 429
    code = (
        "import sys\n"
        "from visor_actors.telemetry.events import Event, Severity\n"
        "from visor_actors.telemetry.sentry import SentryReporter\n"
        "for dsn in sys.argv[1:]:\n"
        "    reporter = SentryReporter(dsn=dsn)\n"
        "    reporter.start()\n"
        "    reporter.record(Event(name='a', message='b', severity=Severity.ALARM))\n"
        "    reporter.close(20)\n"
        "    assert reporter.statistics.dropped == 1\n"
    )
    with refusing_port() as port:
        done = subprocess.run(
            [sys.executable, "-c", code, receiver.dsn, f"http://0123456789abcdef@127.0.0.1:{port}/42"],
            check=True,
            capture_output=True,
            text=True,
        )
    assert (done.stdout, done.stderr) == ("", "")


def test_a_test_report_says_what_became_of_it(receiver: Receiver) -> None:
    scrubber = Scrubber()
    outcome = send_test(dsn=receiver.dsn, environment=None, timeout=20, scrubber=scrubber)
    assert outcome.result is TestResult.DELIVERED
    assert receiver.expect("sentry.test")["event_id"] == outcome.detail
    receiver.status = 403
    outcome = send_test(dsn=receiver.dsn, environment=None, timeout=20, scrubber=scrubber)
    assert (outcome.result, outcome.detail) == (TestResult.REFUSED, "status_403")
    receiver.answering.clear()
    outcome = send_test(dsn=receiver.dsn, environment=None, timeout=0.2, scrubber=scrubber)
    assert outcome.result is TestResult.UNANSWERED
    receiver.answering.set()
