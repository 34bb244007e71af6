"""The audit log: which calls have a line, what it says, and what happens if it cannot be written."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from sessiond.access.audit import Audit
from sessiond.app import App
from sessiond.domain.access import EVERYTHING, RULES, Role, administrative_role
from sessiond.domain.audit import ACTIONS, FIELDS, NOT_AUDITED, RELOAD, AuditRecord
from sessiond.domain.call import Caller
from sessiond.domain.errors import Overloaded, SessionNotFound, Unavailable
from sessiond.domain.event import EventType
from sessiond.rpc import auditing
from sessiond.rpc.auditing import AuditedCalls
from sessiond.system.audit_file import AuditFile
from sessiond_client import AsyncClient, Grant
from sessiond_client import Role as ClientRole
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.access.test_matrix import DENIED, LETTERS, SESSION_ID, TABLE, Callers, calls_to, status
from tests.support.canary import Canary
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, ServerProcess, config_for, serving, stub_for
from tests.support.streams import EARLIEST

SHOPS = "[applications.shop]\n[applications.bank]\n"
BROWSER = pb.ClientContext(ip_address="192.0.2.7", user_agent="Firefox")


def lines_of(file: Path) -> list[dict[str, Any]]:
    """The lines of an audit file."""
    return [json.loads(line) for line in file.read_text(encoding="ascii").splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The audit file."""
    return tmp_path / "audit.log"


@pytest.fixture
async def shops(tmp_path: Path, file: Path, clock: ManualClock) -> AsyncIterator[App]:
    """An authority with two applications and an audit file."""
    async with serving(config_for(tmp_path, SHOPS, log_audit_file=file, envoy=True), clock) as app:
        yield app


@pytest.fixture
async def callers(shops: App) -> Callers:
    """A caller for each role, for `shop` and for `bank`, and one for everything."""
    callers = Callers()
    async with AsyncClient(shops.address) as anyone:
        first = await anyone.create_caller("ops", [Grant(role=ClientRole.ADMIN)])
    callers.metadata["A"] = [("authorization", f"Bearer {first.key.reveal()}")]
    async with AsyncClient(shops.address, key=first.key) as admin:
        for letter, role in LETTERS.items():
            await callers.add(admin, letter, [Grant(role=ClientRole(role), application="shop")])
            await callers.add(admin, f"bank-{letter}", [Grant(role=ClientRole(role), application="bank")])
        both = [Grant(role=ClientRole.ISSUER, application="shop"), Grant(role=ClientRole.OPERATOR, application="shop")]
        await callers.add(admin, "both", both)
    return callers


@pytest.fixture
async def stub(shops: App) -> AsyncIterator[AsyncStub]:
    """The generated stub."""
    async with calls_to(shops.address) as stub:
        yield stub


def test_every_rpc_is_decided_about() -> None:
    """Each RPC of the contract is audited, or there is a reason why not; those that only these roles may make are."""
    assert ACTIONS.keys() | NOT_AUDITED.keys() == RULES.keys()
    assert not ACTIONS.keys() & NOT_AUDITED.keys()
    only = {name for name, rule in RULES.items() if rule.roles <= {Role.OPERATOR, Role.ADMIN}}
    assert only <= ACTIONS.keys()
    assert all(NOT_AUDITED.values())


