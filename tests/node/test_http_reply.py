"""The parser of HTTP replies: any cutting of the bytes gives the same reply, and any bytes end in a reply or
a refusal."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visor_actors.node.http_reply import (
    Reply,
    ReplyCutShort,
    ReplyMalformed,
    ReplyReader,
    ReplyTooLarge,
)

BODIES = st.binary(max_size=300)


def read(pieces: Sequence[bytes], *, max_body: int = 1024) -> Reply:
    """Feed ``pieces`` and then the end of the connection."""
    reader = ReplyReader(max_body=max_body)
    for piece in pieces:
        reply = reader.feed(piece)
        if reply is not None:
            return reply
    return reader.end()


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[left:right] for left, right in itertools.pairwise(borders)]


def framed(body: bytes, framing: str, sizes: Sequence[int]) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
    match framing:
        case "length":
            return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        case "chunked":
            chunks, position = b"", 0
            for size in [*sizes, len(body)]:
                piece = body[position : position + size]
                position += len(piece)
                if piece:
                    chunks += b"%x;ext=1\r\n%s\r\n" % (len(piece), piece)
            return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nTrailer: 1\r\n\r\n"
        case _:
            return head + b"\r\n" + body


@given(
    body=BODIES,
    framing=st.sampled_from(["length", "chunked", "to the end"]),
    sizes=st.lists(st.integers(1, 50), max_size=5),
    places=st.lists(st.integers(0, 10_000), max_size=6),
)
def test_the_body_is_the_same_however_the_bytes_arrive(
    body: bytes, framing: str, sizes: list[int], places: list[int]
) -> None:
    reply = read(cut(framed(body, framing, sizes), places))
    assert reply.body == body
    assert reply.status == 200
    assert reply.media_type == "application/json"
    assert reply.reusable is (framing != "to the end")


@given(data=st.binary(max_size=400), places=st.lists(st.integers(0, 1000), max_size=4))
def test_arbitrary_bytes_end_in_a_reply_or_a_refusal(data: bytes, places: list[int]) -> None:
    for start in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        with contextlib.suppress(ReplyMalformed, ReplyTooLarge, ReplyCutShort):
            read(cut(start + data, places))


@given(
    body=BODIES.filter(bool),
    framing=st.sampled_from(["length", "chunked"]),
    missing=st.integers(1, 20),
)
def test_a_reply_that_ends_early_is_cut_short_and_never_taken_for_whole(
    body: bytes, framing: str, missing: int
) -> None:
    whole = framed(body, framing, [7])
    with pytest.raises(ReplyCutShort) as caught:
        read([whole[:-missing]])
    assert caught.value.received == len(whole) - missing


def test_an_interim_reply_is_skipped() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert read([interim + framed(b"{}", "length", [])]).body == b"{}"


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive, Close\r\n", False),
        (b"HTTP/1.1 200\r\n", True),
    ],
)
def test_a_connection_is_used_again_only_where_the_peer_allows_it(head: bytes, reusable: bool) -> None:
    assert read([head + b"Content-Length: 2\r\n\r\nhi"]).reusable is reusable


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: 1_0",
        b"Content-Length: +5",
        b"Content-Length: " + b"9" * 30,
        b"Content-Length : 5",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity",
        b": no name",
        b" folded: value",
    ],
)
def test_a_framing_that_is_not_plain_is_refused(header: bytes) -> None:
    with pytest.raises(ReplyMalformed):
        read([b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\nhello"])


def test_a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    for framing in ("length", "chunked", "to the end"):
        assert len(read([framed(b"x" * 1024, framing, [1000])]).body) == 1024
        with pytest.raises(ReplyTooLarge):
            read([framed(b"x" * 1025, framing, [1000])])


def test_too_many_header_lines_are_refused() -> None:
    with pytest.raises(ReplyTooLarge):
        read([b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 101 + b"\r\n"])


def test_endless_chunk_sizes_and_trailers_are_refused() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with pytest.raises(ReplyMalformed):
        read([head + b"0" * 10_000])
    with pytest.raises(ReplyTooLarge):
        read([head + b"0\r\n" + b"A: b\r\n" * 10_000])


def test_the_same_length_said_twice_is_one_length() -> None:
    twice = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\nX: a\r\nX: b\r\n\r\nhello"
    reply = read([twice])
    assert reply.body == b"hello"
    assert reply.headers["x"] == "a, b"


def test_a_head_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    for length, fits in ((64, True), (65, False)):
        line = b"HTTP/1.1 204 No Content\r\nX: "
        reader = ReplyReader(max_body=10, max_head=64)
        data = line + b"x" * (length - len(line)) + b"\r\n\r\n"
        if fits:
            assert reader.feed(data) is not None
        else:
            with pytest.raises(ReplyTooLarge):
                reader.feed(data)
