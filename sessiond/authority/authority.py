"""The use cases of the authority: what each call means, in domain values, whatever carried it here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from sessiond import changes
from sessiond.authority.policy_book import Origins, PolicyBook
from sessiond.authority.results import Answer, Changed, Companion, Description, Limit, Login, Named, Repeat, Revoked
from sessiond.authority.token_gate import Gate
from sessiond.authority.validation import Validation
from sessiond.cache.sessions import SessionCache
from sessiond.changes import Call, Repeated
from sessiond.crypto.companions import csrf_token_of, issue_companion
from sessiond.crypto.tickets import Ticket, issue_ticket, open_ticket, scope_digest
from sessiond.crypto.tokens import KeyRing, Token, TokenForged, TokenMalformed, digest, new_secret
from sessiond.detection.suspicions import Watching
from sessiond.domain.errors import InvalidField, SessionNotFound
from sessiond.domain.event import Event, EventFilter, EventType
from sessiond.domain.guessing import SourceLock
from sessiond.domain.judge import Judgement, Verdict, ended_verdict
from sessiond.domain.policy import LimitRule, Policy
from sessiond.domain.session import Session, as_seen, expired_view
from sessiond.domain.values import (
    NOBODY,
    Cause,
    CauseKind,
    ClientContext,
    Entropy,
    Instant,
    Millis,
    Revision,
    SessionId,
)
from sessiond.eventlog.feed import Checkpoint, Feed
from sessiond.eventlog.journal import Done, Journal, Unit
from sessiond.store.contract import SessionQuery, Store
from sessiond.system.clock import Clock

__all__ = ["Authority"]

_REVOKE_PAGE = 200
_REASON = 256  # characters, as the contract has it
_ANSWER = b"sessiond/answer/v1"

T = TypeVar("T")
R = TypeVar("R")


class Authority:
    """The deciding server of one process over one store.

    A change that is given a `repeat` is carried out once, however often it is asked for: asked again it answers
    `Repeated`. `validation` judges tokens that are presented for nothing else.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        feed: Feed,
        cache: SessionCache,
        keys: KeyRing,
        policies: PolicyBook,
        gate: Gate,
        watching: Watching,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._store = store
        self._journal = journal
        self._feed = feed
        self._cache = cache
        self._keys = keys
        self._policies = policies
        self._gate = gate
        self._clock = clock
        self._entropy = entropy
        self.validation = Validation(journal, feed, cache, keys, policies, gate, watching, clock)

    def call(self, application: str, client: ClientContext | None, reason: str = "", actor: str = "caller") -> Call:
        """A call's own part. Raises `InvalidField` for an application that is not configured."""
        policy = self._policies.get(application)
        if policy is None:
            raise InvalidField("application", "no such application; the authority's configuration names them")
        return Call(application, policy, actor, client or NOBODY, reason, client is not None)

    def describe(self) -> Description:
        """Who the authority is, where its log stands, and by which policies it decides."""
        return Description(
            self._store.authority_id, self._feed.revision, self._feed.horizon, self._policies, self._policies.origins
        )

    def now(self) -> Instant:
        """The authority's time."""
        return self._clock.now()

    async def change_policies(self, policies: Mapping[str, Policy], origins: Origins) -> dict[str, str]:
        """Put other policies in force, at once and for every session; what changed, by application.

        Deadlines that sessions have already stay as they are until activity or authentication sets them anew.
        """
        told = self._policies.replace(policies, origins)
        for application, what in told.items():
            cause = Cause(CauseKind.CONFIGURATION, reason=what[:_REASON])
            await self._journal.submit(changes.RecordOther(EventType.POLICY_CHANGED, application, cause))
        return told

    # Giving tokens

    async def create(
        self,
        call: Call,
        login: Login,
        data: Mapping[str, bytes],
        *,
        login_page: bool = False,
        repeat: Repeat | None = None,
    ) -> Changed | Repeated:
        """Open a session; anonymous where the login has no subject."""
        unit, secret = self._opening(call, login, data, login_page=login_page)
        return await self._carry_out(unit, lambda done: self._given(call, login, done, secret), repeat)

    async def authenticate(
        self, call: Call, token: Token, login: Login, *, elevates: bool = False, repeat: Repeat | None = None
    ) -> Changed | Repeated:
        """Bind a subject, authenticate it again or elevate; rolls. Raises `SubjectMismatch`."""
        opened = await self.validation.accept(call, token, heals=True)
        if isinstance(opened, Answer):
            return self._unchanged(opened.verdict)
        self._check_persistent(call, login)
        secret = new_secret(self._entropy)
        choice = self._choice(call, login, opened.presented.session_id)
        unit = changes.Authenticate(
            call,
            opened.presented,
            login.subject,
            digest(secret),
            login.level,
            login.methods,
            login.persistent,
            elevates,
            choice,
        )
        return await self._carry_out(
            unit, lambda done: self._given(call, login, done, secret, opened.presented.session_id), repeat
        )

    async def roll(self, call: Call, token: Token, *, repeat: Repeat | None = None) -> Changed | Repeated:
        """Replace the token at a privilege change."""
        opened = await self.validation.accept(call, token)
        if isinstance(opened, Answer):
            return self._unchanged(opened.verdict)
        secret = new_secret(self._entropy)
        unit = changes.Roll(call, opened.presented, digest(secret))
        return await self._carry_out(unit, lambda done: self._given(call, None, done, secret), repeat)

    def _opening(
        self, call: Call, login: Login, data: Mapping[str, bytes], *, login_page: bool
    ) -> tuple[changes.Create, bytes]:
        self._check_persistent(call, login)
        session_id = SessionId.make(self._clock.now(), self._entropy)
        secret = new_secret(self._entropy)
        unit = changes.Create(
            call,
            session_id,
            login.subject,
            digest(secret),
            login.level,
            login.methods,
            data,
            login.persistent,
            login_page,
            self._choice(call, login, None),
        )
        return unit, secret

    def _given(
        self,
        call: Call,
        login: Login | None,
        done: Done[changes.Outcome],
        secret: bytes,
        session_id: SessionId | None = None,
    ) -> Changed:
        outcome = done.result
        if outcome.refused is not None and login is not None:
            limit = self._limit(call, login, outcome.refused, session_id, digest(secret)[:16])
            return Changed(outcome.verdict, None, done.revision, limit=limit)
        if outcome.session is None:
            return Changed(outcome.verdict, None, done.revision)
        session = outcome.session
        token = self._keys.seal(session.id, session.generation, secret)
        csrf = csrf_token_of(session.id, secret)
        seen = as_seen(session, call.policy, self._clock.now())
        return Changed(outcome.verdict, seen, done.revision, token, csrf, outcome.evicted)

    def _limit(
        self, call: Call, login: Login, live: tuple[Session, ...], session_id: SessionId | None, nonce: bytes
    ) -> Limit:
        if call.policy.on_limit is not LimitRule.ASK:
            return Limit(call.policy.max_sessions)
        expires = Instant(self._clock.now() + call.policy.ticket_timeout)
        ticket = Ticket(nonce, expires, scope_digest(self._ticket_scope(call, login, session_id)))
        return Limit(call.policy.max_sessions, live, issue_ticket(self._keys, ticket), expires)

    def _choice(self, call: Call, login: Login, session_id: SessionId | None) -> changes.Choice | None:
        if login.ticket is None:
            if login.evict:
                raise InvalidField("evict_session_ids", "needs the ticket of the answer that asked for the choice")
            return None
        ticket = open_ticket(self._keys, login.ticket)
        if ticket is None or not ticket.is_for(self._ticket_scope(call, login, session_id)):
            raise InvalidField("ticket", "is not of this call; repeat the call without it to get another")
        return changes.Choice(ticket.key, ticket.expires, login.evict)

    @staticmethod
    def _ticket_scope(call: Call, login: Login, session_id: SessionId | None) -> tuple[str, ...]:
        own = "" if session_id is None else str(session_id)
        return (call.application, login.subject, str(login.level), " ".join(login.methods), own)

    @staticmethod
    def _check_persistent(call: Call, login: Login) -> None:
        if login.persistent and call.policy.remember_idle_timeout is None:
            raise InvalidField("persistent", "the application's policy sets no remember_idle_timeout")

    # Other changes

    async def refresh(self, call: Call, token: Token, *, repeat: Repeat | None = None) -> Changed | Repeated:
        """Make a session as good as new, as far as policy allows."""
        opened = await self.validation.accept(call, token)
        if isinstance(opened, Answer):
            return self._unchanged(opened.verdict)
        return await self._carry_out(
            changes.Refresh(call, opened.presented), lambda done: self._changed(call, done), repeat
        )

    async def revoke(
        self, call: Call, named: Named, *, open_anonymous: bool = False, repeat: Repeat | None = None
    ) -> Revoked | Repeated:
        """End one session, and open an anonymous one in its place if asked to. Raises `SessionNotFound` for an id."""
        target = await self._resolve(call, named, heals=True)
        successor, secret = None, b""
        if open_anonymous:
            successor, secret = self._opening(call, Login(""), {}, login_page=False)
        if isinstance(target, Answer):
            if successor is None:
                return Revoked(self._unchanged(target.verdict), revoked=False)
            ended = self._unchanged(target.verdict)
            return await self._carry_out(
                successor, lambda done: Revoked(ended, False, self._given(call, None, done, secret)), repeat
            )

        def answer(done: Done[changes.Revocation]) -> Revoked:
            result = done.result
            ended = self._changed(call, Done(result.outcome, done.revision))
            if result.anonymous is None:
                return Revoked(ended, result.revoked)
            opened = changes.Outcome(Judgement(Verdict.VALID), result.anonymous)
            return Revoked(ended, result.revoked, self._given(call, None, Done(opened, done.revision), secret))

        return await self._carry_out(changes.Revoke(call, target, successor), answer, repeat)

    async def revoke_all(
        self, call: Call, query: SessionQuery, keep: SessionId | None, *, repeat: Repeat | None = None
    ) -> tuple[int, Revision] | Repeated:
        """End all live sessions that match, in bounded batches; how many, and the log's position after it.

        Walks from the newest down, so a session that is opened meanwhile is not met, and none is met twice.
        """
        count, revision = 0, self._feed.revision
        query = replace(query, activity_lag=call.policy.touch_granularity, limit=_REVOKE_PAGE)
        while page := await self._store.sessions(query):
            doomed = [session for session in page if session.id != keep]
            done = await self._journal.submit(changes.RevokeMany(call, doomed, query.subject is not None))
            count, revision = count + done.result, done.revision
            query = replace(query, before=page[-1].id)
        if repeat is None:
            return count, revision
        # Only what is kept: each batch is committed by itself, and ending what has ended changes nothing.
        return await self._carry_out(changes.Total(count), lambda done: (done.result, done.revision), repeat)

    async def update_data(
        self,
        call: Call,
        named: Named,
        changed: Mapping[str, bytes | None],
        expected_version: int | None,
        *,
        repeat: Repeat | None = None,
    ) -> Changed | Repeated:
        """Set (bytes) and delete (None) keys. Raises `VersionMismatch`, `InvalidField`, `SessionNotFound`."""
        target = await self._resolve(call, named)
        if isinstance(target, Answer):
            return self._unchanged(target.verdict)
        unit = changes.UpdateData(call, target, changed, expected_version)
        return await self._carry_out(unit, lambda done: self._changed(call, done), repeat)

    async def report(self, call: Call, named: Named, *, repeat: Repeat | None = None) -> Changed | Repeated:
        """Take in an application's own suspicion (the call's reason). Raises `SessionNotFound` for an unknown id."""
        target = await self._resolve(call, named, heals=True)
        if isinstance(target, Answer):
            return self._unchanged(target.verdict)
        unit = changes.Report(call, target)

        def answer(done: Done[changes.Outcome]) -> Changed:
            signals = done.result.judgement.signals
            reaction = call.policy.reaction_to(signals) if signals else None
            return Changed(done.result.verdict, done.result.session, done.revision, reaction=reaction)

        return await self._carry_out(unit, answer, repeat)

    async def issue_companion(self, call: Call, token: Token, purpose: str, time_to_live: Millis | None) -> Companion:
        """A companion token for one purpose. Writes nothing: it is proven by the session's own secret."""
        longest = call.policy.companion_timeout
        if time_to_live is not None and not 0 < time_to_live <= longest:
            raise InvalidField("time_to_live", f"must be more than nothing and at most {longest / 1000:.15g} s")
        # Passive: the application asks right after a login, whose answer may yet be lost on its way to the client.
        answer = await self.validation.validate(call, token, passive=True)
        if answer.verdict is not Verdict.VALID:
            return Companion(answer.verdict)
        expires = Instant(self._clock.now() + (longest if time_to_live is None else time_to_live))
        opened = self._keys.open(token.reveal())
        return Companion(answer.verdict, issue_companion(self._keys, opened, purpose, expires), expires)

    # Sources

    def locks(self, call: Call) -> list[SourceLock]:
        """The application's sources that are locked for guessing, oldest first."""
        return self._gate.locks(call)

    async def clear_lock(self, call: Call, source: str, *, repeat: Repeat | None = None) -> Revision | Repeated:
        """Let a locked source go. Raises `LockNotFound`."""
        return await self._carry_out(self._gate.unlock(call, source), lambda done: done.revision, repeat)

    # Reading

    async def get(self, call: Call, named: Named) -> tuple[Verdict, Session | None]:
        """One session as it is now; by token only where it is VALID. Raises `SessionNotFound` for an unknown id."""
        if isinstance(named, Token):
            answer = await self.validation.validate(call, named, passive=True)
            return answer.verdict, answer.session
        entry = await self._cache.fetch(named)
        if entry is None or entry.session.application != call.application:
            raise SessionNotFound("session_id: no such session in this application")
        now = self._clock.now()
        session = expired_view(self._cache.with_activity(entry.session), now)
        return ended_verdict(session), as_seen(session, call.policy, now)

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
                    found.append(as_seen(seen, call.policy, query.now))
            before = page[query.limit - 1].id if more else None
            # A page may lose sessions whose state is told by memory; an empty one would look like the end.
            if found or before is None:
                return found, before
            query = replace(query, before=before)

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

    # Tokens and units

    async def _resolve(self, call: Call, named: Named, *, heals: bool = False) -> changes.NamedSession | Answer:
        if isinstance(named, SessionId):
            return named
        opened = await self.validation.accept(call, named, heals=heals)
        return opened if isinstance(opened, Answer) else opened.presented

    def may_name(self, named: Named | None) -> bool:
        """Whether a session can be named so: not by a token that was never issued. Looks at no session."""
        if isinstance(named, Token):
            try:
                self._keys.open(named.reveal())
            except (TokenMalformed, TokenForged):
                return False
        return True

    async def recall(self, repeat: Repeat) -> Repeated | None:
        """The answer that was given before, if it was. Asked before anything else of the call is looked at: its token
        may be worth less by now, through the very change that is asked for again."""
        found = (await self._journal.submit(changes.Recall(repeat.key, repeat.parameters))).result
        return None if found is None else self._uncovered(found)

    async def _carry_out(self, unit: Unit[T], answer: Callable[[Done[T]], R], repeat: Repeat | None) -> R | Repeated:
        if repeat is None:
            return answer(await self._journal.submit(unit))
        made: list[R] = []

        def seal(done: Done[T]) -> bytes:
            made.append(answer(done))
            return self._keys.protect(repeat.seal(made[0]), _ANSWER)

        # What came in several units has told of itself before.
        once: changes.Once[T] = changes.Once(unit, repeat.key, repeat.parameters, seal, isinstance(unit, changes.Total))
        done = await self._journal.submit(once)
        if isinstance(done.result, Repeated):
            return self._uncovered(done.result)
        return made[0] if made else answer(Done(done.result, done.revision))

    def _uncovered(self, repeated: Repeated) -> Repeated:
        try:
            return Repeated(self._keys.uncover(repeated.sealed, _ANSWER))
        except TokenForged:
            raise InvalidField("request_id", "its answer was sealed under a key that is gone; begin anew") from None

    def _unchanged(self, verdict: Verdict) -> Changed:
        return Changed(verdict, None, self._feed.revision)

    def _changed(self, call: Call, done: Done[changes.Outcome]) -> Changed:
        session = done.result.session
        seen = None if session is None else as_seen(session, call.policy, self._clock.now())
        return Changed(done.result.verdict, seen, done.revision)