def test_the_page_has_every_action_and_field() -> None:
    """The page about the audit log has a line for each action, with its event, and for each field, in their order."""
    page = (Path(__file__).parents[2] / "docs/reference/audit.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in page.splitlines() if row.startswith("| ")]
    events = {name: "none, reads" if a.event is None else str(a.event).upper() for name, a in ACTIONS.items()}
    wanted = {**events, RELOAD: str(EventType.POLICY_CHANGED).upper()}
    assert {row[0]: row[1] for row in rows if len(row) == 3 and row[0] not in ("call", "---")} == wanted
    counted = {row[0] for row in rows if len(row) == 3 and row[2].startswith("count: ") and row[1] == "none, reads"}
    assert counted == {name for name, action in ACTIONS.items() if action.counts}
    begun = {row[0] for row in rows if len(row) == 3 and row[2] == "written when the stream begins"}
    assert begun == {name for name, action in ACTIONS.items() if action.begins}
    fields = [name.strip("`, ") for row in rows if len(row) == 2 for name in row[0].split("`, `")]
    assert fields[fields.index("log") :] == ["log", "time", *FIELDS.values()]
    assert all(name in page for name in NOT_AUDITED)


def test_the_role_of_a_call() -> None:
    """A call is administrative if no other role of its caller allows it, for each of its applications."""
    rule = RULES["RevokeSessions"]
    issuer, operator = ("shop", Role.ISSUER), ("shop", Role.OPERATOR)
    cases: list[tuple[set[tuple[str, Role]], list[str], bool, Role | None]] = [
        ({operator}, ["shop"], False, Role.OPERATOR),
        ({operator}, ["shop"], True, Role.OPERATOR),
        ({operator, issuer}, ["shop"], False, Role.OPERATOR),
        ({operator, issuer}, ["shop"], True, None),
        ({issuer, ("*", Role.ADMIN)}, ["shop"], True, None),
        ({issuer, ("*", Role.ADMIN)}, ["shop", "bank"], True, Role.ADMIN),
        ({operator, ("*", Role.ADMIN)}, ["shop"], False, Role.OPERATOR),
        ({operator, ("*", Role.ADMIN)}, ["shop", "bank"], False, Role.ADMIN),
        (set(EVERYTHING), ["shop"], True, Role.ADMIN),
    ]
    for grants, applications, about_one_subject, expected in cases:
        found = administrative_role(frozenset(grants), rule, applications, about_one_subject=about_one_subject)
        assert found is expected, (grants, applications, about_one_subject)


@pytest.mark.parametrize("name", TABLE)
async def test_which_calls_have_a_line(name: str, stub: AsyncStub, callers: Callers, file: Path) -> None:
    """A call by operator or admin has one line, a refused call too, and what another role allows has none."""
    request, _ = TABLE[name]
    for caller, metadata in callers.metadata.items():
        before = len(lines_of(file))
        code = await status(stub, name, request, metadata)
        new = [(line["actor"], line["action"], line["role"], line["outcome"]) for line in lines_of(file)[before:]]
        actor, rpc = {"A": "ops"}.get(caller, caller), name.split()[0]
        if code in DENIED:
            assert new == [(actor, rpc, "", "PERMISSION_DENIED")]
        elif rpc in NOT_AUDITED or caller.removeprefix("bank-") in "vis":
            assert new == []
        elif caller == "both" and "i" in TABLE[name][1]:
            assert new == [], "the role issuer allows it too"
        else:
            role = "operator" if caller in ("o", "both") else "admin"
            outcome = "STARTED" if ACTIONS[rpc].begins else "OK" if code is grpc.StatusCode.OK else code.name
            assert new == [(actor, rpc, role, outcome)]


async def test_without_callers(shops: App, stub: AsyncStub, file: Path) -> None:
    """Without callers what only operator and admin may do otherwise has a line; what an application does has none."""
    for name, (request, allowed) in TABLE.items():
        if name == "CreateCaller":
            continue
        before = len(lines_of(file))
        await status(stub, name, request, [])
        new = [(line["actor"], line["role"], line["action"]) for line in lines_of(file)[before:]]
        ordinary = set("vis") & set(allowed) or name in ("Subscribe to all", "Follow all")
        assert new == ([] if ordinary else [("caller", "none", name.split()[0])]), name


async def test_the_fields_of_a_line(stub: AsyncStub, callers: Callers, file: Path) -> None:
    """A line has the time, who, by which credential and role, what, from where, for whom, why, and the request id."""
    admin = callers.metadata["A"]
    created = await stub.CreateSession(
        pb.CreateSessionRequest(application="shop", subject="alice"), metadata=callers.metadata["i"]
    )
    request_id = str(uuid.uuid4())
    revoke = pb.RevokeSessionRequest(
        application="shop",
        session=pb.SessionReference(session_id=created.session.session_id),
        subject="alice",
        client=BROWSER,
        reason="stolen",
        request_id=request_id,
    )
    await stub.RevokeSession(revoke, metadata=[*admin, ("x-request-id", "checkout-1")])
    line = lines_of(file)[-1]
    assert list(line) == ["log", "time", *FIELDS.values()]
    peer, identity = line.pop("from"), created.session.session_id
    assert peer.startswith("ipv4:127.0.0.1:")
    assert line == {
        "log": "audit",
        "time": "2027-01-15T08:00:00.000Z",
        "actor": "ops",
        "credential": f"key {admin[0][1].split('_')[1]}",
        "role": "admin",
        "action": "RevokeSession",
        "application": "shop",
        "target": f"session {identity}, subject alice",
        "client_ip": "192.0.2.7",
        "client_agent": "Firefox",
        "reason": "stolen",
        "before": "live",
        "after": f"revoked: session {identity} of subject alice, generation 0, data version 0",
        "count": 1,
        "outcome": "OK",
        "request_id": sha256(request_id.encode()).hexdigest()[:16],
        "call_id": "checkout-1",
    }
    await stub.RevokeSession(revoke, metadata=admin)
    repeated = lines_of(file)[-1]
    assert (repeated["outcome"], repeated["count"], repeated["before"], repeated["after"]) == ("REPEATED", 0, "", "")
    assert repeated["request_id"] == line["request_id"]
    revoke.ClearField("request_id")
    await stub.RevokeSession(revoke, metadata=admin)
    again = lines_of(file)[-1]
    assert (again["outcome"], again["count"], again["before"]) == ("OK", 0, "")
    assert again["after"].startswith(f"session {identity}"), "it had ended before"


async def story(stub: AsyncStub, key: Any) -> Mapping[str, Any]:
    """An admin does everything once. Return the ids that it met."""

    def ask(rpc: str, **fields: Any) -> Any:
        return getattr(stub, rpc)(getattr(pb, f"{rpc}Request")(**fields), metadata=key)

    guest = await ask("CreateSession", application="shop")
    login = await ask("AuthenticateSession", application="shop", token=guest.token, subject="bob")
    reference = pb.SessionReference(session_id=login.session.session_id)
    rolled = await ask("RollSession", application="shop", token=login.token, reason="role")
    await ask("RefreshSession", application="shop", token=rolled.token)
    await ask("UpdateSessionData", application="shop", session=reference, set={"k": b"v"})
    await ask("GetSessionData", application="shop", session=reference)
    await ask("GetSession", application="shop", session=reference)
    await ask("IssueCompanionToken", application="shop", token=rolled.token, purpose="pay")
    await ask("ListSessions", application="shop", filter=pb.SessionFilter(subject="bob"))
    await ask("ListActivity", application="shop", subject="bob")
    for _ in range(9):
        await ask("ValidateSession", application="shop", token="A" * 70, client=BROWSER)
    locks = await ask("ListSourceLocks", application="shop")
    await ask("ClearSourceLock", application="shop", source=locks.source_locks[0].source, reason="known")
    await ask("ReportSignal", application="shop", session=reference, reason="odd")
    await ask("RevokeSession", application="shop", session=pb.SessionReference(token=rolled.token))
    await ask("CreateSession", application="shop", subject="eve")
    await ask("CreateSession", application="shop", subject="eve")
    await ask("RevokeSessions", application="shop", whole_application=True)
    grants = [pb.Grant(role=pb.ROLE_VALIDATOR, application="shop")]
    added = await ask("CreateCaller", name="edge", grants=grants, reason="new")
    rotated = await ask("RotateCaller", name="edge", overlap={"seconds": 60})
    await ask("ListCallers")
    await ask("UpdateCallerCertificates", name="edge", add=["edge.example"])
    await ask("RevokeCaller", name="edge", reason="old")
    first = (await ask("GetKeyRing")).keys[0].fingerprint
    second = (await ask("AddSealingKey")).key.fingerprint
    await ask("PromoteSealingKey")
    await ask("RetireSealingKey", fingerprint=first, log_out_sessions=True, reason="yearly")
    keys = [caller.credentials[-1].id for caller in (added.caller, rotated.caller)]
    return {
        "session": login.session.session_id,
        "keys": keys,
        "guest": guest.session.session_id,
        "ring": (first, second),
    }


async def test_what_each_action_says(tmp_path: Path, file: Path, clock: ManualClock) -> None:
    """Each action says what it was about, what was before and is now, and how many sessions, events or callers."""
    text = "[applications.shop]\n[applications.shop.guessing]\nlock_after = 5\nalarm_after = 3\n"
    config = config_for(tmp_path, text, log_audit_file=file, envoy=True)
    async with serving(config, clock) as app, calls_to(app.address) as stub:
        first = await stub.CreateCaller(pb.CreateCallerRequest(name="ops", grants=[ADMIN_GRANT]))
        met = await story(stub, [("authorization", f"Bearer {first.key}")])
    session, (old, new), sealing = met["session"], met["keys"], met["ring"]
    by_id, by_token = f"session {session}", "session of a token"
    lines = [
        (line["action"], line["target"], line["before"], line["after"], line["count"], line["reason"])
        for line in lines_of(file)
    ]
    assert all(line["outcome"] == "OK" for line in lines_of(file))

    def now(generation: int = 0, version: int = 0) -> str:
        return f"{by_id} of subject bob, generation {generation}, data version {version}"

    ops_key = first.caller.credentials[0].id
    eve = [line for line in lines if line[1] == "subject eve"]
    assert [(line[0], line[4]) for line in eve] == [("CreateSession", 1)] * 2
    assert [line for line in lines if line not in eve] == [
        ("CreateCaller", "caller ops", "", f"key {ops_key}; admin for *", 1, ""),
        ("CreateSession", "", "", f"session {met['guest']} of a guest, generation 0, data version 0", 1, ""),
        ("AuthenticateSession", f"{by_token}, subject bob", "", now(1), 1, ""),
        ("RollSession", by_token, "", now(2), 1, "role"),
        ("RefreshSession", by_token, "", now(2), 1, ""),
        ("UpdateSessionData", by_id, "", now(2, 1), 1, ""),
        ("GetSessionData", by_id, "", "", 0, ""),
        ("GetSession", by_id, "", "", 0, ""),
        ("IssueCompanionToken", by_token, "", "", 0, ""),
        ("ListSessions", 'filter subject: "bob"', "", "", 1, ""),
        ("ListActivity", "subject bob", "", "", 5, ""),
        ("ListSourceLocks", "", "", "", 1, ""),
        ("ClearSourceLock", "source 192.0.2.7/32", "locked", "unlocked", 1, "known"),
        ("ReportSignal", by_id, "", "alert", 1, "odd"),
        ("RevokeSession", by_token, "live", f"revoked: {now(2, 1)}", 1, ""),
        ("RevokeSessions", "whole application", "live", "revoked", 2, ""),
        ("CreateCaller", "caller edge", "", f"key {old}; validator for shop", 1, "new"),
        (
            "RotateCaller",
            "caller edge",
            f"key {old}; validator for shop",
            f"key {old} (expires), key {new}; validator for shop",
            1,
            "",
        ),
        ("ListCallers", "", "", "", 2, ""),
        (
            "UpdateCallerCertificates",
            "caller edge",
            f"key {old} (expires), key {new}; validator for shop",
            f"key {old} (expires), key {new}, certificate edge.example; validator for shop",
            1,
            "",
        ),
        (
            "RevokeCaller",
            "caller edge",
            f"key {old} (expires), key {new}, certificate edge.example; validator for shop",
            "removed",
            1,
            "old",
        ),
        ("GetKeyRing", "", "", "", 1, ""),
        ("AddSealingKey", "", "", f"key {sealing[1][:8]} added", 1, ""),
        ("PromoteSealingKey", "", "", f"key {sealing[1][:8]} sealing", 1, ""),
        ("RetireSealingKey", f"key {sealing[0]}", "", f"key {sealing[0][:8]} retiring", 1, "yearly"),
    ]


ADMIN_GRANT = pb.Grant(role=pb.ROLE_ADMIN, application="*")


async def test_each_change_has_an_event_with_its_actor(tmp_path: Path, file: Path, clock: ManualClock) -> None:
    """Each administrative change is an event of the type that the table names, with the caller as its actor."""
    text = "[applications.shop]\n[applications.shop.guessing]\nlock_after = 5\nalarm_after = 3\n"
    async with serving(config_for(tmp_path, text, log_audit_file=file), clock) as app, stub_for(app.address) as stub:
        first = await stub.CreateCaller(pb.CreateCallerRequest(name="ops", grants=[ADMIN_GRANT]))
        key: Any = [("authorization", f"Bearer {first.key}")]
        await story(stub, key)
        head = (await stub.GetAuthority(pb.GetAuthorityRequest(), metadata=key)).revision
        stream: Any = stub.Subscribe(pb.SubscribeRequest(start=EARLIEST), metadata=key)
        actors: dict[str, set[str]] = {}
        revision = 0
        while revision < head:
            event = (await stream.read()).event
            revision = event.revision or revision
            actors.setdefault(pb.EventType.Name(event.type).removeprefix("EVENT_TYPE_"), set()).add(event.cause.actor)
        stream.cancel()
    changed = {line["action"] for line in lines_of(file) if ACTIONS[line["action"]].event is not None}
    assert changed == {name for name, action in ACTIONS.items() if action.event is not None}
    for name in changed:
        assert "ops" in actors[str(ACTIONS[name].event).upper()], name


async def test_who_is_not_known(shops: App, stub: AsyncStub, callers: Callers, file: Path) -> None:
    """A call without a good key has a line with its address and the public id of the key, for reflection too."""
    (_, good), *_ = callers.metadata["A"]
    wrong = good[:-1] + ("A" if good[-1] != "A" else "B")
    before = len(lines_of(file))
    for metadata in ([], [("authorization", wrong)], [("authorization", "Bearer secret")]):
        assert await status(stub, "ListCallers", pb.ListCallersRequest(), metadata) is grpc.StatusCode.UNAUTHENTICATED
    assert await status(stub, "Follow", *TABLE["Follow"][:1], []) is grpc.StatusCode.UNAUTHENTICATED
    assert await status(stub, "ValidateSession", *TABLE["ValidateSession"][:1], []) is grpc.StatusCode.UNAUTHENTICATED
    async with grpc.aio.insecure_channel(shops.address) as channel:
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.aio.AioRpcError):
            await reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked])).read()
    lines = lines_of(file)[before:]
    assert {(line["actor"], line["role"], line["outcome"]) for line in lines} == {("", "", "UNAUTHENTICATED")}
    assert [(line["action"], line["credential"]) for line in lines] == [
        ("ListCallers", ""),
        ("ListCallers", f"key {good.split('_')[1]}"),
        ("ListCallers", ""),
        ("Follow", ""),
        ("ValidateSession", ""),
        ("ServerReflectionInfo", ""),
    ]
    assert all(line["from"] for line in lines)


