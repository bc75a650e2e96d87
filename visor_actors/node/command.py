"""Run a short command of a node (``version``, a history query) so that it can harm nobody.

The command gets a session of its own, no shell and no input. Its output is bounded, its time is bounded, it
can be cancelled, and whatever of its process group is left at the end is killed before its pid is given back.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import IO, Protocol

from msgspec import Struct, field

from visor_actors.node.environment import node_environment
from visor_actors.node.errors import NodeError

_CANCEL_CHECK = 0.1  # seconds between looks at the cancel token
_DRAIN = 0.5  # seconds that output may still come when the command itself has ended
_CHUNK = 64 * 1024


class Cancellation(Protocol):
    """Something that tells whether to give up: the token of an actor's job, or a :class:`threading.Event`.

    Only ``wait(0)`` is called: True means give up.
    """

    def wait(self, seconds: float, /) -> bool: ...


class CommandFailed(NodeError):
    """The command gave no usable end. ``problem`` is a clause such as "it did not end within 10 s"."""

    def __init__(self, argv: Sequence[str], problem: str, next_step: str | None = None) -> None:
        super().__init__(f"{' '.join(argv[:4])}: {problem}")
        self.argv = tuple(argv)
        self.problem = problem
        self.next_step = next_step


class NotStarted(CommandFailed):
    """The system did not start it: absent, not executable, for another machine, no such user."""


class RanTooLong(CommandFailed):
    """It did not end in time and was killed, with its whole process group."""


class Cancelled(CommandFailed):
    """The caller gave up; the command was killed, with its whole process group."""


class Surroundings(Struct, frozen=True, kw_only=True):
    """Where a command runs: the same as the binary it belongs to, or its files would get another owner.

    ``env`` is added to visor's own environment; ``user`` is a name or a number and needs the rights to become
    that user.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    working_directory: Path | None = None
    user: str | None = None


HERE = Surroundings()


class Finished(Struct, frozen=True, kw_only=True):
    """How it ended. ``code`` is negative for a signal; outputs hold their first ``max_output`` bytes."""

    code: int
    stdout: bytes
    stderr: bytes
    truncated: bool

    @property
    def said(self) -> str:
        """The last line it wrote, errors first, for a message; empty when it wrote nothing."""
        for output in (self.stderr, self.stdout):
            lines = output.decode("utf-8", "replace").strip().splitlines()
            if lines:
                return "".join(c if c.isprintable() else " " for c in lines[-1].strip()[:300])
        return ""

    @property
    def ending(self) -> str:
        """The exit code or the signal, in words."""
        if self.code >= 0:
            return f"exit code {self.code}"
        try:
            return f"signal {signal.Signals(-self.code).name}"
        except ValueError:
            return f"signal {-self.code}"


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    cancel: Cancellation | None = None,
    surroundings: Surroundings = HERE,
    max_output: int = 256 * 1024,
) -> Finished:
    """Run ``argv`` to its end and return how it ended. Blocks for at most ``timeout`` seconds (and the time
    of a kill).

    Raises :class:`NotStarted`, :class:`RanTooLong` or :class:`Cancelled`. Output beyond ``max_output`` bytes
    a stream is read and thrown away. For any thread; nothing is left of the process group when it returns.
    """
    deadline = monotonic() + timeout
    process = _start(argv, surroundings)
    try:
        streams = _Streams(process, max_output)
        try:
            _follow(argv, process, streams, deadline, timeout, cancel)
        finally:
            streams.close()
    finally:
        # The leader is not reaped yet, so its pid, which names the group, cannot belong to anybody else.
        _kill_group(process.pid)
        process.wait()
    assert process.returncode is not None
    return Finished(
        code=process.returncode,
        stdout=bytes(streams.kept[0]),
        stderr=bytes(streams.kept[1]),
        truncated=streams.truncated,
    )


