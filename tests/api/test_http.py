from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visor_actors.api.http import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    HttpProblem,
    Request,
    RequestReader,
    Response,
    parse_response,
    render_request,
    render_response,
)

POST = b"POST /stop?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"


def read(data: bytes) -> Request | None:
    return RequestReader().feed(data)


def test_a_request_is_read_with_its_parts() -> None:
    assert read(POST) == Request(
        method="POST",
        path="/stop",
        query="x=1",
        headers={"host": "a", "content-length": "4"},
        body=b"body",
    )


@given(st.lists(st.integers(min_value=0, max_value=len(POST)), max_size=8))
def test_a_request_may_arrive_in_any_pieces(cuts: list[int]) -> None:
    reader = RequestReader()
    edges = sorted({0, len(POST), *cuts})
    pieces = [POST[start:end] for start, end in pairwise(edges)]
    answers = [reader.feed(piece) for piece in pieces]
    assert answers[:-1] == [None] * (len(pieces) - 1)
    assert answers[-1] == read(POST)


def test_our_own_request_is_understood() -> None:
    request = read(render_request("POST", "/hold", b"{}"))
    assert request is not None
    assert (request.method, request.path, request.body) == ("POST", "/hold", b"{}")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 505),
        (b"BREW / HTTP/1.1\r\n\r\n", 501),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nName : x\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\n\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), 413),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"GET /" + b"a" * MAX_HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_right_status(data: bytes, status: int) -> None:
    with pytest.raises(HttpProblem) as caught:
        read(data)
    assert caught.value.status == status


@given(st.binary(max_size=300))
def test_no_bytes_whatever_raise_anything_but_a_refusal(data: bytes) -> None:
    with contextlib.suppress(HttpProblem):
        read(data + b"\r\n\r\n")


def test_a_response_is_read_back_as_it_was_sent() -> None:
    sent = Response(status=409, body=b"{}", headers=(("Allow", "GET"),))
    received = parse_response(render_response(sent))
    assert (received.status, received.body, received.content_type) == (409, b"{}", "application/json")
    assert ("allow", "GET") in received.headers


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"HTTP/1.1 200",
        b"HTTP/1.1 abc OK\r\n\r\n",
        render_response(Response(status=200, body=b"12345"))[:-1],
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ],
)
def test_a_broken_response_is_noticed(data: bytes) -> None:
    with pytest.raises(HttpProblem):
        parse_response(data)


def test_an_answer_to_head_announces_the_body_and_does_not_send_it() -> None:
    data = render_response(Response(status=200, body=b"12345"), with_body=False)
    assert b"Content-Length: 5\r\n" in data
    assert data.endswith(b"\r\n\r\n")
