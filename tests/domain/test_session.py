"""The session and the steps of its life: pure functions from one state to the next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sessiond.domain import lifecycle
from sessiond.domain.policy import PRESETS, Policy
from sessiond.domain.session import (
    Activity,
    Deadline,
    Elevation,
    Session,
    SessionState,
    accepted_earlier_csrf,
    as_seen,
    authentication_at,
    cacheable_until,
    passed_deadline,
    retention_of,
    touch_granularity,
)
from sessiond.domain.values import (
    NOBODY,
    POLICY_LIFETIMES,
    Authentication,
    Cause,
    CauseKind,
    ClientContext,
    Instant,
    Lifetimes,
    Millis,
)
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
    assert passed_deadline(session, Instant(now)) == passed


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


# Login pages


def login_page(policy: Policy = POLICY) -> Session:
    """An anonymous session of a login page, opened at the start."""
    return lifecycle.open_session(
        samples.session_id(), "default", "", b"d" * 32, None, ClientContext(), policy, START, login_page=True
    )


WAITING = replace(POLICY, login_timeout=Millis(80))


def test_a_login_page_ends_at_the_login_timeout() -> None:
    """A session of a login page ends of the login timeout, at exactly that, however active it is."""
    session = lifecycle.touch(login_page(WAITING), WAITING, Instant(START + 70))
    assert passed_deadline(session, Instant(START + 79)) is None
    passed = passed_deadline(session, Instant(START + 80))
    assert passed == Deadline(CauseKind.LOGIN_TIMEOUT, Instant(START + 80))
    ending = lifecycle.expired_view(session, Instant(START + 5_000)).ending
    assert ending is not None
    assert (ending.at, ending.cause.kind, ending.state) == (START + 80, CauseKind.LOGIN_TIMEOUT, SessionState.EXPIRED)


def test_a_login_page_left_alone_is_idle() -> None:
    """Where the idle timeout comes first it ends a session of a login page, as any other."""
    policy = replace(POLICY, login_timeout=Millis(101))
    passed = passed_deadline(login_page(policy), Instant(START + 200))
    assert passed == Deadline(CauseKind.IDLE_TIMEOUT, Instant(START + 100))


@pytest.mark.parametrize(("absolute", "deadline"), [(70, 70), (90, 80), (None, 80)])
def test_a_login_page_lives_no_longer_than_any_session(absolute: int | None, deadline: int) -> None:
    """A login page's deadline is the earlier of login and absolute timeout, or the one that there is."""
    policy = replace(WAITING, absolute_timeout=None if absolute is None else Millis(absolute))
    assert login_page(policy).absolute_deadline == START + deadline


def test_an_anonymous_session_without_login_page() -> None:
    """The login timeout is for login pages alone."""
    assert not FRESH.login_page
    assert FRESH.absolute_deadline == START + 1_000


def test_a_login_page_is_not_refreshed_or_rolled_longer() -> None:
    """Neither a refresh, whatever the policy, nor a roll moves the deadline of a login page."""
    policy = replace(WAITING, refresh_extends_lifetime=True)
    for session in (
        lifecycle.refresh(login_page(policy), policy, LATER),
        lifecycle.roll(login_page(policy), b"n" * 32, policy, LATER),
    ):
        assert (session.absolute_deadline, session.last_active, session.login_page) == (START + 80, LATER, True)


def test_after_login_it_is_no_login_page() -> None:
    """Authentication ends the login page: from now on the absolute timeout counts, and is told as such."""
    session = lifecycle.authenticate(
        login_page(WAITING), "ada", PASSWORD, ClientContext(), b"n" * 32, WAITING, Instant(START + 79)
    )
    assert not session.login_page
    assert session.absolute_deadline == START + 79 + 1_000
    passed = passed_deadline(replace(session, idle_deadline=None), Instant(START + 9_999))
    assert passed == Deadline(CauseKind.ABSOLUTE_TIMEOUT, Instant(START + 79 + 1_000))


# Elevation

PASSWORD = Authentication(1, ("pwd",), START)
PASSKEY = Authentication(3, ("hwk", "user"), LATER)
ELEVATING = replace(POLICY, elevation_timeout=Millis(30))
LOGGED_IN = lifecycle.open_session(
    samples.session_id(), "default", "ada", b"d" * 32, PASSWORD, ClientContext("10.0.0.1"), POLICY, START
)
ELEVATED = lifecycle.elevate(LOGGED_IN, PASSKEY, ClientContext("10.0.0.2"), b"n" * 32, ELEVATING, LATER)


def level(session: Session, policy: Policy, after: int) -> int:
    """The level that counts so many milliseconds after the start."""
    authentication = authentication_at(session, policy, Instant(START + after))
    assert authentication is not None
    return authentication.level


def test_an_elevation_counts_until_its_end() -> None:
    """An elevated authentication counts up to one millisecond before its end; then the session's own does again."""
    assert authentication_at(ELEVATED, ELEVATING, Instant(LATER + 29)) == PASSKEY
    assert authentication_at(ELEVATED, ELEVATING, Instant(LATER + 30)) == PASSWORD


