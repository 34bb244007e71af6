"""The service: each method decodes, asks the authority, and encodes. No policy lives here."""

from __future__ import annotations

import asyncio
import os
import uuid
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from sessiond.authority import Answer, Authority, Changed
from sessiond.domain.errors import InvalidField, Unavailable
from sessiond.domain.event import Event
from sessiond.domain.values import ClientContext, Entropy, Revision, SessionId
from sessiond.rpc import convert
from sessiond.rpc.cursor import decode_cursor, decode_page, decode_revision_page, encode_cursor, encode_page
from sessiond.rpc.shortcut import Shortcut
from sessiond.rpc.views import SessionViews
from sessiond.units import Call
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["SessionAuthority"]

_MAX_BATCH = 1000
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


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
        self._shortcut = Shortcut(authority, entropy)

    def _call(self, application: str, client: pb.ClientContext | None = None, reason: str = "") -> Call:
        seen = ClientContext() if client is None else convert.client(client)
        return self._authority.call(convert.application(application), seen, convert.reason(reason))

    async def CreateSession(self, request: pb.CreateSessionRequest, _: Context) -> pb.CreateSessionResponse:
        """Open a session."""
        call = self._call(request.application, request.client)
        level, methods = convert.authentication(request.authentication)
        if request.subject:
            convert.subject(request.subject)
        elif request.HasField("authentication"):
            raise InvalidField("authentication", "must be unset for an anonymous session; set subject or leave it out")
        data = convert.first_data(request.data)
        changed = await self._authority.create(call, request.subject, level, methods, data)
        response = pb.CreateSessionResponse(token=_token(changed), revision=changed.revision)
        if changed.session is not None:
            convert.fill_session(response.session, changed.session)
        return response

    async def ValidateSession(self, request: pb.ValidateSessionRequest, _: Context) -> pb.ValidateSessionResponse:
        """Judge one token."""
        call = self._call(request.application, request.client)
        answer = await self._authority.validate(
            call, convert.token(request.token), passive=request.passive, min_revision=request.min_revision
        )
        self._shortcut.remember(request, call, answer)
        return self._validation(answer)

    def shortcut(self, raw: bytes) -> pb.ValidateSessionResponse | None:
        """ValidateSession's answer to these bytes where it is a plain one again; None: the ordinary way decides."""
        answer = self._shortcut.answer(raw)
        return None if answer is None else self._validation(answer)

    async def ValidateSessions(self, request: pb.ValidateSessionsRequest, _: Context) -> pb.ValidateSessionsResponse:
        """Judge many tokens, each by itself."""
        if len(request.requests) > _MAX_BATCH:
            raise InvalidField("requests", f"has {len(request.requests)} entries, at most {_MAX_BATCH} are allowed")
        # All questions are checked before any is judged: a broken call must change nothing.
        calls = [self._call(question.application, question.client) for question in request.requests]
        self._authority.check_revision(max((question.min_revision for question in request.requests), default=0))
        answers = await asyncio.gather(
            *(
                self._authority.validate(
                    call,
                    convert.token(question.token),
                    passive=question.passive,
                    min_revision=question.min_revision,
                )
                for call, question in zip(calls, request.requests, strict=True)
            )
        )
        return pb.ValidateSessionsResponse(responses=[self._validation(answer) for answer in answers])

    def _validation(self, answer: Answer) -> pb.ValidateSessionResponse:
        message = pb.ValidateSessionResponse()
        message.verdict = convert.VERDICT[answer.verdict]
        message.next_step = convert.next_step(answer)
        if answer.judgement.signals:
            message.signals.extend(convert.signal_messages(answer.judgement.signals))
        if answer.session is not None:
            self._views.fill(message.session, answer.session)
            if answer.active_at is not None:
                convert.set_activity(message.session, answer.active_at, answer.idle_deadline)
        if answer.renewed is not None:
            message.renewed_token = answer.renewed.reveal()
        return message

    async def AuthenticateSession(
        self, request: pb.AuthenticateSessionRequest, _: Context
    ) -> pb.AuthenticateSessionResponse:
        """Bind a subject or authenticate it again."""
        call = self._call(request.application, request.client, request.reason)
        level, methods = convert.authentication(request.authentication)
        subject = convert.subject(request.subject)
        changed = await self._authority.authenticate(call, convert.token(request.token), subject, level, methods)
        return pb.AuthenticateSessionResponse(
            verdict=convert.VERDICT[changed.verdict],
            session=_session(changed),
            token=_token(changed),
            revision=changed.revision,
        )

    async def RollSession(self, request: pb.RollSessionRequest, _: Context) -> pb.RollSessionResponse:
        """Replace the token at a privilege change."""
        call = self._call(request.application, request.client, request.reason)
        changed = await self._authority.roll(call, convert.token(request.token))
        return pb.RollSessionResponse(
            verdict=convert.VERDICT[changed.verdict],
            session=_session(changed),
            token=_token(changed),
            revision=changed.revision,
        )

    async def RefreshSession(self, request: pb.RefreshSessionRequest, _: Context) -> pb.RefreshSessionResponse:
        """Make a session as good as new."""
        call = self._call(request.application, request.client)
        changed = await self._authority.refresh(call, convert.token(request.token))
        return pb.RefreshSessionResponse(
            verdict=convert.VERDICT[changed.verdict], session=_session(changed), revision=changed.revision
        )

    async def RevokeSession(self, request: pb.RevokeSessionRequest, _: Context) -> pb.RevokeSessionResponse:
        """End one session."""
        call = self._call(request.application, request.client, request.reason)
        changed, revoked = await self._authority.revoke(call, convert.named_session(request.session))
        return pb.RevokeSessionResponse(
            verdict=convert.VERDICT[changed.verdict],
            revoked=revoked,
            session=_session(changed),
            revision=changed.revision,
        )

    async def RevokeSessions(self, request: pb.RevokeSessionsRequest, _: Context) -> pb.RevokeSessionsResponse:
        """End all sessions that match."""
        call = self._call(request.application, reason=request.reason)
        if request.filter.state != pb.SESSION_STATE_UNSPECIFIED:
            raise InvalidField("filter.state", "must be unset: only live sessions can be revoked")
        query = convert.session_query(call.application, request.filter, self._authority.now())
        if not request.filter.ListFields() and not request.whole_application:
            raise InvalidField("whole_application", "must be true to end every session; or set a condition in filter")
        keep = None
        if request.except_session_id:
            keep = convert.session_id(request.except_session_id, "except_session_id")
        count, revision = await self._authority.revoke_all(call, query, keep)
        return pb.RevokeSessionsResponse(revoked_count=count, revision=revision)

    async def GetSession(self, request: pb.GetSessionRequest, _: Context) -> pb.GetSessionResponse:
        """Show one session."""
        call = self._call(request.application)
        verdict, session = await self._authority.get(call, convert.named_session(request.session))
        return pb.GetSessionResponse(
            verdict=convert.VERDICT[verdict], session=None if session is None else convert.session_message(session)
        )

    async def ListSessions(self, request: pb.ListSessionsRequest, _: Context) -> pb.ListSessionsResponse:
        """Show a page of sessions."""
        call = self._call(request.application)
        query = convert.session_query(call.application, request.filter, self._authority.now())
        size = convert.page_size(request.page_size)
        question = b"sessions" + call.application.encode() + request.filter.SerializeToString(deterministic=True)
        before = decode_page(request.page_token, question, 16)
        query = query.page(None if before is None else SessionId(before), size)
        sessions, following = await self._authority.list(call, query)
        return pb.ListSessionsResponse(
            sessions=map(convert.session_message, sessions),
            next_page_token="" if following is None else encode_page(question, following),
        )

    async def GetSessionData(self, request: pb.GetSessionDataRequest, _: Context) -> pb.GetSessionDataResponse:
        """Read a session's data."""
        call = self._call(request.application)
        verdict, data, version = await self._authority.data(call, convert.named_session(request.session))
        wanted = set(request.keys)
        return pb.GetSessionDataResponse(
            verdict=convert.VERDICT[verdict],
            data={key: value for key, value in data.items() if not wanted or key in wanted},
            version=version,
        )

    async def UpdateSessionData(self, request: pb.UpdateSessionDataRequest, _: Context) -> pb.UpdateSessionDataResponse:
        """Change a session's data."""
        call = self._call(request.application)
        named, changes = convert.named_session(request.session), convert.data_changes(request)
        expected = request.expected_version if request.HasField("expected_version") else None
        changed = await self._authority.update_data(call, named, changes, expected)
        return pb.UpdateSessionDataResponse(
            verdict=convert.VERDICT[changed.verdict],
            version=0 if changed.session is None else changed.session.data_version,
            revision=changed.revision,
        )

    async def ListActivity(self, request: pb.ListActivityRequest, _: Context) -> pb.ListActivityResponse:
        """Show a page of a subject's history."""
        call = self._call(request.application)
        subject = convert.subject(request.subject)
        size = convert.page_size(request.page_size)
        question = b"activity" + call.application.encode() + b"\0" + subject.encode()
        before = decode_revision_page(request.page_token, question)
        events, following = await self._authority.activity(call, subject, before, size)
        return pb.ListActivityResponse(
            events=map(convert.event_message, events),
            next_page_token="" if following is None else encode_page(question, following.to_bytes(8, "big")),
        )

    async def Subscribe(self, request: pb.SubscribeRequest, context: Context) -> None:
        """Stream the log."""
        interval = convert.checkpoint_interval(request)
        wanted = convert.event_filter(request.filter)
        identity = self._authority.describe().authority_id
        items = self._authority.subscribe(self._position(request, identity), wanted, interval)
        async with aclosing(items):
            async for item in items:
                response = pb.SubscribeResponse(cursor=encode_cursor(identity, item.revision))
                if isinstance(item, Event):
                    convert.fill_event(response.event, item)
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
                pb.Application(name=name, policy=convert.policy_message(policy))
                for name, policy in sorted(state.policies.items())
            ],
        )


def _session(changed: Changed) -> pb.Session | None:
    return None if changed.session is None else convert.session_message(changed.session)


def _token(changed: Changed) -> str:
    return "" if changed.token is None else changed.token.reveal()
