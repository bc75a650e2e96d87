"""Reporting to Sentry: a subscriber of the event bus that costs the emitter a queue entry and nothing else.

A thread of its own turns events into reports. ``sentry_sdk`` is imported by that thread only, and so only
when a DSN is set. It brings a queue and a sender thread itself; a Sentry that is unreachable, slow or
refusing therefore delays nothing: what does not fit any more is dropped and counted. No hub, integration,
breadcrumb or global state is used.
"""

from __future__ import annotations

import contextlib
import enum
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct

from visor_actors import __version__
from visor_actors.telemetry.events import Event, Scalar, Severity
from visor_actors.telemetry.rate_limit import RateLimit
from visor_actors.telemetry.scrub import Scrubber
from visor_actors.telemetry.scrub import scrubber as shared_scrubber
from visor_actors.telemetry.sentry_event import fingerprint, is_reported, sentry_event

if TYPE_CHECKING:
    import sentry_sdk
    from sentry_sdk.types import Event as SdkEvent
    from sentry_sdk.types import Hint

FLUSH_SECONDS = 2.0
_WAITING = 100
_RELEASE = f"visor-actors@{__version__}"


class SentryStatistics(Struct, frozen=True, kw_only=True):
    """What became of the events: handed to the SDK, held back by the rate limit, lost; and why the last was
    lost.
    """

    reported: int
    suppressed: int
    dropped: int
    last_loss: str | None


class _Close:
    """The last entry of the queue."""


class SentryReporter:
    """Reports events. Subscribe :meth:`record` to the bus after :meth:`start`; any thread may call it, none
    waits.

    ``tags`` is asked for the process's own tags (brand, release of the node, ...) with every report.
    ``warm_up`` is how many seconds after the start the SDK is imported at the latest: not at once, because
    a start has better things to do, and not only when something has broken, because then restarts are in a
    hurry.
    """

    def __init__(
        self,
        *,
        dsn: str,
        environment: str | None = None,
        sample_rate: float = 1.0,
        tags: Callable[[], Mapping[str, Scalar]] = dict,
        scrubber: Scrubber = shared_scrubber,
        rate_limit: RateLimit | None = None,
        warm_up: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
        on_failure: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._dsn = dsn
        self._environment = environment
        self._sample_rate = sample_rate
        self._tags = tags
        self._scrubber = scrubber
        self._rate_limit = rate_limit or RateLimit()
        self._warm_up = warm_up
        self._clock = clock
        self._draw = draw
        self._on_failure = on_failure
        self._queue: queue.Queue[Event | _Close] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="sentry", daemon=True)
        self._client: sentry_sdk.Client | None = None
        self._closed = threading.Event()
        self._deadline = 0.0
        self._lock = threading.Lock()
        self._reported = self._suppressed = self._dropped = 0
        self._last_loss: str | None = None
        scrubber.learn(dsn)

    def start(self) -> None:
        """Start the thread. Once."""
        self._thread.start()

    def record(self, event: Event) -> None:
        """Report ``event`` if it is one that Sentry gets. Never waits, never raises."""
        if self._closed.is_set() or not is_reported(event):
            return
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self._lost("full_queue")

    def close(self, timeout: float = FLUSH_SECONDS) -> bool:
        """Send what waits, for at most ``timeout`` seconds; True when everything was handed over in time."""
        if self._closed.is_set() or not self._thread.is_alive():
            self._closed.set()
            return True
        self._deadline = time.monotonic() + timeout
        self._closed.set()
        with contextlib.suppress(queue.Full):  # the thread sees the flag when it has emptied the queue
            self._queue.put_nowait(_Close())
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def statistics(self) -> SentryStatistics:
        """What became of the events so far."""
        with self._lock:
            return SentryStatistics(
                reported=self._reported,
                suppressed=self._suppressed,
                dropped=self._dropped,
                last_loss=self._last_loss,
            )

    # -- on the reporter's own thread

    def _run(self) -> None:
        try:
            entry: Event | _Close | None = self._queue.get(timeout=self._warm_up)
        except queue.Empty:
            entry = None
        if isinstance(entry, _Close):
            return
        try:
            self._client = make_client(
                self._dsn, environment=self._environment, scrubber=self._scrubber, on_loss=self._lost
            )
        except Exception as error:
            # A broken installation or DSN: visor goes on without Sentry, and says so once.
            self._closed.set()
            self._lost("sdk")
            self._on_failure(self._scrubber.text(f"{type(error).__name__}: {error}"))
            return
        while not isinstance(entry, _Close):
            if entry is not None:
                self._report(entry)
            if self._closed.is_set() and self._queue.empty():
                break
            entry = self._queue.get()
        self._client.close(timeout=max(0.0, self._deadline - time.monotonic()))

    def _report(self, event: Event) -> None:
        assert self._client is not None
        try:
            if event.severity < Severity.ALARM and self._draw() >= self._sample_rate:
                return
            suppressed = self._rate_limit.admit(fingerprint(event), self._clock())
            if suppressed is None:
                with self._lock:
                    self._suppressed += 1
                return
            record = sentry_event(event, tags=self._tags(), suppressed=suppressed, release=_RELEASE)
            self._client.capture_event(cast("SdkEvent", record))
            with self._lock:
                self._reported += 1
        except Exception as error:
            # Whatever is wrong with one event must not keep the next from being reported.
            self._lost(type(error).__name__)

    def _lost(self, why: str) -> None:
        with self._lock:
            self._dropped += 1
            self._last_loss = why