# Refused calls are bounded


class Minutes:
    """What `call_later` is asked for, to be done when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Callable[[], None]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        assert seconds == 60
        self.asked.append(call)

    def pass_by(self) -> None:
        """Let a minute pass."""
        (call,) = self.asked
        self.asked.clear()
        call()


class Sheet:
    """Lines in memory. `is_full`: they cannot be written."""

    def __init__(self) -> None:
        self.lines: list[Mapping[str, Any]] = []
        self.is_full = False

    def write(self, line: Mapping[str, Any]) -> None:
        """Keep a line."""
        if self.is_full:
            raise OSError(28, "No space left on device")
        self.lines.append(line)

    def reopen(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def audit_of(file: Sheet | None, log: Sheet, minutes: Minutes | None = None) -> Audit:
    """An audit log in memory."""
    return Audit(log.write, file, ManualClock().now, minutes or Minutes())


def test_refused_calls_are_bounded() -> None:
    """In a minute there are ten lines of one source and sixty in all for each outcome, and then one with the rest."""
    log, minutes = Sheet(), Minutes()
    audit = audit_of(None, log, minutes)
    nobody, denied = AuditRecord(outcome="UNAUTHENTICATED"), AuditRecord(actor="shop", outcome="PERMISSION_DENIED")
    for _ in range(25):
        audit.refused(nobody, "ipv4:192.0.2.1")
    assert len(log.lines) == 10
    for number in range(100):
        audit.refused(nobody, f"ipv4:192.0.2.{number + 2}")
    assert len(log.lines) == 60
    audit.refused(denied, "shop")
    assert len(log.lines) == 61, "the other outcome has its own share"
    audit.record(AuditRecord(action="RevokeSession"))
    assert len(log.lines) == 62, "what was done always has its line"
    minutes.pass_by()
    (rest,) = log.lines[62:]
    assert (rest["target"], rest["count"], rest["outcome"]) == (
        "refused calls without a line",
        65,
        "UNAUTHENTICATED",
    )
    audit.refused(nobody, "ipv4:192.0.2.1")
    assert len(log.lines) == 64, "a new minute"
    minutes.pass_by()
    assert len(log.lines) == 64, "nothing was left out"
    assert minutes.asked == []


def test_a_source_is_an_address_without_its_port(clock: ManualClock) -> None:
    """A source that opens a new connection for each call is one source all the same."""
    from sessiond.access.book import CallerBook
    from sessiond.access.callers import Callers as Identified
    from sessiond.domain.access import CallerRecord
    from sessiond.domain.errors import Unauthenticated
    from sessiond.domain.values import Instant, Revision

    log = Sheet()
    record = CallerRecord("ops", EVERYTHING, (), Instant(0), Revision(1))
    callers, audited = Identified(CallerBook([record], clock.now)), AuditedCalls(audit_of(None, log))
    for start in ("ipv4:192.0.2.1:", "ipv6:%5B::1%5D:"):
        for port in range(12):
            with pytest.raises(Unauthenticated):
                audited.identify("GetSession", callers, f"{start}{port + 1000}", None)
    assert len(log.lines) == 20


# What a line never shows, and how long it is


def test_no_token_in_a_line() -> None:
    """A text that may be a token is replaced by its length and the beginning of its digest; a long one is cut."""
    log = Sheet()
    token = "canary" + "t" * 40
    audit_of(None, log).record(AuditRecord(reason=f"a {token}.", target="x " * 300, client_agent="\x1b[2J\u202e"))
    (line,) = log.lines
    assert line["reason"] == f"a (46 characters, SHA-256 {sha256(token.encode()).hexdigest()[:16]})."
    assert len(line["target"]) == 256
    assert line["target"].endswith("...")
    assert line["client_agent"] == "\x1b[2J\u202e", "the form of the log escapes it"


async def test_nothing_secret_in_the_file(stub: AsyncStub, callers: Callers, file: Path) -> None:
    """Whatever field a key, token, request id or session data is put into, of a call that is refused too, no line has
    it.
    """
    canary, request_id, value = Canary(), str(uuid.uuid4()), b"canary-value-of-session-data"
    canary.know_id(request_id)
    canary.know_text("session data", value.decode())
    for metadata in callers.metadata.values():
        key = metadata[0][1].removeprefix("Bearer ")
        canary.know_text("key", key.split("_", 2)[2])
        canary.know_text("key", key)
    created = await stub.CreateSession(
        pb.CreateSessionRequest(application="shop", subject="alice", data={"k": value}, request_id=request_id),
        metadata=callers.metadata["A"],
    )
    admin_key = callers.metadata["A"][0][1].removeprefix("Bearer ")
    for text in (canary.know_token(created.token), canary.know_token(created.csrf_token), admin_key):
        context = pb.ClientContext(ip_address="192.0.2.7", user_agent=f"x {text} y", device_id=text)
        session = pb.SessionReference(session_id=text)
        places: list[tuple[str, Message]] = [
            ("RevokeSession", pb.RevokeSessionRequest(application="shop", session=session, reason=text)),
            ("RevokeSession", pb.RevokeSessionRequest(application=text, session=session, subject=text, client=context)),
            ("ListSessions", pb.ListSessionsRequest(application="shop", filter=pb.SessionFilter(subject=text))),
            ("ListSessions", pb.ListSessionsRequest(application="shop", filter=pb.SessionFilter(labels={text: text}))),
            ("ListSessions", pb.ListSessionsRequest(application="shop", page_token=text)),
            ("ListActivity", pb.ListActivityRequest(application="shop", subject=text)),
            ("ClearSourceLock", pb.ClearSourceLockRequest(application="shop", source=text, reason=text)),
            ("CreateCaller", pb.CreateCallerRequest(name=text, reason=text)),
            ("RotateCaller", pb.RotateCallerRequest(name=text[:64], request_id=request_id)),
            ("UpdateSessionData", pb.UpdateSessionDataRequest(application="shop", session=session, set={"k": value})),
            ("Subscribe", pb.SubscribeRequest(filter=pb.EventFilter(applications=[text], subjects=[text]))),
        ]
        for name, request in places:
            for caller in ("A", "o", "v"):
                await status(stub, name, request, callers.metadata[caller])
            await status(stub, name, request, [("authorization", f"Bearer {text}")])
    assert canary.found_in_files([file]) == []
    outcomes = {line["outcome"] for line in lines_of(file)}
    assert {"OK", "INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED"} <= outcomes


# A line that cannot be written


def test_a_full_disk_is_told_once() -> None:
    """While the file cannot be written its lines go to the log; the failure and its end are logged once each."""
    file, log = Sheet(), Sheet()
    audit = audit_of(file, log)
    with capture_logs() as logged:
        assert audit.record(AuditRecord(action="a"))
        file.is_full = True
        assert not audit.record(AuditRecord(action="b"))
        assert not audit.record(AuditRecord(action="c"))
        file.is_full = False
        assert audit.record(AuditRecord(action="d"))
    assert [line["action"] for line in file.lines] == ["a", "d"]
    assert [line["action"] for line in log.lines] == ["b", "c"]
    assert [line["event"] for line in logged] == ["audit file not written", "audit file written again"]
    assert "No space left on device" in logged[0]["error"]


def test_without_a_file_nothing_depends_on_the_log() -> None:
    """A standard log that is gone stops nobody: it promises nothing."""
    log = Sheet()
    log.is_full = True
    assert audit_of(None, log).record(AuditRecord(action="a"))


@contextmanager
def full_disk(app: App) -> Iterator[None]:
    """The disk of the audit file is full."""
    audit_file = app.audit._file
    assert isinstance(audit_file, AuditFile)
    handle = audit_file._handle
    kept, full = os.dup(handle), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, handle)
    try:
        yield
    finally:
        os.dup2(kept, handle)
        os.close(kept)
        os.close(full)


async def test_what_cannot_be_recorded_is_not_read(
    shops: App, stub: AsyncStub, callers: Callers, file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a full disk nobody reads other people's data, but sessions can be ended, and the lines are in the log."""
    shop, admin = callers.metadata["i"], callers.metadata["A"]
    created = await stub.CreateSession(pb.CreateSessionRequest(application="shop", subject="alice"), metadata=shop)
    reference = pb.SessionReference(session_id=created.session.session_id)
    reading = [name for name, action in ACTIONS.items() if action.event is None]
    changing: dict[str, Any] = {
        "RevokeSession": pb.RevokeSessionRequest(application="shop", session=reference),
        "RotateCaller": pb.RotateCallerRequest(name="v"),
        "RevokeCaller": pb.RevokeCallerRequest(name="v"),
    }
    before = lines_of(file)
    with full_disk(shops):
        for name in reading:
            request = TABLE[name][0]
            if "session" in request.DESCRIPTOR.fields_by_name:
                request = type(request)(application="shop", session=reference)
            code = await status(stub, name, request, admin)
            assert code is grpc.StatusCode.UNAVAILABLE, name
        for name, request in changing.items():
            assert await status(stub, name, request, admin) is grpc.StatusCode.OK, name
        listed = await stub.ListSessions(
            pb.ListSessionsRequest(application="shop", filter=pb.SessionFilter(subject="alice")), metadata=shop
        )
        assert listed.sessions == [], "an issuer's own business goes on, and the session has ended"
    assert lines_of(file) == before
    await stub.ListCallers(pb.ListCallersRequest(), metadata=admin)
    assert [line["action"] for line in lines_of(file)][-1] == "ListCallers"
    log = "".join(capfd.readouterr())
    assert log.count("audit file not written") == log.count("audit file written again") == 1
    for name in (*reading, *changing):
        assert name in log


