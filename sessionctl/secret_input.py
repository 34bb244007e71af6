"""Where a token and a session id come from."""

from __future__ import annotations

import sys
from uuid import UUID

import click

from sessiond_client import Token

__all__ = ["checked_session_id", "read_token"]

_LONGEST_LINE = 4096


def read_token() -> Token:
    """A token from standard input, or from a hidden prompt where that is a terminal.

    Never from an argument or the environment: both can be read by others on the machine and stay in histories.
    """
    prompted = sys.stdin.isatty()
    text = click.prompt("Token", hide_input=True, err=True) if prompted else sys.stdin.readline(_LONGEST_LINE)
    text = text.strip()
    if not text:
        raise click.UsageError("no token: give it on standard input, as in `sessionctl validate < token.txt`")
    return Token(text)


def checked_session_id(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A session id in its canonical text form. What is none is not repeated: it may be a token in the wrong place."""
    if value is None:
        return None
    try:
        return str(UUID(value))
    except ValueError:
        raise click.BadParameter(
            "not a session id, which is a UUID as `sessionctl list` shows it;"
            " a token is never an argument: it is read from standard input or a prompt",
            context,
            parameter,
        ) from None
