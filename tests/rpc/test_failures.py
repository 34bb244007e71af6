"""What a caller learns of a failure of ours: the id of the call, by which the log has it, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from structlog.testing import capture_logs

from sessiond.app import App
from sessiond.sidecar.upstream import Upstream
from sessiond_client import AsyncClient, InternalError
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.server import AsyncStub, stub_for
from tests.support.sidecars import beside
from tests.support.validation_streams import batches

SECRET = "text that only the log may show"
REQUEST = pb.ListActivityRequest(application="default", subject="ada")


async def fail(*_: Any, **__: Any) -> None:
    """Fail as a bug would."""
    raise RuntimeError(SECRET)


def call_id_in(error: grpc.aio.AioRpcError) -> str:
    """Return the call id of a failure, which message and details agree on."""
    assert error.code() is grpc.StatusCode.INTERNAL
    assert SECRET not in str(error)
    found = re.fullmatch(r"internal error; the server's log has it as call (\w+)", error.details() or "")
    assert found is not None
    status, info = rpc_status.from_call(error), error_details_pb2.RequestInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    assert info.request_id == found[1]
    return found[1]


async def test_the_id_of_a_failed_call(app: App, stub: AsyncStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller gets the id of the log line that has the traceback, a new one for each call."""
    monkeypatch.setattr(app.authority.parts.store, "activity", fail)
    ids = []
    with capture_logs() as lines:
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.ListActivity(REQUEST)
            ids.append(call_id_in(raised.value))
    failures = [line for line in lines if line["event"] == "call failed"]
    assert [line["call_id"] for line in failures] == ids
    assert len(set(ids)) == 2
    assert all(line["rpc"] == "ListActivity" and line["exc_info"] for line in failures)


async def test_the_python_client_shows_it(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the Python client has the id, in its text too."""
    monkeypatch.setattr(app.authority.parts.store, "activity", fail)
    async with AsyncClient(app.address) as client:
        with pytest.raises(InternalError, match=r"as call \w+$") as raised:
            [event async for event in client.activity(subject="ada")]
    assert raised.value.call_id
    assert str(raised.value).endswith(f" {raised.value.call_id}")


async def test_one_validation_of_a_stream(app: App, stub: AsyncStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each validation of a stream that fails has an id of its own; the others are answered."""
    monkeypatch.setattr(app.authority.validation, "judge", fail)
    token = (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))).token
    with capture_logs() as lines:
        async with batches(stub) as stream:
            # With its data: the answer needs more than memory.
            asked = {"token": token, "data": {}}
            failed, again, refused = await stream.ask(1, asked, asked, {"token": "no token"})
    first, second = [line["call_id"] for line in lines if line["event"] == "call failed"]
    assert second == f"{first}.2"
    for failure, found in ((first, failed), (second, again)):
        assert isinstance(found, pb.ValidationFailure)
        assert found.message == f"internal error; the server's log has it as call {failure}"
        assert found.code == grpc.StatusCode.INTERNAL.value[0]
    assert isinstance(refused, pb.ValidateSessionResponse)


async def test_a_failure_of_a_sidecar(tmp_path: Path, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sidecar that fails itself says so in the same way."""
    async with beside(app.address, tmp_path) as sidecar, stub_for(sidecar.address) as stub:
        monkeypatch.setattr(Upstream, "ask", fail)
        with capture_logs() as lines, pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ListActivity(REQUEST)
    failures = [line["call_id"] for line in lines if line["event"] == "call failed"]
    assert failures == [call_id_in(raised.value)]
