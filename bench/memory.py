"""The memory that a cached session takes. `python -m bench.memory DATABASE COUNT` prints resident bytes per session.

A process that does nothing else fills a cache with COUNT real sessions from a real store. All sessions are read once
before that and discarded, so that SQLite's page cache and other one-time allocations exist before the first
measurement.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
from pathlib import Path

from sessiond.cache.activity import UnsavedActivity
from sessiond.cache.sessions import SessionCache
from sessiond.domain.values import SessionId
from sessiond.store.sqlite.store import SqliteStore

__all__ = ["weigh"]


async def weigh(database: Path, count: int) -> float:
    """Return the resident bytes that each of `count` sessions takes in a cache."""
    with sqlite3.connect(database) as db:
        ids = [SessionId(row[0]) for row in db.execute("SELECT session_id FROM sessions LIMIT ?", (count,))]
    db.close()
    store = await SqliteStore.open(database)
    try:
        for session_id in ids:
            await store.session(session_id)
        cache = SessionCache(store.session, UnsavedActivity(), count)
        before = _resident()
        for session_id in ids:
            # A new object for each id, as if it came from a token, so that its memory is counted too.
            await cache.fetch(SessionId(bytes(bytearray(session_id))))
        after = _resident()
    finally:
        await store.close()
    if len(cache) != count:
        raise SystemExit(f"the cache holds {len(cache)} of {count} sessions")
    return (after - before) / count


def _resident() -> int:
    gc.collect()
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this system does not report resident memory")


if __name__ == "__main__":
    print(asyncio.run(weigh(Path(sys.argv[1]), int(sys.argv[2]))))
