"""A cache that follows an authority, against a model: delays, drift, lost messages, broken streams, old backups."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessiond_client.following import Change, Fence, Follower, StreamBroken

SESSIONS = 2
LEASE = 5_000
MILLISECOND = 1_000
"""Time is in microseconds; each side reads its own clock, in whole milliseconds."""
TIMES = (300, 999, 21_000, 99_500, 400_000, 1_000_000, 2_400_000, 2_550_000, 4_850_000, 5_200_000)


class Step(StrEnum):
    """What may happen next; `pick` says to which session, message or time."""

    CHANGE = "the authority changes a session"
    AWAIT = "the authority changes a session, and its caller waits for caches"
    SEND = "the authority sends what a stream has to get, or a part of the events"
    HEAR = "the authority takes the oldest message of a stream"
    TAKE = "the cache takes the oldest message of its stream"
    TROUBLE = "a message is lost, repeated or overtaken"
    RENEW = "the cache asks for a lease"
    ACKNOWLEDGE = "the cache acknowledges what it has applied"
    RELEASE = "the cache gives up its lease"
    BREAK = "the cache notices that its stream is broken"
    BEGIN = "the cache begins a stream"
    REACH = "everything that is on the way to the authority arrives, and it sends what it has to"
    FLOW = "everything that is on the way arrives at once, in both directions"
    SERVE = "all is well: the cache has a stream and a lease, and everything arrives at once"
    READ = "the cache reads a session at once"
    ASK = "the cache begins to read a session"
    ANSWER = "the authority answers a read"
    KEEP = "an answer arrives"
    RESTART = "the authority starts again, perhaps from a backup"
    PASS = "time passes"


COMMON = [*Step, *[Step.SERVE, Step.READ, Step.AWAIT, Step.PASS] * 3, *[Step.REACH, Step.TAKE, Step.RENEW] * 2]
STORIES = st.lists(st.tuples(st.sampled_from(COMMON), st.integers(0, 11)), max_size=60)
STORIES_EACH = 5_000
RATES = st.integers(98, 102)
"""How fast the clock of the cache runs, in percent of the authority's."""


@dataclass(eq=False)
class State:
    """One state of one session. `is_over`: a change that replaced it was awaited, and its caller has his response."""

    session: int
    replaced_at: int | None = None
    is_over: bool = False


@dataclass(frozen=True)
class Message:
    """A message to the cache."""

    number: int
    kind: str
    cursor: str
    changes: tuple[Change, ...] = ()
    identity: tuple[str, str] = ("", "")
    nonce: int = 0
    duration: int = 0


@dataclass(eq=False)
class Stream:
    """A stream: what is on its way in each direction, and what the authority knows of it."""

    up: deque[tuple[str, object]] = field(default_factory=deque)
    down: list[Message] = field(default_factory=list)
    sent: int | None = None
    applied: int = 0
    until: int = 0
    number: int = 0
    renewals: deque[int] = field(default_factory=deque)
    is_closed: bool = False


@dataclass
class Waiting:
    """A caller who waits until caches have applied a revision, and the leases that were granted when he began."""

    session: int
    revision: int
    leases: list[tuple[Stream, int]]


