"""A release is fetched from a server that behaves, from one that misbehaves in every way we know, and from
folders.
"""

from __future__ import annotations

import email.utils
import hashlib
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.install.conftest import ASSET, TAG, Bench
from visor_actors.home.settings import Verify
from visor_actors.install.errors import RateLimited
from visor_actors.install.messages import FailureKind, Phase, Progress, Proof
from visor_actors.install.order import Limits
from visor_actors.simulator import release_faults as faults
from visor_actors.simulator.release_faults import At
from visor_actors.simulator.release_server import ReleaseServer

QUICK = Limits(stall_seconds=0.3, connect_seconds=2.0, attempts=3, lock_seconds=0.2)


def test_a_release_is_fetched_verified_and_put_in_place(bench: Bench) -> None:
    done = bench.run()
    assert done.folder == bench.home / TAG
    assert done.verification.proofs == (Proof.DIGEST,)
    assert done.bytes == len(bench.asset)
    binary = done.folder / "fury"
    assert binary.stat().st_mode & 0o7777 == 0o755
    assert not bench.staging.exists()
    phases = [said.phase for said in bench.said if isinstance(said, Progress)]
    assert [phase for index, phase in enumerate(phases) if phase not in phases[:index]] == [
        Phase.RESOLVING,
        Phase.DOWNLOADING,
        Phase.VERIFYING,
        Phase.UNPACKING,
        Phase.CHECKING,
        Phase.FINISHING,
    ]


def test_one_call_resolves_a_release(bench: Bench) -> None:
    bench.run()
    assert [request.path for request in bench.server.seen("interface")] == [
        f"/repos/simulated/node/releases/tags/{TAG}",
        "/repos/simulated/node/releases/assets/1001",
    ]


@pytest.mark.parametrize(
    "fault",
    [
        faults.Cut(at=At.CONTENT, after=1000),
        faults.Cut(at=At.CONTENT, after=0),
        faults.Reset(at=At.CONTENT, after=5000),
        faults.Answer(at=At.CONTENT, status=500),
        faults.Answer(at=At.LINK, status=502),
        faults.Answer(at=At.RELEASE, status=503, body="<html>busy</html>"),
        faults.Cut(at=At.RELEASE, after=30),
        faults.Reset(at=At.RELEASE, after=30),
        faults.Encoded(at=At.CONTENT),
        faults.Answer(at=At.RELEASE, status=200, body="[1, 2"),
        faults.Answer(at=At.RELEASE, status=200, body='"a text"'),
    ],
    ids=lambda fault: f"{type(fault).__name__}-{fault.at.value}",
)
def test_what_passes_is_tried_again(bench: Bench, fault: faults.AnyFault) -> None:
    bench.server.inject(fault)
    assert bench.run().verification.proofs == (Proof.DIGEST,)
    assert len(bench.pauses) == 1
    assert len(bench.notes("install.retrying")) == 1


def test_encoded_data_is_not_taken_for_the_file(bench: Bench) -> None:
    bench.server.inject(faults.Encoded(at=At.CONTENT))
    bench.run()
    assert "gzip-encoded" in bench.notes("install.retrying")[0]


def test_a_stalled_download_is_given_up_and_resumed(bench: Bench) -> None:
    bench.server.inject(faults.Stall(at=At.CONTENT, after=20_000))
    bench.run(limits=QUICK)
    assert bench.server.seen("store")[-1].headers["range"] == "bytes=20000-"


def test_a_download_that_drips_is_as_good_as_stalled(bench: Bench) -> None:
    bench.server.inject(faults.Drip(at=At.CONTENT, size=8, pause=0.05, times=1))
    bench.run(limits=QUICK)
    assert "bytes a second" in bench.notes("install.retrying")[0]


def test_patience_ends(bench: Bench) -> None:
    bench.server.inject(faults.Answer(at=At.CONTENT, status=500, times=None))
    error = bench.fail(limits=QUICK)
    assert (error.kind, error.transient) == (FailureKind.SERVER_ERROR, True)
    assert len(bench.pauses) == QUICK.attempts - 1


def test_progress_renews_patience(bench: Bench) -> None:
    steps = [faults.Cut(at=At.CONTENT, after=10_000) for _ in range(6)]
    bench.server.inject(*steps)
    assert bench.run(limits=QUICK).bytes == len(bench.asset)
    assert len(bench.pauses) == len(steps)


