"""The journal: every change of every call, committed in groups by one writer.

Calls hand in units of work. The writer takes what has gathered, opens one transaction, reads what the units need,
lets each decide in turn, writes everything at once, commits, makes it known, and only then answers. Units decide one
after another against the same state, so no two can race; one that refuses fails alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from sessiond.domain.errors import Unavailable
from sessiond.domain.event import Event, EventType
from sessiond.domain.session import Session, expired_view
from sessiond.domain.signals import Reaction, Signal
from sessiond.domain.values import NOBODY, Cause, ClientContext, Instant, Millis, Revision, SessionId
from sessiond.store.contract import Changes, Commit, KeptAnswer, Store, StoreFailed
from sessiond.system.clock import Clock

__all__ = ["NOTHING", "Done", "Journal", "Needs", "Unit", "Work"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a unit must have read before it decides.

    sessions  these sessions
    kin       the live sessions of whatever subjects these sessions have
    subjects  the live sessions of these subjects (application, subject)
    data      the data of these sessions
    answers   the answers kept under these keys
    """

    sessions: Sequence[SessionId] = ()
    kin: Sequence[SessionId] = ()
    subjects: Sequence[tuple[str, str]] = ()
    data: Sequence[SessionId] = ()
    answers: Sequence[bytes] = ()


_PATIENCE = 24
"""Empty turns of the loop after which a group is closed. With six, groups of 64 callers were of 15 (performance.md)."""
_PATIENCE_ALONE = 6
NOTHING = Needs()
"""What a unit needs that decides from its own parameters."""


class Unit(Protocol[T_co]):
    """One change, decided in one go.

    `apply` must not wait, read a clock or draw randomness: it decides from `work` and writes to it. What it raises is
    handed to its caller, and then nothing of the unit is kept. It must see only what `needs` named, or `work` holds.
    """

    def needs(self) -> Needs:
        """What to read first."""

    def apply(self, work: Work) -> T_co:
        """Decide and write."""


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """A unit's result, committed, and the newest revision of the log that has it."""

    result: T
    revision: Revision


