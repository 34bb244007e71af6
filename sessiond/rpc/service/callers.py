"""Calls about callers."""

from __future__ import annotations

from typing import Any

from sessiond.authority.authority import Authority
from sessiond.authority.callers import KeyIssued
from sessiond.domain.call import Call, Caller
from sessiond.domain.values import Revision
from sessiond.rpc import decode, encode
from sessiond.rpc.service.calls import Calls, Change, changing
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["CallerService"]


class _CallsAboutCallers(Calls):
    """Decodes the common fields of calls that belong to no application."""

    def __init__(self, authority: Authority) -> None:
        super().__init__(authority)
        self._callers = authority.callers

    def of(self, request: Any, caller: Caller) -> Call:
        """Return the call that a request makes. Raise `InvalidField` if its reason is invalid."""
        return self._callers.call(caller, decode.caller_reason(request.reason))


class CallerService:
    """The calls CreateCaller, ListCallers, RotateCaller and RevokeCaller."""

    def __init__(self, authority: Authority) -> None:
        self._calls: Calls = _CallsAboutCallers(authority)
        self._callers = authority.callers
        self._reading = authority.reading

    @changing(pb.CreateCallerResponse)
    def CreateCaller(self, call: Call, request: pb.CreateCallerRequest) -> Change[KeyIssued]:
        """Add a caller."""
        name, grants = decode.caller_name(request.name), decode.grants(request.grants)
        return Change(lambda reply: self._callers.add(call, name, grants, reply), self._fill)

    @changing(pb.RotateCallerResponse)
    def RotateCaller(self, call: Call, request: pb.RotateCallerRequest) -> Change[KeyIssued]:
        """Give a caller a new key."""
        name, overlap = decode.caller_name(request.name), decode.overlap(request)
        return Change(lambda reply: self._callers.rotate(call, name, overlap, reply), self._fill)

    @changing(pb.RevokeCallerResponse)
    def RevokeCaller(self, call: Call, request: pb.RevokeCallerRequest) -> Change[Revision]:
        """Remove a caller."""
        name = decode.caller_name(request.name)

        def fill(response: pb.RevokeCallerResponse, revision: Revision) -> None:
            response.consistency_token = self._calls.consistency_token(revision)

        return Change(lambda reply: self._callers.remove(call, name, reply), fill)

    async def ListCallers(self, request: pb.ListCallersRequest, _: Caller) -> pb.ListCallersResponse:
        """Return all callers."""
        await self._reading.wait_for(self._calls.at_least(request.at_least))
        return pb.ListCallersResponse(callers=map(encode.caller_message, await self._callers.list()))

    def _fill(self, response: Any, issued: KeyIssued) -> None:
        response.caller.CopyFrom(encode.caller_message(issued.caller))
        response.key = issued.key.reveal()
        response.consistency_token = self._calls.consistency_token(issued.revision)
