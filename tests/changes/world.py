"""A small world in which every unit of `sessiond.changes` is carried out at random, over a store that is watched."""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

import sessiond.changes
from sessiond.changes.callers import AddCaller, ChangeCertificates, RemoveCaller, RotateCaller
from sessiond.changes.data import UpdateData
from sessiond.changes.idempotency import Idempotent, Recall
from sessiond.changes.judging import EndBatch, OpenedSessionRef, Outcome, Suspicion
from sessiond.changes.key_ring import (
    AddSealingKey,
    PromoteSealingKey,
    ReconcileKeys,
    RecordKeys,
    RemoveSealingKey,
    RetireSealingKey,
)
from sessiond.changes.limits import Choice
from sessiond.changes.login import Authenticate, Create, OpenInstead, Refresh, Roll
from sessiond.changes.maintenance import Expire, ForgetAnswers, Prune, PruneLog, RecordOther, SaveActivity, Total
from sessiond.changes.revocation import Revocation, Revoke, RevokeMany
from sessiond.changes.sources import Unlock
from sessiond.changes.use import Report, Use
from sessiond.domain.access import EVERYTHING, Credential, CredentialKind, Role
from sessiond.domain.call import Call, Caller
from sessiond.domain.errors import AuthorityError
from sessiond.domain.event import Event, EventType
from sessiond.domain.judge import Presented, Verdict
from sessiond.domain.lifecycle import idle_deadline
from sessiond.domain.login import Login
from sessiond.domain.policy import PRESETS, LimitRule, Policy
from sessiond.domain.session import Session
from sessiond.domain.signals import Reaction, Signal, SignalType
from sessiond.domain.values import (
    NOBODY,
    Cause,
    CauseKind,
    ClientContext,
    Instant,
    Lifetimes,
    Millis,
    Revision,
    SessionId,
)
from sessiond.eventlog.work import Done, Unit
from sessiond.store.contract import Changes, Decision, Head, Store, Transaction
from tests.contracts import samples
from tests.contracts.journal import SIGNAL, Replica, retry

__all__ = ["DRIVERS", "WatchedStore", "World", "units_of_the_server"]

T = TypeVar("T")
SECOND = 1_000
SUBJECTS = ("", "ada", "bob")
CLIENTS = (ClientContext("192.0.2.1", "Firefox"), ClientContext("198.51.100.7", "Safari"), NOBODY)
_MEMORY = 15
"""So many sessions are looked at after each step."""
INSTANTS = (0, 0, 1, 900)
PAUSES = (4 * SECOND, 4 * SECOND, 9 * SECOND, 25 * SECOND, 70 * SECOND, 300 * SECOND)


def _policy(max_sessions: int, on_limit: LimitRule, **reactions: Reaction) -> Policy:
    changed = {SignalType(name): reaction for name, reaction in reactions.items()}
    return Policy(
        preset="owasp-low",
        idle_timeout=Millis(60 * SECOND),
        absolute_timeout=Millis(240 * SECOND),
        renewal_timeout=Millis(20 * SECOND),
        renewal_overlap=Millis(10 * SECOND),
        roll_tolerance=Millis(5 * SECOND),
        lost_answer_tolerance=Millis(30 * SECOND),
        retention=Millis(100 * SECOND),
        login_timeout=Millis(30 * SECOND),
        remember_idle_timeout=Millis(600 * SECOND),
        remember_absolute_timeout=Millis(900 * SECOND),
        elevation_timeout=Millis(15 * SECOND),
        max_sessions=max_sessions,
        on_limit=on_limit,
        refresh_extends_lifetime=max_sessions > 2,
        fold_window=Millis(50 * SECOND),
        max_data_bytes=40,
        reactions=MappingProxyType({**PRESETS["owasp-low"].reactions, **changed}),
    )


POLICIES = {
    "shop": _policy(2, LimitRule.EVICT_OLDEST, token_replay=Reaction.ALERT, user_agent_change=Reaction.ALERT),
    "bank": _policy(
        2, LimitRule.ASK, token_replay=Reaction.STEP_UP, user_agent_change=Reaction.STEP_UP, reported=Reaction.STEP_UP
    ),
    "club": _policy(
        3, LimitRule.REJECT, token_replay=Reaction.REVOKE_SUBJECT, user_agent_change=Reaction.REVOKE_SESSION
    ),
    "news": _policy(0, LimitRule.REJECT, token_replay=Reaction.REVOKE_SESSION, reported=Reaction.REVOKE_SESSION),
}


