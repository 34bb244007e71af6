"""Known tokens are let loose on a real authority, and looked for wherever they must not be."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import traceback
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from sessiond.crypto.key_file import load_key_ring
from sessiond.crypto.tokens import KeyRing, TokenForged, TokenMalformed
from sessiond.domain.values import SessionId
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.canary import Canary
from tests.support.clock import ManualClock
from tests.support.programs import start_program
from tests.support.server import AsyncStub, ServerProcess, config_for, serving, stub_for
from tests.support.streams import read_up_to, subscribe

POLICY = """
[applications.default]
renewal_timeout = "60ms"
renewal_overlap = "50ms"
guessing = { alarm_after = 3, lock_after = 5 }
[applications.other]
[applications.few]
max_sessions = 1
on_limit = "ask"
"""
DATA_VALUE = "canary-value-of-session-data"
_RUN = "\nfrom sessiond.cli import main\nmain(sys.argv[4:])\n"
FAULTY = (
    """
import sys
import sessiond.authority.validation as validation
from sessiond.changes.idempotency import Idempotent
judge, unmet, once = validation.judge, validation.unmet, Idempotent.apply
def faulty(session, presented, policy, now):
    if session.subject == "explode":
        raise RuntimeError(f"induced: {session!r} {presented!r} {policy!r} {now!r}")
    return judge(session, presented, policy, now)
def faulty_unmet(keys, opened, session, requirements, policy, now):
    if session.subject == "explode later":
        raise RuntimeError(f"induced: {requirements!r} {opened!r} {keys!r} {session!r}")
    return unmet(keys, opened, session, requirements, policy, now)
def faulty_once(self, work):
    login = getattr(self.unit, "login", None)
    if login is not None and login.subject == "explode at once":
        raise RuntimeError(f"induced: {self!r} {work!r} {vars(work)!r}")
    return once(self, work)
validation.judge, validation.unmet, Idempotent.apply = faulty, faulty_unmet, faulty_once
"""
    + _RUN
)
"""Serves with a fault of ours inside that tells all it has in hand."""
TALKATIVE = (
    """
import sys, structlog
from sessiond.authority.validation import Validation
immediate_result = Validation.immediate_result
def talkative(self, question):
    structlog.get_logger().info("validating", token=question.token.reveal()[:20] + "...")
    return immediate_result(self, question)
Validation.immediate_result = talkative
"""
    + _RUN
)
"""Protection off: serves with a log line that shows the beginning of each token."""
CARELESS = "\nimport sys\nimport sessiond.authority.logins as logins\nlogins.digest = lambda secret: secret\n" + _RUN
"""Protection off: serves from a store that holds secrets where their digests should be."""
OPEN_ANSWERS = (
    """
import sys
import sessiond.crypto.kept_answers as kept_answers
from sessiond.crypto.tokens import KeyRing
class Nothing:
    encrypt = staticmethod(lambda plain, data: plain)
