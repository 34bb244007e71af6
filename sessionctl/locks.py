"""Commands about sources that were locked because they guessed tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from sessionctl.failures import Group
from sessionctl.output import as_json, printable, show, show_note
from sessionctl.settings import Settings, global_options, settings
from sessionctl.tables import show_table
from sessionctl.views import LOCKS, lock_row

if TYPE_CHECKING:
    from sessiond_client import SourceLock

__all__ = ["locks"]


@click.group(cls=Group, invoke_without_command=True)
@global_options
@click.pass_context
def locks(context: click.Context) -> None:
    """List sources that are locked because they guessed tokens.

    Without --application it lists those of all applications. `sessionctl locks clear SOURCE` unlocks one.
    """
    if context.invoked_subcommand is not None:
        return
    found = _found(settings())
    if settings().json:
        for lock in found:
            as_json(lock)
    elif not show_table(LOCKS, map(lock_row, found)):
        show_note("no locked sources found")


def _found(asked: Settings) -> list[SourceLock]:
    if asked.application:
        names = [asked.application]
    else:
        with asked.client() as client:
            names = [application.name for application in client.authority().applications]
    found: list[SourceLock] = []
    for name in names:
        with replace(asked, application=name).client() as client:
            found += client.list_source_locks()
    return found


@locks.command("clear")
@click.argument("source")
@click.option("--reason", default="", help="Why, for the event.")
@global_options
def clear(source: str, reason: str) -> None:
    """Unlock SOURCE, and forget the guesses that were counted for it.

    Write SOURCE as `sessionctl locks` shows it, and name its application with --application unless that is `default`.
    """
    asked = settings()
    with asked.client() as client:
        answer = client.clear_source_lock(source, reason=reason)
    if asked.json:
        as_json(answer)
    else:
        show(("unlocked", "green"), f": {printable(source)}")
