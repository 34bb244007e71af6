"""The table "Judging a token" of the design, row for row, each boundary to the millisecond."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis.strategies import integers, none, sampled_from

from sessiond.domain.judge import Judgement, Presented, Verdict, ended_verdict, judge
from sessiond.domain.policy import PRESETS, Policy
from sessiond.domain.session import Ending, Session
from sessiond.domain.signals import Signal, SignalType
from sessiond.domain.values import Cause, CauseKind, Instant, Millis
from tests.contracts import samples
from tests.support.clock import START

DIGEST, ROLLED, OTHER = b"d" * 32, b"r" * 32, b"o" * 32
POLICY = replace(
    PRESETS["owasp-low"],
    renewal_timeout=Millis(1_000),
    renewal_overlap=Millis(100),
    roll_tolerance=Millis(50),
    lost_answer_tolerance=Millis(500),
)
SESSION = samples.session(
    generation=5,
    digest=DIGEST,
    idle_deadline=START + 10_000,
    absolute_deadline=START + 20_000,
    rolled_digest=ROLLED,
    rolled_at=START,
)


def judged(
    generation: int = 5,
    digest: bytes = DIGEST,
    after: int = 0,
    session: Session = SESSION,
    policy: Policy = POLICY,
) -> Judgement:
    """The judgement of a token so many milliseconds after the session's generation began."""
    return judge(session, Presented(session.id, generation, digest), policy, Instant(START + after))


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        (CauseKind.REQUEST, Verdict.REVOKED),
        (CauseKind.CONCURRENCY_LIMIT, Verdict.REVOKED),
        (CauseKind.SIGNAL, Verdict.REVOKED),
        (CauseKind.IDLE_TIMEOUT, Verdict.EXPIRED_IDLE),
        (CauseKind.ABSOLUTE_TIMEOUT, Verdict.EXPIRED_ABSOLUTE),
        (CauseKind.LOGIN_TIMEOUT, Verdict.EXPIRED_ABSOLUTE),
    ],
)
@pytest.mark.parametrize("digest", [DIGEST, ROLLED, OTHER])
@pytest.mark.parametrize("after", [0, 10_000, 20_000])
def test_an_ended_session(kind: CauseKind, verdict: Verdict, digest: bytes, after: int) -> None:
    """Every token of an ended session is told how it ended, whatever deadline passes later, and raises no alarm."""
    ended = replace(SESSION, ending=Ending(START, Cause(kind)))
    in_flight = after < POLICY.roll_tolerance
    assert judged(digest=digest, after=after, session=ended) == Judgement(verdict, in_flight=in_flight)
    assert ended_verdict(ended) is verdict


def test_a_live_session_named_by_id() -> None:
    """A session that has not ended is VALID by its id."""
    assert ended_verdict(SESSION) is Verdict.VALID


@pytest.mark.parametrize("digest", [DIGEST, ROLLED, OTHER])
@pytest.mark.parametrize(
    ("idle", "absolute", "after", "verdict"),
    [
        (10, 20, 10, Verdict.EXPIRED_IDLE),
        (10, 20, 20, Verdict.EXPIRED_IDLE),
        (20, 10, 10, Verdict.EXPIRED_ABSOLUTE),
        (20, 10, 20, Verdict.EXPIRED_ABSOLUTE),
        (10, 10, 10, Verdict.EXPIRED_IDLE),
        (None, 10, 10, Verdict.EXPIRED_ABSOLUTE),
        (10, None, 10, Verdict.EXPIRED_IDLE),
    ],
)
def test_a_passed_deadline(digest: bytes, idle: int | None, absolute: int | None, after: int, verdict: Verdict) -> None:
    """From its deadline on a session is expired by the earlier of the two, for every token alike."""
    session = replace(
        SESSION,
        idle_deadline=None if idle is None else Instant(START + idle),
        absolute_deadline=None if absolute is None else Instant(START + absolute),
    )
    assert judged(digest=digest, after=after, session=session) == Judgement(verdict, in_flight=True)


