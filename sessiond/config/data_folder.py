"""The names of the files in a data folder that the server and the operator's command line both know."""

from __future__ import annotations

from pathlib import Path

__all__ = ["database_in", "lock_of", "reload_report_in"]


def database_in(folder: Path) -> Path:
    """The embedded database."""
    return folder / "sessiond.db"


def lock_of(database: Path) -> Path:
    """The file that the server of a database holds locked while it runs, and in which it writes its process id."""
    return database.with_name(database.name + ".lock")


def reload_report_in(folder: Path) -> Path:
    """The outcome of the last reload, as JSON; see `sessionctl reload`. A new one replaces the file."""
    return folder / "sessiond.reload"
