"""Calls about session data."""

from __future__ import annotations

from sessiond.authority.data import SessionData
from sessiond.authority.question import DataRequest
from sessiond.authority.reading import Reading
from sessiond.authority.results import ChangeResult
from sessiond.domain.call import Call, Caller
from sessiond.rpc import decode, encode
from sessiond.rpc.service.calls import Calls, Change, changing, note_change
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["DataService"]


class DataService:
    """The calls GetSessionData and UpdateSessionData."""

    def __init__(self, calls: Calls, data: SessionData, reading: Reading) -> None:
        self._calls = calls
        self._data = data
        self._reading = reading

    async def GetSessionData(self, request: pb.GetSessionDataRequest, caller: Caller) -> pb.GetSessionDataResponse:
        """Return a session's data."""
        call, named = self._calls.of(request, caller), decode.named_session(request.session)
        wanted = DataRequest(decode.data_keys("keys", request.keys))
        await self._reading.wait_for(self._calls.at_least(request.at_least))
        verdict, data = await self._data.read(call, named, wanted)
        response = pb.GetSessionDataResponse(verdict=encode.VERDICT[verdict])
        if data is not None:
            response.version = data.version
            for key, value in data.values.items():
                response.data[key] = value
        return response

    @changing(pb.UpdateSessionDataResponse)
    def UpdateSessionData(self, call: Call, request: pb.UpdateSessionDataRequest) -> Change[ChangeResult]:
        """Change a session's data."""
        named, changes = decode.named_session(request.session), decode.data_changes(request)
        expected = request.expected_version if request.HasField("expected_version") else None
        wanted = decode.data_request(request.data) if request.HasField("data") else None

        def fill(response: pb.UpdateSessionDataResponse, changed: ChangeResult) -> None:
            response.verdict = encode.VERDICT[changed.verdict]
            response.consistency_token = self._calls.consistency_token(changed.revision)
            if changed.session is not None:
                response.version = changed.session.data_version
            if changed.data is not None:
                encode.fill_data(response.data, changed.data)

        return Change(
            lambda reply: self._data.update(call, named, changes, reply, expected_version=expected, wanted=wanted),
            fill,
            note_change,
        )
