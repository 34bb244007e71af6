"""Both sides of Follow against a model: over a network that delays everything."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from random import Random

import pytest

from sessiond.authority import following
from sessiond.authority.following import Following, Granted, News, Started, Stream
from sessiond.authority.policy_book import PolicyBook
from sessiond.domain.errors import PositionOutOfRange
from sessiond.domain.event import EventType
from sessiond.domain.policy import PRESETS
from sessiond.domain.position import Incarnation, Position
from sessiond.domain.values import Revision
from sessiond.eventlog.caches import FollowingCaches, LeaseRules
from sessiond.eventlog.feed import Feed, Reader
from sessiond.store.shared import LEASE
from sessiond_client.following import Change, Follower, StreamBroken
from tests.clients.test_following_model import Cache, State
from tests.eventlog.test_feed import Log, event

SESSIONS = 2
TIMES = (1, 20, 99, 400, 1_000, 2_400, 4_850, LEASE, LEASE + 200)
STORIES = 60


class Step(StrEnum):
    """What may happen next; `pick` says to which session or message."""

    CHANGE = "a session changes"
    AWAIT = "a session changes, and its caller waits for caches"
    WRITE = "the authority has written a message, and goes on"
    HEAR = "the authority takes the oldest message of the cache"
    TAKE = "the cache takes the oldest message"
    RENEW = "the cache asks for a lease"
    ACKNOWLEDGE = "the cache acknowledges what it has applied"
    RELEASE = "the cache gives up its lease"
    BREAK = "the stream breaks"
    SERVE = "all is well: the cache has a stream and a lease, and everything arrives"
    READ = "the cache reads a session"
    SET_BACK = "the end of the log is lost"
    OWN = "the authority renews its own lease"
    PASS = "time passes"


COMMON = [*Step, *[Step.SERVE, Step.READ, Step.AWAIT, Step.WRITE, Step.OWN] * 2, Step.RENEW, Step.HEAR, Step.TAKE]
Sent = tuple[str, Started | News | Granted]


@dataclass(eq=False)
class Line:
    """One stream, and what is on its way in each direction."""

    stream: Stream
    exits: ExitStack
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    up: deque[tuple[str, object]] = field(default_factory=deque)
    down: deque[Sent | None] = field(default_factory=deque)
    writing: asyncio.Task[None] | None = None
    number: int = 0


class World:
    """One process of the authority, one cache, and what must hold."""

    def __init__(self) -> None:
        self.now = 1_000_000
        self.own_until = self.now + LEASE
        self.log = Log(length=SESSIONS)
        self.states = [State(number) for number in range(SESSIONS)]
        self.all = list(self.states)
        self.cache = Cache()
        self.follower = Follower(self.cache)
        self.line: Line | None = None
        self.waiting: dict[asyncio.Task[None], State] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Start the authority."""
        self.feed = Feed(await self.log.head(), self.log)
        self.caches = FollowingCaches(LeaseRules(lambda: self.now, lambda: self.own_until))
        self.following = Following(self.feed, PolicyBook({"default": PRESETS["owasp-low"]}), self.caches)

    # The authority

    def current(self, session: int) -> State:
        """The state of a session now."""
        return next(state for state in reversed(self.states) if state.session == session)

    def change(self, session: int) -> State:
        """Change a session."""
        self.current(session).replaced_at = self.now
        state = State(session)
        self.states.append(state)
        self.all.append(state)
        one = replace(event(len(self.states), str(session)), type=EventType.SESSION_REVOKED)
        self.log.all.append(one)
        self.feed.publish([one], Revision(0))
        return state

    def set_back(self, end: int) -> None:
        """Lose the log after a revision. What is awaited then has an unknown outcome."""
        for state in self.states[end:]:
            state.replaced_at = self.now if state.replaced_at is None else state.replaced_at
        del self.states[end:], self.log.all[end:]
        for session in range(SESSIONS):
            self.current(session).replaced_at, self.current(session).is_over = None, False
        kept = [run for run in self.log.incarnations if run.first <= end]
        self.log.incarnations = [*kept, Incarnation(b"%8d" % len(self.all), Revision(end + 1))]
        self.all.append(State(-1))  # so that the next incarnation has another id
        self.own_until = 0
        self.waiting.clear()
        self.feed.adopt(self.log.incarnations, Revision(end))

    def respond(self) -> None:
        """Note whose wait is over."""
        for task in [task for task in self.waiting if task.done()]:
            task.result()
            state = self.waiting.pop(task)
            newer = self.states[self.states.index(state) :]
            for one in self.all:
                if one.session == state.session and one not in newer:
                    one.is_over = True

    async def write(self, line: Line) -> None:
        """Write the messages of a stream; each goes on its way, and the next waits until the story says so."""
        with suppress(PositionOutOfRange):
            async for message, _ in line.stream.messages():
                position = self.feed.published(line.stream.position)
                line.down.append((f"{position.incarnation.hex()} {position.revision}", message))
                await line.gate.acquire()
        line.down.append(None)
        line.exits.close()

    def connect(self) -> None:
        """The cache begins a stream, and the authority accepts it."""
        cursor = self.follower.begin().cursor
        after = self.feed.revision
        if cursor:
            try:
                after = self.feed.resume(position(cursor))
            except PositionOutOfRange:
                self.follower.lost()
                return
        exits = ExitStack()
        line = Line(exits.enter_context(self.following.stream(after, frozenset(), "cache")), exits)
        line.writing = asyncio.create_task(self.write(line))
        self.tasks.append(line.writing)
        self.line = line

    # Steps

    async def take(self, step: Step, pick: int) -> None:
        """One step of the story, and a look at what came of it."""
        session = pick % SESSIONS
        match step:
            case Step.CHANGE:
                self.change(session)
            case Step.AWAIT:
                state = self.change(session)
                self.waiting[asyncio.create_task(self.caches.wait_for(self.feed.revision))] = state
            case Step.SET_BACK:
                self.set_back(max(SESSIONS, len(self.states) - pick % 4))
            case Step.OWN:
                self.own_until = self.now + LEASE
            case Step.PASS:
                self.now += TIMES[pick % len(TIMES)]
                self.caches.progressed()
            case Step.READ if self.follower.cursor:
                self.read(session, pick)
            case Step.SERVE:
                await self.serve()
            case _ if self.line is not None:
                self.on_line(step, self.line)
        await self.settle()
        self.respond()
        self.look()

    def on_line(self, step: Step, line: Line) -> None:
        """One step of a stream."""
        follower = self.follower
        match step:
            case Step.WRITE:
                line.gate.release()
            case Step.HEAR if line.up:
                self.hear(line)
            case Step.TAKE if line.down:
                self.receive(line)
            case Step.RENEW if follower.is_streaming and len(line.stream._renewals) < 8:
                line.up.append(("renew", follower.renewal(self.now)))
            case Step.ACKNOWLEDGE if follower.is_streaming:
                line.up.append(("applied", follower.cursor))
            case Step.RELEASE if follower.is_streaming:
                follower.released()
                line.up.append(("release", None))
            case Step.BREAK:
                follower.broken()
                self.leave(line)

    def hear(self, line: Line) -> None:
        """The authority takes a message."""
        match line.up.popleft():
            case "renew", int(nonce):
                line.stream.renew(nonce)
            case "applied", str(cursor):
                line.stream.acknowledge(position(cursor))
            case "release", _:
                line.stream.release()

    def receive(self, line: Line) -> None:
        """The cache takes a message."""
        sent = line.down.popleft()
        if sent is None:
            self.follower.lost()
            self.leave(line)
            return
        cursor, message = sent
        line.number += 1
        with suppress(StreamBroken):
            self.follower.received(line.number)
            match message:
                case Started():
                    self.follower.started(cursor, message.incarnation.hex(), message.fingerprint)
                case News():
                    self.follower.applied(cursor, [Change(one.subject) for one in message.events])
                case Granted():
                    self.follower.granted(cursor, message.nonce, message.duration)

    def leave(self, line: Line) -> None:
        """The cache leaves its stream, and the authority notices."""
        line.stream.end()
        line.gate.release()
        self.line = None

    async def serve(self) -> None:
        """Everything arrives, a stream is begun if there is none, and a lease is asked for."""
        for _ in range(2):
            if self.line is None:
                self.connect()
            for _ in range(3):
                await self.settle()
                if self.line is None:
                    return
                line = self.line
                while line.up:
                    self.hear(line)
                for _ in range(3):
                    line.gate.release()
                    await self.settle()
                while line.down and self.line is line:
                    self.receive(line)
            if self.line is not None and self.follower.is_streaming:
                self.line.up.extend([("applied", self.follower.cursor), ("renew", self.follower.renewal(self.now))])

    def read(self, session: int, pick: int) -> None:
        """The cache reads a session, from a replica that has what the cache has applied."""
        try:
            least = self.feed.resume(position(self.follower.cursor))
        except PositionOutOfRange:
            return
        states = self.states[: max(least, len(self.states) - pick % 3)]
        found = next(state for state in reversed(states) if state.session == session)
        if not found.is_over:
            self.cache.kept[session] = found

    async def settle(self) -> None:
        """Let the authority do what it can do now."""
        for _ in range(5):
            await asyncio.sleep(0)

    # What must hold

    def look(self) -> None:
        """The cache answers nothing that is over, and nothing for longer than a lease."""
        if not self.follower.lease.is_valid(self.now):
            return
        for state in self.cache.kept.values():
            assert not state.is_over, "an awaited change was not seen"
            assert state.replaced_at is None or self.now - state.replaced_at <= LEASE, "a change was not seen"

    async def end(self) -> None:
        """End all streams and waits."""
        if self.line is not None:
            self.leave(self.line)
        for task in (*self.tasks, *self.waiting):
            task.cancel()
        await asyncio.gather(*self.tasks, *self.waiting, return_exceptions=True)


