"""Turns: callers with many calls under way wait for each other, so that one caller's flood hardly delays the others.

The event loop works on everything that is ready, in the order in which it arrived. So a call of one caller would wait
for all calls of another caller that are under way, a thousand or more. Therefore a caller may have only a few calls in
work. Its other calls wait here, before their message is read, and the callers that have some waiting take turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from time import monotonic
from types import coroutine
from typing import Any, TypeVar, cast

from sessiond.domain.errors import Overloaded
from sessiond.domain.immutable import immutable

__all__ = ["CHANGE", "READ", "Lane", "Pace", "Turns", "Work", "watched"]

READ, CHANGE = 16, 1
"""What a call counts while it is in work. A read keeps the event loop busy; most of the time of a change is that of the
disk, and many at once share one write. A read that waits for something counts as a change."""
_LONG_WAIT = 0.02
"""Seconds after which a call that waits, such as for a replica, does not count any more."""
_CROWD, _CROWDED, _BETWEEN_LOOKS, _FIRST_LOOK = 16, 1.0, 256, 16
"""A caller with more than so many calls waiting is crowded for that many seconds. A caller that is not is looked at
again after so many calls if it has enough in work, and after twice as many if it has not; a new one after a few."""
_QUIET, _LONGEST_QUIET, _QUIET_PASSES, _LONGEST_PAUSE = 0.0005, 0.003, 32, 0.04
"""Seconds, and passes of the event loop. See `Turns._pauses` and `Turns._is_looked_at`."""
_BESIDE_OTHERS, _RECENT = 8, 0.1
"""Passes of the event loop between turns while calls of callers that do not wait are in work, and for how many seconds
after one began pauses are longer."""
_ALONE, _AROUND = 8, 1.0
"""How many times as many turns there are between pauses, for three milliseconds at most, if no caller that does not
wait has called for so many seconds. The first call of such a caller finds more calls before it."""
_SLOW = 0.005
"""Seconds. A caller whose calls are further apart than that is not crowded."""
T = TypeVar("T")
_SHARED = 600.0
"""Seconds after a call for which its caller may still be there. A caller that is alone never waits."""


@immutable
class Pace:
    """How fast calls that wait get their turn.

    in_work   what the calls in work of one caller may count before its next one has to wait
    at_once   how many calls get a turn in one pass of the event loop
    in_a_row  after how many turns there is a pause, in which calls arrive that the transport holds back, while others
              call
    """

    in_work: int = 2 * READ
    at_once: int = 1
    in_a_row: int = 4


_PACE = Pace()


class Lane:
    """The calls of one caller: what those in work count, and those that wait.

    Only a crowded caller takes turns. How many calls it has is not known, because the transport may hold them back, and
    then none of them may ever meet another one here. So after some calls its next ones wait until no more arrive: if
    these are many, the caller is crowded.
    """

    __slots__ = ("arrived", "crowded_until", "in_work", "is_queued", "looked", "passed", "quiet", "unseen", "waiting")

    def __init__(self) -> None:
        self.in_work = 0
        self.unseen = 2 * _BETWEEN_LOOKS - _FIRST_LOOK
        self.crowded_until = self.arrived = self.looked = 0.0
        self.passed = 0
        self.quiet = _LONGEST_QUIET
        self.is_queued = False
        self.waiting: deque[tuple[asyncio.Future[None], int]] = deque()


class Work:
    """What one call that is in work counts."""

    __slots__ = ("_lane", "_timer", "_turns", "_weight")

    def __init__(self, turns: Turns, lane: Lane, weight: int) -> None:
        self._turns = turns
        self._lane = lane
        self._weight = weight
        self._timer: asyncio.TimerHandle | None = None

    def waits(self) -> None:
        """Note that the call waits for something, such as the disk, and leaves the event loop to others."""
        if self._timer is None:
            self._reduce(min(self._weight, CHANGE))
            self._timer = asyncio.get_running_loop().call_later(_LONG_WAIT, self._reduce, 0)

    def end(self) -> None:
        """Note that the call has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._reduce(0)

    def _reduce(self, weight: int) -> None:
        if weight < self._weight:
            less, self._weight = self._weight - weight, weight
            self._turns.end(self._lane, less)