def test_an_elevation_rolls_and_prolongs_nothing() -> None:
    """An elevation takes a fresh secret and the client's context; the session's own login and lifetime stay."""
    assert (ELEVATED.digest, ELEVATED.rolled_digest, ELEVATED.generation) == (b"n" * 32, b"d" * 32, 1)
    assert (ELEVATED.authentication, ELEVATED.client) == (PASSWORD, ClientContext("10.0.0.2"))
    assert (ELEVATED.absolute_deadline, ELEVATED.last_active) == (START + 1_000, LATER)


@pytest.mark.parametrize("after", [0, 20])
def test_an_elevation_is_not_inherited(after: int) -> None:
    """Neither a roll nor a refresh nor activity during an elevation makes it last longer or the session's own."""
    now = Instant(LATER + after)
    for session in (
        lifecycle.roll(ELEVATED, b"x" * 32, ELEVATING, now),
        lifecycle.refresh(ELEVATED, ELEVATING, now),
        lifecycle.touch(ELEVATED, ELEVATING, now),
        lifecycle.activate(ELEVATED, 2, now),
    ):
        assert session.authentication == PASSWORD
        assert (level(session, ELEVATING, 60 + 29), level(session, ELEVATING, 60 + 30)) == (3, 1)


def test_an_elevation_during_another_begins_anew() -> None:
    """Elevated again, a session has the later elevation and its end, and falls back to its own authentication."""
    again = lifecycle.elevate(
        ELEVATED, replace(PASSKEY, level=2), ClientContext(), b"x" * 32, ELEVATING, Instant(LATER + 20)
    )
    assert (level(again, ELEVATING, 60 + 49), level(again, ELEVATING, 60 + 50)) == (2, 1)


def test_authentication_ends_an_elevation() -> None:
    """After another authentication of the whole session an elevation that lasted counts no more."""
    session = lifecycle.authenticate(
        ELEVATED, "ada", replace(PASSWORD, at=LATER), ClientContext(), b"x" * 32, ELEVATING, LATER
    )
    assert session.elevation is None
    assert level(session, ELEVATING, 60) == 1


def test_an_elevated_session_as_callers_see_it() -> None:
    """Callers see the authentication that counts, and an elevation only while it lasts."""
    during = as_seen(ELEVATED, ELEVATING, Instant(LATER + 29))
    assert (during.authentication, during.elevation) == (PASSKEY, ELEVATED.elevation)
    after = as_seen(ELEVATED, ELEVATING, Instant(LATER + 30))
    assert after == replace(ELEVATED, elevation=None)


def test_an_ordinary_session_is_seen_as_it_is() -> None:
    """A session that is neither elevated nor remembered is seen unchanged, whatever the time."""
    assert as_seen(LOGGED_IN, POLICY, Instant(START + 5_000)) is LOGGED_IN
    assert authentication_at(LOGGED_IN, POLICY, Instant(START + 5_000)) == PASSWORD
    assert authentication_at(FRESH, POLICY, START) is None


# The CSRF token from before a step-up

OVERLAPPING = replace(ELEVATING, csrf_overlap=Millis(40))
CSRF = b"c" * 32


def stepped_up(session: Session, policy: Policy = OVERLAPPING, csrf: bytes | None = CSRF) -> list[Session]:
    """The session after its subject authenticated again, and after an elevation."""
    seen, digest = ClientContext(), b"n" * 32
    return [
        lifecycle.authenticate(session, "ada", replace(PASSWORD, at=LATER), seen, digest, policy, LATER, csrf=csrf),
        lifecycle.elevate(session, PASSKEY, seen, digest, policy, LATER, csrf=csrf),
    ]


def test_a_step_up_keeps_the_hash_of_the_earlier_csrf_token() -> None:
    """A subject that authenticates again, or is elevated, leaves the earlier CSRF token accepted during the overlap."""
    for session in stepped_up(LOGGED_IN):
        assert (session.earlier_csrf, session.earlier_csrf_at) == (CSRF, LATER)
        assert accepted_earlier_csrf(session, OVERLAPPING, LATER) == CSRF
        assert accepted_earlier_csrf(session, OVERLAPPING, Instant(LATER + 39)) == CSRF
        assert accepted_earlier_csrf(session, OVERLAPPING, Instant(LATER + 40)) is None


def test_the_overlap_is_that_of_the_policy_now() -> None:
    """A policy that is changed after the step-up decides, also the one that switches the overlap off."""
    session = stepped_up(LOGGED_IN)[0]
    for overlap, accepted in ((0, None), (1, CSRF)):
        policy = replace(OVERLAPPING, csrf_overlap=Millis(overlap))
        assert accepted_earlier_csrf(session, policy, LATER) == accepted


