"""Calls that read: sessions, activity history, source locks and the authority."""

from __future__ import annotations

import uuid

from sessiond.authority.authority import Authority
from sessiond.domain.access import ANY_APPLICATION
from sessiond.domain.call import Caller
from sessiond.domain.values import SessionId
from sessiond.rpc import decode, encode
from sessiond.rpc.cursor import decode_page, decode_revision_page, encode_page
from sessiond.rpc.pages import fitting
from sessiond.rpc.service.calls import Calls
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["ReadingService"]


class ReadingService:
    """The calls GetSession, ListSessions, ListActivity, ListSourceLocks and GetAuthority."""

    def __init__(self, calls: Calls, authority: Authority, version: str) -> None:
        self._calls = calls
        self._authority = authority
        self._reading = authority.reading
        self._version = version

    async def GetSession(self, request: pb.GetSessionRequest, caller: Caller) -> pb.GetSessionResponse:
        """Return one session."""
        call, named = self._calls.of(request, caller), decode.named_session(request.session)
        await self._reading.wait_for(self._calls.at_least(request.at_least))
        verdict, session = await self._reading.get(call, named)
        return pb.GetSessionResponse(
            verdict=encode.VERDICT[verdict], session=None if session is None else encode.session_message(session)
        )

    async def ListSessions(self, request: pb.ListSessionsRequest, caller: Caller) -> pb.ListSessionsResponse:
        """Return a page of sessions, newest first."""
        call = self._calls.of(request, caller)
        query = decode.session_query(call.application, request.filter, self._authority.now())
        size = decode.page_size(request.page_size)
        query_bytes = b"sessions" + call.application.encode() + request.filter.SerializeToString(deterministic=True)
        before = decode_page(request.page_token, query_bytes, 16)
        await self._reading.wait_for(self._calls.at_least(request.at_least))
        query = query.page(None if before is None else SessionId(before), size)
        sessions, following = await self._reading.list(call, query)
        messages = fitting(map(encode.session_message, sessions))
        if len(messages) < len(sessions):
            following = sessions[len(messages) - 1].id
        return pb.ListSessionsResponse(
            sessions=messages, next_page_token="" if following is None else encode_page(query_bytes, following)
        )

    async def ListActivity(self, request: pb.ListActivityRequest, caller: Caller) -> pb.ListActivityResponse:
        """Return a page of a subject's activity history, newest first."""
        call = self._calls.of(request, caller)
        subject = decode.subject(request.subject)
        size = decode.page_size(request.page_size)
        query_bytes = b"activity" + call.application.encode() + b"\0" + subject.encode()
        before = decode_revision_page(request.page_token, query_bytes)
        await self._reading.wait_for(self._calls.at_least(request.at_least))
        events, following = await self._reading.activity(call, subject, before, size)
        messages = fitting(map(encode.event_message, events))
        if len(messages) < len(events):
            following = events[len(messages) - 1].revision
        return pb.ListActivityResponse(
            events=messages,
            next_page_token="" if following is None else encode_page(query_bytes, following.to_bytes(8, "big")),
        )

    async def ListSourceLocks(self, request: pb.ListSourceLocksRequest, caller: Caller) -> pb.ListSourceLocksResponse:
        """Return a page of the locked sources, oldest lock first."""
        call = self._calls.of(request, caller)
        size = decode.page_size(request.page_size)
        query_bytes = b"locks" + call.application.encode()
        after = decode_revision_page(request.page_token, query_bytes) or 0
        locks = [lock for lock in await self._reading.locks(call) if lock.revision > after]
        page = locks[:size]
        response = pb.ListSourceLocksResponse(source_locks=map(encode.lock_message, page))
        if len(locks) > size:
            response.next_page_token = encode_page(query_bytes, page[-1].revision.to_bytes(8, "big"))
        return response

    async def GetAuthority(self, _: pb.GetAuthorityRequest, caller: Caller) -> pb.GetAuthorityResponse:
        """Return the authority's identity, version and position, and the policies of the caller's applications."""
        state = self._reading.describe()
        return pb.GetAuthorityResponse(
            authority_id=str(uuid.UUID(bytes=state.authority_id)),
            version=self._version,
            revision=state.position.revision,
            horizon=state.horizon,
            applications=[
                pb.Application(name=name, policy=encode.policy_message(policy, state.origins.get(name, {})))
                for name, policy in sorted(state.policies.items())
                if caller.may_see(name)
            ],
            consistency_token=self._calls.consistency_token(state.position.revision),
            incarnation=state.position.incarnation.hex(),
            policies_fingerprint=state.fingerprint,
            # Their names are those of machines, which only those need who operate all of it.
            replicas_with_other_policies=state.replicas_with_other_policies if caller.may_see(ANY_APPLICATION) else (),
        )
