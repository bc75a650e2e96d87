"""The admin RPC client against a core that is well, ill, or none."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from tests.node.nasty_server import NastyServer, Peer, answer, status_body, well_behaved
from visor_actors import __version__
from visor_actors.node import admin_rpc
from visor_actors.node.admin_rpc import AdminRpcClient, AdminRpcError, Release, UpgradeStatus


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "core.sock"


@pytest.fixture
def client(path: Path) -> Iterator[AdminRpcClient]:
    with AdminRpcClient(path, "/rpc", connect_timeout=5, answer_timeout=5, total_timeout=10) as made:
        yield made


@pytest.fixture
def hasty(path: Path) -> Iterator[AdminRpcClient]:
    """A client that does not wait long, for servers that never answer."""
    with AdminRpcClient(path, "/rpc", connect_timeout=0.1, answer_timeout=0.1, total_timeout=0.3) as made:
        yield made


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


# What a healthy core says


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        pytest.param({"tag": None}, UpgradeStatus(release=None, ready=False), id="just started"),
        pytest.param(
            {"tag": "", "height": 0}, UpgradeStatus(release=None, ready=False), id="nothing accepted"
        ),
        pytest.param(
            {}, UpgradeStatus(release=Release(tag="v0.79.1", height=35), ready=False), id="accepted"
        ),
        pytest.param(
            {"ready": True}, UpgradeStatus(release=Release(tag="v0.79.1", height=35), ready=True), id="ready"
        ),
        pytest.param(
            {"key": "FuryReleaseTag", "ready": True},
            UpgradeStatus(release=Release(tag="v0.79.1", height=35), ready=True),
            id="another brand",
        ),
        pytest.param(
            {"tag": None, "ready": True}, UpgradeStatus(release=None, ready=True), id="ready without info"
        ),
        pytest.param(
            {"tag": "", "height": 0, "ready": True},
            UpgradeStatus(release=None, ready=True),
            id="ready with an empty tag",
        ),
    ],
)
def test_every_state_of_a_core_is_understood(
    path: Path, client: AdminRpcClient, kind: dict[str, object], expected: UpgradeStatus
) -> None:
    def core(peer: Peer) -> None:
        peer.send(answer(status_body(peer.request_id(), **kind)))  # type: ignore[arg-type]  # test data
        peer.wait_for_the_end()

    with NastyServer(core, path=path):
        assert client.upgrade_status() == expected


def test_the_question_is_the_one_the_nodes_own_tools_ask(path: Path, client: AdminRpcClient) -> None:
    seen: list[bytes] = []

    def core(peer: Peer) -> None:
        request = peer.request()
        assert request is not None
        seen.append(request)
        peer.send(answer(status_body(json.loads(request.partition(b"\r\n\r\n")[2])["id"])))
        peer.wait_for_the_end()

    with NastyServer(core, path=path):
        client.upgrade_status()
    head, _, body = seen[0].partition(b"\r\n\r\n")
    request_id = json.loads(body)["id"]
    assert 0 <= request_id < 2**63
    assert body == b'{"method":"protocolupgrade.UpgradeStatus","params":[null],"id":%d}\n' % request_id
    assert head.split(b"\r\n") == [
        b"POST /rpc HTTP/1.1",
        b"Host: unix",
        f"User-Agent: visor-actors/{__version__}".encode(),
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
    ]


def test_one_connection_serves_many_questions_with_fresh_ids(path: Path, client: AdminRpcClient) -> None:
    ids: list[int] = []

    def core(peer: Peer) -> None:
        while True:
            request_id = peer.request_id()
            ids.append(request_id)
            peer.send(answer(status_body(request_id)))

    with NastyServer(core, path=path) as server:
        before = open_fds()
        for _ in range(50):
            client.upgrade_status()
        assert server.accepted == 1
        assert len(open_fds() - before) <= 2  # both ends of the one connection
        client.close()
    assert len(set(ids)) == 50


def test_the_pid_behind_the_socket_is_known_while_a_connection_is_kept(
    path: Path, client: AdminRpcClient
) -> None:
    pids = [client.peer_pid]
    with NastyServer(well_behaved, path=path):
        client.upgrade_status()
        pids.append(client.peer_pid)
        client.close()
        pids.append(client.peer_pid)
    assert pids == [None, os.getpid(), None]


def test_a_connection_that_was_closed_between_questions_is_opened_again(
    path: Path, client: AdminRpcClient
) -> None:
    closed = threading.Event()

    def core(peer: Peer) -> None:
        peer.send(answer(status_body(peer.request_id(), height=peer.number)))
        if peer.number == 1:
            peer.connection.close()
            closed.set()
            return
        peer.wait_for_the_end()

    with NastyServer(core, path=path) as server:
        assert client.upgrade_status().release == Release(tag="v0.79.1", height=1)
        assert closed.wait(20)
        assert client.upgrade_status().release == Release(tag="v0.79.1", height=2)
        assert server.accepted == 2


def test_a_question_is_asked_again_when_the_kept_connection_dies_under_it(
    path: Path, client: AdminRpcClient
) -> None:
    def core(peer: Peer) -> None:
        peer.send(answer(status_body(peer.request_id())))
        if peer.number == 1:
            peer.request_id()  # the second question is read and never answered
            return
        peer.wait_for_the_end()

    with NastyServer(core, path=path) as server:
        client.upgrade_status()
        client.upgrade_status()
        assert server.accepted == 2


def test_a_new_core_at_the_same_path_is_found(path: Path, client: AdminRpcClient) -> None:
    with NastyServer(well_behaved, path=path):
        client.upgrade_status()
    with pytest.raises(admin_rpc.Refused):
        client.upgrade_status()
    path.unlink()
    with pytest.raises(admin_rpc.Absent):
        client.upgrade_status()
    with NastyServer(well_behaved, path=path):
        assert client.upgrade_status().release is not None


def test_a_server_that_closes_after_each_answer_is_served_anyway(path: Path, client: AdminRpcClient) -> None:
    def core(peer: Peer) -> None:
        body = status_body(peer.request_id())
        peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + body.encode()
        )

    with NastyServer(core, path=path) as server:
        for _ in range(3):
            assert client.upgrade_status().release is not None
        assert server.accepted == 3


def test_a_chunked_answer_is_read(path: Path, client: AdminRpcClient) -> None:
    def core(peer: Peer) -> None:
        body = status_body(peer.request_id()).encode()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 10):
            piece = body[start : start + 10]
            peer.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        peer.send(b"0\r\n\r\n")
        peer.wait_for_the_end()

    with NastyServer(core, path=path):
        assert client.upgrade_status().release is not None


@pytest.mark.parametrize("length", [90, 107, 108, 300])
def test_a_socket_path_may_be_as_long_as_it_likes(tmp_path: Path, length: int) -> None:
    folder = tmp_path
    while len(str(folder)) < length:
        folder /= "x" * min(60, length - len(str(folder)))
    folder.mkdir(parents=True, exist_ok=True)
    long = folder / "s.sock"
    here = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        before = open_fds()
        with (
            NastyServer(well_behaved, path=Path(f"/proc/self/fd/{here}/s.sock")),
            AdminRpcClient(long, "/rpc") as client,
        ):
            assert client.upgrade_status().release is not None
        assert open_fds() == before
    finally:
        os.close(here)


def test_a_long_path_that_is_not_there_is_absent(tmp_path: Path) -> None:
    with pytest.raises(admin_rpc.Absent):
        AdminRpcClient(tmp_path / ("x" * 100) / "s.sock", "/rpc").upgrade_status()


# Nobody there


def test_no_socket_is_absent(path: Path, client: AdminRpcClient) -> None:
    with pytest.raises(admin_rpc.Absent, match=r"core\.sock does not exist"):
        client.upgrade_status()


def test_a_missing_folder_is_absent_too(tmp_path: Path) -> None:
    with pytest.raises(admin_rpc.Absent):
        AdminRpcClient(tmp_path / "gone" / "core.sock", "/rpc").upgrade_status()


def test_a_socket_left_behind_is_refused(path: Path, client: AdminRpcClient) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    with pytest.raises(admin_rpc.Refused) as caught:
        client.upgrade_status()
    assert not caught.value.answered


@pytest.mark.parametrize(("kind", "words"), [("file", "a regular file"), ("folder", "a folder")])
def test_another_kind_of_file_is_not_a_socket(
    path: Path, client: AdminRpcClient, kind: str, words: str
) -> None:
    if kind == "file":
        path.write_text("")
    else:
        path.mkdir()
    with pytest.raises(admin_rpc.NotASocket) as caught:
        client.upgrade_status()
    assert caught.value.found == words


def test_a_datagram_socket_is_not_an_admin_socket(path: Path, client: AdminRpcClient) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(admin_rpc.NotASocket):
            client.upgrade_status()


def test_a_socket_of_another_user_is_denied(path: Path, client: AdminRpcClient) -> None:
    with NastyServer(well_behaved, path=path):
        path.chmod(0)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)  # root may connect to everything
        try:
            with pytest.raises(admin_rpc.Denied):
                client.upgrade_status()
        finally:
            os.seteuid(was)


# Somebody there, and no answer


def test_a_full_backlog_ends_at_the_connect_timeout(path: Path, hasty: AdminRpcClient) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(path))
            with pytest.raises(admin_rpc.TimedOut) as caught:
                hasty.upgrade_status()
    assert caught.value.phase == "connect"


def test_a_core_that_accepts_and_never_answers_times_out(path: Path, hasty: AdminRpcClient) -> None:
    with NastyServer(Peer.wait_for_the_end, path=path), pytest.raises(admin_rpc.TimedOut) as caught:
        hasty.upgrade_status()
    assert caught.value.phase == "answer"
    assert not caught.value.answered


def test_slow_bytes_do_not_stretch_the_total_deadline(path: Path) -> None:
    def core(peer: Peer) -> None:
        for byte in answer(status_body(peer.request_id())):
            peer.send(bytes([byte]))
            if peer.over.wait(0.02):
                return

    with (
        NastyServer(core, path=path),
        AdminRpcClient(path, "/rpc", answer_timeout=10, total_timeout=0.3) as client,
    ):
        started = monotonic()
        with pytest.raises(admin_rpc.TimedOut) as caught:
            client.upgrade_status()
        assert monotonic() - started < 20  # far below what the bytes would have taken on a loaded machine
    assert caught.value.phase == "reply"


def test_a_late_answer_is_never_taken_for_the_next_one(path: Path, hasty: AdminRpcClient) -> None:
    asked_twice = threading.Event()

    def core(peer: Peer) -> None:
        request_id = peer.request_id()
        if peer.number == 1:
            asked_twice.wait(20)
            peer.send(answer(status_body(request_id, tag="v-late")))
        else:
            peer.send(answer(status_body(request_id, tag="v-new")))
            peer.wait_for_the_end()

    with NastyServer(core, path=path):
        with pytest.raises(admin_rpc.TimedOut):
            hasty.upgrade_status()
        asked_twice.set()
        with AdminRpcClient(path, "/rpc", answer_timeout=10, total_timeout=10):
            assert hasty.upgrade_status().release == Release(tag="v-new", height=35)


@pytest.mark.parametrize("cut", [0, 1, 9, 40, 120, 150])
def test_a_core_that_closes_inside_its_answer_has_dropped_it(
    path: Path, client: AdminRpcClient, cut: int
) -> None:
    def core(peer: Peer) -> None:
        peer.send(answer(status_body(peer.request_id()))[:cut])

    with NastyServer(core, path=path), pytest.raises(admin_rpc.Dropped) as caught:
        client.upgrade_status()
    assert caught.value.received == cut


# An answer that is none


def caught_from(path: Path, client: AdminRpcClient, reply: bytes) -> AdminRpcError:
    """Serve ``reply`` (with ID replaced by the request's) and return the error it causes."""

    def core(peer: Peer) -> None:
        request_id = peer.request_id()
        if reply.count(b"ID") == 1:
            body = reply.replace(b"ID", str(request_id).encode())
            peer.send(answer(body))
        else:
            peer.send(reply)
        peer.wait_for_the_end()

    with NastyServer(core, path=path), pytest.raises(AdminRpcError) as caught:
        client.upgrade_status()
    assert client.peer_pid is None
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ("400 Bad Request", 'rpc: can\'t find method "protocolupgrade.Nope"'),
        ("404 Not Found", "404 page not found\n"),
        ("405 Method Not Allowed", "rpc: POST method required, received GET"),
        ("415 Unsupported Media Type", "rpc: unrecognized Content-Type: "),
        ("500 Internal Server Error", ""),
    ],
)
def test_another_http_status_is_told_with_its_text(
    path: Path, client: AdminRpcClient, status: str, text: str
) -> None:
    error = caught_from(path, client, answer(text, status=status, content_type="text/plain"))
    assert isinstance(error, admin_rpc.BadStatus)
    assert error.status == int(status[:3])
    assert error.body == text.strip()
    assert error.answered


