"""The height of a core, from its REST server: where that is, and one bounded question.

The admin socket tells no height. REST does, on a loopback port that is a setting of the core's own; many
operators turn it off, so an absent answer is normal and nothing may depend on it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

from visor_actors import __version__
from visor_actors.node import bounded_json
from visor_actors.node.bounded_json import Json, JsonRefused
from visor_actors.node.errors import NodeError
from visor_actors.node.http_reply import Reply, ReplyCutShort, ReplyMalformed, ReplyReader, ReplyTooLarge

Address = tuple[str, int]

DEFAULT_ADDRESS: Address = ("127.0.0.1", 3003)
_MAX_CONFIG = 1024 * 1024
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}


class RestError(NodeError):
    """The REST server gave no height. ``problem`` is a clause."""

    next_step = "none, if the core's REST server is turned off; the upgrade itself does not need it"

    def __init__(self, address: Address, problem: str) -> None:
        super().__init__(f"no height from the core's REST server {address[0]}:{address[1]}: {problem}")
        self.address = address
        self.problem = problem


def config_file(core_home: Path | None, brand: str, env: Mapping[str, str] | None = None) -> Path:
    """The core's own configuration file; ``core_home`` None means the core is given no ``--home``."""
    if core_home is not None:
        return core_home / "config" / "node" / "config.toml"
    env = os.environ if env is None else env
    base = env.get("XDG_CONFIG_HOME") or f"{env.get('HOME') or '~'}/.config"
    return Path(base) / brand / "node" / "config.toml"


def rest_address(
    core_home: Path | None, *, brand: str = "vega", env: Mapping[str, str] | None = None
) -> Address:
    """Return host and port of the core's REST server, as the core is configured; the default where that is
    unreadable.

    Reads one file. A core rewrites that file in place when it starts, so ask after its first answer and not
    before.
    """
    import tomllib

    try:
        with config_file(core_home, brand, env).open("rb") as file:
            settings: object = tomllib.loads(file.read(_MAX_CONFIG).decode())
    except (OSError, ValueError):
        return DEFAULT_ADDRESS
    for table in ("API", "REST"):
        settings = settings.get(table) if isinstance(settings, dict) else None
    if not isinstance(settings, dict):
        return DEFAULT_ADDRESS
    host, port = settings.get("IP", DEFAULT_ADDRESS[0]), settings.get("Port", DEFAULT_ADDRESS[1])
    if (
        not isinstance(host, str)
        or isinstance(port, bool)
        or not isinstance(port, int)
        or not 0 < port < 65536
    ):
        return DEFAULT_ADDRESS
    return _EVERYWHERE.get(host, host), port


class RestClient:
    """Asks one core's REST server for its height. For one thread; opens a connection for each question.

    ``connect_timeout`` and ``total_timeout`` in seconds; ``max_body`` in bytes.
    """

    def __init__(
        self,
        address: Address,
        *,
        connect_timeout: float = 1.0,
        total_timeout: float = 3.0,
        max_body: int = 256 * 1024,
    ) -> None:
        self.address = address
        self._connect_timeout = connect_timeout
        self._total_timeout = total_timeout
        self._max_body = max_body

    def __enter__(self) -> RestClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is kept between questions."""

    def height(self) -> int:
        """Return the height of the block the core processed last.

        Blocks for at most ``total_timeout`` seconds (and the look-up of a host name, where the address is
        one). Raises :class:`RestError`.
        """
        deadline = monotonic() + self._total_timeout
        try:
            return self._statistics(deadline)
        except _NotServed:
            return self._blockchain_height(deadline)

    def _statistics(self, deadline: float) -> int:
        answer = self._get("/statistics", deadline)
        statistics = answer.get("statistics")
        height = statistics.get("blockHeight") if isinstance(statistics, dict) else None
        return self._checked(height)

    def _blockchain_height(self, deadline: float) -> int:
        try:
            return self._checked(self._get("/blockchain/height", deadline).get("height"))
        except _NotServed as status:
            raise RestError(self.address, f"it answered HTTP {status.code}") from None

    def _checked(self, height: Json) -> int:
        """Gateways write 64 bit numbers as strings."""
        if isinstance(height, str) and height.isascii() and height.isdecimal() and len(height) <= 19:
            height = int(height)
        if isinstance(height, bool) or not isinstance(height, int) or not 0 <= height < 2**63:
            raise RestError(self.address, "its answer has no block height")
        return height

    def _get(self, path: str, deadline: float) -> dict[str, Json]:
        try:
            reply = self._exchange(path, deadline)
            if reply.status != 200:
                raise _NotServed(reply.status)
            return bounded_json.parse_object(reply.body)
        except TimeoutError:
            problem = f"no answer within {self._total_timeout:g} s"
        except (ReplyCutShort, ReplyMalformed, ReplyTooLarge) as failure:
            problem = str(failure)
        except JsonRefused as failure:
            problem = f"its answer cannot be used: {failure}"
        except OSError as error:
            problem = error.strerror or str(error)
        raise RestError(self.address, problem)

    def _exchange(self, path: str, deadline: float) -> Reply:
        host = f"[{self.address[0]}]" if ":" in self.address[0] else self.address[0]
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}:{self.address[1]}\r\n"
            f"User-Agent: visor-actors/{__version__}\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
        )
        reader = ReplyReader(max_body=self._max_body)
        timeout = min(self._connect_timeout, _left(deadline))
        with socket.create_connection(self.address, timeout=timeout) as connection:
            connection.settimeout(_left(deadline))
            connection.sendall(request.encode())
            while True:
                connection.settimeout(_left(deadline))
                data = connection.recv(16 * 1024)
                reply = reader.feed(data) if data else reader.end()
                if reply is not None:
                    return reply


class _NotServed(Exception):
    """Another HTTP status than 200."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left