@pytest.mark.parametrize("kind", [CauseKind.REQUEST, CauseKind.IDLE_TIMEOUT])
def test_the_tolerance_for_requests_under_way_at_the_end(kind: CauseKind) -> None:
    """An ending counts as moments ago up to one millisecond before the tolerance, not at it."""
    ended = replace(SESSION, ending=Ending(START, Cause(kind)))
    idle = replace(SESSION, idle_deadline=START)
    for session in (ended, idle):
        assert judged(after=POLICY.roll_tolerance - 1, session=session).in_flight
        assert not judged(after=POLICY.roll_tolerance, session=session).in_flight


@pytest.mark.parametrize("field", ["idle_deadline", "absolute_deadline"])
def test_one_millisecond_before_a_deadline(field: str) -> None:
    """Up to one millisecond before its deadline a session is VALID."""
    session = samples.session(generation=5, digest=DIGEST, **{field: START + 10})
    assert judged(after=9, session=session).verdict is Verdict.VALID
    assert judged(after=10, session=session).verdict is not Verdict.VALID


@pytest.mark.parametrize(("after", "hand_out"), [(0, None), (999, None), (1_000, 6), (5_000, 6)])
def test_the_current_token(after: int, hand_out: int | None) -> None:
    """The current token is VALID; from the renewal timeout on its successor comes along."""
    assert judged(after=after) == Judgement(Verdict.VALID, hand_out=hand_out)


def test_without_renewal_no_successor() -> None:
    """Under a policy without renewal no successor comes along, however old the token is."""
    policy = replace(POLICY, renewal_timeout=None)
    assert judged(after=9_999, policy=policy) == Judgement(Verdict.VALID)


@pytest.mark.parametrize("after", [0, 999, 5_000])
def test_the_successors_first_use(after: int) -> None:
    """The next generation's token is VALID and becomes the current one."""
    assert judged(generation=6, after=after) == Judgement(Verdict.VALID, activates=True)


@pytest.mark.parametrize("after", [0, 99])
def test_the_token_before_inside_the_overlap(after: int) -> None:
    """Inside the overlap the token before the current one is VALID, and the current one comes along again."""
    assert judged(generation=4, after=after) == Judgement(Verdict.VALID, hand_out=5)


def replay(presented: str, *, newer_in_use: bool = False) -> Judgement:
    """A replay against generation 5."""
    signal = Signal(SignalType.TOKEN_REPLAY, "generation 5", presented)
    return Judgement(Verdict.REPLAYED, signals=(signal,), newer_in_use=newer_in_use)


@pytest.mark.parametrize("after", [100, 101, 5_000])
def test_the_token_before_after_the_overlap(after: int) -> None:
    """From the overlap's end on the token before the current one is a replay."""
    assert judged(generation=4, after=after) == replay("generation 4", newer_in_use=True)


@pytest.mark.parametrize("generation", [0, 3, 7, 2**32 - 1])
@pytest.mark.parametrize("after", [0, 99])
def test_any_other_generation(generation: int, after: int) -> None:
    """A proven token of any other generation is a replay, even inside the overlap."""
    assert judged(generation=generation, after=after) == replay(f"generation {generation}", newer_in_use=generation < 5)


@pytest.mark.parametrize("generation", [3, 4, 5, 6])
@pytest.mark.parametrize("after", [0, 49])
def test_a_token_rolled_away_inside_the_tolerance(generation: int, after: int) -> None:
    """Inside the roll's tolerance a token that was rolled away is denied without alarm, of whatever generation."""
    assert judged(generation, ROLLED, after) == Judgement(Verdict.SUPERSEDED)


USED = replace(SESSION, last_active=Instant(START + 1))


@pytest.mark.parametrize("after", [50, 51, 5_000])
def test_a_token_rolled_away_after_the_tolerance(after: int) -> None:
    """From the tolerance's end on a token that was rolled away is a replay, once the one that replaced it was used."""
    assert judged(4, ROLLED, after, USED) == replay("generation 4, rolled away", newer_in_use=True)


