"""What an error of the database means for the call that met it."""

from __future__ import annotations

from enum import StrEnum

import asyncpg

__all__ = ["DATABASE_ERRORS", "Meaning", "meaning_of"]

DATABASE_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""Everything that an operation on a connection may raise if the database is the cause."""

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_CONFLICTS = ("40001", "40P01")  # serialization failure, deadlock
_AWAY = (
    "08",  # connection exceptions
    "25006",  # read-only: the server has become a standby
    "25P03",  # ended because the transaction was idle for too long
    "53",  # insufficient resources: too many connections, disk full, out of memory
    "55000",  # a standby has no position to write at
    "55P03",  # lock timeout
    "57014",  # statement timeout
    "57P",  # the server is shutting down, starting or in recovery
    "58",  # I/O error of the server
)


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
    # InternalClientError: for example, the server has just said on an idle connection that it shuts down.
    if isinstance(error, (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
        return Meaning.AWAY
    return Meaning.BROKEN
