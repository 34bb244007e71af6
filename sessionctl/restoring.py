"""The command that puts a backup into a data folder. It works on files, without a server."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import UUID

import click

from sessionctl.exits import Exit
from sessionctl.failures import Command, Failure
from sessionctl.output import as_json, printable, show, show_facts, show_note
from sessionctl.progress import Progress, bytes_of
from sessionctl.settings import output_options, settings

if TYPE_CHECKING:
    from sessiond.restore_store import Described, Restored

__all__ = ["restore"]


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--end-sessions/--keep-sessions",
    default=None,
    help="Whether to end the sessions that were live at the backup. Without a terminal, one of them is required.",
)
@click.option("--replace", is_flag=True, help="If FOLDER has a database, move it aside.")
@output_options
def restore(file: Path, folder: Path, end_sessions: bool | None, replace: bool) -> None:
    """Put a backup into the data folder of a stopped server.

    FILE is what `sessionctl backup` has written; `-` reads standard input. FOLDER is the server's data folder. It needs
    the key file of that time. If the backup is damaged, or FOLDER has another key file, nothing in FOLDER changes.
    Without a key file, the backup is restored; copy the key file to FOLDER before you start the server.

    A session that was revoked after the backup is live again. --end-sessions ends all that were live, so everyone must
    log in again. Positions in the event stream from after the backup are refused: subscribers begin again.
    """
    asks = end_sessions is None
    if asks and (str(file) == "-" or not sys.stdin.isatty()):
        raise click.UsageError(
            "say whether the sessions that were live at the backup end: add --end-sessions or --keep-sessions"
        )

    def wants_end(count: int) -> bool:
        if end_sessions is not None:
            return end_sessions
        question = f"End the {count:,} sessions that were live at the backup? Some may have been revoked since"
        return click.confirm(question, err=True)

    restored, described = _carry_out(file, folder, wants_end, replace=replace)
    if settings().json:
        as_json(
            {
                "kind": "restored",
                "live": restored.live,
                "ended": restored.ended,
                "revision": restored.revision,
                "moved": None if restored.moved is None else str(restored.moved),
                "key_file": "present" if restored.has_keys else "needed",
                "keys": described["keys"],
                "time": described["time"],
            }
        )
    else:
        _show(folder, restored, described)


def _carry_out(file: Path, folder: Path, wants_end: Any, *, replace: bool) -> tuple[Restored, dict[str, Any]]:
    import asyncio  # these imports are here so that help and wrong usage do not wait for the store

    from sessionctl import archives
    from sessiond.restore_store import Described, StoreRefused, restore_store

    description: dict[str, Any] = {}
    with _opened(file) as archive, Progress(bytes_of) as shown:

        def extract(target: Path) -> Described:
            description.update(archives.extract(archive, target, partial(shown.show, "reading")))
            shown.close()
            return Described(description["authority_id"].replace("-", ""), description["revision"])

        try:
            return asyncio.run(restore_store(folder, extract, wants_end, replace=replace)), description
        except archives.BadArchive as error:
            raise Failure(f"cannot restore {file}: {error}") from None
        except StoreRefused as error:
            raise Failure(str(error)) from None
        except OSError as error:
            raise Failure(f"cannot restore {file}: {error.filename or folder}: {error.strerror}") from None


def _opened(file: Path) -> IO[bytes]:
    if str(file) == "-":
        return sys.stdin.buffer
    try:
        return file.open("rb")
    except OSError as error:
        raise Failure(f"cannot read {file}: {error.strerror}", Exit.USAGE) from None


def _show(folder: Path, restored: Restored, described: dict[str, Any]) -> None:
    show(("restored", "green"), f": {printable(str(folder))}, as of {described['time']}")
    facts = [
        (
            "live sessions",
            f"{restored.live:,}" + (f", of which {restored.ended:,} were ended" if restored.ended else ""),
        ),
        ("revision", str(restored.revision)),
        ("authority id", str(UUID(described["authority_id"]))),
    ]
    if restored.moved is not None:
        facts.append(("moved aside", printable(str(restored.moved))))
    show_facts(facts)
    if not restored.has_keys:
        keys = ", ".join(printable(str(key)[:8]) for key in described["keys"])
        show_note(f"Put the key file into the folder before you start the server. It must have the key {keys}.")
    if restored.live > restored.ended:
        show_note("Sessions that were revoked after the backup are live again: `sessionctl revoke --all` ends all.")
