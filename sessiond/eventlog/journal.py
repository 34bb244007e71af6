"""The journal: a single writer that commits all changes in groups.

Calls submit units of work. The writer takes the waiting units as a group, opens one transaction, reads what they need,
runs them one after another, writes all changes, commits, publishes the commit, and only then answers the callers.
Because the units run one after another on the same state, they cannot race. A unit that raises fails alone. Results
are converted while the store commits, because the event loop is mostly idle then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeVar

import structlog

from sessiond.domain.errors import Overloaded, Unavailable
from sessiond.domain.immutable import immutable
from sessiond.eventlog.work import Done, Memory, Needs, PrerequisiteRequired, Read, Unit, Work
from sessiond.store.contract import Commit, Decision, Store, StoreFailed, StoreUnavailable, Transaction
from sessiond.system.clock import Clock
from sessiond.system.distribution import SECONDS, Distribution
from sessiond.system.ongoing import step

__all__ = ["Bounds", "Journal"]

R = TypeVar("R")
T = TypeVar("T")

_IDLE_TURNS = 24
"""Turns of the event loop without a new unit that close a group. With 6, 64 callers formed groups of 15 on average."""
_UNITS = (1, 2, 4, 8, 16, 32, 64, 128)
_IDLE_TURNS_AFTER_ONE = 6
"""The same after a group of a single unit."""
_log = structlog.get_logger(__name__)


def _unchanged(done: Done[T]) -> Done[T]:
    return done


@dataclass(slots=True)
class _Waiting:
    """A waiting unit, the future of its caller, and `convert`, which turns the outcome into the caller's result.

    `result` belongs to `outcome`; both are None until the unit has run.
    """

    unit: Unit[Any]
    caller: asyncio.Future[Any]
    convert: Callable[[Done[Any]], Any]
    outcome: Done[Any] | BaseException | None = field(default=None)
    result: Any = field(default=None)

    def prepare(self, outcome: Done[Any] | BaseException) -> None:
        """Convert the outcome, unless that was done already. The caller gets the result only after the commit."""
        if self.outcome is outcome:
            return
        self.outcome = self.result = outcome
        if isinstance(outcome, Done):
            try:
                self.result = self.convert(outcome)
            except Exception as fault:  # noqa: BLE001 - a bug in `convert` must fail this caller alone
                self.result = fault

    def resolve(self) -> None:
        """Pass the result to the caller, unless the caller was cancelled."""
        if self.caller.done():
            return
        if isinstance(self.result, BaseException):
            self.caller.set_exception(self.result)
        else:
            self.caller.set_result(self.result)


@immutable
class Bounds:
    """Limits: units per transaction (`group`), and waiting units before further ones are rejected (`waiting`)."""

    group: int = 128
    waiting: int = 10_000


_BOUNDS = Bounds()


class Journal:
    """The single writer of a process.

    publish   called with each commit before any of its callers gets a result; may return something to await first
    on_fatal  called once if the store fails; from then on every unit is rejected with `Unavailable`
    memory    what units know in addition to the store, for example activity that is not saved yet

    If the store is unavailable for some time, the units of that time fail and the journal continues.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        memory: Memory,
        publish: Callable[[Commit], Awaitable[None] | None],
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
        self.units = Distribution(_UNITS)
        """How many units the groups had that were committed."""
        self.seconds = Distribution(SECONDS)
        """How long the commits took."""
        self.failures = 0
        """Groups that the store did not commit, or did not say so."""
        self._writer = asyncio.create_task(self._run(), name="journal")

    async def submit(self, unit: Unit[T], *, urgent: bool = False) -> Done[T]:
        """Carry out a unit and return its result. Like `carry_out` without a conversion."""
        return await self.carry_out(unit, _unchanged, urgent=urgent)

    async def carry_out(self, unit: Unit[T], convert: Callable[[Done[T]], R], *, urgent: bool = False) -> R:
        """Carry out a unit. After the commit return its result, converted by `convert`.

        `convert` must be pure: it is called before the commit is certain, and again if the store retries after a
        conflict. With `urgent` the unit is accepted even if too many units are waiting. A unit that needs others to be
        committed first pauses between them, so that it takes about twice as long.

        Raises what the unit raises; then nothing of it was kept. Raises `Overloaded` if too many units are waiting;
        then it was not started. Raises `Unavailable` if the journal is closed, or if the store failed or did not
        answer; then the outcome is unknown. If the caller is cancelled before the unit's group starts, the unit is not
        carried out.
        """
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                return await self._carry_out(unit, convert, urgent=urgent)
            except PrerequisiteRequired as required:
                # After each transaction as long a pause: others never wait for two large ones in a row.
                await asyncio.sleep(loop.time() - began)
                began = loop.time()
                await self._carry_out(required.unit, _unchanged, urgent=urgent)
                await asyncio.sleep(loop.time() - began)

    async def _carry_out(self, unit: Unit[T], convert: Callable[[Done[T]], R], *, urgent: bool) -> R:
        if self._failed is not None or self._closing:
            raise Unavailable("the authority is stopping")
        if len(self._queue) >= self._bounds.waiting and not urgent:
            raise Overloaded("too many changes wait for the disk; try again soon")
        waiting = _Waiting(unit, asyncio.get_running_loop().create_future(), convert)
        self._queue.append(waiting)
        self._wake.set()
        with step("commit"):
            result: R = await waiting.caller
        return result

    async def close(self) -> None:
        """Carry out the waiting units, then stop."""
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
                    began = perf_counter()
                    commit = await self._commit(group)
                    self.seconds.add(perf_counter() - began)
                    self.units.add(len(group))
                except StoreFailed as failure:
                    self.failures += 1
                    self._fail(failure, group)
                    return
                except StoreUnavailable as trouble:
                    self.failures += 1
                    _log.warning("store unavailable", error=str(trouble), units=len(group))
                    _refuse(group, trouble)
                    continue
                except Exception as fault:  # noqa: BLE001 - a bug of ours: rolled back, and the writer must continue
                    _refuse(group, fault)
                    continue
                try:
                    published = self._publish(commit)
                    if published is not None:
                        await published
                except StoreUnavailable as trouble:
                    # It is committed; the follower publishes it when the store responds again.
                    _refuse(group, trouble)
                    continue
                except Exception as fault:  # noqa: BLE001 - caches and feed may have missed the commit: stop, do not serve
                    self._fail(StoreFailed(f"a commit could not be published: {fault}"), group)
                    return
                for waiting in group:
                    waiting.resolve()

    def _next_group(self) -> list[_Waiting]:
        """Return the next group, without units whose callers were cancelled: nobody waits for their result."""
        group: list[_Waiting] = []
        while self._queue and len(group) < self._bounds.group:
            waiting = self._queue.popleft()
            if not waiting.caller.cancelled():
                group.append(waiting)
        return group

    async def _gather(self) -> None:
        """Wait for more units to join the group, because a commit costs about the same for one unit and for fifty.

        Waits for turns of the event loop and not for a time: as long as turns add units, the loop is processing calls
        that will soon submit theirs. A group of all waiting calls is best: during the commit the loop is idle, so the
        store's thread does not compete for the interpreter's lock. After a group of one unit it waits only for a few
        turns, some tens of microseconds.
        """
        limit = _IDLE_TURNS if self._grouped > 1 else _IDLE_TURNS_AFTER_ONE
        loop, gathered = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        idle, before = 0, len(self._queue)

        def turn() -> None:  # a callback, because waking a task in each turn would cost several times as much
            nonlocal idle, before
            if gathered.done():
                return  # the writer was cancelled
            idle, before = idle + 1 if len(self._queue) == before else 0, len(self._queue)
            if idle < limit and before < self._bounds.group and not self._closing:
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
            callers = sorted(work.callers().values(), key=lambda caller: caller.name) if changes.callers else None
            commit = Commit(
                changes.sessions,
                changes.activity,
                changes.pruned,
                changes.events,
                work.revision,
                horizon,
                callers=callers,
                keys=changes.keys,
            )
            return Decision(changes, (commit, outcomes))

        commit, outcomes = await self._store.write(decide, quiet=all(need.quiet for need in needs))
        _prepare(group, outcomes)  # the rest: the store may have had nothing to write and so returned early
        return commit

    async def _read(self, transaction: Transaction, needs: Sequence[Needs]) -> Read:
        subjects_of = {session_id for need in needs for session_id in need.subjects_of}
        session_ids = subjects_of.union(*(need.sessions for need in needs))
        data_ids = list({session_id for need in needs for session_id in need.data})
        subjects = {subject for need in needs for subject in need.subjects}
        keys = list({key for need in needs for key in need.answers})
        answers = await transaction.answers(keys) if keys else {}
        session_ids |= {answer.session_id for answer in answers.values() if answer.session_id is not None}
        sessions = await transaction.sessions(list(session_ids)) if session_ids else {}
        data = await transaction.data(data_ids) if data_ids else {}
        subjects |= {(s.application, s.subject) for s in sessions.values() if s.id in subjects_of and s.subject}
        max_live = max(need.max_live for need in needs)
        live = await transaction.live_sessions(list(subjects), max_live) if subjects else {}
        theirs = [session for found in live.values() for session in found.sessions]
        known = {session.id: self._memory.with_activity(session) for session in (*sessions.values(), *theirs)}
        truncated = {subject: found.count for subject, found in live.items() if found.count > max_live}
        callers = await transaction.callers() if any(need.callers for need in needs) else ()
        named = {caller.name: caller for caller in callers}
        if not any(need.keys for need in needs):
            return Read(known, data, answers, named, truncated=truncated)
        return Read(known, data, answers, named, await transaction.keys(), await transaction.holders(), truncated)

    def _fail(self, failure: StoreFailed, group: Sequence[_Waiting]) -> None:
        self._failed = failure
        # Also for units that were rejected: their decision is based on a transaction that did not commit.
        _refuse([*group, *self._queue], Unavailable("the store failed; whether the change was made is unknown"))
        self._queue.clear()
        self._on_fatal(failure)


def _prepare(group: Sequence[_Waiting], outcomes: Sequence[Done[Any] | Exception]) -> None:
    for waiting, outcome in zip(group, outcomes, strict=True):
        waiting.prepare(outcome)


def _refuse(group: Sequence[_Waiting], reason: Exception) -> None:
    for waiting in group:
        waiting.prepare(reason)
        waiting.resolve()


def _outcome(work: Work, unit: Unit[T]) -> Done[T] | Exception:
    try:
        return work.run(unit)
    except Exception as refusal:  # noqa: BLE001 - a unit fails alone, whatever it raises
        return refusal
