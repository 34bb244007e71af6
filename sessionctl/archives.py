"""The file that a backup is: a tar archive with the database, and after it what it is of.

The description comes last, so that an archive that was cut off has none.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sessiond_client import BackupFacts

__all__ = ["BadArchive", "extract", "write"]

_DATABASE = "sessiond.db"
_DESCRIPTION = "backup.json"
_FORMAT = 1
_LARGEST_DESCRIPTION = 65_536
_BLOCK = 1_048_576
_NEEDED = {"format": int, "sha256": str, "size": int, "time": str, "authority_id": str, "revision": int, "keys": list}


class BadArchive(Exception):
    """The file is no backup, or it is incomplete. The text says which."""


def write(file: IO[bytes], facts: BackupFacts, parts: Iterator[bytes], report: Callable[[int, int], None]) -> str:
    """Write a backup into a file, and return SHA-256 of its database. What `parts` raises propagates.

    `report` is called with how many bytes of the database are written, and how many there are.
    """
    reader = _Reader(parts, facts.size, report)
    seconds = int(facts.time.timestamp())
    # A stream, not a file: nothing is sought, so a pipe can take it.
    with tarfile.open(fileobj=file, mode="w|") as archive:
        archive.addfile(_member(_DATABASE, facts.size, seconds), reader)  # type: ignore[arg-type]
        reader.finish()
        description = {
            "format": _FORMAT,
            "sha256": reader.sha256,
            "size": facts.size,
            "time": facts.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "authority_id": facts.authority_id,
            "revision": facts.revision,
            "server_version": facts.server_version,
            "schema_version": facts.schema_version,
            "keys": list(facts.key_fingerprints),
        }
        text = json.dumps(description, indent=2).encode() + b"\n"
        archive.addfile(_member(_DESCRIPTION, len(text), seconds), BytesIO(text))
    return reader.sha256


def extract(file: IO[bytes], target: Path, report: Callable[[int, int], None]) -> dict[str, Any]:
    """Write the database of a backup to a new file, durably, and return the description. Raises `BadArchive`.

    The file has mode 0600. It is removed if the backup is incomplete.
    """
    try:
        return _extracted(file, target, report)
    except tarfile.TarError as error:
        target.unlink(missing_ok=True)
        raise BadArchive(f"it is not a backup, or it is cut off ({error})") from None
    except BaseException:
        with suppress(FileNotFoundError):
            target.unlink()
        raise


def _extracted(file: IO[bytes], target: Path, report: Callable[[int, int], None]) -> dict[str, Any]:
    with tarfile.open(fileobj=file, mode="r|") as archive:
        member = archive.next()
        content = None if member is None or member.name != _DATABASE else archive.extractfile(member)
        if member is None or content is None:
            raise BadArchive(f"it is not a backup of sessiond: it does not begin with {_DATABASE}")
        digest, done = sha256(), 0
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(handle, "wb") as output:
            while block := content.read(_BLOCK):
                output.write(block)
                digest.update(block)
                done += len(block)
                report(done, member.size)
            output.flush()
            os.fsync(output.fileno())
        described = archive.next()
        text = None if described is None or described.name != _DESCRIPTION else archive.extractfile(described)
        if text is None:
            raise BadArchive(f"it is incomplete: {_DESCRIPTION}, which is written last, is missing")
        description = _parsed(text.read(_LARGEST_DESCRIPTION))
    if (done, digest.hexdigest()) != (description["size"], description["sha256"]):
        raise BadArchive("it is damaged: SHA-256 of the database is not the one that was written with it")
    return description


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        description = json.loads(text)
    except ValueError:
        description = None
    if not isinstance(description, dict) or any(
        not isinstance(description.get(name), kind) for name, kind in _NEEDED.items()
    ):
        raise BadArchive(f"it is damaged: {_DESCRIPTION} cannot be read")
    if description["format"] != _FORMAT:
        raise BadArchive(f"it has format {description['format']}, which a newer sessionctl has written; use that one")
    return description


def _member(name: str, size: int, seconds: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, seconds, 0o600
    return member


class _Reader:
    """Reads the parts of a database as a file."""

    def __init__(self, parts: Iterator[bytes], size: int, report: Callable[[int, int], None]) -> None:
        self._parts = parts
        self._size = size
        self._report = report
        self._digest = sha256()
        self._rest = memoryview(b"")
        self._done = 0

    @property
    def sha256(self) -> str:
        """SHA-256 of what was read."""
        return self._digest.hexdigest()

    def read(self, length: int) -> bytes:
        """The next bytes, at most `length`; empty at the end."""
        pieces, wanted = [], length
        while wanted and (self._rest or self._fetch()):
            piece, self._rest = self._rest[:wanted], self._rest[wanted:]
            pieces.append(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def finish(self) -> None:
        """Read the end of the stream, which says whether all parts were right."""
        while self._fetch():
            pass

    def _fetch(self) -> bool:
        part = next(self._parts, None)
        if part is None:
            return False
        self._digest.update(part)
        self._rest = memoryview(part)
        self._done += len(part)
        self._report(self._done, self._size)
        return True
