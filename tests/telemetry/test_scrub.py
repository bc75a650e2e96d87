"""Secrets never get through, whatever shape they have; and hostile lines cost no more than their length."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visor_actors.telemetry.scrub import LONGEST, MASK, Scrubber, is_secret_name


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("reporting to https://abc123def@o1.ingest.sentry.invalid/5", "abc123def"),
        ("GET https://user:pazzwort@mirror.invalid/x", "pazzwort"),
        ("using ghp_abcdefghijklmnopqrst0123456789", "ghp_abcdefghij"),
        ("github_pat_11ABCDEFG0abcdefghijk_lmnop", "11ABCDEFG0"),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("authorization: token abcdef", "abcdef"),
        ('{"apiKey": "xx yy", "a": 1}', "xx yy"),
        ("passphrase: hunter2, ok", "hunter2"),
        ("PASSWORD='a b c' next", "b c"),
        ("GITHUB_TOKEN=abcd1234", "abcd1234"),
        ("--token abcd1234 --home /x", "abcd1234"),
        ("--nodewallet-passphrase=abcd1234", "abcd1234"),
        ("https://mainnet.infura.io/v3/0123456789abcdef0123456789abcdef", "0123456789abcdef"),
        ("https://s3.invalid/x?X-Amz-Signature=abcdef&y=1", "abcdef"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc", "eyJhbGciOi"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----", "MIIEvQ"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nMIIEvQ and the end is missing", "MIIEvQ"),
    ],
)
def test_a_secret_is_masked(text: str, secret: str) -> None:
    scrubbed = Scrubber().text(text)
    assert secret not in scrubbed
    assert MASK in scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "the token is invalid",
        "author: me, authority=foo, monkey: x",
        "tokenFile = /etc/token",
        "--nodewallet-passphrase-file /srv/passphrase.txt",
        "core ended by itself after 3 s (exit 2); restarting in 5 s",
        "block.AppHash does not match AppHash after replay. Got 0123456789abcdef, expected fedcba",
        "https://github.com/vegaprotocol/vega/releases/download/v0.72.14/vega-linux-amd64.zip",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Scrubber().text(text) == text


def test_a_learned_secret_is_hidden_wherever_it_appears() -> None:
    scrubber = Scrubber()
    scrubber.learn("s3cr3t-value")
    scrubber.learn("s3cr3t-value-longer")
    scrubber.learn("abc")
    scrubber.learn(None)
    assert scrubber.text("xs3cr3t-value-longery abc") == f"x{MASK}y abc"


def test_arguments_keep_what_is_harmless_and_strictly_only_flags() -> None:
    argv = ["/bin/vega", "start", "--home", "/srv/x", "--token=abcdef", "--passphrase", "xyz", "-v", "word"]
    scrubber = Scrubber()
    assert scrubber.arguments(argv) == (
        "/bin/vega",
        "start",
        "--home",
        "/srv/x",
        f"--token={MASK}",
        "--passphrase",
        MASK,
        "-v",
        "word",
    )
    assert scrubber.strict_arguments(argv) == (
        "/bin/vega",
        "start",
        "--home",
        MASK,
        f"--token={MASK}",
        "--passphrase",
        MASK,
        "-v",
        MASK,
    )
    assert scrubber.arguments([]) == ()


def test_nested_values_are_scrubbed_by_name_and_by_look() -> None:
    value = {
        "token": "abc",
        "tokenFile": "/x",
        "list": ["--home /srv/x", {"password": 3}],
        "argv": ["vega", "--home", "/srv/x"],
        "empty": {"secret": "", "token": None},
        3: 4.5,
    }
    assert Scrubber().value(value) == {
        "token": MASK,
        "tokenFile": "/x",
        "list": [f"--home {MASK}", {"password": MASK}],
        "argv": ["vega", "--home", MASK],
        "empty": {"secret": "", "token": None},
        3: 4.5,
    }


def test_a_value_nested_without_end_ends() -> None:
    value: dict[str, object] = {}
    value["a"] = value
    assert MASK in str(Scrubber().value(value))


def test_names_of_secrets_are_known_and_names_of_their_files_are_none() -> None:
    for name in (
        "token",
        "apiKey",
        "api_key",
        "GITHUB_TOKEN",
        "--passphrase",
        "dsn",
        "x-auth",
        "credentials",
    ):
        assert is_secret_name(name), name
    for name in ("tokenFile", "--passphrase-file", "key", "monkey", "tokens_left", "author", "folder", ""):
        assert not is_secret_name(name), name


def test_long_texts_are_cut() -> None:
    assert len(Scrubber().text("x" * (LONGEST * 2))) < LONGEST + 100


@pytest.mark.parametrize(
    "piece",
    [
        "a-b=c:d\"'",
        "a.b-c_",
        "-",
        " ",
        "-a ",
        "token ",
        "token:",
        'token="',
        "token:'",
        "eyJ-",
        "Bearer ",
        "?sig=",
    ],
)
def test_hostile_lines_do_not_hang(piece: str) -> None:
    done = threading.Event()

    def scrub() -> None:
        Scrubber().strict_text(piece * (LONGEST // len(piece)))
        done.set()

    thread = threading.Thread(target=scrub, daemon=True)
    thread.start()
    assert done.wait(20)
    thread.join()


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab =:-\"'\\@/?&\n.tokenpwd", max_size=200))
def test_scrubbing_never_fails_and_scrubbing_twice_changes_nothing_more(text: str) -> None:
    scrubber = Scrubber()
    once = scrubber.strict_text(text)
    assert scrubber.strict_text(once).count(MASK) >= once.count(MASK)