def _start(argv: Sequence[str], surroundings: Surroundings) -> subprocess.Popen[bytes]:
    user, group, groups = _identity(argv, surroundings.user)
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=node_environment(surroundings.env, user=surroundings.user),
            cwd=surroundings.working_directory,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=groups,
        )
    except OSError as error:
        raise _not_started(argv, surroundings, error) from None
    except (ValueError, subprocess.SubprocessError) as error:
        raise NotStarted(argv, f"it cannot be started: {error}") from None


def _not_started(argv: Sequence[str], surroundings: Surroundings, error: OSError) -> NotStarted:
    """Say what the system's word alone does not: "no such file" may mean four different files."""
    folder = surroundings.working_directory
    if folder is not None and not folder.is_dir():
        return NotStarted(argv, f"its working directory {folder} does not exist", f"create {folder}")
    if isinstance(error, FileNotFoundError) and Path(argv[0]).exists():
        problem = "it cannot be started: the interpreter or loader that it names does not exist"
        return NotStarted(argv, problem, "install what it needs, or use the binary for this system")
    if error.errno == errno.ENOEXEC:
        return NotStarted(argv, "it cannot be started: it is no program of this machine")
    if error.errno == errno.EPERM and surroundings.user is not None:
        problem = f"it cannot be started as user {surroundings.user}: visor may not become that user"
        return NotStarted(argv, problem, "run visor as root, or remove user from the run configuration")
    return NotStarted(argv, f"it cannot be started: {error.strerror or error}")


def _identity(argv: Sequence[str], user: str | None) -> tuple[int | None, int | None, list[int] | None]:
    if user is None:
        return None, None, None
    import pwd

    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        raise NotStarted(
            argv, f"there is no user {user!r}", "correct user in the run configuration"
        ) from None
    if entry.pw_uid == os.geteuid():
        return None, None, None
    return entry.pw_uid, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)


class _Streams:
    """The two outputs of a process, read without blocking, kept up to a limit."""

    def __init__(self, process: subprocess.Popen[bytes], limit: int) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._files: tuple[IO[bytes], IO[bytes]] = (process.stdout, process.stderr)
        self._open = {file.fileno(): number for number, file in enumerate(self._files)}
        self._limit = limit
        self.kept = (bytearray(), bytearray())
        self.truncated = False
        for fd in self._open:
            os.set_blocking(fd, False)

    @property
    def open(self) -> tuple[int, ...]:
        return tuple(self._open)

    def read(self, fd: int) -> None:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        kept = self.kept[self._open[fd]]
        room = self._limit - len(kept)
        kept += data[:room]
        self.truncated = self.truncated or len(data) > room
        if not data:
            del self._open[fd]

    def close(self) -> None:
        for file in self._files:
            file.close()


def _follow(
    argv: Sequence[str],
    process: subprocess.Popen[bytes],
    streams: _Streams,
    deadline: float,
    timeout: float,
    cancel: Cancellation | None,
) -> None:
    """Read the outputs until the command has ended and they are closed, or :data:`_DRAIN` seconds longer."""
    pidfd = os.pidfd_open(process.pid)
    try:
        ended = False
        while not ended or streams.open:
            if cancel is not None and cancel.wait(0):
                raise Cancelled(argv, "it was cancelled")
            left = deadline - monotonic()
            if left <= 0:
                if ended:
                    return
                raise RanTooLong(
                    argv, f"it did not end within {timeout:g} s", "run it by hand to see what it waits for"
                )
            poll = select.poll()
            for fd in (*streams.open, *(() if ended else (pidfd,))):
                poll.register(fd, select.POLLIN)
            for fd, _ in poll.poll(min(left, _CANCEL_CHECK if cancel is not None else left) * 1000):
                if fd != pidfd:
                    streams.read(fd)
                    continue
                # A helper it left behind may hold the outputs open for ever: that is no reason to wait for
                # it.
                ended = True
                deadline = min(deadline, monotonic() + _DRAIN)
    finally:
        os.close(pidfd)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # No such group: the leader had not reached its session yet, or already left it. Then it is alone.
        try:
            os.kill(leader, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return
