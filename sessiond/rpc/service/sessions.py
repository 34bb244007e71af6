"""Calls that refresh and end sessions, report signals, and unlock sources."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from sessiond.authority.authority import Authority
from sessiond.authority.results import BulkRevocationResult, ChangeResult, RevocationResult
from sessiond.crypto.tokens import Token
from sessiond.domain.audit import Trail
from sessiond.domain.call import Call
from sessiond.domain.errors import InvalidField
from sessiond.domain.judge import Verdict
from sessiond.domain.values import Revision
from sessiond.rpc import cookies, decode, encode
from sessiond.rpc.service.calls import Calls, Change, changing, note_change
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["SessionService"]

R = TypeVar("R")
_TOKEN_LIVES = (Verdict.SUPERSEDED, Verdict.LOCKED)


class SessionService:
    """The calls RefreshSession, RevokeSession, RevokeSessions, ReportSignal and ClearSourceLock."""

    def __init__(self, calls: Calls, authority: Authority) -> None:
        self._calls = calls
        self._authority = authority

    @changing(pb.RefreshSessionResponse)
    def RefreshSession(self, call: Call, request: pb.RefreshSessionRequest) -> Change[ChangeResult]:
        """Restart a session's idle timeout and, if the policy allows it, its lifetime."""
        token = decode.token(request.token)
        lifetimes = decode.lifetimes(request.lifetimes) if request.HasField("lifetimes") else None

        def fill(response: pb.RefreshSessionResponse, changed: ChangeResult) -> None:
            response.verdict = encode.VERDICT[changed.verdict]
            response.consistency_token = self._calls.consistency_token(changed.revision)
            if changed.session is not None:
                encode.fill_session(response.session, changed.session)

        return Change(lambda reply: self._authority.sessions.refresh(call, token, reply, lifetimes), fill, note_change)

    @changing(pb.RevokeSessionResponse)
    def RevokeSession(self, call: Call, request: pb.RevokeSessionRequest) -> Change[RevocationResult]:
        """End one session."""
        named = decode.named_session(request.session)
        owner = decode.owner(request.subject) if request.HasField("subject") else None
        waits = decode.waits_for_caches(request.wait)
        return Change(
            lambda reply: self._awaited(
                waits,
                self._authority.sessions.revoke(call, named, reply, open_anonymous=request.open_anonymous, owner=owner),
            ),
            lambda response, result: self._fill_revoked(response, call, result, by_token=isinstance(named, Token)),
            _note_revoked,
        )

    def _fill_revoked(
        self, response: pb.RevokeSessionResponse, call: Call, result: RevocationResult, *, by_token: bool
    ) -> None:
        ended, rules = result.ended, call.policy.cookie
        response.verdict = encode.VERDICT[ended.verdict]
        response.revoked = result.revoked
        response.consistency_token = self._calls.consistency_token(ended.revision)
        if ended.session is not None:
            encode.fill_session(response.session, ended.session)
        fresh = result.anonymous
        if fresh is not None and fresh.session is not None and fresh.token is not None and fresh.csrf is not None:
            encode.fill_session(response.anonymous_session, fresh.session)
            response.token, response.csrf_token = fresh.token.reveal(), fresh.csrf.reveal()
            response.consistency_token = self._calls.consistency_token(fresh.revision)
            cookies.fill_token(response.cookies, rules, fresh.session, fresh.token, fresh.at)
        elif by_token and (result.revoked or ended.verdict not in _TOKEN_LIVES):
            cookies.fill_deletion(response.cookies, rules)
        else:
            return  # the session was named by its id, or it is still alive
        cookies.fill_logout(response.cookies, rules, keeps_cookies=fresh is not None)

    @changing(pb.RevokeSessionsResponse)
    def RevokeSessions(self, call: Call, request: pb.RevokeSessionsRequest) -> Change[BulkRevocationResult]:
        """End all live sessions that match a filter."""
        if request.filter.state != pb.SESSION_STATE_UNSPECIFIED:
            raise InvalidField("filter.state", "must be unset, because only live sessions can be revoked; leave it out")
        query = decode.session_query(call.application, request.filter, self._authority.now())
        if not query.restricts and not request.whole_application:
            remedy = "must be true to end every session of the application; otherwise set a condition in filter"
            raise InvalidField("whole_application", remedy)
        keep = None
        if request.except_session_id:
            keep = decode.session_id(request.except_session_id, "except_session_id")

        def fill(response: pb.RevokeSessionsResponse, result: BulkRevocationResult) -> None:
            response.revoked_count = result.count
            response.consistency_token = self._calls.consistency_token(result.revision)

        waits = decode.waits_for_caches(request.wait)
        return Change(
            lambda reply: self._awaited(waits, self._authority.sessions.revoke_all(call, query, keep, reply)),
            fill,
            lambda trail, result: trail.note("live", "revoked", result.count),
        )

    async def _awaited(self, waits: bool, change: Awaitable[R]) -> R:
        """Return the result of a revocation, once it holds where the caller wants it to hold."""
        result = await change
        if waits:
            await self._authority.wait_for_caches()
        return result

    @changing(pb.ReportSignalResponse)
    def ReportSignal(self, call: Call, request: pb.ReportSignalRequest) -> Change[ChangeResult]:
        """Record a signal that the application reports about a session, and react to it."""
        named = decode.named_session(request.session)

        def fill(response: pb.ReportSignalResponse, changed: ChangeResult) -> None:
            response.verdict = encode.VERDICT[changed.verdict]
            response.consistency_token = self._calls.consistency_token(changed.revision)
            if changed.reaction is not None:
                response.reaction = encode.REACTION[changed.reaction]

        def note(trail: Trail, changed: ChangeResult) -> None:
            trail.note("", "no reaction" if changed.reaction is None else changed.reaction.value, 1)

        return Change(lambda reply: self._authority.sessions.report(call, named, reply), fill, note)

    @changing(pb.ClearSourceLockResponse)
    def ClearSourceLock(self, call: Call, request: pb.ClearSourceLockRequest) -> Change[Revision]:
        """Unlock a source."""
        source = decode.source(request.source)

        def fill(response: pb.ClearSourceLockResponse, revision: Revision) -> None:
            response.consistency_token = self._calls.consistency_token(revision)

        return Change(
            lambda reply: self._authority.clear_lock(call, source, reply),
            fill,
            lambda trail, _: trail.note("locked", "unlocked", 1),
        )


def _note_revoked(trail: Trail, result: RevocationResult) -> None:
    note_change(trail, result.ended)
    if result.revoked:
        trail.note("live", f"revoked: {trail.after}", 1)
    else:
        trail.note("", trail.after)