class Authority:
    """The oracle: a log, and what it grants and waits for by its own clock."""

    def __init__(self) -> None:
        self.now = 0
        self.log: list[State] = [State(number) for number in range(SESSIONS)]
        self.all = list(self.log)
        self.runs = 1
        self.incarnations: list[tuple[str, int]] = [("i1", 0)]
        self.streams: list[Stream] = []
        self.waiting: list[Waiting] = []
        self.floor = len(self.log)
        self.unknown_until = 0

    @property
    def clock(self) -> int:
        """The authority's clock, in milliseconds."""
        return self.now // MILLISECOND

    def cursor(self, revision: int) -> str:
        """The cursor after a revision."""
        return f"{self.incarnations[-1][0]} {revision}"

    def position(self, cursor: str) -> int | None:
        """The revision of a cursor; None if its log does not exist any more."""
        name, revision = cursor.split()
        for number, (incarnation, _) in enumerate(self.incarnations):
            if incarnation == name:
                later = self.incarnations[number + 1 :]
                end = later[0][1] - 1 if later else len(self.log)
                return int(revision) if int(revision) <= end else None
        return None

    def state(self, session: int, revision: int) -> State:
        """The state of a session after a revision."""
        return next(state for state in reversed(self.log[:revision]) if state.session == session)

    def change(self, session: int, *, waits: bool) -> None:
        """Change a session."""
        self.state(session, len(self.log)).replaced_at = self.now
        self.log.append(State(session))
        self.all.append(self.log[-1])
        if waits:
            leases = [(stream, stream.until) for stream in self.streams]
            self.waiting.append(Waiting(session, len(self.log), leases))

    def restart(self, end: int) -> None:
        """Start again, with the log up to a revision. Which leases were granted is not recorded anywhere."""
        for state in self.log[end:]:
            state.replaced_at = self.now if state.replaced_at is None else state.replaced_at
        del self.log[end:]
        for session in range(SESSIONS):
            current = self.state(session, end)
            current.replaced_at, current.is_over = None, False
        kept = [run for run in self.incarnations if run[1] <= end]
        self.runs += 1
        self.incarnations = [*kept, (f"i{self.runs}", end + 1)]
        for stream in self.streams:
            stream.is_closed = True
        self.streams, self.waiting = [], []
        self.floor = min(self.floor, end)
        self.unknown_until = self.clock + LEASE + LEASE // 50

    def hear(self, stream: Stream) -> None:
        """Take the oldest message of a stream."""
        if not stream.up or stream.is_closed:
            return
        kind, content = stream.up.popleft()
        match kind, content:
            case "start", str():
                position = self.position(content) if content else len(self.log)
                if position is None:
                    stream.is_closed = True
                    stream.down.append(Message(0, "out of range", ""))
                    return
                stream.sent = stream.applied = position
                self.streams.append(stream)
                self.send_one(stream, "started", identity=(self.incarnations[-1][0], "policies"))
            case "applied", str():
                assert content.split()[0] == self.incarnations[-1][0]
                stream.applied = max(stream.applied, int(content.split()[1]))
            case "renew", int():
                stream.renewals.append(content)
            case "release", _:
                stream.until = 0

    def send_one(self, stream: Stream, kind: str, **content: object) -> None:
        """Send a message."""
        assert stream.sent is not None
        stream.number += 1
        message = Message(stream.number, kind, self.cursor(stream.sent), **content)  # type: ignore[arg-type]
        stream.down.append(message)

    def send(self, stream: Stream, most: int) -> None:
        """Send some events, or all and then the grants."""
        if stream.sent is None or stream.is_closed:
            return
        end = min(len(self.log), stream.sent + most)
        changes = tuple(Change(str(state.session)) for state in self.log[stream.sent : end])
        if changes:
            stream.sent = end
            self.send_one(stream, "events", changes=changes)
        if end == len(self.log):
            while stream.renewals:
                stream.until = max(stream.until, self.clock + LEASE)
                self.send_one(stream, "grant", nonce=stream.renewals.popleft(), duration=LEASE)

    def respond(self) -> None:
        """Respond to the callers whose change holds in every cache."""
        for one in list(self.waiting):
            is_held_up = any(
                stream.applied < one.revision and self.clock < min(until, stream.until) for stream, until in one.leases
            )
            if is_held_up or self.clock < self.unknown_until:
                continue
            self.waiting.remove(one)
            self.floor = max(self.floor, one.revision)
            newer = self.log[one.revision - 1 :]
            for state in self.all:
                if state.session == one.session and state not in newer:
                    state.is_over = True


@dataclass(eq=False)
class Read:
    """A read in progress: what was asked, and the answer once there is one."""

    session: int
    mark: int
    at_least: str
    answer: State | None = None


class Cache:
    """The simplest cache: what it has read of each session."""

    def __init__(self) -> None:
        self.fence: Fence[int] = Fence()
        self.kept: dict[int, State] = {}

    def apply(self, change: Change) -> None:
        """Drop what is out of date."""
        self.fence.note(int(change.session))
        self.kept.pop(int(change.session), None)

    def forget(self) -> None:
        """Drop everything."""
        self.fence.note_all()
        self.kept.clear()