@coroutine
def watched(serving: Coroutine[Any, Any, T], work: Work) -> Generator[Any, Any, T]:
    """Serve a call, and note when it waits. A mere pause (`asyncio.sleep(0)`) is work."""
    steps = serving.__await__()
    step: Callable[[Any], Any] = steps.send
    argument = None
    while True:
        try:
            waiting_for = step(argument)
        except StopIteration as done:
            return cast("T", done.value)
        if waiting_for is not None:
            work.waits()
        try:
            step, argument = steps.send, (yield waiting_for)
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:  # noqa: BLE001 - such as a cancellation, for the call to handle
            step, argument = steps.throw, error


class Turns:
    """Lets calls begin, callers that have many after each other. `clock` returns seconds.

    At most `most_waiting` calls wait. Beyond that, the latest one of the caller with the most waiting calls is refused.
    """

    def __init__(self, most_waiting: int = 2_000, pace: Pace = _PACE, clock: Callable[[], float] = monotonic) -> None:
        self._most_waiting = most_waiting
        self._pace = pace
        self._clock = clock
        self._queue: deque[Lane] = deque()
        self._waiting = 0
        self._latest: Lane | None = None
        self._shared_until = 0.0
        self._is_scheduled = False
        self._in_work = self._given = self._passes = self._passed = self._turned = 0
        self._arrived = self._paused = self._others = self._began = 0.0
        self._has_others = False

    def begin(self, lane: Lane, weight: int) -> asyncio.Future[None] | None:
        """Begin a call. If it has to wait, return what to pass to `wait`; None: it is in work until `end`.

        Raise `Overloaded` if too many calls wait.
        """
        if lane is not self._latest:
            if self._latest is not None:
                self._shared_until = self._clock() + _SHARED
            self._latest = lane
        if not lane.waiting and self._may_begin(lane):
            lane.in_work += weight
            self._in_work += weight
            if not self._has_others and not lane.is_queued:
                self._has_others = self._clock() >= lane.crowded_until
            return None
        if self._waiting >= self._most_waiting:
            self._refuse_one_for(lane)
        now = self._clock()
        lane.arrived, lane.passed = now, self._passes
        if lane.crowded_until > now:
            self._arrived, self._passed = now, self._passes
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane.waiting.append((turn, weight))
        self._waiting += 1
        if len(lane.waiting) > _CROWD:
            lane.crowded_until = now + _CROWDED
        if not lane.is_queued:
            lane.is_queued = True
            self._queue.append(lane)
        self._schedule()
        return turn

    async def wait(self, turn: asyncio.Future[None], lane: Lane, weight: int) -> None:
        """Wait until a call is in work. Raise `Overloaded` if it is refused."""
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:  # it had its turn at the same moment
                self.end(lane, weight)
            raise

    def end(self, lane: Lane, weight: int) -> None:
        """End a call that was in work."""
        lane.in_work -= weight
        self._in_work -= weight
        if lane.waiting:
            self._schedule()

    def _may_begin(self, lane: Lane) -> bool:
        """Return whether a caller may begin a call: it has little in work, is alone, or is not crowded."""
        has_room = lane.in_work < self._pace.in_work
        lane.unseen += 1
        if has_room and lane.unseen < 2 * _BETWEEN_LOOKS:
            return True
        now = self._clock()
        if now >= self._shared_until:
            return True
        if now < lane.crowded_until:
            return has_room
        return lane.unseen < _BETWEEN_LOOKS or not self._is_looked_at(lane, now)

    def _is_looked_at(self, lane: Lane, now: float) -> bool:
        """Begin to look at a caller, unless its calls are far apart; return whether they wait meanwhile.

        A caller that has few calls sends no more until some are answered. One that has many goes on, but how fast gRPC
        passes its calls on depends on what else the machine does. So the look takes three times as long as a call took.
        """
        if lane.looked:
            per_call = (now - lane.looked) / lane.unseen
            lane.quiet = min(max(3 * per_call, _QUIET), _LONGEST_QUIET)
            if per_call > _SLOW:
                lane.unseen, lane.looked = 0, now
                return False
        return True

    def _has_looked(self, lane: Lane) -> bool:
        """Let the calls of a caller go on that is not crowded; return whether that is known."""
        now = self._clock()
        if now - lane.arrived < lane.quiet or self._passes - lane.passed < _QUIET_PASSES:
            return False
        lane.unseen, lane.looked = 0, now
        while lane.waiting:
            self._give(lane)
        return True

    def _give(self, lane: Lane) -> None:
        turn, weight = lane.waiting.popleft()
        self._waiting -= 1
        if not turn.done():  # the caller has not hung up
            turn.set_result(None)
            lane.in_work += weight
            self._in_work += weight

    def _refuse_one_for(self, lane: Lane) -> None:
        """Make room for a call of this lane, at the cost of the caller with the most waiting calls."""
        refusal = Overloaded("too many calls are waiting, most of them from this caller; try again soon")
        longest = max(self._queue, key=lambda one: len(one.waiting))
        if len(lane.waiting) >= len(longest.waiting):
            raise refusal
        turn, _ = longest.waiting.pop()
        self._waiting -= 1
        if not turn.done():
            turn.set_exception(refusal)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._give_turns)

    def _give_turns(self) -> None:
        """Let some calls begin, and look again in the next pass of the event loop, after the others had theirs."""
        self._is_scheduled = False
        self._passes += 1
        if self._gives_way() or self._pauses():
            self._schedule()
            return
        left, busy, looks = self._pace.at_once, 0, False
        while left and len(self._queue) > busy:  # `busy` callers in a row have enough in work; `end` continues
            lane = self._queue.popleft()
            while lane.waiting and lane.waiting[0][0].done():  # the caller has hung up
                lane.waiting.popleft()
                self._waiting -= 1
            if not lane.waiting:
                lane.is_queued = False
                continue
            self._queue.append(lane)
            if self._clock() >= lane.crowded_until and len(lane.waiting) <= _CROWD:
                looks = not self._has_looked(lane) or looks
                busy += bool(lane.waiting)
                continue
            if lane.in_work >= self._pace.in_work:
                busy += 1
                continue
            self._give(lane)
            self._given += 1
            self._turned = self._passes
            left -= 1
            busy = 0
        if looks or not left:
            self._schedule()

    def _gives_way(self) -> bool:
        """Return whether to give no turn now, because a call of a caller that does not wait is in work.

        It takes several passes of the event loop, each of which would take as long as a turn.
        """
        if self._passes - self._turned > _BESIDE_OTHERS:
            return False
        return self._in_work > sum(lane.in_work for lane in self._queue)

    def _has_nobody_else(self, now: float) -> bool:
        """Return whether all recent calls were those of callers that wait."""
        if self._has_others:
            self._others, self._has_others = now, False
        return now - self._others >= _AROUND

    def _pauses(self) -> bool:
        """Return whether to give no turn now, so that calls that gRPC holds back can arrive here.

        gRPC passes calls on one after the other, in the order of their arrival, and that takes about as long as to
        answer them. If each answer brought the next call, the flood would wait in gRPC, where nobody takes turns. While
        callers that do not wait have calls, the pause is longer, so that theirs find gRPC empty on a slow machine too.
        """
        if self._given < self._pace.in_a_row:
            return False
        now = self._clock()
        is_fast = self._has_nobody_else(now) and now - self._began < _LONGEST_QUIET
        if is_fast and self._given < _ALONE * self._pace.in_a_row and not self._paused:
            return False
        self._paused = self._paused or now
        quiet = _LONGEST_QUIET if now - self._others < _RECENT else _QUIET
        is_quiet = now - max(self._arrived, self._paused) >= quiet and self._passes - self._passed >= _QUIET_PASSES
        if not is_quiet and now - self._paused < _LONGEST_PAUSE:
            return True
        self._given, self._paused, self._began = 0, 0.0, now
        return False
