"""The service without a transport: the calls of the contract with messages as arguments and results."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from sessiond.app import services_of
from sessiond.authority.authority import Authority
from sessiond.domain.call import Caller
from sessiond.rpc.giving_way import UnaryCalls
from sessiond.rpc.stream_limit import StreamBounds
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["Service"]

_METHODS = pb.DESCRIPTOR.services_by_name["SessionAuthority"].methods_by_name
_SITE = Caller("site")


class Service:
    """What a server does with a call between parsing its bytes and serializing the response."""

    def __init__(self, authority: Authority) -> None:
        self._services = services_of(authority, StreamBounds(write_timeout=1.0), UnaryCalls())

    async def ask(self, method: str, message: Message) -> Any:
        """Make a unary call."""
        handler = next(getattr(one, method) for one in self._services if hasattr(one, method))
        answer = await handler(message, _SITE)
        if isinstance(answer, bytes):  # as it is stored for retries
            answer = getattr(pb, _METHODS[method].output_type.name).FromString(answer)
        return answer

    def fast_path(self, message: pb.ValidateSessionRequest) -> pb.ValidateSessionResponse | None:
        """Try the fast path, as a server does before it parses a validation's message."""
        return self._services[0].fast_path(_SITE, message.SerializeToString())