def test_an_error_of_the_handler_is_told(path: Path, client: AdminRpcClient) -> None:
    error = caught_from(path, client, b'{"result":null,"error":"boom","id":ID}\n')
    assert isinstance(error, admin_rpc.RpcFailed)
    assert error.error == "boom"


def test_the_answer_to_another_question_is_refused(path: Path, client: AdminRpcClient) -> None:
    error = caught_from(path, client, answer(status_body(12345, ready=True)))
    assert isinstance(error, admin_rpc.WrongId)
    assert error.got == "12345"


@pytest.mark.parametrize("wrong", [b'"ID"', b"ID.0", b"[ID]", b"null", b"true"])
def test_an_id_of_another_kind_is_refused(path: Path, client: AdminRpcClient, wrong: bytes) -> None:
    body = b'{"result":{"AcceptedReleaseInfo":null,"ReadyToUpgrade":true},"error":null,"id":' + wrong + b"}"
    reply = body if b"ID" in body else answer(body)
    assert isinstance(caught_from(path, client, reply), admin_rpc.WrongId)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"ok ID",
        b"[ID]",
        b'"ID"',
        b'{"id":ID}',
        b'{"result":{"AcceptedReleaseInfo":null,"ReadyToUpgrade":true},"id":ID}',
        b'{"result":null,"error":null,"id":ID}',
        b'{"result":[],"error":null,"id":ID}',
        b'{"result":{},"error":null,"id":ID}',
        b'{"result":{"ReadyToUpgrade":true},"error":null,"id":ID}',
        b'{"result":{"AcceptedReleaseInfo":null,"ReadyToUpgrade":"true"},"error":null,"id":ID}',
        b'{"result":{"AcceptedReleaseInfo":null,"ReadyToUpgrade":1},"error":null,"id":ID}',
        b'{"result":{"AcceptedReleaseInfo":[],"ReadyToUpgrade":true},"error":null,"id":ID}',
        b'{"result":{"AcceptedReleaseInfo":null,"ReadyToUpgrade":true},"error":null,"id":ID}{}',
        b'{"result":{"AcceptedReleaseInfo":null,"ReadyToUpgrade":true,"x":1,"x":2},"error":null,"id":ID}',
        b'{"result":{"AcceptedReleaseInfo":null,"ReadyToUpgrade":true},"error":null,"id":ID,"x":NaN}',
        b'{"result":{"AcceptedReleaseInfo":null,"ReadyToUpgrade":true},"error":null,"id":ID,"x":"\xff"}',
        b'{"result":' + b"[" * 30_000 + b'],"error":null,"id":ID}',
        b'{"result":{"a":' * 100 + b'ID,"error":null}',
    ],
)
def test_an_answer_of_another_shape_is_malformed(path: Path, client: AdminRpcClient, body: bytes) -> None:
    error = caught_from(path, client, body if body else answer(b""))
    assert isinstance(error, admin_rpc.Malformed)
    assert error.answered


