"""The connection to a shim: attach to the one that lives or start one, give orders, receive what happened.

A :class:`ShimConnection` belongs to one thread. Only :meth:`ShimConnection.open` blocks (up to its
timeout); after it, an actor watches :meth:`ShimConnection.fileno` and calls :meth:`ShimConnection.receive`
whenever it is readable. Closing a connection only detaches: shim and binary go on.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from visor_actors.node import shim_wire
from visor_actors.node.custody_errors import (
    OrderTooLarge,
    ShimFenced,
    ShimGone,
    ShimIncompatible,
    ShimNotStarted,
    ShimReplaced,
    ShimUnavailable,
    ShimUnresponsive,
)
from visor_actors.node.custody_types import (
    Exited,
    ExitRecord,
    Hello,
    InheritedOutput,
    LaunchOrder,
    ShimMessage,
    Started,
)
from visor_actors.node.shim_process import (
    LINGER_SECONDS,
    find_shim,
    launch_shim,
    reap_shims,
    take_warm_shim,
)

_SEND_SECONDS = 2.0
_LAUNCHES = 5


class ShimConnection:
    """One attachment to the shim of one slot. Made by :meth:`open`; ``hello`` is the slot's state at that
    moment.
    """

    hello: Hello

    def __init__(self, slot_dir: Path, sock: socket.socket) -> None:
        self._slot_dir = slot_dir
        self._socket = sock
        self._inbox = bytearray()
        self._requests = 0
        self._ended: ShimGone | None = None
        self._pipe = -1

    @classmethod
    def open(
        cls, slot_dir: Path, *, epoch: int, timeout: float = 10.0, linger: float = LINGER_SECONDS
    ) -> ShimConnection:
        """Attach to the living shim of ``slot_dir`` or start one. Blocks for up to ``timeout`` seconds.

        ``epoch`` must not be lower than that of any earlier client of the slot; this client replaces the
        one before. A shim started here leaves by itself once its slot has been vacant and unattended for
        ``linger`` seconds. Raises :class:`ShimUnavailable` (see ``custody_errors``).
        """
        deadline = time.monotonic() + timeout
        _prepare_slot(slot_dir)
        launches = 0
        while True:
            try:
                sock = take_warm_shim(slot_dir) or _connect(slot_dir)
            except BlockingIOError:  # many wait to be accepted
                if time.monotonic() >= deadline:
                    raise _unresponsive(slot_dir) from None
                time.sleep(0.005)
                continue
            if sock is None:
                launches += 1
                try:
                    sock = launch_shim(slot_dir, linger=linger)
                except OSError as error:
                    problem = f"the shim's process could not be started: {error}"
                    raise ShimNotStarted(problem, "check memory and process limits") from error
            connection = cls(slot_dir, sock)
            try:
                connection._greet(epoch, deadline)
                connection._hold_pipe()
                reap_shims()  # the one before may still have been ending when its connection ended
                return connection
            except ShimGone:
                connection.close()
            except BaseException:
                connection.close()
                raise
            # It ended before it answered. Either another shim holds the slot and will listen in a moment,
            # or one is just leaving, or they cannot live here.
            pid = find_shim(slot_dir)
            if time.monotonic() >= deadline and pid is not None:
                raise _unresponsive(slot_dir)
            if time.monotonic() >= deadline or (launches >= _LAUNCHES and pid is None):
                raise ShimNotStarted(
                    f"shims end at once: {_last_words(slot_dir)}", "see shim.err in that folder"
                )
            time.sleep(0.005 * max(1, launches))

    def fileno(self) -> int:
        """The descriptor to watch for readability."""
        return self._socket.fileno()

    def start(self, order: LaunchOrder, *, after: int = 0) -> int:
        """Order a start; return the request's number. Answered by ``Started`` or ``StartRefused`` with that
        number. The incarnation gets a number beyond ``after``, even if the slot has lost its memory.

        Raises :class:`OrderTooLarge`, or :class:`ShimGone` if the shim does not take it.
        """
        self._requests += 1
        command: dict[str, Any] = {
            "do": "start",
            "request": self._requests,
            "order": shim_wire.encode_order(order),
            "after": after,
        }
        fds: list[int] = []
        if isinstance(order.output, InheritedOutput):
            fds = [order.output.stdout, order.output.stderr]
            command["fds"] = len(fds)
        self._send(command, fds)
        return self._requests

    def stop(self, *, signal: int, timeout: float) -> int:
        """Order a stop; return the request's number.

        The leader gets ``signal``; after ``timeout`` seconds everything of the binary gets SIGKILL.
        Answered by ``StopProgress`` with that number, and in the end by ``Exited`` once nothing is left and
        the lock is free, or by ``StopProgress`` with ``NOTHING_RUNS``. A newer stop replaces an older one.
        Raises :class:`ShimGone`.
        """
        self._requests += 1
        self._send(
            {"do": "stop", "request": self._requests, "signal": int(signal), "timeout": float(timeout)}
        )
        return self._requests

    def acknowledge(self, incarnation: int) -> None:
        """Say that the exit of ``incarnation`` has been dealt with, so that no later client is told of it."""
        self._send({"do": "acknowledge", "incarnation": incarnation})

    def leave(self) -> None:
        """Tell the shim to end. It refuses (``Refused``) while a binary runs; otherwise the connection
        ends.
        """
        self._send({"do": "leave", "request": 0})

    def leave_and_wait(self, timeout: float) -> None:
        """Tell the shim to end, and wait until its process has ended, ``timeout`` seconds at most. Never
        raises.
        """
        try:
            pidfd = os.pidfd_open(self.hello.shim_pid)
        except OSError:
            return  # it has ended
        try:
            self.leave()
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            ended.poll(timeout * 1000)
        except ShimGone:
            return
        finally:
            os.close(pidfd)

    def receive(self) -> list[ShimMessage]:
        """Return what has arrived, oldest first; an empty list if nothing has. Never blocks.

        Raises :class:`ShimGone` at the end of the connection or for what is not the protocol, after
        everything that came before has been returned.
        """
        messages: list[ShimMessage] = []
        if self._ended is None:
            try:
                self._fill()
            except ShimGone as gone:
                self._ended = gone
            try:
                while (fields := self._next()) is not None:
                    message = shim_wire.parse_message(fields)
                    if message is not None:
                        messages.append(message)
                    if isinstance(message, Started):
                        self._hold_pipe()
            except ShimGone as gone:
                self._ended = gone
            except ValueError as error:
                self._ended = ShimGone(f"the shim sent what is not its protocol: {error}")
        if self._ended is not None and not messages:
            reap_shims()
            raise self._ended
        return messages

    def close(self) -> None:
        """Detach. The shim and its binary go on. May be called more than once."""
        self._socket.close()
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        reap_shims()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hold_pipe(self) -> None:
        """Keep the pipe of the binary's output open, without reading: what is in it outlives both shim and
        binary.
        """
        if self._pipe < 0:
            with contextlib.suppress(OSError):  # output that is not captured has no pipe
                self._pipe = os.open(self._slot_dir / "output", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    # the handshake

    def _greet(self, epoch: int, deadline: float) -> None:
        self._send({"do": "hello", "protocols": list(shim_wire.PROTOCOLS), "epoch": epoch})
        try:
            fields = self._wait_for_message(deadline)
            match fields["is"]:
                case "hello":
                    pass
                case "fenced":
                    raise ShimFenced(int(fields["epoch"]))
                case "unspoken":
                    raise ShimIncompatible(tuple(int(number) for number in fields["protocols"]))
                case other:
                    raise ValueError(f"greeted with {other}")
            exits: list[ExitRecord] = []
            while len(exits) < int(fields["exits"]):
                message = shim_wire.parse_message(self._wait_for_message(deadline))
                if not isinstance(message, Exited):
                    raise ValueError("exits were announced and did not come")
                exits.append(message.record)
            running, held_by = fields["running"], fields["held_by"]
            self.hello = Hello(
                shim_pid=int(fields["shim_pid"]),
                protocol=int(fields["protocol"]),
                running=None if running is None else shim_wire.parse_binary(running),
                exits=tuple(exits),
                held_by=None if held_by is None else shim_wire.parse_holder(held_by),
                exits_lost=int(fields.get("exits_lost", 0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ShimUnavailable(
                f"what answers in the slot is not a shim: {error!r}", "see who listens on its shim.sock"
            ) from error

    def _wait_for_message(self, deadline: float) -> dict[str, Any]:
        """Read one message and not a byte more: what follows must make the descriptor readable for the
        caller.
        """
        readable = select.poll()
        readable.register(self._socket, select.POLLIN)
        while (fields := self._next()) is None:
            left = deadline - time.monotonic()
            if left <= 0 or not readable.poll(left * 1000):
                raise _unresponsive(self._slot_dir)
            waiting = self._read(65536, socket.MSG_PEEK)
            self._inbox += self._read((waiting.find(b"\n") + 1) or len(waiting))
        return fields

    # bytes

    def _send(self, command: dict[str, Any], fds: list[int] | None = None) -> None:
        data = shim_wire.encode(command)
        if len(data) > shim_wire.MAX_COMMAND:
            raise OrderTooLarge(len(data), shim_wire.MAX_COMMAND)
        deadline = time.monotonic() + _SEND_SECONDS
        try:
            while data:
                try:
                    sent = socket.send_fds(self._socket, [data], fds) if fds else self._socket.send(data)
                    data, fds = data[sent:], None
                except BlockingIOError:
                    # Only an order larger than the socket's buffer, or a shim that stopped reading, gets
                    # here.
                    left = deadline - time.monotonic()
                    writable = select.poll()
                    writable.register(self._socket, select.POLLOUT)
                    if left <= 0 or not writable.poll(left * 1000):
                        raise ShimGone("the shim does not take commands any more") from None
        except OSError as error:
            raise ShimGone(f"the connection to the shim broke: {error}") from error

    def _fill(self) -> None:
        """Read all that has arrived; raise ShimGone at end of file."""
        while True:
            try:
                data = self._read(65536)
            except BlockingIOError:
                return
            self._inbox += data
            if len(self._inbox) > shim_wire.MAX_MESSAGE and b"\n" not in self._inbox:
                raise ShimGone("the shim sent a message beyond all bounds")
            if len(data) < 65536:
                return

    def _read(self, size: int, flags: int = 0) -> bytes:
        try:
            data = self._socket.recv(size, flags)
        except BlockingIOError:
            raise
        except OSError as error:
            raise ShimGone(f"the connection to the shim broke: {error}") from error
        if not data:
            raise ShimGone("the shim closed the connection")
        return data

    def _next(self) -> dict[str, Any] | None:
        line, newline, rest = self._inbox.partition(b"\n")
        if not newline:
            return None
        self._inbox = rest
        fields = shim_wire.decode(bytes(line))
        if fields["is"] == "replaced":
            raise ShimReplaced
        return fields


def _last_words(slot_dir: Path) -> str:
    try:
        lines = (slot_dir / "shim.err").read_text(errors="replace").split("\n")
    except OSError as error:
        return str(error)
    return next((line for line in reversed(lines) if line.strip()), "nothing in shim.err")[:500]


def _prepare_slot(slot_dir: Path) -> None:
    try:
        slot_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ShimNotStarted(
            f"the folder {slot_dir} cannot be made: {error.strerror}", "check its permissions"
        ) from error


def _connect(slot_dir: Path) -> socket.socket | None:
    """Connect to the slot's socket; None if nobody listens there. BlockingIOError: its queue is full just
    now.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Socket paths are limited to 107 bytes; through a descriptor of the folder any home works.
        folder = os.open(slot_dir, os.O_PATH | os.O_DIRECTORY)
        try:
            sock.setblocking(False)
            sock.connect(f"/proc/self/fd/{folder}/shim.sock")
        finally:
            os.close(folder)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except BlockingIOError:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        raise ShimUnavailable(
            f"the socket of the slot cannot be used: {error}", f"check the permissions of {slot_dir}"
        ) from error
    return sock


def _unresponsive(slot_dir: Path) -> ShimUnresponsive:
    pid = find_shim(slot_dir)
    if pid is not None and not (slot_dir / "shim.sock").is_socket():
        return ShimUnresponsive(
            f"the shim (pid {pid}) lives, but its socket {slot_dir / 'shim.sock'} was deleted",
            "it makes a new one within seconds if it can write there; otherwise "
            f"kill -9 {pid}: the binary is not affected, and the next shim adopts it",
            pid=pid,
        )
    return ShimUnresponsive(
        f"the shim (pid {pid or 'unknown'}) lives but does not answer",
        f"if it is stopped, kill -CONT {pid or 'PID'}; the binary is not affected",
        pid=pid,
    )