@pytest.mark.parametrize(
    "before", [replace(LOGGED_IN, must_authenticate=True), replace(LOGGED_IN, old_token=0)], ids=["held", "two holders"]
)
def test_a_step_up_under_suspicion_keeps_no_csrf_token(before: Session) -> None:
    """If another client may hold the token, the CSRF token from before the step-up is not accepted after it."""
    for session in stepped_up(before):
        assert (session.earlier_csrf, session.earlier_csrf_at) == (None, None)


def test_a_login_keeps_no_csrf_token_of_the_guest() -> None:
    """Whoever opened the anonymous session knows its CSRF token, so the login leaves nothing of it accepted."""
    for before in (FRESH, replace(LOGGED_IN, subject="bob")):
        session = stepped_up(before)[0]
        assert (session.earlier_csrf, session.earlier_csrf_at) == (None, None)


def test_without_an_overlap_nothing_is_kept() -> None:
    """Without an overlap, or without a hash, a step-up keeps nothing."""
    for policy, csrf in ((replace(OVERLAPPING, csrf_overlap=Millis(0)), CSRF), (OVERLAPPING, None)):
        for session in stepped_up(LOGGED_IN, policy, csrf):
            assert (session.earlier_csrf, session.earlier_csrf_at) == (None, None)


def test_what_forgets_an_earlier_csrf_token() -> None:
    """A roll forgets it, and so does each login that keeps none; a later step-up keeps only its own."""
    kept = stepped_up(LOGGED_IN)[0]
    later = Instant(LATER + 1)
    how, seen, digest = replace(PASSWORD, at=later), ClientContext(), b"x" * 32
    held = replace(kept, must_authenticate=True)
    for session in (
        lifecycle.roll(kept, digest, OVERLAPPING, later),
        lifecycle.authenticate(held, "ada", how, seen, digest, OVERLAPPING, later, csrf=b"e" * 32),
        lifecycle.elevate(held, PASSKEY, seen, digest, OVERLAPPING, later, csrf=b"e" * 32),
        lifecycle.authenticate(kept, "ada", how, seen, digest, OVERLAPPING, later),
    ):
        assert (session.earlier_csrf, session.earlier_csrf_at) == (None, None)
    again = lifecycle.authenticate(kept, "ada", how, seen, digest, OVERLAPPING, later, csrf=b"e" * 32)
    assert (again.earlier_csrf, again.earlier_csrf_at) == (b"e" * 32, later)


def test_what_keeps_an_earlier_csrf_token() -> None:
    """Activity, a refresh, a renewal and a change of the session's data leave the earlier CSRF token as it is."""
    for kept in stepped_up(LOGGED_IN):
        later = Instant(LATER + 1)
        for session in (
            lifecycle.touch(kept, OVERLAPPING, later),
            lifecycle.refresh(kept, OVERLAPPING, later),
            lifecycle.activate(kept, kept.generation + 1, later),
            lifecycle.with_data(kept, 5),
            as_seen(kept, OVERLAPPING, later),
        ):
            assert (session.earlier_csrf, session.earlier_csrf_at) == (CSRF, LATER)


def test_the_hash_is_not_shown() -> None:
    """The repr of a session does not show the hash of its earlier CSRF token."""
    assert repr(CSRF) not in repr(stepped_up(LOGGED_IN)[0])


# Remembered sessions

REMEMBERING = replace(POLICY, remember_idle_timeout=Millis(10_000), remember_absolute_timeout=Millis(50_000))
TWO_FACTORS = Authentication(2, ("pwd", "otp"), START)


def remembered(authentication: Authentication | None = TWO_FACTORS) -> Session:
    """A remembered session, opened at the start."""
    return lifecycle.open_session(
        samples.session_id(),
        "default",
        "ada",
        b"d" * 32,
        authentication,
        ClientContext(),
        REMEMBERING,
        START,
        persistent=True,
    )


def test_a_remembered_session_has_timeouts_of_its_own() -> None:
    """A remembered session begins, goes on and is refreshed with the timeouts of remembered sessions."""
    session = remembered()
    assert session.persistent
    assert (session.idle_deadline, session.absolute_deadline) == (START + 10_000, START + 50_000)
    assert lifecycle.touch(session, REMEMBERING, LATER).idle_deadline == LATER + 10_000
    assert lifecycle.idle_deadline(session, REMEMBERING, LATER) == LATER + 10_000
    assert lifecycle.idle_deadline(FRESH, REMEMBERING, LATER) == LATER + 100
    extending = replace(REMEMBERING, refresh_extends_lifetime=True)
    assert lifecycle.refresh(session, extending, LATER).absolute_deadline == LATER + 50_000


@pytest.mark.parametrize(("after", "expected"), [(0, 2), (99, 2), (100, 1), (9_999, 1)])
def test_a_remembered_level_falls(after: int, expected: int) -> None:
    """After exactly the ordinary idle timeout without activity a remembered session's level has fallen."""
    session = remembered()
    assert level(session, REMEMBERING, after) == expected
    seen = as_seen(session, REMEMBERING, Instant(START + after)).authentication
    assert seen == replace(TWO_FACTORS, level=expected)


