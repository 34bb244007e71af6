"""What one application was given proves nothing in another one, and says nothing about what exists there."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sessiond.app import App
from sessiond.domain.call import Caller
from sessiond.domain.errors import NotPermitted
from sessiond.domain.event import EventType
from sessiond.rpc.cursor import encode_page
from sessiond.rpc.handlers import UnaryMethod
from sessiond.rpc.heavy import HeavyMessages
from sessiond_client import AsyncClient, Grant
from sessiond_client import Role as ClientRole
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, config_for, serving, stub_for
from tests.support.streams import EARLIEST

POLICIES = """
[applications.shop]
max_sessions = 2
on_limit = "ask"
guessing = { alarm_after = 3, lock_after = 5 }
[applications.bank]
max_sessions = 2
on_limit = "ask"
"""
BROWSER = pb.ClientContext(ip_address="192.0.2.7", user_agent="Firefox")
NO_SESSION = "0197b5a0-0000-7000-8000-000000000000"
Key = Any


class Keys:
    """The keys of callers, as metadata: `shop` and `bank` may do everything in their application, and nothing else."""

    def __init__(self) -> None:
        self.of: dict[str, Key] = {}

    async def add(self, admin: AsyncClient, name: str, *grants: tuple[str, str]) -> None:
        """Add a caller with these roles and applications."""
        wanted = [Grant(role=ClientRole(role), application=application) for role, application in grants]
        issued = await admin.create_caller(name, wanted)
        self.of[name] = [("authorization", f"Bearer {issued.key.reveal()}")]


@pytest.fixture
async def app(tmp_path: Path, clock: ManualClock) -> AsyncIterator[App]:
    """An authority with two applications."""
    async with serving(config_for(tmp_path, POLICIES), clock) as app:
        yield app


@pytest.fixture
async def keys(app: App, clock: ManualClock) -> Keys:
    """Two applications, each with an admin of its own, and some callers that may do less or nothing any more."""
    keys = Keys()
    async with AsyncClient(app.address) as anyone:
        first = await anyone.create_caller("ops", [Grant(role=ClientRole.ADMIN)])
    async with AsyncClient(app.address, key=first.key) as admin:
        for name in ("shop", "bank"):
            await keys.add(admin, name, ("ADMIN", name))
        await keys.add(admin, "issuer", ("ISSUER", "shop"))
        await keys.add(admin, "second-issuer", ("ISSUER", "shop"))
        await keys.add(admin, "events", ("SUBSCRIBER", "bank"))
        await keys.add(admin, "default-events", ("SUBSCRIBER", "default"))
        await keys.add(admin, "early", ("ISSUER", "not-yet-there"))
        await keys.add(admin, "revoked", ("ADMIN", "shop"))
        await admin.revoke_caller("revoked")
        await keys.add(admin, "expired", ("ADMIN", "shop"))
        await admin.rotate_caller("expired", overlap=timedelta(minutes=1))
    clock.advance(60_000)
    return keys


@pytest.fixture
async def stub(app: App) -> AsyncIterator[AsyncStub]:
    """The generated stub."""
    async with stub_for(app.address) as stub:
        yield stub


async def ask(stub: AsyncStub, key: Key, rpc: str, **fields: Any) -> Any:
    """The response of a call."""
    return await getattr(stub, rpc)(getattr(pb, f"{rpc}Request")(**fields), metadata=key)


async def refused(stub: AsyncStub, key: Key, rpc: str, **fields: Any) -> tuple[grpc.StatusCode, str]:
    """The status and message of a call that is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(stub, key, rpc, **fields)
    return caught.value.code(), caught.value.details() or ""


async def login(stub: AsyncStub, key: Key, application: str, subject: str = "alice") -> Any:
    """A session."""
    return await ask(stub, key, "CreateSession", application=application, subject=subject, client=BROWSER)


BY_ID: dict[str, dict[str, Any]] = {
    "GetSession": {},
    "RevokeSession": {},
    "GetSessionData": {},
    "UpdateSessionData": {"set": {"k": b"v"}},
    "ReportSignal": {"reason": "odd"},
}


