"""Calls about the key ring."""

from __future__ import annotations

from typing import Any

from sessiond.authority.authority import Authority
from sessiond.authority.key_ring import KeyChanged
from sessiond.domain.audit import Trail
from sessiond.domain.call import Call, Caller
from sessiond.domain.key_ring import short
from sessiond.rpc import decode, encode
from sessiond.rpc.service.calls import Calls, Change, changing
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["KeyRingService"]


class _CallsAboutKeys(Calls):
    """Decodes the common fields of calls that belong to no application."""

    def __init__(self, authority: Authority) -> None:
        super().__init__(authority)
        self._key_ring = authority.key_ring

    def of(self, request: Any, caller: Caller) -> Call:
        """Return the call that a request makes. Raise `InvalidField` if its reason is invalid."""
        return self._key_ring.call(caller, decode.caller_reason(request.reason))


class KeyRingService:
    """The calls GetKeyRing, AddSealingKey, PromoteSealingKey and RetireSealingKey."""

    def __init__(self, authority: Authority) -> None:
        self._calls: Calls = _CallsAboutKeys(authority)
        self._key_ring = authority.key_ring
        self._reading = authority.reading

    @changing(pb.AddSealingKeyResponse)
    def AddSealingKey(self, call: Call, request: pb.AddSealingKeyRequest) -> Change[KeyChanged]:
        """Add a key."""
        return Change(lambda reply: self._key_ring.add(call, reply, local=request.local), self._fill, _note)

    @changing(pb.PromoteSealingKeyResponse)
    def PromoteSealingKey(self, call: Call, request: pb.PromoteSealingKeyRequest) -> Change[KeyChanged]:
        """Make a key the sealing key."""
        fingerprint = decode.fingerprint(request.fingerprint, optional=True)
        return Change(lambda reply: self._key_ring.promote(call, fingerprint, reply), self._fill, _note)

    @changing(pb.RetireSealingKeyResponse)
    def RetireSealingKey(self, call: Call, request: pb.RetireSealingKeyRequest) -> Change[KeyChanged]:
        """Begin to retire a key."""
        fingerprint, log_out = decode.fingerprint(request.fingerprint), request.log_out_sessions
        return Change(lambda reply: self._key_ring.retire(call, fingerprint, reply, log_out=log_out), self._fill, _note)

    async def GetKeyRing(self, request: pb.GetKeyRingRequest, _: Caller) -> pb.GetKeyRingResponse:
        """Return the key ring."""
        await self._reading.wait_for(self._calls.at_least(request.at_least))
        return encode.ring_message(await self._key_ring.describe())

    def _fill(self, response: Any, changed: KeyChanged) -> None:
        response.key.CopyFrom(encode.key_message(changed.key))
        response.consistency_token = self._calls.consistency_token(changed.revision)


def _note(trail: Trail, changed: KeyChanged) -> None:
    trail.note("", f"key {short(changed.key.fingerprint)} {changed.key.state.value}", 1)
