"""Decides whether a fetched asset is the genuine one. Fails closed.

One rule: **what is configured or published must hold**. A pinned checksum, a configured public key or
checksum asset and a published digest are each checked when they are there; a configured one that cannot be
checked is a failure. The policy only says what happens when there is none of them at all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from visor_actors.home.settings import Verify
from visor_actors.install.checksums import ChecksumsUnclear, find_checksum, parse_pin
from visor_actors.install.errors import Refused
from visor_actors.install.messages import FailureKind, Proof, Verification
from visor_actors.install.minisign import (
    SignatureInvalid,
    parse_public_key,
    parse_signature,
    verify_file,
)
from visor_actors.install.order import InstallOrder


class Fetched(Struct, frozen=True, kw_only=True):
    """A complete download: where it lies, its SHA-256 and the digest its publisher named, both in lower-case
    hex.
    """

    path: Path
    sha256: str
    published: str | None


def verify(
    order: InstallOrder, fetched: Fetched, read_small: Callable[[str], bytes | None], scratch: Path
) -> Verification:
    """Return what proves ``fetched`` genuine, or raise :class:`Refused`.

    ``read_small`` returns a small asset of the same release by name, None when it is missing; ``scratch`` is
    a folder for a copy of a signed checksum file.
    """
    if order.verify is Verify.OFF:
        return Verification(
            proofs=(Proof.NOTHING,), details="verification is off (autoInstall.verify)", sha256=fetched.sha256
        )
    proofs: list[Proof] = []
    words: list[str] = []
    if order.pin is not None:
        _compare(order.asset, fetched.sha256, parse_pin(order.pin), "the pinned checksum")
        proofs.append(Proof.PINNED)
        words.append("matches the pinned checksum")
    sums = _checksum_file(order, read_small)
    if order.public_key is not None:
        words.append(_check_signature(order, order.public_key, fetched, sums, read_small, scratch))
        proofs.append(Proof.SIGNATURE)
    if sums is not None:
        _compare(order.asset, fetched.sha256, sums.expected, sums.name)
        proofs.append(Proof.CHECKSUM_ASSET)
        words.append(f"matches {sums.name}")
    if fetched.published is not None:
        _compare(order.asset, fetched.sha256, fetched.published, "the published digest")
        proofs.append(Proof.DIGEST)
        words.append("matches the published digest")
    if proofs:
        return Verification(
            proofs=tuple(proofs), details=f"{order.asset} {' and '.join(words)}", sha256=fetched.sha256
        )
    if order.verify is Verify.REQUIRED:
        raise Refused(
            FailureKind.NOTHING_TO_VERIFY,
            f"nothing proves {order.asset} of {order.tag} genuine: no digest, checksum or signature",
            f'pin it after checking it yourself: "{order.tag}/{order.asset}" = "sha256:{fetched.sha256}"'
            " in [autoInstall.checksums]",
        )
    return Verification(
        proofs=(Proof.NOTHING,),
        details=f"nothing proves {order.asset} of {order.tag} genuine: no digest, checksum or signature",
        sha256=fetched.sha256,
    )


class _Sums(Struct, frozen=True, kw_only=True):
    name: str
    content: bytes
    expected: str


def _checksum_file(order: InstallOrder, read_small: Callable[[str], bytes | None]) -> _Sums | None:
    if order.checksum_asset is None:
        return None
    name = order.checksum_asset.replace("{asset}", order.asset).replace("{tag}", order.tag)
    content = read_small(name)
    if content is None:
        raise Refused(
            FailureKind.VERIFICATION_FAILED,
            f"release {order.tag} has no {name}, which is configured to prove its assets",
            "correct or remove autoInstall.checksumAsset",
        )
    try:
        expected = find_checksum(content.decode("utf-8", errors="replace"), order.asset)
    except ChecksumsUnclear as error:
        raise _refusal(order, f"{name} is unclear: {error}") from error
    if expected is None:
        raise _refusal(order, f"{name} names no SHA-256 for {order.asset}")
    return _Sums(name=name, content=content, expected=expected)


def _check_signature(
    order: InstallOrder,
    configured_key: str,
    fetched: Fetched,
    sums: _Sums | None,
    read_small: Callable[[str], bytes | None],
    scratch: Path,
) -> str:
    """Check the asset's own signature, or where there is none that of the checksum file."""
    try:
        key = parse_public_key(configured_key)
    except SignatureInvalid as error:
        raise Refused(FailureKind.VERIFICATION_FAILED, str(error), "correct autoInstall.publicKey") from error
    candidates = [(order.asset, fetched.path)]
    if sums is not None:
        copy = scratch / "checksums"
        copy.write_bytes(sums.content)
        candidates.append((sums.name, copy))
    for name, path in candidates:
        content = read_small(f"{name}.minisig")
        if content is None:
            continue
        try:
            signature = parse_signature(content.decode("utf-8"))
            verify_file(path, signature, key, signed_name=name)
        except (SignatureInvalid, UnicodeDecodeError) as error:
            raise _refusal(order, f"{name}.minisig does not prove {name}: {error}") from error
        return (
            f"is signed by {key.label}"
            if name == order.asset
            else f"is listed in {name}, signed by {key.label}"
        )
    raise _refusal(order, f"a public key is configured, but the release has no {order.asset}.minisig")


def _compare(asset: str, found: str, expected: str | None, by: str) -> None:
    if found != expected:
        raise Refused(
            FailureKind.VERIFICATION_FAILED,
            f"{asset} is not what {by} says: its SHA-256 is {found}, it should be {expected or 'readable'}",
            "do not use this file; ask the publisher, and compare with what other operators see",
        )


def _refusal(order: InstallOrder, why: str) -> Refused:
    return Refused(
        FailureKind.VERIFICATION_FAILED,
        f"{order.asset} of {order.tag} is not proven genuine: {why}",
        "ask the publisher; autoInstall.publicKey and autoInstall.checksumAsset say what is expected",
    )
