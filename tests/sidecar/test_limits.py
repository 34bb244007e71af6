"""Limits on calls behind a sidecar and behind workers: they hold for each caller, and refusals arrive intact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sessiond.app import App
from sessiond.domain.call_limits import CallLimit, CallLimits
from sessiond_client import AsyncClient, Grant, ResourceExhausted, Role
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.sidecar.test_callers import VALIDATOR, administered, key_file, with_key
from tests.support.server import AsyncStub, ServerProcess, stub_for
from tests.support.sidecars import beside, is_open, until

ISSUER = [Grant(role=Role.ISSUER)]
LISTING = pb.ListActivityRequest(subject="ada")


async def setting_of(stub: AsyncStub, metadata: Any) -> str | None:
    """The setting that a call is refused because of; None: it is not refused."""
    try:
        await stub.ListActivity(LISTING, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017 - any other one is not what is asked
        status = rpc_status.from_call(error)
        assert status is not None
        retry, info = error_details_pb2.RetryInfo(), error_details_pb2.ErrorInfo()
        assert sum(detail.Unpack(retry) for detail in status.details) == 1
        assert sum(detail.Unpack(info) for detail in status.details) == 1
        assert retry.retry_delay.ToMilliseconds() > 0
        return str(info.metadata["setting"])
    return None


async def test_each_caller_behind_a_sidecar(app: App, tmp_path: Path) -> None:
    """A caller that floods the authority through a sidecar is refused, with all details; another one there is not."""
    async with administered(app.address) as admin:
        own = await admin.create_caller("near", VALIDATOR)
        shop, desk = [await admin.create_caller(name, ISSUER) for name in ("shop", "desk")]
        async with (
            beside(app.address, tmp_path, key_file=str(key_file(tmp_path, own))) as sidecar,
            stub_for(sidecar.address) as stub,
        ):
            await until(lambda: is_open(sidecar))
            app._limiter.replace(CallLimits(CallLimit(rate=10)))
            found = [await setting_of(stub, with_key(shop)) for _ in range(40)]
            assert set(found) == {None, "limits.rate_per_caller"}
            assert [await setting_of(stub, with_key(desk)) for _ in range(5)] == [None] * 5
            app._limiter.replace(CallLimits(CallLimit(rate=1)))
            async with AsyncClient(sidecar.address, key=shop.key, retries=0) as client:
                with pytest.raises(ResourceExhausted, match='caller "shop" makes more than 1 calls a second') as raised:
                    await client.create(subject="ada")
            assert raised.value.setting == "limits.rate_per_caller"


async def test_each_connection_to_a_worker(tmp_path: Path) -> None:
    """Without callers, limits hold for each connection of a client to a worker, not for the worker as a whole."""
    (tmp_path / "sessiond.toml").write_text("[limits]\nrate_per_caller = 10\n", encoding="utf-8")
    server = ServerProcess(tmp_path, "--config", str(tmp_path / "sessiond.toml"), "--workers", "1")
    try:
        address = await server.address()
        async with stub_for(address) as one, stub_for(address) as two:
            found = [await setting_of(one, ()) for _ in range(40)]
            assert "limits.rate_per_caller" in found
            assert [await setting_of(two, ()) for _ in range(5)] == [None] * 5
        assert server.log().count('"limit reached"') == 1
    finally:
        server.kill()
