"""The owner's side of an installer job: start it, watch two file descriptors, receive what it says, end it.

Used by the installer actor and by ``visor-actors prepare``. The job leads a session of its own, so that
ending it ends whatever it runs. It holds its owner's end of standard input open only by existing: when the
owner dies, however it dies, the job reads the end of its input and ends itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import IO, cast

from visor_actors.install.messages import (
    FailureKind,
    Installed,
    InstallFailed,
    JobMessage,
    NotAMessage,
    Outcome,
    decode,
)
from visor_actors.install.order import InstallOrder

_LONGEST_LINE = 1 << 20
_TAIL_BYTES = 4096
# What a job must not inherit: secrets it is given otherwise or not at all, and sockets of the service
# manager.
_WITHHELD = (
    "GITHUB_TOKEN",
    "GH_TOKEN",
    "SENTRY_DSN",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "WATCHDOG_USEC",
)


class JobNotStarted(OSError):
    """The job's process could not be started: no memory, no process, no file descriptor left."""


def launch_job(order: InstallOrder, *, environment: Mapping[str, str] | None = None) -> InstallJob:
    """Start a job for ``order`` and return at once (a few milliseconds).

    ``environment`` None means this process's own; proxies and CA bundles are taken from it, secrets are not
    passed on. Raises :class:`JobNotStarted`.
    """
    inherited = os.environ if environment is None else environment
    passed = {name: value for name, value in inherited.items() if name not in _WITHHELD}
    errors: int | None = None
    process: subprocess.Popen[bytes] | None = None
    try:
        errors = os.memfd_create("installer-stderr", os.MFD_CLOEXEC)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "visor_actors.install"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=passed,
            cwd="/",
            bufsize=0,
            start_new_session=True,
        )
        return InstallJob(process, order, errors)
    except OSError as error:
        if process is not None:
            process.kill()
            process.communicate()
        if errors is not None:
            os.close(errors)
        raise JobNotStarted(
            error.errno, f"the installer process could not be started: {error.strerror}"
        ) from error