async def test_a_caller_that_hangs_up_does_not_prevent_the_line() -> None:
    """A call whose caller hangs up before the response has its line all the same, with its true outcome."""
    log, may_go_on = Sheet(), asyncio.Event()
    audited = AuditedCalls(audit_of(None, log))

    async def revoke(message: Any, caller: Caller) -> Empty:
        await may_go_on.wait()
        assert caller.trail is not None
        caller.trail.note("live", "revoked", 3)
        return Empty()

    request = pb.RevokeSessionsRequest(application="shop", whole_application=True)
    caller = Caller("ops", "ipv4:192.0.2.1:5", version=1)
    call = asyncio.create_task(audited.carry_out("RevokeSessions", request, caller, Role.ADMIN, revoke))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert log.lines == []
    may_go_on.set()
    await audited.finish()
    (line,) = log.lines
    assert (line["outcome"], line["count"], line["after"]) == ("OK", 3, "revoked")


OUTCOMES = [(SessionNotFound(), "NOT_FOUND"), (Unavailable("later"), "UNAVAILABLE"), (ValueError("bug"), "INTERNAL")]


@pytest.mark.parametrize(("error", "outcome"), OUTCOMES)
async def test_the_outcome_of_a_failure(error: Exception, outcome: str) -> None:
    """A call that fails has a line with the code that its caller gets, and the caller gets the error."""
    log = Sheet()

    async def failing(message: Any, caller: Caller) -> Empty:
        raise error

    request, caller = TABLE["GetSession"][0], Caller("ops", version=1)
    with pytest.raises(type(error)):
        await AuditedCalls(audit_of(None, log)).carry_out("GetSession", request, caller, Role.OPERATOR, failing)
    (line,) = log.lines
    assert (line["outcome"], line["target"]) == (outcome, f"session {SESSION_ID}")


