"""The command that moves an authority to another store. It works on files and databases, without a server."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import click

from sessionctl.exits import Exit
from sessionctl.failures import Command, Failure, Group
from sessionctl.output import as_json, printable, show, show_facts
from sessionctl.progress import Progress
from sessionctl.screen import screen
from sessionctl.settings import output_options, settings
from sessionctl.tables import Column, show_table

if TYPE_CHECKING:
    from sessiond.copy_store import Copied, Place
    from sessiond.copy_store import Progress as Copying

__all__ = ["store"]

_COUNTS = (Column("TABLE"), Column("SOURCE"), Column("DESTINATION"))
_VARIABLES = {"SRC": "SESSIOND_COPY_FROM", "DST": "SESSIOND_COPY_TO"}
_PROMPTS = {"SRC": "Source (a data folder or a URL)", "DST": "Destination (a data folder or a URL)"}
_SCHEMES = ("postgres://", "postgresql://")
_SECRETS = ("password", "sslpassword")
_LONGEST_LINE = 4096
_AGAIN = "the copy is not complete; run the same command again to continue"


class _Copy(Command):
    """A command that repeats no password from its arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Raises `Failure`."""
        if any(map(_has_password, args)) and not ctx.resilient_parsing:  # a shell that completes shows no errors
            raise Failure(
                "a URL in an argument must not have a password, because other users of the machine can read arguments; "
                f"set {_VARIABLES['SRC']} or {_VARIABLES['DST']} instead, or write `-` and enter the URL at the prompt",
                Exit.USAGE,
            )
        return super().parse_args(ctx, args)


@click.group(cls=Group)
def store() -> None:
    """Move an authority between SQLite and Postgres."""


@store.command("copy", cls=_Copy)
@click.argument("source", metavar="[SRC]", default="")
@click.argument("destination", metavar="[DST]", default="")
@output_options
def copy(source: str, destination: str) -> None:
    """Copy a stopped authority to an empty store.

    SRC and DST are each a data folder (SQLite) or postgres://USER@HOST:PORT/DATABASE. A URL with a password must not be
    an argument: write `-` to read it from standard input or a hidden prompt, or leave the arguments out and set
    SESSIOND_COPY_FROM and SESSIOND_COPY_TO.

    Everything is copied: tokens stay valid, and events, cursors and consistency tokens stay as they are. The source is
    not changed. If the copy is interrupted, run the command again: it continues. Servers refuse the destination until
    every row has been copied and compared.
    """
    from_ = _place("SRC", source)
    to = _place("DST", destination)
    if from_ == to or (isinstance(from_, Path) and isinstance(to, Path) and from_.resolve() == to.resolve()):
        raise click.UsageError("SRC and DST are the same")
    copied = _carry_out(from_, to)
    if settings().json:
        _show_json(copied)
    else:
        _show(copied, _about_keys(copied, from_, to))


def _has_password(text: str) -> bool:
    """Return whether a text is a URL with a password."""
    if not text.lower().startswith(_SCHEMES):
        return False
    try:
        parts = urlsplit(text)
        named = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        return bool(parts.password) or not named.isdisjoint(_SECRETS)
    except ValueError:  # not a URL that we can read, and it may have one
        return "@" in text


def _place(name: str, argument: str) -> Place:
    """The store that an argument names, or else a variable. Raises click.UsageError, which repeats no URL."""
    text, origin = argument, name
    if not argument:
        origin = _VARIABLES[name]
        text = os.environ.get(origin, "")
        if not text:
            raise click.UsageError(f"missing {name}; give it as an argument, or set {origin}")
    elif argument == "-":
        text = _entered(name)
    if not text.lower().startswith(_SCHEMES):
        if "://" in text:
            raise click.UsageError(f"{origin}: must be a data folder or postgres://USER@HOST:PORT/DATABASE")
        return Path(text)
    from sessiond.config.store_address import parse_store  # here, so that help is fast

    try:
        address = parse_store(text)
    except ValueError:
        address = None
    if address is None:
        raise click.UsageError(f"{origin}: must be a data folder or postgres://USER@HOST:PORT/DATABASE")
    return address


def _entered(name: str) -> str:
    if sys.stdin.isatty():
        text: str = click.prompt(_PROMPTS[name], hide_input=True, err=True, default="", show_default=False)
    else:
        text = sys.stdin.readline(_LONGEST_LINE)
    if not text.strip():
        raise click.UsageError(
            f"{name}: nothing was entered; `-` reads a line of standard input, or asks on a terminal"
        )
    return text.strip()


def _carry_out(source: Place, destination: Place) -> Copied:
    import asyncio  # these imports are here so that help and wrong usage do not wait for the databases' drivers

    from sessiond.copy_store import StoreRefused, StoreUnavailable, copy_store

    shown = Progress()

    def report(progress: Copying) -> None:
        shown.show(progress.stage, progress.done, progress.total, progress.table)

    try:
        with shown:
            return asyncio.run(copy_store(source, destination, report))
    except StoreRefused as error:
        raise Failure(str(error)) from None
    except StoreUnavailable as error:
        raise Failure(str(error), Exit.UNREACHABLE, note=_AGAIN if shown.began else "") from None
    except KeyboardInterrupt:
        if shown.began:
            click.echo(_AGAIN, err=True)
        raise


def _show(copied: Copied, about_keys: str) -> None:
    show_table(_COUNTS, [((c.table, ""), (str(c.source), ""), (str(c.destination), "")) for c in copied.counts])
    show()
    show_facts(
        [
            ("authority id", _as_uuid(copied.authority_id)),
            ("revision", str(copied.revision)),
            ("horizon", str(copied.horizon)),
        ]
    )
    show()
    show(("copied", "green"), ": every row was compared")
    text = printable(f"key file: {about_keys}")
    wraps = screen().terminal and not settings().wide
    for line in (
        textwrap.wrap(text, screen().width, break_long_words=False, break_on_hyphens=False) if wraps else [text]
    ):
        show(line)


def _show_json(copied: Copied) -> None:
    for counts in copied.counts:
        as_json(counts, kind="table")
    as_json(
        {
            "kind": "copied",
            "authority_id": _as_uuid(copied.authority_id),
            "revision": copied.revision,
            "horizon": copied.horizon,
            "key_file": str(copied.key_file),
        }
    )


def _about_keys(copied: Copied, source: Place, destination: Place) -> str:
    """Return what is left to do about the key file."""
    from sessiond.config.data_folder import key_file_in

    if isinstance(destination, Path):
        path = key_file_in(destination)
        return {
            "copied": f"copied to {path}",
            "present": f"{path} has the right key",
        }.get(copied.key_file, f"copy the key file of a replica to {path} before you start the server")
    if isinstance(source, Path):
        return f"copy {key_file_in(source)} to the data folder of each replica before you start it"
    return "each replica needs the key file that it has now in its data folder"


def _as_uuid(authority_id: bytes) -> str:
    from uuid import UUID

    return str(UUID(bytes=authority_id))
