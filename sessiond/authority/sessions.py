"""Refreshing, revoking and reporting sessions, and issuing companion tokens."""

from __future__ import annotations

from dataclasses import replace

from sessiond.authority.logins import Logins
from sessiond.authority.parts import Parts
from sessiond.authority.question import Question
from sessiond.authority.reading import MAX_SCANNED
from sessiond.authority.results import (
    AnswerSpec,
    BulkRevocationResult,
    ChangeResult,
    EncodedAnswer,
    IssuedCompanion,
    RevocationResult,
    SessionRef,
    ValidationResult,
)
from sessiond.authority.retries import Retries
from sessiond.authority.validation import Validation
from sessiond.changes.judging import OpenedSessionRef, Outcome
from sessiond.changes.login import Refresh
from sessiond.changes.maintenance import Total
from sessiond.changes.revocation import Revocation, Revoke, RevokeMany
from sessiond.changes.use import Report
from sessiond.crypto.companions import issue_companion
from sessiond.crypto.tokens import Token, new_secret
from sessiond.domain.call import Call
from sessiond.domain.errors import InvalidField
from sessiond.domain.judge import Judgement, Verdict
from sessiond.domain.login import ANONYMOUS
from sessiond.domain.query import SessionQuery
from sessiond.domain.session import as_seen
from sessiond.domain.values import Instant, Lifetimes, Millis, SessionId
from sessiond.eventlog.work import Done

__all__ = ["Sessions"]

_REVOKE_PAGE = 100
"""Sessions that one transaction ends. Over Postgres, 200 made other calls wait for more than ten times as long."""


class Sessions:
    """Refreshes, revokes and reports sessions, and issues companion tokens."""

    def __init__(self, parts: Parts, validation: Validation, retries: Retries, logins: Logins) -> None:
        self._parts = parts
        self._validation = validation
        self._retries = retries
        self._logins = logins

    async def refresh(
        self, call: Call, token: Token, spec: AnswerSpec[ChangeResult], lifetimes: Lifetimes | None = None
    ) -> ChangeResult | EncodedAnswer:
        """Refresh a session: record activity and, if the policy allows it, start its absolute timeout again."""
        opened = await self._validation.accept(call, token, self._retries.recall(spec))
        if isinstance(opened, ValidationResult):
            return self._logins.unchanged_result(opened.verdict)
        if isinstance(opened, EncodedAnswer):
            return opened
        unit = Refresh(call, opened.presented, lifetimes)
        return await self._retries.carry_out(unit, lambda done: _changed(call, done), spec, lambda done: done.session)

    async def revoke(
        self,
        call: Call,
        named: SessionRef,
        spec: AnswerSpec[RevocationResult],
        *,
        open_anonymous: bool = False,
        owner: str | None = None,
    ) -> RevocationResult | EncodedAnswer:
        """End one session. With `open_anonymous` open an anonymous one in its place.

        Raises `SessionNotFound` for an unknown id, or if the session does not belong to the subject `owner`.
        """
        target = self._target(call, named)
        successor, secret = None, new_secret(self._parts.entropy)
        if open_anonymous:
            successor = self._logins.create_unit(call, ANONYMOUS, secret, {})
        if isinstance(target, ValidationResult):
            ended = self._logins.unchanged_result(target.verdict)
            if successor is None:
                return RevocationResult(ended, revoked=False)
            return await self._retries.carry_out(
                successor,
                lambda done: RevocationResult(ended, False, self._logins.issued_result(call, None, done, secret)),
                spec,
            )

        def to_result(done: Done[Revocation]) -> RevocationResult:
            result = done.result
            ended = _changed(call, Done(result.outcome, done.revision, done.at))
            if result.anonymous is None:
                return RevocationResult(ended, result.revoked)
            opened = Done(Outcome(Judgement(Verdict.VALID), result.anonymous), done.revision, done.at)
            return RevocationResult(ended, result.revoked, self._logins.issued_result(call, None, opened, secret))

        return await self._retries.carry_out(Revoke(call, target, successor, owner), to_result, spec)

    async def revoke_all(
        self, call: Call, query: SessionQuery, keep: SessionId | None, spec: AnswerSpec[BulkRevocationResult]
    ) -> BulkRevocationResult | EncodedAnswer:
        """End all live sessions that match the query, except `keep`, in bounded batches.

        Goes from the newest session to the oldest: sessions opened in the meantime are not affected, and no session is
        visited twice.
        """
        if (kept := await self._retries.recall(spec)()) is not None:
            return kept
        count, revision = 0, self._parts.feed.revision
        query = replace(query, activity_lag=call.policy.touch_granularity, limit=_REVOKE_PAGE)
        store, more = self._parts.store, True
        while more:
            end = await store.walk_end(query, MAX_SCANNED) if query.is_sparse else None
            page = await store.sessions(replace(query, down_to=end))
            to_end = [session for session in page if session.id != keep]
            if to_end:
                unit = RevokeMany(call, to_end, query.subject is not None, query.labels)
                done = await self._parts.journal.submit(unit)
                count, revision = count + done.result, done.revision
            before = page[-1].id if len(page) == query.limit else end
            query, more = replace(query, before=before), before is not None
        if spec.request is None:
            return BulkRevocationResult(count, revision)
        # This unit only keeps the answer. Each batch has been committed, and a repeat of it would change nothing.
        return await self._retries.carry_out(
            Total(count), lambda done: BulkRevocationResult(done.result, done.revision), spec
        )

    async def report(
        self, call: Call, named: SessionRef, spec: AnswerSpec[ChangeResult]
    ) -> ChangeResult | EncodedAnswer:
        """React to a suspicion reported by the application (the call's reason). Raises `SessionNotFound` for an id."""
        target = self._target(call, named)
        if isinstance(target, ValidationResult):
            return self._logins.unchanged_result(target.verdict)

        def to_result(done: Done[Outcome]) -> ChangeResult:
            signals = done.result.judgement.signals
            reaction = call.policy.reaction_to(signals) if signals else None
            return ChangeResult(done.result.verdict, done.result.session, done.revision, reaction=reaction)

        return await self._retries.carry_out(Report(call, target), to_result, spec)

    async def issue_companion(
        self, call: Call, token: Token, purpose: str, time_to_live: Millis | None
    ) -> IssuedCompanion:
        """Issue a companion token for one purpose. Writes nothing: the session's own secret proves the token."""
        longest = call.policy.companion_timeout
        if time_to_live is not None and not 0 < time_to_live <= longest:
            raise InvalidField("time_to_live", f"must be greater than zero and at most {longest / 1000:.15g} s")
        # Passive: applications call this right after a login, whose response may not have reached the client yet.
        result = await self._validation.validate(Question(call, token, passive=True))
        if result.verdict is not Verdict.VALID:
            return IssuedCompanion(result.verdict)
        expires = Instant(self._parts.clock.now() + (longest if time_to_live is None else time_to_live))
        opened = self._parts.keys.open(token.reveal())
        return IssuedCompanion(result.verdict, issue_companion(self._parts.keys, opened, purpose, expires), expires)

    def _target(self, call: Call, named: SessionRef) -> OpenedSessionRef | ValidationResult:
        if isinstance(named, SessionId):
            return named
        opened = self._validation.open(call, named)
        return opened if isinstance(opened, ValidationResult) else opened.presented


def _changed(call: Call, done: Done[Outcome]) -> ChangeResult:
    session = done.result.session
    seen = None if session is None else as_seen(session, call.policy, done.at)
    return ChangeResult(done.result.verdict, seen, done.revision)
