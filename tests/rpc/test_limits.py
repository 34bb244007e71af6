"""Limits on calls over gRPC, by a clock that is set by hand: refusals, their details, weights, streams, reloads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sessiond.access.callers import Callers
from sessiond.access.limits import CallLimiter
from sessiond.app import App, rpc_server
from sessiond.domain.call_limits import CallLimit, CallLimits
from sessiond.domain.values import Millis
from sessiond_client import AsyncClient, Grant, Role
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, config_for, serving, stub_for, transport
from tests.support.validation_streams import batches

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
VALIDATOR = [Grant(role=Role.VALIDATOR), Grant(role=Role.OPERATOR), Grant(role=Role.SUBSCRIBER)]
loose: Any = pb


class Limited:
    """A server whose limits count by the time in `now`, in seconds."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.limiter = CallLimiter(clock=lambda: round(self.now * 1e9))
        self.address = ""


@asynccontextmanager
async def limited(app: App, limits: CallLimits) -> AsyncIterator[Limited]:
    """Serve the authority of `app` at another address, with these limits."""
    found = Limited()
    found.limiter.replace(limits)
    server = rpc_server(app.authority, callers=Callers(app._book), transport=transport(), limiter=found.limiter)
    found.address = await server.start("127.0.0.1:0")
    try:
        yield found
    finally:
        await server.stop(0)


async def refused(call: Awaitable[Any]) -> tuple[str, float, str]:
    """How a call is refused because of a limit: its setting, the seconds to wait, and the text."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    error = raised.value
    assert error.code() is EXHAUSTED
    status = rpc_status.from_call(error)
    assert status is not None
    retry, info = error_details_pb2.RetryInfo(), error_details_pb2.ErrorInfo()
    assert sum(detail.Unpack(retry) for detail in status.details) == 1
    assert sum(detail.Unpack(info) for detail in status.details) == 1
    assert (info.reason, info.domain) == ("LIMIT_REACHED", "sessiond")
    wait = retry.retry_delay.ToTimedelta() / timedelta(seconds=1)
    return info.metadata["setting"], wait, error.details() or ""


async def token_of(app: App) -> str:
    """The token of a new session, opened at an address without limits."""
    async with stub_for(app.address) as stub:
        return (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))).token


def asked(stub: AsyncStub, token: str, **more: Any) -> Awaitable[pb.ValidateSessionResponse]:
    """A validation."""
    return stub.ValidateSession(pb.ValidateSessionRequest(token=token), **more)


async def count_valid(stub: AsyncStub, token: str, most: int = 100) -> int:
    """How many validations succeed before one is refused."""
    for number in range(most):
        if await code_of(asked(stub, token)) is not grpc.StatusCode.OK:
            return number
    return most


async def code_of(call: Awaitable[pb.ValidateSessionResponse]) -> grpc.StatusCode:
    """OK if a validation says VALID; RESOURCE_EXHAUSTED if it is refused."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        if error.code() is not EXHAUSTED:
            raise
        return EXHAUSTED
    assert answer.verdict == pb.VERDICT_VALID
    return grpc.StatusCode.OK


async def test_a_rate_over_grpc(app: App) -> None:
    """Beyond its rate a call is refused, says which setting and when to retry, and succeeds at that time."""
    token = await token_of(app)
    async with limited(app, CallLimits(CallLimit(rate=10))) as server, stub_for(server.address) as stub:
        assert await count_valid(stub, token) == 10
        setting, wait, text = await refused(asked(stub, token))
        assert setting == "limits.rate_per_caller"
        assert "makes more than 10 calls a second (limits.rate_per_caller); try again in" in text
        assert 0 < wait <= 0.3
        server.now += wait
        assert (await asked(stub, token)).verdict == pb.VERDICT_VALID


async def test_calls_at_once_over_grpc(app: App) -> None:
    """A stream counts as a call for as long as it lasts; a call beyond the limit is refused until it has ended."""
    token = await token_of(app)
    async with limited(app, CallLimits(CallLimit(max_calls=2))) as server, stub_for(server.address) as stub:
        streams = [stub.Subscribe(pb.SubscribeRequest()) for _ in range(2)]
        for stream in streams:
            await stream.read()
        setting, wait, _ = await refused(asked(stub, token))
        assert (setting, wait) == ("limits.max_calls_per_caller", 0.2)
        streams[0].cancel()
        async with asyncio.timeout(20):
            while await count_valid(stub, token, 3) < 3:  # noqa: ASYNC110 - the server learns of the end by itself
                await asyncio.sleep(0.01)
        (account,) = server.limiter._callers.values()
        assert account.in_flight == 1


async def test_nothing_stays_counted(app: App) -> None:
    """Calls that fail, are refused, are cancelled or never send their message do not count after their end."""
    token = await token_of(app)
    async with limited(app, CallLimits(CallLimit(max_calls=50))) as server, stub_for(server.address) as stub:
        for _ in range(60):
            assert (await asked(stub, token)).verdict == pb.VERDICT_VALID
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.GetSession(pb.GetSessionRequest())
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Subscribe(loose.SubscribeRequest(cursor="bad")).read()
            stub.CreateSession(pb.CreateSessionRequest(subject="ada")).cancel()
            stub.Subscribe(pb.SubscribeRequest()).cancel()
        (account,) = server.limiter._callers.values()
        async with asyncio.timeout(20):
            while account.in_flight:  # noqa: ASYNC110 - the server learns of cancellations by itself
                await asyncio.sleep(0.01)


