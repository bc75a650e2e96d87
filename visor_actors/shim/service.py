"""The shim as a whole: commands in, custody, messages out; and when to leave."""

# ruff: noqa: SIM105  # contextlib.suppress would cost 1 MiB of memory in every shim

import fcntl
import os

from visor_actors.shim.custody import Custody
from visor_actors.shim.explain import Refusal
from visor_actors.shim.lean import note, pair, signal, socket
from visor_actors.shim.loop import Loop
from visor_actors.shim.order import IGNORED
from visor_actors.shim.peers import PROTOCOLS, Peer, Peers
from visor_actors.shim.processes import ProcessStat, become_subreaper
from visor_actors.shim.state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from visor_actors.shim.lean import Record


LOOK_SECONDS = 2.0  # between looks for our socket while nobody is attached: less than a client waits


class Service:
    """Obeys the one client, and leaves by itself when the slot has been vacant and unattended for
    ``linger`` seconds.
    """

    def __init__(self, linger: float, guard: int) -> None:
        self._linger = linger
        self._guard = guard  # our shim.lock
        self.wakers: tuple[socket.socket, ...] = ()
        self.loop = Loop()
        self.state = State()
        self.peers = Peers(self.loop, self._obey, self.consider_leaving)
        self.custody = Custody(self.loop, self.state, self.peers.tell, self.consider_leaving)

    def _obey(self, peer: Peer, command: "Record") -> None:
        """Carry out one command. ValueError, KeyError and TypeError mean that it is malformed: its sender
        is dropped.
        """
        if self.loop.ending:
            return  # who leaves starts nothing: the sender attaches to a successor and says it again
        name = command["do"]
        if name == "hello":
            self._greet(peer, command)
            return
        request = int(command.get("request", 0))
        if peer is not self.peers.client:
            self.peers.send(peer, {"is": "refused", "request": request, "problem": "not attached"})
        elif name == "start":
            self._start(peer, request, command)
        elif name == "stop":
            number, timeout = int(command["signal"]), float(command["timeout"])
            if not 0 < number < signal.NSIG or not 0 <= timeout < 1e9:
                raise ValueError("no such signal or timeout")
            self.custody.stop(request, number, timeout)
        elif name == "acknowledge":
            incarnation = int(command["incarnation"])
            self.state.exits = [kept for kept in self.state.exits if kept["incarnation"] != incarnation]
            self.custody.save_soon()
        elif name == "leave" and self.custody.binary is None:
            self.loop.ending = True
        else:
            problem = "a binary runs in this slot" if name == "leave" else f"unknown command {name!r}"[:200]
            self.peers.send(peer, {"is": "refused", "request": request, "problem": problem})

    def _start(self, peer: Peer, request: int, command: "Record") -> None:
        """Always answered: ``started`` or ``start-refused``."""
        order, after = command["order"], int(command.get("after", 0))
        wanted = min(int(command.get("fds", 0)), len(peer.passed))
        passed = [peer.passed.pop(0) for _ in range(wanted)]
        try:
            if wanted < int(command.get("fds", 0)):
                raise Refusal(
                    "resources", "its output could not be passed on", "raise the limit of open files"
                )
            if self.displaced:
                raise Refusal("resources", "the slot's folder was deleted", "visor makes a new one by itself")
            self.custody.start(request, order, passed, after)
        except Refusal as refusal:
            self.custody.refuse(request, refusal)
            self.consider_leaving()
        finally:
            for fd in passed:
                os.close(fd)

    def _greet(self, peer: Peer, command: "Record") -> None:
        spoken = [number for number in command["protocols"] if number in PROTOCOLS]
        epoch = int(command["epoch"])
        if not spoken or epoch < self.state.epoch:
            told = (
                {"is": "fenced", "epoch": self.state.epoch}
                if spoken
                else {"is": "unspoken", "protocols": PROTOCOLS}
            )
            self.peers.send(peer, told)
            self.peers.drop(peer)
            return
        peer.protocol = max(spoken)
        self.peers.install(peer)
        self.loop.cancel("linger")
        self.loop.cancel("socket")
        if epoch > self.state.epoch:
            self.state.epoch = epoch
            self.custody.save()
        self.custody.examine_slot()
        peer.greeted = True
        self.peers.send(
            peer,
            {
                "is": "hello",
                "protocol": peer.protocol,
                "shim_pid": os.getpid(),
                "running": self.custody.describe(),
                "held_by": self.custody.held,
                "exits": len(self.state.exits),
                "exits_lost": self.state.exits_lost,
            },
        )
        for record in list(self.state.exits):
            self.peers.send(peer, {"is": "exited", "record": record})

    @property
    def displaced(self) -> bool:
        """Whether the slot's folder, or what proves that we serve it, was deleted: nobody finds us."""
        try:
            named, held = os.stat("shim.lock"), os.fstat(self._guard)
        except OSError:
            return True
        return (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino)

    def consider_leaving(self) -> None:
        if self.custody.binary is None and self.displaced:
            self.loop.ending = True  # whoever is attached starts another shim, in a folder that exists
        self._look_after_socket()
        if self.custody.binary is None and not self.peers:
            self.loop.after(self._linger, "linger", self._leave)

    def _look_after_socket(self) -> None:
        """While unattended: listen again if the socket was deleted, as the next visor could not reach us."""
        if self.peers.client is not None or self.loop.ending:
            return
        if not self.displaced and not self.peers.can_be_reached():
            try:
                self.peers.listen()
                note("shim.sock was gone; listening again")
            except OSError as error:
                note(f"shim.sock is gone and cannot be made: {error}")
        self.loop.after(LOOK_SECONDS, "socket", self._look_after_socket)

    def _leave(self) -> None:
        if self.custody.binary is None and not self.peers:
            self.loop.ending = True

    def on_signals(self, numbers: bytes) -> None:
        """SIGCHLD: reap orphans. SIGTERM: leave, but never from under a binary, whose exit status would be
        lost.
        """
        self.custody.reap()
        if signal.SIGTERM in numbers and self.custody.binary is None:
            self.loop.ending = True


