"""Fault tests: a ledger of everything that was acknowledged, and a check of what a server has afterwards."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum

import grpc

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.server import AsyncStub
from tests.support.streams import Fact, position, read, subscribe
from tests.support.tokens import revision_in

__all__ = ["OUTCOME_UNKNOWN", "Ledger", "Life", "Record", "Recovered", "Unsure", "losses", "recover", "work"]

OUTCOME_UNKNOWN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""The status of open calls when an authority ends. CANCELLED comes from gRPC, for calls that arrive as it closes."""


class Unsure(StrEnum):
    """A call that was open when the server died: nobody knows whether it was carried out."""

    REVOKE = "revoke"
    DATA = "data"
    RENEW = "renew"


@dataclass(slots=True)
class Life:
    """One session as far as it was acknowledged. `token` is the newest one that the authority issued."""

    session_id: str
    subject: str
    token: str = field(repr=False)
    generation: int = 0
    revoked: bool = False
    data: dict[str, bytes] = field(default_factory=dict)
    data_version: int = 0
    unsure: Unsure | None = None
    unsure_data: dict[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Ledger:
    """Everything that was acknowledged.

    renewals  session and generation of each acknowledged renewal, because a validation's response has no revision
    wrong     responses that were wrong at once, before any fault
    """

    lives: dict[str, Life] = field(default_factory=dict)
    facts: list[Fact] = field(default_factory=list)
    renewals: list[tuple[str, int]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def usable(self) -> list[Life]:
        """Return live sessions whose state is certain."""
        return [life for life in self.lives.values() if not life.revoked and life.unsure is None]


# The load


async def work(stub: AsyncStub, ledger: Ledger, own: list[Life], dice: random.Random) -> str:
    """Create, validate, renew, change and revoke at random until the authority is unavailable; return its error.

    Nobody else uses the sessions in `own`.
    """
    try:
        while True:
            choice = dice.random()
            if choice < 0.35 or not own:
                own.append(await _create(stub, ledger, dice))
            elif choice < 0.6:
                await _validate(stub, ledger, dice.choice(own))
            elif choice < 0.85:
                await _change_data(stub, ledger, dice.choice(own), dice)
            else:
                await _revoke(stub, ledger, own.pop(dice.randrange(len(own))))
    except grpc.aio.AioRpcError as error:
        if error.code() not in OUTCOME_UNKNOWN:
            raise
        return error.details() or ""


@contextmanager
def _in_flight(life: Life, unsure: Unsure) -> Iterator[None]:
    life.unsure = unsure
    yield
    life.unsure = None


async def _create(stub: AsyncStub, ledger: Ledger, dice: random.Random) -> Life:
    subject = f"subject-{dice.randrange(20)}"
    data = {"first": dice.randbytes(20)} if dice.random() < 0.3 else {}
    answer = await stub.CreateSession(pb.CreateSessionRequest(subject=subject, data=data))
    life = Life(answer.session.session_id, subject, answer.token, data=data, data_version=answer.session.data_version)
    ledger.lives[life.session_id] = life
    ledger.facts.append(Fact(revision_in(answer), pb.EVENT_TYPE_SESSION_CREATED, life.session_id, subject))
    return life


async def _validate(stub: AsyncStub, ledger: Ledger, life: Life) -> None:
    answer = await stub.ValidateSession(pb.ValidateSessionRequest(token=life.token))
    if answer.verdict != pb.VERDICT_VALID:
        ledger.wrong.append(f"{life} got {pb.Verdict.Name(answer.verdict)}")
    if answer.next_step == pb.NEXT_STEP_REPLACE_TOKEN:
        life.token = answer.renewed_token
        with _in_flight(life, Unsure.RENEW):
            used = await stub.ValidateSession(pb.ValidateSessionRequest(token=life.token))
        life.generation = used.session.generation
        ledger.renewals.append((life.session_id, life.generation))


async def _change_data(stub: AsyncStub, ledger: Ledger, life: Life, dice: random.Random) -> None:
    key, value = f"key-{dice.randrange(3)}", dice.randbytes(dice.randrange(1, 200))
    life.unsure_data = {**life.data, key: value}
    with _in_flight(life, Unsure.DATA):
        answer = await stub.UpdateSessionData(
            pb.UpdateSessionDataRequest(session=pb.SessionReference(token=life.token), set={key: value})
        )
    life.data, life.data_version = life.unsure_data, answer.version
    ledger.facts.append(Fact(revision_in(answer), pb.EVENT_TYPE_SESSION_DATA_CHANGED, life.session_id, life.subject))


async def _revoke(stub: AsyncStub, ledger: Ledger, life: Life) -> None:
    with _in_flight(life, Unsure.REVOKE):
        answer = await stub.RevokeSession(
            pb.RevokeSessionRequest(session=pb.SessionReference(session_id=life.session_id), reason="logout")
        )
    life.revoked = True
    ledger.facts.append(Fact(revision_in(answer), pb.EVENT_TYPE_SESSION_REVOKED, life.session_id, life.subject))
    after = await stub.ValidateSession(pb.ValidateSessionRequest(token=life.token))
    if after.verdict != pb.VERDICT_REVOKED:
        ledger.wrong.append(f"{life} got {pb.Verdict.Name(after.verdict)} after its revocation")


# What is left


@dataclass(frozen=True, slots=True)
class Record:
    """A session as the store lists it, or as the log describes it."""

    state: pb.SessionState.ValueType
    generation: int
    data_version: int


@dataclass(slots=True)
class Recovered:
    """What a server has after its restart, as its callers see it."""

    head: int
    events: list[pb.Event]
    sessions: dict[str, Record]
    verdicts: dict[str, pb.Verdict.ValueType]
    data: dict[str, dict[str, bytes]]


async def recover(stub: AsyncStub, ledger: Ledger, data_of: Sequence[Life]) -> Recovered:
    """Read a restarted server's whole log, all sessions, a verdict on each token, and the data of some sessions."""
    head = (await stub.GetAuthority(pb.GetAuthorityRequest())).revision
    stream = subscribe(stub)
    items = [await read(stream)]
    # A stream that ends early lacks events, which the check then reports.
    with suppress(grpc.aio.AioRpcError):
        while position(items[-1]) < head:
            items.append(await read(stream))
    stream.cancel()
    events = [item.event for item in items if item.HasField("event")]
    sessions: dict[str, Record] = {}
    for state in (pb.SESSION_STATE_ACTIVE, pb.SESSION_STATE_REVOKED):
        token = ""
        while True:
            page = await stub.ListSessions(
                pb.ListSessionsRequest(filter=pb.SessionFilter(state=state), page_size=1000, page_token=token)
            )
            for session in page.sessions:
                sessions[session.session_id] = Record(session.state, session.generation, session.data_version)
            if not (token := page.next_page_token):
                break

    few = asyncio.Semaphore(100)

    async def data(life: Life) -> dict[str, bytes]:
        named = pb.SessionReference(session_id=life.session_id)
        async with few:  # more calls than streams on a connection would be refused, which is not a loss
            return dict((await stub.GetSessionData(pb.GetSessionDataRequest(session=named))).data)

    found = await asyncio.gather(*map(data, data_of), return_exceptions=True)
    # Last, because it may write: a successor whose first use was lost is used here for the first time.
    verdicts: dict[str, pb.Verdict.ValueType] = {}
    lives = list(ledger.lives.values())
    for start in range(0, len(lives), 1000):
        some = lives[start : start + 1000]
        questions = [pb.ValidateSessionRequest(token=life.token, passive=True) for life in some]
        answers = await stub.ValidateSessions(pb.ValidateSessionsRequest(requests=questions))
        verdicts |= {life.session_id: a.verdict for life, a in zip(some, answers.responses, strict=True)}
    kept = {life.session_id: d for life, d in zip(data_of, found, strict=True) if not isinstance(d, BaseException)}
    return Recovered(head, events, sessions, verdicts, kept)


# The check


def losses(ledger: Ledger, recovered: Recovered, data_of: Sequence[Life]) -> list[str]:
    """Return what was acknowledged and is missing, or exists and must not; empty if nothing was lost."""
    return [
        *ledger.wrong,
        *_log_faults(ledger, recovered),
        *_store_faults(recovered),
        *(fault for life in ledger.lives.values() for fault in _life_faults(life, recovered)),
        *(fault for life in data_of for fault in _data_faults(life, recovered)),
    ]


def _log_faults(ledger: Ledger, recovered: Recovered) -> Iterator[str]:
    revisions = [event.revision for event in recovered.events]
    if revisions != list(range(1, len(revisions) + 1)):
        yield "the log has a gap or a duplicate"
    if recovered.head != (revisions[-1] if revisions else 0):
        yield f"the log's head is {recovered.head}, its last event has {revisions[-1:]}"
    log = Counter(map(Fact.of, recovered.events))
    for fact in ledger.facts:
        if log[fact] != 1:
            yield f"the acknowledged {fact} is in the log {log[fact]} times"
    renewals = Counter(
        (event.session_id, event.generation)
        for event in recovered.events
        if event.type == pb.EVENT_TYPE_SESSION_RENEWED
    )
    for renewal in ledger.renewals:
        if renewals[renewal] != 1:
            yield f"the acknowledged renewal {renewal} is in the log {renewals[renewal]} times"
    for once in (pb.EVENT_TYPE_SESSION_CREATED, pb.EVENT_TYPE_SESSION_REVOKED):
        times = Counter(event.session_id for event in recovered.events if event.type == once)
        yield from (f"{session_id} has {n} {pb.EventType.Name(once)}" for session_id, n in times.items() if n > 1)


def _store_faults(recovered: Recovered) -> Iterator[str]:
    """Return the faults of the store: its sessions must be exactly what the log says, as both commit together."""
    told: dict[str, Record] = {}
    versions = Counter(e.session_id for e in recovered.events if e.type == pb.EVENT_TYPE_SESSION_DATA_CHANGED)
    for event in recovered.events:
        ended = event.type == pb.EVENT_TYPE_SESSION_REVOKED
        state = pb.SESSION_STATE_REVOKED if ended else pb.SESSION_STATE_ACTIVE
        told[event.session_id] = Record(state, event.generation, versions[event.session_id])
    for session_id in told.keys() | recovered.sessions.keys():
        log, store = told.get(session_id), recovered.sessions.get(session_id)
        # The first data has no event of its own, and counts as a version.
        first = 1 if log and store and store.data_version == log.data_version + 1 else 0
        if log is None or store is None or store != Record(log.state, log.generation, log.data_version + first):
            yield f"{session_id}: the log tells {log}, the store has {store}"


def _life_faults(life: Life, recovered: Recovered) -> Iterator[str]:
    record = recovered.sessions.get(life.session_id)
    verdict = recovered.verdicts.get(life.session_id, pb.VERDICT_UNSPECIFIED)
    if record is None:
        yield f"the acknowledged {life} is lost"
        return
    revoked = record.state == pb.SESSION_STATE_REVOKED
    if life.revoked and not (revoked and verdict == pb.VERDICT_REVOKED):
        yield f"the revoked {life} lives: {record}, {pb.Verdict.Name(verdict)}"
    if not life.revoked and revoked and life.unsure is not Unsure.REVOKE:
        yield f"nobody revoked {life}, yet {record}"
    if not revoked and verdict != pb.VERDICT_VALID:
        yield f"the token of {life} is {pb.Verdict.Name(verdict)}"
    if record.generation - life.generation not in ((0, 1) if life.unsure is Unsure.RENEW else (0,)):
        yield f"{life} has generation {record.generation}"
    if record.data_version - life.data_version not in ((0, 1) if life.unsure is Unsure.DATA else (0,)):
        yield f"{life} has data version {record.data_version}"


def _data_faults(life: Life, recovered: Recovered) -> Iterator[str]:
    record = recovered.sessions.get(life.session_id)
    if record is None or record.state == pb.SESSION_STATE_REVOKED:
        return
    carried_out = life.unsure is Unsure.DATA and record.data_version == life.data_version + 1
    if recovered.data.get(life.session_id) != (life.unsure_data if carried_out else life.data):
        yield f"{life} lost data"
