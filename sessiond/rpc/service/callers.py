"""Calls about callers."""

from __future__ import annotations

from typing import Any

from sessiond.authority.authority import Authority
from sessiond.authority.callers import CallerRemoved, CertificatesChanged, KeyIssued
from sessiond.domain.access import CallerRecord
from sessiond.domain.audit import Trail
from sessiond.domain.call import Call, Caller
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
    """The calls CreateCaller, ListCallers, RotateCaller, RevokeCaller and UpdateCallerCertificates."""

    def __init__(self, authority: Authority) -> None:
        self._calls: Calls = _CallsAboutCallers(authority)
        self._callers = authority.callers
        self._reading = authority.reading

    @changing(pb.CreateCallerResponse)
    def CreateCaller(self, call: Call, request: pb.CreateCallerRequest) -> Change[KeyIssued]:
        """Add a caller."""
        name, grants = decode.new_caller_name(request.name), decode.grants(request.grants)
        names, with_key = (
            decode.certificate_names("certificate_names", request.certificate_names),
            not request.without_key,
        )
        return Change(
            lambda reply: self._callers.add(call, name, grants, reply, with_key=with_key, certificate_names=names),
            self._fill,
            _note_key,
        )

    @changing(pb.RotateCallerResponse)
    def RotateCaller(self, call: Call, request: pb.RotateCallerRequest) -> Change[KeyIssued]:
        """Give a caller a new key."""
        name, overlap = decode.caller_name(request.name), decode.overlap(request)
        return Change(lambda reply: self._callers.rotate(call, name, overlap, reply), self._fill, _note_key)

    @changing(pb.UpdateCallerCertificatesResponse)
    def UpdateCallerCertificates(
        self, call: Call, request: pb.UpdateCallerCertificatesRequest
    ) -> Change[CertificatesChanged]:
        """Change by which names in a certificate a caller is known."""
        name, (add, remove) = decode.caller_name(request.name), decode.certificate_changes(request)

        def fill(response: pb.UpdateCallerCertificatesResponse, changed: CertificatesChanged) -> None:
            response.caller.CopyFrom(encode.caller_message(changed.caller))
            response.consistency_token = self._calls.consistency_token(changed.revision)

        def note(trail: Trail, changed: CertificatesChanged) -> None:
            trail.note(_words(changed.before), _words(changed.caller), 1)

        return Change(lambda reply: self._callers.change_certificates(call, name, add, remove, reply), fill, note)

    @changing(pb.RevokeCallerResponse)
    def RevokeCaller(self, call: Call, request: pb.RevokeCallerRequest) -> Change[CallerRemoved]:
        """Remove a caller."""
        name = decode.caller_name(request.name)

        def fill(response: pb.RevokeCallerResponse, removed: CallerRemoved) -> None:
            response.consistency_token = self._calls.consistency_token(removed.revision)

        def note(trail: Trail, removed: CallerRemoved) -> None:
            trail.note(_words(removed.caller), "removed", 1)

        return Change(lambda reply: self._callers.remove(call, name, reply), fill, note)

    async def ListCallers(self, request: pb.ListCallersRequest, _: Caller) -> pb.ListCallersResponse:
        """Return all callers."""
        await self._reading.wait_for(self._calls.at_least(request.at_least))
        return pb.ListCallersResponse(callers=map(encode.caller_message, await self._callers.list()))

    def _fill(self, response: Any, issued: KeyIssued) -> None:
        response.caller.CopyFrom(encode.caller_message(issued.caller))
        response.key = "" if issued.key is None else issued.key.reveal()
        response.consistency_token = self._calls.consistency_token(issued.revision)


def _note_key(trail: Trail, issued: KeyIssued) -> None:
    trail.note("" if issued.before is None else _words(issued.before), _words(issued.caller), 1)


def _words(caller: CallerRecord) -> str:
    """Return the roles of a caller and the public ids of its credentials."""
    roles = ", ".join(f"{role.value} for {application}" for application, role in sorted(caller.grants))
    credentials = ", ".join(
        f"{credential.kind.value} {credential.id}" + ("" if credential.expires is None else " (expires)")
        for credential in caller.credentials
    )
    return f"{credentials}; {roles}"
