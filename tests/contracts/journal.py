"""What the journal must show over any store: a conflict is repeated whole, and only the last run counts.

A store's own test file inherits `JournalContract`, says how the store is opened, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sessiond.cache.activity import UnsavedActivity
from sessiond.cache.sessions import SessionCache
from sessiond.changes.data import UpdateData
from sessiond.changes.idempotency import EncodedAnswer, Idempotent, Retry
from sessiond.changes.judging import Outcome, Suspicion
from sessiond.changes.login import Create
from sessiond.changes.maintenance import RecordOther
from sessiond.changes.sources import Unlock
from sessiond.changes.use import Use
from sessiond.detection.guesses import GuessEffect, GuessWatch
from sessiond.detection.suspicions import ReportedSignals
from sessiond.domain.call import Call, Caller
from sessiond.domain.errors import LockNotFound, VersionMismatch
from sessiond.domain.event import EventType
from sessiond.domain.judge import Presented, Verdict
from sessiond.domain.login import Login
from sessiond.domain.policy import PRESETS, Policy
from sessiond.domain.session import Session, SessionState
from sessiond.domain.signals import Signal, SignalType
from sessiond.domain.values import Cause, CauseKind, ClientContext, Instant, Millis, Revision, SessionId
from sessiond.eventlog.journal import Journal
from sessiond.eventlog.work import Done, Needs, Work
from sessiond.store.contract import Commit, KeptAnswer, Store, StoreFailed
from tests.contracts import samples
from tests.contracts.store import DAY, Opener, data_of, kept, write
from tests.store.faulty import RepeatingStore
from tests.support.clock import START, ManualClock

POLICY = PRESETS["owasp-low"]
HOME = ClientContext("192.0.2.1", "Firefox")
CALL = Call("default", POLICY, Caller("caller"), ClientContext("192.0.2.1", "Safari"))
AGENT = Signal(SignalType.USER_AGENT_CHANGE, "Firefox", "Safari")
SOURCE = "192.0.2.1"
SIGNAL = Cause(CauseKind.SIGNAL)


class Replica:
    """What one process has in memory, over a store in which each write has a conflict; see `app.assemble`."""

    def __init__(self, store: Store) -> None:
        self.store = RepeatingStore(store)
        self.clock = ManualClock()
        self.activity, self.reported, self.guesses = UnsavedActivity(), ReportedSignals(), GuessWatch()
        self.cache = SessionCache(store.session, self.activity, 100)
        self.commits: list[Commit] = []
        self.failures: list[StoreFailed] = []
        self.journal = Journal(self.store, self.clock, self, self.publish, self.failures.append)

    def with_activity(self, session: Session) -> Session:
        """See `eventlog.work.Memory`."""
        return self.activity.apply_to(session)

    def was_reported(self, session_id: SessionId, kind: SignalType, window: Millis, now: Instant) -> bool:
        """See `eventlog.work.Memory`."""
        return self.reported.was_reported(session_id, kind, window, now)

    def is_own_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """See `eventlog.work.Memory`."""
        return client == session.client

    def is_denied_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """See `eventlog.work.Memory`."""
        return False

    def is_new_old_token(self, session: Session, client: ClientContext, others: Sequence[ClientContext]) -> bool:
        """See `eventlog.work.Memory`."""
        return session.old_token is None

    def presented_old_token(
        self, session: Session, client: ClientContext, policy: Policy, others: Sequence[ClientContext]
    ) -> bool:
        """See `eventlog.work.Memory`."""
        return False

    def publish(self, commit: Commit) -> None:
        """Take in a commit."""
        self.commits.append(commit)
        self.cache.apply(commit)
        self.reported.apply(commit.events)
        self.guesses.apply(commit.events)

    def meanwhile(self, **changes: Any) -> None:
        """Have another process commit these changes between the two runs of the next write."""
        runs = self.store.thrown_away

        async def commit() -> None:
            if self.store.thrown_away == runs + 1:
                await write(self.store._store, **changes)

        self.store.between = commit

    async def types(self) -> list[EventType]:
        """The types of all events in the log, which has no gap."""
        events = await self.store.events(Revision(0), 1000)
        assert [event.revision for event in events] == list(range(1, len(events) + 1))
        return [event.type for event in events]


@dataclass
class Count:
    """A unit that counts: the version it found, and one more."""

    session_id: SessionId

    def needs(self) -> Needs:
        """The session and its data."""
        return Needs(sessions=[self.session_id], data=[self.session_id])

    def apply(self, work: Work) -> tuple[int, dict[str, bytes]]:
        """What it found."""
        session = work.session(self.session_id)
        assert session is not None
        found = session.data_version, work.data(self.session_id)
        work.put_data(self.session_id, {"n": b"%d" % (session.data_version + 1)})
        changed = replace(session, data_version=session.data_version + 1)
        work.save(changed, EventType.SESSION_DATA_CHANGED, samples.REVOKED)
        return found


def retry(key: bytes) -> Retry:
    """A call that may be repeated; its answers are kept as they are."""

    def same(message: bytes) -> bytes:
        return message

    return Retry(key, bytes(32), same, same)


def token_of(session: Session) -> Presented:
    """The session's own token."""
    return Presented(session.id, session.generation, session.digest)