def make_client(
    dsn: str, *, environment: str | None, scrubber: Scrubber, on_loss: Callable[[str], None]
) -> sentry_sdk.Client:
    """A client of the SDK that sends what it is given, scrubbed, and nothing else. Imports the SDK; slow."""
    import logging

    import sentry_sdk
    from sentry_sdk.transport import HttpTransport

    # Without a handler the standard library would print the SDK's complaints into visor's own output.
    quiet = logging.getLogger("sentry_sdk")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False

    class CountingTransport(HttpTransport):
        def on_dropped_event(self, _reason: str) -> None:
            on_loss(_reason)

    def before_send(event: SdkEvent, _hint: Hint) -> SdkEvent | None:
        return cast("SdkEvent", scrub_report(cast("dict[str, Any]", event), scrubber))

    return sentry_sdk.Client(
        dsn=dsn,
        environment=environment or "production",
        release=_RELEASE,
        transport=CountingTransport,
        before_send=before_send,
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        include_local_variables=False,
        include_source_context=False,
        send_client_reports=False,
        max_breadcrumbs=0,
        shutdown_timeout=FLUSH_SECONDS,
        spotlight=False,
        debug=False,
    )


# Made by the SDK or by us from constants; a scrubber would only damage them.
_NOT_SCRUBBED = ("event_id", "timestamp", "platform", "sdk", "level", "release", "environment")


def scrub_report(report: Mapping[str, Any], scrubber: Scrubber) -> dict[str, Any]:
    """A report without secrets and without values of arguments, wherever in it they are."""
    return {
        name: value if name in _NOT_SCRUBBED else scrubber.value(value, name=name)
        for name, value in report.items()
        if name != "breadcrumbs"
    }


class TestResult(enum.Enum):
    """What became of a test report."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    UNANSWERED = "unanswered"

    __test__ = False  # no test, whatever its name makes of it


class TestOutcome(Struct, frozen=True, kw_only=True):
    """The result of :func:`send_test`; ``detail`` is what was lost and why, or the id of the report."""

    result: TestResult
    detail: str

    __test__ = False


def send_test(
    *, dsn: str, environment: str | None, timeout: float = 10.0, scrubber: Scrubber = shared_scrubber
) -> TestOutcome:
    """Send one report and wait up to ``timeout`` seconds for the answer. For the command line; blocks."""
    scrubber.learn(dsn)
    losses: list[str] = []
    client = make_client(dsn, environment=environment, scrubber=scrubber, on_loss=losses.append)
    event = Event(name="sentry.test", message="this is a test of visor-actors", severity=Severity.INFO)
    record = sentry_event(event, tags={}, suppressed=0, release=_RELEASE)
    identifier = client.capture_event(cast("SdkEvent", record))
    client.flush(timeout=timeout)
    pending: list[int] = []
    # A flush tells nobody whether it was complete, but a second one calls back when something is still on
    # its way.
    client.flush(timeout=0.01, callback=lambda count, _timeout: pending.append(count))
    client.close(timeout=0.0)
    if losses:
        return TestOutcome(result=TestResult.REFUSED, detail=losses[0])
    if pending:
        return TestOutcome(result=TestResult.UNANSWERED, detail=f"no answer within {timeout:g} s")
    return TestOutcome(result=TestResult.DELIVERED, detail=str(identifier))
