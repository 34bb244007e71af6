"""The near cache by itself, with a clock that is set by hand: what it holds, what it drops, and what it never keeps."""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessiond.detection.client_facts import source_of
from sessiond_client import Client, calls
from sessiond_client.following import Change
from sessiond_client.near_cache import NearCache, network_of
from sessiond_client.near_question import key_of, key_of_message
from sessiond_client.near_stream import Conversation, changes_of
from sessiond_client.outcome import Outcome, attempt
from sessiond_client.questions import DataRequest, Requirements
from sessiond_client.values import ClientContext
from sessiond_stubs.v1 import session_authority_pb2 as pb

LEASE = 5_000
PERIOD = 60_000


class Near:
    """A near cache with a clock that is set, and a lease."""

    def __init__(self, **bounds: int) -> None:
        self.now = 1_000_000
        self.cache: NearCache[str] = NearCache(**bounds, clock=lambda: self.now)
        self.follower = self.cache.follower
        self.number = 0
        self.open()

    def open(self) -> None:
        """Begin a stream, as the conversation does, and get a lease."""
        self.follower.begin()
        self.number = 0
        self.next()
        self.follower.started("c0", "run", "rules")
        self.renew()

    def next(self) -> None:
        self.number += 1
        self.follower.received(self.number)

    def renew(self) -> None:
        nonce = self.follower.renewal(self.now)
        self.next()
        self.follower.granted(self.follower.cursor, nonce, LEASE)

    def pass_time(self, ms: int) -> None:
        """Let time pass, while the lease is renewed."""
        self.now += ms
        self.renew()

    def put(self, token: str, answer: str = "yes", question: Any = "q", **more: Any) -> bool:
        fill = self.cache.begin(self.cache.digest(token), question)
        assert fill is not None
        try:
            return self.kept(fill, answer, session=more.pop("session", token), **more)
        finally:
            self.cache.end(fill)

    def kept(self, fill: Any, answer: str = "yes", **more: Any) -> bool:
        about = {"session": "s", "application": "default", "network": "", "ms": PERIOD, "size": 100, **more}
        return self.cache.keep(fill, answer, **about)

    def get(self, token: str, question: Any = "q") -> str | None:
        return self.cache.get(self.cache.digest(token), question)

    @contextmanager
    def asking(self, token: str = "t") -> Iterator[Any]:
        fill = self.cache.begin(self.cache.digest(token), "q")
        assert fill is not None
        try:
            yield fill
        finally:
            self.cache.end(fill)


# Bounds


def test_it_holds_so_many_answers() -> None:
    """Beyond `max_entries` the answer that was used least recently makes room, and that is counted."""
    near = Near(max_entries=3)
    for token in "abc":
        near.put(token)
    assert near.get("a") == "yes"  # so b is the one that was used least recently
    near.put("d")
    assert [near.get(token) for token in "abcd"] == ["yes", None, "yes", "yes"]
    assert (near.cache.stats().entries, near.cache.stats().evicted) == (3, 1)


def test_it_holds_so_many_bytes() -> None:
    """Beyond `max_bytes` answers make room, and an answer that would take all of it is not kept."""
    near = Near(max_bytes=24_000)
    for token in "abcd":
        assert near.put(token, size=5_000)
    assert near.get("a") is None
    assert near.get("d") == "yes"
    assert near.cache.stats().size <= 24_000
    assert not near.put("e", size=24_000)
    assert near.get("d") == "yes"


