"""One thread, one epoll, named timers."""

import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Loop:
    """Runs handlers of readable descriptors (called with the epoll events) and of due timers, until told to
    end.
    """

    def __init__(self) -> None:
        self.ending = False
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: dict[object, tuple[float, Callable[[], None]]] = {}
        self._troubles = 0

    def watch(self, fd: int, handler: "Callable[[int], None]", events: int = select.EPOLLIN) -> None:
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def modify(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, delay: float, key: object, handler: "Callable[[], None]") -> None:
        """Call ``handler`` in ``delay`` seconds; a timer of the same key is replaced."""
        self._timers[key] = (time.monotonic() + delay, handler)

    def cancel(self, key: object) -> None:
        self._timers.pop(key, None)

    def armed(self, key: object) -> bool:
        return key in self._timers

    def run(self) -> None:
        while not self.ending:
            timeout = -1.0
            if self._timers:
                first = min(deadline for deadline, _ in self._timers.values())
                timeout = max(0.0, first - time.monotonic())
            ready = [(fd, events, self._handlers.get(fd)) for fd, events in self._epoll.poll(timeout)]
            for fd, events, handler in ready:
                # An earlier one may have closed it, and opened something else of the same number.
                if handler is not None and self._handlers.get(fd) is handler:
                    self._guard(handler, events)
            now = time.monotonic()
            for key, timer in list(self._timers.items()):
                if timer[0] <= now and self._timers.get(key) is timer:
                    del self._timers[key]
                    self._guard(timer[1])

    def _guard(self, handler: "Callable[..., None]", *arguments: int) -> None:
        # A bug is written down and must not end the process that knows the exit to come.
        try:
            handler(*arguments)
        except Exception:
            self._troubles += 1
            if self._troubles < 100:
                sys.excepthook(*sys.exc_info())
            elif self._troubles > 10000:
                raise
