"""The binary's output, where the shim captures it: from the start to the last line."""

import os
import select
import time

from visor_actors.shim.capture import Capture
from visor_actors.shim.explain import Refusal
from visor_actors.shim.lean import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from visor_actors.shim.lean import Record
    from visor_actors.shim.loop import Loop
    from visor_actors.shim.order import Order

DROP_REPORT_SECONDS = 1.0
BUSY_SECONDS = 0.005  # output that comes faster than this is looked at no more often than this


class Output:
    """Has one capture at most; tells the client what had to be dropped."""

    def __init__(self, loop: "Loop", tell: "Callable[[Record], None]") -> None:
        self._loop = loop
        self._tell = tell
        self._capture: Capture | None = None
        self._last_move = 0.0

    def open(self, order: "Order") -> int:
        """Prepare the capture and return the binary's end of it; raise Refusal if there can be none."""
        self.end()
        try:
            capture = Capture(order.output or {})
            self._watch(capture)
            capture.open_file()
            out = os.open("output", os.O_RDWR)
            if order.identity is not None:
                os.fchown(out, order.identity[0], order.identity[1])
        except (OSError, KeyError, ValueError) as error:
            problem = f"the log cannot be opened: {error}"
            raise Refusal("output", problem, "check the log folder") from None
        return out

    def resume(self, plan: "Record | None") -> None:
        """Go on with the output of an adopted binary, if it is captured."""
        if plan and self._capture is None:
            try:
                self._watch(Capture(plan))
            except (OSError, KeyError, ValueError) as error:
                note(f"output not captured: {error}")

    def finish(self, record: "Record") -> None:
        """Take what is left of the ended binary's output and put its last lines into ``record``."""
        if self._capture is None:
            return
        try:
            self._capture.drain()
        except OSError as error:
            note(f"the rest of the output is not captured: {error}")
        record["last_lines"] = self._capture.last_lines() or record["last_lines"]
        self._report_dropped()

    def end(self) -> None:
        if self._capture is not None:
            try:
                self._capture.drain()  # what leftovers have said after the leader's end
            except OSError as error:
                note(f"the rest of the output is not captured: {error}")
            self._report_dropped()
            self._loop.unwatch(self._capture.fifo)
            self._loop.cancel("output")
            self._capture.close()
            self._capture = None

    def _watch(self, capture: Capture) -> None:
        self._capture = capture
        self._loop.watch(capture.fifo, lambda _: self._on_output(capture))

    def _on_output(self, capture: Capture) -> None:
        now = time.monotonic()
        moved = capture.move()
        if moved < 65536 and now - self._last_move < BUSY_SECONDS:
            # Many small writes: look again in a moment, not at each of them. The pipe holds 1 MiB meanwhile.
            self._loop.modify(capture.fifo, 0)
            self._loop.after(BUSY_SECONDS, "output", lambda: self._loop.modify(capture.fifo, select.EPOLLIN))
        self._last_move = now
        if capture.dropped and not self._loop.armed("dropped"):
            self._loop.after(DROP_REPORT_SECONDS, "dropped", self._report_dropped)

    def _report_dropped(self) -> None:
        capture = self._capture
        self._loop.cancel("dropped")
        if capture is not None and capture.dropped:
            told, capture.dropped = capture.dropped, 0
            told_of = {"bytes": told, "total": capture.dropped_total, "problem": capture.problem}
            self._tell({"is": "dropped", **told_of})
