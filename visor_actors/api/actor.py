"""The actor that serves the control API.

Its inbox is woken by the listening sockets themselves, so an idle API costs nothing. Every connection is
served by a short-lived job (see :mod:`visor_actors.api.exchange`), at most :data:`MAX_CONNECTIONS` at
once. When all places are taken, whoever has been slow to say what it wants loses its place to the next
in the queue: a stuck scraper, or two hundred of them, cannot lock the operator out.

A socket that cannot be had (port in use, disk full) never fails the actor: it is reported and tried again.
"""

from __future__ import annotations

MAX_CONNECTIONS = 32
_PATIENCE_SECONDS = 0.5
_FULL_SECONDS = 0.1
_RETRY_SECONDS = 5.0
_GOODBYE_SECONDS = 0.5
