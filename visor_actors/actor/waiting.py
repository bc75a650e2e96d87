"""How an inbox's thread sleeps: on a lock while there are only messages and timers, in poll() once
descriptors are watched.

The lock is cheaper (no descriptor, no system call in the sender unless the receiver sleeps, and the sender
keeps the interpreter); poll() can wait for descriptors as well. Only the inbox's own thread switches, and
never while it sleeps.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading

from visor_actors.actor.errors import DescriptorClosed


class Waiter:
    """One sleeping place. :meth:`wake` may be called from any thread, everything else from the owner's
    thread only."""

    __slots__ = ("_alarm", "_descriptors", "_latch", "_lock", "_poller")

    def __init__(self) -> None:
        self._latch = threading.Lock()
        self._latch.acquire()
        self._lock = threading.Lock()  # held around writes to the alarm, so that it is never closed under one
        self._alarm = -1
        self._poller: select.poll | None = None
        self._descriptors: dict[int, object] = {}

    @property
    def watches(self) -> bool:
        """Whether any descriptor is watched."""
        return bool(self._descriptors)

    def watch(self, fd: int, message: object) -> None:
        """Have :meth:`sleep` return ``message`` whenever ``fd`` is readable, at its end, or in error."""
        if self._poller is None:
            self._poller = select.poll()
            self._open_alarm(self._poller)
        self._poller.register(fd, select.POLLIN)
        self._descriptors[fd] = message

    def _open_alarm(self, poller: select.poll) -> None:
        with self._lock:
            self._alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        poller.register(self._alarm, select.POLLIN)

    def unwatch(self, fd: int) -> bool:
        """Forget ``fd``; return whether it was watched."""
        if self._descriptors.pop(fd, self) is self:
            return False
        assert self._poller is not None
        self._poller.unregister(fd)
        return True

    def message_of(self, fd: int) -> tuple[object] | None:
        """Return the message for a descriptor that was ready (in a tuple), None if it is not watched any
        more."""
        try:
            return (self._descriptors[fd],)
        except KeyError:
            return None

    def sleep(self, seconds: float | None) -> list[int]:
        """Block until woken, at most ``seconds``; return the watched descriptors that are ready.

        May return early without reason. Raises DescriptorClosed if a watched one was closed, or the one that
        wakes this waiter: whoever closes a descriptor twice may hit any. It can be woken again all the same.
        """
        if self._poller is None:
            self._latch.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX))
            return []
        timeout = None if seconds is None else math.ceil(min(seconds, 86_400.0) * 1000.0)
        ready = []
        for fd, events in self._poller.poll(timeout):
            if events & select.POLLNVAL:
                if fd == self._alarm:
                    self._poller.unregister(fd)
                    self._open_alarm(self._poller)
                else:
                    self.unwatch(fd)
                raise DescriptorClosed(fd)
            if fd == self._alarm:
                os.eventfd_read(fd)
            else:
                ready.append(fd)
        return ready

    def wake(self) -> None:
        """End the current sleep, or the next one."""
        if self._poller is not None:
            with self._lock:
                if self._alarm >= 0:
                    try:
                        os.eventfd_write(self._alarm, 1)
                    except OSError:
                        return  # closed by mistake: sleep() will find out
            return
        try:
            self._latch.release()
        except RuntimeError:
            return  # somebody else has woken it already

    def close(self) -> None:
        """Give the descriptors of this waiter back. The watched ones belong to whoever watches them."""
        self._descriptors.clear()
        with self._lock:
            alarm, self._alarm = self._alarm, -1
            if alarm >= 0:
                with contextlib.suppress(OSError):  # closed by mistake
                    os.close(alarm)