# Reload


async def test_a_reload_is_recorded(tmp_path: Path, file: Path, clock: ManualClock) -> None:
    """A reload has a line, and one for each policy that it changes, with the values before and after."""
    text = '[applications.shop]\nidle_timeout = "10m"\n[applications.old]\n'
    async with serving(config_for(tmp_path, text, log_audit_file=file), clock) as app:
        after = '[applications.shop]\nidle_timeout = "9m"\nmax_sessions = 3\n[applications.new]\n'
        await app.reload(config_for(tmp_path, after, log_audit_file=file))
        await app.reload(config_for(tmp_path, after, log_audit_file=file))
        app.refuse_reload()
    lines = [
        (line["application"], line["target"], line["before"], line["after"], line["count"], line["outcome"])
        for line in lines_of(file)
    ]
    assert {(line["actor"], line["action"]) for line in lines_of(file)} == {("authority", "Reload")}
    assert lines == [
        ("*", "", "", "", 3, "OK"),
        ("new", "policy of new", "", "preset=owasp-low", 0, "OK"),
        ("old", "policy of old", "preset=owasp-low", "", 0, "OK"),
        (
            "shop",
            "policy of shop",
            "idle_timeout=600000, max_sessions=0",
            "idle_timeout=540000, max_sessions=3",
            0,
            "OK",
        ),
        ("*", "", "", "", 0, "OK"),
        ("*", "", "", "", 0, "REFUSED"),
    ]


