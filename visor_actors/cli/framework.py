"""What all commands share: the home, the form of output, examples in their help."""

from __future__ import annotations

import enum
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click
from msgspec import Struct

from visor_actors.cli.plain_run import absolute_home

if TYPE_CHECKING:
    from visor_actors.api.client import ControlClient
    from visor_actors.home import HomeLayout

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class Output(enum.Enum):
    """How a command prints: for a person, or one JSON document."""

    HUMAN = "human"
    JSON = "json"


class Invocation(Struct, frozen=True, kw_only=True):
    """What a command was called with beside its own options."""

    home_option: Path | None
    output: Output

    @property
    def home(self) -> Path:
        """The home folder, absolute. Raises a usage error if nobody said which."""
        named = self.home_option or os.environ.get("VISOR_HOME")
        if not named:
            raise click.UsageError("Which home folder? Use --home PATH, or set VISOR_HOME.")
        return absolute_home(named)

    @property
    def layout(self) -> HomeLayout:
        """The paths in the home folder."""
        from visor_actors.home.layout import HomeLayout

        return HomeLayout(self.home)

    @property
    def client(self) -> ControlClient:
        """The way to the visor that runs on this home, if one does."""
        from visor_actors.api.client import ControlClient

        return ControlClient(self.layout.socket)


def home_option(function: F) -> F:
    """Add ``--home`` to a command."""
    decorate = click.option(
        "--home", type=click.Path(path_type=Path), metavar="PATH", help="Home folder (default: VISOR_HOME)."
    )
    return decorate(function)


def output_option(function: F) -> F:
    """Add ``--output`` to a command."""
    decorate = click.option(
        "--output", type=click.Choice([kind.value for kind in Output]), help="How to print (default: human)."
    )
    return decorate(function)


class Command(click.Command):
    """A command whose help ends with examples, printed as they are to be typed."""

    def __init__(self, *arguments: Any, examples: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = examples

    def format_epilog(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the examples."""
        write_examples(formatter, self.examples)


class Group(click.Group):
    """A command with sub commands, and examples."""

    def __init__(self, *arguments: Any, examples: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = examples

    def format_epilog(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the examples."""
        write_examples(formatter, self.examples)


def write_examples(formatter: click.HelpFormatter, examples: tuple[str, ...]) -> None:
    """Write ``examples`` under a heading of their own, one a line, unwrapped."""
    if examples:
        with formatter.section("Example" if len(examples) == 1 else "Examples"):
            for example in examples:
                formatter.write(f"{' ' * formatter.current_indent}{example}\n")


def with_invocation(function: Callable[Concatenate[Invocation, P], R]) -> Callable[P, R]:
    """Give a command ``--home`` and ``--output``, both also before its name, and pass them as an Invocation.

    What stands nearer to the command wins: after its name, then before it, then the environment."""

    @functools.wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        home, output = options.pop("home", None), options.pop("output", None)
        outer: click.Context | None = click.get_current_context()
        while outer is not None:
            home, output = home or outer.params.get("home"), output or outer.params.get("output")
            outer = outer.parent
        invocation = Invocation(
            home_option=home if isinstance(home, Path) else None,
            output=Output(output) if isinstance(output, str) else Output.HUMAN,
        )
        return function(invocation, *arguments, **options)

    return home_option(output_option(call))
