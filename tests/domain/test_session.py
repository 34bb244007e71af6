"""The steps of a session's life: pure functions from one state to the next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sessiond.domain import session as lifecycle
from sessiond.domain.policy import PRESETS
from sessiond.domain.session import Deadline, SessionState
from sessiond.domain.values import Authentication, Cause, CauseKind, ClientContext, Instant, Millis
from tests.contracts import samples
from tests.support.clock import START

POLICY = replace(PRESETS["owasp-low"], idle_timeout=Millis(100), absolute_timeout=Millis(1_000))
FRESH = lifecycle.open_session(
    samples.session_id(), "default", "", b"d" * 32, None, ClientContext("10.0.0.1"), POLICY, START
)
LATER = Instant(START + 60)


def test_a_new_session() -> None:
    """A session begins at generation 0, with every timeout starting now."""
    assert (FRESH.generation, FRESH.generation_began, FRESH.created, FRESH.last_active) == (0, START, START, START)
    assert (FRESH.idle_deadline, FRESH.absolute_deadline) == (START + 100, START + 1_000)
    assert (FRESH.state, FRESH.ending, FRESH.rolled_digest) == (SessionState.ACTIVE, None, None)


def test_a_new_session_without_timeouts() -> None:
    """A timeout that the policy does not have sets no deadline."""
    policy = replace(POLICY, idle_timeout=None)
    session = lifecycle.open_session(samples.session_id(), "default", "", b"", None, ClientContext(), policy, START)
    assert (session.idle_deadline, session.absolute_deadline) == (None, START + 1_000)
    assert lifecycle.touch(session, policy, LATER).idle_deadline is None


@pytest.mark.parametrize(
    ("idle", "absolute", "due"), [(None, None, None), (5, None, 5), (None, 5, 5), (5, 9, 5), (9, 5, 5), (5, 5, 5)]
)
def test_due_at_the_first_deadline(idle: int | None, absolute: int | None, due: int | None) -> None:
    """A session is due at the earlier of its deadlines."""
    assert samples.session(idle_deadline=idle, absolute_deadline=absolute).due_at == due


@pytest.mark.parametrize(
    ("idle", "absolute", "now", "passed"),
    [
        (10, 20, 9, None),
        (10, 20, 10, Deadline(CauseKind.IDLE_TIMEOUT, Instant(10))),
        (10, 20, 99, Deadline(CauseKind.IDLE_TIMEOUT, Instant(10))),
        (20, 10, 9, None),
        (20, 10, 10, Deadline(CauseKind.ABSOLUTE_TIMEOUT, Instant(10))),
        (20, 10, 99, Deadline(CauseKind.ABSOLUTE_TIMEOUT, Instant(10))),
        (10, 10, 10, Deadline(CauseKind.IDLE_TIMEOUT, Instant(10))),
        (None, 10, 10, Deadline(CauseKind.ABSOLUTE_TIMEOUT, Instant(10))),
        (10, None, 10, Deadline(CauseKind.IDLE_TIMEOUT, Instant(10))),
        (None, None, 99, None),
    ],
)
def test_passed_deadline(idle: int | None, absolute: int | None, now: int, passed: Deadline | None) -> None:
    """The earlier deadline ends a session, at the deadline itself, and the answer stays the same later."""
    session = samples.session(idle_deadline=idle, absolute_deadline=absolute)
    assert lifecycle.passed_deadline(session, Instant(now)) == passed


def test_touch_moves_activity_forward() -> None:
    """Activity moves the last activity and the idle deadline, nothing else."""
    assert lifecycle.touch(FRESH, POLICY, LATER) == replace(
        FRESH, last_active=LATER, idle_deadline=Instant(LATER + 100)
    )


@pytest.mark.parametrize("at", [START, START - 1])
def test_touch_never_moves_backwards(at: int) -> None:
    """Activity that is not later changes nothing."""
    assert lifecycle.touch(FRESH, POLICY, Instant(at)) is FRESH


def test_touch_never_revives() -> None:
    """Activity of an ended session changes nothing."""
    ended = lifecycle.end(FRESH, START, samples.REVOKED)
    assert lifecycle.touch(ended, POLICY, LATER) is ended


def test_activate_makes_the_generation_current() -> None:
    """The successor's first use moves the generation and its beginning, nothing else: activity is told apart."""
    assert lifecycle.activate(FRESH, 1, LATER) == replace(FRESH, generation=1, generation_began=LATER)


