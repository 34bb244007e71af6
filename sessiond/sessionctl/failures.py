"""What went wrong, in one line that names the field and the remedy."""

from __future__ import annotations

from typing import Any

import click

from sessiond.sessionctl.settings import Settings, settings
from sessiond_client import (
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotServed,
    OutOfRange,
    SessiondError,
    Unavailable,
)

__all__ = ["Command", "Group", "explain"]


def explain(error: SessiondError, asked: Settings) -> str:
    """One line for people. Holds no token: no exception does."""
    match error:
        case InvalidArgument(violations=[_, *_]):
            text = "; ".join(f"{item.field}: {item.description}" for item in error.violations)
        case Unavailable():
            text = (
                f"no authority answers at {asked.target}: start one with `sessiond serve`, or name another with"
                f" --target ({error.message})"
            )
        case DeadlineExceeded():
            text = f"{asked.target} did not answer within {asked.timeout:g} s: --timeout allows it more"
        case NotFound():
            text = f"{error.message}; --application names another than `{asked.application or 'default'}`"
        case OutOfRange():
            text = f"{error.message}; begin anew with --earliest, or without --after"
        case Conflict() | FailedPrecondition():
            text = error.message  # the authority's own text names the field and the remedy
        case NotServed():
            text = f"{asked.target} does not serve this call: it may be another version, or no sessiond"
        case _:
            text = f"{error.message} ({error.status})"
    return " ".join(text.split())


class Command(click.Command):
    """A command that never repeats an argument it did not expect: it may be a token in the wrong place."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and refuse what is left over without showing it."""
        ctx.allow_extra_args = True
        left_over = super().parse_args(ctx, args)
        if left_over:
            ctx.fail("too many arguments; a token is never one: it is read from standard input or a prompt")
        return left_over


class Group(click.Group):
    """A group of such commands, whose failed calls end in one line and exit code 1."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn an authority's refusal into a line for people."""
        try:
            return super().invoke(ctx)
        except SessiondError as error:
            raise click.ClickException(explain(error, settings())) from None
