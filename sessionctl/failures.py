"""How commands fail: one line on standard error that names the cause and the remedy, and a documented exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import IO, Any

import click
from click.exceptions import Abort, NoArgsIsHelpError
from click.exceptions import Exit as Exiting

from sessionctl.exits import Exit
from sessionctl.settings import GLOBAL_OPTIONS
from sessiond.domain.text import looks_like_token, printable, without_tokens

__all__ = ["Command", "Failure", "Group", "one_of", "suggestion", "unknown_command", "usage_text"]

_NEVER_AS_ARGUMENT = (
    "an argument looks like a token; pass a token on standard input or at the prompt, never as an argument"
)
_HELP_COLUMN = 24


class Failure(click.ClickException):
    """Ends a command with this message and exit code. Each line of the message is an error of its own.

    `note` is a line about all of them, such as what the command did nevertheless. Both are made printable, and what
    looks like a token is left out: it may come from an environment variable.
    """

    def __init__(self, message: str, exit_code: Exit = Exit.FAILED, *, note: str = "") -> None:
        super().__init__("\n".join(printable(line) for line in without_tokens(message).split("\n")))
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it as a class variable
        self.note = printable(without_tokens(note))

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the errors, and then the note, to `file`; None: standard error."""
        for line in self.message.split("\n"):
            click.echo(f"Error: {line}", file=file, err=file is None)
        if self.note:
            click.echo(self.note, file=file, err=file is None)


def one_of(kind: str, words: Iterable[str]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """The callback of an option whose values are words, in any case; `words` are in lower case.

    It raises click.UsageError with the possible words, and a similar one if there is one. `kind`: what the words name.
    """
    possible = list(words)

    def word(value: str) -> str:
        if value.lower() in possible:
            return value.lower()
        near = suggestion(value.lower(), possible)
        raise click.UsageError(f"unknown {kind} '{value}' (possible: {', '.join(possible)}){near}")

    def checked(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        return tuple(map(word, value)) if isinstance(value, tuple) else word(value)

    return checked


def suggestion(wrong: str, names: Iterable[str]) -> str:
    """`; did you mean 'list'?` if one of the names is similar, otherwise nothing."""
    from difflib import get_close_matches  # here, so that commands start quickly

    found = get_close_matches(wrong, list(names), n=1)
    return f"; did you mean '{found[0]}'?" if found else ""


class _Plain(click.Command):
    """A command whose failures are one line each, and which accepts and repeats no token as an argument."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, those of a subcommand included. Raises `Failure`."""
        if any(map(looks_like_token, args)) and not ctx.resilient_parsing:  # a shell that completes shows no errors
            raise Failure(_NEVER_AS_ARGUMENT, Exit.USAGE)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _of_usage(error, ctx) from None

    def get_help_option_names(self, ctx: click.Context) -> list[str]:
        """The names of the help option, also if the command is looked at without the group that it belongs to."""
        return ["-h", "--help"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options: the command's own first, then those that every command has."""
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                (shared if parameter.name in GLOBAL_OPTIONS else own).append(record)
        for title, records in (("Options", own), ("Global options", shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=_HELP_COLUMN)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises `Failure`; ends with exit code 130 after Ctrl-C."""
        try:
            return super().invoke(ctx)
        except (Failure, Exiting, NoArgsIsHelpError):
            raise
        except click.UsageError as error:
            raise _of_usage(error, ctx) from None
        except click.ClickException as error:
            raise Failure(error.format_message(), Exit(error.exit_code)) from None
        except (KeyboardInterrupt, Abort):
            click.echo("interrupted", err=True)
            ctx.exit(Exit.INTERRUPTED)
        except Exception as error:
            from sessionctl.refusals import explained  # here, because it imports gRPC

            failure = explained(error)
            if failure is None:
                raise
            raise failure from None


class Command(_Plain):
    """A command of sessionctl."""


class Group(_Plain, click.Group):
    """A group of commands. It suggests the right name for a wrong one."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Raises `Failure`."""
        name = args[0]
        try:
            if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
                raise unknown_command(self, ctx, name)
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise _of_usage(error, ctx) from None


def _of_usage(error: click.UsageError, ctx: click.Context) -> click.ClickException:
    """The failure for a wrong command line, which names the page of help."""
    if isinstance(error, NoArgsIsHelpError):
        return error
    return Failure(usage_text(error, ctx), Exit.USAGE)


def unknown_command(group: click.Group, ctx: click.Context, name: str) -> click.UsageError:
    """The error for a name that is no command of the group, with a similar name if there is one."""
    return click.UsageError(f"unknown command '{name}'{suggestion(name, group.list_commands(ctx))}", ctx)


def usage_text(error: click.UsageError, ctx: click.Context) -> str:
    """Wrong usage in one line that names the page of help."""
    ctx = error.ctx or ctx
    if isinstance(error, click.NoSuchOption):
        names = [name for parameter in ctx.command.get_params(ctx) for name in parameter.opts if name.startswith("--")]
        text = f"unknown option '{error.option_name}'{suggestion(error.option_name, names)}"
    else:
        text = " ".join(error.format_message().split()).rstrip(".")
        if text[1:2].islower():  # click's own texts begin with a capital, ours do not unless it is a name
            text = text[0].lower() + text[1:]
    return f"{text} (see `{ctx.command_path} --help`)"
