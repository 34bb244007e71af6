"""The address of the store: what is accepted, and that its password is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessiond.config import BadConfig, load_config
from sessiond.config.store_address import PostgresAddress, parse_store

SECRET = "radioactive"


def test_the_default_is_the_embedded_store() -> None:
    """Without a setting, and with `sqlite`, the store is the embedded one."""
    assert load_config(None).store is None
    assert parse_store("sqlite") is None


@pytest.mark.parametrize(
    ("text", "url", "pgbouncer"),
    [
        ("postgres://db/sessions", "postgres://db/sessions", False),
        ("postgresql://u:p@db:6432/s?sslmode=require", "postgresql://u:p@db:6432/s?sslmode=require", False),
        ("postgres://a:b@db1:5432,db2:5433/s", "postgres://a:b@db1:5432,db2:5433/s", False),
        ("postgres://db/s?pgbouncer=true", "postgres://db/s", True),
        ("postgres://db/s?pgbouncer=off&sslmode=require", "postgres://db/s?sslmode=require", False),
        ("postgres:///s?host=/run/postgresql", "postgres:///s?host=%2Frun%2Fpostgresql", False),
        ("postgres://db/s?target_session_attrs=read-write", "postgres://db/s", False),
        ("postgres://u:p@a:1,b/s?target_session_attrs=primary", "postgres://u:p@a:1,b/s", False),
    ],
)
def test_addresses(text: str, url: str, pgbouncer: bool) -> None:
    """A URL is passed on; the parameter `pgbouncer` is ours."""
    assert parse_store(text) == PostgresAddress(url, pgbouncer)


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("postgres://db/s", ["postgres://db/s"]),
        ("postgres:///s?host=/run/postgresql", ["postgres:///s?host=%2Frun%2Fpostgresql"]),
        ("postgres://a:1,b:2,c/s?x=y", ["postgres://a:1/s?x=y", "postgres://b:2/s?x=y", "postgres://c/s?x=y"]),
        ("postgres://u:p%2C@a,[::1]:2/s", ["postgres://u:p%2C@a/s", "postgres://u:p%2C@[::1]:2/s"]),
    ],
)
def test_the_servers_of_an_address(url: str, servers: list[str]) -> None:
    """An address with several servers stands for one URL for each, with the same user, database and parameters."""
    address = parse_store(url)
    assert address is not None
    assert list(address.servers) == servers


def test_all_servers_are_shown() -> None:
    """The text of an address names every server."""
    assert str(parse_store(f"postgres://u:{SECRET}@a:1,b:2/s")) == "postgres://a:1,b:2/s"


@pytest.mark.parametrize(
    "text",
    [
        *("", "mysql://db/s", "postgres:", "db", "postgres://db:port/s", "postgres://db/s?pgbouncer=7"),
        *("postgres://a,b:port/s", "postgres://a,/s", "postgres://,b/s", "postgres://a:1,:2/s"),
        *("postgres:///s?host=a,b", "postgres://a,b/s?target_session_attrs=any"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    """Anything else is an error that says what to write."""
    with pytest.raises(ValueError, match="must be"):
        parse_store(text)


@pytest.mark.parametrize("url", [f"postgres://u:{SECRET}@db/s", f"postgres://db/s?user=u&password={SECRET}"])
def test_the_password_is_never_shown(url: str) -> None:
    """The text and the representation of an address show neither password nor parameters."""
    address = parse_store(url)
    assert str(address) == "postgres://db/s"
    assert SECRET not in repr(address)


@pytest.mark.parametrize("value", [f'"postgre://u:{SECRET}@db/s"', f'"postgres://u:{SECRET}@db:x/s"', "7"])
def test_a_refused_address_is_not_repeated(tmp_path: Path, value: str) -> None:
    """The error about a wrong address does not repeat it, because it may have a password."""
    path = tmp_path / "sessiond.toml"
    path.write_text(f"[server]\nstore = {value}\n", encoding="utf-8")
    with pytest.raises(BadConfig) as error:
        load_config(path)
    assert SECRET not in str(error.value)
    assert "server.store: must be" in str(error.value)
