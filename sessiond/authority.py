"""The use cases of the authority: what each call means, in domain values, whatever carried it here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace

from sessiond import units
from sessiond.cache import SessionCache
from sessiond.clock import Clock
from sessiond.domain.errors import BeyondLog, InvalidField, SessionNotFound
from sessiond.domain.event import Event, EventFilter
from sessiond.domain.judge import FORGED, MALFORMED, PLAIN, UNKNOWN, Judgement, Presented, Verdict, ended_verdict, judge
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session, expired_view, idle_deadline, with_activity
from sessiond.domain.values import ClientContext, Entropy, Instant, Revision, SessionId
from sessiond.feed import Checkpoint, Feed
from sessiond.journal import Journal
from sessiond.store import SessionQuery, Store
from sessiond.tokens import KeyRing, OpenedToken, Token, TokenForged, TokenMalformed, digest, new_secret
from sessiond.units import Call

__all__ = ["Answer", "Authority", "Changed", "Description", "Named"]

_REVOKE_PAGE = 200

Named = Token | SessionId
"""A session as a caller names it: by the secret that proves it, or by its public name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a validation.

    `session` is None unless VALID; `renewed` is the token that the client must have from now on, if not its own;
    `active_at` is activity that may be later than the session's own, `idle_deadline` what follows from it.
    `presented` is what the token said, where the answer was a plain one.
    """

    judgement: Judgement
    session: Session | None = None
    renewed: Token | None = None
    active_at: Instant | None = None
    idle_deadline: Instant | None = None
    presented: Presented | None = None

    @property
    def current(self) -> Session | None:
        """The session with that activity."""
        if self.session is None or self.active_at is None or self.active_at <= self.session.last_active:
            return self.session
        return with_activity(self.session, self.active_at, self.idle_deadline)

    @property
    def verdict(self) -> Verdict:
        """The judgement's verdict."""
        return self.judgement.verdict


@dataclass(frozen=True, slots=True)
class Changed:
    """The answer to a change: what the token was worth, the session as it is now, its new token, the log's position."""

    verdict: Verdict
    session: Session | None
    revision: Revision
    token: Token | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """Who the authority is and where its log stands."""

    authority_id: bytes
    revision: Revision
    horizon: Revision
    policies: Mapping[str, Policy]


_MALFORMED = Answer(MALFORMED)
_FORGED = Answer(FORGED)
_UNKNOWN = Answer(UNKNOWN)


