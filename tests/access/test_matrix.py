"""Who may call what: every RPC against every role, with and without credentials, written out as a table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.auth.v3 import external_auth_pb2
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest
from envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sessiond.app import App
from sessiond.domain.access import EVERYTHING, RULES, Role, Rule, may
from sessiond.rpc.authorization import authorize
from sessiond_client import AsyncClient, Grant
from sessiond_client import Role as ClientRole
from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

SERVICE = pb.DESCRIPTOR.services_by_name["SessionAuthority"]
CHECK = external_auth_pb2.DESCRIPTOR.services_by_name["Authorization"]
METHODS = (*SERVICE.methods, *CHECK.methods)
ROLES = ("validator", "issuer", "subscriber", "operator", "admin")
SESSION_ID = "0197b5a0-0000-7000-8000-000000000000"

# v: validator, i: issuer, s: subscriber, o: operator, a: admin of the application, A: admin of all applications.
TABLE: dict[str, tuple[Any, str]] = {
    "CreateSession": (pb.CreateSessionRequest(application="shop"), "iaA"),
    "ValidateSession": (pb.ValidateSessionRequest(application="shop", token="t"), "viaA"),
    "ValidateSessions": (
        pb.ValidateSessionsRequest(requests=[pb.ValidateSessionRequest(application="shop", token="t")]),
        "viaA",
    ),
    "StreamValidations": (
        pb.StreamValidationsRequest(requests=[pb.ValidateSessionRequest(application="shop", token="t")]),
        "viaA",
    ),
    "AuthenticateSession": (pb.AuthenticateSessionRequest(application="shop", token="t", subject="s"), "iaA"),
    "RollSession": (pb.RollSessionRequest(application="shop", token="t"), "iaA"),
    "RefreshSession": (pb.RefreshSessionRequest(application="shop", token="t"), "iaA"),
    "RevokeSession": (
        pb.RevokeSessionRequest(application="shop", session=pb.SessionReference(session_id=SESSION_ID)),
        "oaA",
    ),
    "RevokeSession by token": (
        pb.RevokeSessionRequest(application="shop", session=pb.SessionReference(token="t")),
        "ioaA",
    ),
    "RevokeSession of a subject": (
        pb.RevokeSessionRequest(application="shop", session=pb.SessionReference(session_id=SESSION_ID), subject="s"),
        "ioaA",
    ),
    "RevokeSession of nobody": (
        pb.RevokeSessionRequest(application="shop", session=pb.SessionReference(session_id=SESSION_ID), subject=""),
        "oaA",
    ),
    "RevokeSessions": (pb.RevokeSessionsRequest(application="shop", whole_application=True), "oaA"),
    "RevokeSessions of a subject": (
        pb.RevokeSessionsRequest(application="shop", filter=pb.SessionFilter(subject="s")),
        "ioaA",
    ),
    "RevokeSessions of guests": (
        pb.RevokeSessionsRequest(application="shop", filter=pb.SessionFilter(subject="")),
        "oaA",
    ),
    "GetSession": (
        pb.GetSessionRequest(application="shop", session=pb.SessionReference(session_id=SESSION_ID)),
        "vioaA",
    ),
    "ListSessions": (pb.ListSessionsRequest(application="shop"), "oaA"),
    "ListSessions of a subject": (
        pb.ListSessionsRequest(application="shop", filter=pb.SessionFilter(subject="s")),
        "ioaA",
    ),
    "GetSessionData": (
        pb.GetSessionDataRequest(application="shop", session=pb.SessionReference(session_id=SESSION_ID)),
        "oaA",
    ),
    "GetSessionData by token": (
        pb.GetSessionDataRequest(application="shop", session=pb.SessionReference(token="t")),
        "vioaA",
    ),
    "UpdateSessionData": (
        pb.UpdateSessionDataRequest(
            application="shop", session=pb.SessionReference(session_id=SESSION_ID), set={"k": b"v"}
        ),
        "oaA",
    ),
    "UpdateSessionData by token": (
        pb.UpdateSessionDataRequest(application="shop", session=pb.SessionReference(token="t"), set={"k": b"v"}),
        "ioaA",
    ),
    "IssueCompanionToken": (pb.IssueCompanionTokenRequest(application="shop", token="t", purpose="p"), "iaA"),
    "ListActivity": (pb.ListActivityRequest(application="shop", subject="s"), "ioaA"),
    "ReportSignal": (
        pb.ReportSignalRequest(application="shop", session=pb.SessionReference(session_id=SESSION_ID)),
        "ioaA",
    ),
    "ListSourceLocks": (pb.ListSourceLocksRequest(application="shop"), "oaA"),
    "ClearSourceLock": (pb.ClearSourceLockRequest(application="shop", source="192.0.2.0/24"), "oaA"),
    "Subscribe": (pb.SubscribeRequest(filter=pb.EventFilter(applications=["shop"])), "saA"),
    "Subscribe to all": (pb.SubscribeRequest(), "A"),
    "Follow": (pb.FollowRequest(start=pb.FollowStart(applications=["shop"])), "vaA"),
    "Follow all": (pb.FollowRequest(start=pb.FollowStart()), "A"),
    "GetAuthority": (pb.GetAuthorityRequest(), "visoaA"),
    "CreateCaller": (pb.CreateCallerRequest(), "A"),
    "ListCallers": (pb.ListCallersRequest(), "A"),
    "RotateCaller": (pb.RotateCallerRequest(name="nobody"), "A"),
    "RevokeCaller": (pb.RevokeCallerRequest(name="nobody"), "A"),
    "UpdateCallerCertificates": (pb.UpdateCallerCertificatesRequest(name="nobody", add=["nobody.example"]), "A"),
    "Check": (
        CheckRequest(attributes={"context_extensions": {"application": "shop"}, "request": {"http": {"path": "/"}}}),
        "viaA",
    ),
    "GetKeyRing": (pb.GetKeyRingRequest(), "A"),
    "AddSealingKey": (pb.AddSealingKeyRequest(), "A"),
    "PromoteSealingKey": (pb.PromoteSealingKeyRequest(fingerprint="00000000"), "A"),
    "RetireSealingKey": (pb.RetireSealingKeyRequest(fingerprint="00000000"), "A"),
    "StreamBackup": (pb.StreamBackupRequest(), "A"),
}
LETTERS = dict(zip("visoa", ("VALIDATOR", "ISSUER", "SUBSCRIBER", "OPERATOR", "ADMIN"), strict=True))
DENIED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


def test_the_table_has_every_rpc() -> None:
    """The table lists every RPC of the contract and of Envoy's, and so do the rules."""
    names = {method.name for method in METHODS}
    assert {name.split()[0] for name in TABLE} == names
    assert RULES.keys() == names


