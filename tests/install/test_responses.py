"""What headers and redirects mean, whatever a server writes into them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from visor_actors.install.errors import InstallError, RateLimited, TransferFailed
from visor_actors.install.responses import (
    next_hop,
    origin_of,
    parse_content_range,
    problem_of,
    strong_validator,
    without_query,
)
from visor_actors.install.retry import Patience, backoff_delay

NAMES = [
    "retry-after",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "date",
    "etag",
    "content-range",
    "location",
]
VALUES = st.one_of(
    st.text(max_size=30), st.integers().map(str), st.just("Wed, 21 Oct 2015 07:28:00 GMT"), st.just("0")
)
HEADERS = st.dictionaries(st.sampled_from(NAMES), VALUES).map(CaseInsensitiveDict)


@given(status=st.integers(200, 599), headers=HEADERS, body=st.text(max_size=100), now=st.floats(0, 4e9))
def test_any_answer_means_something_bounded(
    status: int, headers: CaseInsensitiveDict[str], body: str, now: float
) -> None:
    problem = problem_of(
        url="https://host/x", status=status, headers=headers, body=body, now=now, authorized=False
    )
    assert (problem is None) == (status in (200, 206))
    if problem is not None:
        assert problem.message
        assert problem.next_step
        assert problem.retry_after is None or 0 <= problem.retry_after <= 24 * 3600
        assert not isinstance(problem, RateLimited) or status in (403, 429)


@given(
    url=st.sampled_from(["https://a/x", "http://a/x"]), location=st.one_of(st.none(), st.text(max_size=40))
)
def test_a_redirect_leads_to_http_or_nowhere(url: str, location: str | None) -> None:
    try:
        target = next_hop(url, location, hops=0)
    except TransferFailed:
        return
    assert origin_of(target)[0] in ("http", "https")
    assert not (url.startswith("https") and target.startswith("http:"))


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("https://a/x", "https://b/y?z", "https://b/y?z"),
        ("https://a/x/y", "z", "https://a/x/z"),
        ("http://a/x", "//b/y", "http://b/y"),
        ("http://a/x", "https://a/x", "https://a/x"),
    ],
)
def test_good_redirects_are_followed(url: str, location: str, target: str) -> None:
    assert next_hop(url, location, hops=4) == target


@pytest.mark.parametrize(
    "location", ["http://a/x", "ftp://a/x", "file:///x", "", "https://a:99999999/", None]
)
def test_bad_redirects_are_not(location: str | None) -> None:
    with pytest.raises(TransferFailed):
        next_hop("https://a/x", location, hops=0)


def test_origins_differ_by_scheme_host_and_port() -> None:
    assert origin_of("https://A.example/x") == origin_of("https://a.example:443/y?z")
    assert len({origin_of(url) for url in ("http://a", "https://a", "https://a:444", "https://b")}) == 4


def test_what_may_be_secret_in_an_address_is_not_shown() -> None:
    assert without_query("https://user:password@host:1/path?signature=secret#x") == "https://host:1/path"


@given(
    st.one_of(
        st.none(), st.text(max_size=40), st.from_regex(r"bytes [0-9]{0,20}-[0-9]{0,20}/([0-9]{0,20}|\*)")
    )
)
def test_a_content_range_makes_sense_or_is_none(value: str | None) -> None:
    found = parse_content_range(value)
    if found is not None:
        first, last, total = found
        assert 0 <= first <= last
        assert total is None or last < total


@pytest.mark.parametrize(
    ("tag", "strong"), [('"abc"', '"abc"'), ('W/"abc"', None), ("abc", None), ("", None), ('"a\nb"', None)]
)
def test_only_strong_entity_tags_validate(tag: str, strong: str | None) -> None:
    assert strong_validator({"etag": tag}) == strong


@given(failures=st.integers(1, 10_000), seed=st.integers())
def test_backing_off_grows_and_is_bounded(failures: int, seed: int) -> None:
    delay = backoff_delay(failures, random.Random(seed), base=0.5, maximum=20.0)
    ceiling = min(20.0, 0.5 * 2.0 ** min(failures - 1, 30))
    assert ceiling / 2 <= delay <= ceiling


def test_patience_never_comes_back_sooner_than_asked() -> None:
    pauses: list[float] = []
    patience = Patience(
        attempts=3, longest_wait=60, sleep=pauses.append, rng=random.Random(1), on_retry=lambda *_: None
    )
    patience.wait_after(RateLimited("later", retry_after=41))
    with pytest.raises(InstallError):
        patience.wait_after(RateLimited("much later", retry_after=61))
    assert pauses == [41]