@pytest.mark.parametrize("data", [0, 4_000])
def test_its_bytes_are_about_those_that_it_takes(data: int) -> None:
    """`size` is what the answers really take, within a quarter: `max_bytes` bounds memory and not a figure."""
    client = Client("127.0.0.1:1", near_cache=True, near_cache_bytes=2**30)
    questions = client._near
    assert questions is not None
    cache = questions.cache
    cache.follower.lease.until = 10**15

    def fill(number: int) -> None:
        seen = ClientContext(ip_address="192.0.2.1", user_agent=f"{'Mozilla/5.0 ' * 9} {number}")
        miss = questions.missed(attempt(calls.validate, "", f"{number:070d}", client=seen, data=True))
        assert miss is not None
        response = pb.ValidateSessionResponse(verdict=pb.VERDICT_VALID, next_step=pb.NEXT_STEP_PROCEED)
        session = response.session
        session.session_id, session.application, session.subject = f"{number:036d}", "default", f"user-{number}"
        for name in ("create_time", "last_active_time", "idle_expire_time", "absolute_expire_time"):
            getattr(session, name).seconds = 1_800_000_000 + number
        session.authentication.level = 1
        session.authentication.methods.append("pwd")
        session.authentication.authenticate_time.seconds = 1_800_000_000 + number
        session.client.CopyFrom(miss.call.request.client)
        session.last_client.CopyFrom(session.client)
        response.data.values["cart"] = b"x" * data
        response.cacheable_for.seconds = response.cacheable_until.seconds = 1_900_000_000
        questions.begin(miss)
        questions.end(miss, Outcome(miss.call.read(response)))

    fill(0)
    gc.collect()
    tracemalloc.start()
    before, counted = tracemalloc.get_traced_memory()[0], cache.stats().size
    for number in range(1, 501):
        fill(number)
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert cache.stats().entries == 501
    assert 0.75 < (cache.stats().size - counted) / taken < 1.25


def test_an_index_does_not_outgrow_the_answers() -> None:
    """Nothing is left of an answer that has made room, or that was dropped."""
    near = Near(max_entries=10)
    for number in range(1_000):
        near.put(f"token-{number}", session=f"s-{number}", network=f"192.0.2.{number % 250}/32")
    near.cache.apply(Change(session="s-999"))
    cache = near.cache
    assert (len(cache._found), len(cache._by_session), len(cache._by_network)) == (9, 9, 9)
    cache.forget()
    assert (cache._size, cache._entries, cache._by_session, cache._by_network) == (0, 0, {}, {})


def test_a_token_has_a_few_questions() -> None:
    """Of the questions about one token the newest eight are kept."""
    near = Near()
    for number in range(20):
        near.put("t", f"answer {number}", number)
    assert [number for number in range(20) if near.get("t", number) is not None] == list(range(12, 20))
    assert near.cache.stats().entries == 8


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 9), st.integers(1, 4_000), st.integers(0, 2)),
            st.tuples(st.just("get"), st.integers(0, 9), st.integers(0, 0), st.integers(0, 2)),
            st.tuples(st.just("session"), st.integers(0, 4), st.integers(0, 0), st.integers(0, 0)),
            st.tuples(st.just("source"), st.integers(0, 2), st.integers(0, 0), st.integers(0, 0)),
            st.tuples(st.just("time"), st.integers(1, 4_000), st.integers(0, 0), st.integers(0, 0)),
            st.tuples(st.just("forget"), st.integers(0, 0), st.integers(0, 0), st.integers(0, 0)),
        ),
        max_size=60,
    )
)
def test_its_counts_are_those_of_its_answers(steps: list[tuple[str, int, int, int]]) -> None:
    """Whatever was done, entries, bytes and indexes are those of the answers that are there, within the bounds."""
    near = Near(max_entries=5, max_bytes=12_000)
    for what, number, size, question in steps:
        match what:
            case "put":
                near.put(f"t{number}", question=question, session=f"s{number % 5}", network=f"n{number % 3}", size=size)
            case "get":
                near.get(f"t{number}", question)
            case "session":
                near.cache.apply(Change(session=f"s{number}"))
            case "source":
                near.cache.apply(Change(application="default", source=f"n{number}"))
            case "time":
                near.pass_time(number)
            case "forget":
                near.cache.forget()
        cache = near.cache
        there = [one for found in cache._found.values() for one in found]
        assert (cache._entries, cache._size) == (len(there), sum(one.size for one in there))
        assert cache._entries <= 5
        assert cache._size <= 12_000
        assert {digest for digests in cache._by_session.values() for digest in digests} == set(cache._found)
        assert {digest for digests in cache._by_network.values() for digest in digests} == set(cache._found)


