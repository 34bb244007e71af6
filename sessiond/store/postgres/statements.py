"""The named statements with Postgres' style of parameters, and those that only Postgres needs."""

from __future__ import annotations

from sessiond.store import statements
from sessiond.store.statements import ParameterStyle, Statement, Statements, load_statements

__all__ = ["STATEMENTS", "own"]

STATEMENTS: Statements = statements.STATEMENTS[ParameterStyle.NUMBERED]
_OWN = load_statements(ParameterStyle.NUMBERED, "sessiond.store.postgres")
_LINEAGE = """(
    (SELECT system_identifier FROM pg_control_system()) || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
    || '/' || extract(epoch FROM pg_postmaster_start_time())
    || '/' || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/' || 'log_head'::regclass::oid
)"""
"""Names the history of the database: its cluster, its timeline (a new one after each failover), the server's start, the
database, and the table. It differs after a restored backup and after a failover. It differs after each start of the
server too, because an older copy of its files may have been put back while it was stopped."""


def own(name: str) -> Statement:
    """Return one of the statements that only Postgres needs."""
    return _OWN[name].fill(lineage=_LINEAGE)
