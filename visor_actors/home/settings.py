"""Visor's configuration as values: what every other part of visor reads. How they get here is in
``config_keys``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from visor_actors.home.discretion import representation


class OnExit(enum.Enum):
    """What the end of visor means for the node."""

    STOP = "stop"
    DETACH = "detach"


class Verify(enum.Enum):
    """How a fetched release must prove itself."""

    REQUIRED = "required"
    IF_AVAILABLE = "ifAvailable"
    OFF = "off"


class LogMode(enum.Enum):
    """Where the output of the binaries goes."""

    INHERIT = "inherit"
    FILES = "files"


class LogLevel(enum.Enum):
    """The least severe of visor's own events that is written to its log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.Enum):
    """How visor writes its own log; ``AUTO`` chooses by what standard error is."""

    AUTO = "auto"
    HUMAN = "human"
    JSON = "json"
    JOURNALD = "journald"


class AutoInstallConfig(Struct, frozen=True, kw_only=True):
    """Fetching of releases. Sizes in MiB; ``token_file`` is absolute; ``checksums`` maps ``TAG/ASSET`` to
    ``sha256:hex``.
    """

    enabled: bool
    repository_owner: str
    repository: str
    api_url: str
    token_file: Path | None
    verify: Verify
    checksum_asset: str | None
    public_key: str | None
    max_size_mib: int
    source: str | None
    checksums: Mapping[str, str]
    asset_name: str
    binary_name: str


class ActorOverrides(Struct, frozen=True, kw_only=True):
    """What one actor has of its own; None means as ``[supervision]`` says. Times in seconds."""

    max_restarts: int | None = None
    window_seconds: float | None = None
    delay_seconds: float | None = None
    max_delay_seconds: float | None = None


class SupervisionConfig(Struct, frozen=True, kw_only=True):
    """Restart budget and delays of visor's own actors. Times in seconds."""

    max_restarts: int
    window_seconds: float
    delay_seconds: float
    max_delay_seconds: float
    actors: Mapping[str, ActorOverrides]


class LogsConfig(Struct, frozen=True, kw_only=True):
    """Output of the binaries (``mode``, ``max_size_mib`` a file, ``keep`` files) and visor's own log
    (``level``, ``format``).
    """

    mode: LogMode
    max_size_mib: int
    keep: int
    level: LogLevel
    format: LogFormat


class ApiConfig(Struct, frozen=True, kw_only=True):
    """The TCP side of the API. ``listen`` is ``host:port``; None: only the control socket in the home."""

    listen: str | None
    token_file: Path | None


class SentryConfig(Struct, frozen=True, kw_only=True):
    """Error reporting. Off while ``dsn`` is None. The DSN is a secret: it is left out of the
    representation.
    """

    dsn: str | None
    environment: str | None
    sample_rate: float

    def __repr__(self) -> str:
        return representation(self, without=frozenset({"dsn"}))


class Hook(Struct, frozen=True, kw_only=True):
    """A program of the operator's. ``argv[0]`` is its path; arguments may be secret and are left out of the
    representation.
    """

    argv: tuple[str, ...]
    timeout_seconds: float

    def __repr__(self) -> str:
        return representation(self, without=frozenset({"argv"}))


class HooksConfig(Struct, frozen=True, kw_only=True):
    """Programs run round an upgrade and on an alarm; None: nothing is run."""

    pre_upgrade: Hook | None
    post_upgrade: Hook | None
    on_alert: Hook | None


class VisorConfig(Struct, frozen=True, kw_only=True):
    """Everything config.toml says, with defaults for what it does not say. Times in seconds."""

    max_number_of_first_connection_retries: int
    max_number_of_restart_connection_retries: int
    max_number_of_restarts: int
    restarts_delay_seconds: float
    restarts_reset_after_seconds: float
    stop_delay_seconds: float
    stop_signal_timeout_seconds: float
    poll_interval_seconds: float
    on_exit: OnExit
    upgrade_folders: Mapping[str, str]
    auto_install: AutoInstallConfig
    supervision: SupervisionConfig
    logs: LogsConfig
    api: ApiConfig
    sentry: SentryConfig
    hooks: HooksConfig
