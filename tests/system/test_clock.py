"""Time that a single reading of the wall clock cannot change."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessiond.system.clock import SteadyClock, SystemClock

START = 1_800_000_000_000
MINUTE = 60_000


class Machine:
    """The two clocks of a machine, and a `SteadyClock` that reads them."""

    def __init__(self) -> None:
        self.wall, self.passed = START, 5_000
        self.clock = SteadyClock(lambda: self.wall, lambda: self.passed)

    def wait(self, millis: int, step: int = 1_000) -> int:
        """Advance both clocks and read the time after each `step`; return the last time."""
        for start in range(0, millis, step):
            self.wall += min(step, millis - start)
            self.passed += min(step, millis - start)
            self.clock.now()
        return self.clock.now()


def test_time_passes_as_both_clocks_say() -> None:
    """While the clocks agree, the time equals the wall clock to the millisecond."""
    machine = Machine()
    assert machine.wait(12_345, 7) == START + 12_345


@pytest.mark.parametrize("jump", [10**10, 3_600_000, 1_000, -1_000, -3_600_000, -(10**10)])
def test_a_short_jump_is_not_followed(jump: int) -> None:
    """A jump of the wall clock that lasts three seconds does not change the time."""
    machine = Machine()
    machine.wait(10_000)
    machine.wall += jump
    assert machine.wait(3_000) == START + 13_000
    machine.wall -= jump
    assert machine.wait(10_000) == START + 23_000


def test_a_lasting_jump_forward_is_followed_after_a_minute() -> None:
    """A jump forward by an hour is followed after it has lasted a minute, and not earlier."""
    machine = Machine()
    machine.wall += 3_600_000
    machine.clock.now()
    assert machine.wait(MINUTE - 1, 999) == START + MINUTE - 1
    machine.wall += 1
    machine.passed += 1
    assert machine.clock.now() == START + 3_600_000 + MINUTE


def test_a_jump_that_jumps_again_starts_its_minute_again() -> None:
    """A second jump within the minute replaces the first one, which is not followed."""
    machine = Machine()
    for jump in (3_600_000, 7_200_000):
        machine.wall += jump
        assert machine.wait(MINUTE - 2_000) < START + 3_600_000


@pytest.mark.parametrize("step", [1, 3, 9, 10, 11, 1_000])
def test_time_that_is_ahead_comes_back_however_often_it_is_read(step: int) -> None:
    """After a lasting jump back by a second and a half time equals the wall clock again, also on a busy server."""
    machine = Machine()
    machine.wall -= 1_500
    times = [machine.wait(step) for _ in range(80_000 // step)]
    assert times == sorted(times)
    assert times[-1] == machine.wall


def test_time_that_is_ahead_passes_more_slowly_and_never_backwards() -> None:
    """After a lasting jump back by a minute, time passes slower by a tenth until it equals the wall clock."""
    machine = Machine()
    machine.wall -= MINUTE
    times = [machine.wait(1_000) for _ in range(800)]
    assert times == sorted(times)
    steps = {later - earlier for earlier, later in itertools.pairwise(times)}
    assert min(steps) == 900
    assert times[-1] == machine.wall


def test_drift_is_followed() -> None:
    """Small corrections of the wall clock are followed at once forward, and slowly backward."""
    machine = Machine()
    machine.wall += 400
    assert machine.wait(1_000) == START + 1_400
    machine.wall -= 800
    assert machine.wait(20_000) == machine.wall


def test_nothing_is_steady_in_the_first_minute() -> None:
    """The clocks count as steady after they have agreed for a minute, not at the first reading."""
    machine = Machine()
    machine.wait(MINUTE - 1, 999)
    assert not machine.clock.is_steady()
    machine.wait(1)
    assert machine.clock.is_steady()


@pytest.mark.parametrize("jump", [2_000, -2_000])
def test_a_jump_is_not_steady_for_another_minute(jump: int) -> None:
    """The clocks do not count as steady during a jump and for a minute after it."""
    machine = Machine()
    machine.wait(2 * MINUTE)
    assert machine.clock.is_steady()
    machine.wall += jump
    assert not machine.clock.is_steady()
    machine.wait(3_000)
    machine.wall -= jump
    assert not machine.clock.is_steady()
    machine.wait(MINUTE - 1_000)
    assert not machine.clock.is_steady()
    machine.wait(1_000)
    assert machine.clock.is_steady()


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, 120_000), st.integers(-(10**9), 10**9) | st.just(0)), max_size=40))
def test_time_never_runs_backwards(steps: list[tuple[int, int]]) -> None:
    """Whatever the wall clock does, time never runs backwards and never slower than at nine tenths of real speed."""
    machine = Machine()
    times, passed_by = [machine.clock.now()], [machine.passed]
    for passed, jump in steps:
        machine.passed += passed
        machine.wall += passed + jump
        now = machine.clock.now()
        # Between any two readings, rounded to a millisecond: fractions of a tenth add up over many short steps.
        for earlier, since in zip(times, passed_by, strict=True):
            assert now - earlier >= (machine.passed - since) * 9 // 10
        times.append(now)
        passed_by.append(machine.passed)


def test_a_wall_clock_before_1970() -> None:
    """A wall clock before 1970 counts as 1970."""
    assert SteadyClock(lambda: -5, lambda: 0).now() == 0


def test_the_machines_clocks() -> None:
    """The system clock returns wall time."""
    import time

    assert abs(SystemClock().now() - time.time() * 1000) < 60_000