class World:
    """An authority, a cache that follows it, and what must hold."""

    def __init__(self, make: Callable[[World], Follower], rate: int, fraction: int) -> None:
        self.authority = Authority()
        self.cache = Cache()
        self.rate, self.fraction = rate, fraction
        self.stream: Stream | None = None
        self.old: list[Stream] = []
        self.reads: list[Read] = []
        self.follower = make(self)

    @property
    def clock(self) -> int:
        """The clock of the cache, in milliseconds."""
        return (self.authority.now * self.rate + self.fraction) // (100 * MILLISECOND)

    def is_open(self) -> bool:
        """Whether the cache may answer."""
        return self.follower.lease.is_valid(self.clock)

    # Steps

    def take(self, step: Step, pick: int) -> None:
        """One step of the story, and a look at what came of it."""
        authority, session = self.authority, pick % SESSIONS
        match step:
            case Step.CHANGE | Step.AWAIT:
                authority.change(session, waits=step is Step.AWAIT)
            case Step.SEND | Step.HEAR if streams := [*self.old, *((self.stream,) if self.stream else ())]:
                stream = streams[-1 - pick // 6 % len(streams)]
                if step is Step.SEND:
                    authority.send(stream, 1 + pick % 6)
                else:
                    authority.hear(stream)
            case Step.PASS:
                authority.now += TIMES[pick % len(TIMES)]
            case Step.RESTART:
                authority.restart(max(SESSIONS, len(authority.log) - pick % 4))
            case Step.FLOW:
                self.flow()
            case Step.SERVE:
                self.serve()
            case Step.READ if self.follower.cursor:
                read = Read(session, self.cache.fence.begin(), self.follower.cursor)
                self.reads.append(read)
                self.read(Step.ANSWER, read, pick)
                self.read(Step.KEEP, read, pick)
            case Step.ASK if self.follower.cursor:
                self.reads.append(Read(session, self.cache.fence.begin(), self.follower.cursor))
            case Step.ANSWER | Step.KEEP if self.reads:
                self.read(step, self.reads[pick % len(self.reads)], pick)
            case Step.BEGIN if self.stream is None:
                self.stream = Stream(deque([("start", self.follower.begin().cursor)]))
            case _ if self.stream is not None:
                self.on_stream(step, self.stream, pick)
        authority.respond()
        self.look()

    def on_stream(self, step: Step, stream: Stream, pick: int) -> None:
        """One step of the cache's side of its stream."""
        follower = self.follower
        match step:
            case Step.TAKE if stream.down:
                self.receive(stream.down.pop(0))
            case Step.REACH:
                self.reach(stream)
            case Step.TROUBLE if stream.down:
                trouble(stream, pick)
            case Step.BREAK:
                follower.broken()
                self.leave()
            case Step.RENEW if follower.is_streaming:
                stream.up.append(("renew", follower.renewal(self.clock)))
            case Step.ACKNOWLEDGE if follower.is_streaming:
                stream.up.append(("applied", follower.cursor))
            case Step.RELEASE if follower.is_streaming:
                follower.released()
                stream.up.append(("release", None))

    def serve(self) -> None:
        """The cache begins a stream if it has none, and is granted a lease."""
        if self.stream is not None and self.stream.is_closed:
            self.follower.broken()
            self.leave()
        for _ in range(2):  # the second time if the position is lost
            self.stream = self.stream or Stream(deque([("start", self.follower.begin().cursor)]))
            self.flow()
        if self.stream is not None and self.follower.is_streaming:
            self.stream.up.append(("renew", self.follower.renewal(self.clock)))
            self.flow()

    def reach(self, stream: Stream) -> None:
        """Everything on the way to the authority arrives, and it sends what there is to send."""
        while stream.up and not stream.is_closed:
            self.authority.hear(stream)
        self.authority.send(stream, len(self.authority.log))

    def flow(self) -> None:
        """Everything arrives, in both directions, without any delay."""
        for _ in range(3):
            if (stream := self.stream) is None:
                return
            self.reach(stream)
            while stream.down and stream is self.stream:
                self.receive(stream.down.pop(0))
            if stream is self.stream and self.follower.is_streaming:
                stream.up.append(("applied", self.follower.cursor))

    def receive(self, message: Message) -> None:
        """The cache takes a message."""
        follower = self.follower
        if message.kind == "out of range":
            follower.lost()
            self.leave()
            return
        try:
            follower.received(message.number)
            match message.kind:
                case "started":
                    follower.started(message.cursor, *message.identity)
                case "events":
                    follower.applied(message.cursor, message.changes)
                case "grant":
                    follower.granted(message.cursor, message.nonce, message.duration)
        except StreamBroken:
            self.leave()

    def leave(self) -> None:
        """The cache cancels its stream; the authority may learn of that at any time, or never."""
        if self.stream is not None:
            self.old = [*self.old[-1:], self.stream]
            self.stream = None

    def read(self, step: Step, read: Read, pick: int) -> None:
        """A read gets its answer from any replica that has what the caller has seen, or its answer arrives."""
        authority = self.authority
        if step is Step.ANSWER:
            at_least = authority.position(read.at_least)
            if at_least is not None and read.answer is None:
                low, high = max(at_least, authority.floor), len(authority.log)
                read.answer = authority.state(read.session, max(low, high - pick % 3))
        elif read.answer is not None:
            self.reads.remove(read)
            if self.cache.fence.holds(read.mark, read.session):
                self.cache.kept[read.session] = read.answer
            self.cache.fence.end()

    # What must hold

    def look(self) -> None:
        """The cache answers nothing that is over, and nothing for longer than a lease."""
        if not self.is_open():
            return
        for state in self.cache.kept.values():
            assert not state.is_over, "an awaited change was not seen"
            assert state.replaced_at is None or self.authority.now - state.replaced_at <= LEASE * MILLISECOND, (
                "a change was not seen for longer than a lease"
            )


def trouble(stream: Stream, pick: int) -> None:
    """Something happens to a message on its way."""
    match pick % 4:
        case 0:
            stream.down.pop(0)
        case 1:
            stream.down.insert(1, stream.down[0])
        case 2:
            stream.down.append(stream.down.pop(0))
        case 3 if stream.up:
            stream.up.pop()


def play(story: Iterable[tuple[Step, int]], make: Callable[[World], Follower], rate: int, fraction: int) -> World:
    """Live through a story, and look after each step."""
    world = World(make, rate, fraction)
    for step, pick in [(Step.BEGIN, 0), (Step.FLOW, 0), *story]:
        world.take(step, pick)
    return world


def ordinary(world: World) -> Follower:
    """The follower as it is."""
    return Follower(world.cache)


@settings(max_examples=200, deadline=None)
@given(story=STORIES, rate=RATES, fraction=st.integers(0, 99_999))
def test_a_cache_never_answers_what_is_over(story: list[tuple[Step, int]], rate: int, fraction: int) -> None:
    """After an awaited change has returned the cache never answers from before it, after others only for a lease."""
    play(story, ordinary, rate, fraction)


def play_many(make: Callable[[World], Follower], seed: int, count: int) -> None:
    """Live through so many random stories, many times as fast as hypothesis makes them up."""
    random = Random(seed)
    for _ in range(count):
        story = [(random.choice(COMMON), random.randrange(12)) for _ in range(random.randrange(60))]
        play(story, make, random.randrange(98, 103), random.randrange(100_000))


def test_a_cache_never_answers_what_is_over_in_many_stories() -> None:
    """The same holds in five thousand random stories, which are as many as each of the careless caches gets."""
    play_many(ordinary, 1, STORIES_EACH)


def test_the_cache_of_the_model_is_of_use() -> None:
    """In the model a cache answers from what it keeps, an awaited change returns once it is acknowledged, and a cache
    that is silent holds one up until its lease has ended.
    """
    serve = [(Step.RENEW, 0), (Step.FLOW, 0), (Step.READ, 0)]
    world = play(serve, ordinary, 100, 0)
    assert world.is_open()
    assert world.cache.kept
    world.take(Step.AWAIT, 0)
    assert world.authority.waiting
    world.take(Step.FLOW, 0)
    assert not world.authority.waiting
    assert not world.cache.kept
    world.take(Step.AWAIT, 0)
    for _ in range(4):
        world.take(Step.PASS, 5)
    assert world.authority.waiting
    world.take(Step.PASS, 5)
    assert not world.authority.waiting


# Negative controls


class FromReceipt(Follower):
    """Protection off: the lease counts from when its grant arrives."""

    def __init__(self, world: World) -> None:
        super().__init__(world.cache)
        self._world = world

    def granted(self, cursor: str, nonce: int, duration: int) -> None:
        """Count from now."""
        if nonce in self._sent:
            self._sent[nonce] = self._world.clock
        super().granted(cursor, nonce, duration)


class NoAllowance(Follower):
    """Protection off: the lease is not shortened for the drift of the clock."""

    def granted(self, cursor: str, nonce: int, duration: int) -> None:
        """Count the whole duration."""
        sent = self._sent.get(nonce)
        super().granted(cursor, nonce, duration)
        if sent is not None:
            self.lease.until = max(self.lease.until, sent + duration)


class AnyNumber(Follower):
    """Protection off: messages are not counted."""

    def received(self, number: int) -> None:
        """Take any message."""
        if not self._has_begun:
            raise StreamBroken
        self._number = number


class Overtaken(Fence[int]):
    """Protection off: every read passes."""

    def holds(self, mark: int, key: int) -> bool:
        """Let it pass."""
        return True


class Late(Follower):
    """Protection off: events are applied with the next message, so after a grant that follows them."""

    def __init__(self, world: World) -> None:
        super().__init__(world.cache)
        self._late: list[Change] = []
        self._before = ""

    def applied(self, cursor: str, changes: Iterable[Change]) -> None:
        """Apply what came before, and keep this for later."""
        later, before = list(changes), self.cursor
        super().applied(cursor, self._late)
        self._late, self.cursor = later, before

    def granted(self, cursor: str, nonce: int, duration: int) -> None:
        """Count the grant, and nothing else."""
        before = self.cursor
        super().granted(cursor, nonce, duration)
        self.cursor = before if self._late else cursor


class Closed(Follower):
    """Protection off: the cache goes on answering after its stream is broken (see `_open_when_broken`)."""


class Unforgetting(Follower):
    """Protection off: what was kept of another incarnation, or before a position was lost, stays."""

    def __init__(self, world: World) -> None:
        super().__init__(world.cache)
        self._world = world

    def started(self, cursor: str, incarnation: str, fingerprint: str) -> None:
        """Take over another incarnation."""
        self._identity = (incarnation, fingerprint)
        super().started(cursor, incarnation, fingerprint)


class Revived(Follower):
    """Protection off: a lease that was granted before a release counts after it."""

    def released(self) -> None:
        """End the lease alone."""
        self.lease.end()


def _from_receipt(world: World) -> Follower:
    return FromReceipt(world)


def _no_allowance(world: World) -> Follower:
    return NoAllowance(world.cache)


def _any_number(world: World) -> Follower:
    return AnyNumber(world.cache)


def _no_fence(world: World) -> Follower:
    world.cache.fence = Overtaken()
    return Follower(world.cache)


def _late(world: World) -> Follower:
    return Late(world)


def _open_when_broken(world: World) -> Follower:
    follower = Closed(world.cache)
    world.is_open = lambda: world.stream is None or follower.lease.is_valid(world.clock)  # type: ignore[method-assign]
    return follower


def _unforgetting(world: World) -> Follower:
    return Unforgetting(world)


def _revived(world: World) -> Follower:
    return Revived(world.cache)


@pytest.mark.parametrize(
    "make",
    [_from_receipt, _no_allowance, _any_number, _no_fence, _late, _open_when_broken, _unforgetting, _revived],
    ids=lambda make: make.__name__.strip("_"),
)
def test_a_careless_cache_is_noticed(make: Callable[[World], Follower]) -> None:
    """Without any one of the protections the model's test fails."""
    with pytest.raises(AssertionError, match="change was not seen"):
        play_many(make, 1, STORIES_EACH)