def test_activity_keeps_a_remembered_level() -> None:
    """Activity in time keeps a remembered session's level for another idle timeout."""
    session = lifecycle.touch(remembered(), REMEMBERING, Instant(START + 99))
    assert session.authentication == TWO_FACTORS
    assert (level(session, REMEMBERING, 198), level(session, REMEMBERING, 199)) == (2, 1)


@pytest.mark.parametrize("after", [100, 5_000])
def test_a_level_that_fell_stays_low(after: int) -> None:
    """A level that fell does not come back by later activity, a refresh or a roll."""
    now = Instant(START + after)
    for session in (
        lifecycle.touch(remembered(), REMEMBERING, now),
        lifecycle.refresh(remembered(), REMEMBERING, now),
        lifecycle.roll(remembered(), b"n" * 32, REMEMBERING, now),
    ):
        assert session.last_active == now
        assert level(session, REMEMBERING, after) == 1
        assert level(lifecycle.touch(session, REMEMBERING, Instant(now + 1)), REMEMBERING, after + 1) == 1


def test_a_fallen_level_is_raised_by_an_elevation_for_a_while() -> None:
    """An elevation of a remembered session counts over the fallen level, which is there again after it."""
    policy = replace(REMEMBERING, elevation_timeout=Millis(30))
    session = lifecycle.elevate(remembered(), PASSKEY, ClientContext(), b"n" * 32, policy, Instant(START + 5_000))
    assert (level(session, policy, 5_029), level(session, policy, 5_030)) == (3, 1)


def test_authentication_raises_a_fallen_level() -> None:
    """Authenticated anew, a remembered session has the new level, and its timeouts start again as before."""
    fallen = lifecycle.touch(remembered(), REMEMBERING, Instant(START + 5_000))
    now = Instant(START + 5_001)
    session = lifecycle.authenticate(
        fallen, "ada", replace(TWO_FACTORS, at=now), ClientContext(), b"n" * 32, REMEMBERING, now
    )
    assert level(session, REMEMBERING, 5_001) == 2
    assert session.persistent
    assert (session.idle_deadline, session.absolute_deadline) == (now + 10_000, now + 50_000)


def test_a_session_can_be_remembered_at_login() -> None:
    """An anonymous session that is authenticated with the wish to be remembered is so, with those timeouts."""
    session = lifecycle.authenticate(
        FRESH, "ada", TWO_FACTORS, ClientContext(), b"n" * 32, REMEMBERING, LATER, persistent=True
    )
    assert session.persistent
    assert (session.idle_deadline, session.absolute_deadline) == (LATER + 10_000, LATER + 50_000)


@pytest.mark.parametrize("own", [0, 1])
def test_a_low_level_does_not_fall(own: int) -> None:
    """A level that is no higher than the remembered one stays as it is: falling raises nothing."""
    assert level(remembered(replace(TWO_FACTORS, level=own)), REMEMBERING, 5_000) == own


def test_a_remembered_session_without_authentication() -> None:
    """A remembered session that was never authenticated has no authentication later either."""
    assert authentication_at(remembered(None), REMEMBERING, Instant(START + 5_000)) is None


def test_the_remembered_level_is_the_policys() -> None:
    """A level falls to what the policy says, and not at all where there is no ordinary idle timeout."""
    assert level(remembered(), replace(REMEMBERING, remember_level=0), 100) == 0
    assert level(remembered(), replace(REMEMBERING, remember_level=2), 100) == 2
    assert level(remembered(), replace(REMEMBERING, idle_timeout=None), 9_999) == 2


def test_an_ordinary_level_does_not_fall() -> None:
    """The level of a session that is not remembered stays what it is until the session ends."""
    session = replace(LOGGED_IN, authentication=TWO_FACTORS)
    assert level(session, REMEMBERING, 99_999) == 2


def test_a_session_remembered_under_an_older_policy() -> None:
    """A session that was remembered before the policy stopped remembering never loses its deadlines by being used."""
    touched = lifecycle.touch(remembered(), POLICY, LATER)
    assert touched.idle_deadline == LATER + 100
    again = lifecycle.authenticate(remembered(), "ada", TWO_FACTORS, ClientContext(), b"n" * 32, POLICY, LATER)
    assert (again.idle_deadline, again.absolute_deadline) == (LATER + 100, LATER + 1_000)


# A session's own timeouts


def own(idle: int | None = None, absolute: int | None = None) -> Lifetimes:
    """Timeouts of a session's own."""
    return Lifetimes(None if idle is None else Millis(idle), None if absolute is None else Millis(absolute))


def opened(lifetimes: Lifetimes, policy: Policy = POLICY, *, persistent: bool = False, page: bool = False) -> Session:
    """A session with these timeouts, opened at the start."""
    return lifecycle.open_session(
        samples.session_id(),
        "default",
        "" if page else "ada",
        b"d" * 32,
        None if page else PASSWORD,
        NOBODY,
        policy,
        START,
        persistent=persistent,
        login_page=page,
        lifetimes=lifetimes,
    )


