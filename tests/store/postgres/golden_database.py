"""The golden databases: dumps that the sessiond of each schema version wrote.

python -m tests.store.postgres.golden_database    # write the one of the current version; never for a released version
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from sessiond.config.store_address import PostgresAddress
from sessiond.domain.access import EVERYTHING, CallerRecord, Credential, CredentialKind, Role
from sessiond.domain.event import EventType
from sessiond.domain.values import Instant, Millis, Revision
from sessiond.store.contract import KeptAnswer
from sessiond.store.migrations import load_migrations
from sessiond.store.postgres.store import PostgresStore
from tests.contracts import samples
from tests.contracts.store import DAY, write
from tests.store.sqlite import test_migrations as sqlite
from tests.support.clock import START
from tests.support.postgres import new_database, own_postgres

__all__ = ["ANSWER", "DATA", "GOLDEN", "HEAD", "HORIZON", "IDENTITY", "SESSIONS", "callers_of"]

GOLDEN = {int(path.stem.split("_")[1]): path for path in (Path(__file__).parent / "golden").glob("version_*.sql")}
IDENTITY = bytes(range(16))
SESSIONS = sqlite.SESSIONS[4]
DATA = {"cart": b"3 apples", "ü": b"\0\xff"}
ANSWER: KeptAnswer = sqlite.ANSWERS[4][0]
HEAD, HORIZON = len(SESSIONS) + 2, 2
_KEYS = (
    Credential("aaaaaaaaaa", CredentialKind.KEY, bytes(32), Instant(START), Instant(START + 900)),
    Credential("bbbbbbbbbb", CredentialKind.KEY, bytes(range(32)), Instant(START + 1)),
)
_CALLERS = [
    CallerRecord("ops", EVERYTHING, _KEYS[1:], Instant(START), Revision(1)),
    CallerRecord(
        "shop", frozenset({("shop ü", Role.ISSUER), ("*", Role.VALIDATOR)}), _KEYS, Instant(START), Revision(2)
    ),
]


def callers_of(version: int) -> list[CallerRecord]:
    """Return the callers in the database of a schema version."""
    return _CALLERS if version >= 3 else []


async def fill(store: PostgresStore) -> None:
    """Write one of everything: sessions of each kind, labels, data, a kept answer, and a log with a horizon."""
    endings = ((EventType.SESSION_REVOKED, sqlite.REVOKED), (EventType.SESSION_EXPIRED, sqlite.EXPIRED))
    created = [samples.event(number, START, session_id=one.id) for number, one in enumerate(SESSIONS, 1)]
    ended = [
        samples.event(HEAD - 1 + number, START + 80, type=kind, session_id=one.id)
        for number, (kind, one) in enumerate(endings)
    ]
    await write(
        store,
        sessions={session.id: session for session in SESSIONS},
        retention={one.id: Millis(DAY) for _, one in endings},
        data={sqlite.FULL.id: dict(DATA)},
        answers=[ANSWER],
        callers={caller.name: caller for caller in _CALLERS},
        events=[*created, *ended],
    )
    await write(store, horizon=Revision(HORIZON))
    await store.renew(Revision(HEAD), "the fingerprint of policies")


async def main() -> None:
    """Write the golden database of the current version."""
    version = len(load_migrations("sessiond.store.postgres"))
    with own_postgres() as server:
        database = await new_database(server.url())
        store = await PostgresStore.open(
            PostgresAddress(database), entropy=lambda count: bytes(range(count)), name="one"
        )
        await fill(store)
        beside = await asyncpg.connect(database)
        await beside.execute("UPDATE replicas SET lease_until = '2026-01-01T00:00:00Z'")  # that replica is long gone
        await beside.close()
        name = urlsplit(database).path.removeprefix("/")
        options = ("-h", "127.0.0.1", "-p", str(server.port), "-U", "sessiond", "--inserts", "--no-owner", name)
        lines = server.run("pg_dump", *options).splitlines()
        await store.close()
    kept = [line for line in lines if line and not line.startswith(("--", "\\", "SET ", "SELECT "))]
    file = Path(__file__).parent / "golden" / f"version_{version}.sql"
    file.write_text("\n".join(kept) + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
