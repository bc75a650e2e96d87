"""What an installer job is told: one :class:`InstallOrder`, one JSON line on its standard input.

The token travels only there: never in the arguments or the environment of a process, which others can read.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from visor_actors.home.discretion import representation
from visor_actors.home.layout import is_folder_name
from visor_actors.home.settings import Verify

PROTOCOL = 1
DEFAULT_API_URL = "https://api.github.com"


class OrderInvalid(ValueError):
    """An order that cannot be carried out as it stands; the message says which field and why."""


class Limits(Struct, frozen=True, kw_only=True):
    """What a job may use. Seconds and MiB; ``deadline_seconds`` is wall time, enforced by whoever launched
    the job.
    """

    deadline_seconds: float = 3600.0
    connect_seconds: float = 10.0
    stall_seconds: float = 30.0
    version_seconds: float = 20.0
    lock_seconds: float = 3.0
    longest_wait_seconds: float = 60.0
    attempts: int = 6
    cpu_seconds: int = 900
    memory_mib: int = 1024
    unpacked_mib: int = 4096
    reserve_mib: int = 64


class InstallOrder(Struct, frozen=True, kw_only=True):
    """Everything a job needs to put one release into ``home / folder_name``.

    ``source_folder`` holds the run configuration that is carried over. ``asset_name`` None means the usual
    name for the brand on this machine. ``source`` None means GitHub's REST interface at ``api_url``;
    otherwise it is a folder or a URL, either with ``{tag}`` and ``{asset}`` in it or with ``/TAG/ASSET``
    understood behind it. ``pinned`` maps ``TAG/ASSET`` to ``sha256:HEX``. ``requested_by`` is shown to a
    second job that wants the same release.
    """

    home: Path
    tag: str
    brand: str
    folder_name: str
    source_folder: Path | None
    owner: str = ""
    repository: str = ""
    api_url: str = DEFAULT_API_URL
    asset_name: str | None = None
    binary_name: str | None = None
    token: str | None = None
    verify: Verify = Verify.IF_AVAILABLE
    checksum_asset: str | None = None
    public_key: str | None = None
    pinned: Mapping[str, str] = field(default_factory=dict)
    max_size_mib: int = 1024
    source: str | None = None
    requested_by: str = "visor"
    limits: Limits = Limits()

    def __repr__(self) -> str:
        return representation(self, without=frozenset({"token"}))

    def __post_init__(self) -> None:
        if not self.tag or "\0" in self.tag:
            raise OrderInvalid("the release tag is empty")
        check_folder_name(self.folder_name)
        if not self.brand.isidentifier():
            raise OrderInvalid(f"the brand {self.brand!r} is not a word")

    @property
    def asset(self) -> str:
        """The name of the asset to fetch."""
        return self.asset_name or default_asset_name(self.brand)

    @property
    def binary(self) -> str:
        """The name of the binary inside the asset."""
        return self.binary_name or self.brand

    @property
    def destination(self) -> Path:
        """The folder the release is renamed to as the very last step."""
        return self.home / self.folder_name

    @property
    def pin(self) -> str | None:
        """The pinned checksum of exactly this asset of this tag."""
        return self.pinned.get(f"{self.tag}/{self.asset}")

    def to_line(self) -> bytes:
        """Return the order as the JSON line a job reads. It holds the token: write it to nothing but a job's
        stdin.
        """
        record = {name: getattr(self, name) for name in self.__struct_fields__}
        record.update(
            protocol=PROTOCOL,
            home=str(self.home),
            source_folder=None if self.source_folder is None else str(self.source_folder),
            verify=self.verify.value,
            pinned={name: value for name, value in self.pinned.items() if name.startswith(f"{self.tag}/")},
            limits={name: getattr(self.limits, name) for name in self.limits.__struct_fields__},
        )
        return json.dumps(record).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> InstallOrder:
        """Read what :meth:`to_line` wrote; :class:`OrderInvalid` when it is of another version or damaged."""
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or record.pop("protocol", None) != PROTOCOL:
                raise OrderInvalid("the order is of another version: visor was updated on disk, restart it")
            record["home"] = Path(record["home"])
            if record["source_folder"] is not None:
                record["source_folder"] = Path(record["source_folder"])
            record["verify"] = Verify(record["verify"])
            record["limits"] = Limits(**record["limits"])
            return cls(**record)
        except OrderInvalid:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise OrderInvalid(f"the order cannot be read: {error}") from error


def check_folder_name(name: str) -> None:
    """Raise :class:`OrderInvalid` unless ``name`` may name an upgrade folder."""
    if not is_folder_name(name):
        raise OrderInvalid(f"{name!r} cannot name an upgrade folder")


_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def machine_architecture(machine: str | None = None) -> str:
    """Return this machine's architecture the way releases spell it (``amd64``, ``arm64``, else as the kernel
    says).
    """
    found = (machine or platform.machine()).lower()
    return _ARCHITECTURES.get(found, found)


def default_asset_name(brand: str, *, machine: str | None = None) -> str:
    """Return the asset that a brand's release workflow publishes for this machine, such as
    ``vega-linux-amd64.zip``.
    """
    return f"{brand}-linux-{machine_architecture(machine)}.zip"
