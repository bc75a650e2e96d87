"""What the main process owes to whoever started it: word to the service manager and,
as pid 1, the reaping of orphans.

Both are off, and cost nothing, unless the environment calls for them.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

from visor_actors.actor import ActorSystem
from visor_actors.actors.world import World
from visor_actors.node.reaper import OrphanReaper, needs_reaper
from visor_actors.node.shim_process import own_shims
from visor_actors.node.systemd import ServiceNotifier
from visor_actors.telemetry.events import Event, Severity

REAP_SECONDS = 5.0
STOP_MARGIN_SECONDS = 30.0


class Ticker:
    """Calls ``callback`` on the root's loop every ``interval`` seconds, until :meth:`stop`.

    A root that hangs is not called: so what the callback says of visor's health is true.
    """

    def __init__(self, system: ActorSystem, interval: float, callback: Callable[[], None]) -> None:
        self._interval = interval
        self._callback = callback
        self._stopped = threading.Event()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        system.watch(self._reader.fileno(), self._tick)
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the ticking. After the root's loop has ended."""
        self._stopped.set()
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self._writer.send(b"\0")
            except BlockingIOError:
                continue  # the root has not come round to the earlier ones

    def _tick(self) -> None:
        try:
            self._reader.recv(4096)
        except BlockingIOError:
            return
        self._callback()


class Housekeeping:
    """Subscribe :meth:`record` to the bus; :meth:`start` before the system runs, :meth:`finish` after it."""

    def __init__(self, world: World, *, last_actor: str) -> None:
        self._world = world
        self._last_actor = last_actor
        self._notifier = ServiceNotifier.from_environment()
        self._reaper = OrphanReaper(world.monotonic) if needs_reaper() else None
        self._tickers: list[Ticker] = []
        self._ready = False

    def start(self, system: ActorSystem) -> None:
        """Begin what has to be done at intervals."""
        watchdog = self._notifier.watchdog_seconds
        if watchdog is not None:
            self._tickers.append(Ticker(system, watchdog, self._notifier.watchdog))
        if self._reaper is not None:
            self._tickers.append(Ticker(system, REAP_SECONDS, self._reap))

    def record(self, event: Event) -> None:
        """Take one event: readiness, and what the service manager shows as status."""
        if not self._notifier.enabled:
            return
        name = event.name
        if not self._ready and name == "actor.started" and event.fields.get("actor") == self._last_actor:
            self._ready = True
            self._notifier.ready("visor runs")
        elif name == "node.stopping":
            self.stopping()
        elif event.severity >= Severity.INFO and name.partition(".")[0] in ("node", "upgrade", "core"):
            self._notifier.status(event.message)

    def stopping(self) -> None:
        """The node is being stopped: say so, and ask for the time that may take."""
        self._notifier.stopping("stopping the node")
        self._notifier.extend_timeout(
            self._world.settings.current.stop_signal_timeout_seconds + STOP_MARGIN_SECONDS
        )

    def finish(self, *, orderly: bool) -> None:
        """End everything. A crash is not announced: that is how the service manager tells it from a stop."""
        for ticker in self._tickers:
            ticker.stop()
        if orderly:
            self._notifier.stopping("visor ends")
        self._notifier.close()

    def _reap(self) -> None:
        assert self._reaper is not None
        for orphan in self._reaper.scan(own_shims()):
            self._world.bus.emit(
                Event(
                    name="orphan.reaped",
                    message=f"collected the orphan {orphan.name} (pid {orphan.pid})",
                    severity=Severity.DEBUG,
                    fields={"pid": orphan.pid, "code": os.waitstatus_to_exitcode(orphan.status)},
                )
            )
