"""What went wrong, in a line that names the field and the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from sessionctl.output import printable
from sessionctl.settings import Settings, settings
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

__all__ = ["Command", "Group", "applications_to_use", "explain"]

_TOKEN_LIKE = re.compile(r"[A-Za-z0-9_-]{60}")  # a token has 70 such characters, an id 36, a cursor about 40


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
            text = f"{error.message}; start again with --earliest, or without --after"
        case Conflict() | FailedPrecondition():
            text = error.message  # the authority's own text names the field and the remedy
        case NotServed():
            text = f"{asked.target} does not serve this call: it may be another version, or no sessiond"
        case _:
            text = f"{error.message} ({error.status})"
    return printable(" ".join(text.split()))


def applications_to_use(names: Iterable[str]) -> str:
    """The line that follows where an application was named that the authority does not have."""
    return f"use --application; there are: {', '.join(printable(name) for name in names)}"


def _remedy(error: SessiondError, asked: Settings) -> str:
    """A line more, where the authority has to be asked for it; empty where there is none, or no answer."""
    if not isinstance(error, InvalidArgument) or all(item.field != "application" for item in error.violations):
        return ""
    try:
        with asked.client() as client:
            names = [application.name for application in client.authority().applications]
    except SessiondError:
        return ""  # the refusal itself is what has to be told
    return applications_to_use(names)


@contextmanager
def _keeping_tokens_to_itself(context: click.Context, arguments: list[str]) -> Iterator[None]:
    """Say what is wrong with a command line without repeating an argument that may be a token in the wrong place."""
    try:
        yield
    except click.UsageError as error:
        if not any(_TOKEN_LIKE.search(argument) for argument in arguments):
            raise _harmless(error) from None
        raise click.UsageError(
            "an argument looks like a token; a token is never one: it is read from standard input or a prompt", context
        ) from None


def _harmless(error: click.ClickException) -> click.ClickException:
    """The error, with nothing in its text that a terminal acts on but line ends."""
    text = error.format_message()
    safe = "\n".join(printable(line) for line in text.split("\n"))
    if safe == text:
        return error
    return click.UsageError(safe, error.ctx) if isinstance(error, click.UsageError) else click.ClickException(safe)


class Command(click.Command):
    """A command that does not repeat a token that was given as an argument."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; wrong usage is told with care."""
        with _keeping_tokens_to_itself(ctx, list(args)):
            return super().parse_args(ctx, args)


class Group(click.Group):
    """A group of such commands, whose failed calls end in one line and exit code 1."""

    command_class = Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; wrong usage is told with care."""
        with _keeping_tokens_to_itself(ctx, list(args)):
            return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; wrong usage is told with care."""
        with _keeping_tokens_to_itself(ctx, list(args)):
            return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn an authority's refusal into a line for people."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            raise _harmless(error) from None
        except SessiondError as error:
            asked = settings()
            lines = [explain(error, asked), _remedy(error, asked)]
            raise click.ClickException("\n".join(line for line in lines if line)) from None
