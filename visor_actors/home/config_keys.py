"""Every key of config.toml, once. Reading, schema, ``init`` and the reference page are all made from this
table.
"""

from __future__ import annotations

from visor_actors.home.kinds import (
    Choice,
    FilePath,
    Flag,
    Key,
    Number,
    Table,
    Tables,
    TakesEffect,
    Text,
    Whole,
    Words,
)
from visor_actors.home.settings import LogFormat, LogLevel, LogMode, OnExit, Verify

# The parts of visor whose restarts can be configured one by one; ids of the supervision tree.
ACTORS = (
    "root",
    "config-watcher",
    "node",
    "lifecycle",
    "process:core",
    "process:data_node",
    "installer",
    "rpc-listener",
    "upgrade-coordinator",
    "api",
)

FOLDER_NAME = r"(?!current$)[A-Za-z0-9_+][A-Za-z0-9._+-]{0,127}"
_NAME = r"[A-Za-z0-9._-]{1,100}"
_URL = r"https?://[^\s]+"

SECTIONS: dict[str, str] = {
    "": "The node: how long it is waited for, how often it is restarted, how it is stopped.",
    "upgradeFolders": "Which folder holds a version; any other has a folder of its own name.",
    "autoInstall": "Fetching of accepted releases, so that they are in place before their height.",
    "autoInstall.checksums": "Digests you pinned yourself. A pinned digest must match, whatever verify says.",
    "autoInstall.asset": "Which file of a release is fetched, and the name of the binary in it.",
    "supervision": "Restarts of visor's own actors. They never touch the node.",
    "supervision.actors": "The same for one actor alone.",
    "logs": "Output of the binaries, and visor's own log.",
    "api": "Status page, metrics and health over TCP. The control socket in the home is always there.",
    "sentry": "Error reporting.",
    "hooks": "Programs of yours, each a list: program, then its arguments. They are run without a shell.",
}

_SUPERVISION = (
    Key(
        path="maxRestarts",
        attribute="max_restarts",
        kind=Whole(maximum=10_000),
        default=5,
        doc="Restarts of an actor within windowSeconds before its supervisor gives up on it.",
    ),
    Key(
        path="windowSeconds",
        attribute="window_seconds",
        kind=Number(minimum=0.1),
        default=60.0,
        doc="The window in which maxRestarts are counted.",
    ),
    Key(
        path="delaySeconds",
        attribute="delay_seconds",
        kind=Number(maximum=3600),
        default=0.2,
        doc="Delay before the first restart of an actor; it doubles with each further one.",
    ),
    Key(
        path="maxDelaySeconds",
        attribute="max_delay_seconds",
        kind=Number(minimum=0.01, maximum=86_400),
        default=30.0,
        doc="Longest delay before a restart of an actor.",
    ),
)


def _hook(name: str, attribute: str, timeout: float, when: str) -> tuple[Key, Key]:
    return (
        Key(
            path=f"hooks.{name}",
            attribute=f"hooks.{attribute}.argv",
            kind=Words(example=("/usr/local/bin/notify", "--quiet")),
            default=(),
            default_text="none",
            doc=f"Program that is run {when}",
            example='["/usr/local/bin/notify", "--quiet"]',
        ),
        Key(
            path=f"hooks.{name}TimeoutSeconds",
            attribute=f"hooks.{attribute}.timeout_seconds",
            kind=Number(minimum=0.1, maximum=86_400),
            default=timeout,
            doc=f"How long {name} may take before it is ended.",
        ),
    )


