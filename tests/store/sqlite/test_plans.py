"""SQLite's query plans of the statements that must stay fast however much history there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessiond.domain.query import SessionQuery
from sessiond.domain.session import SessionState
from sessiond.store.listing import LABEL_CONDITION, STATE_CONDITIONS
from sessiond.store.sqlite.store import SqliteStore
from sessiond.store.statements import load_statements
from tests.contracts import samples
from tests.contracts.store import write
from tests.support.clock import START

BOTH = pytest.mark.parametrize("analyzed", [False, True], ids=["as it comes", "with statistics"])


async def plan(store: SqliteStore, name: str, conditions: str = "") -> list[str]:
    """Return SQLite's plan for a statement, step by step."""
    statement = load_statements()[name]
    if conditions:
        statement = statement.fill(conditions=conditions, application="+application")
    rows = await store._db.all(f"EXPLAIN QUERY PLAN {statement.sql}", (None,) * len(statement.names))
    return [row["detail"] for row in rows]


async def fill(store: SqliteStore, analyzed: bool) -> None:
    """Store some subjects with much history and few live sessions; if asked, with statistics for the planner."""
    live = [samples.session(subject=f"subject-{number}") for number in range(20)]
    ended = [
        samples.session(subject=f"subject-{number % 20}", ending=samples.ending(START + number))
        for number in range(400)
    ]
    await write(store, sessions={session.id: session for session in (*live, *ended)})
    if analyzed:
        await store._db.execute("ANALYZE")
    query = SessionQuery("default", START, subject="subject-7")
    assert await store.sessions(query) == [live[7]]


@BOTH
async def test_live_sessions_are_found_by_index(tmp_path: Path, analyzed: bool) -> None:
    """A subject's live sessions are found without scanning its history: the index covers all three conditions."""
    store = await SqliteStore.open(tmp_path / "sessiond.db")
    try:
        await fill(store, analyzed)
        found = "SEARCH sessions USING INDEX sessions_by_subject (log=? AND application=? AND subject=? AND ended_at=?)"
        assert await plan(store, "oldest_live_sessions") == [found]
        assert await plan(store, "newest_live_sessions") == [found]
        assert await plan(store, "count_live_sessions") == [found.replace("USING INDEX", "USING COVERING INDEX")]
    finally:
        await store.close()


@pytest.mark.parametrize("before", ["", " AND session_id < :before"], ids=["first page", "later page"])
@pytest.mark.parametrize("subject", ["", " AND subject = :subject"], ids=["of all", "of a subject"])
@BOTH
async def test_listing_live_sessions_sorts_nothing(tmp_path: Path, subject: str, before: str, analyzed: bool) -> None:
    """Live sessions are listed newest first in the order of an index, beginning after the last page."""
    store = await SqliteStore.open(tmp_path / "sessiond.db")
    try:
        await fill(store, analyzed)
        steps = await plan(store, "list_sessions", STATE_CONDITIONS[SessionState.ACTIVE] + subject + before)
    finally:
        await store.close()
    place = " AND session_id<?" if before else ""
    if subject:
        found = f"sessions_by_subject (log=? AND application=? AND subject=? AND ended_at=?{place})"
    else:
        found = f"sessions_live (log=? AND application=?{place})"
    assert steps == [f"SEARCH sessions USING INDEX {found}"]


WINDOW = " AND session_id < :before AND session_id >= :down_to"


@pytest.mark.parametrize("state", list(SessionState))
@pytest.mark.parametrize(
    "sparse",
    [
        "",
        " AND ip_key BETWEEN :ip_first AND :ip_last",
        " AND created_at >= :created_from",
        " AND " + LABEL_CONDITION.format(letter="a", window=WINDOW),
    ],
    ids=["all", "address", "time", "label"],
)
@BOTH
async def test_a_bounded_walk_is_bounded(tmp_path: Path, state: SessionState, sparse: str, analyzed: bool) -> None:
    """A scan for conditions without an index runs between two ids in their order, without a sort."""
    store = await SqliteStore.open(tmp_path / "sessiond.db")
    try:
        await fill(store, analyzed)
        name = "list_sessions" if state is SessionState.ACTIVE else "walk_sessions"
        steps = await plan(store, name, STATE_CONDITIONS[state] + sparse + WINDOW)
        ends = [await plan(store, name) for name in ("walk_end_of_live", "walk_end_of_all")]
    finally:
        await store.close()
    assert any("session_id>? AND session_id<?" in step for step in steps), steps
    assert all("session_id" in step for step in steps if step.startswith("SEARCH")), steps
    assert not [step for step in steps if "TEMP B-TREE FOR ORDER" in step or step.startswith("SCAN")], steps
    assert ends[0] == ["SEARCH sessions USING INDEX sessions_live (log=? AND application=? AND session_id<?)"]
    assert ends[1] == ["SEARCH sessions USING PRIMARY KEY (log=? AND session_id<?)"]


@pytest.mark.parametrize("name", ["due_sessions", "prunable_sessions", "delete_expired_answers"])
async def test_upkeep_walks_an_index(tmp_path: Path, name: str) -> None:
    """Due, prunable and expired rows are found in the order of an index, without a sort or a full table scan."""
    store = await SqliteStore.open(tmp_path / "sessiond.db")
    try:
        steps = await plan(store, name)
    finally:
        await store.close()
    assert steps
    assert not [step for step in steps if step.startswith(("SCAN", "USE TEMP"))]
