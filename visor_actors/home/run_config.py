"""The run configuration: what is started in one upgrade folder, and how."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct, field
from msgspec.structs import replace

from visor_actors.home.brands import DEFAULT_BRAND, Brand, brand, is_brand_word
from visor_actors.home.discretion import representation
from visor_actors.home.documents import Document, parse_document, read_document, read_text
from visor_actors.home.errors import ConfigurationInvalid
from visor_actors.home.kinds import Key, did_you_mean, show
from visor_actors.home.layout import RUN_CONFIG_NAMES, HomeLayout, either
from visor_actors.home.reader import Found, Reading, problems_of, read_keys
from visor_actors.home.run_config_keys import BINARY_KEYS, RPC_KEYS

DATA_NODE = "data_node"
HTTP_PATH = "/rpc"
UNLIMITED = -1


def _inside(table: str, keys: tuple[Key, ...]) -> tuple[Key, ...]:
    return tuple(replace(key, path=f"{table}.{key.path}") for key in keys)


_TABLES = ("binary", "rpc")
_DATA_NODE_KEYS = _inside("binary", BINARY_KEYS)
_CORE_KEYS = _DATA_NODE_KEYS + _inside("rpc", RPC_KEYS)


class BinaryConfig(Struct, frozen=True, kw_only=True):
    """One binary. ``path`` and ``working_directory`` are absolute; ``env`` is added to visor's own
    environment.

    ``limits`` maps names such as ``nofile`` to numbers, -1 for unlimited. Arguments may hold secrets: they
    and the environment are left out of the representation.
    """

    path: Path
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    working_directory: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    user: str | None = None
    limits: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return representation(self, without=frozenset({"args", "env"}))


class RpcConfig(Struct, frozen=True, kw_only=True):
    """The core's admin RPC: an absolute socket path, and the path of the URL on it."""

    socket_path: Path
    http_path: str


class RunConfig(Struct, frozen=True, kw_only=True):
    """What is run from ``folder``. ``brand`` is the word that names its tables; ``path`` is the file it was
    read from.
    """

    name: str
    brand: str
    core: BinaryConfig
    rpc: RpcConfig
    data_node: BinaryConfig | None
    folder: Path
    path: Path
    warnings: tuple[str, ...] = ()


def load_run_config(folder: Path, brand_hint: str | None = None) -> RunConfig:
    """Read the run configuration of ``folder``. Blocks on the disk only. Whether the binaries exist is not
    looked at.

    ``brand_hint`` decides when the file has the tables of several brands. Raises
    :class:`ConfigurationInvalid` with all problems of the file.
    """
    path = either(folder, RUN_CONFIG_NAMES)
    return _understand(folder, path, read_text(path), brand_hint)


@functools.lru_cache(maxsize=4)
def _understand(folder: Path, path: Path, text: str, brand_hint: str | None) -> RunConfig:
    # Kept for the same text: between a crash and the next start nothing is parsed that has not changed.
    document = parse_document(path, text)
    reading = Reading()
    word = _brand_word(document.values, brand_hint, reading)
    core = rpc = data_node = None
    for name, value in document.values.items():
        match name:
            case "name":
                if not isinstance(value, str | None):
                    reading.found.append(
                        Found(place=("name",), key="name", found=show(value), allowed="must be a text")
                    )
            case "Admin":
                reading.warnings.append(
                    "Admin: a table of the node's own configuration, ignored here; remove it"
                )
            case _ if name == word:
                parts = _tables(value, name, _CORE_KEYS, reading)
                core, rpc = parts.get("binary"), parts.get("rpc")
            case _ if name == DATA_NODE:
                data_node = _tables(value, name, _DATA_NODE_KEYS, reading).get("binary")
            case _:
                reading.found.append(_unknown(str(name), word, document.values))
    if word is not None:
        _require(core, word, reading)
    if DATA_NODE in document.values:
        _require(data_node, DATA_NODE, reading)
    problems = problems_of(document, reading.found)
    if problems or word is None or core is None:
        raise ConfigurationInvalid(problems)
    return _build(document, folder, word, core, rpc or {}, data_node, reading)


def _brand_word(values: Mapping[str, object], hint: str | None, reading: Reading) -> str | None:
    words = brand_words(values)
    if hint in words:
        return hint
    if len(words) == 1:
        return words[0]
    if words:
        return words[0]  # the others are refused with their place
    example = hint or DEFAULT_BRAND.name
    reading.found.append(
        Found(place=(), key=f"{example}.binary", allowed="is missing: the file does not say what to run")
    )
    return None


