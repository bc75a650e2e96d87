"""What a test may change of a running visor, so that it need not wait as long as an operator's visor does."""

from __future__ import annotations

import os
from collections.abc import Mapping

from msgspec import Struct


class Trials(Struct, frozen=True, kw_only=True):
    """``heartbeat``: seconds that one message of an actor may take before the actor counts as hung.

    ``hang``: seconds that an injected hang lasts; by default longer than any visor waits.
    """

    heartbeat: float = 20.0
    hang: float = 1e6

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Trials:
        """Read ``VISOR_HEARTBEAT_SECONDS`` and ``VISOR_HANG_SECONDS``; both only count with
        ``VISOR_TESTING=1``.
        """
        usual = cls()
        if environment.get("VISOR_TESTING") != "1":
            return usual
        return cls(
            heartbeat=float(environment.get("VISOR_HEARTBEAT_SECONDS", usual.heartbeat)),
            hang=float(environment.get("VISOR_HANG_SECONDS", usual.hang)),
        )