async def test_a_renamed_file_is_left_at_the_signal(tmp_path: Path) -> None:
    """After a rotation and SIGHUP the lines go to a new file, as logrotate expects; the old one keeps its own."""
    file, config = tmp_path / "audit.log", tmp_path / "sessiond.toml"
    config.write_text(f'[log]\naudit_file = "{file}"\n', encoding="utf-8")
    server = ServerProcess(tmp_path, "--config", str(config))
    try:
        async with stub_for(await server.address()) as stub:
            await stub.ListSessions(pb.ListSessionsRequest())
            file.rename(tmp_path / "audit.log.1")
            await stub.ListSourceLocks(pb.ListSourceLocksRequest())
            os.kill(server.process.pid, signal.SIGHUP)
            async with asyncio.timeout(20):
                while not file.exists() or not lines_of(file):  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.02)
            await stub.ListSessions(pb.ListSessionsRequest())
        assert await server.terminate() == 0
    finally:
        server.kill()
    assert [line["action"] for line in lines_of(tmp_path / "audit.log.1")] == ["ListSessions", "ListSourceLocks"]
    assert [line["action"] for line in lines_of(file)] == ["Reload", "ListSessions"]
    assert '"log": "audit"' not in server.log()
    assert file.stat().st_mode & 0o777 == 0o600