@pytest.mark.parametrize(
    ("wanted", "kept", "idle", "absolute"),
    [
        (own(40, 700), own(40, 700), 40, 700),
        (own(idle=40), own(idle=40), 40, 1_000),
        (own(absolute=700), own(absolute=700), 100, 700),
        (own(99, 999), own(99, 999), 99, 999),
        (own(100, 1_000), POLICY_LIFETIMES, 100, 1_000),
        (own(101, 1_001), POLICY_LIFETIMES, 100, 1_000),
        (own(40, 5_000), own(idle=40), 40, 1_000),
        (own(5_000, 700), own(absolute=700), 100, 700),
        (POLICY_LIFETIMES, POLICY_LIFETIMES, 100, 1_000),
    ],
)
def test_own_timeouts_are_shorter_than_the_policys(
    wanted: Lifetimes, kept: Lifetimes, idle: int, absolute: int
) -> None:
    """A timeout shorter than the policy's holds from the opening on; one as long or longer has no effect."""
    session = opened(wanted)
    assert session.lifetimes == kept
    assert (session.idle_deadline, session.absolute_deadline) == (START + idle, START + absolute)


@pytest.mark.parametrize("lifetimes", [own(40), own(40, 700), own(5_000)])
def test_activity_keeps_to_the_own_idle_timeout(lifetimes: Lifetimes) -> None:
    """Each activity sets the idle deadline by the session's own timeout if that is shorter, else by the policy's."""
    touched = lifecycle.touch(opened(lifetimes), POLICY, LATER)
    expected = 40 if lifetimes.idle == 40 else 100
    assert touched.idle_deadline == LATER + expected
    assert touched.absolute_deadline == opened(lifetimes).absolute_deadline
    assert lifecycle.roll(opened(lifetimes), b"n" * 32, POLICY, LATER).idle_deadline == LATER + expected


def test_own_timeouts_under_a_policy_without_timeouts() -> None:
    """A timeout that the policy does not have may be set for one session, however long."""
    policy = replace(POLICY, idle_timeout=None, absolute_timeout=None)
    session = opened(own(5_000, 90_000), policy)
    assert session.lifetimes == own(5_000, 90_000)
    assert (session.idle_deadline, session.absolute_deadline) == (START + 5_000, START + 90_000)


@pytest.mark.parametrize(
    ("wanted", "kept", "idle", "absolute"),
    [
        (own(5_000, 20_000), own(5_000, 20_000), 5_000, 20_000),
        (own(10_000, 50_000), POLICY_LIFETIMES, 10_000, 50_000),
        (own(10_001, 50_001), POLICY_LIFETIMES, 10_000, 50_000),
    ],
)
def test_own_timeouts_of_a_remembered_session(wanted: Lifetimes, kept: Lifetimes, idle: int, absolute: int) -> None:
    """For a remembered session the limits of remembered sessions bound its own timeouts, not the ordinary ones."""
    session = opened(wanted, REMEMBERING, persistent=True)
    assert session.lifetimes == kept
    assert (session.idle_deadline, session.absolute_deadline) == (START + idle, START + absolute)
    assert lifecycle.touch(session, REMEMBERING, LATER).idle_deadline == LATER + idle


@pytest.mark.parametrize(("absolute", "deadline"), [(70, 70), (80, 80), (90, 80), (None, 80)])
def test_own_timeouts_of_a_login_page(absolute: int | None, deadline: int) -> None:
    """A login page ends at the earlier of the login timeout and the session's own absolute timeout."""
    assert opened(own(absolute=absolute), WAITING, page=True).absolute_deadline == START + deadline


def test_own_timeouts_under_a_shorter_policy() -> None:
    """Own timeouts that have become longer than a changed policy's no longer count."""
    shorter = replace(POLICY, idle_timeout=Millis(20), absolute_timeout=Millis(300))
    session = opened(own(40, 700))
    assert lifecycle.idle_deadline(session, shorter, LATER) == LATER + 20
    again = lifecycle.authenticate(session, "ada", PASSWORD, NOBODY, b"n" * 32, shorter, LATER)
    assert (again.lifetimes, again.idle_deadline) == (POLICY_LIFETIMES, LATER + 20)
    assert again.absolute_deadline == LATER + 300


@pytest.mark.parametrize(
    ("wanted", "kept", "idle", "absolute"),
    [
        (None, own(40, 700), 40, 700),
        (POLICY_LIFETIMES, POLICY_LIFETIMES, 100, 1_000),
        (own(30, 600), own(30, 600), 30, 600),
        (own(60, 900), own(60, 900), 60, 900),
        (own(idle=60), own(idle=60), 60, 1_000),
        (own(5_000, 5_000), POLICY_LIFETIMES, 100, 1_000),
    ],
)
def test_authentication_with_timeouts(wanted: Lifetimes | None, kept: Lifetimes, idle: int, absolute: int) -> None:
    """Authentication keeps the session's own timeouts unless it brings others; both start again by them."""
    session = lifecycle.authenticate(
        opened(own(40, 700)), "ada", PASSWORD, NOBODY, b"n" * 32, POLICY, LATER, lifetimes=wanted
    )
    assert session.lifetimes == kept
    assert (session.idle_deadline, session.absolute_deadline) == (LATER + idle, LATER + absolute)


