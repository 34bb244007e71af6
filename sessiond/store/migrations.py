"""The numbered migrations of an engine, and which schema versions a server can use."""

from __future__ import annotations

from importlib.resources import files

from sessiond.store.contract import StoreRefused

__all__ = ["UNFINISHED", "check_version", "load_migrations"]

UNFINISHED = 1_000_000_000
"""The schema version of a store that `sessionctl store copy` has not filled completely.

It is greater than every real version, so that a server from before this mark refuses the store too.
"""


def load_migrations(package: str) -> list[str]:
    """Return a package's migrations in order: the first one migrates schema version 0 to 1, and so on."""
    folder = files(package).joinpath("migrations")
    return [file.read_text(encoding="utf-8") for file in sorted(folder.iterdir(), key=lambda file: file.name)]


def check_version(place: object, version: int, newest: int) -> None:
    """Raise `StoreRefused` if a server that has the migrations up to `newest` must not use the store at `place`."""
    if version == UNFINISHED:
        raise StoreRefused(
            f"{place} is the unfinished copy of another store. Run the same `sessionctl store copy` again to finish "
            "it, or start with an empty database or data folder"
        )
    if version > newest:
        raise StoreRefused(
            f"{place} has schema version {version}, but this sessiond supports versions up to {newest}. "
            "Run the newer sessiond, or restore a backup from before the upgrade"
        )
