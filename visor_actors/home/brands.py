"""The brands of one and the same node: how each spells its tables, its release key, its socket and its
releases.
"""

from __future__ import annotations

import os
import re

from msgspec import Struct

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def this_os() -> str:
    """This machine's operating system as releases spell it (``linux``)."""
    return os.uname().sysname.lower()


def this_arch() -> str:
    """This machine's architecture as releases spell it (``amd64``, ``arm64``, else what the kernel says)."""
    machine = os.uname().machine.lower()
    return _ARCHITECTURES.get(machine, machine)


class Brand(Struct, frozen=True, kw_only=True):
    """One brand. ``name`` is also the first table of its run configuration; ``release_key`` is the JSON key
    of its tag.
    """

    name: str
    release_key: str
    default_socket: str
    owner: str
    repository: str
    binary: str

    def asset(self, os_name: str | None = None, arch: str | None = None) -> str:
        """Name of the release asset for an operating system and architecture (default: this machine's)."""
        arch = arch or this_arch()
        return f"{self.binary}-{os_name or this_os()}-{_ARCHITECTURES.get(arch, arch)}.zip"


def _make(name: str, owner: str) -> Brand:
    return Brand(
        name=name,
        release_key=f"{name[:1].upper()}{name[1:]}ReleaseTag",
        default_socket=f"/tmp/{name}.sock",
        owner=owner,
        repository=name,
        binary=name,
    )


FURY = _make("fury", "elysiumstation")
VEGA = _make("vega", "vegaprotocol")
ZETA = _make("zeta", "zuluprotocol")
BRANDS = {brand.name: brand for brand in (FURY, VEGA, ZETA)}
DEFAULT_BRAND = FURY

_WORD = re.compile(r"[a-z][a-z0-9_-]{0,31}")

# The last two are how the data node's table is misspelt.
_NO_BRANDS = ("name", "data_node", "datanode", "data-node")


def is_brand_word(word: str) -> bool:
    """Whether ``word`` may name a brand: a lower-case word that is no table of another meaning."""
    return _WORD.fullmatch(word) is not None and word not in _NO_BRANDS


def brand(name: str) -> Brand:
    """Return the brand called ``name``; a word nobody has heard of gets what all brands have in common.

    Raises ValueError when ``name`` is no such word at all.
    """
    known = BRANDS.get(name)
    if known is not None:
        return known
    if not is_brand_word(name):
        raise ValueError(f"{name!r} is no brand: a lower-case word such as {', '.join(BRANDS)}")
    return _make(name, name)