def position(cursor: str) -> Position:
    """The position of a cursor."""
    incarnation, revision = cursor.split()
    return Position(bytes.fromhex(incarnation), Revision(int(revision)))


async def play(random: Random) -> int:
    """Live through a story. Return how many waits ended and how many looks found the cache open."""
    world, useful = World(), 0
    await world.begin()
    try:
        for step in [Step.SERVE, Step.READ, *(random.choice(COMMON) for _ in range(random.randrange(60)))]:
            before = len(world.waiting)
            await world.take(step, random.randrange(12))
            useful += len(world.waiting) < before
            useful += world.follower.lease.is_valid(world.now) and bool(world.cache.kept)
    finally:
        await world.end()
    return useful


async def play_many(seed: int, count: int = STORIES) -> int:
    """Live through many stories."""
    random = Random(seed)
    return sum([await play(random) for _ in range(count)])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pauses between messages, a story has no time of its own."""
    monkeypatch.setattr(following, "_PAUSE_PER_CACHE", 0)


@pytest.mark.usefixtures("quick")
async def test_an_awaited_change_holds_in_every_cache() -> None:
    """After a wait the cache never answers from before the change, also if the end of the log was lost in between."""
    assert await play_many(1) > 3 * STORIES


def _no_remaining(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was acknowledged of a lost log counts."""
    monkeypatch.setattr(Reader, "remaining", lambda self, revision: revision)


def _forgets_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease of a cache ends with its stream."""
    monkeypatch.setattr(FollowingCaches, "leave", lambda self, lease, applied: self._leases.discard(lease))


def _counts_what_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent counts as applied."""
    monkeypatch.setattr(Stream, "_applied", lambda self: self._reader.seen)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "fault", [_no_remaining, _forgets_left, _counts_what_was_sent], ids=lambda fault: fault.__name__
)
async def test_a_careless_authority_is_noticed(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Without any one of the protections the model's test fails."""
    fault(monkeypatch)
    with pytest.raises(AssertionError, match="change was not seen"):
        await play_many(1, 5 * STORIES)