@pytest.mark.parametrize(
    "info",
    [
        "{}",
        '{"VegaReleaseTag":"v1"}',
        '{"UpgradeBlockHeight":5}',
        '{"VegaReleaseTag":"v1","FuryReleaseTag":"v2","UpgradeBlockHeight":5}',
        '{"VegaReleaseTag":null,"UpgradeBlockHeight":5}',
        '{"VegaReleaseTag":"v1","UpgradeBlockHeight":"5"}',
        '{"VegaReleaseTag":"v1","UpgradeBlockHeight":5.0}',
        '{"VegaReleaseTag":"v1","UpgradeBlockHeight":true}',
        '{"VegaReleaseTag":"v1","UpgradeBlockHeight":-5}',
        '{"VegaReleaseTag":"v1","UpgradeBlockHeight":0}',
        '{"VegaReleaseTag":"v1","UpgradeBlockHeight":9223372036854775808}',
        '{"VegaReleaseTag":"v1","UpgradeBlockHeight":' + "9" * 5000 + "}",
        '{"VegaReleaseTag":"v1\\n","UpgradeBlockHeight":5}',
        '{"VegaReleaseTag":"\\ud800","UpgradeBlockHeight":5}',
        '{"VegaReleaseTag":"' + "v" * 200 + '","UpgradeBlockHeight":5}',
    ],
)
def test_release_info_that_cannot_be_meant_is_malformed(
    path: Path, client: AdminRpcClient, info: str
) -> None:
    body = f'{{"result":{{"AcceptedReleaseInfo":{info},"ReadyToUpgrade":true}},"error":null,"id":ID}}'
    assert isinstance(caught_from(path, client, body.encode()), admin_rpc.Malformed)


