"""What any store must show: one case for each promise of the docstrings in `sessiond.store.contract`.

A store's own test file inherits `StoreContract`, says how the store is opened, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from sessiond.domain.errors import Unavailable
from sessiond.domain.event import Event, EventType
from sessiond.domain.position import INCARNATION_BYTES
from sessiond.domain.query import SessionQuery
from sessiond.domain.session import Activity, Elevation, Session, SessionState
from sessiond.domain.signals import Reaction, Signal, SignalType
from sessiond.domain.values import (
    Authentication,
    CauseKind,
    ClientContext,
    Instant,
    Lifetimes,
    Millis,
    Revision,
    SessionId,
    VersionedData,
)
from sessiond.store.contract import Changes, Decision, Head, KeptAnswer, Live, Store, Transaction
from tests.contracts import samples
from tests.support.clock import START

T = TypeVar("T")
Opener = Callable[[], Awaitable[Store]]
NOW = START
DAY = Millis(86_400_000)

EXPIRIES = (CauseKind.IDLE_TIMEOUT, CauseKind.ABSOLUTE_TIMEOUT, CauseKind.LOGIN_TIMEOUT)
# The examples of one test share a store, and each subclass runs the same test: neither disturbs a round trip.
# Failing examples are not made smaller: each step writes to a disk, and the unequal field shows as it is.
_PROPERTY = settings(
    max_examples=60,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


async def write(store: Store, **changes: Any) -> None:
    """Commit one transaction with these changes."""

    async def decide(_: Transaction) -> Decision[None]:
        return Decision(Changes(**changes), None)

    await store.write(decide)


async def within(store: Store, look: Callable[[Transaction], Awaitable[T]], **changes: Any) -> T:
    """What `look` finds in a transaction, which then commits these changes."""

    async def decide(transaction: Transaction) -> Decision[T]:
        found = await look(transaction)
        return Decision(Changes(**changes), found)

    return await store.write(decide)


async def fail(store: Store, session: Session, **changes: Any) -> Exception:
    """Have a write fail half-way: these changes, and an event under a number that the log has. What it raises."""
    twice = [*changes.pop("events", []), samples.event((await store.head()).revision)]
    with pytest.raises(Unavailable) as failure:
        await write(store, sessions={session.id: session}, events=twice, **changes)
    return failure.value


async def data_of(store: Store, session: SessionId) -> dict[str, bytes]:
    """A session's data."""
    return dict((await store.data(session)).values)


async def put(store: Store, *sessions: Session, retention: int = DAY) -> None:
    """Commit these sessions; ended ones with that retention."""
    ended = {session.id: Millis(retention) for session in sessions if session.ending is not None}
    await write(store, sessions={session.id: session for session in sessions}, retention=ended)


async def touch(
    store: Store, session: SessionId, at: int, idle_deadline: int | None = None, client: ClientContext | None = None
) -> None:
    """Commit activity."""
    deadline = None if idle_deadline is None else Instant(idle_deadline)
    await write(store, activity={session: Activity(session, Instant(at), deadline, client)})


async def append(store: Store, *events: Event) -> None:
    """Commit these events."""
    await write(store, events=list(events))


async def keep(store: Store, *answers: KeptAnswer) -> None:
    """Commit these answers to be kept."""
    await write(store, answers=list(answers))


async def forget(store: Store, now: int) -> None:
    """Commit one batch of forgetting what has expired by `now`."""
    await write(store, forget=Instant(now))


async def kept(store: Store, *keys: bytes) -> dict[bytes, KeptAnswer]:
    """The answers that a transaction finds under these keys."""
    return dict(await within(store, lambda transaction: transaction.answers(keys)))


async def living(store: Store, *subjects: tuple[str, str], most: int = 1_000) -> list[Session]:
    """The live sessions that a transaction finds of these subjects, in the order they were opened."""
    found = await within(store, lambda transaction: transaction.live_sessions(subjects, most))
    assert list(found) == list(subjects)
    for live in found.values():
        assert ids(live.sessions) == sorted(ids(live.sessions))
        assert live.count == len(live.sessions) or live.count > most
    return sorted((session for live in found.values() for session in live.sessions), key=lambda session: session.id)


def ids(sessions: Sequence[Session]) -> list[SessionId]:
    """The ids, in order."""
    return [session.id for session in sessions]


async def _ready(value: T) -> T:
    return value