def test_a_server_that_is_not_there_is_a_transient_failure(bench: Bench) -> None:
    bench.server.close()
    error = bench.fail(limits=QUICK)
    assert (error.kind, error.transient) == (FailureKind.NETWORK, True)
    assert "Connection refused" in error.message


# Rate limits


@pytest.mark.parametrize("status", [403, 429])
def test_a_primary_limit_is_waited_for_to_the_second(bench: Bench, status: int) -> None:
    now = int(time.time())
    headers = {
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": str(now + 5000 + 37),
        "date": email.utils.formatdate(now + 5000),  # a server whose clock is not ours
    }
    bench.server.inject(faults.Answer(at=At.RELEASE, status=status, headers=headers, body="{}"))
    bench.run()
    assert bench.pauses == [37.0]


@pytest.mark.parametrize("status", [403, 429])
def test_a_secondary_limit_is_waited_for_as_told(bench: Bench, status: int) -> None:
    body = '{"message": "You have exceeded a secondary rate limit."}'
    bench.server.inject(
        faults.Answer(at=At.RELEASE, status=status, headers={"retry-after": "23"}, body=body),
        faults.Answer(at=At.RELEASE, status=status, body=body),
    )
    bench.run()
    assert bench.pauses == [23.0, 60.0]


def test_a_429_that_says_nothing_is_waited_for_a_minute(bench: Bench) -> None:
    bench.server.inject(faults.Answer(at=At.RELEASE, status=429))
    bench.run()
    assert bench.pauses == [60.0]


def test_a_long_limit_ends_the_job_and_names_the_time(bench: Bench) -> None:
    bench.server.inject(faults.Answer(at=At.RELEASE, status=403, headers={"retry-after": "1800"}))
    error = bench.fail()
    assert isinstance(error, RateLimited)
    assert error.retry_after == 1800.0
    assert not bench.pauses


def test_a_403_that_is_no_limit_is_final(bench: Bench) -> None:
    bench.server.inject(
        faults.Answer(at=At.RELEASE, status=403, body='{"message": "Resource not accessible"}')
    )
    error = bench.fail()
    assert (error.kind, error.transient) == (FailureKind.ACCESS_DENIED, False)
    assert "Resource not accessible" in error.message


# What is not there


def test_a_missing_asset_is_answered_with_those_there_are(bench: Bench) -> None:
    error = bench.fail(asset_name="fury-linux-arm64.zip")
    assert (error.kind, error.transient) == (FailureKind.ASSET_MISSING, False)
    assert f"{ASSET}, vegawallet-linux-amd64.zip" in error.message


def test_a_missing_release_is_answered_with_those_there_are(bench: Bench) -> None:
    bench.server.add_release("v1.2.4", {})
    error = bench.fail(tag="v1.2.5")
    assert error.kind is FailureKind.RELEASE_MISSING
    assert "v1.2.4" in error.message
    assert "v1.2.3" in error.message


def test_a_missing_repository_is_told_apart_from_a_missing_release(bench: Bench) -> None:
    error = bench.fail(repository="other")
    assert error.kind is FailureKind.REPOSITORY_MISSING
    assert "tokenFile" in error.next_step


def test_an_asset_on_the_second_page_is_found(bench: Bench) -> None:
    bench.server.listed = 0
    bench.server.page_size = 1
    bench.server.add_release("v9", {"a": b"1", "b": b"2", ASSET: bench.asset})
    error = bench.fail(tag="v9")  # found and unpacked: only then its version is seen to be another
    assert error.kind is FailureKind.WRONG_VERSION


def test_a_draft_is_found_through_the_list(bench: Bench) -> None:
    bench.server.token = "secret"
    bench.server.remove_release(TAG)
    bench.server.add_release(TAG, {ASSET: bench.asset}, draft=True)
    assert bench.run(token="secret").bytes == len(bench.asset)


def test_an_asset_that_is_still_being_uploaded_does_not_count(bench: Bench) -> None:
    bench.server.remove_release(TAG)
    bench.server.add_release(TAG, {ASSET: bench.asset}, state="open")
    assert bench.fail().kind is FailureKind.ASSET_MISSING


# Redirects and the token


def test_the_token_goes_to_the_interface_only(bench: Bench) -> None:
    bench.server.token = "secret-token"
    bench.run(token="secret-token")
    assert all("authorization" in request.headers for request in bench.server.seen("interface"))
    assert not any("authorization" in request.headers for request in bench.server.seen("store"))