# Which question an answer is for

CONTEXT = ClientContext(ip_address="192.0.2.1", user_agent="agent", certificate_thumbprint=b"c" * 32, device_id="d")
ASKED: dict[str, Any] = {"client": None, "passive": False, "requirements": None, "with_csrf_token": False, "data": None}
DIFFERENT: list[dict[str, Any]] = [
    {},
    {"client": ClientContext()},
    {"client": CONTEXT},
    *({"client": ClientContext(**{name: getattr(CONTEXT, name)})} for name in ClientContext.__slots__),
    {"passive": True},
    {"with_csrf_token": True},
    {"data": True},
    {"data": DataRequest(keys=("a",))},
    {"data": DataRequest(keys=("a", "b"))},
    {"data": DataRequest(newer_than=1)},
    {"requirements": Requirements()},
    {"requirements": Requirements(min_level=1)},
]


def test_different_questions_have_different_keys() -> None:
    """Each argument that changes the request changes the key, and the key of the request is that of the arguments."""
    keys = [key_of(**{**ASKED, **changes}) for changes in DIFFERENT]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    for changes, key in zip(DIFFERENT, keys, strict=True):
        assert key_of_message(calls.validate("shop", "token", **changes).request) == key


def test_a_key_has_every_field_of_a_request() -> None:
    """A field that the contract gives to a validation is part of the key, or is known not to need to be."""
    assert {field.name for field in pb.ValidateSessionRequest.DESCRIPTOR.fields} == {
        *("client", "passive", "requirements", "with_csrf_token", "data"),  # the key
        *("token", "application", "at_least"),  # the digest; one for a client; the cache's own
    }
    assert [field.name for field in pb.ClientContext.DESCRIPTOR.fields] == [
        *("ip_address", "user_agent", "certificate_thumbprint", "device_id")
    ]
    assert [field.name for field in pb.DataRequest.DESCRIPTOR.fields] == ["keys", "newer_than"]
    assert [field.name for field in pb.Requirements.DESCRIPTOR.fields] == [
        *("min_level", "max_authentication_age", "companion", "csrf")
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"requirements": Requirements(csrf="c")},
        {"requirements": Requirements(csrf=None)},
        {"requirements": Requirements(companion=("pay", "c"))},
        {"requirements": Requirements(companion=("pay", None))},
    ],
    ids=["csrf", "no csrf", "companion", "no companion"],
)
def test_what_is_checked_each_time_has_no_key(changes: dict[str, Any]) -> None:
    """A question with a CSRF or companion token, presented or missing, has no key: it always goes to the authority."""
    assert key_of(**{**ASKED, **changes}) is None
    assert key_of_message(calls.validate("shop", "token", **changes).request) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"passive": 0},
        {"passive": 1},
        {"with_csrf_token": 0},
        {"data": 1},
        {"data": 0},
        {"client": ClientContext(certificate_thumbprint=bytearray(32))},  # type: ignore[arg-type]
        {"client": "192.0.2.1"},
        {"requirements": Requirements(min_level=True)},
        {"data": DataRequest(newer_than=True)},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_wrong_argument_has_no_key(changes: dict[str, Any]) -> None:
    """A value that `validate` refuses does not pass for the one that it equals."""
    assert key_of(**{**ASKED, **changes}) is None


# Which answers are not kept


def test_an_overtaken_answer_is_not_kept() -> None:
    """An answer is not kept if its session changed while it was on its way; another session's change is no matter."""
    near = Near()
    with near.asking() as fill:
        near.cache.apply(Change(session="s"))
        assert not near.kept(fill)
    with near.asking() as fill:
        near.cache.apply(Change(session="another"))
        assert near.kept(fill)


