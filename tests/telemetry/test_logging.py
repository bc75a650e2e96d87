"""Visor's own log: its forms, its level, and readers that are slow, gone or full."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from visor_actors.telemetry.events import Event, EventBus, Severity, Trouble
from visor_actors.telemetry.logging import EventLog, LogForm, severity_of
from visor_actors.telemetry.scrub import Scrubber
from visor_actors.telemetry.sink import LineSink

CRASH = Event(
    name="binary.exited",
    message="core ended \x1b[2Jby itself\nforged line",
    severity=Severity.ALARM,
    next_step="look at the last lines",
    fields={"code": 2, "token": "abcdef", "folder": "a b", "after": 1.5, "asked": False, "pid": None},
    lines=("panic: no", "passphrase=hunter2"),
    trouble=Trouble(type_name="ValueError", message="bad", traceback="Traceback\n  File x"),
    at=1_700_000_000.25,
)


class Pipe:
    """A pipe whose reading end the test drives."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)

    def read(self) -> str:
        chunks = []
        while True:
            try:
                chunk = os.read(self.reading, 1 << 20)
            except BlockingIOError:
                break
            if not chunk:
                break
            chunks.append(chunk)
        return b"".join(chunks).decode()

    def close(self) -> None:
        for fd in (self.reading, self.writing):
            try:
                os.close(fd)
            except OSError:
                continue  # closed by the test


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def log(pipe: Pipe, form: LogForm = LogForm.AUTO, **environ: str) -> EventLog:
    return EventLog(fd=pipe.writing, form=form, environ=environ, scrubber=Scrubber())


def test_elsewhere_it_writes_one_line_of_json(pipe: Pipe) -> None:
    log(pipe).record(CRASH)
    text = pipe.read()
    assert text.count("\n") == 1
    assert json.loads(text) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "alarm",
        "event": "binary.exited",
        "message": "core ended \ufffd[2Jby itself\ufffdforged line",
        "next_step": "look at the last lines",
        "fields": {
            "code": 2,
            "token": "********",
            "folder": "a b",
            "after": 1.5,
            "asked": False,
            "pid": None,
        },
        "lines": ["panic: no", "passphrase=********"],
        "trouble": {"type": "ValueError", "message": "bad", "traceback": "Traceback\n  File x"},
    }


def test_under_journald_every_line_has_its_priority(pipe: Pipe) -> None:
    status = os.fstat(pipe.writing)
    log(pipe, JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}").record(CRASH)
    lines = pipe.read().splitlines()
    assert lines[0].startswith("<1>binary.exited: core ended")
    assert lines[0].endswith('code=2 token=******** folder="a b" after=1.5 asked=false pid=-')
    assert all(line.startswith("<1>") for line in lines)
    assert lines[-1] == "<1>    -> look at the last lines"


def test_another_stream_than_journalds_is_not_taken_for_it(pipe: Pipe) -> None:
    log(pipe, JOURNAL_STREAM="1:2").record(CRASH)
    assert pipe.read().startswith("{")


