"""The journal: every change of every call, committed in groups by one writer.

Calls hand in units of work. The writer takes what has gathered, opens one transaction, reads what the units need,
lets each decide in turn, writes everything at once, commits, makes it known, and only then answers. Units decide one
after another against the same state, so no two can race; one that refuses fails alone. What is to be answered is made
while the store commits, when the loop has little else to do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from sessiond.domain.errors import Overloaded, Unavailable
from sessiond.domain.immutable import immutable
from sessiond.eventlog.work import DoFirst, Done, Memory, Needs, Read, Unit, Work
from sessiond.store.contract import Commit, Decision, Store, StoreFailed, StoreUnavailable, Transaction
from sessiond.system.clock import Clock

__all__ = ["Bounds", "Journal"]

R = TypeVar("R")
T = TypeVar("T")

_PATIENCE = 24
"""Empty turns of the loop after which a group is closed. With 6, 64 concurrent callers gave groups of 15 on average."""
_PATIENCE_ALONE = 6
_log = structlog.get_logger(__name__)


def _unchanged(done: Done[T]) -> Done[T]:
    return done


@dataclass(slots=True)
class _Waiting:
    """A unit, who waits for its answer, and how that is made of the outcome; `answer` is that of `outcome`."""

    unit: Unit[Any]
    caller: asyncio.Future[Any]
    answer_of: Callable[[Done[Any]], Any]
    outcome: Done[Any] | BaseException | None = field(default=None)
    answer: Any = field(default=None)

    def prepare(self, outcome: Done[Any] | BaseException) -> None:
        """Make the answer, unless it is made. Nobody is told before the commit."""
        if self.outcome is outcome:
            return
        self.outcome = self.answer = outcome
        if isinstance(outcome, Done):
            try:
                self.answer = self.answer_of(outcome)
            except Exception as fault:  # noqa: BLE001 - a fault of ours: for this caller alone
                self.answer = fault

    def tell(self) -> None:
        """Tell the caller, unless it was cancelled and has stopped listening."""
        if self.caller.done():
            return
        if isinstance(self.answer, BaseException):
            self.caller.set_exception(self.answer)
        else:
            self.caller.set_result(self.answer)


@immutable
class Bounds:
    """How many units are committed together at most, and how many may wait before more are refused."""

    group: int = 128
    waiting: int = 10_000


_BOUNDS = Bounds()


class Journal:
    """The one writer of a process.

    `publish` is called with each commit, before anybody is answered. `on_fatal` is called once if the store fails:
    from then on every unit is refused with `Unavailable`. A store that does not answer for a while fails the units of
    that while, and the journal goes on. `memory` is what units see beside the store: without it a unit would call
    sessions idle that are not.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        memory: Memory,
        publish: Callable[[Commit], None],
        on_fatal: Callable[[StoreFailed], None],
        bounds: Bounds = _BOUNDS,
    ) -> None:
        self._store = store
        self._clock = clock
        self._memory = memory
        self._publish = publish
        self._on_fatal = on_fatal
        self._bounds = bounds
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._grouped = 1
        self._closing = False
        self._failed: StoreFailed | None = None
        self._writer = asyncio.create_task(self._run(), name="journal")

    async def submit(self, unit: Unit[T], *, must: bool = False) -> Done[T]:
        """Have a unit carried out, however many wait already if it `must`; as `carry_out`."""
        return await self.carry_out(unit, _unchanged, must=must)

    async def carry_out(self, unit: Unit[T], answer_of: Callable[[Done[T]], R], *, must: bool = False) -> R:
        """Have a unit carried out. Returns what `answer_of` makes of its result, after the commit.

        `answer_of` must be pure: it is called before the commit is known, and again if the store repeats a conflict.

        Raises what the unit raises: then nothing of it was kept. Raises `Overloaded` if too many units wait already:
        then it was not begun. Raises `Unavailable` if the store failed or did not answer, or the journal is closed:
        then nobody can know. A unit whose caller is cancelled is not carried out if its group has not begun.
        """
        while True:
            try:
                return await self._carry_out(unit, answer_of, must=must)
            except DoFirst as larger:
                await self._carry_out(larger.unit, _unchanged, must=must)

    async def _carry_out(self, unit: Unit[T], answer_of: Callable[[Done[T]], R], *, must: bool) -> R:
        if self._failed is not None or self._closing:
            raise Unavailable("the authority is stopping")
        if len(self._queue) >= self._bounds.waiting and not must:
            raise Overloaded("too many changes wait for the disk; try again soon")
        waiting = _Waiting(unit, asyncio.get_running_loop().create_future(), answer_of)
        self._queue.append(waiting)
        self._wake.set()
        answer: R = await waiting.caller
        return answer

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
                group = self._next_group()
                self._grouped = len(group)
                if not group:
                    continue
                try:
                    commit = await self._commit(group)
                except StoreFailed as failure:
                    self._fail(failure, group)
                    return
                except StoreUnavailable as trouble:
                    _log.warning("store unavailable", error=str(trouble), units=len(group))
                    _refuse(group, trouble)
                    continue
                except Exception as fault:  # noqa: BLE001 - a fault of ours: rolled back, and the writer must live on
                    _refuse(group, fault)
                    continue
                try:
                    self._publish(commit)
                except Exception as fault:  # noqa: BLE001 - committed, but caches and feed may not know: stop rather than lie
                    self._fail(StoreFailed(f"a commit could not be made known: {fault}"), group)
                    return
                for waiting in group:
                    waiting.tell()

    def _next_group(self) -> list[_Waiting]:
        """The next units, without those whose callers have given up: nobody would learn what became of them."""
        group: list[_Waiting] = []
        while self._queue and len(group) < self._bounds.group:
            waiting = self._queue.popleft()
            if not waiting.caller.cancelled():
                group.append(waiting)
        return group

    async def _gather(self) -> None:
        """Let calls that are on their way join the group: a commit costs about the same for one and for fifty.

        Waits for turns of the loop, not for time: while turns bring more units, the loop is busy with calls that will
        soon be here. Best is a group of everybody who waits: while it is committed the loop has little to do, and the
        store's thread does not have to race for the interpreter's lock. A unit that comes after a lone one waits for a
        few empty turns only, some tens of microseconds.
        """
        patience = _PATIENCE if self._grouped > 1 else _PATIENCE_ALONE
        loop, gathered = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        quiet, before = 0, len(self._queue)

        def turn() -> None:  # a callback: waking a task in each turn would cost several times as much
            nonlocal quiet, before
            quiet, before = quiet + 1 if len(self._queue) == before else 0, len(self._queue)
            if quiet < patience and before < self._bounds.group and not self._closing:
                loop.call_soon(turn)
            else:
                gathered.set_result(None)

        loop.call_soon(turn)
        await gathered

    async def _commit(self, group: Sequence[_Waiting]) -> Commit:
        needs = [waiting.unit.needs() for waiting in group]

        async def decide(transaction: Transaction) -> Decision[tuple[Commit, list[Done[Any] | Exception]]]:
            read = await self._read(transaction, needs)
            work = Work(self._clock.now(), transaction.head.revision, read, self._memory)
            outcomes = [_outcome(work, waiting.unit) for waiting in group]
            asyncio.get_running_loop().call_soon(_prepare, group, outcomes)
            changes, head = work.changes, transaction.head
            horizon = head.horizon if changes.horizon is None else max(head.horizon, changes.horizon)
            commit = Commit(changes.sessions, changes.activity, changes.pruned, changes.events, work.revision, horizon)
            return Decision(changes, (commit, outcomes))

        commit, outcomes = await self._store.write(decide)
        _prepare(group, outcomes)  # what is not prepared yet: there may have been nothing to write, and so no time
        return commit

    async def _read(self, transaction: Transaction, needs: Sequence[Needs]) -> Read:
        kin = {session_id for need in needs for session_id in need.kin}
        session_ids = kin.union(*(need.sessions for need in needs))
        data_ids = list({session_id for need in needs for session_id in need.data})
        subjects = {subject for need in needs for subject in need.subjects}
        keys = list({key for need in needs for key in need.answers})
        answers = await transaction.answers(keys) if keys else {}
        session_ids |= {answer.session_id for answer in answers.values() if answer.session_id is not None}
        sessions = await transaction.sessions(list(session_ids)) if session_ids else {}
        data = await transaction.data(data_ids) if data_ids else {}
        subjects |= {(s.application, s.subject) for s in sessions.values() if s.id in kin and s.subject}
        most = max(need.most for need in needs)
        live = await transaction.live_sessions(list(subjects), most) if subjects else {}
        theirs = [session for found in live.values() for session in found.sessions]
        known = {session.id: self._memory.with_activity(session) for session in (*sessions.values(), *theirs)}
        crowds = {subject: found.count for subject, found in live.items() if found.count > most}
        return Read(known, data, answers, crowds)

    def _fail(self, failure: StoreFailed, group: Sequence[_Waiting]) -> None:
        self._failed = failure
        # Refusals too: an answer from a transaction that did not commit would be a guess.
        _refuse([*group, *self._queue], Unavailable("the store failed; whether the change was made is unknown"))
        self._queue.clear()
        self._on_fatal(failure)


def _prepare(group: Sequence[_Waiting], outcomes: Sequence[Done[Any] | Exception]) -> None:
    for waiting, outcome in zip(group, outcomes, strict=True):
        waiting.prepare(outcome)


def _refuse(group: Sequence[_Waiting], reason: Exception) -> None:
    for waiting in group:
        waiting.prepare(reason)
        waiting.tell()


def _outcome(work: Work, unit: Unit[T]) -> Done[T] | Exception:
    try:
        return work.run(unit)
    except Exception as refusal:  # noqa: BLE001 - a unit fails alone, whatever it is
        return refusal
