"""The installer job's process: ``python -m visor_actors.install``, started by :func:`.launch.launch_job`
only.

Standard input brings the order and then stays open for as long as the owner lives: its end is the end of the
job and of all it runs. Standard output carries messages and nothing else; whatever libraries print goes to
standard error.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import traceback
from typing import NoReturn

from visor_actors.install.errors import InstallError
from visor_actors.install.launch import held_children
from visor_actors.install.limits import apply_limits
from visor_actors.install.messages import FailureKind, InstallFailed, JobMessage, encode
from visor_actors.install.order import InstallOrder, OrderInvalid

_LONGEST_ORDER = 1 << 20


class _Owner:
    """The other end: who reads the messages and whose end is ours."""

    def __init__(self) -> None:
        self._out = os.dup(1)  # not inheritable: a process that we run cannot keep it open
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def read_order(self) -> InstallOrder:
        line = b""
        while not line.endswith(b"\n") and len(line) < _LONGEST_ORDER:
            data = os.read(0, 1 << 16)
            if not data:
                _end_everything()
            line += data
        return InstallOrder.from_line(line)

    def tell(self, message: JobMessage) -> None:
        """Write ``message``; there is nothing left to do for a job whose owner has gone."""
        data = memoryview(encode(message))
        with self._lock:
            try:
                while data:
                    data = data[os.write(self._out, data) :]
            except OSError:
                _end_everything()

    def watch(self) -> None:
        """End everything when the owner's end of standard input closes, in whatever way it died."""
        threading.Thread(target=_wait_for_the_end_of_input, name="owner-watch", daemon=True).start()


def _wait_for_the_end_of_input() -> None:
    poller = select.poll()
    poller.register(0, select.POLLIN)
    while True:
        poller.poll()
        if not os.read(0, 4096):
            _end_everything()


def _end_everything() -> NoReturn:
    with held_children(os.getpid()) as children:
        for pidfd in children:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main() -> int:
    """Carry out the order on standard input. The exit code is 0 whenever an outcome was told."""
    owner = _Owner()
    try:
        order = owner.read_order()
    except OrderInvalid as error:
        owner.tell(
            InstallFailed(
                kind=FailureKind.ORDER_INVALID,
                message=str(error),
                next_step="correct autoInstall and upgradeFolders in config.toml",
                transient=False,
            )
        )
        return 0
    owner.watch()
    apply_limits(order)
    owner.tell(_outcome(order, owner))
    return 0


def _outcome(order: InstallOrder, owner: _Owner) -> JobMessage:
    try:
        from visor_actors.install.job import World, install

        return install(order, World(tell=owner.tell))
    except InstallError as error:
        return error.to_message()
    except MemoryError:
        return InstallFailed(
            kind=FailureKind.LIMIT_REACHED,
            message=f"the installation needs more than {order.limits.memory_mib} MiB of memory",
            next_step="look at the release: an asset this expensive to unpack is not a normal one",
            transient=False,
        )
    except (
        Exception
    ) as error:  # the last line of defence: the owner gets an outcome, the traceback goes to stderr
        traceback.print_exc()
        return InstallFailed(
            kind=FailureKind.INTERNAL,
            message=f"the installer failed: {type(error).__name__}: {error}",
            next_step="report this as a bug of visor; install the release by hand meanwhile",
            transient=True,
        )


if __name__ == "__main__":
    sys.exit(main())