class InstallJob:
    """One running job. Not thread-safe: one owner, one thread.

    Watch :attr:`stdout_fd` (something to receive) and :attr:`pidfd` (the process has ended) for readability;
    call :meth:`receive` on either. :meth:`close` must be called in the end; it kills what still runs.
    """

    def __init__(self, process: subprocess.Popen[bytes], order: InstallOrder, errors: int) -> None:
        self.order = order
        self.pid = process.pid
        self.pidfd = os.pidfd_open(process.pid)
        self.outcome: Outcome | None = None
        self.exit_code: int | None = None
        self.deadline_at = time.monotonic() + order.limits.deadline_seconds
        self._process = process
        self._stdin = cast(IO[bytes], process.stdin)
        self._stdout = cast(IO[bytes], process.stdout)
        self.stdout_fd = self._stdout.fileno()
        self._errors = errors
        self._buffer = b""
        self._eof = False
        self._closed = False
        self._ended_because: InstallFailed | None = None
        os.set_blocking(self.stdout_fd, False)
        # A job that died this early has closed its stdin; that is found out by receive().
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(order.to_line())

    def receive(self) -> tuple[JobMessage, ...]:
        """Return what the job has said since the last call; never blocks.

        The outcome is the last message and is also kept in :attr:`outcome`. When the process has ended
        without one, it is made here from how it ended. After the outcome nothing more comes.
        """
        if self.outcome is not None or self._closed:
            return ()
        ended = self._has_ended()  # asked first: what was written before the end is then read below
        messages: list[JobMessage] = []
        for line in self._read_lines():
            try:
                message = decode(line)
            except NotAMessage:
                continue
            if isinstance(message, Installed | InstallFailed):
                return self._finish(messages, message)
            messages.append(message)
        if ended:
            self._reap()
            return self._finish(messages, self._ended_because or self._cause_of_death())
        return tuple(messages)

    @property
    def at_end_of_output(self) -> bool:
        """Whether :attr:`stdout_fd` is of no more use: watch only :attr:`pidfd` then."""
        return self._eof

    def wait(self, *, timeout: float) -> None:
        """Block until there may be something to receive, at most ``timeout`` seconds. For owners without an
        event loop.
        """
        poller = select.poll()
        if not self._eof:
            poller.register(self.stdout_fd, select.POLLIN)
        poller.register(self.pidfd, select.POLLIN)
        poller.poll(max(0.0, timeout) * 1000)

    def messages(self) -> Iterator[JobMessage]:
        """Yield every message up to the outcome, enforcing the deadline. Blocks between them."""
        while self.outcome is None:
            left = self.deadline_at - time.monotonic()
            if left <= 0:
                self.end_at_deadline()
            self.wait(timeout=min(max(left, 0.05), 1.0))
            yield from self.receive()

    def cancel(self) -> None:
        """Kill the job and everything it runs: its outcome is ``CANCELLED``, unless it was done."""
        self._end(
            InstallFailed(
                kind=FailureKind.CANCELLED,
                message=f"the installation of {self.order.tag} was cancelled",
                next_step="nothing; what was fetched so far is kept in staging",
                transient=False,
            )
        )

    def end_at_deadline(self) -> None:
        """Kill the job because its time is over: its outcome is ``DEADLINE``, unless it was done."""
        seconds = self.order.limits.deadline_seconds
        self._end(
            InstallFailed(
                kind=FailureKind.DEADLINE,
                message=f"installing {self.order.tag} was not done within {seconds:.0f} s",
                next_step="check the connection to the release server; the next try resumes this one",
                transient=True,
            )
        )

    def close(self) -> None:
        """Kill what still runs, reap it and give back every file descriptor. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._kill_group()
        self._reap()
        self._stdin.close()
        self._stdout.close()
        os.close(self.pidfd)
        os.close(self._errors)

    def __enter__(self) -> InstallJob:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, because: InstallFailed) -> None:
        if self.outcome is None and self._ended_because is None and not self._closed:
            self._ended_because = because
            self._kill_group()

    def _kill_group(self) -> None:
        # The leader's pid, and so the group's id, stays reserved until it is reaped: nobody else can be hit.
        # A `version` command runs in a session of its own: it is taken down by pidfd, opened while still a
        # child.
        if self.exit_code is not None:
            return
        with held_children(self.pid) as children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            for pidfd in children:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def _has_ended(self) -> bool:
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(0))

    def _reap(self) -> None:
        if self.exit_code is None:
            self._kill_group()  # whatever the leader left behind in its group
            self.exit_code = self._process.wait()

    def _finish(self, messages: list[JobMessage], outcome: Outcome) -> tuple[JobMessage, ...]:
        self.outcome = outcome
        return (*messages, outcome)

    def _read_lines(self) -> list[bytes]:
        while not self._eof:
            try:
                data = os.read(self.stdout_fd, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                self._eof = True
                break
            self._buffer += data
            if len(self._buffer) > _LONGEST_LINE:
                self._buffer = b""  # not a line of ours; the outcome is then made from the exit
        *lines, self._buffer = self._buffer.split(b"\n")
        return lines

    def _cause_of_death(self) -> InstallFailed:
        code = cast(int, self.exit_code)
        said = self._last_words()
        if code == -signal.SIGXCPU:
            return InstallFailed(
                kind=FailureKind.LIMIT_REACHED,
                message=f"the installer used more than {self.order.limits.cpu_seconds} s of CPU time",
                next_step="look at the release: an asset this expensive to unpack is not a normal one",
                transient=False,
            )
        if code < 0:
            return InstallFailed(
                kind=FailureKind.KILLED,
                message=f"the installer process was killed by {signal.Signals(-code).name}",
                next_step="look for the out-of-memory killer in the kernel's log; it is tried again",
                transient=True,
            )
        return InstallFailed(
            kind=FailureKind.INTERNAL,
            message=f"the installer process ended with code {code}: {said or 'it said nothing'}",
            next_step="report this as a bug of visor; install the release by hand meanwhile",
            transient=True,
        )

    def _last_words(self) -> str:
        size = os.lseek(self._errors, 0, os.SEEK_END)
        tail = os.pread(self._errors, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        lines = [line for line in tail.decode(errors="replace").splitlines() if line.strip()]
        return " | ".join(lines[-3:])


@contextlib.contextmanager
def held_children(pid: int) -> Iterator[tuple[int, ...]]:
    """Yield pidfds of the children of the process ``pid``; none where the kernel does not tell or it has
    gone.

    Each is a child of ``pid`` for certain: it was still listed as one after its pidfd had been opened.
    """
    held: dict[int, int] = {}
    try:
        for child in _children_of(pid):
            with contextlib.suppress(OSError):
                held[child] = os.pidfd_open(child)
        still = _children_of(pid)
        yield tuple(pidfd for child, pidfd in held.items() if child in still)
    finally:
        for pidfd in held.values():
            os.close(pidfd)


def _children_of(pid: int) -> frozenset[int]:
    found: set[int] = set()
    with contextlib.suppress(OSError, ValueError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.update(int(word) for word in file.read().split())
    return frozenset(found)