def at_rest(session: Session) -> Session:
    """The session without what activity alone changes, and without its revision."""
    plain = replace(session, last_active=session.created, idle_deadline=None, last_client=NOBODY)
    return replace(plain, revision=samples.session().revision)


class WatchedStore:
    """The real store; what it is given to write is looked at first. `faults` says what is wrong with it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.authority_id = store.authority_id
        self.incarnations = store.incarnations
        self.faults: list[str] = []
        self.written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, decide: Callable[[Transaction], Awaitable[Decision[T]]], *, quiet: bool = False) -> T:
        """One write."""

        async def watched(transaction: Transaction) -> Decision[T]:
            decision = await decide(transaction)
            before = await transaction.sessions(list(decision.changes.sessions))
            self.faults += faults_of(transaction.head, dict(before), decision.changes)
            self.written += len(decision.changes.sessions)
            return decision

        return await self._store.write(watched, quiet=quiet)


def faults_of(head: Head, before: dict[SessionId, Session], changes: Changes) -> Iterator[str]:
    """Each session that is written without an event of its own, and whatever else followers would not hear of."""
    revisions = [event.revision for event in changes.events]
    if revisions != list(range(head.revision + 1, head.revision + 1 + len(revisions))):
        yield f"events {revisions} do not follow the head {head.revision}"
    for session_id, session in changes.sessions.items():
        own = [event.revision for event in changes.events if event.session_id == session_id]
        if session.revision not in own:
            yield f"session {session_id} is written at revision {session.revision}, its events are {own}"
        if session_id in before and before[session_id].ending is not None:
            yield f"session {session_id} has ended and is written again"
    for session_id in changes.data.keys() - changes.sessions.keys():
        yield f"the data of session {session_id} is written, and the session is not"
    for session_id in changes.activity.keys() & changes.sessions.keys():
        if changes.activity[session_id].at < changes.sessions[session_id].last_active:
            yield f"the activity of session {session_id} would move backwards"


def units_of_the_server() -> set[type]:
    """Every unit of work that the server has."""
    found = set[type]()
    for info in pkgutil.iter_modules(sessiond.changes.__path__, "sessiond.changes."):
        module = importlib.import_module(info.name)
        classes = [member for member in vars(module).values() if isinstance(member, type)]
        found |= {one for one in classes if one.__module__ == info.name and {"needs", "apply"} <= vars(one).keys()}
    return found


class World:
    """Sessions of four applications, every token that was ever given, and what the store made of them."""

    def __init__(self, store: Store) -> None:
        self.store = WatchedStore(store)
        self.replica = Replica(self.store)
        self.clock = self.replica.clock
        self.tokens: list[tuple[str, Presented]] = []
        self.ids: list[tuple[str, SessionId]] = []
        self.known: dict[SessionId, Session] = {}
        self.events: dict[Revision, Event] = {}
        self.done: set[type] = set()

    async def close(self) -> None:
        """Stop the journal."""
        await self.replica.journal.close()

    async def take(self, driver: type, seed: int) -> None:
        """Carry out a unit of that kind, the seed says how; then look at what the store has."""
        dice = random.Random(seed)
        self.clock.advance(dice.choice(PAUSES if dice.random() < 0.1 else INSTANTS))
        unit = await DRIVERS[driver](self, dice)
        if unit is None:
            return
        try:
            done: Done[Any] = await self.replica.journal.submit(unit)
        except AuthorityError:
            pass
        else:
            self.done.add(type(unit))
            self.take_in(unit, done.result)
        await self.look()

    def take_in(self, unit: Any, result: Any) -> None:
        """Remember the tokens that were given."""
        if isinstance(result, Revocation) and result.anonymous is not None:
            self.given(unit.call.application, result.anonymous)
        if isinstance(result, Outcome) and result.session is not None:
            self.given(result.session.application, result.session)

    def given(self, application: str, session: Session) -> None:
        """Remember the session's token, and the successor that may have been given with it; in the end forget it."""
        if (application, session.id) not in self.ids:
            self.ids.append((application, session.id))
        for generation in (session.generation, session.generation + 1):
            token = application, Presented(session.id, generation, session.digest)
            if token not in self.tokens:
                self.tokens.append(token)
        del self.ids[:-_MEMORY], self.tokens[: -3 * _MEMORY]

    async def look(self) -> None:
        """Every session that is not what it was has an event that says so, and its revision."""
        assert self.store.faults == []
        for commit in self.replica.commits:
            self.events |= {event.revision: event for event in commit.events}
        self.replica.commits.clear()
        for _, session_id in self.ids:
            session = await self.store.session(session_id)
            before = self.known.get(session_id)
            if session is None:
                assert before is None or before.ending is not None
                self.known.pop(session_id, None)
                continue
            assert self.events[session.revision].session_id == session_id
            if before is not None:
                assert (at_rest(before) == at_rest(session)) or before.revision < session.revision
                assert before.revision <= session.revision
            self.known[session_id] = session

    # What the drivers draw

    def call(self, dice: random.Random, application: str | None = None) -> Call:
        """Some call."""
        application = application or dice.choice(sorted(POLICIES))
        client = dice.choice(CLIENTS)
        return Call(application, POLICIES[application], Caller("caller"), client, has_client_context=client != NOBODY)

    def token(self, dice: random.Random) -> tuple[Call, Presented]:
        """A call with any token that was ever given; the newest ones more often."""
        if not self.tokens:
            return self.call(dice), Presented(samples.session_id(), 0, bytes(32))
        application, token = dice.choice(self.tokens[-3:] if dice.random() < 0.6 else self.tokens)
        return self.call(dice, application), token

    def named(self, dice: random.Random) -> tuple[Call, OpenedSessionRef]:
        """A call that names a session by a token or by its id."""
        call, token = self.token(dice)
        return call, token if dice.random() < 0.6 else token.session_id

    def login(self, dice: random.Random, *subjects: str) -> Login:
        """Some login."""
        subject = dice.choice(subjects)
        lifetimes = dice.choice([None, None, Lifetimes(Millis(30 * SECOND)), Lifetimes(absolute=Millis(90 * SECOND))])
        labels = dice.choice([(), (("tenant", "acme"),), (("device", "phone"), ("tenant", "other"))])
        persistent = bool(subject) and dice.random() < 0.5
        return Login(subject, dice.choice([0, 1, 2, 3]), ("pwd",), persistent, lifetimes, labels)

    def choice(self, dice: random.Random) -> Choice | None:
        """Sometimes a choice under a ticket."""
        if dice.random() < 0.7:
            return None
        evict = [session_id for _, session_id in self.ids if dice.random() < 0.5]
        expires = Instant(self.clock.now() + dice.choice([-1, 1000]))
        return Choice(b"ticket %25d" % dice.randrange(5), expires, evict)

    def create(self, dice: random.Random, call: Call | None = None) -> Create:
        """A session to be opened."""
        login = self.login(dice, *SUBJECTS)
        data = {"cart": dice.randbytes(dice.choice([1, 10, 50]))} if dice.random() < 0.3 else {}
        page = not login.subject and dice.random() < 0.5
        session_id, digest = samples.session_id(self.clock.now()), dice.randbytes(32)
        return Create(call or self.call(dice), session_id, login, digest, data, page, self.choice(dice))


