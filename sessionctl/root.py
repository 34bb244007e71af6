"""The command `sessionctl` itself, which imports a command's module only when the command is used."""

from __future__ import annotations

from collections.abc import Mapping

import click

from sessionctl.failures import Group
from sessionctl.settings import global_options

__all__ = ["SUMMARIES", "main"]

_WIDEST_HELP = 120

SUMMARIES: Mapping[str, str] = {
    "activity": "Show the events of a subject, newest first.",
    "backup": "Copy the database of a running server into FILE.",
    "callers": "List the callers that may call the server.",
    "check-config": "Check a configuration file, ./sessiond.toml by default.",
    "completion": "Write the completion script for bash, zsh or fish.",
    "context": "Name servers, and choose one of them.",
    "create": "Open a session.",
    "data": "Read and write a session's data.",
    "doctor": "Find problems of a server and its machine, with remedies.",
    "keyring": "Show and rotate the keys that seal tokens and session data.",
    "list": "List sessions, newest first.",
    "locks": "List sources that are locked because they guessed tokens.",
    "policies": "Show the policies in force, and where each value comes from.",
    "reload": "Make a running server reload its policies and limits.",
    "report": "Report that a session looks suspicious.",
    "restore": "Put a backup into the data folder of a stopped server.",
    "revoke": "End sessions, immediately and permanently.",
    "show": "Show one session.",
    "status": "Show the server's version, log position and applications.",
    "store": "Move an authority between SQLite and Postgres.",
    "top": "Show live what the server is doing, until you press q.",
    "validate": "Check a token.",
    "verify-caches": "Measure how long caches accept a session after its end.",
    "watch": "Show events as they happen, until you press Ctrl-C.",
}
"""The first sentence of each command's help. Kept here too, so that `sessionctl --help` imports no command."""

_PLACES = {
    "activity": ("history", "activity"),
    "authority": ("history", "authority"),
    "backup": ("backing_up", "backup"),
    "callers": ("callers", "callers"),
    "check-config": ("checking", "check_config"),
    "completion": ("completing", "completion"),
    "context": ("choosing", "context"),
    "create": ("sessions", "create"),
    "data": ("data", "data"),
    "doctor": ("doctor", "doctor"),
    "keyring": ("keyring", "keyring"),
    "list": ("sessions", "list_sessions"),
    "locks": ("locks", "locks"),
    "policies": ("policies", "policies"),
    "reload": ("reloading", "reload"),
    "report": ("sessions", "report"),
    "restore": ("restoring", "restore"),
    "revoke": ("ending", "revoke"),
    "show": ("sessions", "show_session"),
    "status": ("history", "status"),
    "store": ("copying", "store"),
    "top": ("top", "top"),
    "validate": ("validating", "validate"),
    "verify-caches": ("caches", "verify_caches"),
    "watch": ("history", "watch"),
}
"""The module and the name of each command, hidden ones included."""


class _Root(Group):
    """The group of all commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, those that are hidden excepted."""
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, hidden or not; None if there is no such command."""
        if cmd_name not in _PLACES:
            return None
        from importlib import import_module

        module, name = _PLACES[cmd_name]
        command: click.Command = getattr(import_module(f"sessionctl.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names and summaries of the commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))


@click.group(
    "sessionctl",
    cls=_Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST_HELP},
)
@click.version_option(package_name="sessiond", prog_name="sessionctl")
@global_options
def main() -> None:
    """Inspect a sessiond server, end sessions, unlock sources, reload policies and limits.

    Global options may come before or after the name of a command. Tokens are read from standard input or a hidden
    prompt, never from an argument or the environment.

    \b
    Exit codes:
      0    done
      1    the server refused or failed, or the command failed locally
      2    wrong usage, or a value that the server rejects
      3    validate: the token is not VALID
      4    no sessiond server at the target, or no answer in time
      5    verify-caches: a cache accepted a revoked session for too long
      78   the configuration cannot be used
      130  interrupted with Ctrl-C
    """