@pytest.mark.parametrize("environ", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_on_a_terminal_it_is_for_people(environ: dict[str, str]) -> None:
    master, slave = pty.openpty()
    try:
        EventLog(fd=slave, environ=environ, scrubber=Scrubber()).record(CRASH)
        text = os.read(master, 65536).decode()
    finally:
        os.close(master)
        os.close(slave)
    assert "ALARM" in text
    assert "-> look at the last lines" in text
    assert "| panic: no" in text
    assert "hunter2" not in text
    assert ("\x1b[1;97;41m" in text) == (not environ)
    assert "\x1b[2J" not in text


def test_the_level_can_change_at_any_time_and_alarms_always_get_through(pipe: Pipe) -> None:
    subject = log(pipe)
    debug = Event(name="a", message="debug", severity=Severity.DEBUG)
    subject.record(debug)
    assert pipe.read() == ""
    subject.level = severity_of("debug")
    subject.record(debug)
    assert "debug" in pipe.read()
    subject.level = severity_of("error")
    subject.record(Event(name="a", message="warning", severity=Severity.WARNING))
    subject.record(Event(name="a", message="alarm", severity=Severity.ALARM))
    assert [json.loads(line)["message"] for line in pipe.read().splitlines()] == ["alarm"]


def test_the_form_can_change_at_any_time(pipe: Pipe) -> None:
    subject = log(pipe)
    subject.use(LogForm.HUMAN)
    subject.record(CRASH)
    assert " ALARM   binary.exited" in pipe.read()


def test_a_reader_that_is_gone_harms_nothing(pipe: Pipe) -> None:
    os.close(pipe.reading)
    subject = log(pipe)
    bus = EventBus()
    bus.subscribe(subject.record)
    for _ in range(100):
        bus.emit(CRASH)
    assert bus.handler_failures == 0
    assert subject.dropped == 100
    pipe.reading = os.open("/dev/null", os.O_RDONLY)


def test_a_closed_descriptor_harms_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    subject = EventLog(fd=writing, form=LogForm.JSON, environ={}, scrubber=Scrubber())
    subject.record(CRASH)
    subject.flush(0.0)
    assert subject.dropped == 1


def test_a_reader_that_stands_still_stops_nobody_and_is_told_what_it_missed(pipe: Pipe) -> None:
    fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, 4096)
    subject = log(pipe)
    for number in range(5000):
        subject.record(Event(name="flood", message=f"{number} " + "x" * 200))
    assert subject.dropped > 0

    lines: list[dict[str, object]] = []
    rest = ""

    def drain() -> None:
        nonlocal rest
        *whole, rest = (rest + pipe.read()).split("\n")
        lines.extend(json.loads(line) for line in whole)

    subject.record(Event(name="flood", message="the last one"))
    while not subject.flush(0.0):
        drain()
    drain()
    notes = [line for line in lines if line["event"] == "log.dropped"]
    flood = [line for line in lines if line["event"] == "flood"]
    assert len(notes) == 1
    assert notes[0]["fields"] == {"count": 5001 - len(flood)}
    assert flood[-1]["message"] == "the last one"


def test_what_was_missed_is_never_told_in_the_middle_of_a_line(pipe: Pipe) -> None:
    fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, 4096)
    subject = log(pipe)
    for number in range(100):
        subject.record(Event(name="flood", message=f"{number} " + "x" * 10_000))
    text = ""
    while not subject.flush(0.0):
        text += pipe.read()
    text += pipe.read()
    lines = [json.loads(line) for line in text.splitlines()]
    flood = [line for line in lines if line["event"] == "flood"]
    assert [line["fields"]["count"] for line in lines if line["event"] == "log.dropped"] == [100 - len(flood)]
    assert flood[0]["message"].startswith("0 ")


def test_a_line_longer_than_the_pipe_arrives_whole_when_it_is_read(pipe: Pipe) -> None:
    fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(pipe.reading, True)
    received = bytearray()

    def read() -> None:
        while not received.endswith(b"\n"):
            received.extend(os.read(pipe.reading, 4096))

    reader = threading.Thread(target=read)
    reader.start()
    sink = LineSink(pipe.writing, patience=20)
    sink.write(b"y" * 100_000 + b"\n")
    reader.join()
    assert len(received) == 100_001


def test_lines_of_many_threads_never_mix(pipe: Pipe) -> None:
    subject = log(pipe)

    def write(name: str) -> None:
        for _ in range(20):
            subject.record(Event(name=name, message=name * 50))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in pipe.read().splitlines()]
    assert len(lines) == 120
    assert all(line["message"] == line["event"] * 50 for line in lines)


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "log"
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    subject = EventLog(fd=fd, form=LogForm.JSON, environ={}, scrubber=Scrubber())
    subject.record(Event(name="a", message="before"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, limits[1]))
    try:
        for _ in range(3):
            subject.record(Event(name="a", message="lost"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    subject.record(Event(name="a", message="after"))
    os.close(fd)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["a", "log.dropped", "a"]
    assert lines[1]["fields"] == {"count": 3}


@pytest.mark.parametrize("blocking", [True, False])
def test_closing_waits_for_a_slow_reader_only_so_long(pipe: Pipe, blocking: bool) -> None:
    fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(pipe.writing, blocking)
    sink = LineSink(pipe.writing, patience=0.0)
    for _ in range(10):
        sink.write(b"z" * 1000 + b"\n")
    assert not sink.flush(0.01)
    received = ""
    while not sink.flush(0.01):
        received += pipe.read()
    received += pipe.read()
    assert received.count("\n") == 10


def test_nobody_but_the_bus_is_needed(pipe: Pipe) -> None:
    bus = EventBus()
    unsubscribe: Callable[[], None] = bus.subscribe(log(pipe).record)
    bus.emit(CRASH)
    assert pipe.read()
    unsubscribe()
    bus.emit(CRASH)
    assert pipe.read() == ""