@pytest.mark.parametrize("rpc", BY_ID)
async def test_a_session_id_of_another_application(rpc: str, stub: AsyncStub, keys: Keys) -> None:
    """An id of another application is refused in the same words as one that never existed, and nothing happens."""
    created = await login(stub, keys.of["shop"], "shop")
    answers = []
    for session_id in (created.session.session_id, NO_SESSION):
        reference = pb.SessionReference(session_id=session_id)
        code, text = await refused(stub, keys.of["bank"], rpc, application="bank", session=reference, **BY_ID[rpc])
        answers.append((code, text.replace(session_id, "ID")))
    assert answers[0] == answers[1]
    assert answers[0][0] is grpc.StatusCode.NOT_FOUND
    found = await ask(stub, keys.of["shop"], "ValidateSession", application="shop", token=created.token)
    assert (found.verdict, found.session.data_version) == (pb.VERDICT_VALID, 0)


async def test_a_session_of_another_user(stub: AsyncStub, keys: Keys) -> None:
    """To an issuer that names the user, the session of another user is like one that does not exist."""
    created = await login(stub, keys.of["shop"], "shop", "bob")
    answers = []
    for session_id in (created.session.session_id, NO_SESSION):
        answer = await refused(
            stub,
            keys.of["issuer"],
            "RevokeSession",
            application="shop",
            session=pb.SessionReference(session_id=session_id),
            subject="alice",
        )
        answers.append((answer[0], answer[1].replace(session_id, "ID")))
    assert answers[0] == answers[1]
    assert answers[0][0] is grpc.StatusCode.NOT_FOUND


BY_TOKEN: dict[str, dict[str, Any]] = {
    "ValidateSession": {},
    "AuthenticateSession": {"subject": "alice"},
    "RollSession": {},
    "RefreshSession": {},
    "IssueCompanionToken": {"purpose": "pay"},
}
BY_REFERENCE: dict[str, dict[str, Any]] = {
    "GetSession": {},
    "RevokeSession": {},
    "GetSessionData": {},
    "UpdateSessionData": {"set": {"k": b"v"}},
    "ReportSignal": {"reason": "odd"},
}


@pytest.mark.parametrize("rpc", [*BY_TOKEN, *BY_REFERENCE])
async def test_a_token_of_another_application(rpc: str, stub: AsyncStub, keys: Keys) -> None:
    """A token of another application is unknown to every call, opens nothing there, and stays good in its own."""
    created = await login(stub, keys.of["shop"], "shop")
    fields = {"token": created.token} if rpc in BY_TOKEN else {"session": pb.SessionReference(token=created.token)}
    fields |= BY_TOKEN.get(rpc, {}) | BY_REFERENCE.get(rpc, {})
    answer = await ask(stub, keys.of["bank"], rpc, application="bank", **fields)
    assert answer.verdict == pb.VERDICT_UNKNOWN
    told = {field.name for field, _ in answer.ListFields()} - {"verdict", "consistency_token", "cookies", "next_step"}
    assert told == set()
    found = await ask(stub, keys.of["shop"], "ValidateSession", application="shop", token=created.token)
    assert (found.verdict, found.session.data_version) == (pb.VERDICT_VALID, 0)


async def test_a_companion_or_csrf_token_of_another_application(stub: AsyncStub, keys: Keys) -> None:
    """A companion token or CSRF token meets no requirement of another application's session of the same user."""
    first, bank = [await login(stub, keys.of[name], name) for name in ("shop", "bank")]
    companion = await ask(
        stub, keys.of["shop"], "IssueCompanionToken", application="shop", token=first.token, purpose="pay"
    )
    wanted = (
        pb.Requirements(csrf=pb.CsrfRequirement(csrf_token=first.csrf_token)),
        pb.Requirements(companion=pb.CompanionRequirement(purpose="pay", companion_token=companion.companion_token)),
    )
    for requirements in wanted:
        verdicts = [
            (
                await ask(
                    stub,
                    keys.of[name],
                    "ValidateSession",
                    application=name,
                    token=token,
                    requirements=requirements,
                    client=BROWSER,
                )
            ).verdict
            for name, token in (("shop", first.token), ("bank", bank.token))
        ]
        assert verdicts == [pb.VERDICT_VALID, pb.VERDICT_INSUFFICIENT]