class Authority:
    """The deciding server of one process over one store."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        feed: Feed,
        cache: SessionCache,
        keys: KeyRing,
        policies: Mapping[str, Policy],
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._store = store
        self._journal = journal
        self._feed = feed
        self._cache = cache
        self._keys = keys
        self._policies = policies
        self._clock = clock
        self._entropy = entropy

    def call(self, application: str, client: ClientContext, reason: str = "", actor: str = "caller") -> Call:
        """A call's own part. Raises `InvalidField` for an application that is not configured."""
        policy = self._policies.get(application)
        if policy is None:
            raise InvalidField("application", "no such application; the authority's configuration names them")
        return Call(application, policy, actor, client, reason)

    def describe(self) -> Description:
        """Who the authority is and where its log stands."""
        return Description(self._store.authority_id, self._feed.revision, self._feed.horizon, self._policies)

    def check_revision(self, wanted: int) -> None:
        """Raise `BeyondLog` where the log has not come that far."""
        if wanted > self._feed.revision:
            raise BeyondLog(wanted, self._feed.revision)

    # Opening and judging

    async def create(
        self, call: Call, subject: str, level: int, methods: tuple[str, ...], data: Mapping[str, bytes]
    ) -> Changed:
        """Open a session; anonymous where `subject` is empty."""
        session_id = SessionId.make(self._clock.now(), self._entropy)
        secret = new_secret(self._entropy)
        unit = units.Create(call, session_id, subject, digest(secret), level, methods, data)
        done = await self._journal.submit(unit)
        token = self._keys.seal(session_id, done.result.generation, secret)
        return Changed(Verdict.VALID, done.result, done.revision, token)

    async def validate(self, call: Call, token: Token, *, passive: bool = False, min_revision: int = 0) -> Answer:
        """Say what a token is worth, from memory where it can be.

        Only a verdict with consequences waits for a commit: a successor's first use, a suspicion, and activity that
        would otherwise lag behind by more than the policy's granularity (so that a crash ends no session earlier
        than that).
        """
        self.check_revision(min_revision)
        opened = self._open(token)
        if isinstance(opened, Answer):
            return opened
        presented = opened.presented
        plain = self.plainly_valid(call, presented, passive=passive)
        if plain is not None:
            return plain
        entry = await self._cache.fetch(presented.session_id)
        if entry is None or entry.session.application != call.application:
            return _UNKNOWN
        now = self._clock.now()
        session: Session | None = self._cache.with_activity(entry.session)
        judgement = judge(session or entry.session, presented, call.policy, now)
        active = judgement.verdict is Verdict.VALID and not passive
        lags = active and now - entry.saved >= call.policy.touch_granularity
        if judgement.activates or judgement.signals or lags:
            done = await self._journal.submit(units.Settle(call, presented, passive))
            judgement, session = done.result.judgement, done.result.session
        deadline = idle_deadline(call.policy, now) if active else None
        if active and judgement.verdict is Verdict.VALID:
            self._cache.note_activity(entry.session, now, deadline)
        if session is None or judgement.verdict is not Verdict.VALID:
            return Answer(judgement)
        renewed = None if judgement.hand_out is None else self._keys.successor(opened, judgement.hand_out)
        return Answer(judgement, session, renewed, now if active else None, deadline)

    def plainly_valid(
        self, call: Call, presented: Presented, *, passive: bool = False, min_revision: int = 0
    ) -> Answer | None:
        """The answer where it is VALID, from memory, and nothing follows from it but activity; else None.

        Nearly every validation ends here. None says nothing about the token: the ordinary way decides.
        """
        entry = self._cache.get(presented.session_id)
        if entry is None or entry.session.application != call.application or min_revision > self._feed.revision:
            return None
        now = self._clock.now()
        session = entry.session
        if judge(session, presented, call.policy, now) is not PLAIN:
            return None
        if passive:
            return Answer(PLAIN, self._cache.with_activity(session), presented=presented)
        if now - entry.saved >= call.policy.touch_granularity:
            return None
        deadline = idle_deadline(call.policy, now)
        self._cache.note_activity(session, now, deadline)
        return Answer(PLAIN, session, None, now, deadline, presented)

    # Changes

    async def authenticate(
        self, call: Call, token: Token, subject: str, level: int, methods: tuple[str, ...]
    ) -> Changed:
        """Bind a subject or authenticate it again; rolls. Raises `SubjectMismatch`."""
        opened = self._open(token)
        if isinstance(opened, Answer):
            return self._unchanged(opened.verdict)
        secret = new_secret(self._entropy)
        unit = units.Authenticate(call, opened.presented, subject, digest(secret), level, methods)
        done = await self._journal.submit(unit)
        return self._rolled(done.result, done.revision, secret)

    async def roll(self, call: Call, token: Token) -> Changed:
        """Replace the token at a privilege change."""
        opened = self._open(token)
        if isinstance(opened, Answer):
            return self._unchanged(opened.verdict)
        secret = new_secret(self._entropy)
        done = await self._journal.submit(units.Roll(call, opened.presented, digest(secret)))
        return self._rolled(done.result, done.revision, secret)

    async def refresh(self, call: Call, token: Token) -> Changed:
        """Make a session as good as new, as far as policy allows."""
        opened = self._open(token)
        if isinstance(opened, Answer):
            return self._unchanged(opened.verdict)
        done = await self._journal.submit(units.Refresh(call, opened.presented))
        return Changed(done.result.verdict, done.result.session, done.revision)

    async def revoke(self, call: Call, named: Named) -> tuple[Changed, bool]:
        """End one session; the flag tells whether this call did. Raises `SessionNotFound` for an unknown id."""
        target = self._resolve(named)
        if isinstance(target, Answer):
            return self._unchanged(target.verdict), False
        done = await self._journal.submit(units.Revoke(call, target))
        outcome, revoked = done.result
        return Changed(outcome.verdict, outcome.session, done.revision), revoked

    async def revoke_all(self, call: Call, query: SessionQuery, keep: SessionId | None) -> tuple[int, Revision]:
        """End all live sessions that match, in bounded batches; how many, and the log's position after it.

        Walks from the newest down, so a session that is opened meanwhile is not met, and none is met twice.
        """
        count, revision = 0, self._feed.revision
        query = replace(query, activity_lag=call.policy.touch_granularity, limit=_REVOKE_PAGE)
        while page := await self._store.sessions(query):
            doomed = [session for session in page if session.id != keep]
            done = await self._journal.submit(units.RevokeMany(call, doomed))
            count, revision = count + done.result, done.revision
            query = replace(query, before=page[-1].id)
        return count, revision

    async def update_data(
        self, call: Call, named: Named, changed: Mapping[str, bytes | None], expected_version: int | None
    ) -> Changed:
        """Set (bytes) and delete (None) keys. Raises `VersionMismatch`, `InvalidField`, `SessionNotFound`."""
        target = self._resolve(named)
        if isinstance(target, Answer):
            return self._unchanged(target.verdict)
        done = await self._journal.submit(units.UpdateData(call, target, changed, expected_version))
        return Changed(done.result.verdict, done.result.session, done.revision)

    # Reading

    async def get(self, call: Call, named: Named) -> tuple[Verdict, Session | None]:
        """One session as it is now; by token only where it is VALID. Raises `SessionNotFound` for an unknown id."""
        if isinstance(named, Token):
            answer = await self.validate(call, named, passive=True)
            return answer.verdict, answer.session
        entry = await self._cache.fetch(named)
        if entry is None or entry.session.application != call.application:
            raise SessionNotFound("session_id: no such session in this application")
        session = expired_view(self._cache.with_activity(entry.session), self._clock.now())
        return ended_verdict(session), session

    async def data(self, call: Call, named: Named) -> tuple[Verdict, Mapping[str, bytes], int]:
        """A live session's data and its version.

        Data and version belong together: if the session changed while the data was read, it is read again.
        """
        verdict, session = await self.get(call, named)
        while session is not None and verdict is Verdict.VALID:
            data = await self._store.data(session.id)
            version = session.data_version
            verdict, session = await self.get(call, named)
            if session is not None and session.data_version == version and verdict is Verdict.VALID:
                return verdict, data, version
        return verdict, {}, 0

    async def list(self, call: Call, query: SessionQuery) -> tuple[Sequence[Session], SessionId | None]:
        """One page, newest first, and where the next one begins (None at the end)."""
        query = replace(query, activity_lag=call.policy.touch_granularity)
        found: list[Session] = []
        while True:
            page = await self._store.sessions(replace(query, limit=query.limit + 1))
            more = len(page) > query.limit
            for session in page[: query.limit]:
                seen = expired_view(self._cache.with_activity(session), query.now)
                if seen.state is query.state:
                    found.append(seen)
            before = page[query.limit - 1].id if more else None
            # A page may lose sessions whose state is told by memory; an empty one would look like the end.
            if found or before is None:
                return found, before
            query = replace(query, before=before)

    def now(self) -> Instant:
        """The authority's time."""
        return self._clock.now()

    async def activity(
        self, call: Call, subject: str, before: Revision | None, limit: int
    ) -> tuple[Sequence[Event], Revision | None]:
        """One page of a subject's history, newest first, and where the next one begins (None at the end)."""
        events = await self._store.activity(call.application, subject, before, limit + 1)
        return events[:limit], events[limit - 1].revision if len(events) > limit else None

    def subscribe(
        self, after: Revision, wanted: EventFilter, checkpoint_interval: float
    ) -> AsyncGenerator[Event | Checkpoint, None]:
        """The event stream. Raises `CursorOutOfRange`, as `Feed.subscribe` does."""
        return self._feed.subscribe(after, wanted, checkpoint_interval)

    # Tokens

    def _open(self, token: Token) -> OpenedToken | Answer:
        try:
            return self._keys.open(token.reveal())
        except TokenMalformed:
            return _MALFORMED
        except TokenForged:
            return _FORGED

    def _resolve(self, named: Named) -> units.NamedSession | Answer:
        if isinstance(named, SessionId):
            return named
        opened = self._open(named)
        return opened if isinstance(opened, Answer) else opened.presented

    def _unchanged(self, verdict: Verdict) -> Changed:
        return Changed(verdict, None, self._feed.revision)

    def _rolled(self, outcome: units.Outcome, revision: Revision, secret: bytes) -> Changed:
        if outcome.session is None:
            return Changed(outcome.verdict, None, revision)
        token = self._keys.seal(outcome.session.id, outcome.session.generation, secret)
        return Changed(outcome.verdict, outcome.session, revision, token)