kept_answers._cipher = lambda secret: Nothing
KeyRing.protect = lambda self, plain, purpose, right=KeyRing.protect: (
    plain if b"answer" in purpose else right(self, plain, purpose)
)
"""
    + _RUN
)
"""Protection off: serves from a store that holds the answers kept for repeats as they are."""


class Story:
    """One caller who meets every verdict and many refusals, and keeps everything that is said apart from tokens."""

    def __init__(self, stub: AsyncStub, canary: Canary) -> None:
        self.stub = stub
        self.canary = canary
        self.said: list[bytes | str] = []
        self.codes: set[grpc.StatusCode] = set()
        self.verdicts: set[pb.Verdict.ValueType] = set()
        self.cookies = 0
        self.data_brought: list[bytes] = []

    async def ask(self, call: Awaitable[Any]) -> Any:
        """Make a call: tokens in the answer become canaries, all the rest of it, errors included, is kept."""
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            metadata = [*(error.trailing_metadata() or ()), *(error.initial_metadata() or ())]
            self.said += [error.details() or "", error.debug_error_string() or "", repr(error), repr(metadata)]
            self.said += [value for _, value in metadata]
            self.codes.add(error.code())
            return None
        rest = type(answer)()
        rest.CopyFrom(answer)
        self.take_secrets(rest)
        self.keep(rest)
        return answer

    def take_secrets(self, message: Any) -> None:
        """Take what the contract calls a secret out of an answer: each is a canary from now on."""
        names = message.DESCRIPTOR.fields_by_name
        for name in ("token", "renewed_token", "csrf_token", "companion_token", "ticket"):
            if name in names and (token := getattr(message, name)):
                self.canary.know_token(token)
                message.ClearField(name)
        if "data" in names:
            self.take_data(message.data.values if isinstance(message.data, pb.SessionData) else message.data)
            message.ClearField("data")
        for name in ("cookies", "limit"):
            if name in names and message.HasField(name):
                self.take_secrets(getattr(message, name))
        for line in message.set_cookie if "set_cookie" in names else ():
            if value := line.partition("=")[2].partition(";")[0]:
                self.canary.know_token(value)
                self.cookies += 1
        if "set_cookie" in names:
            message.ClearField("set_cookie")
        for response in message.responses if "responses" in names else ():
            self.take_secrets(response)
        if "verdict" in names:
            self.verdicts.add(message.verdict)

    def take_data(self, values: Mapping[str, bytes]) -> None:
        """Note session data that an answer brought along, as it was asked to: nothing else may show it."""
        self.data_brought += [value for value in values.values() if value == DATA_VALUE.encode()]

    def fresh_id(self) -> str:
        """An id for a call that may be repeated."""
        return self.canary.know_id(str(uuid.uuid4()))

    def keep(self, message: Message) -> None:
        """Keep a message."""
        self.said += [message.SerializeToString(), str(message)]

    async def validate(self, token: str) -> pb.ValidateSessionResponse:
        """Present a token."""
        self.canary.know_token(token)
        question = pb.ValidateSessionRequest(token=token, client=pb.ClientContext(ip_address="192.0.2.7"))
        answer = await self.ask(self.stub.ValidateSession(question))
        assert isinstance(answer, pb.ValidateSessionResponse)
        return answer

    async def live(self, foreign_token: str) -> None:
        """From a guest to the end: renewed, replayed, logged in, rolled, refreshed, revoked; and all that is wrong."""
        stub, ask = self.stub, self.ask
        guest = await ask(stub.CreateSession(pb.CreateSessionRequest(data={"cart": DATA_VALUE.encode()})))
        renewed = ""
        while not renewed:
            await asyncio.sleep(0.01)
            renewed = (await self.validate(guest.token)).renewed_token
        await self.validate(renewed)
        verdict = pb.VERDICT_VALID
        while verdict != pb.VERDICT_REPLAYED:
            await asyncio.sleep(0.01)
            verdict = (await self.validate(guest.token)).verdict
        await self.validate(renewed)  # revoked by the replay
        guest = await ask(stub.CreateSession(pb.CreateSessionRequest(data={"cart": DATA_VALUE.encode()})))
        login = await self.log_in(guest.token)
        rolled = await ask(stub.RollSession(pb.RollSessionRequest(token=login.token, reason="password")))
        await ask(stub.RefreshSession(pb.RefreshSessionRequest(token=rolled.token)))
        await ask(
            stub.ValidateSession(pb.ValidateSessionRequest(token=rolled.token, application="other"))
        )  # unknown there
        reference = pb.SessionReference(token=rolled.token)
        await ask(stub.UpdateSessionData(pb.UpdateSessionDataRequest(session=reference, set={"cart": b"x"})))
        await ask(
            stub.UpdateSessionData(
                pb.UpdateSessionDataRequest(session=reference, set={"cart": b"x"}, expected_version=77)
            )
        )
        await self.meet_requirements(rolled.token, rolled.csrf_token)
        await self.choose()
        await self.repeat_calls()
        await self.present_what_was_never_issued(rolled.token, foreign_token)
        await self.put_tokens_in_the_wrong_place(rolled.token)
        await self.explode()
        await ask(stub.ReportSignal(pb.ReportSignalRequest(session=reference, reason="odd")))
        await ask(stub.RevokeSession(pb.RevokeSessionRequest(session=reference, reason="logout")))
        await self.validate(rolled.token)
        await self.look()

    async def log_in(self, guest: str) -> Any:
        """A login that is clicked twice, another that is not the same, and logins whatever the token is worth."""
        stub, ask = self.stub, self.ask
        request = pb.AuthenticateSessionRequest(
            token=guest, subject="ada", reason="login", labels={"device": "laptop"}, or_create=True
        )
        login, again = await ask(stub.AuthenticateSession(request)), await ask(stub.AuthenticateSession(request))
        assert login == again
        assert login.token
        whole = pb.DataRequest()
        question = pb.ValidateSessionRequest(token=login.token, data=whole)
        assert (await ask(stub.ValidateSession(question))).data.values["cart"] == DATA_VALUE.encode()
        await ask(stub.ValidateSessions(pb.ValidateSessionsRequest(requests=[question, question])))
        reference = pb.SessionReference(token=login.token)
        await ask(stub.UpdateSessionData(pb.UpdateSessionDataRequest(session=reference, set={"n": b"1"}, data=whole)))
        await ask(stub.GetSessionData(pb.GetSessionDataRequest(session=reference)))
        for token in ("", guest, login.token, "canary-of-no-tokens-form", login.token[:-1]):  # dead, or another's
            request = pb.AuthenticateSessionRequest(token=token, subject="eve", or_create=True)
            await ask(stub.AuthenticateSession(request))
        guest = (await ask(stub.CreateSession(pb.CreateSessionRequest(data={"cart": DATA_VALUE.encode()})))).token
        request = pb.AuthenticateSessionRequest(token=guest, subject="ada", labels={"device": "laptop"})
        login = await ask(stub.AuthenticateSession(request))
        await self.validate(guest)  # superseded
        return login

    async def meet_requirements(self, token: str, csrf: str) -> None:
        """A companion token and a CSRF token: right, wrong, of another session, and none."""
        stub, ask = self.stub, self.ask
        companion = (
            await ask(stub.IssueCompanionToken(pb.IssueCompanionTokenRequest(token=token, purpose="pay", path="/pay")))
        ).companion_token
        victim = await ask(stub.CreateSession(pb.CreateSessionRequest(subject="eve")))
        strange = await ask(stub.IssueCompanionToken(pb.IssueCompanionTokenRequest(token=victim.token, purpose="pay")))
        pairs = [(token, companion, csrf), (token, "", ""), (token, csrf, companion), (token, "x" * 96, "x" * 43)]
        pairs.append((victim.token, companion, csrf))  # two cookies that never were together: a signal
        for session, one, other in pairs:
            requirements = pb.Requirements(
                companion=pb.CompanionRequirement(purpose="pay", companion_token=one),
                csrf=pb.CsrfRequirement(csrf_token=other),
            )
            question = pb.ValidateSessionRequest(
                token=session, requirements=requirements, with_csrf_token=True, data=pb.DataRequest()
            )
            await ask(stub.ValidateSession(question))
            await ask(stub.ValidateSessions(pb.ValidateSessionsRequest(requests=[question, question])))
        for wrong in (companion, strange.companion_token, csrf):
            await self.validate(wrong)  # each kind of token is good for its own purpose alone

    async def choose(self) -> None:
        """The limit stands in the way: a ticket, used well, used twice, and presented elsewhere."""
        stub, ask = self.stub, self.ask
        request = pb.CreateSessionRequest(application="few", subject="ada")
        await ask(stub.CreateSession(request))
        limit = (await ask(stub.CreateSession(request))).limit
        request.ticket = limit.ticket
        await ask(stub.CreateSession(request))  # names nobody to end
        request.evict_session_ids.append(limit.live_sessions[0].session_id)
        await ask(stub.CreateSession(request))
        await ask(stub.CreateSession(request))
        request.subject = "bob"
        await ask(stub.CreateSession(request))
        await self.validate(limit.ticket)

    async def repeat_calls(self) -> None:
        """Calls that may be repeated: repeated, mistaken, and with ids that are none."""
        stub, ask = self.stub, self.ask
        request = pb.CreateSessionRequest(subject="ada", request_id=self.fresh_id())
        first, again = await ask(stub.CreateSession(request)), await ask(stub.CreateSession(request))
        assert first == again
        request.subject = "bob"
        await ask(stub.CreateSession(request))
        request.request_id = request.request_id.upper()
        self.canary.know_text("request id", request.request_id)
        await ask(stub.CreateSession(request))
        roll = pb.RollSessionRequest(token=first.token, request_id=self.fresh_id(), reason="role")
        assert (await ask(stub.RollSession(roll))) == (await ask(stub.RollSession(roll)))
        revoke = pb.RevokeSessionRequest(
            session=pb.SessionReference(session_id=first.session.session_id),
            request_id=self.fresh_id(),
            open_anonymous=True,
        )
        assert (await ask(stub.RevokeSession(revoke))) == (await ask(stub.RevokeSession(revoke)))
        await ask(stub.CreateSession(pb.CreateSessionRequest(subject="explode at once", request_id=self.fresh_id())))

    async def present_what_was_never_issued(self, token: str, foreign_token: str) -> None:
        """Forged and malformed tokens."""
        middle = "A" if token[35] != "A" else "B"
        forged = [
            token[:35] + middle + token[36:],
            urlsafe_b64encode(os.urandom(52)).decode().rstrip("="),
            foreign_token,
        ]
        malformed = [
            "canary-of-no-tokens-form",
            token + "A",
            token[:-1],
            "canary/with+strange=signs" * 3,
            "\u2603" * 70,
        ]
        for wrong in (*forged, *malformed):
            await self.validate(wrong)
            reference = pb.SessionReference(token=wrong)
            await self.ask(self.stub.RevokeSession(pb.RevokeSessionRequest(session=reference)))
            await self.ask(self.stub.GetSessionData(pb.GetSessionDataRequest(session=reference)))
            await self.ask(self.stub.RollSession(pb.RollSessionRequest(token=wrong)))

    async def put_tokens_in_the_wrong_place(self, token: str) -> None:
        """A token where a name, a cursor, an address or a message should be: refused, and never repeated."""
        stub, ask = self.stub, self.ask
        await ask(stub.GetSession(pb.GetSessionRequest(session=pb.SessionReference(session_id=token))))
        await ask(stub.ListSessions(pb.ListSessionsRequest(page_token=token)))
        await ask(stub.ListSessions(pb.ListSessionsRequest(filter=pb.SessionFilter(ip_network=token))))
        await ask(stub.ListActivity(pb.ListActivityRequest(subject="ada", page_token=token)))
        await ask(stub.ValidateSession(pb.ValidateSessionRequest(application=token, token=token)))
        await ask(
            stub.ValidateSession(pb.ValidateSessionRequest(token=token, client=pb.ClientContext(ip_address=token)))
        )
        await ask(
            stub.AuthenticateSession(
                pb.AuthenticateSessionRequest(
                    token=token, subject="ada", authentication=pb.Authentication(methods=[token + " "])
                )
            )
        )
        await ask(stub.RollSession(pb.RollSessionRequest(token=token, request_id=token)))
        await ask(stub.ValidateSession(pb.ValidateSessionRequest(token=token, at_least=token)))
        await ask(stub.CreateSession(pb.CreateSessionRequest(subject="ada", labels={token: "x"})))
        await ask(stub.ListSessions(pb.ListSessionsRequest(filter=pb.SessionFilter(labels={token: "x"}))))
        await ask(
            stub.RevokeSession(
                pb.RevokeSessionRequest(session=pb.SessionReference(session_id=token), subject=token, reason="odd")
            )
        )
        await ask(stub.IssueCompanionToken(pb.IssueCompanionTokenRequest(token=token, purpose=token)))
        await ask(stub.IssueCompanionToken(pb.IssueCompanionTokenRequest(token=token, purpose="p", path=token)))
        await ask(stub.CreateSession(pb.CreateSessionRequest(subject="ada", ticket=token)))
        await ask(stub.CreateSession(pb.CreateSessionRequest(subject="ada", evict_session_ids=[token])))
        await ask(stub.ClearSourceLock(pb.ClearSourceLockRequest(source=token)))
        await ask(stub.ListSourceLocks(pb.ListSourceLocksRequest(page_token=token)))
        await ask(stub.ReportSignal(pb.ReportSignalRequest(session=pb.SessionReference(session_id=token))))
        await ask(stub.Subscribe(pb.SubscribeRequest(cursor=token)).read())
        await ask(stub.GetAuthority(pb.GetAuthorityRequest(), metadata=[("authorization", f"Bearer {token}")]))

    async def explode(self) -> None:
        """Meet the induced fault, by one token and by a batch."""
        doomed = await self.ask(self.stub.CreateSession(pb.CreateSessionRequest(subject="explode")))
        question = pb.ValidateSessionRequest(token=doomed.token)
        await self.ask(self.stub.ValidateSession(question))
        await self.ask(self.stub.ValidateSessions(pb.ValidateSessionsRequest(requests=[question, question])))
        doomed = await self.ask(self.stub.CreateSession(pb.CreateSessionRequest(subject="explode later")))
        requirements = pb.Requirements(csrf=pb.CsrfRequirement(csrf_token=doomed.csrf_token))
        question = pb.ValidateSessionRequest(token=doomed.token, requirements=requirements)
        await self.ask(self.stub.ValidateSession(question))
        guest = await self.ask(self.stub.CreateSession(pb.CreateSessionRequest(data={"cart": DATA_VALUE.encode()})))
        request = pb.AuthenticateSessionRequest(token=guest.token, subject="explode at once")
        await self.ask(self.stub.AuthenticateSession(request))

    async def look(self) -> None:
        """Keep every event, and whatever else can be listed."""
        stub = self.stub
        head = (await self.ask(stub.GetAuthority(pb.GetAuthorityRequest()))).revision
        stream = subscribe(stub)
        for item in await read_up_to(stream, head):
            self.keep(item)
        stream.cancel()
        for state in (pb.SESSION_STATE_ACTIVE, pb.SESSION_STATE_REVOKED):
            await self.ask(stub.ListSessions(pb.ListSessionsRequest(filter=pb.SessionFilter(state=state))))
        labelled = pb.SessionFilter(labels={"device": "laptop"}, state=pb.SESSION_STATE_REVOKED)
        assert (await self.ask(stub.ListSessions(pb.ListSessionsRequest(filter=labelled)))).sessions
        await self.ask(stub.ListActivity(pb.ListActivityRequest(subject="ada")))
        locks = await self.ask(stub.ListSourceLocks(pb.ListSourceLocksRequest()))
        assert [lock.source for lock in locks.source_locks] == ["192.0.2.7/32"]


def of_process(pid: int) -> bytes:
    """What any process of the same user can read of another one: its arguments and its environment."""
    folder = Path(f"/proc/{pid}")
    return (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()


def files_of(folder: Path) -> list[Path]:
    """Everything in a data folder but the key file."""
    return [file for file in folder.iterdir() if file.name != "sessiond.key"]


@pytest.fixture
def foreign_token(tmp_path: Path) -> str:
    """A good token of another authority."""
    keys = load_key_ring(tmp_path / "foreign.key", os.urandom)
    return keys.seal(SessionId(os.urandom(16)), 0, os.urandom(16)).reveal()


@pytest.mark.parametrize("form", ["json", "console"])
async def test_no_token_leaves_by_any_other_way(tmp_path: Path, form: str, foreign_token: str) -> None:
    """No token, request id, secret or key is in a log, audit line, event, error, database, argument or environment."""
    canary = Canary()
    audit = tmp_path / "audit.log"
    settings = f'[log]\naudit_file = "{audit}"\n' if form == "json" else ""
    (tmp_path / "sessiond.toml").write_text(POLICY + settings, encoding="utf-8")
    arguments = ("--config", str(tmp_path / "sessiond.toml"), "--log-level", "debug", "--log-format", form)
    server = ServerProcess(tmp_path, *arguments, prefix=(sys.executable, "-c", FAULTY))
    try:
        address = await _address(server, form)
        canary.know_key_file(tmp_path / "data" / "sessiond.key")
        async with stub_for(address) as stub:
            story = Story(stub, canary)
            await story.live(foreign_token)
        leaks = canary.found_in_files(files_of(tmp_path / "data"))  # while the log of the database is there
        leaks += canary.found_in("the server's process", of_process(server.process.pid))
        assert (tmp_path / "data" / "sessiond.db-wal").exists()
        assert await server.terminate() == 0
    finally:
        server.kill()
    log = server.log_path.read_bytes()
    audited = audit.read_bytes() if audit.exists() else log
    leaks += canary.found_in_files(files_of(tmp_path / "data"))
    leaks += canary.found_in("what callers are told", *story.said)
    canary.know_text("session data", DATA_VALUE)  # stored, but never told
    leaks += canary.found_in("the log", log)
    leaks += canary.found_in("the audit log", audited)
    leaks += canary.found_in("what callers are told", *story.said)
    assert leaks == []
    # The story met what it was to meet, and the searched places hold what they should.
    assert {pb.VERDICT_REPLAYED, pb.VERDICT_SUPERSEDED, pb.VERDICT_FORGED, pb.VERDICT_MALFORMED} <= story.verdicts
    assert {pb.VERDICT_VALID, pb.VERDICT_UNKNOWN, pb.VERDICT_REVOKED, pb.VERDICT_INSUFFICIENT} <= story.verdicts
    for action in (b"RevokeSession", b"ListSessions", b"ClearSourceLock", b"ListSourceLocks"):
        assert action in audited, "calls with tokens in the wrong place have audit lines"
    assert b" characters, SHA-256 " in audited
    assert audit.exists() == (form == "json")
    assert story.cookies > 10
    assert len(story.data_brought) == 5
    assert {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL} <= story.codes
    assert log.count(b"RuntimeError: induced: Session(") >= 2
    assert b"RuntimeError: induced: Idempotent(" in log
    assert log.count(b"RuntimeError: induced: Idempotent(unit=Authenticate(") == 1
    assert b"RuntimeError: induced: Requirements(" in log
    assert b"Traceback" in log
    assert len(canary.tokens) > 20


async def _address(server: ServerProcess, form: str) -> str:
    """Where a server serves, from its log in either form."""
    if form == "json":
        return await server.address()
    while "address=" not in server.log():
        assert server.process.poll() is None, server.log()
        await asyncio.sleep(0.02)
    return server.log().partition("address=")[2].split()[0]


async def test_only_the_digest_of_a_secret_is_stored(tmp_path: Path) -> None:
    """The search in the database's bytes would find a secret: it finds its digest."""
    async with serving(config_for(tmp_path)) as app, stub_for(app.address) as stub:
        token = (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))).token
        keys = load_key_ring(tmp_path / "data" / "sessiond.key", os.urandom)
        secret = keys.open(token)._secret
        stored = b"".join(file.read_bytes() for file in files_of(tmp_path / "data"))
    assert sha256(secret).digest() in stored
    assert secret not in stored