CONFIG_KEYS: tuple[Key, ...] = (
    Key(
        path="maxNumberOfFirstConnectionRetries",
        attribute="max_number_of_first_connection_retries",
        kind=Whole(),
        default=175_000,
        classic=True,
        doc="Polls of the core's admin socket, one every pollIntervalSeconds, until it first answers after a"
        " first start. With a data node the socket can take days to appear: the default is about 97 hours.",
    ),
    Key(
        path="maxNumberOfRestartConnectionRetries",
        attribute="max_number_of_restart_connection_retries",
        kind=Whole(),
        default=10,
        classic=True,
        doc="The same after a restart.",
    ),
    Key(
        path="maxNumberOfRestarts",
        attribute="max_number_of_restarts",
        kind=Whole(),
        default=3,
        classic=True,
        doc="Unasked exits of a binary that are survived in a row; after one more visor gives up.",
    ),
    Key(
        path="restartsDelaySeconds",
        attribute="restarts_delay_seconds",
        kind=Number(maximum=86_400),
        default=5.0,
        classic=True,
        doc="Delay before the node is started again after such an exit. Fractions are allowed.",
    ),
    Key(
        path="restartsResetAfterSeconds",
        attribute="restarts_reset_after_seconds",
        kind=Number(),
        default=3600.0,
        doc="Healthy time after which the restarts are counted from 0 again; 0: never.",
    ),
    Key(
        path="stopDelaySeconds",
        attribute="stop_delay_seconds",
        kind=Number(maximum=86_400),
        default=0.0,
        classic=True,
        doc="Time between ready and the stop of the node at an upgrade.",
    ),
    Key(
        path="stopSignalTimeoutSeconds",
        attribute="stop_signal_timeout_seconds",
        kind=Number(maximum=86_400),
        default=15.0,
        classic=True,
        doc="Time a binary has to end after its stop signal, before it is killed.",
    ),
    Key(
        path="pollIntervalSeconds",
        attribute="poll_interval_seconds",
        kind=Number(minimum=0.05, maximum=3600),
        default=2.0,
        doc="Time between two polls of the admin socket; before an upgrade visor polls faster by itself.",
    ),
    Key(
        path="onExit",
        attribute="on_exit",
        kind=Choice(options=OnExit),
        default=OnExit.STOP,
        doc="What SIGTERM to visor means for the node: stop it, or detach (leave it to the next visor).",
    ),
    Key(
        path="upgradeFolders",
        attribute="upgrade_folders",
        kind=Table(
            value=Text(pattern=FOLDER_NAME, wording="the name of a folder in the home"),
            name_wording="version",
        ),
        default={},
        default_text="none",
        classic=True,
        doc="The folder of a version, as version = folder.",
        example='"vX.X.X" = "vX.X.X"',
    ),
    Key(
        path="autoInstall.enabled",
        attribute="auto_install.enabled",
        kind=Flag(),
        default=True,
        classic=True,
        doc="Fetch a release as soon as the network has accepted it and its folder is missing.",
    ),
    Key(
        path="autoInstall.repositoryOwner",
        attribute="auto_install.repository_owner",
        kind=Text(pattern=_NAME, wording="a GitHub user or organisation"),
        default_text="the brand's",
        classic=True,
        doc="Owner of the repository of the releases.",
    ),
    Key(
        path="autoInstall.repository",
        attribute="auto_install.repository",
        kind=Text(pattern=_NAME, wording="the name of a GitHub repository"),
        default_text="the brand's",
        classic=True,
        doc="Repository of the releases.",
    ),
    Key(
        path="autoInstall.apiUrl",
        attribute="auto_install.api_url",
        kind=Text(pattern=_URL, wording="an http or https URL"),
        default="https://api.github.com",
        doc="Address of the GitHub API; another one for GitHub Enterprise or a mirror.",
    ),
    Key(
        path="autoInstall.tokenFile",
        attribute="auto_install.token_file",
        kind=FilePath(wording="the path of a file"),
        default_text="none",
        doc="File with a GitHub token, for private repositories and higher limits."
        " Without it GITHUB_TOKEN of the environment is used.",
        example='"github-token"',
    ),
    Key(
        path="autoInstall.verify",
        attribute="auto_install.verify",
        kind=Choice(options=Verify),
        default=Verify.IF_AVAILABLE,
        doc="required: a release without digest or signature is refused; ifAvailable: what there is must"
        " match; off: only sizes and versions are checked.",
    ),
    Key(
        path="autoInstall.checksumAsset",
        attribute="auto_install.checksum_asset",
        kind=Text(wording="the name of a release asset"),
        default_text="none",
        doc="Release asset that lists SHA-256 digests, one `digest  name` a line.",
        example='"SHA256SUMS"',
    ),
    Key(
        path="autoInstall.publicKey",
        attribute="auto_install.public_key",
        kind=Text(wording="a public key"),
        default_text="none",
        doc="Public key that must have signed the checksums or the asset.",
        example='"RWQ..."',
    ),
    Key(
        path="autoInstall.maxSizeMiB",
        attribute="auto_install.max_size_mib",
        kind=Whole(minimum=1, maximum=1_048_576),
        default=1024,
        doc="Largest release that is accepted, fetched and unpacked.",
    ),
    Key(
        path="autoInstall.source",
        attribute="auto_install.source",
        kind=Text(wording="a folder or a URL template"),
        default_text="none",
        doc="A local folder, or a URL with {tag} and {asset} in it, to take releases from instead of GitHub.",
        example='"/srv/releases"',
    ),
    Key(
        path="autoInstall.checksums",
        attribute="auto_install.checksums",
        kind=Table(
            value=Text(pattern=r"sha256:[0-9a-fA-F]{64}", wording='"sha256:" and 64 hexadecimal digits'),
            name_pattern=r"[^/\s]+/[^/\s]+",
            name_wording='"TAG/ASSET"',
        ),
        default={},
        default_text="none",
        doc='Pinned digests, as "TAG/ASSET" = "sha256:...".',
        example='"vX.X.X/name.zip" = "sha256:' + "0" * 64 + '"',
    ),
    Key(
        path="autoInstall.asset.name",
        attribute="auto_install.asset_name",
        kind=Text(pattern=r"[^/\s]+", wording="the name of a release asset"),
        default_text="the brand's, for this machine",
        classic=True,
        doc="Release asset that is fetched.",
    ),
    Key(
        path="autoInstall.asset.binaryName",
        attribute="auto_install.binary_name",
        kind=Text(pattern=r"[^/\s]+", wording="the name of a file"),
        default_text="the brand's",
        classic=True,
        doc="Name of the binary in the asset.",
    ),
    *(
        Key(
            path=f"supervision.{key.path}",
            attribute=f"supervision.{key.attribute}",
            kind=key.kind,
            default=key.default,
            doc=key.doc,
        )
        for key in _SUPERVISION
    ),
    Key(
        path="supervision.actors",
        attribute="supervision.actors",
        kind=Tables(
            names=ACTORS,
            keys=tuple(
                Key(path=key.path, attribute=key.attribute, kind=key.kind, doc=key.doc)
                for key in _SUPERVISION
            ),
        ),
        default={},
        default_text="none",
        doc="Any of the keys of [supervision] for one actor: [supervision.actors.installer].",
    ),
    Key(
        path="logs.mode",
        attribute="logs.mode",
        kind=Choice(options=LogMode),
        default=LogMode.INHERIT,
        takes_effect=TakesEffect.NODE_START,
        doc="inherit: the binaries write to visor's own output; files: to rotated files under .visor/logs.",
    ),
    Key(
        path="logs.maxSizeMiB",
        attribute="logs.max_size_mib",
        kind=Whole(minimum=1, maximum=1_048_576),
        default=100,
        takes_effect=TakesEffect.NODE_START,
        doc="Size at which a log file is rotated.",
    ),
    Key(
        path="logs.keep",
        attribute="logs.keep",
        kind=Whole(maximum=10_000),
        default=10,
        takes_effect=TakesEffect.NODE_START,
        doc="Rotated log files that are kept, for each binary.",
    ),
    Key(
        path="logs.level",
        attribute="logs.level",
        kind=Choice(options=LogLevel),
        default=LogLevel.INFO,
        doc="Least severe of visor's own events that is logged. Alarms always are.",
    ),
    Key(
        path="logs.format",
        attribute="logs.format",
        kind=Choice(options=LogFormat),
        default=LogFormat.AUTO,
        doc="Form of visor's own log. auto: human on a terminal, journald under systemd, else JSON lines.",
    ),
    Key(
        path="api.listen",
        attribute="api.listen",
        kind=Text(
            pattern=r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):[0-9]{1,5}", wording="host:port, as in 127.0.0.1:8080"
        ),
        default_text="none",
        doc="TCP address of status page, metrics and health. A loopback address needs no token, any other"
        " needs tokenFile.",
        example='"127.0.0.1:8080"',
    ),
    Key(
        path="api.tokenFile",
        attribute="api.token_file",
        kind=FilePath(wording="the path of a file"),
        default_text="none",
        doc="File with the token that clients of the TCP address must send.",
        example='"api-token"',
    ),
    Key(
        path="sentry.dsn",
        attribute="sentry.dsn",
        kind=Text(pattern=r"https?://[^@\s/]+@[^\s/]+/\S+", wording="a Sentry DSN, https://KEY@HOST/PROJECT"),
        default_text="none",
        secret=True,
        doc="Where errors are reported. Without it SENTRY_DSN of the environment is used; without both"
        " nothing is sent.",
        example='"https://KEY@HOST/PROJECT"',
    ),
    Key(
        path="sentry.environment",
        attribute="sentry.environment",
        kind=Text(pattern=r"[^\s/]{1,64}", wording="a word of at most 64 characters"),
        default_text="none",
        doc="Name under which Sentry files this node.",
        example='"mainnet"',
    ),
    Key(
        path="sentry.sampleRate",
        attribute="sentry.sample_rate",
        kind=Number(maximum=1.0),
        default=1.0,
        doc="Share of the events that is sent. Alarms always are.",
    ),
    *_hook(
        "preUpgrade",
        "pre_upgrade",
        60.0,
        "before the node is stopped for an upgrade.",
    ),
    *_hook("postUpgrade", "post_upgrade", 60.0, "after an upgrade has been confirmed."),
    *_hook("onAlert", "on_alert", 30.0, "on every alarm, which it gets as JSON on its standard input."),
)
