"""The environment that a node's processes get from visor: everything that visor got, but what is visor's
alone."""

from __future__ import annotations

import os
from collections.abc import Mapping

VISORS_OWN = frozenset(
    {
        # of visor's service manager
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        # of visor's tests
        "VISOR_FAILPOINTS",
        "VISOR_FAILPOINTS_ONCE",
        "VISOR_TESTING",
        "VISOR_HEARTBEAT_SECONDS",
        "VISOR_HANG_SECONDS",
        # visor's secrets
        "SENTRY_DSN",
        "GITHUB_TOKEN",
    }
)


def node_environment(own: Mapping[str, str] | None = None, *, user: str | None = None) -> dict[str, str]:
    """Return this process's environment without what is visor's own, with the binary's ``own`` variables
    added.

    HOME, USER and LOGNAME are those of ``user`` (a name or a number) if there is such a one, as under a
    service manager: a node that looks for its files in ``$HOME`` is not to look in root's.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in VISORS_OWN}
    return {**inherited, **_identity(user), **(own or {})}


def _identity(user: str | None) -> dict[str, str]:
    if user is None:
        return {}
    import pwd

    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        return {}  # the start is refused, and says why
    return {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