class Work:
    """What the units of one transaction see and write. `now` is the same for all of them."""

    def __init__(
        self,
        now: Instant,
        head: Revision,
        sessions: Mapping[SessionId, Session],
        data: Mapping[SessionId, Mapping[str, bytes]],
        answers: Mapping[bytes, KeptAnswer],
    ) -> None:
        self.now = now
        self.changes = Changes()
        self._head = head
        self._read_sessions = sessions
        self._read_data = data
        self._read_answers = answers
        self._draft = Changes()
        # Which sessions may be a subject's; made when first asked for, as most applications set no limit.
        self._subjects: dict[tuple[str, str], set[SessionId]] | None = None

    @property
    def revision(self) -> Revision:
        """The newest revision, the unit's own events included."""
        return Revision(self._head + len(self.changes.events) + len(self._draft.events))

    @property
    def untouched(self) -> bool:
        """Whether the unit has told of nothing so far."""
        return not self._draft.events

    def session(self, session_id: SessionId) -> Session | None:
        """A session as this and the earlier units leave it."""
        for layer in (self._draft.sessions, self.changes.sessions, self._read_sessions):
            if (session := layer.get(session_id)) is not None:
                return session
        return None

    def data(self, session_id: SessionId) -> dict[str, bytes]:
        """A session's data as this and the earlier units leave it."""
        data = dict(self._read_data.get(session_id, {}))
        for layer in (self.changes, self._draft):
            for key, value in layer.data.get(session_id, {}).items():
                if value is None:
                    data.pop(key, None)
                else:
                    data[key] = value
        return data

    def live_sessions(self, application: str, subject: str) -> list[Session]:
        """A subject's live sessions as this and the earlier units leave them, in the order they were opened."""
        if self._subjects is None:
            self._subjects = _by_subject({}, (*self._read_sessions.values(), *self.changes.sessions.values()))
        ids = self._subjects.get((application, subject), set()) | self._draft.sessions.keys()
        sessions = (self.session(session_id) for session_id in sorted(ids))
        return [
            session
            for session in sessions
            if session is not None
            and (session.application, session.subject) == (application, subject)
            and expired_view(session, self.now).ending is None
        ]

    def answer(self, key: bytes) -> KeptAnswer | None:
        """The kept answer under this key, unless it has expired."""
        for answers in (self._draft.answers, self.changes.answers, self._read_answers.values()):
            for answer in answers:
                if answer.key == key and self.now < answer.expires:
                    return answer
        return None

    def keep_answer(self, answer: KeptAnswer) -> None:
        """Keep the first answer to a call."""
        self._draft.answers.append(answer)

    def forget_answers(self) -> None:
        """Drop some of the answers that have expired."""
        self._draft.forget = self.now

    def put(self, session: Session) -> None:
        """Write a session as it is to be."""
        self._draft.sessions[session.id] = session

    def put_ended(self, session: Session, retention: Millis) -> None:
        """Write a session that ends here; its history is kept for `retention`."""
        self._draft.sessions[session.id] = session
        self._draft.retention[session.id] = retention

    def put_activity(self, session_id: SessionId, at: Instant, idle_deadline: Instant | None) -> None:
        """Write activity, without having read the session. An ended session will stay ended."""
        self._draft.activity[session_id] = (at, idle_deadline)

    def put_data(self, session_id: SessionId, changed: Mapping[str, bytes | None]) -> None:
        """Set keys to bytes, delete keys at None."""
        self._draft.data.setdefault(session_id, {}).update(changed)

    def prune(self, ids: Sequence[SessionId]) -> None:
        """Drop the history of ended sessions."""
        self._draft.pruned.extend(ids)

    def move_horizon(self, horizon: Revision) -> None:
        """Drop the log up to and including this revision."""
        self._draft.horizon = horizon

    def record(
        self,
        type: EventType,
        session: Session,
        cause: Cause,
        client: ClientContext = NOBODY,
        signals: tuple[Signal, ...] = (),
        reaction: Reaction | None = None,
    ) -> None:
        """Add an event about a session, as it is after the change, to the log."""
        tells_authentication = type in (EventType.SESSION_CREATED, EventType.SESSION_AUTHENTICATED)
        self._draft.events.append(
            Event(
                revision=Revision(self.revision + 1),
                type=type,
                at=self.now,
                application=session.application,
                subject=session.subject,
                session_id=session.id,
                cause=cause,
                client=client,
                generation=session.generation,
                authentication=session.authentication if tells_authentication else None,
                signals=signals,
                reaction=reaction,
            )
        )

    def record_other(
        self, type: EventType, application: str, cause: Cause, *, subject: str = "", source: str = ""
    ) -> None:
        """Add an event about no single session to the log."""
        self._draft.events.append(
            Event(
                revision=Revision(self.revision + 1),
                type=type,
                at=self.now,
                application=application,
                subject=subject,
                session_id=None,
                cause=cause,
                client=NOBODY,
                source=source,
            )
        )

    def run(self, unit: Unit[T]) -> Done[T]:
        """Let one unit decide. What it raises comes through, and then nothing of it is kept."""
        draft = self._draft
        try:
            result = unit.apply(self)
            self.changes.merge(draft)
            if self._subjects is not None:
                _by_subject(self._subjects, draft.sessions.values())
        finally:
            draft.clear()
        return Done(result, self.revision)


def _by_subject(
    index: dict[tuple[str, str], set[SessionId]], sessions: Iterable[Session]
) -> dict[tuple[str, str], set[SessionId]]:
    for session in sessions:
        index.setdefault((session.application, session.subject), set()).add(session.id)
    return index


@dataclass(slots=True)
class _Waiting:
    unit: Unit[Any]
    answer: asyncio.Future[Done[Any]]
    outcome: Done[Any] | BaseException | None = field(default=None)


