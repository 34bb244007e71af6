"""The outer layer of the service: its status table, what it never reveals, and the standard services."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sessiond.access.callers import Callers
from sessiond.app import App
from sessiond.domain import errors
from sessiond.rpc.health import SERVICE
from sessiond.rpc.server import RpcServer
from sessiond.rpc.service.calls import Calls
from sessiond.rpc.service.logins import LoginService
from sessiond.rpc.status import STATUS, status_of
from sessiond.store.contract import StoreFailed, StoreUnavailable
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.rpc.refusals import first_of, refusal_of
from tests.support.server import stub_for, transport

loose: Any = pb


def leaves(kind: type[Exception]) -> set[type[Exception]]:
    """Return all subclasses, recursively."""
    return {kind}.union(*(leaves(child) for child in kind.__subclasses__())) if kind.__subclasses__() else {kind}


def test_every_exception_has_its_row() -> None:
    """Each exception of the domain is in the status table, and the table contains nothing else."""
    kinds = {kind for kind in leaves(errors.AuthorityError) if kind.__module__ == errors.__name__}
    assert (kinds | {errors.Unavailable}) - {errors.AuthorityError} == set(STATUS)


@pytest.mark.parametrize("kind", [StoreFailed, StoreUnavailable])
def test_a_store_that_fails_is_unavailable(kind: type[errors.Unavailable]) -> None:
    """A store's failures are UNAVAILABLE, say when to retry, and do not reveal the location of the store."""
    status = status_of(kind("/var/lib/sessiond/sessiond.db: disk I/O error"))
    assert status.code is grpc.StatusCode.UNAVAILABLE
    assert "sessiond.db" not in status.details
    parsed = status_pb2.Status.FromString(dict(status.trailing_metadata)["grpc-status-details-bin"])
    assert any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in parsed.details)


def test_no_row_is_internal() -> None:
    """No exception that a caller may see is INTERNAL, UNKNOWN or OK."""
    assert not {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.OK} & set(STATUS.values())


class BrokenService:
    """A service with deliberate faults, which takes precedence over the real ones."""

    async def GetAuthority(self, *_: Any) -> Any:  # noqa: N802 - the contract's name
        """Raise an unexpected exception."""
        raise RuntimeError("the inner secret")

    async def Subscribe(self, *_: Any) -> Any:  # noqa: N802 - the contract's name
        """Raise an unexpected exception."""
        raise KeyError("the inner secret")


async def test_an_internal_exception_never_shows(app: App) -> None:
    """An unexpected exception is INTERNAL, for calls and for streams; its text is not sent, and the server lives on."""
    calls_of = Calls(app.authority)
    server = RpcServer(
        (BrokenService(), LoginService(calls_of, app.authority.logins)), Callers(), transport=transport()
    )
    address = await server.start("127.0.0.1:0")
    try:
        async with stub_for(address) as stub:
            calls: list[Any] = [
                stub.GetAuthority(pb.GetAuthorityRequest()),
                first_of(stub, pb.SubscribeRequest()),
            ]
            for call in calls:
                refused = await refusal_of(call)
                assert refused.code == grpc.StatusCode.INTERNAL
                assert "secret" not in refused.message
                assert "RuntimeError" not in refused.message
            assert (await stub.CreateSession(pb.CreateSessionRequest())).token
    finally:
        await server.stop(0)


async def test_a_call_outside_the_contract_is_unimplemented(app: App) -> None:
    """A call that is not in the contract is UNIMPLEMENTED."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        method: Any = channel.unary_unary(f"/{SERVICE}/DropEverything")
        assert (await refusal_of(method(b""))).code == grpc.StatusCode.UNIMPLEMENTED


async def test_health_says_serving(app: App) -> None:
    """The standard health check reports SERVING, for the server and for the service by its name."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        refused = await refusal_of(health.Check(health_pb2.HealthCheckRequest(service="other")))
        assert refused.code == grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_service(app: App) -> None:
    """Server reflection lists the service, the health service, and itself."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        answers = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        names = [service.name async for answer in answers for service in answer.list_services_response.service]
    assert {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= set(names)
