"""``completion``: the script that teaches a shell to complete visor-actors."""

from __future__ import annotations

import click

from visor_actors.cli.framework import Command


@click.command(
    cls=Command,
    examples=(
        "visor-actors completion bash > ~/.local/share/bash-completion/completions/visor-actors",
        "visor-actors completion zsh > ~/.zfunc/_visor-actors",
        "visor-actors completion fish > ~/.config/fish/completions/visor-actors.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of SHELL. Put it where the examples say and open a new shell."""
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root()
    kind = get_completion_class(shell)
    assert kind is not None, "click completes bash, zsh and fish"
    click.echo(kind(root.command, {}, "visor-actors", "_VISOR_ACTORS_COMPLETE").source())