@pytest.mark.parametrize(
    "reply",
    [
        b"\x00\x01\x02\x03garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10,
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
)
def test_bytes_that_are_no_answer_are_refused(path: Path, client: AdminRpcClient, reply: bytes) -> None:
    assert isinstance(caught_from(path, client, reply), admin_rpc.Malformed | admin_rpc.BadStatus)


def test_the_wrong_content_type_is_malformed(path: Path, client: AdminRpcClient) -> None:
    error = caught_from(path, client, answer("<html>", content_type="text/html"))
    assert isinstance(error, admin_rpc.Malformed)
    assert "text/html" in str(error)


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 100000000", b"Transfer-Encoding: chunked", b"X-None: 1"]
)
def test_a_body_of_a_hundred_megabytes_is_cut_off_at_the_limit(
    path: Path, client: AdminRpcClient, framing: bytes
) -> None:
    sent = 0
    done = threading.Event()

    def core(peer: Peer) -> None:
        nonlocal sent
        peer.request_id()
        try:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + framing + b"\r\n\r\n")
            block = b" " * 8192
            while sent < 100_000_000:
                peer.send(b"2000\r\n" + block + b"\r\n" if b"chunked" in framing else block)
                sent += len(block)
        finally:
            done.set()

    with NastyServer(core, path=path):
        with pytest.raises(admin_rpc.TooLarge) as caught:
            client.upgrade_status()
        assert done.wait(20)
    assert caught.value.limit == 64 * 1024
    assert sent < 2_000_000