class JournalContract:
    """What the journal must show over any store. A store's own test file is a fixture and nothing else."""

    @pytest.fixture
    def open_store(self) -> Opener:
        """Opens the store. To be overridden."""
        raise NotImplementedError

    @pytest.fixture
    async def replica(self, open_store: Opener) -> AsyncIterator[Replica]:
        store = await open_store()
        replica = Replica(store)
        yield replica
        await replica.journal.close()
        await store.close()
        assert replica.failures == []

    @pytest.fixture
    async def session(self, replica: Replica) -> Session:
        """A session that is stored, with its event: the log is at revision 1."""
        session = samples.session(client=HOME, revision=Revision(1))
        await write(
            replica.store._store,
            sessions={session.id: session},
            data={session.id: {"n": b"0"}},
            events=[samples.event(1, session_id=session.id)],
        )
        return session

    async def test_a_conflict_is_retried(self, replica: Replica, session: Session) -> None:
        """After a conflict a unit decides again on the new state: its answer, the commit and the log are that run's."""
        theirs = replace(session, data_version=7, revision=Revision(2))
        other = samples.event(2, type=EventType.SESSION_DATA_CHANGED, session_id=session.id)
        replica.meanwhile(sessions={theirs.id: theirs}, data={theirs.id: {"n": b"7"}}, events=[other])
        done = await replica.journal.submit(Count(session.id))
        assert replica.store.thrown_away == 1
        assert (done.result, done.revision) == ((7, {"n": b"7"}), 3)
        stored = await replica.store.session(session.id)
        assert stored == replace(theirs, data_version=8, revision=Revision(3))
        assert await data_of(replica.store, session.id) == {"n": b"8"}
        [commit] = replica.commits
        assert (commit.revision, [event.revision for event in commit.events]) == (3, [3])
        assert commit.sessions == {session.id: stored}
        assert len(await replica.types()) == 3

    async def test_every_unit_of_a_group_decides_again(self, replica: Replica, session: Session) -> None:
        """All units of a group are run again, one after another, and none of the first run counts beside them."""
        theirs = replace(session, data_version=7, revision=Revision(2))
        other = samples.event(2, type=EventType.SESSION_DATA_CHANGED, session_id=session.id)
        replica.meanwhile(sessions={theirs.id: theirs}, data={theirs.id: {"n": b"7"}}, events=[other])
        done = await asyncio.gather(*(replica.journal.submit(Count(session.id)) for _ in range(3)))
        assert replica.store.thrown_away == 1
        assert [one.result for one in done] == [(number, {"n": b"%d" % number}) for number in (7, 8, 9)]
        assert [one.revision for one in done] == [3, 4, 5]
        assert len(replica.commits) == 1
        assert len(await replica.types()) == 5

    async def test_a_refusal_of_a_lost_run_does_not_count(self, replica: Replica, session: Session) -> None:
        """A unit that was refused in the first run and not in the last succeeds."""
        theirs = replace(session, data_version=1, revision=Revision(2))
        other = samples.event(2, type=EventType.SESSION_DATA_CHANGED, session_id=session.id)
        replica.meanwhile(sessions={theirs.id: theirs}, events=[other])
        done = await replica.journal.submit(UpdateData(CALL, session.id, {"k": b"v"}, expected_version=1, shows=True))
        assert done.result.data == {"n": b"0", "k": b"v"}
        assert await data_of(replica.store, session.id) == {"n": b"0", "k": b"v"}

    async def test_a_success_of_a_lost_run_does_not_count(self, replica: Replica, session: Session) -> None:
        """A unit that is refused in the last run is refused, and nothing of its first run is written or published."""
        theirs = replace(session, data_version=1, revision=Revision(2))
        other = samples.event(2, type=EventType.SESSION_DATA_CHANGED, session_id=session.id)
        replica.meanwhile(sessions={theirs.id: theirs}, events=[other])
        with pytest.raises(VersionMismatch):
            await replica.journal.submit(UpdateData(CALL, session.id, {"k": b"v"}, expected_version=0))
        assert await data_of(replica.store, session.id) == {"n": b"0"}
        assert await replica.store.session(session.id) == theirs
        [commit] = replica.commits
        assert (commit.events, commit.sessions) == ([], {})

    async def test_a_suspicion_of_a_lost_run_was_not_reported(self, replica: Replica, session: Session) -> None:
        """A suspicion that only the first run recorded is in no log and no memory, and neither is its activity."""
        ended = replace(session, ending=samples.ending(START), revision=Revision(2))
        other = samples.event(2, type=EventType.SESSION_REVOKED, session_id=session.id)
        replica.meanwhile(sessions={ended.id: ended}, retention={ended.id: DAY}, events=[other])
        use = Use(CALL, token_of(session), passive=False, suspicion=Suspicion((AGENT,), HOME))
        outcome: Outcome = (await replica.journal.submit(use)).result
        assert (outcome.verdict, outcome.session) == (Verdict.REVOKED, None)
        assert EventType.HIJACK_SUSPECTED not in await replica.types()
        assert not replica.was_reported(session.id, AGENT.type, POLICY.fold_window, replica.clock.now())
        assert replica.commits[-1].activity == {}
        assert replica.activity.all() == []
        assert await replica.store.session(session.id) == ended

    async def test_a_suspicion_is_reported_once(self, replica: Replica, session: Session) -> None:
        """A suspicion that both runs record is in the log once, and folded from then on."""
        for _ in range(2):
            use = Use(CALL, token_of(session), passive=True, suspicion=Suspicion((AGENT,), HOME))
            assert (await replica.journal.submit(use)).result.verdict is Verdict.VALID
        assert (await replica.types()).count(EventType.HIJACK_SUSPECTED) == 1
        assert replica.was_reported(session.id, AGENT.type, POLICY.fold_window, replica.clock.now())

    async def lock(self, replica: Replica) -> None:
        """Lock a source for guessing, and have that recorded."""
        limits, now = POLICY.guessing, replica.clock.now()
        effects = [replica.guesses.guess("default", SOURCE, limits, now) for _ in range(limits.lock_after)]
        assert effects[-1] is GuessEffect.LOCK
        await replica.journal.submit(RecordOther(EventType.SOURCE_LOCKED, "default", SIGNAL, SOURCE))
        assert [lock.source for lock in replica.guesses.locks("default", now)] == [SOURCE]

    async def test_an_unlocking_of_a_lost_run_unlocks_nothing(self, replica: Replica) -> None:
        """A lock that only the first run released is still there: its release has not been recorded."""
        await self.lock(replica)

        async def time_passes() -> None:
            replica.clock.advance(POLICY.guessing.lock_time)

        replica.store.between = time_passes
        with pytest.raises(LockNotFound):
            await replica.journal.submit(Unlock(replica.guesses, CALL, SOURCE))
        assert await replica.types() == [EventType.SOURCE_LOCKED]
        assert [lock.source for lock in replica.guesses.due(replica.clock.now())] == [SOURCE]

    async def test_an_unlocking_is_recorded_once(self, replica: Replica) -> None:
        """A lock that both runs release is released once."""
        await self.lock(replica)
        await replica.journal.submit(Unlock(replica.guesses, CALL, SOURCE))
        assert await replica.types() == [EventType.SOURCE_LOCKED, EventType.SOURCE_UNLOCKED]
        assert replica.guesses.locked("default", SOURCE, replica.clock.now()) is None

    def opening(self, key: bytes) -> tuple[Create, Idempotent[Outcome]]:
        """A call that opens a session and may be repeated."""
        unit = Create(CALL, samples.session_id(), Login("ada"), bytes(32), {"cart": b"3 apples"})

        def encode(done: Done[Outcome]) -> bytes:
            return b"opened at %d" % done.revision

        return unit, Idempotent(unit, [retry(key)], encode)

    async def test_an_answer_of_a_lost_run_is_not_kept(self, replica: Replica) -> None:
        """If the same call was answered elsewhere meanwhile, that answer counts, and the first run leaves nothing."""
        key = b"k" * 32
        unit, once = self.opening(key)
        theirs = KeptAnswer(key, bytes(32), b"theirs", Instant(START + DAY))
        replica.meanwhile(answers=[theirs])
        done = await replica.journal.submit(once)
        assert done.result == EncodedAnswer(b"theirs")
        assert await kept(replica.store._store, key) == {key: theirs}
        assert await replica.types() == []
        assert await replica.store.session(unit.session_id) is None
        assert replica.cache.get(unit.session_id) is None
        [commit] = replica.commits
        assert (commit.sessions, commit.events, commit.revision) == ({}, [], 0)

    async def test_an_answer_is_kept_once(self, replica: Replica) -> None:
        """The answer that is kept is the last run's, and it is what a repeat gets."""
        key = b"k" * 32
        unit, once = self.opening(key)
        first = samples.event(1, type=EventType.POLICY_CHANGED, session_id=None)
        replica.meanwhile(events=[first])
        assert (await replica.journal.submit(once)).result == EncodedAnswer(b"opened at 2")
        assert (await replica.journal.submit(self.opening(key)[1])).result == EncodedAnswer(b"opened at 2")
        assert await replica.types() == [EventType.POLICY_CHANGED, EventType.SESSION_CREATED]
        entry = replica.cache.get(unit.session_id)
        assert entry is not None
        assert entry.session.state is SessionState.ACTIVE
        assert entry.session == await replica.store.session(unit.session_id)