# One driver for each unit


async def _create(world: World, dice: random.Random) -> Create:
    return world.create(dice)


async def _open_instead(world: World, dice: random.Random) -> OpenInstead:
    return OpenInstead(world.create(dice), Verdict.UNKNOWN)


async def _authenticate(world: World, dice: random.Random) -> Authenticate:
    call, token = world.token(dice)
    fresh = world.create(dice, call) if dice.random() < 0.4 else None
    elevates = fresh is None and dice.random() < 0.3
    login = world.login(dice, "ada", "bob") if fresh is None else fresh.login
    csrf = dice.randbytes(32)
    return Authenticate(call, token, login, dice.randbytes(32), elevates, world.choice(dice), fresh, csrf)


async def _roll(world: World, dice: random.Random) -> Roll:
    return Roll(*world.token(dice), dice.randbytes(32))


async def _refresh(world: World, dice: random.Random) -> Refresh:
    return Refresh(*world.token(dice), world.login(dice, "ada").lifetimes)


async def _update(world: World, dice: random.Random) -> UpdateData:
    changed = {dice.choice("abc"): dice.choice([None, b"", dice.randbytes(20)]) for _ in range(2)}
    return UpdateData(*world.named(dice), changed, dice.choice([None, None, 0, 1, 2]))


async def _use(world: World, dice: random.Random) -> Use:
    call, token = world.token(dice)
    suspicion = None
    if dice.random() < 0.3:
        kind = dice.choice([SignalType.USER_AGENT_CHANGE, SignalType.CONCURRENT_USE, SignalType.COMPANION_MISMATCH])
        suspicion = Suspicion((Signal(kind, "this", "that"),), dice.choice(CLIENTS))
    return Use(call, token, dice.random() < 0.5, suspicion, dice.random() < 0.8)