def test_the_token_does_not_follow_a_redirect_to_another_host(bench: Bench) -> None:
    with ReleaseServer() as stranger:
        target = f"{stranger.api_url}/repos/simulated/node/releases/tags/{TAG}"
        bench.server.inject(faults.Answer(at=At.RELEASE, status=302, headers={"Location": target}))
        stranger.add_release(TAG, {ASSET: bench.asset})
        bench.run(token="secret-token")
        assert stranger.requests
        assert not any("authorization" in request.headers for request in stranger.requests)


def test_a_netrc_file_is_not_read(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login someone password hidden\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    bench.run()
    assert not any("authorization" in request.headers for request in bench.server.requests)


@pytest.mark.parametrize(
    "fault",
    [
        faults.RedirectToSelf(at=At.RELEASE),
        faults.Answer(at=At.RELEASE, status=302, times=None),
        faults.Answer(at=At.RELEASE, status=302, headers={"Location": "file:///etc/passwd"}, times=None),
        faults.Answer(at=At.RELEASE, status=302, headers={"Location": "http://[::1"}, times=None),
    ],
    ids=["loop", "nowhere", "file", "no address"],
)
def test_a_bad_redirect_ends_in_a_clear_failure(bench: Bench, fault: faults.AnyFault) -> None:
    bench.server.inject(fault)
    error = bench.fail(limits=QUICK)
    assert error.kind is FailureKind.SERVER_ERROR
    assert "redirects" in error.message


def test_a_link_that_has_run_out_is_asked_for_again(bench: Bench) -> None:
    bench.server.inject(
        faults.Answer(at=At.CONTENT, status=403, body="<Error>Request has expired</Error>"),
    )
    bench.run()
    assert len(bench.server.seen("interface", "/assets/")) == 2


# Resuming


def test_an_interrupted_download_is_resumed_with_validation(bench: Bench) -> None:
    bench.server.inject(faults.Cut(at=At.CONTENT, after=30_000))
    bench.run()
    again = bench.server.seen("store")[-1]
    assert again.headers["range"] == "bytes=30000-"
    assert again.headers["if-range"].startswith('"')
    assert again.status == 206
    assert "30000 bytes of them from an earlier attempt" in bench.notes("install.downloaded")[0]


def test_a_later_job_resumes_what_an_earlier_one_fetched(bench: Bench) -> None:
    bench.server.inject(
        faults.Cut(at=At.CONTENT, after=30_000), faults.Answer(at=At.CONTENT, status=500, times=None)
    )
    bench.fail(limits=Limits(attempts=1))
    bench.server.clear_faults()
    bench.run()
    assert bench.server.seen("store")[-1].headers["range"] == "bytes=30000-"


def test_a_complete_download_is_not_fetched_twice(bench: Bench) -> None:
    bench.fail(source_folder=None)
    bench.run()
    assert len(bench.server.seen("store")) == 1


@pytest.mark.parametrize(
    "fault",
    [
        faults.IgnoreRange(at=At.CONTENT),
        faults.WrongRange(at=At.CONTENT, shift=-7, times=None),
        faults.Answer(at=At.CONTENT, status=416),
        faults.Answer(at=At.CONTENT, status=206, body="x", headers={"Content-Range": "nonsense"}),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_server_that_cannot_resume_is_asked_for_the_whole_file(
    bench: Bench, fault: faults.AnyFault
) -> None:
    bench.server.inject(faults.Cut(at=At.CONTENT, after=30_000), fault)
    assert bench.run().bytes == len(bench.asset)


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(bench: Bench) -> None:
    bench.server.set_digest(TAG, ASSET, None)
    bench.server.inject(
        faults.Cut(at=At.CONTENT, after=30_000), faults.Answer(at=At.CONTENT, status=500, times=None)
    )
    bench.fail(limits=Limits(attempts=1))
    bench.server.clear_faults()
    bench.server.replace_content(TAG, ASSET, bench.asset, keep_listing=True)
    assert bench.run().verification.sha256 == hashlib.sha256(bench.asset).hexdigest()
    assert bench.server.seen("store")[-1].status == 200


def test_a_part_of_another_boot_is_not_trusted(bench: Bench) -> None:
    bench.server.inject(faults.Cut(at=At.CONTENT, after=30_000))
    bench.fail(limits=Limits(attempts=1))
    state = bench.staging / "download.json"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    state.write_text(state.read_text().replace(boot, "another"))
    bench.run()
    assert "range" not in bench.server.seen("store")[-1].headers


def test_a_damaged_part_is_found_by_verification_and_fetched_once_more(bench: Bench) -> None:
    bench.server.inject(faults.Cut(at=At.CONTENT, after=30_000))
    bench.fail(limits=Limits(attempts=1))
    part = bench.staging / "download.part"
    with part.open("r+b") as file:
        file.seek(100)
        file.write(b"damage")
    assert bench.run().verification.proofs == (Proof.DIGEST,)
    assert bench.notes("install.refetch")


# Sizes


def test_a_release_that_is_too_large_is_refused_before_it_is_fetched(bench: Bench) -> None:
    bench.server.add_release("v2", {ASSET: bytes(2 << 20)})
    error = bench.fail(tag="v2", max_size_mib=1)
    assert error.kind is FailureKind.TOO_LARGE
    assert not bench.server.seen("store")


def test_an_endless_download_is_cut_off(bench: Bench) -> None:
    bench.server.inject(faults.Endless(at=At.CONTENT))
    error = bench.fail(max_size_mib=2, source=bench.server.template)
    assert error.kind is FailureKind.TOO_LARGE


def test_a_file_of_another_size_than_announced_is_not_taken(bench: Bench) -> None:
    bench.server.replace_content(TAG, ASSET, bench.asset + b"more", keep_listing=True)
    error = bench.fail(limits=QUICK)
    assert "the server sends" in error.message


def test_a_download_of_unknown_length_is_taken(bench: Bench) -> None:
    bench.server.inject(faults.WithoutLength(at=At.CONTENT))
    assert bench.run().bytes == len(bench.asset)


def test_a_disk_that_is_too_full_is_found_out_before_anything_is_fetched(bench: Bench) -> None:
    free = os.statvfs(bench.home).f_bavail * os.statvfs(bench.home).f_frsize
    error = bench.fail(limits=Limits(reserve_mib=(free >> 20) * 2, attempts=1))
    assert (error.kind, error.transient) == (FailureKind.DISK_FULL, True)


# Other sources


def test_a_url_template_is_a_source(bench: Bench) -> None:
    done = bench.run(source=bench.server.template, token="secret-token")
    assert done.verification.proofs == (Proof.NOTHING,)
    assert not bench.server.seen("interface")
    assert not any("authorization" in request.headers for request in bench.server.requests)


def test_a_base_address_is_a_source(bench: Bench) -> None:
    assert bench.run(source=f"{bench.server.store_url}/files").bytes == len(bench.asset)


def test_a_missing_file_behind_a_template_is_final(bench: Bench) -> None:
    error = bench.fail(source=bench.server.template, asset_name="other.zip")
    assert (error.kind, error.transient) == (FailureKind.ASSET_MISSING, False)


def test_a_local_folder_is_a_source(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "releases" / TAG).mkdir(parents=True)
    (tmp_path / "releases" / TAG / ASSET).write_bytes(bench.asset)
    digest = hashlib.sha256(bench.asset).hexdigest()
    (tmp_path / "releases" / TAG / "SHA256SUMS").write_text(f"{digest}  {ASSET}\n")
    done = bench.run(source=str(tmp_path / "releases"), checksum_asset="SHA256SUMS", verify=Verify.REQUIRED)
    assert done.verification.proofs == (Proof.CHECKSUM_ASSET,)
    assert not bench.server.requests


def test_a_file_missing_in_a_local_folder_is_answered_with_what_is_there(
    bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "releases" / TAG).mkdir(parents=True)
    (tmp_path / "releases" / TAG / "other.zip").touch()
    error = bench.fail(source=f"file://{tmp_path}/releases")
    assert error.kind is FailureKind.ASSET_MISSING
    assert "other.zip" in error.message


def test_a_local_folder_that_cannot_be_read_is_tried_again_later(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "releases").write_text("a file where a folder should be")
    error = bench.fail(source=str(tmp_path / "releases"), limits=QUICK)
    assert (error.kind, error.transient) == (FailureKind.FILE_SYSTEM, True)
    assert "autoInstall.source" in error.next_step


def test_a_proxy_of_the_environment_is_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        asked: list[bytes] = []

        def answer_once() -> None:
            connection, _ = proxy.accept()
            with connection:
                asked.append(connection.recv(4096))
                connection.sendall(
                    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )

        thread = threading.Thread(target=answer_once)
        thread.start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        bench.fail(source="http://releases.invalid/{tag}/{asset}")
        thread.join()
    assert asked[0].startswith(f"GET http://releases.invalid/{TAG}/{ASSET} HTTP/1.1".encode())
