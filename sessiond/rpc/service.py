"""The service: each method decodes, asks the authority, and encodes. No policy lives here."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import Message

from sessiond.authority.authority import Authority
from sessiond.authority.results import Answer, Changed, Named, Repeat, Revoked
from sessiond.changes import Call, Repeated
from sessiond.crypto.tokens import OpenedToken, Token
from sessiond.domain.errors import InvalidField, Unavailable
from sessiond.domain.event import Event
from sessiond.domain.judge import Verdict
from sessiond.domain.values import Entropy, Revision, SessionId
from sessiond.rpc import cookies, decode, encode
from sessiond.rpc.cursor import decode_cursor, decode_page, decode_revision_page, encode_cursor, encode_page
from sessiond.rpc.fast_path import Shortcut
from sessiond.rpc.response_cache import Refusals, SessionViews
from sessiond.rpc.retries import repeat_of, repeated_answer
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["SessionAuthority"]

_MAX_BATCH = 1000
_TOKEN_LIVES = (Verdict.SUPERSEDED, Verdict.LOCKED)
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
M = TypeVar("M", bound=Message)
T = TypeVar("T")


class SessionAuthority:
    """The calls of `sessiond.v1.SessionAuthority` that this version serves, by their names.

    `write_timeout` is how long, in seconds, a subscriber may leave a message unread before its stream is ended.
    """

    def __init__(
        self, authority: Authority, version: str, write_timeout: float = 30.0, entropy: Entropy = os.urandom
    ) -> None:
        self._authority = authority
        self._version = version
        self._write_timeout = write_timeout
        self._views = SessionViews()
        self._refusals = Refusals()
        self._shortcut = Shortcut(authority.validation, entropy)

    def _call(self, application: str, client: pb.ClientContext | None = None, reason: str = "") -> Call:
        seen = None if client is None else decode.client(client)
        return self._authority.call(decode.application(application), seen, decode.reason(reason))

    async def _once(
        self,
        call: Call,
        request: Any,
        answer: type[M],
        ask: Callable[[Repeat | None], Awaitable[T | Repeated]],
        fill: Callable[[M, T], None],
        named: Named | None = None,
    ) -> M:
        """Ask for a change; where it was asked for before, with the same `request_id`, give the first answer again.

        `named` is the session that the call names, if it names one: a forged token has no first answer.
        """
        message: M | None = None

        def encoded(result: T) -> M:
            # Once: what is kept is the very answer that is given, to the second of its cookie's age.
            nonlocal message
            if message is None:
                message = answer()
                fill(message, result)
            return message

        if not request.request_id:
            return encoded(cast(T, await ask(None)))
        repeat = repeat_of(call, request, encoded)
        recalled = await self._authority.recall(repeat) if self._authority.may_name(named) else None
        result = recalled or await ask(repeat)
        return repeated_answer(request, result, answer) if isinstance(result, Repeated) else encoded(result)

    # Giving tokens

    async def CreateSession(self, request: pb.CreateSessionRequest, _: Context) -> pb.CreateSessionResponse:
        """Open a session."""
        call = self._call(request.application, _seen(request))
        login = decode.login(request)
        if not request.subject and request.HasField("authentication"):
            raise InvalidField("authentication", "must be unset for an anonymous session; set subject or leave it out")
        if request.subject and request.login_page:
            raise InvalidField("login_page", "must be false for a session with a subject")
        data = decode.first_data(request.data)
        return await self._once(
            call,
            request,
            pb.CreateSessionResponse,
            lambda repeat: self._authority.create(call, login, data, login_page=request.login_page, repeat=repeat),
            lambda response, changed: self._fill_given(response, call, changed),
        )

    async def AuthenticateSession(
        self, request: pb.AuthenticateSessionRequest, _: Context
    ) -> pb.AuthenticateSessionResponse:
        """Bind a subject, authenticate it again, or elevate."""
        call = self._call(request.application, _seen(request), request.reason)
        decode.subject(request.subject)
        login, token = decode.login(request), decode.token(request.token)

        def fill(response: pb.AuthenticateSessionResponse, changed: Changed) -> None:
            response.verdict = encode.VERDICT[changed.verdict]
            self._fill_given(response, call, changed)

        return await self._once(
            call,
            request,
            pb.AuthenticateSessionResponse,
            lambda repeat: self._authority.authenticate(call, token, login, elevates=request.elevate, repeat=repeat),
            fill,
            token,
        )

    async def RollSession(self, request: pb.RollSessionRequest, _: Context) -> pb.RollSessionResponse:
        """Replace the token at a privilege change."""
        call = self._call(request.application, _seen(request), request.reason)
        token = decode.token(request.token)

        def fill(response: pb.RollSessionResponse, changed: Changed) -> None:
            response.verdict = encode.VERDICT[changed.verdict]
            self._fill_token(response, call, changed)

        return await self._once(
            call,
            request,
            pb.RollSessionResponse,
            lambda repeat: self._authority.roll(call, token, repeat=repeat),
            fill,
            token,
        )

    def _fill_given(
        self, response: pb.CreateSessionResponse | pb.AuthenticateSessionResponse, call: Call, changed: Changed
    ) -> None:
        if changed.evicted:
            response.evicted_session_ids.extend(map(str, changed.evicted))
        if changed.limit is not None:
            encode.fill_limit(response.limit, changed.limit)
        self._fill_token(response, call, changed)

    def _fill_token(
        self,
        response: pb.CreateSessionResponse | pb.AuthenticateSessionResponse | pb.RollSessionResponse,
        call: Call,
        changed: Changed,
    ) -> None:
        response.revision = changed.revision
        if changed.session is None or changed.token is None or changed.csrf is None:
            return
        encode.fill_session(response.session, changed.session)
        response.token = changed.token.reveal()
        response.csrf_token = changed.csrf.reveal()
        cookies.fill_token(response.cookies, call.policy.cookie, changed.session, changed.token, self._authority.now())

    # Judging tokens

    async def ValidateSession(self, request: pb.ValidateSessionRequest, _: Context) -> pb.ValidateSessionResponse:
        """Judge one token."""
        call = self._call(request.application, _seen(request))
        self._authority.validation.check_revision(request.min_revision)
        answer = self._at_once(call, request)
        if isinstance(answer, OpenedToken):
            answer = await self._judge(call, request, answer)
        self._shortcut.remember(request, call, answer)
        return self._validation(call, answer)

    def shortcut(self, raw: bytes) -> pb.ValidateSessionResponse | None:
        """ValidateSession's answer to these bytes where it is a plain one again; None: the ordinary way decides."""
        answer = self._shortcut.answer(raw)
        return None if answer is None else self._plain_validation(answer)

    async def ValidateSessions(self, request: pb.ValidateSessionsRequest, _: Context) -> pb.ValidateSessionsResponse:
        """Judge many tokens, each by itself."""
        if len(request.requests) > _MAX_BATCH:
            raise InvalidField("requests", f"has {len(request.requests)} entries, at most {_MAX_BATCH} are allowed")
        # All questions are checked before any is judged: a broken call must change nothing.
        calls = [self._call(question.application, _seen(question)) for question in request.requests]
        for question in request.requests:
            decode.needed(question)
        self._authority.validation.check_revision(max((one.min_revision for one in request.requests), default=0))
        # A task for each question would cost more than most questions do: only those that have to wait become one.
        answers: dict[int, Answer] = {}
        waiting = {}
        for number, (call, question) in enumerate(zip(calls, request.requests, strict=True)):
            found = self._at_once(call, question)
            if isinstance(found, Answer):
                answers[number] = found
            else:
                waiting[number] = self._judge(call, question, found)
        answers.update(zip(waiting, await asyncio.gather(*waiting.values()), strict=True))
        return pb.ValidateSessionsResponse(
            responses=[self._validation(call, answers[number]) for number, call in enumerate(calls)]
        )

    def _at_once(self, call: Call, request: pb.ValidateSessionRequest) -> Answer | OpenedToken:
        return self._authority.validation.at_once(
            call,
            decode.token(request.token),
            passive=request.passive,
            needed=decode.needed(request),
            with_csrf=request.with_csrf_token,
        )

    async def _judge(self, call: Call, request: pb.ValidateSessionRequest, opened: OpenedToken) -> Answer:
        return await self._authority.validation.judge(
            call,
            opened,
            passive=request.passive,
            needed=decode.needed(request),
            with_csrf=request.with_csrf_token,
        )

    def _plain_validation(self, answer: Answer) -> pb.ValidateSessionResponse:
        message = pb.ValidateSessionResponse()
        message.verdict = encode.VERDICT[answer.verdict]
        message.next_step = encode.next_step(answer)
        if answer.session is not None:
            self._views.fill(message.session, answer.session)
            if answer.active_at is not None:
                encode.set_activity(message.session, answer.active_at, answer.idle_deadline)
        return message

    def _validation(self, call: Call, answer: Answer) -> pb.ValidateSessionResponse:
        if answer.session is None and not answer.judgement.signals:
            return self._refusals.message(call, answer)
        message = self._plain_validation(answer)
        if answer.judgement.signals:
            message.signals.extend(encode.signal_messages(answer.judgement.signals))
        if answer.unmet:
            message.unmet.extend(encode.unmet_messages(answer.unmet))
        if answer.csrf is not None:
            message.csrf_token = answer.csrf.reveal()
        if answer.renewed is not None and answer.session is not None:
            message.renewed_token = answer.renewed.reveal()
            now = self._authority.now()
            cookies.fill_token(message.cookies, call.policy.cookie, answer.session, answer.renewed, now)
        elif message.next_step == pb.NEXT_STEP_DISCARD_TOKEN:
            cookies.fill_deletion(message.cookies, call.policy.cookie)
        return message

    async def IssueCompanionToken(
        self, request: pb.IssueCompanionTokenRequest, _: Context
    ) -> pb.IssueCompanionTokenResponse:
        """Give a second token for one purpose."""
        call = self._call(request.application, _seen(request))
        purpose, path = decode.purpose(request.purpose), decode.companion_path(request.path)
        companion = await self._authority.issue_companion(
            call, decode.token(request.token), purpose, decode.time_to_live(request)
        )
        response = pb.IssueCompanionTokenResponse(verdict=encode.VERDICT[companion.verdict])
        if companion.token is not None and companion.expires is not None:
            response.companion_token = companion.token.reveal()
            encode.set_time(response.expire_time, companion.expires)
            seconds = -((self._authority.now() - companion.expires) // 1000)  # rounded up: 0 would delete it
            cookies.fill_companion(response.cookies, call.policy.cookie, purpose, path, companion.token, seconds)
        return response

    # Other changes

    async def RefreshSession(self, request: pb.RefreshSessionRequest, _: Context) -> pb.RefreshSessionResponse:
        """Make a session as good as new."""
        call = self._call(request.application, _seen(request))
        token = decode.token(request.token)

        def fill(response: pb.RefreshSessionResponse, changed: Changed) -> None:
            response.verdict = encode.VERDICT[changed.verdict]
            response.revision = changed.revision
            if changed.session is not None:
                encode.fill_session(response.session, changed.session)

        return await self._once(
            call,
            request,
            pb.RefreshSessionResponse,
            lambda repeat: self._authority.refresh(call, token, repeat=repeat),
            fill,
            token,
        )

    async def RevokeSession(self, request: pb.RevokeSessionRequest, _: Context) -> pb.RevokeSessionResponse:
        """End one session."""
        call = self._call(request.application, _seen(request), request.reason)
        named, anew = decode.named_session(request.session), request.open_anonymous

        def fill(response: pb.RevokeSessionResponse, answer: Revoked) -> None:
            ended, rules = answer.ended, call.policy.cookie
            response.verdict = encode.VERDICT[ended.verdict]
            response.revoked = answer.revoked
            response.revision = ended.revision
            if ended.session is not None:
                encode.fill_session(response.session, ended.session)
            fresh = answer.anonymous
            if fresh is not None and fresh.session is not None and fresh.token is not None and fresh.csrf is not None:
                encode.fill_session(response.anonymous_session, fresh.session)
                response.token, response.csrf_token = fresh.token.reveal(), fresh.csrf.reveal()
                response.revision = fresh.revision
                cookies.fill_token(response.cookies, rules, fresh.session, fresh.token, self._authority.now())
            elif isinstance(named, Token) and (answer.revoked or ended.verdict not in _TOKEN_LIVES):
                cookies.fill_deletion(response.cookies, rules)
            else:
                return  # another device's session, or one that lives on
            cookies.fill_logout(response.cookies, rules, keeps_cookies=fresh is not None)

        return await self._once(
            call,
            request,
            pb.RevokeSessionResponse,
            lambda repeat: self._authority.revoke(call, named, open_anonymous=anew, repeat=repeat),
            fill,
            named,
        )

    async def RevokeSessions(self, request: pb.RevokeSessionsRequest, _: Context) -> pb.RevokeSessionsResponse:
        """End all sessions that match."""
        call = self._call(request.application, reason=request.reason)
        if request.filter.state != pb.SESSION_STATE_UNSPECIFIED:
            raise InvalidField("filter.state", "must be unset: only live sessions can be revoked")
        query = decode.session_query(call.application, request.filter, self._authority.now())
        if not request.filter.ListFields() and not request.whole_application:
            raise InvalidField("whole_application", "must be true to end every session; or set a condition in filter")
        keep = None
        if request.except_session_id:
            keep = decode.session_id(request.except_session_id, "except_session_id")

        def fill(response: pb.RevokeSessionsResponse, answer: tuple[int, Revision]) -> None:
            response.revoked_count, response.revision = answer

        return await self._once(
            call,
            request,
            pb.RevokeSessionsResponse,
            lambda repeat: self._authority.revoke_all(call, query, keep, repeat=repeat),
            fill,
        )

    async def UpdateSessionData(self, request: pb.UpdateSessionDataRequest, _: Context) -> pb.UpdateSessionDataResponse:
        """Change a session's data."""
        call = self._call(request.application)
        named, changes = decode.named_session(request.session), decode.data_changes(request)
        expected = request.expected_version if request.HasField("expected_version") else None

        def fill(response: pb.UpdateSessionDataResponse, changed: Changed) -> None:
            response.verdict = encode.VERDICT[changed.verdict]
            response.revision = changed.revision
            if changed.session is not None:
                response.version = changed.session.data_version

        return await self._once(
            call,
            request,
            pb.UpdateSessionDataResponse,
            lambda repeat: self._authority.update_data(call, named, changes, expected, repeat=repeat),
            fill,
            named,
        )

    async def ReportSignal(self, request: pb.ReportSignalRequest, _: Context) -> pb.ReportSignalResponse:
        """Take in an application's own suspicion."""
        call = self._call(request.application, _seen(request), request.reason)
        named = decode.named_session(request.session)

        def fill(response: pb.ReportSignalResponse, changed: Changed) -> None:
            response.verdict = encode.VERDICT[changed.verdict]
            response.revision = changed.revision
            if changed.reaction is not None:
                response.reaction = encode.REACTION[changed.reaction]

        return await self._once(
            call,
            request,
            pb.ReportSignalResponse,
            lambda repeat: self._authority.report(call, named, repeat=repeat),
            fill,
            named,
        )

    async def ListSourceLocks(self, request: pb.ListSourceLocksRequest, _: Context) -> pb.ListSourceLocksResponse:
        """Show a page of the locked sources."""
        call = self._call(request.application)
        size = decode.page_size(request.page_size)
        question = b"locks" + call.application.encode()
        after = decode_revision_page(request.page_token, question) or 0
        # A lock's number is its time: sources are locked one after another, and the oldest come first.
        locks = [lock for lock in self._authority.locks(call) if lock.number > after]
        page = locks[:size]
        response = pb.ListSourceLocksResponse(source_locks=map(encode.lock_message, page))
        if len(locks) > size:
            response.next_page_token = encode_page(question, page[-1].number.to_bytes(8, "big"))
        return response

    async def ClearSourceLock(self, request: pb.ClearSourceLockRequest, _: Context) -> pb.ClearSourceLockResponse:
        """Let a locked source go."""
        call = self._call(request.application, reason=request.reason)
        source = decode.source(request.source)

        def fill(response: pb.ClearSourceLockResponse, revision: Revision) -> None:
            response.revision = revision

        return await self._once(
            call,
            request,
            pb.ClearSourceLockResponse,
            lambda repeat: self._authority.clear_lock(call, source, repeat=repeat),
            fill,
        )

    # Reading

    async def GetSession(self, request: pb.GetSessionRequest, _: Context) -> pb.GetSessionResponse:
        """Show one session."""
        call = self._call(request.application)
        verdict, session = await self._authority.get(call, decode.named_session(request.session))
        return pb.GetSessionResponse(
            verdict=encode.VERDICT[verdict], session=None if session is None else encode.session_message(session)
        )

    async def ListSessions(self, request: pb.ListSessionsRequest, _: Context) -> pb.ListSessionsResponse:
        """Show a page of sessions."""
        call = self._call(request.application)
        query = decode.session_query(call.application, request.filter, self._authority.now())
        size = decode.page_size(request.page_size)
        question = b"sessions" + call.application.encode() + request.filter.SerializeToString(deterministic=True)
        before = decode_page(request.page_token, question, 16)
        query = query.page(None if before is None else SessionId(before), size)
        sessions, following = await self._authority.list(call, query)
        return pb.ListSessionsResponse(
            sessions=map(encode.session_message, sessions),
            next_page_token="" if following is None else encode_page(question, following),
        )

    async def GetSessionData(self, request: pb.GetSessionDataRequest, _: Context) -> pb.GetSessionDataResponse:
        """Read a session's data."""
        call = self._call(request.application)
        verdict, data, version = await self._authority.data(call, decode.named_session(request.session))
        wanted = set(request.keys)
        return pb.GetSessionDataResponse(
            verdict=encode.VERDICT[verdict],
            data={key: value for key, value in data.items() if not wanted or key in wanted},
            version=version,
        )

    async def ListActivity(self, request: pb.ListActivityRequest, _: Context) -> pb.ListActivityResponse:
        """Show a page of a subject's history."""
        call = self._call(request.application)
        subject = decode.subject(request.subject)
        size = decode.page_size(request.page_size)
        question = b"activity" + call.application.encode() + b"\0" + subject.encode()
        before = decode_revision_page(request.page_token, question)
        events, following = await self._authority.activity(call, subject, before, size)
        return pb.ListActivityResponse(
            events=map(encode.event_message, events),
            next_page_token="" if following is None else encode_page(question, following.to_bytes(8, "big")),
        )

    async def Subscribe(self, request: pb.SubscribeRequest, context: Context) -> None:
        """Stream the log."""
        interval = decode.checkpoint_interval(request)
        wanted = decode.event_filter(request.filter)
        identity = self._authority.describe().authority_id
        items = self._authority.subscribe(self._position(request, identity), wanted, interval)
        async with aclosing(items):
            async for item in items:
                response = pb.SubscribeResponse(cursor=encode_cursor(identity, item.revision))
                if isinstance(item, Event):
                    encode.fill_event(response.event, item)
                else:
                    response.checkpoint.revision = item.revision
                try:
                    await asyncio.wait_for(context.write(response), self._write_timeout)
                except TimeoutError:
                    await context.abort(
                        grpc.StatusCode.RESOURCE_EXHAUSTED,
                        "the subscriber has not read for too long; resume from the last cursor it dealt with",
                    )
        raise Unavailable("the authority is shutting down; resume from the last cursor")

    def _position(self, request: pb.SubscribeRequest, identity: bytes) -> Revision:
        if request.WhichOneof("from") == "cursor":
            return decode_cursor(request.cursor, identity)
        if request.start not in (pb.STREAM_START_UNSPECIFIED, pb.STREAM_START_NOW, pb.STREAM_START_EARLIEST):
            raise InvalidField("start", f"{request.start} is no StreamStart")
        state = self._authority.describe()
        return state.horizon if request.start == pb.STREAM_START_EARLIEST else state.revision

    async def GetAuthority(self, _: pb.GetAuthorityRequest, __: Context) -> pb.GetAuthorityResponse:
        """Tell who answers, and by which rules."""
        state = self._authority.describe()
        return pb.GetAuthorityResponse(
            authority_id=str(uuid.UUID(bytes=state.authority_id)),
            version=self._version,
            revision=state.revision,
            horizon=state.horizon,
            applications=[
                pb.Application(name=name, policy=encode.policy_message(policy, state.origins.get(name, {})))
                for name, policy in sorted(state.policies.items())
            ],
        )


def _seen(request: Any) -> pb.ClientContext | None:
    """What the caller says it saw of the client; None where it says nothing."""
    return request.client if request.HasField("client") else None
