"""What proves a release genuine, and that whatever does not hold keeps it from being installed."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tests.install.conftest import ASSET, TAG, Bench
from visor_actors.home.settings import Verify
from visor_actors.install.checksums import ChecksumsUnclear, find_checksum, parse_pin
from visor_actors.install.messages import FailureKind, Note, Proof
from visor_actors.install.minisign import SignatureInvalid, parse_public_key, parse_signature
from visor_actors.simulator import release_faults as faults
from visor_actors.simulator.release_faults import At

HEX = "0123456789abcdef" * 4
OTHER = "f" * 64


@dataclass(frozen=True)
class Signer:
    """Signs as minisign does."""

    key_id: bytes = b"12345678"
    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public_key(self) -> str:
        raw = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(b"Ed" + self.key_id + raw).decode()

    def sign(
        self, content: bytes, *, prehashed: bool = True, comment: str = "timestamp:1\tfile:" + ASSET
    ) -> bytes:
        message = hashlib.blake2b(content).digest() if prehashed else content
        signature = self.private.sign(message)
        overall = self.private.sign(signature + comment.encode())
        first = base64.b64encode((b"ED" if prehashed else b"Ed") + self.key_id + signature).decode()
        second = base64.b64encode(overall).decode()
        return f"untrusted comment: a comment\n{first}\ntrusted comment: {comment}\n{second}\n".encode()


def sums(content: bytes, name: str = ASSET) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n{OTHER}  another.zip\n".encode()


# The published digest


def test_a_wrong_digest_is_refused_and_the_file_not_kept(bench: Bench) -> None:
    bench.server.set_digest(TAG, ASSET, f"sha256:{OTHER}")
    error = bench.fail()
    assert (error.kind, error.transient) == (FailureKind.VERIFICATION_FAILED, False)
    assert not (bench.staging / "download.part").exists()


def test_a_flipped_bit_is_found(bench: Bench) -> None:
    bench.server.inject(faults.Corrupt(at=At.CONTENT, position=1234))
    assert bench.fail().kind is FailureKind.VERIFICATION_FAILED


def test_without_any_proof_required_refuses_and_says_what_to_pin(bench: Bench) -> None:
    bench.server.set_digest(TAG, ASSET, None)
    error = bench.fail(verify=Verify.REQUIRED)
    assert error.kind is FailureKind.NOTHING_TO_VERIFY
    digest = hashlib.sha256(bench.asset).hexdigest()
    assert f'"{TAG}/{ASSET}" = "sha256:{digest}"' in error.next_step
    done = bench.run(verify=Verify.REQUIRED, pinned={f"{TAG}/{ASSET}": f"sha256:{digest}"})
    assert done.verification.proofs == (Proof.PINNED,)


def test_without_any_proof_if_available_installs_and_says_so_loudly(bench: Bench) -> None:
    bench.server.set_digest(TAG, ASSET, None)
    assert bench.run().verification.proofs == (Proof.NOTHING,)
    loud = [said for said in bench.said if isinstance(said, Note) and said.loud]
    assert [said.name for said in loud] == ["install.unverified"]


def test_a_digest_of_an_unknown_kind_counts_as_none(bench: Bench) -> None:
    bench.server.set_digest(TAG, ASSET, "sha512:" + HEX * 2)
    assert bench.fail(verify=Verify.REQUIRED).kind is FailureKind.NOTHING_TO_VERIFY


def test_off_looks_at_nothing(bench: Bench) -> None:
    bench.server.set_digest(TAG, ASSET, f"sha256:{OTHER}")
    done = bench.run(verify=Verify.OFF, pinned={f"{TAG}/{ASSET}": f"sha256:{OTHER}"}, public_key="nonsense")
    assert done.verification.proofs == (Proof.NOTHING,)


# Pinned checksums and checksum assets


def test_a_wrong_pin_is_refused_although_the_digest_holds(bench: Bench) -> None:
    error = bench.fail(pinned={f"{TAG}/{ASSET}": f"sha256:{OTHER}"})
    assert error.kind is FailureKind.VERIFICATION_FAILED
    assert "pinned" in error.message


def test_a_pin_that_cannot_be_read_is_refused(bench: Bench) -> None:
    assert bench.fail(pinned={f"{TAG}/{ASSET}": "md5:0"}).kind is FailureKind.VERIFICATION_FAILED


def test_a_pin_of_another_release_does_not_matter(bench: Bench) -> None:
    assert bench.run(pinned={f"v0.0.0/{ASSET}": f"sha256:{OTHER}"}).verification.proofs == (Proof.DIGEST,)


def test_a_checksum_asset_is_compared(bench: Bench) -> None:
    bench.server.add_release(TAG, {"SHA256SUMS": sums(bench.asset)})
    done = bench.run(checksum_asset="SHA256SUMS", verify=Verify.REQUIRED)
    assert done.verification.proofs == (Proof.CHECKSUM_ASSET, Proof.DIGEST)


@pytest.mark.parametrize(
    "content",
    [
        sums(b"something else"),
        sums(b"x", name="not-this.zip"),
        b"",
        b"\xff\xfe\x00",
        f"{HEX}  {ASSET}\n{OTHER}  {ASSET}\n".encode(),
    ],
    ids=["wrong", "not listed", "empty", "no text", "contradictory"],
)
def test_a_checksum_asset_that_does_not_prove_it_refuses_it(bench: Bench, content: bytes) -> None:
    bench.server.add_release(TAG, {"SHA256SUMS": content})
    assert bench.fail(checksum_asset="SHA256SUMS").kind is FailureKind.VERIFICATION_FAILED


def test_a_configured_checksum_asset_that_is_missing_refuses_it(bench: Bench) -> None:
    error = bench.fail(checksum_asset="SHA256SUMS")
    assert error.kind is FailureKind.VERIFICATION_FAILED
    assert "no SHA256SUMS" in error.message


def test_a_checksum_file_without_end_is_refused(bench: Bench) -> None:
    bench.server.add_release(TAG, {"SHA256SUMS": bytes(2 << 20)})
    assert bench.fail(checksum_asset="SHA256SUMS").kind is FailureKind.VERIFICATION_FAILED


@pytest.mark.parametrize(
    "text",
    [
        f"{HEX}  fury.zip",
        f"{HEX} *fury.zip\r\n{OTHER} *x.zip\r\n",
        f"{HEX.upper()}  ./dist/fury.zip\n",
        f"# sums\nSHA256 (fury.zip) = {HEX}\nMD5 (fury.zip) = 00\n",
        f"SHA2-256(dist/fury.zip)= {HEX}\n".replace("SHA2-", "SHA-"),
        f"{HEX}\n",
        f"\ufeff{HEX}  fury.zip\n",
        f"{HEX}  fury.zip\n{HEX}  fury.zip\n",
    ],
)
def test_checksum_files_of_every_kind_are_read(text: str) -> None:
    assert find_checksum(text, "fury.zip") == HEX


@pytest.mark.parametrize(
    "text", ["", f"{HEX}  fury.zip.sig", f"{HEX[:-1]}  fury.zip", f"{HEX} {HEX}", f"{HEX * 2}  fury.zip"]
)
def test_what_names_no_sum_gives_none(text: str) -> None:
    assert find_checksum(text, "fury.zip") is None


def test_two_sums_for_one_name_are_unclear() -> None:
    with pytest.raises(ChecksumsUnclear):
        find_checksum(f"{HEX}  fury.zip\n{OTHER}  x/fury.zip\n", "fury.zip")


@given(st.text(), st.text())
def test_no_checksum_file_breaks_the_reader(text: str, name: str) -> None:
    try:
        found = find_checksum(text, name)
    except ChecksumsUnclear:
        return
    assert found is None or (len(found) == 64 and found in text.lower())


@pytest.mark.parametrize(
    ("text", "found"), [(f"sha256:{HEX.upper()}", HEX), (HEX, HEX), ("sha512:" + HEX, None), ("", None)]
)
def test_pins_are_read(text: str, found: str | None) -> None:
    assert parse_pin(text) == found


# Signatures


@pytest.mark.parametrize("prehashed", [True, False])
def test_a_signature_proves_a_release(bench: Bench, prehashed: bool) -> None:
    signer = Signer()
    bench.server.add_release(TAG, {f"{ASSET}.minisig": signer.sign(bench.asset, prehashed=prehashed)})
    public_key = f"untrusted comment: minisign public key\n{signer.public_key}\n"
    done = bench.run(public_key=public_key, verify=Verify.REQUIRED)
    assert Proof.SIGNATURE in done.verification.proofs


def test_a_signed_checksum_file_proves_a_release(bench: Bench) -> None:
    signer = Signer()
    content = sums(bench.asset)
    signed = signer.sign(content, comment="file:SHA256SUMS")
    bench.server.add_release(TAG, {"SHA256SUMS": content, "SHA256SUMS.minisig": signed})
    done = bench.run(public_key=signer.public_key, checksum_asset="SHA256SUMS")
    assert done.verification.proofs[:2] == (Proof.SIGNATURE, Proof.CHECKSUM_ASSET)


def bad_signatures(signer: Signer, content: bytes) -> dict[str, bytes]:
    good = signer.sign(content).decode().split("\n")
    comment_changed = [*good[:2], good[2].replace("timestamp:1", "timestamp:2"), *good[3:]]
    swapped = [good[0], signer.sign(content).decode().split("\n")[1], *good[2:]]
    return {
        "of something else": signer.sign(content + b"x"),
        "by another key with the same id": Signer(key_id=signer.key_id).sign(content),
        "by another key": Signer(key_id=b"87654321").sign(content),
        "of another file": signer.sign(content, comment="timestamp:1\tfile:other.zip"),
        "with a changed comment": "\n".join(comment_changed).encode(),
        "legacy claimed as prehashed": signer.sign(content, prehashed=False).replace(b"RWQ", b"RUQ"),
        "empty": b"",
        "garbage": b"\xff\xff",
        "too many lines": signer.sign(content) + b"more\n",
        "cut": "\n".join(swapped[:3]).encode(),
    }


@pytest.mark.parametrize("which", sorted(bad_signatures(Signer(), b"")))
def test_a_bad_signature_refuses_the_release(bench: Bench, which: str) -> None:
    signer = Signer()
    bad = bad_signatures(signer, bench.asset)[which]
    bench.server.add_release(TAG, {f"{ASSET}.minisig": bad})
    assert bench.fail(public_key=signer.public_key).kind is FailureKind.VERIFICATION_FAILED


def test_a_signature_by_another_key_names_both(bench: Bench) -> None:
    signer = Signer()
    bench.server.add_release(TAG, {f"{ASSET}.minisig": Signer(key_id=b"87654321").sign(bench.asset)})
    error = bench.fail(public_key=signer.public_key)
    assert signer.key_id[::-1].hex().upper() in error.message
    assert b"12345678".hex().upper() in error.message


def test_a_missing_signature_refuses_the_release_when_a_key_is_configured(bench: Bench) -> None:
    error = bench.fail(public_key=Signer().public_key, verify=Verify.IF_AVAILABLE)
    assert error.kind is FailureKind.VERIFICATION_FAILED
    assert f"no {ASSET}.minisig" in error.message


@pytest.mark.parametrize("key", ["", "nonsense", "RWQ=", base64.b64encode(bytes(42)).decode()])
def test_a_key_that_is_none_refuses_the_release(bench: Bench, key: str) -> None:
    assert bench.fail(public_key=key).kind is FailureKind.VERIFICATION_FAILED


@given(st.text())
def test_no_text_breaks_the_readers_of_keys_and_signatures(text: str) -> None:
    for read in (parse_public_key, parse_signature):
        with pytest.raises(SignatureInvalid):
            read(text)


def test_nothing_is_executed_before_it_is_verified(bench: Bench) -> None:
    """The release's own program would leave a mark; the digest is wrong, so it must not get the chance."""
    mark = bench.home / "ran"
    script = f"#!/bin/sh\ntouch {mark}\n".encode()
    bench.server.add_release("v6", {ASSET: script})
    bench.server.set_digest("v6", ASSET, f"sha256:{OTHER}")
    assert bench.fail(tag="v6").kind is FailureKind.VERIFICATION_FAILED
    assert not mark.exists()
    bench.server.set_digest("v6", ASSET, None)
    assert bench.fail(tag="v6").kind is FailureKind.WRONG_VERSION
    assert mark.exists()