async def test_a_ticket_of_another_application(stub: AsyncStub, keys: Keys) -> None:
    """A ticket for a login is refused in another application, for the same user at the same limit."""
    limits, session_ids = {}, {}
    for name in ("shop", "bank"):
        session_ids[name] = (await login(stub, keys.of[name], name)).session.session_id
        await login(stub, keys.of[name], name)
        limits[name] = (await login(stub, keys.of[name], name)).limit
    fields: dict[str, Any] = {"subject": "alice", "client": BROWSER}
    code, _ = await refused(
        stub,
        keys.of["bank"],
        "CreateSession",
        application="bank",
        ticket=limits["shop"].ticket,
        evict_session_ids=[session_ids["bank"]],
        **fields,
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    code, _ = await refused(
        stub,
        keys.of["bank"],
        "CreateSession",
        application="bank",
        ticket=limits["bank"].ticket,
        evict_session_ids=[session_ids["shop"]],
        **fields,
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT, "nor does a good ticket end sessions of another application"
    used = await ask(
        stub,
        keys.of["bank"],
        "CreateSession",
        application="bank",
        ticket=limits["bank"].ticket,
        evict_session_ids=[session_ids["bank"]],
        **fields,
    )
    assert used.token, "the same call with its own ticket and session is served"


async def test_a_request_id_of_another_caller(stub: AsyncStub, keys: Keys) -> None:
    """With the request id of another caller, of the same application or not, a call is one of its own."""
    request_id = str(uuid.uuid4())

    async def create(name: str, application: str) -> Any:
        return await ask(
            stub, keys.of[name], "CreateSession", application=application, subject="alice", request_id=request_id
        )

    first = await create("issuer", "shop")
    assert await create("issuer", "shop") == first
    for name, application in (("second-issuer", "shop"), ("bank", "bank")):
        other = await create(name, application)
        assert other.session.session_id != first.session.session_id
        assert other.token != first.token


async def _locks(stub: AsyncStub, keys: Keys) -> None:
    for source in ("192.0.2.7", "198.51.100.7"):
        for _ in range(9):
            context = pb.ClientContext(ip_address=source, user_agent="x")
            await ask(stub, keys.of["shop"], "ValidateSession", application="shop", token="A" * 70, client=context)


async def test_page_tokens(stub: AsyncStub, keys: Keys) -> None:
    """A page token of another application is refused; one that is made up shows nothing of another application."""
    sessions = [(await login(stub, keys.of["shop"], "shop", f"user-{n}")).session for n in range(3)]
    await ask(stub, keys.of["bank"], "CreateSession", application="bank", subject="user-1")
    for _ in range(2):
        await ask(stub, keys.of["shop"], "CreateSession", application="shop", subject="user-1")
    await _locks(stub, keys)
    page: dict[str, Any] = {"application": "shop", "page_size": 1}
    tokens = {
        "ListSessions": (await ask(stub, keys.of["shop"], "ListSessions", **page)).next_page_token,
        "ListActivity": (await ask(stub, keys.of["shop"], "ListActivity", subject="user-1", **page)).next_page_token,
        "ListSourceLocks": (await ask(stub, keys.of["shop"], "ListSourceLocks", **page)).next_page_token,
    }
    for rpc, token in tokens.items():
        assert token, rpc
        more = {"subject": "user-1"} if rpc == "ListActivity" else {}
        code, _ = await refused(stub, keys.of["bank"], rpc, application="bank", page_token=token, page_size=1, **more)
        assert code is grpc.StatusCode.INVALID_ARGUMENT, rpc

    newest = uuid.UUID(max(session.session_id for session in sessions)).bytes
    made_up = encode_page(b"sessions" + b"bank", newest)
    listed = await ask(stub, keys.of["bank"], "ListSessions", application="bank", page_token=made_up)
    assert {session.application for session in listed.sessions} <= {"bank"}
    far = encode_page(b"activity" + b"bank" + b"\0" + b"user-1", (10**9).to_bytes(8, "big"))
    history = await ask(stub, keys.of["bank"], "ListActivity", application="bank", subject="user-1", page_token=far)
    assert {event.application for event in history.events} == {"bank"}
    none = encode_page(b"locks" + b"bank", bytes(8))
    locks = await ask(stub, keys.of["bank"], "ListSourceLocks", application="bank", page_token=none)
    assert list(locks.source_locks) == []


async def test_a_lock_of_another_application(stub: AsyncStub, keys: Keys) -> None:
    """A lock of another application can neither be cleared nor be told from one that does not exist."""
    await _locks(stub, keys)
    answers = []
    for source in ("192.0.2.7/32", "203.0.113.7/32"):
        code, text = await refused(stub, keys.of["bank"], "ClearSourceLock", application="bank", source=source)
        answers.append((code, text.replace(source, "SOURCE")))
    assert answers[0] == answers[1]
    locks = await ask(stub, keys.of["shop"], "ListSourceLocks", application="shop")
    assert "192.0.2.7/32" in {lock.source for lock in locks.source_locks}


async def _applications_seen(stub: AsyncStub, key: Key, stop: int, **fields: Any) -> set[tuple[str, str]]:
    """Which events, by application and type, a stream has up to a revision."""
    stream: Any = stub.Subscribe(pb.SubscribeRequest(**fields), metadata=key)
    seen: set[tuple[str, str]] = set()
    while True:
        item = await stream.read()
        if item.WhichOneof("item") == "event":
            seen.add((item.event.application, pb.EventType.Name(item.event.type)))
            if item.event.revision >= stop:
                break
    stream.cancel()
    return seen


async def test_cursors(stub: AsyncStub, keys: Keys) -> None:
    """With a cursor of another application a stream has the events of its own application only, and no caller's."""
    await login(stub, keys.of["shop"], "shop")
    stream: Any = stub.Subscribe(
        pb.SubscribeRequest(start=EARLIEST, filter=pb.EventFilter(applications=["shop"])), metadata=keys.of["shop"]
    )
    event: Any = await stream.read()
    cursor = event.cursor
    stream.cancel()
    assert cursor
    await login(stub, keys.of["shop"], "shop")
    last = await login(stub, keys.of["bank"], "bank")
    state = await ask(stub, keys.of["bank"], "GetAuthority")
    mine = pb.EventFilter(applications=["bank"])
    for key in (keys.of["bank"], keys.of["events"]):
        seen = await _applications_seen(stub, key, state.revision, cursor=cursor, filter=mine)
        assert seen == {("bank", f"EVENT_TYPE_{str(EventType.SESSION_CREATED).upper()}")}
    assert last.token
    tries = [("events", applications) for applications in (["bank", ""], [""], ["bank", "shop"], [])]
    # The empty name is not that of the application `default` here: it selects what belongs to none, such as callers.
    for name, applications in (*tries, ("default-events", [""])):
        stream = stub.Subscribe(
            pb.SubscribeRequest(cursor=cursor, filter=pb.EventFilter(applications=applications)),
            metadata=keys.of[name],
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED, applications


async def test_a_consistency_token_of_another_application(stub: AsyncStub, keys: Keys) -> None:
    """A consistency token is a position of the whole log: another application may wait for it, and sees nothing."""
    created = await login(stub, keys.of["shop"], "shop")
    listed = await ask(stub, keys.of["bank"], "ListSessions", application="bank", at_least=created.consistency_token)
    assert list(listed.sessions) == []


async def test_a_refusal_does_not_say_what_exists(stub: AsyncStub, keys: Keys) -> None:
    """A refusal for an application that exists differs from one for an application that does not by its name only."""
    answers = []
    for application in ("shop", "nothing"):
        code, text = await refused(stub, keys.of["bank"], "ListSessions", application=application)
        assert code is grpc.StatusCode.PERMISSION_DENIED
        answers.append(text.replace(f'"{application}"', "NAME"))
    assert answers[0] == answers[1]
    code, text = await refused(stub, keys.of["early"], "CreateSession", application="not-yet-there")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "shop" not in text
    assert "bank" not in text
    for rpc in ("RotateCaller", "RevokeCaller"):
        texts = {await refused(stub, keys.of["shop"], rpc, name=name) for name in ("ops", "nobody")}
        assert len(texts) == 1, "an admin of one application learns no names of callers"


async def test_reflection_and_health(app: App, keys: Keys) -> None:
    """Reflection is refused to revoked and expired callers; a health check shows no more to one key than to another."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = set()
        for name in ("revoked", "expired"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await reflection.ServerReflectionInfo(iter([asked]), metadata=keys.of[name]).read()
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        for metadata in (None, keys.of["revoked"], keys.of["expired"], keys.of["bank"]):
            check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), metadata=metadata)
            answers.add((await check).SerializeToString())
        assert len(answers) == 1


@pytest.mark.parametrize("caller", [Caller("ops", version=1), Caller("caller")])
async def test_a_method_without_a_rule_is_never_carried_out(caller: Caller) -> None:
    """A method that somebody serves without a rule is denied, to an admin for everything and without any callers."""
    carried_out = []

    async def handler(message: Any, caller: Caller) -> Message:
        carried_out.append(caller)
        return Empty()

    method = UnaryMethod("NewCall", Empty, handler, HeavyMessages())
    with pytest.raises(NotPermitted, match="nobody may call NewCall"):
        await method.respond(b"", caller, None)
    assert carried_out == []
