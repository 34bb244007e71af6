"""The command that copies the database of a running server into a file."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from sessionctl.failures import Command, Failure
from sessionctl.output import as_json, printable, show, show_facts, show_note
from sessionctl.progress import Progress, bytes_of
from sessionctl.settings import global_options, settings

if TYPE_CHECKING:
    from sessiond_client import BackupFacts

__all__ = ["backup"]

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)
"""How file systems without hard links answer, such as those of USB sticks and some of networks."""


@click.command(cls=Command)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@global_options
def backup(file: Path) -> None:
    """Copy the database of a running server into FILE.

    FILE must not exist; `-` writes to standard output, for example to encrypt the backup on its way. It is a tar
    archive with the state of one moment. The server keeps serving. If the store is Postgres, use its own tools.

    The keys are not in the backup: keep a copy of the server's key file too, in another place. `sessionctl restore`
    puts a backup in place.
    """
    if str(file) == "-" and sys.stdout.isatty():
        raise click.UsageError("FILE: a backup is not text; send standard output to a file or a program")
    facts, sha256 = _carry_out(file)
    if str(file) == "-":
        return
    if settings().json:
        as_json(facts, kind="backup", file=str(file), sha256=sha256)
    else:
        _show(file, facts)


def _carry_out(file: Path) -> tuple[BackupFacts, str]:
    """Write the backup. Return what it is of, and SHA-256 of its database."""
    from sessionctl import archives  # here, so that help is fast

    with settings().client() as client, _new(file) as output, client.backup() as copy, Progress(bytes_of) as shown:
        sha256 = archives.write(output, copy.facts, iter(copy), partial(shown.show, "copying"))
        return copy.facts, sha256


@contextmanager
def _new(file: Path) -> Iterator[IO[bytes]]:
    """A new file with mode 0600, which gets its name once it is whole and on the disk. Raises `Failure`."""
    if str(file) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    partial = file.with_name(f"{file.name}.partial")
    try:
        if file.exists():
            raise FileExistsError
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        there = file if file.exists() else partial
        raise Failure(f"{there} exists; choose another name, or delete it") from None
    except OSError as error:
        raise Failure(f"cannot write {file}: {error.strerror}") from None
    try:
        with open(handle, "wb") as output:
            yield output
            output.flush()
            os.fsync(output.fileno())
        _name(partial, file)
    except FileExistsError:
        raise Failure(f"{file} exists; choose another name, or delete it") from None
    except OSError as error:
        raise Failure(f"cannot write {file}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


def _name(partial: Path, file: Path) -> None:
    """Give a file its name, durably. Raises `OSError`, and FileExistsError if another one has it by now."""
    try:
        os.link(partial, file)  # unlike a rename, it replaces no file that was made meanwhile
    except OSError as error:
        if error.errno not in _NO_LINKS or file.exists():
            raise
        partial.rename(file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _show(file: Path, facts: BackupFacts) -> None:
    show(("backed up", "green"), f": {printable(str(file))}")
    show_facts(
        [
            ("database", bytes_of(facts.size, facts.size).rpartition(" of ")[2]),
            ("revision", str(facts.revision)),
            ("authority id", facts.authority_id),
            ("keys", ", ".join(key[:8] for key in facts.key_fingerprints)),
        ]
    )
    show_note("The keys are not in it. Keep a copy of the key file too, in another place.")