def test_a_session_that_is_remembered_at_login_keeps_its_own_timeouts() -> None:
    """Own timeouts of an ordinary session bound it also once it is remembered, unless the login brings others."""
    session = lifecycle.authenticate(
        opened(own(40, 700), REMEMBERING), "ada", PASSWORD, NOBODY, b"n" * 32, REMEMBERING, LATER, persistent=True
    )
    assert (session.persistent, session.lifetimes) == (True, own(40, 700))
    assert (session.idle_deadline, session.absolute_deadline) == (LATER + 40, LATER + 700)


@pytest.mark.parametrize("extends", [False, True])
@pytest.mark.parametrize(
    ("before", "wanted", "kept", "idle", "kept_absolute", "extended_absolute"),
    [
        (POLICY_LIFETIMES, None, POLICY_LIFETIMES, 100, START + 1_000, LATER + 1_000),
        (own(40, 700), None, own(40, 700), 40, START + 700, LATER + 700),
        (POLICY_LIFETIMES, own(40, 500), own(40, 500), 40, LATER + 500, LATER + 500),
        (POLICY_LIFETIMES, own(absolute=939), own(absolute=939), 100, START + 999, START + 999),
        (POLICY_LIFETIMES, own(absolute=940), own(absolute=940), 100, START + 1_000, START + 1_000),
        (POLICY_LIFETIMES, own(absolute=941), own(absolute=941), 100, START + 1_000, LATER + 941),
        (own(40, 700), own(60, 900), own(60, 900), 60, START + 700, LATER + 900),
        (own(40, 700), POLICY_LIFETIMES, POLICY_LIFETIMES, 100, START + 700, LATER + 1_000),
        (own(70, 700), own(5_000, 5_000), POLICY_LIFETIMES, 100, START + 700, LATER + 1_000),
    ],
)
def test_refresh_with_timeouts(
    extends: bool,
    before: Lifetimes,
    wanted: Lifetimes | None,
    kept: Lifetimes,
    idle: int,
    kept_absolute: int,
    extended_absolute: int,
) -> None:
    """A refresh may shorten what is left of the lifetime; it lengthens it only if the policy extends lifetimes."""
    policy = replace(POLICY, refresh_extends_lifetime=extends)
    session = lifecycle.refresh(opened(before, policy), policy, LATER, wanted)
    assert (session.lifetimes, session.last_active, session.idle_deadline) == (kept, LATER, LATER + idle)
    assert session.absolute_deadline == (extended_absolute if extends else kept_absolute)


@pytest.mark.parametrize("extends", [False, True])
def test_refresh_sets_a_first_lifetime(extends: bool) -> None:
    """A session without an absolute deadline gets one by a refresh with an absolute timeout."""
    policy = replace(POLICY, absolute_timeout=None, refresh_extends_lifetime=extends)
    session = lifecycle.refresh(opened(POLICY_LIFETIMES, policy), policy, LATER, own(absolute=700))
    assert session.absolute_deadline == LATER + 700


def test_refresh_sets_an_idle_timeout_alone() -> None:
    """A session without an absolute deadline gets none by a refresh with an idle timeout."""
    policy = replace(POLICY, absolute_timeout=None)
    session = lifecycle.refresh(opened(POLICY_LIFETIMES, policy), policy, LATER, own(idle=40))
    assert (session.idle_deadline, session.absolute_deadline) == (LATER + 40, None)


@pytest.mark.parametrize("absolute", [None, 1_000])
def test_refresh_under_a_shorter_policy(absolute: int | None) -> None:
    """A refresh without timeouts leaves the lifetime as it was, also if the policy's has become shorter since."""
    before = replace(POLICY, absolute_timeout=None if absolute is None else Millis(absolute))
    session = lifecycle.refresh(opened(POLICY_LIFETIMES, before), replace(POLICY, absolute_timeout=Millis(300)), LATER)
    assert session.absolute_deadline == (None if absolute is None else START + absolute)


def test_refresh_shortens_the_idle_timeout_of_a_clock_set_back() -> None:
    """A shorter idle timeout counts from the last activity, also if the clock has been set back before that."""
    active = lifecycle.touch(opened(POLICY_LIFETIMES), POLICY, LATER)
    session = lifecycle.refresh(active, POLICY, START, own(idle=40))
    assert (session.last_active, session.idle_deadline) == (LATER, LATER + 40)


@pytest.mark.parametrize("extends", [False, True])
@pytest.mark.parametrize(
    ("wanted", "deadline"), [(None, START + 80), (own(absolute=10), LATER + 10), (own(absolute=21), START + 80)]
)
def test_refresh_of_a_login_page_with_timeouts(extends: bool, wanted: Lifetimes | None, deadline: int) -> None:
    """A refresh may shorten what is left of a login page, and lengthens it under no policy."""
    policy = replace(WAITING, refresh_extends_lifetime=extends)
    session = lifecycle.refresh(opened(POLICY_LIFETIMES, policy, page=True), policy, LATER, wanted)
    assert (session.login_page, session.absolute_deadline) == (True, deadline)


