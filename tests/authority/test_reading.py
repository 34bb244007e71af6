"""Reading: what a list shows of a session, and how far one page of it looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond.domain.call import Caller
from sessiond.domain.query import SessionQuery
from sessiond.domain.session import Session, SessionState
from sessiond.domain.values import Instant, Millis, SessionId
from tests.attacks.story import HOUR, MINUTE, authority, create, loose, policy
from tests.contracts import samples
from tests.contracts.store import put
from tests.rpc.refusals import session_of
from tests.support.assembly import assembled
from tests.support.clock import START, ManualClock

REMEMBERS = policy(remember_idle_timeout=Millis(240 * HOUR), remember_absolute_timeout=Millis(2_400 * HOUR))
ACME = (("tenant", "acme"),)
PAGE = 500  # sessions that one page of a walk looks at


@pytest.mark.parametrize(("after", "level"), [(30 * MINUTE - 1, 2), (30 * MINUTE, 1)])
async def test_a_list_shows_the_level_that_counts_now(
    tmp_path: Path, clock: ManualClock, after: int, level: int
) -> None:
    """A list shows a remembered session that has been idle for long with its lower level, as `GetSession` does."""
    async with authority(tmp_path, clock, REMEMBERS) as (_, stub):
        mine = await create(stub, authentication={"level": 2}, persistent=True)
        clock.advance(after)
        (listed,) = (await stub.ListSessions(loose.ListSessionsRequest())).sessions
        assert listed.authentication.level == level
        assert listed == await session_of(stub, mine.session.session_id)


# Sessions that no index finds


async def far_apart(store: Any, **fields: Any) -> tuple[Session, Session]:
    """Two sessions with a label, the newest and the oldest of all; as many lie between them as one page looks at."""
    old = samples.session(START - 2, labels=ACME, **fields)
    others = [samples.session(START - 1, **fields) for _ in range(PAGE)]
    new = samples.session(START, labels=ACME, **fields)
    await put(store, old, *others, new)
    return new, old


@pytest.mark.parametrize("state", [SessionState.ACTIVE, SessionState.REVOKED])
async def test_a_page_looks_at_so_many_sessions(app: App, state: SessionState) -> None:
    """A page ends after so many sessions, full or not; the next begins there, and none is listed twice or left out."""
    ended = {} if state is SessionState.ACTIVE else {"ending": samples.ending(START)}
    new, old = await far_apart(app.authority.parts.store, **ended)
    call = app.authority.call("default", Caller("test"), None)
    pages: list[list[SessionId]] = []
    before: SessionId | None = None
    while not pages or before is not None:
        query = SessionQuery("default", Instant(START), state, labels=ACME, before=before, limit=10)
        found, before = await app.authority.reading.list(call, query)
        pages.append([session.id for session in found])
    assert pages == [[new.id], [old.id]]


async def test_a_bulk_revocation_looks_at_all_sessions(tmp_path: Path, clock: ManualClock) -> None:
    """A bulk revocation ends every session that matches, in a transaction for each page that it looks at."""
    async with assembled(tmp_path, clock) as (_, store, stub, _):
        await far_apart(store)
        before = store.writes
        answer = await stub.RevokeSessions(loose.RevokeSessionsRequest(filter={"labels": dict(ACME)}))
        assert (answer.revoked_count, store.writes - before) == (2, 2)
        left = await stub.ListSessions(loose.ListSessionsRequest(filter={"labels": dict(ACME)}))
        assert (list(left.sessions), left.next_page_token) == ([], "")


@pytest.mark.parametrize(("sessions", "transactions"), [(100, 1), (101, 2)])
async def test_a_bulk_revocation_ends_so_many_at_once(
    tmp_path: Path, clock: ManualClock, sessions: int, transactions: int
) -> None:
    """A bulk revocation ends a hundred sessions in a transaction, so that others need not wait long for it."""
    async with assembled(tmp_path, clock) as (_, store, stub, _):
        mine: Any = store
        await put(mine, *(samples.session() for _ in range(sessions)))
        before = store.writes
        answer = await stub.RevokeSessions(loose.RevokeSessionsRequest(filter={"subject": "ada"}))
        assert (answer.revoked_count, store.writes - before) == (sessions, transactions)