def test_an_endless_head_is_cut_off_at_the_limit(path: Path, client: AdminRpcClient) -> None:
    def core(peer: Peer) -> None:
        peer.request_id()
        peer.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            peer.send(b"X-More: yes\r\n" * 100)

    with NastyServer(core, path=path), pytest.raises(admin_rpc.TooLarge):
        client.upgrade_status()


def test_bytes_after_an_answer_end_the_connection_and_not_the_answer(
    path: Path, client: AdminRpcClient
) -> None:
    def core(peer: Peer) -> None:
        request_id = peer.request_id()
        peer.send(answer(status_body(request_id, ready=True)) + answer(status_body(request_id)))
        peer.wait_for_the_end()

    with NastyServer(core, path=path) as server:
        assert client.upgrade_status().ready
        assert client.upgrade_status().ready
        assert server.accepted == 2


def test_a_flapping_status_is_told_as_it_flaps(path: Path, client: AdminRpcClient) -> None:
    def core(peer: Peer) -> None:
        ready = False
        while True:
            peer.send(answer(status_body(peer.request_id(), ready=ready)))
            ready = not ready

    with NastyServer(core, path=path):
        assert [client.upgrade_status().ready for _ in range(6)] == [False, True] * 3


def test_after_any_failure_the_next_question_starts_afresh(path: Path, client: AdminRpcClient) -> None:
    bad = [
        b"garbage",
        answer("{"),
        answer(status_body(1)),
        answer("", status="500 Oops"),
        b"HTTP/1.1 200 OK\r\n",
    ]

    def core(peer: Peer) -> None:
        request_id = peer.request_id()
        if peer.number <= len(bad):
            peer.send(bad[peer.number - 1])
            peer.connection.shutdown(socket.SHUT_WR)
            return
        peer.send(answer(status_body(request_id)))
        peer.wait_for_the_end()

    before = open_fds()
    with NastyServer(core, path=path):
        for _ in bad:
            with pytest.raises(AdminRpcError):
                client.upgrade_status()
        assert client.upgrade_status().release is not None
        client.close()
    assert open_fds() == before


def test_every_leaf_says_one_sentence_and_the_socket(path: Path) -> None:
    leaves = [
        admin_rpc.Absent(path),
        admin_rpc.Refused(path),
        admin_rpc.Denied(path),
        admin_rpc.NotASocket(path, "a folder"),
        admin_rpc.Unreachable(path, OSError(12, "no memory")),
        admin_rpc.TimedOut(path, "answer", 2.0),
        admin_rpc.Dropped(path, 10),
        admin_rpc.BadStatus(path, 500, "oops"),
        admin_rpc.RpcFailed(path, "boom"),
        admin_rpc.Malformed(path, "it is null"),
        admin_rpc.TooLarge(path, 65536),
        admin_rpc.WrongId(path, 1, "2"),
    ]
    assert {type(leaf) for leaf in leaves} == set(AdminRpcError.__subclasses__())
    for leaf in leaves:
        assert str(path) in str(leaf) or isinstance(leaf, admin_rpc.RpcFailed)
        assert leaf.socket_path == path


def test_the_export_list_is_complete() -> None:
    public = {
        name
        for name, value in vars(admin_rpc).items()
        if isinstance(value, type)
        and value.__module__ in (admin_rpc.__name__, Release.__module__, AdminRpcError.__module__)
    }
    assert public == set(admin_rpc.__all__)
