"""How a command gets a token, a secret value and a session id."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sessiond_client import Token

__all__ = ["checked_session_id", "read_token", "read_value"]

_LONGEST_LINE = 4096
_LONGEST_VALUE = 1024 * 1024
"""Bytes. No policy allows more data."""


def read_token() -> Token:
    """A token from standard input, or from a hidden prompt if standard input is a terminal.

    Never from an argument or the environment: other users of the machine can read both, and shells keep a history.
    Raises click.UsageError if there is none.
    """
    from sessiond_client import Token

    if sys.stdin.isatty():
        text = click.prompt("Token", hide_input=True, err=True, default="", show_default=False)
    else:
        text = sys.stdin.readline(_LONGEST_LINE)
    text = text.strip()
    if not text:
        raise click.UsageError(f"no token; pass it on standard input, as in `{_command()} < token.txt`")
    return Token(text)


def read_value(name: str) -> bytes:
    """A value of session data: all of standard input, byte for byte, or one line of a hidden prompt for `name`.

    Raises click.UsageError if it is longer than any policy allows.
    """
    if sys.stdin.isatty():
        text: str = click.prompt(name, hide_input=True, err=True, default="", show_default=False)
        value = text.encode("utf-8", "surrogateescape")
    else:
        value = sys.stdin.buffer.read(_LONGEST_VALUE + 1)
    if len(value) > _LONGEST_VALUE:
        raise click.UsageError("the value on standard input has more than 1 MiB, the most that a session may have")
    return value


def checked_session_id(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A session id in its canonical text form. Raises click.UsageError, which does not repeat the value: it may be a
    token in the wrong place."""
    if value is None:
        return None
    from uuid import UUID

    try:
        return str(UUID(value))
    except ValueError:
        name = parameter.opts[0] if parameter.param_type_name == "option" else "SESSION_ID"
        takes_token = any(item.name == "by_token" for item in context.command.params)
        remedy = "; pass a token on standard input, with --token" if takes_token else ""
        raise click.UsageError(
            f"{name}: not a session id, which is a UUID as `sessionctl list` shows it{remedy}"
        ) from None


def _command() -> str:
    """The running command, as the operator may type it."""
    context = click.get_current_context()
    return f"{context.command_path}{' --token' if context.params.get('by_token') else ''}"