def serve(arguments: "list[str]") -> int:
    """Serve the slot in the folder ``arguments[0]``. Return 0, or 3 if another shim already does."""
    os.chdir(arguments[0])
    try:
        os.setsid()
    except PermissionError:
        pass  # we lead a session already
    first = _arrange_descriptors()
    guard = os.open("shim.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 3  # the client finds it by its socket
    _say_who_serves(guard)
    become_subreaper()
    service = Service(float(arguments[1]) if len(arguments) > 1 else 30.0, guard)
    _arrange_signals(service)
    service.state.load()
    service.custody.examine_slot()
    try:
        service.peers.listen()
    except OSError as error:
        note(f"shim.sock cannot be made: {error}")  # tried again; whoever started us needs none
    service.consider_leaving()
    if first >= 0:
        try:
            service.peers.add(socket.socket(fileno=first))
        except OSError:
            os.close(first)  # descriptor 0 was no socket
    service.loop.run()
    service.peers.flush()
    if not service.displaced:
        service.peers.stop_listening()
    if service.state.dirty:
        service.custody.save()
    return 0


def _say_who_serves(guard: int) -> None:
    """Write our pid and start time over the last ones: in place, for which even a full disk has room."""
    us = f"{os.getpid()} {ProcessStat(os.getpid()).start_ticks}"
    try:
        os.pwrite(guard, us.ljust(39).encode() + b"\n", 0)
    except OSError as error:
        note(f"shim.lock cannot be written: {error}")  # a binary that waits to be adopted matters more


def _arrange_descriptors() -> int:
    """Keep descriptor 0 (the first client, perhaps) elsewhere and return it; errors go to shim.err; close
    the rest.
    """
    first = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 10)
    if os.path.exists("shim.err") and os.path.getsize("shim.err") > 65536:
        os.unlink("shim.err")
    errors = os.open("shim.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open("/dev/null", os.O_RDWR)
    for number, fd in enumerate((null, errors, errors)):
        os.dup2(fd, number)
    os.closerange(3, first)
    os.closerange(first + 1, 1 << 20)
    return first


def _arrange_signals(service: Service) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in range(1, signal.NSIG):
        try:
            signal.signal(number, signal.SIG_IGN if number in IGNORED else signal.SIG_DFL)
        except (OSError, ValueError):
            pass  # SIGKILL, SIGSTOP and those libc keeps for itself
    woken, waker = pair()
    woken.setblocking(False)
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    service.wakers = (woken, waker)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    service.loop.watch(woken.fileno(), lambda _: service.on_signals(woken.recv(1)))