async def test_the_standard_log_has_the_lines_without_a_file(tmp_path: Path) -> None:
    """Without a file the lines are in the standard log, whatever its level."""
    address = f"unix:{tmp_path}/socket"
    server = ServerProcess(tmp_path, "--log-level", "error", listen=address)
    try:
        async with stub_for(address) as stub:
            await stub.ListSessions(pb.ListSessionsRequest(), wait_for_ready=True, timeout=20)
    finally:
        await server.terminate()
    (line,) = map(json.loads, server.log_path.read_text(encoding="utf-8").splitlines())
    assert (line["event"], line["action"], line["outcome"]) == ("audit", "ListSessions", "OK")
    assert set(line) == {"log", "time", *FIELDS.values(), "event", "level", "timestamp"}


async def test_calls_that_outlive_their_callers_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Administrative calls go on when their callers hang up, and beyond a number of them further ones are refused."""
    monkeypatch.setattr(auditing, "_MOST_RUNNING", 3)
    calls, release = AuditedCalls(), asyncio.Event()
    caller, request = Caller("ops"), pb.ListCallersRequest()

    async def slow(_: Any, __: Caller) -> pb.ListCallersResponse:
        await release.wait()
        return pb.ListCallersResponse()

    for _ in range(3):
        call = asyncio.ensure_future(calls.carry_out("ListCallers", request, caller, Role.ADMIN, slow))
        await asyncio.sleep(0)
        call.cancel()
    with pytest.raises(Overloaded, match="operators and admins"):
        await calls.carry_out("ListCallers", request, caller, Role.ADMIN, slow)
    release.set()
    await calls.finish()
    assert await calls.carry_out("ListCallers", request, caller, Role.ADMIN, slow)
