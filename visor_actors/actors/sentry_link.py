"""Reporting to Sentry as the configuration says at the moment: on, off, or elsewhere after a reload."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from visor_actors.home.settings import SentryConfig
from visor_actors.telemetry.events import Event, Scalar, Severity

if TYPE_CHECKING:
    from visor_actors.telemetry.sentry import SentryReporter

_TAGS = ("brand", "tag", "height")


class SentryLink:
    """Subscribe :meth:`record` to the bus. Without a DSN nothing of Sentry is even imported. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._config: SentryConfig | None = None
        self._reporter: SentryReporter | None = None
        self._context: dict[str, Scalar] = {}

    def use(self, config: SentryConfig) -> None:
        """Report as ``config`` says from now on."""
        with self._lock:
            if config == self._config:
                return
            self._config = config
            before, self._reporter = self._reporter, self._make(config)
        if before is not None:
            before.close()

    def record(self, event: Event) -> None:
        """Pass ``event`` on, if anybody wants it; and remember what the next reports are tagged with."""
        for name in _TAGS:
            if name in event.fields:
                self._context[name] = event.fields[name]
        reporter = self._reporter
        if reporter is not None and event.severity > Severity.INFO:
            reporter.record(event)

    def close(self, timeout: float) -> None:
        """Send what waits, for at most ``timeout`` seconds."""
        if self._reporter is not None:
            self._reporter.close(timeout)

    def _make(self, config: SentryConfig) -> SentryReporter | None:
        if config.dsn is None:
            return None
        from visor_actors.telemetry.sentry import SentryReporter

        reporter = SentryReporter(
            dsn=config.dsn,
            environment=config.environment,
            sample_rate=config.sample_rate,
            tags=self._tags,
        )
        reporter.start()
        return reporter

    def _tags(self) -> Mapping[str, Scalar]:
        return dict(self._context)
