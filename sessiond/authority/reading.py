"""Read-only use cases: sessions, their history, locked sources, the event stream, and the authority itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from sessiond.authority.parts import Parts
from sessiond.authority.question import Question
from sessiond.authority.results import AuthorityDescription, SessionRef
from sessiond.authority.validation import Validation
from sessiond.crypto.tokens import Token
from sessiond.detection.guesses import SourceLock
from sessiond.domain.call import Call
from sessiond.domain.errors import SessionNotFound
from sessiond.domain.event import Event, EventFilter
from sessiond.domain.judge import Verdict, ended_verdict
from sessiond.domain.lifecycle import expired_view
from sessiond.domain.position import Position
from sessiond.domain.query import SessionQuery
from sessiond.domain.session import Session, as_seen, in_application
from sessiond.domain.values import FIRST_ID, Revision, SessionId
from sessiond.eventlog.feed import Checkpoint

__all__ = ["MAX_SCANNED", "Reading"]

MAX_SCANNED = 500
"""How many sessions to scan for one page if no index finds them. Other calls wait during a scan, so it is bounded."""


class Reading:
    """Reads sessions, their history, locks, events and the authority's description."""

    def __init__(self, parts: Parts, validation: Validation) -> None:
        self._parts = parts
        self._validation = validation
        self._is_stopping = False

    @property
    def is_ready(self) -> bool:
        """Return whether this process should get calls: its store has responded lately, it follows the log, and stays.

        Without a store that it shares it is ready until it stops: if its own store fails, the process ends.
        """
        return not self._is_stopping and self._parts.cache.is_open

    def announce_stop(self) -> None:
        """Be not ready from now on."""
        self._is_stopping = True

    async def wait_for(self, position: Position | None) -> None:
        """Wait until this process has everything up to `position`. Raises `PositionOutOfRange`, `Unavailable`."""
        if position is not None:
            await self._parts.feed.wait_for(position)

    def has(self, position: Position) -> bool:
        """Return whether this process has everything up to `position`, so that nothing has to wait for it."""
        return self._parts.feed.has(position)

    async def until_shutdown(self) -> None:
        """Wait until the authority shuts down. Streams must end then."""
        await self._parts.feed.until_closed()

    def describe(self) -> AuthorityDescription:
        """Return the authority's identity, its position in the log, and its policies."""
        parts = self._parts
        return AuthorityDescription(
            parts.store.authority_id,
            parts.feed.position(),
            parts.feed.horizon,
            parts.policies,
            parts.policies.origins,
            parts.policies.fingerprint,
            () if parts.follower is None else parts.follower.other_policies,
        )

    async def get(self, call: Call, named: SessionRef) -> tuple[Verdict, Session | None]:
        """Return the verdict and the session as it is now. Raises `SessionNotFound` for an unknown id.

        By token, the session is None unless the verdict is VALID or INSUFFICIENT. By id, ended sessions are returned.
        """
        if isinstance(named, Token):
            result = await self._validation.validate(Question(call, named, passive=True))
            return result.verdict, result.session
        entry = await self._parts.cache.fetch(named)
        session = in_application(None if entry is None else entry.session, call.application)
        if session is None:
            raise SessionNotFound
        now = self._parts.clock.now()
        seen = expired_view(self._parts.activity.apply_to(session), now)
        if self._parts.follower is not None and seen.ending is not None and session.ending is None:
            # Another replica may have seen activity.
            entry = await self._parts.cache.reload(named)
            session = in_application(None if entry is None else entry.session, call.application)
            if session is None:
                raise SessionNotFound
            seen = expired_view(self._parts.activity.apply_to(session), now)
        session = seen
        return ended_verdict(session), as_seen(session, call.policy, now)

    async def list(self, call: Call, query: SessionQuery) -> tuple[Sequence[Session], SessionId | None]:
        """Return one page of sessions, newest first, and the `before` of the next page (None: this is the last one).

        A page may have fewer sessions than the limit, or none, even if more pages follow.
        """
        store, query = self._parts.store, replace(query, activity_lag=call.policy.touch_granularity)
        end = await store.walk_end(query, MAX_SCANNED) if query.is_sparse else None
        if query.is_sparse:
            query = replace(query, down_to=end or FIRST_ID)
        page = await store.sessions(replace(query, limit=query.limit + 1))
        found: list[Session] = []
        for session in page[: query.limit]:
            seen = expired_view(self._parts.activity.apply_to(session), query.now)
            if seen.state is query.state:
                found.append(as_seen(seen, call.policy, query.now))
        return found, page[query.limit - 1].id if len(page) > query.limit else end

    async def activity(
        self, call: Call, subject: str, before: Revision | None, limit: int
    ) -> tuple[Sequence[Event], Revision | None]:
        """Return one page of a subject's events, newest first, and the `before` of the next page (None: no more)."""
        events = await self._parts.store.activity(call.application, subject, before, limit + 1)
        return events[:limit], events[limit - 1].revision if len(events) > limit else None

    async def locks(self, call: Call) -> Sequence[SourceLock]:
        """Return the application's sources that are locked for guessing, the oldest lock first."""
        return await self._parts.gate.locks(call)

    async def subscribe(
        self, cursor: Position | None, wanted: EventFilter, checkpoint_interval: float, *, earliest: bool, who: str = ""
    ) -> AsyncGenerator[Event | Checkpoint, None]:
        """Return the event stream after a cursor. Raises `PositionOutOfRange`, `Unavailable`.

        Without a cursor it starts at the horizon if `earliest` is set, else at the newest revision. `who` subscribes
        is for metrics.
        """
        feed = self._parts.feed
        if cursor is not None:
            await feed.wait_for_cursor(cursor)
        fixed = feed.horizon if earliest else feed.revision
        return feed.subscribe(fixed if cursor is None else feed.resume(cursor), wanted, checkpoint_interval, who)

    def position(self, revision: Revision) -> Position:
        """Return the position of a revision that was delivered to a subscriber, for cursors."""
        return self._parts.feed.published(revision)