async def test_no_object_of_ours_shows_a_secret(tmp_path: Path, clock: ManualClock, foreign_token: str) -> None:
    """Whatever any function of the server has in hand during a whole story, its repr, str and format show no secret."""
    canary = Canary()
    shown: set[str] = set()
    types: set[str] = set()

    def watch(frame: FrameType, event: str, argument: object) -> None:
        if event not in ("call", "return") or not frame.f_globals.get("__name__", "").startswith("sessiond."):
            return
        if event == "call" and frame.f_code.co_name == "__init__":
            return  # nothing can be shown of what is not made yet
        for value in (*frame.f_locals.values(), argument):
            kind = type(value)
            if kind.__module__.startswith("sessiond.") or isinstance(value, BaseException):
                types.add(kind.__name__)
                sys.setprofile(None)  # their own reprs are not watched
                try:
                    shown.update((repr(value), str(value), f"{value}"))
                finally:
                    sys.setprofile(watch)

    async with serving(config_for(tmp_path, POLICY), clock) as app, stub_for(app.address) as stub:
        canary.know_key_file(tmp_path / "data" / "sessiond.key")
        story = Story(stub, canary)
        ticking = asyncio.create_task(_tick(clock))
        sys.setprofile(watch)
        try:
            await story.live(foreign_token)
        finally:
            sys.setprofile(None)
            ticking.cancel()
    assert canary.found_in("a repr", *shown) == []
    assert {"Token", "OpenedToken", "Presented", "Session", "Use", "Roll", "ValidationResult", "ChangeResult"} <= types
    assert {"KeyRing", "Work", "Changes", "Decision", "Read", "Entry", "Event", "Commit", "InvalidField"} <= types
    assert {"Question", "Requirements", "DataRequest", "VersionedData", "SealedValues", "Caller", "Call"} <= types
    assert {"Companion", "Ticket", "TicketChoice", "Choice", "Login", "Limit"} <= types
    assert {
        "AnswerSpec",
        "RequestId",
        "Retry",
        "EncodedAnswer",
        "Idempotent",
        "Recall",
        "KeptAnswer",
        "RevocationResult",
    } <= types
    assert {"Authenticate", "OpenInstead", "Create", "UpdateData"} <= types


