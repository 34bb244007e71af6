"""The SQLite engine: one database file, used by one process over one connection."""
