"""The arguments an operator gives to a node's binaries, read and changed exactly.

Flags are long ones, ``--name value`` or ``--name=value``; when a flag is repeated the last one wins; a lone
``--`` ends the flags. A name matches whole or not at all: ``--home-backup`` and the value ``/srv/--home`` are
not ``--home``.

What follows a flag that takes a value is that value, whatever it looks like, except that an option is never
taken for the value of another flag we do not know: of a foreign flag it cannot be told whether it takes a
value at all, and the node's own parser refuses options as values too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from visor_actors.node.command import HERE, Surroundings
from visor_actors.node.environment import node_environment
from visor_actors.node.errors import NodeError

if TYPE_CHECKING:
    from visor_actors.home.run_config import RunConfig

HOME = "--home"
TENDERMINT_HOME = "--tendermint-home"
DEFAULT_TENDERMINT_HOME = "$HOME/.cometbft"
DATANODE = "datanode"
_END_OF_FLAGS = "--"


class FlagWithoutValue(NodeError):
    """The arguments end where the value of ``flag`` should follow."""

    def __init__(self, flag: str) -> None:
        super().__init__(f"the last argument is {flag}, without the value that belongs to it")
        self.flag = flag
        self.next_step = f"write {flag}=VALUE in the run configuration, or remove {flag}"


class Role(StrEnum):
    """Which binary of a node; the value is the name of its slot."""

    CORE = "core"
    DATA_NODE = "data_node"


# Flags


class _Occurrence(Struct, frozen=True):
    """``--flag`` at ``args[start:end]``; ``value`` is None when the list ends before it."""

    start: int
    end: int
    value: str | None


def _occurrences(args: Sequence[str], flag: str) -> Iterator[_Occurrence]:
    if not flag.startswith("--") or "=" in flag or flag == _END_OF_FLAGS:
        raise ValueError(f"{flag!r} is not the name of a long flag")
    index = 0
    while index < len(args):
        argument = args[index]
        if argument == _END_OF_FLAGS:
            return
        if argument == flag:
            value = args[index + 1] if index + 1 < len(args) else None
            end = min(index + 2, len(args))
            yield _Occurrence(index, end, value)
            index = end
        else:
            name, equals, value = argument.partition("=")
            if equals and name == flag:
                yield _Occurrence(index, index + 1, value)
            index += 1


def flag_value(args: Sequence[str], flag: str) -> str | None:
    """Return the value that ``flag`` (with its dashes) has in ``args``, None when it is not there.

    Raises :class:`FlagWithoutValue` when the list ends with the flag itself.
    """
    occurrences = tuple(_occurrences(args, flag))
    if not occurrences:
        return None
    value = occurrences[-1].value
    if value is None:
        raise FlagWithoutValue(flag)
    return value


def without_flag(args: Sequence[str], flag: str) -> tuple[str, ...]:
    """Return ``args`` without any occurrence of ``flag`` and its value."""
    kept: list[str] = []
    position = 0
    for occurrence in _occurrences(args, flag):
        kept += args[position : occurrence.start]
        position = occurrence.end
    return (*kept, *args[position:])


def with_flag(args: Sequence[str], flag: str, value: str) -> tuple[str, ...]:
    """Return ``args`` with ``flag=value`` as the only occurrence of ``flag``: where the last one was, else as
    last flag.

    One argument, not two: no parser can take a value in the same argument for anything else.
    """
    occurrences = tuple(_occurrences(args, flag))
    bare = without_flag(args, flag)
    if occurrences:
        removed_before = sum(occurrence.end - occurrence.start for occurrence in occurrences[:-1])
        place = occurrences[-1].start - removed_before
    else:
        place = _flags_end(bare)
    return (*bare[:place], f"{flag}={value}", *bare[place:])


def _flags_end(args: Sequence[str]) -> int:
    return args.index(_END_OF_FLAGS) if _END_OF_FLAGS in args else len(args)


# Folders


def home_of(args: Sequence[str]) -> str | None:
    """Return the value of ``--home`` as it stands (the node expands nothing in it), None when it is not
    given."""
    return flag_value(args, HOME)


def tendermint_home_of(
    args: Sequence[str], env: Mapping[str, str] | None = None, *, user: str | None = None
) -> Path:
    """Return the folder of the core's consensus engine, given or default, with variables expanded as the core
    does.

    ``env`` is what the run configuration adds to the environment the core gets, ``user`` whom it runs as.
    """
    value = flag_value(args, TENDERMINT_HOME) or DEFAULT_TENDERMINT_HOME
    return Path(expand_variables(value, node_environment(env, user=user)))


_VARIABLE = re.compile(r"\$(?:\{([^{}]*)\}|([A-Za-z_][A-Za-z0-9_]*))", re.ASCII)


def expand_variables(text: str, env: Mapping[str, str]) -> str:
    """Replace ``$NAME`` and ``${NAME}`` by their values; an unknown variable becomes empty, as it does for
    the node."""
    return _VARIABLE.sub(lambda match: env.get(match[1] if match[1] is not None else match[2], ""), text)


# Commands


class Command(Struct, frozen=True, kw_only=True):
    """What to execute. ``argv`` is complete: ``argv[0]`` is the executable.

    ``leading`` counts the arguments that come from the ``path`` of the run configuration ("vega data-node").
    """

    executable: Path
    argv: tuple[str, ...]
    leading: int = 0
    surroundings: Surroundings = HERE

    @property
    def arguments(self) -> tuple[str, ...]:
        """Everything after ``argv[0]``."""
        return self.argv[1:]

    def with_arguments(self, arguments: Sequence[str]) -> Command:
        """The same executable with other arguments (the leading ones included)."""
        return Command(
            executable=self.executable,
            argv=(self.argv[0], *arguments),
            leading=self.leading,
            surroundings=self.surroundings,
        )


class NoSuchBinary(NodeError):
    """The run configuration has no table for that role."""

    def __init__(self, role: Role) -> None:
        super().__init__(f"the run configuration has no {role.value} binary")
        self.role = role


def command_line(config: RunConfig, role: Role, *, is_file: Callable[[Path], bool] = Path.is_file) -> Command:
    """Return what the run configuration says to execute for ``role``. Raises :class:`NoSuchBinary`.

    The path is relative to the run configuration's folder and never looked up in ``PATH``. A path with a
    space is a file of that very name if there is one, else an executable and its first arguments: the
    published ``path = "vega data-node"`` means the data node inside the one binary, whose sub-command is
    spelled ``datanode``.
    """
    binary = config.core if role is Role.CORE else config.data_node
    if binary is None:
        raise NoSuchBinary(role)
    executable, leading = _split_path(config.folder, str(binary.path), role, is_file)
    return Command(
        executable=executable,
        argv=(str(executable), *leading, *binary.args),
        leading=len(leading),
        surroundings=Surroundings(
            env=binary.env, working_directory=binary.working_directory, user=binary.user
        ),
    )


def _split_path(
    folder: Path, path: str, role: Role, is_file: Callable[[Path], bool]
) -> tuple[Path, tuple[str, ...]]:
    whole = folder / path
    if " " not in path.strip() or is_file(whole):
        return whole, ()
    words = path.split(" ")
    for count in range(len(words) - 1, 0, -1):
        candidate = folder / " ".join(words[:count])
        if words[count - 1] and is_file(candidate):
            return candidate, _leading(words[count:], role)
    # Nothing is there yet. Only a plain sub-command is split off, so that a message names the file that is
    # missing.
    name, _, last = path.rpartition(" ")
    if last in _DATANODE_WORDS:
        return folder / name.rstrip(), _leading([last], role)
    return whole, ()


_DATANODE_WORDS = ("data-node", DATANODE)


def _leading(words: Sequence[str], role: Role) -> tuple[str, ...]:
    leading = tuple(word for word in words if word)
    if role is Role.DATA_NODE and leading[:1] == ("data-node",):
        return (DATANODE, *leading[1:])
    return leading


def is_datanode_subcommand(command: Command) -> bool:
    """Whether the command is the data node inside the one binary, and not a data node binary of its own."""
    return command.arguments[:1] == (DATANODE,)