class Journal:
    """The one writer of a process.

    `publish` is called with each commit, before anybody is answered. `on_fatal` is called once if the store fails:
    from then on every unit is refused with `Unavailable`. `recall` adds to a session as the store has it the activity
    that only memory knows of: without it a unit would call sessions idle that are not.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        recall: Callable[[Session], Session],
        publish: Callable[[Commit], None],
        on_fatal: Callable[[StoreFailed], None],
        max_group: int = 128,
    ) -> None:
        self._store = store
        self._clock = clock
        self._recall = recall
        self._publish = publish
        self._on_fatal = on_fatal
        self._max_group = max_group
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._grouped = 1
        self._closing = False
        self._failed: StoreFailed | None = None
        self._writer = asyncio.create_task(self._run(), name="journal")

    async def submit(self, unit: Unit[T]) -> Done[T]:
        """Have a unit carried out. Returns after its commit.

        Raises what the unit raises, and `Unavailable` where the store failed or the journal is closed; after the
        former nothing of it was kept, after the latter nobody can know. A caller that is cancelled while it waits
        does not take its unit back.
        """
        if self._failed is not None or self._closing:
            raise Unavailable("the authority is stopping")
        waiting = _Waiting(unit, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._wake.set()
        return await waiting.answer

    async def close(self) -> None:
        """Carry out what is waiting, then stop."""
        self._closing = True
        self._wake.set()
        await self._writer

    async def _run(self) -> None:
        while not (self._closing and not self._queue):
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._gather()
                self._grouped = min(self._max_group, len(self._queue))
                group = [self._queue.popleft() for _ in range(self._grouped)]
                try:
                    commit = await self._commit(group)
                except StoreFailed as failure:
                    self._fail(failure, group)
                    return
                except Exception as fault:  # noqa: BLE001 - a fault of ours: rolled back, and the writer must live on
                    for waiting in group:
                        waiting.outcome = fault
                        _answer(waiting)
                    continue
                try:
                    self._publish(commit)
                except Exception as fault:  # noqa: BLE001 - committed, but caches and feed may not know: stop rather than lie
                    self._fail(StoreFailed(f"a commit could not be made known: {fault}"), group)
                    return
                for waiting in group:
                    _answer(waiting)

    async def _gather(self) -> None:
        """Let calls that are on their way join the group: a commit costs about the same for one and for fifty.

        Waits for turns of the loop, not for time: while turns bring more units, the loop is busy with calls that will
        soon be here. Best is a group of everybody who waits: while it is committed the loop has little to do, and the
        store's thread does not have to race for the interpreter's lock. A unit that comes after a lone one waits for a
        few empty turns only, some tens of microseconds.
        """
        patience = _PATIENCE if self._grouped > 1 else _PATIENCE_ALONE
        quiet = 0
        while quiet < patience and len(self._queue) < self._max_group and not self._closing:
            before = len(self._queue)
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._queue) == before else 0

    async def _commit(self, group: Sequence[_Waiting]) -> Commit:
        needs = [waiting.unit.needs() for waiting in group]
        kin = {session_id for need in needs for session_id in need.kin}
        session_ids = list(kin.union(*(need.sessions for need in needs)))
        data_ids = list({session_id for need in needs for session_id in need.data})
        subjects = {subject for need in needs for subject in need.subjects}
        keys = list({key for need in needs for key in need.answers})
        async with self._store.transaction() as transaction:
            sessions = await transaction.sessions(session_ids) if session_ids else {}
            data = await transaction.data(data_ids) if data_ids else {}
            subjects |= {(s.application, s.subject) for s in sessions.values() if s.id in kin and s.subject}
            live = await transaction.live_sessions(list(subjects)) if subjects else ()
            answers = await transaction.answers(keys) if keys else {}
            known = {session.id: self._recall(session) for session in (*sessions.values(), *live)}
            work = Work(self._clock.now(), transaction.head.revision, known, data, answers)
            for waiting in group:
                try:
                    waiting.outcome = work.run(waiting.unit)
                except Exception as refusal:  # noqa: BLE001 - a unit fails alone, whatever it is
                    waiting.outcome = refusal
            await transaction.write(work.changes)
        horizon = work.changes.horizon or transaction.head.horizon
        changes = work.changes
        return Commit(changes.sessions, changes.activity, changes.pruned, changes.events, work.revision, horizon)

    def _fail(self, failure: StoreFailed, group: Sequence[_Waiting]) -> None:
        self._failed = failure
        for waiting in [*group, *self._queue]:
            # Refusals too: an answer from a transaction that did not commit would be a guess.
            waiting.outcome = Unavailable("the store failed; whether the change was made is unknown")
            _answer(waiting)
        self._queue.clear()
        self._on_fatal(failure)


def _answer(waiting: _Waiting) -> None:
    if waiting.answer.done():
        return  # the caller was cancelled and has stopped listening
    if isinstance(waiting.outcome, Done):
        waiting.answer.set_result(waiting.outcome)
    else:
        failure = waiting.outcome
        waiting.answer.set_exception(failure if failure is not None else AssertionError("a unit without outcome"))
