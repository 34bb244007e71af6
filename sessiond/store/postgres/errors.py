"""What an error of the database means for the call that met it."""

from __future__ import annotations

from enum import StrEnum

import asyncpg

__all__ = ["DATABASE_ERRORS", "Meaning", "ValueRejected", "described", "meaning_of"]

DATABASE_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""Everything that an operation on a connection may raise if the database is the cause."""

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_CONFLICTS = ("40001", "40P01")  # serialization failure, deadlock
_AWAY = (
    "08",  # connection exceptions
    "25006",  # read-only: the server has become a standby
    "25P03",  # ended because the transaction was idle for too long
    "28",  # the server does not let us in: its configuration or the password is being changed
    "3D000",  # no such database: it is being replaced by a backup
    "53",  # insufficient resources: too many connections, disk full, out of memory
    "55000",  # of the log's position: the server has become a standby
    "55006",  # the database is in use: it is being renamed
    "55P03",  # lock timeout
    "57014",  # statement timeout
    "57P",  # the server is shutting down, starting or in recovery
    "58",  # I/O error of the server
)


class ValueRejected(Exception):
    """The database does not take a value, so what was to be done with it fails, and nothing else does."""


class Meaning(StrEnum):
    """What an error means.

    CONFLICT  the transaction was rolled back because of another one: run it again
    AWAY      the database does not respond at present; the transaction is not committed, unless COMMIT was sent
    BROKEN    the database rejects what we sent: a bug of ours, or damaged data
    """

    CONFLICT = "conflict"
    AWAY = "away"
    BROKEN = "broken"


def meaning_of(error: BaseException) -> Meaning:
    """Return the meaning of one of `DATABASE_ERRORS`."""
    state = getattr(error, "sqlstate", None)
    if isinstance(error, asyncpg.PostgresError) and state is not None:
        if state in _CONFLICTS:
            return Meaning.CONFLICT
        return Meaning.AWAY if state.startswith(_AWAY) else Meaning.BROKEN
    # Everything else comes from this end of the connection. asyncpg raises even InternalClientError ("cannot switch to
    # state") when a connection is closed at the wrong moment. The connection is given up, and a new one may work.
    return Meaning.AWAY


def described(error: BaseException) -> str:
    """Return the text of one of `DATABASE_ERRORS` for logs and messages, without any value from a row or a statement.

    The detail of an error can contain a whole row, and the message about a value that is rejected contains that value.
    """
    if isinstance(error, asyncpg.DataError):
        return f"{type(error).__name__}, SQLSTATE {error.sqlstate}"
    if isinstance(error, asyncpg.PostgresError) and error.args:
        return str(error.args[0])
    return str(error) or ("timed out" if isinstance(error, TimeoutError) else type(error).__name__)
