"""The text of the systemd unit, and why each unusual line of it is there."""

from __future__ import annotations

from pathlib import Path

_TEMPLATE = """\
[Unit]
Description=visor-actors: the node in {home_description}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=600
StartLimitBurst=10

[Service]
Type=notify
NotifyAccess=main
ExecStart={executable} run --home {home}
User={user}

# Only visor itself is signalled: it stops the node gracefully (or leaves it running with onExit = "detach"),
# and a visor that crashed or was killed must never take the node with it.
KillMode=process
Delegate=yes
# A node that runs out of memory is visor's to restart; systemd must not stop the whole unit for it.
OOMPolicy=continue
TimeoutStopSec={stop_seconds}
# A visor that hangs as a whole says nothing any more: it is ended and started again, the node goes on.
WatchdogSec=60
Restart=on-failure
RestartSec=5
# Wrong usage or configuration does not get better by trying again.
RestartPreventExitStatus=2 78
LimitNOFILE=1048576

# Hardening. PrivateTmp stays off: the node's admin socket may be in /tmp, and a node that outlives a restart
# of this unit would keep the old, private /tmp that the new visor cannot see.
NoNewPrivileges=yes
{capabilities}ProtectSystem=full
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
PrivateDevices=yes
PrivateTmp=no
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
# The node writes to its own folders too. If all of them are known, this is stricter:
#ProtectSystem=strict
#ReadWritePaths={home} /path/to/the/node/home

[Install]
WantedBy=multi-user.target
"""
_SPARE_SECONDS = 45


def unit_text(*, home: Path, user: str, executable: Path, stop_seconds: float) -> str:
    """Return the unit. ``stop_seconds`` is the longest that stopping the node may take."""
    return _TEMPLATE.format(
        home=_quote(str(home)),
        home_description=str(home).replace("%", "%%"),
        user=user,
        # As root it may have to start the binaries as another user (`user` in a run configuration).
        capabilities="" if user in ("root", "0") else "CapabilityBoundingSet=\n",
        executable=_quote(str(executable)),
        stop_seconds=int(stop_seconds) + _SPARE_SECONDS,
    )


def _quote(word: str) -> str:
    """Return ``word`` for a line of a unit: specifiers and variables escaped, quoted if it needs to be."""
    escaped = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$").replace('"', '\\"')
    return f'"{escaped}"' if any(character in word for character in " \t\"'\\;") else escaped
