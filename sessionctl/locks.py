"""Commands about sources that were locked for guessing."""

from __future__ import annotations

from dataclasses import replace

import click

from sessionctl.failures import Group
from sessionctl.output import as_json, printable, show, show_table, when
from sessionctl.settings import Settings, global_options, settings
from sessiond_client import InvalidArgument, SourceLock

__all__ = ["locks"]


@click.group(cls=Group, invoke_without_command=True)
@global_options
@click.pass_context
def locks(context: click.Context) -> None:
    """Show the sources that are locked for guessing.

    `locks clear` unlocks one. Without --application, shows those of all applications.
    """
    if context.invoked_subcommand is not None:
        return
    asked = settings()
    found = _found(asked)
    if asked.json:
        for lock in found:
            as_json(lock)
    elif found:
        show_table(
            [
                (
                    (lock.source, "bold red"),
                    (lock.application, ""),
                    (f"since {when(lock.lock_time)}", "dim"),
                    (f"until {when(lock.expire_time)}", "dim"),
                )
                for lock in found
            ]
        )
    else:
        show(("no source is locked", "dim"))


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
    """Unlock SOURCE.

    Name it as `sessionctl locks` shows it. The guesses that were counted for it are forgotten.
    """
    asked = settings()
    with asked.client() as client:
        try:
            answer = client.clear_source_lock(source, reason=reason)
        except InvalidArgument as error:
            if not any(violation.field == "source" for violation in error.violations):
                raise
            # The authority's own text names the call, which an operator does not know.
            raise click.ClickException("source: must be a network as `sessionctl locks` shows it") from None
    if asked.json:
        as_json(answer)
    else:
        show(("unlocked", "green"), f": {printable(source)}")