@pytest.mark.parametrize("after", [50, 499])
@pytest.mark.parametrize("generation", [3, 4, 5])
def test_a_token_whose_successor_was_never_used(after: int, generation: int) -> None:
    """As long as nobody has used the new token its answer may have been lost: denied, and no reason for suspicion."""
    assert judged(generation, ROLLED, after) == Judgement(Verdict.REPLAYED, may_have_missed_roll=True)


@pytest.mark.parametrize("after", [500, 501, 5_000])
def test_a_token_whose_successor_was_never_used_for_long(after: int) -> None:
    """From the end of that tolerance on it is a replay like any other."""
    assert judged(4, ROLLED, after) == replay("generation 4, rolled away")


def test_a_token_renewed_away_before_the_roll() -> None:
    """One that was renewed away before the roll was no answer's victim: a replay, whoever has used what."""
    assert judged(2, ROLLED, 50) == replay("generation 2, rolled away")


def test_no_lost_answer_without_a_subject() -> None:
    """Of a session without a subject nobody could be asked to authenticate: the old token is a replay."""
    assert judged(4, ROLLED, 50, replace(SESSION, subject="")) == replay("generation 4, rolled away")


def test_no_lost_answer_without_a_roll() -> None:
    """A secret that is neither the current nor the one rolled away is nobody's lost answer."""
    assert judged(4, OTHER, 50) == replay("generation 4, rolled away")


@pytest.mark.parametrize("generation", [4, 5, 6])
def test_any_other_secret(generation: int) -> None:
    """A token with a secret that is neither the current nor the one rolled away is a replay at once."""
    assert judged(generation, OTHER) == replay(f"generation {generation}, rolled away")


@pytest.mark.parametrize("digest", [ROLLED, OTHER])
@pytest.mark.parametrize("generation", [2, 4, 5, 6])
@pytest.mark.parametrize("used", [-1, 0, 1])
def test_whether_the_token_of_a_roll_is_in_use(digest: bytes, generation: int, used: int) -> None:
    """A token from before a roll knows of a newer one in use only if there was activity after the roll, not at it."""
    session = replace(SESSION, last_active=Instant(START + used))
    judgement = judged(generation, digest, 5_000, session)
    assert (judgement.verdict, judgement.newer_in_use) == (Verdict.REPLAYED, used == 1)
    without_roll = replace(session, rolled_at=None, rolled_digest=None)
    assert not judged(generation, digest, 5_000, without_roll).newer_in_use


@given(
    generation=integers(0, 9),
    digest=sampled_from([DIGEST, ROLLED, OTHER]),
    after=integers(0, 12_000),
    active=integers(-2_000, 2_000),
    rolled=none() | integers(-2_000, 2_000),
)
def test_only_a_replay_knows_of_a_newer_token_in_use(
    generation: int, digest: bytes, after: int, active: int, rolled: int | None
) -> None:
    """If a judgement says that a newer token is in use, it is a replay, and that token is not the one presented."""
    session = replace(
        SESSION,
        last_active=Instant(START + active),
        rolled_digest=None if rolled is None else ROLLED,
        rolled_at=None if rolled is None else Instant(START + rolled),
    )
    judgement = judged(generation, digest, after, session)
    assert not judgement.keeps_token  # the reactions decide this
    if judgement.newer_in_use:
        assert judgement.verdict is Verdict.REPLAYED
        assert judgement.signals
        older = generation < session.generation
        assert older if digest == DIGEST else rolled is not None and active > rolled


def test_no_digest_shows() -> None:
    """What stands for a secret is in no repr."""
    shown = repr(SESSION) + repr(Presented(SESSION.id, 5, DIGEST))
    assert DIGEST.decode() not in shown
    assert ROLLED.decode() not in shown


@pytest.mark.parametrize("step", [0, 1, -1])
def test_a_use_after_an_old_token_came_back(step: int) -> None:
    """Each use of the session's own tokens, the successor's first one included, is told of as a second holder's."""
    session = replace(SESSION, old_token=2)
    (signal,) = judged(SESSION.generation + step, session=session).signals
    assert signal.type is SignalType.TOKEN_REPLAY
    assert judged(SESSION.generation + step).signals == ()