def test_an_rpc_without_a_rule_is_denied() -> None:
    """An RPC that somebody adds without a rule is denied to everyone, an admin for everything included."""
    assert not may(EVERYTHING, RULES.get("NewCall"), ["shop"])
    assert may(EVERYTHING, Rule(frozenset({Role.ADMIN})), ["shop"])


async def status(stub: Any, name: str, request: Any, metadata: Any) -> grpc.StatusCode:
    """The status of one call. A stream that is served counts as OK once something comes."""
    method = next(method for method in METHODS if method.name == name.split()[0])
    send = getattr(stub, method.name)
    call = send(iter([request]), metadata=metadata) if method.client_streaming else send(request, metadata=metadata)
    try:
        if method.server_streaming:
            if await call.read() is grpc.aio.EOF:
                return await call.code()  # type: ignore[no-any-return]  # generated stubs have no types for it
            call.cancel()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def served_by(address: str, metadata: Any = ()) -> set[str]:
    """The calls of the table that an address serves to a caller with this metadata.

    A call is repeated until it is served or denied. A stream whose caller is refused while it sends its first message
    ends with UNAVAILABLE or, by grpcio itself, with INTERNAL, instead of with the refusal.
    """
    undecided = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
    served = set()
    async with calls_to(address) as stub:
        for name, (request, _) in TABLE.items():
            while (found := await status(stub, name, request, metadata)) in undecided:
                continue
            if found not in (*DENIED, grpc.StatusCode.UNIMPLEMENTED):
                served.add(name)
    return served


def every_call(channel: grpc.aio.Channel) -> Any:
    """One stub with every call that a server serves, those of proxies included."""
    stub: Any = SessionAuthorityStub(channel)
    stub.Check = AuthorizationStub(channel).Check
    return stub


@asynccontextmanager
async def calls_to(address: str) -> AsyncIterator[Any]:
    """Every call to an address."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield every_call(channel)


class Callers:
    """One caller for each role, for the application `shop` and for another one."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}

    async def add(self, admin: AsyncClient, name: str, grants: list[Grant]) -> None:
        """Add a caller."""
        issued = await admin.create_caller(name, grants)
        self.metadata[name] = [("authorization", f"Bearer {issued.key.reveal()}")]


