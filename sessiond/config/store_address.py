"""The address of a Postgres store: a URL, whose password is never shown."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from sessiond.domain.immutable import immutable

__all__ = ["PostgresAddress", "parse_store"]

_SCHEMES = ("postgres", "postgresql")
_BOOLEANS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}


@immutable
class PostgresAddress:
    """Where a Postgres store is. Neither `repr` nor `str` shows the password.

    url        as asyncpg takes it
    pgbouncer  whether a PgBouncer in transaction mode is in between: no prepared statements, no LISTEN, no settings of
               a connection
    """

    url: str
    pgbouncer: bool = False

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{unquote(parts.path)}"

    def __repr__(self) -> str:
        return f"PostgresAddress({self})"


def parse_store(text: str) -> PostgresAddress | None:
    """Return the address in a setting; None for `sqlite`, the embedded default. Raise ValueError with the remedy."""
    if text == "sqlite":
        return None
    try:
        parts = urlsplit(text)
        for host in parts.netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{host}").port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in _SCHEMES or not (parts.hostname or parts.query):
        raise ValueError('must be "sqlite" or "postgres://USER:PASSWORD@HOST:PORT/DATABASE"')
    options = dict(parse_qsl(parts.query))
    pgbouncer = options.pop("pgbouncer", "false").lower()
    if pgbouncer not in _BOOLEANS:
        raise ValueError("the parameter pgbouncer must be true or false")
    query = f"?{urlencode(options)}" if options else ""
    return PostgresAddress(f"{parts.scheme}://{parts.netloc}{parts.path}{query}", _BOOLEANS[pgbouncer])