async def _report(world: World, dice: random.Random) -> Report:
    return Report(*world.named(dice))


async def _revoke(world: World, dice: random.Random) -> Revoke:
    call, named = world.named(dice)
    successor = None
    if dice.random() < 0.5:
        anonymous = replace(world.create(dice, call), login=Login(""), choice=None)
        successor = anonymous
    return Revoke(call, named, successor, dice.choice([None, None, "ada", "bob"]))


async def _revoke_many(world: World, dice: random.Random) -> RevokeMany:
    call = world.call(dice)
    found = [session for session in world.known.values() if session.application == call.application]
    return RevokeMany(call, dice.sample(found, min(len(found), 2)), dice.random() < 0.5)


async def _end_some(world: World, dice: random.Random) -> EndBatch:
    call = world.call(dice)
    ids = [session.id for session in world.known.values() if session.application == call.application]
    some = dice.sample(ids, min(len(ids), 2))
    return EndBatch(call, some, dice.choice(["", "ada", "bob"]), Cause(CauseKind.CONCURRENCY_LIMIT))


async def _expire(world: World, dice: random.Random) -> Expire:
    return Expire(await world.store.due(world.clock.now(), 10), POLICIES, PRESETS["owasp-low"])


async def _save_activity(world: World, dice: random.Random) -> SaveActivity:
    for application, session_id in world.ids:
        entry = world.replica.cache.get(session_id)
        if entry is not None and entry.session.ending is None and dice.random() < 0.5:
            now, client = world.clock.now(), dice.choice([*CLIENTS, None])
            deadline = idle_deadline(entry.session, POLICIES[application], now)
            world.replica.activity.note(entry.session, now, deadline, client)
    unsaved = [one.activity for one in world.replica.activity.all()]
    return SaveActivity(dice.sample(unsaved, len(unsaved) // 2))


async def _prune(world: World, dice: random.Random) -> Prune:
    return Prune(await world.store.prunable(world.clock.now(), dice.choice([1, 10])))


async def _prune_log(world: World, dice: random.Random) -> PruneLog | None:
    horizon = await world.store.horizon_for(Instant(world.clock.now() - 500 * SECOND), 3)
    return None if horizon is None else PruneLog(horizon)


async def _forget(world: World, dice: random.Random) -> ForgetAnswers:
    return ForgetAnswers()


async def _total(world: World, dice: random.Random) -> Total:
    return Total(3)


async def _record_other(world: World, dice: random.Random) -> RecordOther:
    cause = Cause(CauseKind.CONFIGURATION)
    return RecordOther(EventType.POLICY_CHANGED, dice.choice(sorted(POLICIES)), cause)


async def _unlock(world: World, dice: random.Random) -> Unit[None]:
    call, guesses, source = world.call(dice), world.replica.guesses, "203.0.113.9"
    if guesses.locked(call.application, source, world.clock.now()) is None and dice.random() < 0.7:
        for _ in range(call.policy.guessing.lock_after):
            guesses.guess(call.application, source, call.policy.guessing, world.clock.now())
        await world.replica.journal.submit(RecordOther(EventType.SOURCE_LOCKED, call.application, SIGNAL, source))
    return Unlock(guesses, call, source)


def _encode(done: Done[Outcome]) -> bytes:
    return b"%d" % done.revision


async def _once(world: World, dice: random.Random) -> Idempotent[Outcome]:
    drivers: list[Callable[[World, random.Random], Awaitable[Unit[Outcome]]]] = [_create, _authenticate, _roll, _use]
    unit = await dice.choice(drivers)(world, dice)
    kept = replace(retry(b"call %27d" % dice.randrange(9)), while_current=dice.random() < 0.5)
    return Idempotent(unit, [kept], _encode, lambda outcome: outcome.session)


async def _recall(world: World, dice: random.Random) -> Recall:
    return Recall([retry(b"call %27d" % dice.randrange(9))])


async def _asking(world: World, dice: random.Random) -> tuple[Cause, int]:
    """A caller, and its version when it was identified, which was now and then before its latest change."""
    callers = await world.store.callers()
    if not callers:
        return Cause(CauseKind.REQUEST, "caller"), 0
    asking = dice.choice(callers)
    return Cause(CauseKind.REQUEST, asking.name), asking.revision - (dice.random() < 0.1)


async def _add_caller(world: World, dice: random.Random) -> AddCaller:
    name = dice.choice(("ops", "deputy", "shop", "edge"))
    grants = EVERYTHING if name in ("ops", "deputy") else frozenset({("shop", Role.ISSUER)})
    return AddCaller(name, grants, _credential(world, dice), *await _asking(world, dice))


async def _rotate_caller(world: World, dice: random.Random) -> RotateCaller:
    overlap = Millis(dice.choice((0, 10 * SECOND)))
    return RotateCaller(dice.choice(("ops", "shop")), _credential(world, dice), overlap, *await _asking(world, dice))


async def _remove_caller(world: World, dice: random.Random) -> RemoveCaller:
    return RemoveCaller(dice.choice(("ops", "shop", "edge")), *await _asking(world, dice))


async def _change_certificates(world: World, dice: random.Random) -> ChangeCertificates:
    name, asking = f"host-{dice.randrange(4)}.example", await _asking(world, dice)
    added = Credential(name, CredentialKind.CERTIFICATE, name.encode(), world.clock.now())
    if dice.random() < 0.5:
        return ChangeCertificates(dice.choice(("ops", "shop")), (added,), (), *asking)
    return ChangeCertificates(dice.choice(("ops", "shop")), (), (name,), *asking)


async def _add_key(world: World, dice: random.Random) -> AddSealingKey:
    return AddSealingKey(dice.randbytes(16), b"", Cause(CauseKind.REQUEST, "ops"))


async def _promote_key(world: World, dice: random.Random) -> PromoteSealingKey:
    return PromoteSealingKey((await _print(world, dice)).hex(), Cause(CauseKind.REQUEST, "ops"))


async def _retire_key(world: World, dice: random.Random) -> RetireSealingKey:
    return RetireSealingKey((await _print(world, dice)).hex(), dice.random() < 0.5, Cause(CauseKind.REQUEST, "ops"))


async def _remove_key(world: World, dice: random.Random) -> RemoveSealingKey:
    return RemoveSealingKey(await _print(world, dice))


async def _reconcile_keys(world: World, dice: random.Random) -> ReconcileKeys:
    return ReconcileKeys([await _print(world, dice)], [await _print(world, dice)], {}, "the key file")


async def _record_keys(world: World, dice: random.Random) -> RecordKeys:
    return RecordKeys((await world.store.keys())[: dice.randint(0, 2)], {}, "the key file")


async def _print(world: World, dice: random.Random) -> bytes:
    """The fingerprint of a key, mostly of one that is recorded."""
    known = [key.fingerprint for key in await world.store.keys()]
    chosen: bytes = dice.choice([*known, dice.randbytes(16)])
    return chosen


def _credential(world: World, dice: random.Random) -> Credential:
    return Credential(f"{dice.randrange(10**9):010d}", CredentialKind.KEY, dice.randbytes(32), world.clock.now())


DRIVERS: dict[type, Callable[[World, random.Random], Awaitable[Unit[Any] | None]]] = {
    Create: _create,
    OpenInstead: _open_instead,
    Authenticate: _authenticate,
    Roll: _roll,
    Refresh: _refresh,
    UpdateData: _update,
    Use: _use,
    Report: _report,
    Revoke: _revoke,
    RevokeMany: _revoke_many,
    EndBatch: _end_some,
    Expire: _expire,
    SaveActivity: _save_activity,
    Prune: _prune,
    PruneLog: _prune_log,
    ForgetAnswers: _forget,
    AddCaller: _add_caller,
    RotateCaller: _rotate_caller,
    RemoveCaller: _remove_caller,
    ChangeCertificates: _change_certificates,
    AddSealingKey: _add_key,
    PromoteSealingKey: _promote_key,
    RetireSealingKey: _retire_key,
    RemoveSealingKey: _remove_key,
    ReconcileKeys: _reconcile_keys,
    RecordKeys: _record_keys,
    Total: _total,
    RecordOther: _record_other,
    Unlock: _unlock,
    Idempotent: _once,
    Recall: _recall,
}
"""How each unit is drawn; None: there is nothing for it to do."""