async def _tick(clock: ManualClock) -> None:
    while True:
        await asyncio.sleep(0.005)
        clock.advance(5)


def test_no_exception_about_a_token_shows_it() -> None:
    """A traceback of what a token is refused with, causes and contexts included, holds nothing of the token."""
    canary = Canary()
    keys = KeyRing([os.urandom(64)])
    texts = [urlsafe_b64encode(os.urandom(52)).decode().rstrip("="), "canary-of-no-tokens-form" * 3]
    texts += ["\u2603" * 70, "canary/+" * 8 + "canary", "x" * 69 + "!"]
    for text in texts:
        canary.know_token(text)
        with pytest.raises((TokenForged, TokenMalformed)) as refusal:
            keys.open(text)
        told = "".join(traceback.format_exception(refusal.value))
        assert canary.found_in("a traceback", told, repr(refusal.value), repr(refusal.value.args)) == []


async def test_sessionctl_shows_its_token_to_no_other_process(tmp_path: Path) -> None:
    """While sessionctl waits for its answer, token in hand, its arguments and environment do not hold it."""
    canary = Canary()
    server = ServerProcess(tmp_path)
    try:
        address = await server.address()
        async with stub_for(address) as stub:
            token = canary.know_token((await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))).token)
        operator = await start_program(
            *(
                sys.executable,
                "-m",
                "sessionctl",
                "validate",
                "--target",
                address,
                "--timeout",
                "20",
                "--json",
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert operator.stdin is not None
        os.kill(server.process.pid, signal.SIGSTOP)  # an authority that takes its time
        try:
            operator.stdin.write(token.encode() + b"\n")
            await operator.stdin.drain()
            while not _is_connected(operator.pid):
                assert operator.returncode is None
                await asyncio.sleep(0.02)
            seen = of_process(operator.pid)
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        output, _ = await operator.communicate()
        assert operator.returncode == 0, output
        assert b"sessionctl" in seen
        assert canary.found_in("sessionctl's process", seen) == []
        assert canary.found_in("sessionctl's output", output) == []
    finally:
        server.kill()


def _is_connected(pid: int) -> bool:
    """Whether a process has opened a socket: sessionctl reads its token before it connects."""
    try:
        return any("socket:" in os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return False


# The canary can sing


async def validate_one(story: Story) -> None:
    """A session, and one validation."""
    created = await story.ask(story.stub.CreateSession(pb.CreateSessionRequest(subject="ada")))
    await story.validate(created.token)


async def create_with_an_id(story: Story) -> None:
    """A call whose answer is kept because it has a request id."""
    request = pb.CreateSessionRequest(subject="ada", request_id=story.fresh_id())
    await story.ask(story.stub.CreateSession(request))


async def log_in_without_an_id(story: Story) -> None:
    """A login, whose answer is kept because it is one."""
    guest = await story.ask(story.stub.CreateSession(pb.CreateSessionRequest()))
    await story.ask(story.stub.AuthenticateSession(pb.AuthenticateSessionRequest(token=guest.token, subject="ada")))


@pytest.mark.parametrize(
    ("script", "story_of", "place"),
    [
        (TALKATIVE, validate_one, "token text in server.log"),
        (CARELESS, validate_one, "secret in sessiond.db-wal"),
        (OPEN_ANSWERS, create_with_an_id, "token text in sessiond.db-wal"),
        (OPEN_ANSWERS, log_in_without_an_id, "token text in sessiond.db-wal"),
    ],
    ids=["in a log line", "in the place of a digest", "in a kept answer", "in a kept login"],
)
async def test_a_planted_leak_is_found(
    tmp_path: Path, script: str, story_of: Callable[[Story], Awaitable[None]], place: str
) -> None:
    """With a token cut short in a log line, secrets stored for digests or answers as they are, the search finds it."""
    canary = Canary()
    server = ServerProcess(tmp_path, prefix=(sys.executable, "-c", script))
    try:
        async with stub_for(await server.address()) as stub:
            await story_of(Story(stub, canary))
        canary.know_key_file(tmp_path / "data" / "sessiond.key")
        assert place in canary.found_in_files([server.log_path, *files_of(tmp_path / "data")])
    finally:
        server.kill()


@pytest.mark.parametrize(
    "leak",
    [
        lambda token, secret, key: token,
        lambda token, secret, key: f'{{"token": "{token[:16]}..."}}',
        lambda token, secret, key: f"...{token[-15:]}",
        lambda token, secret, key: secret,
        lambda token, secret, key: secret.hex(),
        lambda token, secret, key: repr(secret),
        lambda token, secret, key: urlsafe_b64encode(secret),
        lambda token, secret, key: key.hex(),
        lambda token, secret, key: key,
    ],
    ids=["text", "beginning", "end", "secret", "its hex", "its repr", "its base64", "key hex", "key"],
)
def test_each_spelling_of_a_secret_is_found(tmp_path: Path, leak: Any) -> None:
    """A secret is found in the middle of other bytes, however it is spelled; and where it is not, nothing is."""
    canary, secret = Canary(), os.urandom(16)
    keys = load_key_ring(tmp_path / "sessiond.key", os.urandom)
    key = bytes.fromhex((tmp_path / "sessiond.key").read_text(encoding="ascii"))
    token = canary.know_token(keys.seal(SessionId(os.urandom(16)), 3, secret).reveal())
    canary.know_key_file(tmp_path / "sessiond.key")
    planted = leak(token, secret, key)
    raw = planted.encode() if isinstance(planted, str) else planted
    assert canary.found_in("a file", b"before" + raw + b"after") != []
    assert canary.found_in("a file", b"before" + os.urandom(500) + b"after") == []