@pytest.mark.parametrize(
    ("policy_idle", "own_idle", "granularity"),
    [
        (1_800_000, None, 60_000),
        (1_800_000, 1_199_999, 59_999),
        (1_800_000, 1_200_000, 60_000),
        (1_800_000, 1_799_999, 60_000),
        (1_800_000, 60_000, 3_000),
        (1_800_000, 1_000, 50),
        (1_800_000, 20, 1),
        (1_800_000, 19, 1),
        (100, None, 5),
        (100, 60, 3),
        (None, None, 60_000),
        (None, 60_000, 3_000),
        (None, 90_000_000, 60_000),
    ],
)
def test_touch_granularity(policy_idle: int | None, own_idle: int | None, granularity: int) -> None:
    """Activity may lag by a twentieth of the session's own idle timeout if it has one, between 1 ms and 60 s."""
    policy = replace(POLICY, idle_timeout=None if policy_idle is None else Millis(policy_idle))
    assert touch_granularity(opened(own(own_idle), policy), policy) == granularity


def test_touch_granularity_under_a_shorter_policy() -> None:
    """A session's own idle timeout that is longer than a changed policy's makes nothing lag longer than the policy."""
    policy = replace(POLICY, idle_timeout=Millis(100_000))
    shorter = replace(POLICY, idle_timeout=Millis(10_000))
    assert touch_granularity(opened(own(80_000), policy), shorter) == 500


# Labels


@pytest.mark.parametrize(
    ("before", "given", "after"),
    [
        ((), (), ()),
        ((), (("b", "2"), ("a", "1")), (("a", "1"), ("b", "2"))),
        ((("a", "1"),), (), (("a", "1"),)),
        ((("b", "2"),), (("a", "1"), ("c", "3")), (("a", "1"), ("b", "2"), ("c", "3"))),
        ((("a", "1"), ("b", "2")), (("a", "9"),), (("a", "9"), ("b", "2"))),
    ],
)
def test_authentication_adds_labels(
    before: tuple[tuple[str, str], ...], given: tuple[tuple[str, str], ...], after: tuple[tuple[str, str], ...]
) -> None:
    """A login's labels stand beside those of the session and replace those of the same key, sorted by key."""
    session = replace(FRESH, labels=before)
    bound = lifecycle.authenticate(session, "ada", PASSWORD, NOBODY, b"n" * 32, POLICY, LATER, labels=given)
    assert bound.labels == after


# Answers that may be reused

RENEWING = replace(POLICY, idle_timeout=Millis(10_000), absolute_timeout=Millis(50_000), renewal_timeout=Millis(30_000))
ENDLESS = replace(RENEWING, renewal_timeout=None)
ACTIVE = lifecycle.open_session(samples.session_id(), "default", "ada", b"d" * 32, TWO_FACTORS, NOBODY, RENEWING, START)
KEPT = replace(ACTIVE, persistent=True)


def after(millis: int) -> Instant:
    """So many milliseconds after the start."""
    return Instant(START + millis)


def raised(until: int, at: int = 0) -> Session:
    """A session with an elevation."""
    return replace(ACTIVE, elevation=Elevation(replace(PASSKEY, at=after(at)), after(until)))


@pytest.mark.parametrize(
    ("session", "policy", "active", "max_age", "until"),
    [
        pytest.param(ACTIVE, RENEWING, False, None, 10_000, id="idle"),
        pytest.param(ACTIVE, RENEWING, True, None, 500, id="activity"),
        pytest.param(replace(ACTIVE, lifetimes=own(4_000)), RENEWING, True, None, 200, id="activity of its own"),
        pytest.param(replace(ACTIVE, absolute_deadline=after(400)), RENEWING, True, None, 400, id="absolute"),
        pytest.param(ACTIVE, replace(RENEWING, renewal_timeout=Millis(300)), True, None, 300, id="renewal"),
        pytest.param(raised(200), RENEWING, True, None, 200, id="elevation"),
        pytest.param(KEPT, replace(REMEMBERING, idle_timeout=Millis(90)), False, None, 90, id="level"),
        pytest.param(ACTIVE, RENEWING, True, 150, 150, id="age"),
        pytest.param(raised(900, at=-50), RENEWING, True, 200, 150, id="age of the elevation"),
        pytest.param(ACTIVE, ENDLESS, False, None, 10_000, id="without renewal"),
        pytest.param(replace(ACTIVE, idle_deadline=None), RENEWING, False, None, 30_000, id="without idle deadline"),
        pytest.param(replace(ACTIVE, idle_deadline=None), ENDLESS, False, None, 50_000, id="the lifetime alone"),
        pytest.param(
            replace(KEPT, idle_deadline=None),
            replace(ENDLESS, idle_timeout=None),
            False,
            None,
            50_000,
            id="a level that never falls",
        ),
    ],
)
def test_the_earliest_end_of_an_answer(
    session: Session, policy: Policy, active: bool, max_age: int | None, until: int
) -> None:
    """An answer may be reused until the first of what could change it."""
    age = None if max_age is None else Millis(max_age)
    assert cacheable_until(session, policy, START, active, age) == START + until


