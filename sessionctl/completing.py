"""The command that writes the completion script of a shell. `sessiond` has the same one."""

from __future__ import annotations

import click

from sessionctl.failures import Command, one_of
from sessionctl.values import words

__all__ = ["SHELLS", "completion", "completion_script"]

SHELLS = ("bash", "zsh", "fish")


def completion_script(group: click.Group, shell: str) -> str:
    """The script that completes the commands, options and values of a program in one of `SHELLS`."""
    from click.shell_completion import get_completion_class

    name = group.name or ""
    shell_class = get_completion_class(shell)
    if shell_class is None:
        raise ValueError(f"click has no completion for {shell}")
    # Not `source()`, which runs bash to look at its version: the script may be for another machine.
    completion = shell_class(group, {}, name, f"_{name.upper()}_COMPLETE")
    return completion.source_template % completion.source_vars()


@click.command(cls=Command)
@click.argument("shell", metavar="SHELL", callback=one_of("shell", SHELLS), shell_complete=words(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Write the completion script for bash, zsh or fish.

    In bash, add this line to ~/.bashrc. In zsh, write zsh instead of bash, and add it to ~/.zshrc after `compinit`:

    \b
      eval "$(sessionctl completion bash)"

    In fish, run once:

    \b
      sessionctl completion fish > ~/.config/fish/completions/sessionctl.fish

    The script asks `sessionctl` itself for commands, options and the names of contexts, so it stays correct
    after an upgrade. It does not ask a server.
    """
    program = context.find_root().command
    if isinstance(program, click.Group):
        click.echo(completion_script(program, shell), nl=False)
