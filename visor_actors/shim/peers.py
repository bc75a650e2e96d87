"""The socket and who is connected to it."""

# contextlib.suppress would cost 1 MiB of memory in every shim

import os
import select
import sys

from visor_actors.shim.lean import decode, encode, note, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from visor_actors.shim.lean import Record
    from visor_actors.shim.loop import Loop

PROTOCOLS = (1, 2)  # spoken here; 2 added "progress" and "dropped"
MAX_LINE = 512 * 1024  # bytes of one line from a client: an order carries a whole environment
MAX_OUTBOX = 1024 * 1024  # bytes a client may leave unread before it is dropped
MAX_PEERS = 8
FLUSH_SECONDS = 1.0
HELLO_SECONDS = 5.0  # a client has this long to say who it is
READ = select.EPOLLIN | select.EPOLLRDHUP


class Peer:
    """One connection. It has no rights before its hello."""

    def __init__(self, sock: "socket.socket") -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.passed: list[int] = []  # descriptors that came with its messages
        self.protocol = PROTOCOLS[0]
        self.greeted = (
            False  # has been told the state of the slot, so what changes from there on means something
        )


class Peers:
    """Accepts connections, cuts their bytes into commands, and drops who misbehaves. One of them is the
    client.
    """

    def __init__(
        self, loop: "Loop", obey: "Callable[[Peer, Record], None]", vacated: "Callable[[], None]"
    ) -> None:
        self.client: Peer | None = None
        self._loop = loop
        self._obey = obey
        self._vacated = vacated
        self._peers: dict[int, Peer] = {}
        self._listener: socket.socket | None = None
        self._bound: os.stat_result | None = None

    def __bool__(self) -> bool:
        return bool(self._peers)

    def listen(self) -> None:
        """Bind ``shim.sock`` in the current folder: relative, as socket paths are short and homes may not
        be. Once more if need be; raises OSError.
        """
        self.stop_listening()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.setblocking(False)
        umask = os.umask(0o177)
        try:
            listener.bind("shim.sock")
        finally:
            os.umask(umask)  # the binary inherits it from us, and we from visor
        listener.listen(64)
        self._listener, self._bound = listener, os.stat("shim.sock")
        self._loop.watch(listener.fileno(), lambda _: self._accept(listener))

    def stop_listening(self) -> None:
        """Remove ``shim.sock``: ours to remove, as we hold shim.lock."""
        if self._listener is not None:
            self._loop.unwatch(self._listener.fileno())
            self._listener.close()
            self._listener = self._bound = None
        if os.path.lexists("shim.sock"):
            os.unlink("shim.sock")

    def can_be_reached(self) -> bool:
        """Does ``shim.sock`` still lead to us?"""
        try:
            return self._bound is not None and os.path.samestat(os.stat("shim.sock"), self._bound)
        except OSError:
            return False

    def _accept(self, listener: "socket.socket") -> None:
        try:
            fd, _ = listener._accept()  # type: ignore[attr-defined]  # of the C half; socket.accept wraps it
        except OSError:
            return
        self.add(socket.socket(fileno=fd))

    def add(self, sock: "socket.socket") -> None:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # pid, uid, gid
        if (
            int.from_bytes(credentials[4:8], sys.byteorder) not in (os.geteuid(), 0)
            or len(self._peers) >= MAX_PEERS
        ):
            sock.close()
            return
        peer = Peer(sock)
        self._peers[peer.fd] = peer
        self._loop.watch(peer.fd, lambda events: self._on_events(peer, events), READ)
        self._loop.after(HELLO_SECONDS, peer, lambda: self.drop(peer))

    def install(self, peer: Peer) -> None:
        """Make ``peer`` the client; the one before is dropped."""
        former, self.client = self.client, peer
        self._loop.cancel(peer)
        if former is not None and former is not peer:
            self.send(former, {"is": "replaced"})
            self.drop(former)

    def drop(self, peer: Peer) -> None:
        if self._peers.pop(peer.fd, None) is None:
            return
        self._loop.cancel(peer)
        self._loop.unwatch(peer.fd)
        for fd in peer.passed:
            os.close(fd)
        peer.passed.clear()
        peer.sock.close()
        if self.client is peer:
            self.client = None
        self._vacated()

    def send(self, peer: Peer, record: "Record") -> None:
        """Send as much as the connection takes now and the rest when it can. Never blocks."""
        if peer.fd in self._peers:
            peer.outbox += encode(record)
            self._flush(peer)

    def tell(self, record: "Record") -> None:
        """Send to the client, if one has been greeted and its protocol knows the message."""
        client = self.client
        if (
            client is not None
            and client.greeted
            and (client.protocol >= 2 or record["is"] not in ("progress", "dropped"))
        ):
            self.send(client, record)

    def flush(self) -> None:
        """Before leaving: send what is left to send, in a second at most for each."""
        for peer in list(self._peers.values()):
            try:
                peer.sock.settimeout(FLUSH_SECONDS)
                if peer.outbox:
                    peer.sock.sendall(peer.outbox, socket.MSG_NOSIGNAL)
            except OSError:
                continue

    def _flush(self, peer: Peer) -> None:
        try:
            while peer.outbox:
                del peer.outbox[: peer.sock.send(peer.outbox, socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            pass
        except OSError:
            self.drop(peer)
            return
        if len(peer.outbox) > MAX_OUTBOX:
            self.drop(peer)
            return
        self._loop.modify(peer.fd, READ | (select.EPOLLOUT if peer.outbox else 0))

    def _on_events(self, peer: Peer, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush(peer)
        if events & ~select.EPOLLOUT and peer.fd in self._peers:
            self._receive(peer)

    def _receive(self, peer: Peer) -> None:
        try:
            data, extras, _, _ = peer.sock.recvmsg(
                65536, socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return
        except OSError:
            self.drop(peer)
            return
        for level, kind, payload in extras:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                for start in range(0, len(payload) - 3, 4):
                    peer.passed.append(int.from_bytes(payload[start : start + 4], sys.byteorder))
        peer.inbox += data
        while peer.fd in self._peers:
            line, newline, rest = peer.inbox.partition(b"\n")
            if not newline:
                break
            peer.inbox = rest
            try:
                self._obey(peer, decode(bytes(line)))
            except (ValueError, KeyError, TypeError, OverflowError) as error:
                note(f"client dropped: {error!r}")
                self.drop(peer)
            except Exception:
                # A failure of ours: it attaches again and is told how things are, not left to wait.
                sys.excepthook(*sys.exc_info())
                self.drop(peer)
        if not data or len(peer.inbox) > MAX_LINE or len(peer.passed) > 4:
            self.drop(peer)
