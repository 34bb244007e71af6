"""The names of the files in a data folder, shared by the server and `sessionctl`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["database_in", "key_file_in", "lock_of", "reload_report_in", "worker_socket_in"]


def database_in(folder: Path) -> Path:
    """Return the path of the embedded database."""
    return folder / "sessiond.db"


def key_file_in(folder: Path) -> Path:
    """Return the path of the key file."""
    return folder / "sessiond.key"


def lock_of(database: Path) -> Path:
    """Return the path of the file that a running server keeps locked. It holds the server's process id."""
    return database.with_name(database.name + ".lock")


def worker_socket_in(folder: Path) -> Path:
    """Return the path of the Unix socket on which a server answers its own workers, in a folder that only it uses."""
    return folder / "workers" / "owner.sock"


def reload_report_in(folder: Path) -> Path:
    """Return the path of the outcome of the last reload, as JSON; see `sessionctl reload`."""
    return folder / "sessiond.reload"
