"""Every key of run-config.toml, once: what stands in ``[<brand>.binary]``, ``[data_node.binary]`` and
``[<brand>.rpc]``.
"""

from __future__ import annotations

import signal

from visor_actors.home.kinds import FilePath, Key, Table, TakesEffect, Text, Whole, Words

LIMITS = (
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "memlock",
    "nofile",
    "nproc",
    "rss",
    "stack",
)

# Signals that a program can catch and take as the wish to end.
SIGNALS = tuple(getattr(signal, f"SIG{name}") for name in ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2"))

BINARY_KEYS: tuple[Key, ...] = (
    Key(
        path="path",
        attribute="path",
        kind=FilePath(wording="the path of the binary"),
        takes_effect=TakesEffect.NODE_START,
        classic=True,
        doc="The binary. A relative path is relative to the folder of this file."
        ' A subcommand may follow, as in "vega data-node".',
    ),
    Key(
        path="args",
        attribute="args",
        kind=Words(example=("start", "--home", "/var/lib/node")),
        default=(),
        default_text="none",
        takes_effect=TakesEffect.NODE_START,
        classic=True,
        doc="Its arguments, one text each. They are passed on as they are: no shell, no variables.",
    ),
    Key(
        path="env",
        attribute="env",
        kind=Table(
            value=Text(wording="a text"),
            name_pattern=r"[A-Za-z_][A-Za-z0-9_]*",
            name_wording="the name of a variable",
        ),
        default={},
        default_text="none",
        takes_effect=TakesEffect.NODE_START,
        doc="Variables that are added to visor's own environment.",
        example='{ GOMAXPROCS = "4" }',
    ),
    Key(
        path="workingDirectory",
        attribute="working_directory",
        kind=FilePath(wording="the path of a folder"),
        default_text="visor's own",
        takes_effect=TakesEffect.NODE_START,
        doc="The folder the binary is started in.",
        example='"/var/lib/node"',
    ),
    Key(
        path="stopSignal",
        attribute="stop_signal",
        kind=Text(
            pattern=f"(SIG)?({'|'.join(one.name[3:] for one in SIGNALS)})",
            wording="one of " + ", ".join(one.name for one in SIGNALS),
        ),
        default="SIGTERM",
        takes_effect=TakesEffect.NODE_START,
        doc="The signal that asks the binary to end.",
    ),
    Key(
        path="user",
        attribute="user",
        kind=Text(pattern=r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", wording="the name of a user"),
        default_text="visor's own",
        takes_effect=TakesEffect.NODE_START,
        doc="The user the binary runs as, with its groups, HOME, USER and LOGNAME; visor must be root.",
        example='"vega"',
    ),
    Key(
        path="limits",
        attribute="limits",
        kind=Table(
            value=Whole(minimum=-1, maximum=2**63 - 1),
            name_pattern="|".join(LIMITS),
            name_wording="one of " + ", ".join(LIMITS),
        ),
        default={},
        default_text="visor's own",
        takes_effect=TakesEffect.NODE_START,
        doc="Resource limits as setrlimit names them; -1: unlimited.",
        example="{ nofile = 1048576 }",
    ),
)

RPC_KEYS: tuple[Key, ...] = (
    Key(
        path="socketPath",
        attribute="socket_path",
        kind=FilePath(wording="the path of a socket"),
        default_text="/tmp/BRAND.sock",
        takes_effect=TakesEffect.NODE_START,
        classic=True,
        doc="The core's admin socket, as its own configuration says.",
    ),
    Key(
        path="httpPath",
        attribute="http_path",
        kind=Text(pattern=r"/\S*", wording='a path that begins with "/"'),
        default="/rpc",
        takes_effect=TakesEffect.NODE_START,
        classic=True,
        doc="The path of its URL on that socket.",
    ),
)