async def test_a_batch_counts_its_tokens(app: App) -> None:
    """A batch counts as many calls as it has tokens, and a list by the size of its page."""
    token = await token_of(app)
    batch = loose.ValidateSessionsRequest(requests=[{"token": token}] * 50)
    async with limited(app, CallLimits(CallLimit(rate=10))) as server, stub_for(server.address) as stub:
        assert len((await stub.ValidateSessions(batch)).responses) == 50
        _, wait, _ = await refused(asked(stub, token))
        assert wait == pytest.approx(4.1, abs=0.01)
        server.now += 100
        await stub.ListSessions(loose.ListSessionsRequest(filter={"subject": "ada"}, page_size=190))
        _, wait, _ = await refused(asked(stub, token))
        assert wait == pytest.approx(1.1, abs=0.01)


async def test_a_stream_counts_its_requests(app: App) -> None:
    """On a stream of validations each request counts; those beyond the rate fail by themselves, each with its time."""
    token = await token_of(app)
    async with (
        limited(app, CallLimits(CallLimit(rate=10), burst=Millis(1_000))) as server,
        stub_for(server.address) as stub,
        batches(stub) as stream,
    ):
        answers = await stream.ask(1, *[{"token": token}] * 30)
        valid = [one for one in answers if isinstance(one, pb.ValidateSessionResponse)]
        failures = [one for one in answers if isinstance(one, pb.ValidationFailure)]
        assert len(valid) == 9  # the stream itself counts as a call
        assert {one.code for one in failures} == {EXHAUSTED.value[0]}
        waits = []
        for failure in failures:
            retry = error_details_pb2.RetryInfo()
            assert any(detail.Unpack(retry) for detail in failure.details)
            waits.append(retry.retry_delay.ToMilliseconds())
        assert waits == [pytest.approx(100 * number, abs=2) for number in range(1, 22)]
        server.now += 1
        assert len([one for one in await stream.ask(2, *[{"token": token}] * 30) if hasattr(one, "verdict")]) == 10


async def test_each_caller_by_itself(app: App) -> None:
    """Two callers on one connection have limits of their own; one with a section of its own has those."""
    token = await token_of(app)
    async with AsyncClient(app.address) as anyone:
        ops = await anyone.create_caller("ops", [Grant(role=Role.ADMIN)])
    async with AsyncClient(app.address, key=ops.key) as admin:
        keys = [(await admin.create_caller(name, VALIDATOR)).key for name in ("shop", "desk")]
    metadata = [[("authorization", f"Bearer {key.reveal()}")] for key in keys]
    limits = CallLimits(CallLimit(rate=3), callers=MappingProxyType({"desk": CallLimit(rate=5)}))
    async with limited(app, limits) as server, stub_for(server.address) as stub:
        answered = {}
        for name, own in zip(("shop", "desk"), metadata, strict=True):
            codes = [await code_of(asked(stub, token, metadata=own)) for _ in range(10)]
            answered[name] = codes.count(grpc.StatusCode.OK)
            _, _, text = await refused(asked(stub, token, metadata=own))
            assert f'caller "{name}" makes more than' in text
        assert answered == {"shop": 3, "desk": 5}


async def test_each_application_by_itself(app: App) -> None:
    """All callers of an application share its rate, whether a request is new or repeated, alone or in a batch."""
    token = await token_of(app)
    async with (
        limited(app, CallLimits(application=CallLimit(rate=10))) as server,
        stub_for(server.address) as one,
        stub_for(server.address) as two,
    ):
        assert await count_valid(one, token, 6) == 6
        assert await count_valid(two, token) == 4
        setting, wait, text = await refused(asked(one, token))
        assert (setting, text.split(" makes")[0]) == ("limits.rate_per_application", 'application "default"')
        assert wait == pytest.approx(0.2, abs=0.002)  # the call refused before is first
        server.now += 0.101
        async with batches(two) as stream:
            (answer,) = await stream.ask(1, {"token": token})
            assert answer.verdict == pb.VERDICT_VALID
            (failure,) = await stream.ask(2, {"token": token})
            assert "limits.rate_per_application" in failure.message
        assert (await one.GetAuthority(pb.GetAuthorityRequest())).applications
        await refused(one.ValidateSessions(loose.ValidateSessionsRequest(requests=[{"token": token}])))


async def test_a_refused_change_has_not_begun(app: App) -> None:
    """A call that is refused because of a limit changes nothing."""
    async with limited(app, CallLimits(CallLimit(rate=1))) as server, stub_for(server.address) as stub:
        await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))
        before = app.authority.parts.feed.revision
        for _ in range(20):
            await refused(stub.CreateSession(pb.CreateSessionRequest(subject="ada")))
        assert app.authority.parts.feed.revision == before


async def test_health_checks_are_not_limited(app: App) -> None:
    """Orchestrators need no key and have no limit, so that a limit never makes a server look dead."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with (
        limited(app, CallLimits(CallLimit(max_calls=1, rate=1))) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        for _ in range(20):
            found = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert found.status == health_pb2.HealthCheckResponse.SERVING


async def test_reloaded_limits(tmp_path: Path, clock: ManualClock) -> None:
    """A reload puts other limits in force for open connections, and the log has one line for the refused caller."""
    config = config_for(tmp_path, "[limits]\nrate_per_caller = 1\nburst = '1m'\n")
    async with serving(config, clock) as app, stub_for(app.address) as stub:
        token = (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))).token
        with structlog.testing.capture_logs() as lines:
            assert await count_valid(stub, token) == 59
            for _ in range(10):
                await refused(asked(stub, token))
        assert [line["event"] for line in lines] == ["limit reached"]
        assert lines[0]["setting"] == "limits.rate_per_caller"
        done = await app.reload(config_for(tmp_path, "[limits]\nrate_per_caller = 1\nburst = '1m'\n"))
        assert not done.limits_changed
        done = await app.reload(config_for(tmp_path, "[limits]\nrate_per_caller = 0\n"))
        assert done.limits_changed
        assert await count_valid(stub, token) == 100