@pytest.mark.parametrize(
    ("session", "max_age"),
    [
        pytest.param(replace(ACTIVE, idle_deadline=after(7)), None, id="idle"),
        pytest.param(replace(ACTIVE, absolute_deadline=after(7)), None, id="absolute"),
        pytest.param(replace(ACTIVE, generation_began=after(7 - 30_000)), None, id="renewal"),
        pytest.param(replace(ACTIVE, authentication=replace(TWO_FACTORS, at=after(7 - 70))), 70, id="age"),
    ],
)
@pytest.mark.parametrize("active", [False, True])
def test_an_answer_that_is_nearly_over(session: Session, max_age: int | None, active: bool) -> None:
    """What is due in a millisecond leaves an answer that long; what is due now leaves it no time at all."""
    age = None if max_age is None else Millis(max_age)
    assert cacheable_until(session, RENEWING, after(6), active, age) == after(7)
    assert cacheable_until(session, RENEWING, after(7), active, age) is None


@pytest.mark.parametrize(
    "session",
    [
        pytest.param(raised(7), id="elevation"),
        pytest.param(replace(KEPT, last_active=after(7 - 10_000)), id="level"),
    ],
)
@pytest.mark.parametrize(("active", "lasts"), [(False, 9_993), (True, 500)])
def test_a_level_that_falls(session: Session, active: bool, lasts: int) -> None:
    """An answer lasts until the level falls; when it has fallen, another lasts as if there had been no higher one."""
    assert cacheable_until(session, RENEWING, after(6), active, None) == after(7)
    session = replace(session, idle_deadline=after(10_000))
    assert cacheable_until(session, RENEWING, after(7), active, None) == after(7 + lasts)


def test_an_age_of_no_authentication() -> None:
    """If an age is required of a session that was never authenticated, the answer may not be reused."""
    anonymous = replace(ACTIVE, authentication=None)
    assert cacheable_until(anonymous, RENEWING, START, True, None) == after(500)
    assert cacheable_until(anonymous, RENEWING, START, True, Millis(70)) is None


def test_an_answer_that_nothing_ends() -> None:
    """An answer without any end in sight may not be reused: nothing would ever bring the client back."""
    policy = replace(RENEWING, renewal_timeout=None)
    session = replace(ACTIVE, idle_deadline=None, absolute_deadline=None)
    assert cacheable_until(session, policy, START, False, None) is None


# Retention


@pytest.mark.parametrize(("subject", "kept"), [("ada", 7_000), ("", 300)])
def test_retention(subject: str, kept: int) -> None:
    """The history of a subject's session is kept for the retention, that of a guest's for the anonymous one."""
    policy = replace(POLICY, retention=Millis(7_000), anonymous_retention=Millis(300))
    assert retention_of(replace(FRESH, subject=subject), policy) == kept


# Activity that was judged elsewhere

PHONE = ClientContext("10.0.0.9", "phone", b"c" * 32, "device")


def activity(at: int, client: ClientContext | None = None, deadline: int | None = 9_000) -> Activity:
    """Activity so many milliseconds after the start."""
    return Activity(FRESH.id, Instant(START + at), None if deadline is None else Instant(START + deadline), client)


@pytest.mark.parametrize("deadline", [None, 9_000])
def test_later_activity_is_taken_over(deadline: int | None) -> None:
    """Later activity brings its time, its deadline and its client's address and agent, and changes nothing else."""
    active = lifecycle.with_activity(FRESH, activity(1, PHONE, deadline))
    assert active == replace(
        FRESH,
        last_active=Instant(START + 1),
        idle_deadline=None if deadline is None else Instant(START + deadline),
        last_client=ClientContext("10.0.0.9", "phone"),
    )


def test_activity_without_a_client_keeps_the_last_one() -> None:
    """Activity of a call that told nothing of a client leaves the last client what it was."""
    active = lifecycle.with_activity(lifecycle.with_activity(FRESH, activity(1, PHONE)), activity(2))
    assert (active.last_active, active.last_client) == (START + 2, ClientContext("10.0.0.9", "phone"))


@pytest.mark.parametrize("at", [0, -1])
def test_activity_that_is_not_later(at: int) -> None:
    """Activity that is not later than the session's own leaves it the very same."""
    assert lifecycle.with_activity(FRESH, activity(at, PHONE)) is FRESH


def test_activity_of_an_ended_session() -> None:
    """Activity revives no session that has ended."""
    ended = lifecycle.end(FRESH, START, samples.REVOKED)
    assert lifecycle.with_activity(ended, activity(5, PHONE)) is ended