def _unknown(name: str, word: str | None, values: Mapping[str, object]) -> Found:
    if name in brand_words(values):
        allowed = f"there is a [{word}] already; only one brand can be run"
        return Found(place=(name,), key=name, allowed=allowed)
    known = ("name", DATA_NODE, word or DEFAULT_BRAND.name)
    return Found(place=(name,), key=name, allowed="unknown key", suggestion=did_you_mean(name, known))


def brand_words(values: Mapping[str, object]) -> list[str]:
    """The tables that look like a brand's: a lower-case word with a ``binary`` or ``rpc`` in it."""
    return [
        str(name)
        for name, value in values.items()
        if is_brand_word(str(name)) and isinstance(value, Mapping) and ("binary" in value or "rpc" in value)
    ]


def peek_brand(layout: HomeLayout) -> Brand:
    """The brand of the run configuration behind ``current``, else in ``genesis``, else the default. Never
    raises.
    """
    for folder in (layout.current, layout.genesis):
        try:
            words = brand_words(read_document(either(folder, RUN_CONFIG_NAMES)).values)
        except ConfigurationInvalid:
            continue
        if len(words) == 1:
            return brand(words[0])
    return DEFAULT_BRAND


def _tables(
    value: object, name: str, keys: tuple[Key, ...], reading: Reading
) -> dict[str, dict[str, object]]:
    if not isinstance(value, Mapping):
        reading.found.append(Found(place=(name,), key=name, found=show(value), allowed="must be a table"))
        return {}
    inner = read_keys(value, keys, place=(name,))
    reading.found.extend(inner.found)
    reading.warnings.extend(inner.warnings)
    parts: dict[str, dict[str, object]] = {table: {} for table in _TABLES if table in value}
    for path, held in inner.values.items():
        table, _, key = path.partition(".")
        parts.setdefault(table, {})[key] = held
    return parts


def _require(binary: Mapping[str, object] | None, table: str, reading: Reading) -> None:
    path = f"{table}.binary.path"
    if (binary is None or "path" not in binary) and all(one.key != path for one in reading.found):
        reading.found.append(
            Found(place=(table, "binary"), key=path, allowed="is missing: nothing says which binary to start")
        )


def _build(
    document: Document,
    folder: Path,
    word: str,
    core: Mapping[str, object],
    rpc: Mapping[str, object],
    data_node: Mapping[str, object] | None,
    reading: Reading,
) -> RunConfig:
    socket = rpc.get("socketPath", brand(word).default_socket)
    return RunConfig(
        name=str(document.values.get("name") or folder.name),
        brand=word,
        core=_binary(folder, core, is_data_node=False),
        rpc=RpcConfig(
            socket_path=_absolute(folder, str(socket)), http_path=str(rpc.get("httpPath", HTTP_PATH))
        ),
        data_node=None if data_node is None else _binary(folder, data_node, is_data_node=True),
        folder=folder,
        path=document.path,
        warnings=tuple(reading.warnings),
    )


def _binary(folder: Path, values: Mapping[str, object], *, is_data_node: bool) -> BinaryConfig:
    path, leading = _command(folder, str(values["path"]), is_data_node=is_data_node)
    args, env, limits = values.get("args", ()), values.get("env", {}), values.get("limits", {})
    assert isinstance(args, tuple)
    assert isinstance(env, dict)
    assert isinstance(limits, dict)
    directory, user = values.get("workingDirectory"), values.get("user")
    stop_signal = str(values.get("stopSignal", "SIGTERM"))
    return BinaryConfig(
        path=path,
        args=(*leading, *args),
        env=MappingProxyType(env),
        working_directory=None if directory is None else _absolute(folder, str(directory)),
        stop_signal=signal.Signals["SIG" + stop_signal.removeprefix("SIG")],
        user=None if user is None else str(user),
        limits=MappingProxyType(limits),
    )


def _command(folder: Path, text: str, *, is_data_node: bool) -> tuple[Path, tuple[str, ...]]:
    """Split what published configurations have as one text, "vega data-node", into binary and subcommand.

    Only the last component of the path is looked at, so folders may have spaces; and a file of exactly that
    name is taken as it is.
    """
    whole = _absolute(folder, text)
    first, *rest = whole.name.split() or [whole.name]
    if not rest or os.path.lexists(whole):
        return whole, ()
    if is_data_node:
        # `data-node` was a binary of its own before it became the subcommand `datanode`.
        rest = ["datanode" if word == "data-node" else word for word in rest]
    return whole.with_name(first), tuple(rest)


def _absolute(folder: Path, path: str) -> Path:
    # Not resolved: third-party tools and the process list know the paths as they were written.
    return Path(os.path.abspath(folder)) / path