def test_a_lock_overtakes_an_answer() -> None:
    """An answer is not kept if its client's network was locked meanwhile, for the application or for all clients."""
    near = Near()
    about = {"network": "192.0.2.1/32"}
    for change in (Change("", "default", "192.0.2.1/32"), Change("", "default", "*"), Change("", "default", "")):
        with near.asking() as fill:
            near.cache.apply(change)
            assert not near.kept(fill, **about)
    for change in (Change("", "default", "192.0.2.2/32"), Change("", "shop", "192.0.2.1/32")):
        with near.asking() as fill:
            near.cache.apply(change)
            assert near.kept(fill, **about)


def test_forgetting_overtakes_an_answer() -> None:
    """An answer that was asked for before everything was forgotten is not kept; not even if the cache is open again."""
    near = Near()
    with near.asking() as fill:
        near.cache.forget()
        assert not near.kept(fill)
    with near.asking() as fill:
        near.follower.lost()
        near.open()
        assert not near.kept(fill)


def test_a_lease_ends_meanwhile() -> None:
    """An answer that arrives when the lease has ended is not kept, and no question begins a fill then."""
    near = Near()
    with near.asking() as fill:
        near.now += LEASE
        assert not near.kept(fill)
    assert near.cache.begin(near.cache.digest("t"), "q") is None
    near.renew()
    with near.asking() as fill:
        near.follower.broken()
        assert not near.kept(fill)


def test_a_fill_asks_for_what_was_applied() -> None:
    """A fill asks for a state that has everything the cache has applied."""
    near = Near()
    near.next()
    near.follower.applied("c7", [Change(session="other")])
    with near.asking() as fill:
        assert fill.at_least == "c7"
    assert "t" not in repr(fill).replace("at_least", "")[:10]


def test_an_answer_counts_from_before_its_question() -> None:
    """How long an answer may be reused counts from before it was asked for, however long it was on its way."""
    near = Near()
    with near.asking() as fill:
        near.pass_time(2_000)
        near.pass_time(2_000)
        assert near.kept(fill, ms=10_000)
    near.pass_time(4_000)
    near.now += 1_998
    assert near.get("t") == "yes"  # at 9,999 by a clock that is rounded down, the 10 seconds may be over
    near.now += 1
    assert near.get("t") is None
    with near.asking() as fill:
        near.pass_time(2_000)
        assert not near.kept(fill, ms=2_000)


