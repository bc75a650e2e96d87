"""minisign signatures: Ed25519 over the file, or over its BLAKE2b hash, and over the trusted comment.

The formats are those of minisign's own documentation: a public key is 2 bytes algorithm, 8 bytes key id and
32 bytes key in base64; a signature file has four lines. Everything here works on bytes in memory; only
hashing reads a file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import mmap
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

_LEGACY, _PREHASHED = b"Ed", b"ED"
_LARGEST_LEGACY = 256 << 20


class SignatureInvalid(ValueError):
    """The signature, or the key, does not prove the file; the message says why."""


class SignedByAnotherKey(SignatureInvalid):
    """The signature was made with a key that is not the configured one."""


class PublicKey(Struct, frozen=True, kw_only=True):
    """A minisign public key."""

    key_id: bytes
    key: bytes

    @property
    def label(self) -> str:
        """The key's id as minisign prints it."""
        return self.key_id[::-1].hex().upper()


class Signature(Struct, frozen=True, kw_only=True):
    """A parsed signature file."""

    prehashed: bool
    key_id: bytes
    signature: bytes
    trusted_comment: str
    comment_signature: bytes


def parse_public_key(text: str) -> PublicKey:
    """Read a public key, the base64 line or the whole ``.pub`` file. Raises :class:`SignatureInvalid`."""
    lines = [line.strip() for line in text.strip().splitlines()]
    lines = [line for line in lines if line and not line.startswith("untrusted comment:")]
    data = _decode(lines[0] if len(lines) == 1 else "", "the public key")
    if len(data) != 42 or data[:2] != _LEGACY:
        raise SignatureInvalid("the public key is not a minisign key")
    return PublicKey(key_id=data[2:10], key=data[10:])


def parse_signature(text: str) -> Signature:
    """Read a ``.minisig`` file. Raises :class:`SignatureInvalid`."""
    lines = text.split("\n")
    if len(lines) < 4 or not lines[0].startswith("untrusted comment:"):
        raise SignatureInvalid("the signature is not a minisign signature")
    prefix = "trusted comment: "
    comment_line = lines[2].removesuffix("\r")
    if not comment_line.startswith(prefix) or any(line.strip() for line in lines[4:]):
        raise SignatureInvalid("the signature is not a minisign signature")
    data = _decode(lines[1].strip(), "the signature")
    comment_signature = _decode(lines[3].strip(), "the comment's signature")
    if len(data) != 74 or data[:2] not in (_LEGACY, _PREHASHED) or len(comment_signature) != 64:
        raise SignatureInvalid("the signature is not a minisign signature")
    return Signature(
        prehashed=data[:2] == _PREHASHED,
        key_id=data[2:10],
        signature=data[10:],
        trusted_comment=comment_line.removeprefix(prefix),
        comment_signature=comment_signature,
    )


def verify_file(path: Path, signature: Signature, public_key: PublicKey, *, signed_name: str) -> None:
    """Raise :class:`SignatureInvalid` unless ``signature`` proves that the key's owner signed this file as
    this name.

    A trusted comment that names a file (minisign writes ``file:NAME`` into it) must name ``signed_name``: a
    genuine signature of another asset proves nothing about this one.
    """
    if signature.key_id != public_key.key_id:
        other = PublicKey(key_id=signature.key_id, key=b"").label
        raise SignedByAnotherKey(f"it was made with key {other}, the configured one is {public_key.label}")
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key.key)
        if signature.prehashed:
            key.verify(signature.signature, _blake2b(path))
        else:
            _verify_whole(path, signature.signature, key)
        key.verify(signature.comment_signature, signature.signature + signature.trusted_comment.encode())
    except (InvalidSignature, ValueError) as error:
        if isinstance(error, SignatureInvalid):
            raise
        raise SignatureInvalid("it is not a valid signature of this file") from error
    named = re.search(r"(?:^|\t)file:([^\t]+)", signature.trusted_comment)
    if named is not None and named.group(1).rpartition("/")[2] != signed_name:
        raise SignatureInvalid(f"it is a signature of {named.group(1)}, not of {signed_name}")


def _verify_whole(path: Path, signature: bytes, key: Ed25519PublicKey) -> None:
    size = path.stat().st_size
    if size > _LARGEST_LEGACY:
        raise SignatureInvalid("it is of the old kind, for small files only: sign with a current minisign")
    if size == 0:
        key.verify(signature, b"")
        return
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        memoryview(content) as view,
    ):
        key.verify(signature, view)


def _blake2b(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, hashlib.blake2b).digest()


def _decode(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SignatureInvalid(f"{what} is not base64") from None
