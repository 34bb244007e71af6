"""What a cached session weighs. `python -m bench.memory DATABASE COUNT` prints resident bytes for each.

A cache is filled with COUNT real sessions from a real store, in a process that does nothing else. All of them are read
once before, and let go again, so that SQLite's own page cache and everything else that is only made once is there
before the first weighing.
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
    """Resident bytes for each of `count` sessions in a cache."""
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
            # As a token names it: an object of its own, not one that is here anyway.
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
    raise SystemExit("this system tells no resident memory")


if __name__ == "__main__":
    print(asyncio.run(weigh(Path(sys.argv[1]), int(sys.argv[2]))))