@pytest.mark.parametrize(
    ("changes", "keeps"),
    [
        ({}, True),
        ({"verdict": pb.VERDICT_INSUFFICIENT}, False),
        ({"verdict": pb.VERDICT_REVOKED}, False),
        ({"next_step": pb.NEXT_STEP_REPLACE_TOKEN}, False),
        ({"next_step": pb.NEXT_STEP_UNSPECIFIED}, False),
        ({"renewed_token": "new"}, False),
        ({"signals": [pb.Signal(type=pb.SIGNAL_TYPE_IP_CHANGE)]}, False),
        ({"unmet": [pb.UnmetRequirement(kind=pb.REQUIREMENT_KIND_LEVEL)]}, False),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else str(value),
)
def test_only_a_plain_yes_is_kept(changes: dict[str, Any], keeps: bool) -> None:
    """An answer that says more than yes is not kept, even if an authority marks it as reusable by mistake."""
    questions = Client("127.0.0.1:1", near_cache=True)._near
    assert questions is not None
    questions.cache.follower.lease.until = 10**15
    fields: dict[str, Any] = {"verdict": pb.VERDICT_VALID, "next_step": pb.NEXT_STEP_PROCEED, **changes}
    response = pb.ValidateSessionResponse(**fields)
    response.session.session_id, response.session.application = "s", "default"
    response.cacheable_for.seconds = response.cacheable_until.seconds = 60
    miss = questions.missed(attempt(calls.validate, "", "token"))
    assert miss is not None
    questions.begin(miss)
    outcome = questions.end(miss, Outcome(miss.call.read(response)))
    assert outcome is not None
    assert outcome.get().verdict.value == pb.Verdict.Name(response.verdict).removeprefix("VERDICT_")
    assert (questions.again(miss) is not None) is keeps


# What is dropped


def test_a_session_is_dropped_by_its_change() -> None:
    """A change of a session drops all answers about it, under each of its tokens, and no other."""
    near = Near()
    near.put("old", session="s")
    near.put("new", session="s")
    near.put("new", session="s", question="other")
    near.put("b", session="other")
    near.cache.apply(Change(session="s"))
    assert [near.get(token) for token in ("old", "new", "b")] == [None, None, "yes"]
    assert near.cache.stats().dropped == 3


def test_a_network_is_dropped_by_its_lock() -> None:
    """A lock drops the answers about clients of its network and application, and no others."""
    near = Near()
    near.put("a", network="192.0.2.1/32")
    near.put("b", network="192.0.2.2/32")
    near.put("c", network="192.0.2.1/32", application="shop")
    near.put("d")
    near.cache.apply(Change(application="default", source="192.0.2.1/32"))
    assert [near.get(token) for token in "abcd"] == [None, "yes", "yes", "yes"]


@pytest.mark.parametrize("change", [Change("", "default", ""), Change("", "default", "*"), Change()])
def test_all_is_dropped_by_what_is_about_all(change: Change) -> None:
    """A change of an application's policies, a lock for everybody, and a change of unknown meaning drop all answers."""
    near = Near()
    near.put("a", network="192.0.2.1/32")
    near.put("b")
    near.cache.apply(change)
    assert [near.get(token) for token in "ab"] == [None, None]
    assert near.cache.stats().dropped == 2


def test_events_say_what_to_drop() -> None:
    """Each type of event of the contract drops its session, its source, or everything; two types drop nothing."""
    for number in pb.EventType.values():
        session = changes_of(pb.Event(type=number, session_id="s", application="a", source="192.0.2.1/32"))
        plain = changes_of(pb.Event(type=number, application="a", source="192.0.2.1/32"))
        name = pb.EventType.Name(number).removeprefix("EVENT_TYPE_")
        if name == "SOURCE_LOCKED":
            assert session == plain == (Change(application="a", source="192.0.2.1/32"),)
        else:
            assert session == (Change(session="s"),)
            nothing = name in ("SOURCE_UNLOCKED", "GUESSING_SUSPECTED")
            assert plain == (() if nothing else (Change(application="a"),))
    assert changes_of(pb.Event(type=10_000, application="a")) == (Change(application="a"),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address",
    ["192.0.2.1", "2001:db8:1:2:3:4:5:6", "::1", "0.0.0.0", "::ffff:192.0.2.1", ""],
)
def test_a_network_is_what_the_authority_locks(address: str) -> None:
    """The network of a client is written as the authority writes the source that it locks."""
    plain = address.removeprefix("::ffff:")  # the authority reads a mapped address as the IPv4 address that it is
    assert network_of(address) == source_of(plain)


# Open and closed


def test_a_closed_cache_is_silent() -> None:
    """Without a lease nothing is answered; with the next one what is kept counts again, except what has run out."""
    near = Near()
    near.put("t")
    near.put("short", ms=6_000)
    near.follower.broken()
    assert near.get("t") is None
    near.now += 6_000
    near.open()
    assert (near.get("t"), near.get("short")) == ("yes", None)
    near.now += LEASE
    assert near.get("t") is None


def test_a_lease_counts_from_before_its_renewal() -> None:
    """A grant that was long on its way does not keep the cache open longer."""
    near = Near()
    near.put("t")
    nonce = near.follower.renewal(near.now)
    near.now += 4_800
    near.next()
    near.follower.granted("c", nonce, LEASE)
    assert near.get("t") == "yes"
    near.now += 100  # 5 s less the allowance for drift
    assert near.get("t") is None


def test_closing_for_good() -> None:
    """In a child process no grant opens the cache, and a lock that another thread held does not matter."""
    near = Near()
    near.put("t")
    holding = threading.Event()
    done = threading.Event()

    def hold() -> None:
        with near.cache.lock:
            holding.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    near.cache.close_for_good()
    near.renew()
    assert near.get("t") is None
    assert near.cache.stats().is_open is False
    done.set()
    thread.join()


def test_its_counters() -> None:
    """Hits, misses, closed, evicted and dropped are counted, and `staleness` is measured from the last renewal."""
    near = Near(max_entries=2)
    near.get("t")
    for token in "abc":
        near.put(token)
    near.get("b")
    near.cache.apply(Change(session="c"))
    stats = near.cache.stats()
    assert (stats.hits, stats.misses, stats.closed, stats.evicted, stats.dropped) == (1, 1, 0, 1, 1)
    assert (stats.is_open, stats.entries) == (True, 1)
    near.follower.broken()
    near.get("b")
    stats = near.cache.stats()
    assert (stats.closed, stats.is_open, stats.staleness) == (1, False, None)


def test_staleness_is_the_age_of_what_was_proven() -> None:
    """`staleness` is the time since the last renewal that was granted was sent."""
    near = Near()
    conversation = Conversation(near.cache, ("default",), "test")
    conversation.clock = lambda: near.now
    conversation.begin()
    near.now += 700
    conversation.received(pb.FollowResponse(number=1, cursor="c", started=pb.FollowStarted(incarnation="i")))
    grant = pb.LeaseGrant(nonce=2)  # the first nonce of this cache was used by `Near`
    grant.duration.FromMilliseconds(LEASE)
    conversation.received(pb.FollowResponse(number=2, cursor="c", grant=grant))
    near.now += 300
    assert near.cache.stats().staleness == 1.0


def test_it_shows_no_token() -> None:
    """A token is not in the cache: neither in its state nor in the repr of a fill."""
    near = Near()
    near.put("the-secret-token", session="s")
    with near.asking("the-secret-token") as fill:
        assert "the-secret-token" not in repr(fill)
        assert repr(fill.digest) not in repr(fill)
    assert "the-secret-token" not in repr(vars(near.cache))


def test_its_digest_is_keyed() -> None:
    """Two caches have different digests of one token, so a digest says nothing outside of its cache."""
    one, other = Near().cache, Near().cache
    assert one.digest("token") == one.digest("token")
    assert one.digest("token") != other.digest("token")
    assert one.digest("token") != one.digest("tokeo")
    assert len(one.digest("token")) == 16


# Threads


def test_threads_share_it() -> None:
    """Threads that ask, fill and change at once see no failure, and never an answer from before an applied change."""
    near = Near(max_entries=20)
    versions = dict.fromkeys(range(40), 0)
    failures: list[BaseException] = []
    ends = threading.Event()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def ask(seed: int) -> None:
        try:
            number = seed
            while not ends.is_set():
                number = (number * 7 + 3) % 40
                applied = versions[number]
                answer = near.get(f"t{number}")
                assert answer is None or int(answer) >= applied, "an answer from before a change that was applied"
                with near.asking(f"t{number}") as fill:
                    near.kept(fill, str(versions[number]), session=f"s{number}")
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    def change() -> None:
        try:
            for step in range(4_000):
                number = step % 40
                with near.cache.lock:
                    near.cache.apply(Change(session=f"s{number}"))
                    versions[number] += 1
        except BaseException as error:  # noqa: BLE001 - as above
            failures.append(error)
        finally:
            ends.set()

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)] + [threading.Thread(target=change)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert failures == []
    assert near.cache.stats().entries <= 20
