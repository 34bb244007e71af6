"""Backups: of a running server, of its store, and into a data folder."""