class StoreContract:
    """What any store must show. A store's own test file is a fixture and nothing else."""

    @pytest.fixture
    def open_store(self) -> Opener:
        """Opens the store, the same data each time. To be overridden."""
        raise NotImplementedError

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    # Identity and durability

    async def test_a_new_log_is_empty(self, store: Store) -> None:
        """A new store's log is at revision 0 and can be resumed from there."""
        assert await store.head() == Head(Revision(0), Revision(0))
        assert await store.events(Revision(0), 10) == []

    async def test_identity_is_stable(self, open_store: Opener) -> None:
        """The identity is made with the database: 16 bytes, the same each time it is opened."""
        first = await open_store()
        await first.close()
        second = await open_store()
        await second.close()
        assert len(first.authority_id) == 16
        assert first.authority_id == second.authority_id
        assert any(first.authority_id)

    async def test_each_opening_is_one_more_incarnation(self, open_store: Opener) -> None:
        """Each time the store is opened the log has one more run, which begins after the head; the others stay."""
        store = await open_store()
        first = list(store.incarnations)
        assert [run.first for run in first] == [1]
        assert len(first[0].id) == INCARNATION_BYTES
        await append(store, *(samples.event(number) for number in (1, 2, 3)))
        assert list(store.incarnations) == first
        await store.close()
        for firsts in ([1, 4], [1, 4, 4]):
            store = await open_store()
            runs = list(store.incarnations)
            await store.close()
            assert [run.first for run in runs] == firsts
            assert runs[:1] == first
            assert len({run.id for run in runs}) == len(runs)

    @pytest.mark.parametrize(("horizon", "firsts"), [(2, [1, 4, 7]), (3, [1, 4, 7]), (4, [4, 7]), (6, [4, 7])], ids=str)
    async def test_incarnations_from_before_the_horizon_are_dropped(
        self, open_store: Opener, horizon: int, firsts: list[int]
    ) -> None:
        """The next opening drops the runs that ended before the horizon, and keeps the one that the horizon is in."""
        for start in (1, 4):
            store = await open_store()
            await append(store, *(samples.event(number) for number in range(start, start + 3)))
            await store.close()
        store = await open_store()
        before = list(store.incarnations)
        assert [run.first for run in before] == [1, 4, 7]
        await write(store, horizon=Revision(horizon))
        await store.close()
        store = await open_store()
        after = list(store.incarnations)
        await store.close()
        assert [run.first for run in after] == [*firsts, 7]
        assert after[:-1] == before[-len(firsts) :]

    async def test_everything_survives_reopening(self, open_store: Opener) -> None:
        """Sessions, data, events, activity, head and horizon are the same after close and reopen."""
        live = samples.session(idle_deadline=NOW + 10)
        ended = samples.session(ending=samples.ending(NOW))
        events = [samples.event(number) for number in (1, 2, 3)]
        store = await open_store()
        await put(store, live, ended)
        await write(store, data={live.id: {"cart": b"3 apples"}}, events=events)
        await touch(store, live.id, NOW + 5, NOW + 15)
        await write(store, horizon=Revision(1))
        await store.close()
        store = await open_store()
        try:
            assert await store.head() == Head(Revision(3), Revision(1))
            assert await store.session(live.id) == replace(
                live, last_active=Instant(NOW + 5), idle_deadline=Instant(NOW + 15)
            )
            assert await store.session(ended.id) == ended
            assert await data_of(store, live.id) == {"cart": b"3 apples"}
            assert await store.events(Revision(0), 10) == events[1:]
            assert await store.due(Instant(NOW + 15), 10) == [live.id]
            assert await store.prunable(Instant(NOW + DAY), 10) == [ended.id]
        finally:
            await store.close()

    # Round trips

    @_PROPERTY
    @given(session=samples.any_live_session)
    async def test_every_field_of_a_session_comes_back(self, store: Store, session: Session) -> None:
        """A live session is read as it was written, whatever is in its fields."""
        await put(store, session)
        assert await store.session(session.id) == session

    @_PROPERTY
    @given(first=samples.any_live_session, later=samples.any_live_session)
    async def test_every_field_of_a_changed_session_comes_back(
        self, store: Store, first: Session, later: Session
    ) -> None:
        """A second write of a live session replaces every field that can change."""
        changed = replace(later, id=first.id, application=first.application, created=first.created)
        await put(store, first)
        await put(store, changed)
        assert await store.session(first.id) == changed

    @_PROPERTY
    @given(session=samples.any_live_session, end=samples.any_ending)
    async def test_every_field_of_an_ending_comes_back(self, store: Store, session: Session, end: Any) -> None:
        """An ended session is read with its whole ending."""
        await put(store, session)
        await put(store, replace(session, ending=end))
        assert await store.session(session.id) == replace(session, ending=end)

    @_PROPERTY
    @given(event=samples.any_event)
    async def test_every_field_of_an_event_comes_back(self, store: Store, event: Event) -> None:
        """An event is read as it was written, whatever is in its fields."""
        head = (await store.head()).revision
        numbered = replace(event, revision=Revision(head + 1))
        await append(store, numbered)
        assert await store.events(head, 10) == [numbered]

    @pytest.mark.parametrize(
        "fields",
        [
            {"persistent": True},
            {"login_page": True},
            {"elevation": Elevation(Authentication(3, ("hwk", "pin"), NOW), Instant(NOW + 10))},
            {"elevation": Elevation(Authentication(0, (), Instant(0)), Instant(0))},
            {"must_authenticate": True},
            {"old_token": 7},
            {"old_token": 0},
            {"earlier_csrf": bytes(range(32)), "earlier_csrf_at": NOW},
            {"last_client": ClientContext("192.0.2.1", "Firefox")},
            {"last_client": ClientContext("", "Firefox")},
            {"lifetimes": Lifetimes(Millis(1_000), Millis(2_000))},
            {"lifetimes": Lifetimes(None, Millis(2_000))},
            {"lifetimes": Lifetimes(Millis(1_000), None)},
            {"labels": (("device", "Ada's phone"), ("tenant", "acme"))},
            {"revision": Revision(2**53)},
        ],
        ids=[
            *("persistent", "login page", "elevated", "elevated to nothing", "must authenticate"),
            *("an old token", "the first token", "an earlier CSRF token", "last client", "last agent"),
            *("both timeouts", "absolute timeout", "idle timeout", "labels", "revision"),
        ],
    )
    async def test_what_a_session_may_have_comes_back(self, store: Store, fields: dict[str, Any]) -> None:
        """What not every session has is there when it was set, and gone when it was taken away."""
        plain = samples.session()
        session = replace(plain, **fields)
        await put(store, session)
        assert await store.session(session.id) == session
        await put(store, plain)
        assert await store.session(plain.id) == plain
        await put(store, session)
        assert await store.session(session.id) == session

    @pytest.mark.parametrize(
        "fields",
        [
            {"reaction": Reaction.ALERT},
            {"source": "192.0.2.0/24"},
            {"signals": (Signal(SignalType.REPORTED, "", "seen elsewhere"),), "reaction": Reaction.REVOKE_SUBJECT},
            {"signals": (Signal(SignalType.IP_CHANGE, "a", "b"),), "reaction": Reaction.IGNORE, "source": "s"},
        ],
        ids=["a reaction alone", "a source alone", "a reaction", "everything"],
    )
    async def test_the_details_of_an_event_come_back(self, store: Store, fields: dict[str, Any]) -> None:
        """Signals, reaction and source are read as they were written, each with or without the others."""
        event = samples.event(1, type=EventType.HIJACK_SUSPECTED, **fields)
        await append(store, event)
        assert await store.events(Revision(0), 10) == [event]

    async def test_an_event_of_no_session_comes_back(self, store: Store) -> None:
        """An event about no session has its place in the log, and in the activity of the subject that it names."""
        locked = samples.other_event(1)
        limit = samples.other_event(2, type=EventType.CONCURRENCY_LIMIT_REACHED, subject="ada", source="")
        await append(store, locked, limit)
        assert await store.events(Revision(0), 10) == [locked, limit]
        assert await store.activity("default", "ada", None, 10) == [limit]

    # Writes

    async def test_what_a_write_decides_is_its_answer(self, store: Store) -> None:
        """A write gives the answer of its decision, whatever that is, also where nothing is written."""
        answer = object()
        assert await within(store, lambda _: _ready(answer)) is answer
        assert await within(store, lambda _: _ready(answer), events=[samples.event(1)]) is answer

    async def test_a_write_that_raises_changes_nothing(self, store: Store) -> None:
        """What `decide` raises comes through, consumes no revision, and the next write begins at the same head."""
        await append(store, samples.event(1))
        fault = ZeroDivisionError("injected")
        heads: list[Head] = []

        async def decide(transaction: Transaction) -> Decision[None]:
            heads.append(transaction.head)
            raise fault

        for _ in range(2):
            with pytest.raises(ZeroDivisionError) as raised:
                await store.write(decide)
            assert raised.value is fault
        assert set(heads) == {Head(Revision(1), Revision(0))}
        assert await store.head() == heads[0]
        await append(store, samples.event(2))
        assert (await store.head()).revision == 2

    async def test_a_write_that_fails_half_way_changes_nothing(self, open_store: Opener) -> None:
        """Of changes that cannot all be written there is nothing, neither at once nor after close and reopen."""
        before, other, ended = samples.session(), samples.session(), samples.session(ending=samples.ending(NOW))
        first, answer, lost = samples.event(1), samples.answer(NOW), samples.answer(NOW)
        store = await open_store()
        await put(store, before, ended)
        await write(store, data={before.id: {"a": b"1"}}, events=[first], answers=[answer])
        await fail(
            store,
            other,
            data={before.id: {"a": None, "k": b"v"}},
            events=[samples.event(2)],
            activity={before.id: Activity(before.id, Instant(NOW + 1), None)},
            answers=[lost],
            forget=Instant(NOW),
            pruned=[ended.id],
            horizon=Revision(1),
        )
        await store.close()
        store = await open_store()
        try:
            assert await store.head() == Head(Revision(1), Revision(0))
            assert await store.session(other.id) is None
            assert await store.session(before.id) == before
            assert await store.session(ended.id) == ended
            assert await data_of(store, before.id) == {"a": b"1"}
            assert await store.events(Revision(0), 10) == [first]
            assert await kept(store, answer.key, lost.key) == {answer.key: answer}
        finally:
            await store.close()

    async def test_reads_never_see_an_open_transaction(self, store: Store) -> None:
        """A read that begins while a write decides waits for it or sees the state before it."""
        session, bystander = samples.session(idle_deadline=NOW), samples.session()
        await put(store, bystander)
        reads: list[tuple[asyncio.Task[Any], Any]] = []
        seen: list[tuple[Any, Any]] = []

        async def look(transaction: Transaction) -> None:
            reads.extend(
                [
                    (asyncio.create_task(store.session(session.id)), None),
                    (asyncio.create_task(data_of(store, bystander.id)), {}),
                    (asyncio.create_task(store.events(Revision(0), 10)), []),
                    (asyncio.create_task(store.due(NOW, 10)), []),
                    (asyncio.create_task(store.head()), Head(Revision(0), Revision(0))),
                    (asyncio.create_task(store.activity("default", "ada", None, 10)), []),
                ]
            )
            for _ in range(10):  # work of the same engine, so that a read that does not wait has its chance
                await transaction.sessions([bystander.id])
            seen.extend((read.result(), before) for read, before in reads if read.done())

        await within(
            store,
            look,
            sessions={session.id: session},
            data={bystander.id: {"k": b"v"}},
            events=[samples.event(1, subject="ada")],
        )
        for value, before in seen:
            assert value == before
        await asyncio.gather(*(read for read, _ in reads))
        assert await store.session(session.id) == session

    async def test_reads_see_every_write_that_has_returned(self, store: Store) -> None:
        """What a write wrote is visible to every read that begins after it has returned."""
        session = samples.session(idle_deadline=NOW)
        await write(store, sessions={session.id: session}, data={session.id: {"k": b"v"}}, events=[samples.event(1)])
        assert await store.session(session.id) == session
        assert await data_of(store, session.id) == {"k": b"v"}
        assert (await store.head()).revision == 1
        assert await store.due(NOW, 10) == [session.id]
        assert ids(await store.sessions(SessionQuery("default", Instant(NOW - 1)))) == [session.id]

    async def test_writes_follow_one_another(self, store: Store) -> None:
        """A write holds the head to its end: another one begins only then, at the head it left."""
        order: list[str] = []

        async def second(transaction: Transaction) -> Revision:
            order.append("second begins")
            return transaction.head.revision

        bystander, waiting = samples.session(), list[asyncio.Task[Revision]]()

        async def first(transaction: Transaction) -> None:
            waiting.append(asyncio.create_task(within(store, second)))
            for _ in range(10):
                await transaction.sessions([bystander.id])
            order.append("first ends")

        await within(store, first, events=[samples.event(1)])
        assert await waiting[0] == 1
        assert order == ["first ends", "second begins"]

    async def test_the_head_moves_to_the_last_event(self, store: Store) -> None:
        """The head is the last event's revision; a transaction without events leaves it."""
        await append(store, samples.event(1), samples.event(2))
        assert (await store.head()).revision == 2
        await put(store, samples.session())
        assert (await store.head()).revision == 2

    async def test_a_transaction_reads_what_is_there(self, store: Store) -> None:
        """A transaction's reads give what is committed and leave out what is not there."""
        with_data, without = samples.session(), samples.session()
        await put(store, with_data, without)
        await write(store, data={with_data.id: {"a": b"1", "b": b""}})
        wanted = [with_data.id, without.id, samples.session_id()]
        sessions = await within(store, lambda transaction: transaction.sessions(wanted))
        assert dict(sessions) == {with_data.id: with_data, without.id: without}
        data = await within(store, lambda transaction: transaction.data(wanted))
        assert dict(data) == {with_data.id: {"a": b"1", "b": b""}}

    async def test_a_transaction_reads_many(self, store: Store) -> None:
        """A transaction reads more sessions at once than one statement takes parameters."""
        many = [samples.session() for _ in range(1201)]
        await put(store, *many)
        assert len(await within(store, lambda transaction: transaction.sessions(ids(many)))) == len(many)

    # Live sessions of subjects

    async def test_live_sessions_are_one_subjects_in_one_application(self, store: Store) -> None:
        """A subject's live sessions are its own, in that application, whole."""
        mine = [samples.session(NOW + number, persistent=True) for number in range(3)]
        await put(store, *mine, samples.session(subject="bob"), samples.session(application="shop"))
        assert await living(store, ("default", "ada")) == mine

    async def test_live_sessions_have_not_ended(self, store: Store) -> None:
        """No ended session is live, however it ended; one ends with the transaction that ends it."""
        live = samples.session()
        await put(store, live, *(samples.session(ending=samples.ending(NOW, kind)) for kind in CauseKind))
        assert await living(store, ("default", "ada")) == [live]
        await put(store, replace(live, ending=samples.ending(NOW)))
        assert await living(store, ("default", "ada")) == []

    async def test_live_sessions_may_be_past_a_deadline(self, store: Store) -> None:
        """A session past its deadline counts as live until its ending is written: the caller judges that."""
        overdue = [samples.session(idle_deadline=0), samples.session(absolute_deadline=0)]
        await put(store, *overdue)
        assert await living(store, ("default", "ada")) == overdue

    async def test_live_sessions_of_several_subjects(self, store: Store) -> None:
        """Several subjects at once give the sessions of each: the pair counts, not application and subject apart."""
        ada, bob, guest = (
            samples.session(),
            samples.session(application="shop", subject="bob"),
            samples.session(subject=""),
        )
        crossed = [samples.session(application="shop"), samples.session(subject="bob")]
        await put(store, ada, bob, guest, *crossed)
        assert await living(store, ("default", "ada"), ("shop", "bob")) == [ada, bob]
        assert await living(store, ("default", "")) == [guest]

    @pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6])
    async def test_of_a_crowd_both_ends_are_live_sessions(self, store: Store, most: int) -> None:
        """Of more live sessions than asked for the oldest and newest are found, each once, and how many there are."""
        mine = [samples.session(NOW + number) for number in range(5)]
        await put(store, *reversed(mine), samples.session(NOW, ending=samples.ending(NOW)))
        found = await within(store, lambda transaction: transaction.live_sessions([("default", "ada")], most))
        wanted = mine if most >= 5 else [one for one in mine if one in mine[:most] or one in mine[-most:]]
        assert found == {("default", "ada"): Live(wanted, 5)}

    async def test_nobody_has_no_live_sessions(self, store: Store) -> None:
        """An unknown subject, an unknown application, one spelt otherwise, and no subject at all have none."""
        await put(store, samples.session())
        assert await living(store, ("default", "eve"), ("shop", "ada"), ("default", "ADA")) == []
        assert await living(store) == []

    # Kept answers

    async def test_a_kept_answer_is_found(self, store: Store) -> None:
        """An answer is found under its key, whole; a key without one is left out."""
        first, second = samples.answer(NOW), samples.answer(NOW + 1, sealed=b"")
        await keep(store, first, second)
        assert await kept(store, first.key, bytes(32), second.key) == {first.key: first, second.key: second}
        assert await kept(store, bytes(32)) == {}
        assert await kept(store) == {}

    async def test_kept_answers_survive_reopening(self, open_store: Opener) -> None:
        """A kept answer is there after close and reopen: a retry may come after a restart."""
        answer = samples.answer(NOW)
        store = await open_store()
        await keep(store, answer)
        await store.close()
        store = await open_store()
        try:
            assert await kept(store, answer.key) == {answer.key: answer}
        finally:
            await store.close()

    async def test_many_answers_are_found(self, store: Store) -> None:
        """A transaction finds more answers at once than one statement takes parameters."""
        many = [samples.answer(NOW) for _ in range(1201)]
        await keep(store, *many)
        assert await kept(store, *(answer.key for answer in many)) == {answer.key: answer for answer in many}

    @_PROPERTY
    @given(first=samples.any_answer, later=samples.any_answer)
    async def test_every_field_of_an_answer_comes_back(
        self, store: Store, first: KeptAnswer, later: KeptAnswer
    ) -> None:
        """An answer is found as it was kept, the session that it depends on included; a later one replaces it whole."""
        changed = replace(later, key=first.key)
        await keep(store, first)
        assert await kept(store, first.key) == {first.key: first}
        await keep(store, changed)
        assert await kept(store, first.key) == {first.key: changed}

    async def test_of_two_answers_of_one_write_the_later_is_kept(self, store: Store) -> None:
        """Of two answers under one key in one write the one that was decided last is kept."""
        first = samples.answer(NOW)
        later = replace(samples.answer(NOW + DAY), key=first.key)
        await keep(store, first, later)
        assert await kept(store, first.key) == {first.key: later}

    async def test_an_answer_replaces_an_expired_one(self, store: Store) -> None:
        """A later answer under a key stands in place of the one before, which nobody has forgotten yet."""
        old = samples.answer(NOW)
        new = replace(samples.answer(NOW + DAY), key=old.key)
        await keep(store, old)
        await keep(store, new)
        assert await kept(store, old.key) == {old.key: new}
        await forget(store, NOW)
        assert await kept(store, old.key) == {old.key: new}

    async def test_answers_are_forgotten_when_they_expire(self, store: Store) -> None:
        """An answer is forgotten at its expiry, and never one millisecond before."""
        answer, later = samples.answer(NOW), samples.answer(NOW + 1)
        await keep(store, answer, later)
        await forget(store, NOW - 1)
        assert await kept(store, answer.key, later.key) == {answer.key: answer, later.key: later}
        await forget(store, NOW)
        assert await kept(store, answer.key, later.key) == {later.key: later}

    async def test_answers_are_forgotten_in_batches(self, store: Store) -> None:
        """One transaction forgets some, the longest expired first; a few forget all, and none that has not expired."""
        expired = [samples.answer(NOW - age) for age in range(1500)]
        lasting = [samples.answer(NOW + 1) for _ in range(10)]
        await keep(store, *expired, *lasting)
        keys = [answer.key for answer in (*expired, *lasting)]
        left = set(keys)
        for _ in range(len(expired)):
            await forget(store, NOW)
            before, left = left, set(await kept(store, *keys))
            assert 0 < len(before - left) < len(expired)
            # `expired` begins with what expired last.
            assert left == {*keys[: len(left) - len(lasting)], *keys[len(expired) :]}
            if len(left) == len(lasting):
                return

    async def test_an_answer_of_a_forgetting_transaction_is_kept(self, store: Store) -> None:
        """A transaction that forgets and keeps does both."""
        old, new = samples.answer(NOW), samples.answer(NOW + 1)
        await keep(store, old)
        await write(store, answers=[new], forget=NOW)
        assert await kept(store, old.key, new.key) == {new.key: new}

    # Endings

    async def test_first_ending_stands(self, store: Store) -> None:
        """A revoked session stays revoked, and is kept as long, when its expiry is written later."""
        session = samples.session(idle_deadline=NOW + 10)
        revoked = replace(session, ending=samples.ending(NOW + 5))
        await put(store, session)
        await put(store, revoked)
        await put(store, replace(session, ending=samples.ending(NOW + 10, CauseKind.IDLE_TIMEOUT)), retention=1)
        assert await store.session(session.id) == revoked
        assert await store.prunable(Instant(NOW + 11), 10) == []

    async def test_a_put_never_revives(self, store: Store) -> None:
        """A late save of a live state leaves an ended session as it ended."""
        session = samples.session()
        ended = replace(session, ending=samples.ending(NOW))
        await put(store, session)
        await put(store, ended)
        await put(store, replace(session, subject="mallory", generation=7, last_active=Instant(NOW + 9)))
        assert await store.session(session.id) == ended

    async def test_a_touch_never_revives(self, store: Store) -> None:
        """Late activity leaves an ended session as it ended."""
        ended = samples.session(idle_deadline=NOW, ending=samples.ending(NOW, CauseKind.IDLE_TIMEOUT))
        await put(store, ended)
        await touch(store, ended.id, NOW + 1, NOW + 100)
        assert await store.session(ended.id) == ended
        assert await store.due(Instant(NOW + 1000), 10) == []

    async def test_a_touch_of_nothing_makes_nothing(self, store: Store) -> None:
        """Activity of a session that is not there makes none."""
        unknown = samples.session_id()
        await touch(store, unknown, NOW, NOW + 1)
        assert await store.session(unknown) is None

    async def test_an_ended_session_loses_its_data(self, store: Store) -> None:
        """The ending drops the session's data, even data of the same transaction, and nobody else's."""
        session, other = samples.session(), samples.session()
        await put(store, session, other)
        await write(store, data={session.id: {"a": b"1"}, other.id: {"a": b"2"}})
        ended = replace(session, ending=samples.ending(NOW))
        await write(store, sessions={ended.id: ended}, retention={ended.id: DAY}, data={ended.id: {"b": b"late"}})
        assert await data_of(store, session.id) == {}
        assert await data_of(store, other.id) == {"a": b"2"}

    # Activity of sessions

    async def test_a_touch_moves_activity_and_deadline(self, store: Store) -> None:
        """Activity moves the last activity and the idle deadline, and with it when the session is due."""
        session = samples.session(idle_deadline=NOW + 10)
        await put(store, session)
        await touch(store, session.id, NOW + 5, NOW + 15)
        assert await store.session(session.id) == replace(
            session, last_active=Instant(NOW + 5), idle_deadline=Instant(NOW + 15)
        )
        assert await store.due(Instant(NOW + 14), 10) == []
        assert await store.due(Instant(NOW + 15), 10) == [session.id]

    @pytest.mark.parametrize("at", [NOW, NOW - 1])
    async def test_a_touch_never_moves_backwards(self, store: Store, at: int) -> None:
        """Activity that is not later than the recorded one changes nothing."""
        session = samples.session(idle_deadline=NOW + 10)
        await put(store, session)
        await touch(store, session.id, at, NOW + 99)
        assert await store.session(session.id) == session

    async def test_a_touch_keeps_the_absolute_deadline(self, store: Store) -> None:
        """A touched session is due at its absolute deadline where that comes first, or stands alone."""
        both = samples.session(idle_deadline=NOW + 10, absolute_deadline=NOW + 20)
        only = samples.session(absolute_deadline=NOW + 30)
        await put(store, both, only)
        await touch(store, both.id, NOW + 15, NOW + 25)
        await touch(store, only.id, NOW + 15, None)
        assert await store.due(Instant(NOW + 19), 10) == []
        assert await store.due(Instant(NOW + 20), 10) == [both.id]
        assert await store.due(Instant(NOW + 30), 10) == [both.id, only.id]

    async def test_activity_with_a_client_sets_the_last_client(self, store: Store) -> None:
        """Activity of a known client sets the last client: address and user agent, and nothing else of the session."""
        session = samples.session(client=ClientContext("192.0.2.1", "Firefox"))
        await put(store, session)
        seen = ClientContext("198.51.100.7", "Safari", bytes(32), "a device")
        await touch(store, session.id, NOW + 5, client=seen)
        stored = await store.session(session.id)
        assert stored == replace(
            session, last_active=Instant(NOW + 5), last_client=ClientContext("198.51.100.7", "Safari")
        )
        await touch(store, session.id, NOW + 6, client=ClientContext("", "Safari"))
        stored = await store.session(session.id)
        assert stored is not None
        assert stored.last_client == ClientContext("", "Safari")

    async def test_activity_without_a_client_leaves_the_last_client(self, store: Store) -> None:
        """Activity of a call that tells of no client leaves the last client as it is."""
        session = samples.session(last_client=ClientContext("192.0.2.1", "Firefox"))
        await put(store, session)
        await touch(store, session.id, NOW + 5)
        assert await store.session(session.id) == replace(session, last_active=Instant(NOW + 5))

    @pytest.mark.parametrize("at", [NOW, NOW - 1])
    async def test_late_activity_leaves_the_last_client(self, store: Store, at: int) -> None:
        """Activity that is not later than the recorded one does not change the last client either."""
        session = samples.session(last_client=ClientContext("192.0.2.1", "Firefox"))
        await put(store, session)
        await touch(store, session.id, at, client=ClientContext("198.51.100.7", "Safari"))
        assert await store.session(session.id) == session

    async def test_activity_leaves_the_revision(self, store: Store) -> None:
        """Activity is no change of the session's state: its revision stays."""
        session = samples.session(revision=Revision(7))
        await put(store, session)
        await touch(store, session.id, NOW + 5)
        stored = await store.session(session.id)
        assert stored is not None
        assert stored.revision == 7

    # What is due

    @pytest.mark.parametrize("field", ["idle_deadline", "absolute_deadline"])
    async def test_due_at_the_deadline_itself(self, store: Store, field: str) -> None:
        """A session is due at its deadline, not one millisecond before."""
        session = samples.session(**{field: NOW})
        await put(store, session)
        assert await store.due(Instant(NOW - 1), 10) == []
        assert await store.due(NOW, 10) == [session.id]

    async def test_due_at_the_earlier_deadline(self, store: Store) -> None:
        """Of two deadlines the earlier decides."""
        idle_first = samples.session(idle_deadline=NOW, absolute_deadline=NOW + 50)
        absolute_first = samples.session(idle_deadline=NOW + 50, absolute_deadline=NOW)
        await put(store, idle_first, absolute_first)
        assert await store.due(Instant(NOW - 1), 10) == []
        assert set(await store.due(NOW, 10)) == {idle_first.id, absolute_first.id}

    async def test_due_in_order_and_bounded(self, store: Store) -> None:
        """The longest overdue come first, no more than asked for."""
        late, later, latest = (samples.session(idle_deadline=NOW - overdue) for overdue in (10, 20, 30))
        await put(store, late, later, latest)
        assert await store.due(NOW, 10) == [latest.id, later.id, late.id]
        assert await store.due(NOW, 2) == [latest.id, later.id]

    async def test_what_has_ended_or_never_ends_is_not_due(self, store: Store) -> None:
        """Neither an ended session nor one without deadlines is ever due."""
        await put(store, samples.session(), samples.session(idle_deadline=NOW, ending=samples.ending(NOW - 5)))
        assert await store.due(Instant(NOW + DAY), 10) == []

    # What is prunable

    async def test_prunable_when_the_retention_is_over(self, store: Store) -> None:
        """History is prunable at the ending plus the retention, not one millisecond before."""
        ended = samples.session(ending=samples.ending(NOW))
        await put(store, ended, retention=100)
        assert await store.prunable(Instant(NOW + 99), 10) == []
        assert await store.prunable(Instant(NOW + 100), 10) == [ended.id]

    async def test_prunable_in_order_and_bounded(self, store: Store) -> None:
        """The longest overdue come first, no more than asked for; live sessions never."""
        late, later, latest = (samples.session(ending=samples.ending(NOW - age)) for age in (10, 20, 30))
        await put(store, late, later, latest, samples.session(idle_deadline=NOW - 99), retention=1)
        assert await store.prunable(NOW, 10) == [latest.id, later.id, late.id]
        assert await store.prunable(NOW, 2) == [latest.id, later.id]

    async def test_pruning_drops_history_of_the_ended_only(self, store: Store) -> None:
        """Pruning drops an ended session and leaves a live one, whatever it is told."""
        ended, live = samples.session(ending=samples.ending(NOW)), samples.session()
        await put(store, ended, live)
        await write(store, pruned=[ended.id, live.id])
        assert await store.session(ended.id) is None
        assert await store.session(live.id) == live
        assert await store.prunable(Instant(NOW + DAY), 10) == []

    # The log

    async def test_events_in_order_and_paged(self, store: Store) -> None:
        """Events come in order, directly after the revision asked for, a page at a time."""
        events = [samples.event(number) for number in range(1, 8)]
        await append(store, *events[:4])
        await append(store, *events[4:])
        read: list[Event] = []
        while page := await store.events(read[-1].revision if read else Revision(0), 3):
            assert len(page) <= 3
            read += page
        assert read == events

    async def test_events_after_the_head_are_none(self, store: Store) -> None:
        """After the newest event there is nothing."""
        await append(store, samples.event(1))
        assert await store.events(Revision(1), 10) == []
        assert await store.events(Revision(99), 10) == []

    async def test_activity_newest_first_and_paged(self, store: Store) -> None:
        """A subject's events come newest first, strictly before the revision asked for, a page at a time."""
        events = [samples.event(number) for number in range(1, 6)]
        await append(store, *events)
        first = await store.activity("default", "ada", None, 2)
        second = await store.activity("default", "ada", first[-1].revision, 2)
        third = await store.activity("default", "ada", second[-1].revision, 2)
        assert [*first, *second, *third] == events[::-1]

    async def test_activity_is_one_subjects_in_one_application(self, store: Store) -> None:
        """Events of another subject or another application are not a subject's activity."""
        mine = samples.event(1)
        await append(store, mine, samples.event(2, subject="bob"), samples.event(3, application="shop"))
        assert await store.activity("default", "ada", None, 10) == [mine]

    async def test_horizon_is_before_the_time_itself(self, store: Store) -> None:
        """Events from before the time may go; one at the time itself stays."""
        await append(store, samples.event(1, NOW), samples.event(2, NOW + 1), samples.event(3, NOW + 2))
        assert await store.horizon_for(NOW, 10) is None
        assert await store.horizon_for(Instant(NOW + 1), 10) == 1
        assert await store.horizon_for(Instant(NOW + 2), 10) == 2
        assert await store.horizon_for(Instant(NOW + 3), 10) == 3

    async def test_horizon_is_bounded(self, store: Store) -> None:
        """A horizon drops at most as many events as asked for."""
        await append(store, *(samples.event(number) for number in range(1, 6)))
        assert await store.horizon_for(Instant(NOW + 1), 2) == 2

    async def test_horizon_stops_at_a_later_event(self, store: Store) -> None:
        """An old event that follows a newer one stays: the log has no holes."""
        await append(store, samples.event(1, NOW), samples.event(2, NOW + 50), samples.event(3, NOW))
        assert await store.horizon_for(Instant(NOW + 10), 10) == 1

    async def test_moving_the_horizon_drops_events(self, store: Store) -> None:
        """Events up to and including the horizon are dropped; the head's revision stays."""
        events = [samples.event(number) for number in (1, 2, 3)]
        await append(store, *events)
        await write(store, horizon=Revision(2))
        assert await store.head() == Head(Revision(3), Revision(2))
        assert await store.events(Revision(0), 10) == events[2:]
        assert await store.activity("default", "ada", None, 10) == events[2:]
        assert await store.horizon_for(Instant(NOW + 1), 10) == 3

    async def test_the_horizon_never_moves_back(self, store: Store) -> None:
        """A smaller horizon than the present one changes nothing."""
        await append(store, *(samples.event(number) for number in (1, 2, 3)))
        await write(store, horizon=Revision(2))
        await write(store, horizon=Revision(1))
        assert (await store.head()).horizon == 2

    async def test_revisions_go_on_after_the_whole_log_is_dropped(self, store: Store) -> None:
        """A log of which every event was dropped goes on with the next revision."""
        await append(store, samples.event(1))
        await write(store, horizon=Revision(1))
        head = await within(store, lambda transaction: _ready(transaction.head), events=[samples.event(2)])
        assert head == Head(Revision(1), Revision(1))
        assert await store.head() == Head(Revision(2), Revision(1))

    # Lists

    async def test_lists_newest_first_in_pages(self, store: Store) -> None:
        """Pages go from the newest session to the oldest; none comes twice, none is left out."""
        sessions = [samples.session(NOW + number) for number in range(7)]
        await put(store, *sessions)
        query = SessionQuery("default", NOW, limit=3)
        listed: list[Session] = []
        while page := await store.sessions(query):
            assert len(page) <= 3
            listed += page
            query = replace(query, before=page[-1].id)
        assert listed == sessions[::-1]

    async def test_lists_one_application(self, store: Store) -> None:
        """Sessions of another application are not listed."""
        mine, _ = sessions = samples.session(), samples.session(application="shop")
        await put(store, *sessions)
        assert ids(await store.sessions(SessionQuery("default", NOW))) == [mine.id]

    async def test_lists_by_subject(self, store: Store) -> None:
        """Without a subject all are listed, with one exactly its own, with the empty one the anonymous ones."""
        ada, bob, guest = (samples.session(subject=subject) for subject in ("ada", "bob", ""))
        await put(store, ada, bob, guest)
        query = SessionQuery("default", NOW)
        assert ids(await store.sessions(query)) == [guest.id, bob.id, ada.id]
        assert ids(await store.sessions(replace(query, subject="ada"))) == [ada.id]
        assert ids(await store.sessions(replace(query, subject=""))) == [guest.id]
        assert ids(await store.sessions(replace(query, subject="ADA"))) == []

    @pytest.mark.parametrize("field", ["idle_deadline", "absolute_deadline"])
    async def test_lists_by_state_at_the_deadline(self, store: Store, field: str) -> None:
        """A session is ACTIVE to the last millisecond before its deadline, EXPIRED from the deadline on."""
        session = samples.session(**{field: NOW})
        await put(store, session)

        async def states(now: int) -> list[SessionState]:
            return [s for s in SessionState if await store.sessions(SessionQuery("default", Instant(now), state=s))]

        assert await states(NOW - 1) == [SessionState.ACTIVE]
        assert await states(NOW) == [SessionState.EXPIRED]

    async def test_lists_without_deadlines_as_active(self, store: Store) -> None:
        """A session without deadlines is ACTIVE whenever it is asked for."""
        session = samples.session()
        await put(store, session)
        assert ids(await store.sessions(SessionQuery("default", Instant(NOW + 1000 * DAY)))) == [session.id]

    @pytest.mark.parametrize("kind", list(CauseKind))
    async def test_lists_by_ending(self, store: Store, kind: CauseKind) -> None:
        """An ended session is EXPIRED where a deadline ended it and REVOKED for anything else, deadlines or not."""
        session = samples.session(idle_deadline=NOW - 5, ending=samples.ending(NOW - 5, kind))
        await put(store, session)
        found = [s for s in SessionState if await store.sessions(SessionQuery("default", NOW, state=s))]
        assert found == [SessionState.EXPIRED if kind in EXPIRIES else SessionState.REVOKED]

    async def test_lists_with_an_activity_lag(self, store: Store) -> None:
        """With a lag a session counts as ACTIVE until its deadline and the lag have passed."""
        session = samples.session(idle_deadline=NOW)
        await put(store, session)
        query = SessionQuery("default", NOW, activity_lag=Millis(50))
        assert ids(await store.sessions(query)) == [session.id]
        assert ids(await store.sessions(replace(query, now=Instant(NOW + 49)))) == [session.id]
        assert await store.sessions(replace(query, now=Instant(NOW + 50))) == []

    @pytest.mark.parametrize(
        ("network", "inside", "outside"),
        [
            ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255"], ["9.255.255.255", "11.0.0.0", "::a00:1", ""]),
            ("192.0.2.7/32", ["192.0.2.7"], ["192.0.2.6", "192.0.2.8"]),
            ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["2001:db8::1", "::1", ""]),
            (
                "2001:db8::/32",
                ["2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"],
                ["2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::", "32.1.13.184"],
            ),
            ("::/0", ["::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "10.0.0.1"], [""]),
        ],
    )
    async def test_lists_by_network(self, store: Store, network: str, inside: list[str], outside: list[str]) -> None:
        """A network lists the sessions from its first address to its last, and none without an address."""
        sessions = {ip: samples.session(client=ClientContext(ip_address=ip)) for ip in (*inside, *outside)}
        await put(store, *sessions.values())
        found = await store.sessions(SessionQuery("default", NOW, ip_range=samples.ip_range(network)))
        assert set(ids(found)) == {sessions[ip].id for ip in inside}

    async def test_lists_by_time_of_opening(self, store: Store) -> None:
        """`created_from` is included, `created_until` is not."""
        before, at, after = (samples.session(NOW + offset) for offset in (-1, 0, 1))
        await put(store, before, at, after)
        query = SessionQuery("default", NOW)
        assert ids(await store.sessions(replace(query, created_from=NOW))) == [after.id, at.id]
        assert ids(await store.sessions(replace(query, created_until=NOW))) == [before.id]
        both = replace(query, created_from=NOW, created_until=Instant(NOW + 1))
        assert ids(await store.sessions(both)) == [at.id]

    async def test_all_conditions_of_a_list_hold(self, store: Store) -> None:
        """A session is listed only where every condition of the query holds."""
        client = ClientContext(ip_address="10.0.0.1")
        wanted = samples.session(NOW, client=client)
        others = [
            samples.session(NOW, client=client, subject="bob"),
            samples.session(NOW, client=client, application="shop"),
            samples.session(NOW, client=client, ending=samples.ending(NOW)),
            samples.session(NOW, client=ClientContext(ip_address="10.0.1.1")),
            samples.session(NOW - 1, client=client),
            samples.session(NOW + 1, client=client),
        ]
        await put(store, wanted, *others)
        query = SessionQuery(
            "default",
            NOW,
            subject="ada",
            ip_range=samples.ip_range("10.0.0.0/24"),
            created_from=NOW,
            created_until=Instant(NOW + 1),
        )
        assert ids(await store.sessions(query)) == [wanted.id]

    # Labels

    async def test_lists_by_label(self, store: Store) -> None:
        """A label lists the sessions that have that very key and value, in that application."""
        acme = samples.session(labels=(("tenant", "acme"),))
        other = samples.session(labels=(("device", "acme"), ("tenant", "other")))
        await put(store, acme, other, samples.session(), samples.session(labels=acme.labels, application="shop"))
        query = SessionQuery("default", NOW)
        assert ids(await store.sessions(replace(query, labels=(("tenant", "acme"),)))) == [acme.id]
        assert ids(await store.sessions(replace(query, labels=(("device", "acme"),)))) == [other.id]
        assert await store.sessions(replace(query, labels=(("tenant", "ACME"),))) == []
        assert await store.sessions(replace(query, labels=(("Tenant", "acme"),))) == []
        assert await store.sessions(replace(query, labels=(("tenant", ""),))) == []

    async def test_all_labels_of_a_list_must_be_there(self, store: Store) -> None:
        """Of several labels, eight at most, a session must have all; more of its own are no matter."""
        labels = tuple((f"key-{number}", f"value {number}") for number in range(8))
        every = samples.session(labels=labels)
        near = [samples.session(labels=labels[:number] + labels[number + 1 :]) for number in range(8)]
        crossed = samples.session(labels=(("key-0", "value 1"), ("key-1", "value 0")))
        await put(store, every, *near, crossed)
        query = SessionQuery("default", NOW)
        assert ids(await store.sessions(replace(query, labels=labels))) == [every.id]
        found = await store.sessions(replace(query, labels=labels[:2]))
        assert set(ids(found)) == {every.id, *ids(near[2:])}

    async def test_lists_by_label_and_subject(self, store: Store) -> None:
        """Labels and the other conditions of a list must all hold."""
        labels = (("tenant", "acme"),)
        wanted = samples.session(labels=labels)
        others = [
            samples.session(labels=labels, subject="bob"),
            samples.session(labels=labels, ending=samples.ending(NOW)),
            samples.session(labels=(("tenant", "other"),)),
        ]
        await put(store, wanted, *others)
        query = SessionQuery("default", NOW, subject="ada", labels=labels)
        assert ids(await store.sessions(query)) == [wanted.id]
        revoked = await store.sessions(replace(query, state=SessionState.REVOKED))
        assert ids(revoked) == [others[1].id]

    async def test_lists_by_label_in_pages(self, store: Store) -> None:
        """A list by labels comes in pages, newest first; none comes twice, none is left out."""
        labels = (("tenant", "acme"),)
        wanted = [samples.session(NOW + number, labels=labels) for number in range(7)]
        others = [samples.session(NOW + number) for number in range(7)]
        await put(store, *(session for pair in zip(wanted, others, strict=True) for session in pair))
        query = SessionQuery("default", NOW, labels=labels, limit=3)
        listed: list[Session] = []
        while page := await store.sessions(query):
            assert len(page) <= 3
            listed += page
            query = query.page(page[-1].id, 3)
        assert listed == wanted[::-1]

    async def test_labels_are_added_and_changed(self, store: Store) -> None:
        """A session is found by the labels that it has now: by one that was added, and by the last value of each."""
        session = samples.session(labels=(("tenant", "acme"),))
        await put(store, session)
        await put(store, replace(session, labels=(("device", "phone"), ("tenant", "other"))))
        query = SessionQuery("default", NOW)
        for labels, found in (
            ((("tenant", "acme"),), []),
            ((("tenant", "other"),), [session.id]),
            ((("device", "phone"),), [session.id]),
        ):
            assert ids(await store.sessions(replace(query, labels=labels))) == found

    async def test_labels_go_with_the_history(self, store: Store) -> None:
        """Pruning drops the labels of the sessions that it drops, and leaves those of a live one."""
        labels = (("tenant", "acme"),)
        ended, live = samples.session(labels=labels, ending=samples.ending(NOW)), samples.session(labels=labels)
        await put(store, ended, live)
        await write(store, pruned=[ended.id, live.id])
        # The same id again, without a label: what is left of the old ones would be found under it.
        await put(store, samples.session(id=ended.id))
        query = SessionQuery("default", NOW, labels=labels)
        assert ids(await store.sessions(query)) == [live.id]

    # Data

    async def test_data_is_set_and_deleted(self, store: Store) -> None:
        """Keys are set, replaced and deleted one by one; deleting what is not there is nothing."""
        session = samples.session()
        await put(store, session)
        await write(store, data={session.id: {"a": b"1", "b": b"2", "c": b""}})
        await write(store, data={session.id: {"a": b"one", "b": None, "z": None, "A": b"\0\xff"}})
        assert await data_of(store, session.id) == {"a": b"one", "c": b"", "A": b"\0\xff"}

    async def test_data_of_nothing_is_empty(self, store: Store) -> None:
        """A session without data has an empty map, and so has one that is not there, at version 0."""
        session = samples.session(data_version=3)
        await put(store, session)
        assert await store.data(session.id) == VersionedData({}, 3)
        assert await store.data(samples.session_id()) == VersionedData({}, 0)

    async def test_data_and_version_come_from_one_moment(self, store: Store) -> None:
        """Data that is read while it is written over and over always comes with the version of just that data."""
        session = samples.session()
        await put(store, session)
        rounds, seen, done = 40, list[VersionedData](), asyncio.Event()

        async def follow() -> None:
            while not done.is_set():
                seen.append(await store.data(session.id))

        readers = [asyncio.create_task(follow()) for _ in range(3)]
        for version in range(1, rounds + 1):
            changed = replace(session, data_version=version)
            values = {"a": b"%d" % version, "b": b"%d" % version}
            await write(store, sessions={session.id: changed}, data={session.id: values})
        done.set()
        await asyncio.gather(*readers)
        assert len({data.version for data in seen}) > 2
        for data in seen:
            expected = b"%d" % data.version
            assert dict(data.values) == ({"a": expected, "b": expected} if data.version else {})

    async def test_no_such_session(self, store: Store) -> None:
        """A session that was never opened is None."""
        assert await store.session(samples.session_id()) is None