def test_roll_takes_a_fresh_secret() -> None:
    """A roll replaces the digest, remembers the old one and when, and moves the generation; the lifetime stays."""
    rolled = lifecycle.roll(FRESH, b"n" * 32, POLICY, LATER)
    assert (rolled.digest, rolled.rolled_digest, rolled.rolled_at) == (b"n" * 32, b"d" * 32, LATER)
    assert (rolled.generation, rolled.generation_began) == (1, LATER)
    assert (rolled.last_active, rolled.idle_deadline, rolled.absolute_deadline) == (LATER, LATER + 100, START + 1_000)


def test_authenticate_binds_rolls_and_starts_again() -> None:
    """Authentication binds the subject, rolls, takes the new client context, and starts both lifetimes again."""
    how, seen = Authentication(2, ("pwd", "otp"), LATER), ClientContext("10.0.0.2")
    session = lifecycle.authenticate(FRESH, "ada", how, seen, b"n" * 32, POLICY, LATER)
    assert (session.subject, session.authentication, session.client) == ("ada", how, seen)
    assert (session.digest, session.rolled_digest, session.generation) == (b"n" * 32, b"d" * 32, 1)
    assert (session.idle_deadline, session.absolute_deadline) == (LATER + 100, LATER + 1_000)


@pytest.mark.parametrize(("extends", "absolute"), [(False, START + 1_000), (True, LATER + 1_000)])
def test_refresh(extends: bool, absolute: int) -> None:
    """A refresh starts the idle timeout again, and the lifetime only where the policy says so; the token stays."""
    policy = replace(POLICY, refresh_extends_lifetime=extends)
    session = lifecycle.refresh(FRESH, policy, LATER)
    assert (session.idle_deadline, session.absolute_deadline) == (LATER + 100, absolute)
    assert (session.digest, session.generation) == (FRESH.digest, FRESH.generation)


def test_the_first_ending_stands() -> None:
    """An ended session ends no second time."""
    ended = lifecycle.end(FRESH, START, samples.REVOKED)
    assert lifecycle.end(ended, LATER, Cause(CauseKind.IDLE_TIMEOUT)) is ended
    assert lifecycle.expired_view(ended, Instant(START + 9_999)) is ended


@pytest.mark.parametrize("kind", list(CauseKind))
def test_state_of_an_ending(kind: CauseKind) -> None:
    """Deadlines expire a session; anything else revokes it."""
    expiries = {CauseKind.IDLE_TIMEOUT, CauseKind.ABSOLUTE_TIMEOUT, CauseKind.LOGIN_TIMEOUT}
    ended = lifecycle.end(FRESH, START, Cause(kind))
    assert ended.state is (SessionState.EXPIRED if kind in expiries else SessionState.REVOKED)


def test_expired_view_ends_at_the_deadline() -> None:
    """Seen after its deadline a session ended at the deadline itself, and of that cause."""
    assert lifecycle.expired_view(FRESH, Instant(START + 99)) is FRESH
    for now in (START + 100, START + 5_000):
        ending = lifecycle.expired_view(FRESH, Instant(now)).ending
        assert ending is not None
        assert (ending.at, ending.cause.kind) == (START + 100, CauseKind.IDLE_TIMEOUT)


def test_data_counts_its_version() -> None:
    """A change of data counts the version and keeps the size; the ending empties it."""
    changed = lifecycle.with_data(lifecycle.with_data(FRESH, 10), 7)
    assert (changed.data_version, changed.data_bytes) == (2, 7)
    assert lifecycle.end(changed, START, samples.REVOKED).data_bytes == 0
