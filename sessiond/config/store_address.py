"""The address of a Postgres store: a URL, whose password is never shown."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from sessiond.domain.immutable import immutable

__all__ = ["PostgresAddress", "parse_store"]

_SCHEMES = ("postgres", "postgresql")
_BOOLEANS = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
_WRITABLE = ("read-write", "primary")


@immutable
class PostgresAddress:
    """Where a Postgres store is. Neither `repr` nor `str` shows the password.

    url        as asyncpg takes it; with several servers, separated by commas, for a database that fails over
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

    @property
    def servers(self) -> Sequence[str]:
        """Return one URL for each server."""
        parts = urlsplit(self.url)
        user, at, _ = parts.netloc.rpartition("@")
        query = f"?{parts.query}" if parts.query else ""
        return [f"{parts.scheme}://{user}{at}{host}{parts.path}{query}" for host in _hosts(parts)]


def parse_store(text: str) -> PostgresAddress | None:
    """Return the address in a setting; None for `sqlite`, the embedded default. Raise ValueError with the remedy."""
    if text == "sqlite":
        return None
    try:
        parts = urlsplit(text)
        hosts = [urlsplit(f"//{host}") for host in _hosts(parts)]
        _ = [host.port for host in hosts]
    except ValueError:
        parts, hosts = urlsplit(""), []
    if parts.scheme not in _SCHEMES or not (all(host.hostname for host in hosts) or (parts.query and len(hosts) == 1)):
        raise ValueError('must be "sqlite" or "postgres://USER:PASSWORD@HOST:PORT/DATABASE"')
    options = dict(parse_qsl(parts.query))
    if "," in options.get("host", ""):
        raise ValueError("several servers must be named as in postgres://HOST1:PORT,HOST2:PORT/DATABASE")
    # Only a server that takes writes is ever used, so the parameter has no other value to choose.
    if options.pop("target_session_attrs", "read-write") not in _WRITABLE:
        raise ValueError("the parameter target_session_attrs must be read-write, or left out")
    pgbouncer = options.pop("pgbouncer", "false").lower()
    if pgbouncer not in _BOOLEANS:
        raise ValueError("the parameter pgbouncer must be true or false")
    query = f"?{urlencode(options)}" if options else ""
    return PostgresAddress(f"{parts.scheme}://{parts.netloc}{parts.path}{query}", _BOOLEANS[pgbouncer])


def _hosts(parts: SplitResult) -> list[str]:
    """Return the servers of a URL, each with its port if it has one."""
    return parts.netloc.rpartition("@")[2].split(",")
