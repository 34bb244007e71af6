"""Every request of the contract, at its boundaries and malformed, is answered or refused by a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from sessiond.app import App
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.fuzz.boundaries import boundary_requests, filled, malformed_requests
from tests.rpc.test_decode_fuzz import CONFIG, REFUSALS, known_texts
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, config_for, serving, sqlite_of

pytestmark = pytest.mark.slow
SERVICE = pb.DESCRIPTOR.services_by_name["SessionAuthority"]
ALLOWED = REFUSALS | {grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.PERMISSION_DENIED}
REPEATED = 3
PATIENCE = 30.0


class Sender:
    """Sends raw bytes as requests of one method, as the caller `ops`, and says what is wrong with the answer."""

    def __init__(self, app: App, channel: grpc.aio.Channel, method: Any, key: str) -> None:
        self._app = app
        self._metadata = [("authorization", f"Bearer {key}")]
        self._streams = method.server_streaming
        kind = channel.stream_stream if method.server_streaming else channel.stream_unary
        self._call: Any = kind(f"/{SERVICE.full_name}/{method.name}")

    async def changes(self) -> int:
        """Return how many rows the store has written so far."""
        found: int = await sqlite_of(self._app)._db.run(lambda raw: raw.total_changes)
        return found

    async def status(self, raw: bytes) -> grpc.StatusCode:
        """Make one call; of a stream, read the first message."""
        call = self._call(iter([raw]), metadata=self._metadata, timeout=PATIENCE)
        try:
            if not self._streams:
                await call
                return grpc.StatusCode.OK
            if await call.read() is not grpc.aio.EOF:
                return grpc.StatusCode.OK
            code: grpc.StatusCode = await call.code()
            return code
        except grpc.aio.AioRpcError as error:
            return error.code()
        finally:
            call.cancel()

    async def fault(self, raw: bytes) -> str:
        """Return what is wrong; empty if nothing is. A refused call must not write anything."""
        # What an earlier call has left to be written may be written meanwhile, so only what happens each time counts.
        for _ in range(REPEATED):
            before = await self.changes()
            status = await self.status(raw)
            if status is grpc.StatusCode.OK:
                return ""
            if status not in ALLOWED:
                return str(status)
            if await self.changes() == before:
                return ""
        return f"{status}, and the store was changed"


@pytest.fixture
async def app(tmp_path: Path, clock: ManualClock) -> AsyncIterator[App]:
    async with serving(config_for(tmp_path, CONFIG), clock) as app:
        app._sweeping.cancel()  # it writes activity behind, which is no change by a call
        yield app


async def admin_key(stub: AsyncStub) -> str:
    """Add the caller `ops`, and return its key."""
    loose: Any = pb
    grants = [{"application": "*", "role": pb.ROLE_ADMIN}]
    return str((await stub.CreateCaller(loose.CreateCallerRequest(name="ops", grants=grants))).key)


def requests(method: Any, texts: Any) -> Iterator[tuple[str, bytes]]:
    """Yield all requests of a method: from an empty one, and from one with plausible fields."""
    whole = filled(method.input_type, texts)
    for base in (type(whole)(), whole):
        yield from boundary_requests(method.input_type, base)
        yield from malformed_requests(method.input_type, base)


@pytest.mark.parametrize("method", list(SERVICE.methods), ids=lambda method: method.name)
async def test_requests_at_their_boundaries(app: App, stub: AsyncStub, method: Any) -> None:
    """Each is answered or refused: never INTERNAL or UNKNOWN, no error in the log, and the store unchanged if refused.
    That a fault is noticed is shown below.
    """
    texts = {**await known_texts(stub), "name": ["other"]}
    sender_key = await admin_key(stub)
    count, faults = 0, []
    async with grpc.aio.insecure_channel(app.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        sender = Sender(app, channel, method, sender_key)
        with capture_logs() as lines:
            for label, raw in requests(method, texts):
                count += 1
                if fault := await sender.fault(raw):
                    faults.append(f"{label}: {fault}")
    assert faults == []
    assert [line for line in lines if line["log_level"] in ("error", "critical")] == []
    assert count > 20


async def test_faults_are_noticed(app: App, stub: AsyncStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that raises is noticed as a fault and in the log, and so is a refusal that has written something."""
    key = await admin_key(stub)
    method = SERVICE.methods_by_name["CreateSession"]
    raw = pb.CreateSessionRequest(subject="ada").SerializeToString()
    async with grpc.aio.insecure_channel(app.address) as channel:
        sender = Sender(app, channel, method, key)
        assert await sender.fault(raw) == ""
        status = sender.status

        async def refused(given: bytes) -> grpc.StatusCode:
            await status(given)
            return grpc.StatusCode.INVALID_ARGUMENT

        monkeypatch.setattr(sender, "status", refused)
        assert "the store was changed" in await sender.fault(raw)
        monkeypatch.setattr(sender, "status", status)

        def broken(*_: Any) -> Any:
            raise RuntimeError("a fault")

        monkeypatch.setattr("sessiond.rpc.handlers.parse", broken)
        with capture_logs() as lines:
            assert await sender.fault(raw) == "StatusCode.INTERNAL"
        assert [line["event"] for line in lines if line["log_level"] == "error"] == ["call failed"]
