"""Limits on calls, by a clock that is set by hand: who may begin how much, and what a refused caller is told."""

from __future__ import annotations

import itertools
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.access import limits
from sessiond.access.limits import Account, CallLimiter
from sessiond.domain.call import Caller
from sessiond.domain.call_limits import CallLimit, CallLimits
from sessiond.domain.errors import LimitReached
from sessiond.domain.values import Millis

SHOP, DESK = Caller("shop", "ipv4:192.0.2.1:1", version=1), Caller("desk", "ipv4:192.0.2.1:1", version=1)
LONGEST_PROMISE = limits._LONGEST_PROMISE / 1e9


class Seconds:
    """A monotonic clock that is set in seconds and read in nanoseconds."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> int:
        """Return the time it was set to."""
        return round(self.now * 1e9)


@pytest.fixture
def clock() -> Seconds:
    """A clock to set."""
    return Seconds()


def limiter(clock: Seconds, *, caller: CallLimit, burst: int = 1_000, **more: CallLimit) -> CallLimiter:
    """A limiter; `more` are the limits of single callers."""
    return CallLimiter(CallLimits(caller, burst=Millis(burst), callers=MappingProxyType(more)), clock=clock)


def begun(account: Account) -> int:
    """How many calls may begin at once, and end at once."""
    for number in itertools.count():
        try:
            account.begin()
        except LimitReached:
            return number
        account.end()
    raise AssertionError


def refusal(account: Account) -> LimitReached:
    """How a call is refused."""
    with pytest.raises(LimitReached) as raised:
        account.begin()
    return raised.value


def test_calls_at_once(clock: Seconds) -> None:
    """Beyond the limit a call is refused until another one of the same caller ends; other callers are not affected."""
    found = limiter(clock, caller=CallLimit(max_calls=2))
    mine = [found.begin(SHOP) for _ in range(2)]
    error = refusal(mine[0])
    assert error.setting == "limits.max_calls_per_caller"
    assert str(error).startswith('caller "shop" has 2 calls under way, the most that it may have (limits.')
    found.begin(DESK)
    mine[0].end()
    found.begin(SHOP)


def test_a_rate(clock: Seconds) -> None:
    """As many calls may begin at once as the rate allows in the time of the burst, and then as many as it allows."""
    account = limiter(clock, caller=CallLimit(rate=10), burst=2_000).account(SHOP)
    assert begun(account) == 20
    clock.now += 0.5
    assert begun(account) == 5
    clock.now += 3_600
    assert begun(account) == 20


def test_a_burst_shorter_than_a_call(clock: Seconds) -> None:
    """If the rate allows less than one call in the time of the burst, a single call is still possible."""
    account = limiter(clock, caller=CallLimit(rate=2), burst=10).account(SHOP)
    assert begun(account) == 1
    clock.now += 0.49
    assert begun(account) == 0
    clock.now += 0.02
    assert begun(account) == 1


def test_a_batch_is_paid_later(clock: Seconds) -> None:
    """A batch that weighs more than the burst is served, and the calls after it wait until it is paid."""
    account = limiter(clock, caller=CallLimit(rate=100)).account(SHOP)
    account.begin()
    account.charge(999)
    assert refusal(account).retry_after == pytest.approx(9_010, abs=2)
    clock.now += 9.0
    refusal(account)
    clock.now += 0.02
    account.begin()


@given(
    rate=st.integers(1, 10_000),
    burst=st.integers(1, 60_000),
    weights=st.lists(st.integers(1, 1_000), max_size=5),
    refused=st.integers(0, 10),
)
def test_times_to_retry_are_honest(rate: int, burst: int, weights: list[int], refused: int) -> None:
    """Callers that are refused and come back at the time that each was told are all served, one after the other."""
    clock = Seconds()
    account = limiter(clock, caller=CallLimit(rate=rate), burst=burst).account(SHOP)
    for weight in weights:
        account.charge(weight)
    while True:
        try:
            account.begin()
        except LimitReached:
            break
        account.charge(1_000)
    start = clock.now
    promised = sorted(refusal(account).retry_after for _ in range(refused))
    for wait in promised:
        if wait < LONGEST_PROMISE * 1_000:
            clock.now = start + wait / 1_000
            account.begin()


def test_promises_have_an_end(clock: Seconds) -> None:
    """Callers that are refused and never come back do not make others wait ever longer."""
    account = limiter(clock, caller=CallLimit(rate=10)).account(SHOP)
    begun(account)
    assert max(refusal(account).retry_after for _ in range(10_000)) <= LONGEST_PROMISE * 1_000 + 1
    clock.now += LONGEST_PROMISE
    assert begun(account) == 10


def test_a_caller_with_limits_of_its_own(clock: Seconds) -> None:
    """A caller that the configuration names has its own limits, whose setting the refusal names."""
    found = limiter(clock, caller=CallLimit(rate=10), shop=CallLimit(max_calls=1, rate=3), burst=1_000)
    assert begun(found.account(SHOP)) == 3
    assert refusal(found.account(SHOP)).setting == "limits.callers.shop.rate"
    assert begun(found.account(DESK)) == 10
    clock.now += 5
    found.begin(SHOP)
    assert refusal(found.account(SHOP)).setting == "limits.callers.shop.max_calls"


def test_without_callers_each_connection_counts(clock: Seconds) -> None:
    """Without callers each connection has the limits of a caller, and the refusal names the connection."""
    found = limiter(clock, caller=CallLimit(max_calls=1))
    one, two = (Caller("caller", f"ipv4:127.0.0.1:{port}") for port in (5001, 5002))
    found.begin(one)
    found.begin(two)
    assert str(refusal(found.account(one))).startswith("the connection ipv4:127.0.0.1:5001 has 1 calls")


def test_other_limits(clock: Seconds) -> None:
    """Other limits hold at once; calls that are under way go on, and what a rate has used stays used."""
    found = limiter(clock, caller=CallLimit(rate=10))
    account = found.begin(SHOP)
    begun(account)
    assert not found.replace(CallLimits(CallLimit(rate=10)))
    assert found.replace(CallLimits(CallLimit(max_calls=5, rate=100)))
    assert account.in_flight == 1
    assert begun(account) == 90
    assert found.replace(CallLimits(CallLimit(max_calls=1)))
    assert refusal(account).setting == "limits.max_calls_per_caller"
    assert found.replace(CallLimits(CallLimit()))
    assert found.account(SHOP) is account
    for _ in range(10_000):
        account.begin()


def test_applications(clock: Seconds) -> None:
    """All callers of an application share its limits; a call about two of them is refused if one is at its limit."""
    found = CallLimiter(CallLimits(application=CallLimit(max_calls=2, rate=10)), clock=clock)
    with found.about({"shop": 1}), found.about({"shop": 1, "desk": 1}):
        with pytest.raises(LimitReached) as raised, found.about({"desk": 1, "shop": 1}):
            pass
        assert raised.value.setting == "limits.max_calls_per_application"
        assert 'application "shop" has 2 calls under way' in str(raised.value)
        with found.about({"desk": 1}):
            pass
    with found.about({"shop": 500}):
        pass
    with pytest.raises(LimitReached) as raised:
        found.check("shop")
    assert raised.value.setting == "limits.rate_per_application"
    found.check("desk")


def test_what_is_idle_is_forgotten(clock: Seconds) -> None:
    """Accounts of connections that are gone take no memory, those that are in use or owe something are kept."""
    found = limiter(clock, caller=CallLimit(max_calls=2, rate=1))
    busy = found.begin(SHOP)
    owing = found.account(DESK)
    owing.charge(100_000)
    for number in range(20_000):
        found.begin(Caller("caller", f"ipv4:192.0.2.1:{number}")).end()
        clock.now += 2
    assert len(found._callers) < 3_000
    assert found.account(SHOP) is busy
    assert found.account(DESK) is owing
