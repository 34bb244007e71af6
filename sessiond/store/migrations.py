"""The numbered migrations of an engine."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["load_migrations"]


def load_migrations(package: str) -> list[str]:
    """Return a package's migrations in order: the first one migrates schema version 0 to 1, and so on."""
    folder = files(package).joinpath("migrations")
    return [file.read_text(encoding="utf-8") for file in sorted(folder.iterdir(), key=lambda file: file.name)]