@pytest.fixture
async def shops(tmp_path: Path, clock: ManualClock) -> AsyncIterator[App]:
    """An authority with two applications."""
    async with serving(config_for(tmp_path, "[applications.shop]\n[applications.bank]\n", envoy=True), clock) as app:
        yield app


@pytest.fixture
async def callers(shops: App, clock: ManualClock) -> Callers:
    """Callers of every kind."""
    callers = Callers()
    async with AsyncClient(shops.address) as anyone:
        first = await anyone.create_caller("ops", [Grant(role=ClientRole.ADMIN)])
    callers.metadata["A"] = [("authorization", f"Bearer {first.key.reveal()}")]
    async with AsyncClient(shops.address, key=first.key) as admin:
        for letter, role in LETTERS.items():
            await callers.add(admin, letter, [Grant(role=ClientRole(role), application="shop")])
            await callers.add(admin, f"bank-{letter}", [Grant(role=ClientRole(role), application="bank")])
        everything = [Grant(role=ClientRole(role), application="shop") for role in LETTERS.values()]
        await callers.add(admin, "revoked", everything)
        await admin.revoke_caller("revoked")
        await callers.add(admin, "expired", everything)
        await admin.rotate_caller("expired", overlap=timedelta(minutes=1))
    clock.advance(60_000)
    return callers


@pytest.mark.parametrize("name", TABLE)
async def test_every_rpc_against_every_role(name: str, shops: App, callers: Callers) -> None:
    """An RPC is served to exactly the roles of the table, and to no role for another application."""
    request, allowed = TABLE[name]
    async with calls_to(shops.address) as stub:
        served = {
            caller
            for caller, metadata in callers.metadata.items()
            if await status(stub, name, request, metadata) not in DENIED
        }
    others = {f"bank-{letter}" for letter in LETTERS} if name == "GetAuthority" else set()
    assert served == set(allowed) | others


@pytest.mark.parametrize("name", TABLE)
async def test_nobody_gets_in_without_a_credential(name: str, shops: App, callers: Callers) -> None:
    """Without credentials, with wrong ones, with two, and with those that were revoked or expired, all is denied."""
    request, _ = TABLE[name]
    (_, good), *_ = callers.metadata["A"]
    wrong = good[:-1] + ("A" if good[-1] != "A" else "B")
    tries = [
        [],
        [("authorization", wrong)],
        [("authorization", good.replace("Bearer ", ""))],
        [("authorization", good.replace("Bearer", "Basic"))],
        [("authorization", good), ("authorization", good)],
        [("authorization", "Bearer ")],
        [("authorization-bin", good.encode())],
        [("sessiond-peer", "unix:"), ("x-authorization", good)],
        callers.metadata["revoked"],
        callers.metadata["expired"],
    ]
    async with calls_to(shops.address) as stub:
        for metadata in tries:
            assert await status(stub, name, request, metadata) is grpc.StatusCode.UNAUTHENTICATED


async def test_health_is_open_and_reflection_is_not(shops: App, callers: Callers) -> None:
    """A health check needs no credentials, because orchestrators have none. Reflection needs any caller."""
    async with grpc.aio.insecure_channel(shops.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert (await check).status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.aio.AioRpcError, match="no credentials"):
            await reflection.ServerReflectionInfo(iter([asked])).read()
        found = await reflection.ServerReflectionInfo(iter([asked]), metadata=callers.metadata["v"]).read()
        assert found.list_services_response.service


def test_a_batch_needs_the_role_for_each_application() -> None:
    """A batch with one request for another application is denied as a whole."""
    from sessiond.domain.call import Caller
    from sessiond.domain.errors import NotPermitted

    caller = Caller("edge", grants=frozenset({("shop", Role.VALIDATOR)}))
    mine, other = pb.ValidateSessionRequest(application="shop"), pb.ValidateSessionRequest(application="bank")
    default = pb.ValidateSessionRequest()
    authorize("ValidateSessions", pb.ValidateSessionsRequest(requests=[mine, mine]), caller)
    for requests in ([mine, other], [mine, default]):
        with pytest.raises(NotPermitted):
            authorize("ValidateSessions", pb.ValidateSessionsRequest(requests=requests), caller)
        with pytest.raises(NotPermitted):
            authorize("StreamValidations", pb.StreamValidationsRequest(requests=requests), caller)
