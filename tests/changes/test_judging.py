"""Judging inside the transaction: what follows when the state is another one than it was outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sessiond.authority.results import AnswerSpec, ChangeResult, EncodedAnswer
from sessiond.changes.data import UpdateData
from sessiond.changes.judging import EndBatch, Outcome, Suspicion
from sessiond.changes.login import Authenticate, Refresh, Roll, restart_tolerances
from sessiond.changes.revocation import Revoke
from sessiond.changes.use import Report, Use
from sessiond.crypto.tokens import Token
from sessiond.domain.call import Call, Caller
from sessiond.domain.errors import SessionNotFound
from sessiond.domain.event import EventType
from sessiond.domain.judge import Presented, Verdict
from sessiond.domain.login import Login
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.signals import Reaction, Signal, SignalType, token_replay
from sessiond.domain.values import NOBODY, Cause, CauseKind, ClientContext, Instant, Millis, Revision
from sessiond.eventlog.work import PrerequisiteRequired, Read, Unit, Work
from tests.attacks.story import authority, create, kinds, policy, story_of
from tests.contracts import samples
from tests.support.clock import START, ManualClock
from tests.support.work import HEAD, KnownMemory, call_of, types_of, work_on

DIGEST, OLD, FRESH = b"d" * 32, b"o" * 32, b"f" * 32
FIRST = Revision(HEAD + 1)
HOME, ELSEWHERE = ClientContext("192.0.2.10"), ClientContext("203.0.113.66")
# At generation 5; the token from before the roll is a replay by now, for the new one has been used.
SESSION = samples.session(
    START - 600_000,
    last_active=Instant(START - 1_000),
    generation=5,
    generation_began=Instant(START - 300_000),
    digest=DIGEST,
    rolled_digest=OLD,
    rolled_at=Instant(START - 300_000),
    client=HOME,
    last_client=HOME,
)
CURRENT, NEXT, REPLAYED = (
    Presented(SESSION.id, generation, digest) for generation, digest in ((5, DIGEST), (6, DIGEST), (4, OLD))
)


def rules(reaction: Reaction, *kinds: SignalType) -> Policy:
    """A policy that reacts so to these kinds, and ignores all others."""
    return policy(reactions=dict.fromkeys(SignalType, Reaction.IGNORE) | dict.fromkeys(kinds, reaction))


def noticed(*kinds: SignalType, expected: ClientContext = HOME) -> Suspicion:
    """What was noticed outside, of a session with that client."""
    return Suspicion(tuple(Signal(kind, "home", "elsewhere") for kind in kinds), expected)


UNITS: dict[str, Callable[[Call, Presented], Unit[Any]]] = {
    "Use": lambda call, presented: Use(call, presented, passive=False),
    "Use passively": lambda call, presented: Use(call, presented, passive=True),
    "Use with a suspicion": lambda call, presented: Use(call, presented, False, noticed(SignalType.IP_CHANGE)),
    "Use that renews nothing": lambda call, presented: Use(call, presented, True, renews=False),
    "Roll": lambda call, presented: Roll(call, presented, FRESH),
    "Refresh": Refresh,
    "Authenticate": lambda call, presented: Authenticate(call, presented, Login("ada"), FRESH),
    "UpdateData": lambda call, presented: UpdateData(call, presented, {"a": b"1"}, None),
    "Revoke": Revoke,
    "Report": Report,
}
every_unit = pytest.mark.parametrize("unit", UNITS)


def outcome_of(work: Work, unit: Unit[Any]) -> Outcome:
    """The outcome of a unit that takes a token."""
    result = work.run(unit).result
    outcome = getattr(result, "outcome", result)
    assert isinstance(outcome, Outcome)
    return outcome


# A judgement that turns bad inside the transaction


@every_unit
@pytest.mark.parametrize(
    ("reaction", "events", "state"),
    [
        (Reaction.IGNORE, [], SESSION),
        (Reaction.ALERT, ["hijack_suspected"], SESSION),
        (Reaction.STEP_UP, ["hijack_suspected"], replace(SESSION, must_authenticate=True, revision=FIRST)),
        (Reaction.REVOKE_SESSION, ["hijack_suspected", "session_revoked"], None),
    ],
)
def test_a_token_that_was_rolled_away_meanwhile(
    unit: str, reaction: Reaction, events: list[str], state: Session | None
) -> None:
    """A token found to be a replay only inside the transaction is denied, and the policy's reaction follows."""
    work = work_on(SESSION)
    outcome = outcome_of(work, UNITS[unit](call_of(rules(reaction, SignalType.TOKEN_REPLAY)), REPLAYED))
    assert (outcome.verdict, outcome.session) == (Verdict.REPLAYED, None)
    assert [signal.type for signal in outcome.judgement.signals] == [SignalType.TOKEN_REPLAY]
    assert types_of(work.changes.events) == events
    assert [event.reaction for event in work.changes.events[:1]] == [reaction] * bool(events)
    after = work.session(SESSION.id)
    assert after is not None
    assert (after == state) if state is not None else (after.ending is not None)


@every_unit
@pytest.mark.parametrize("reaction", [Reaction.IGNORE, Reaction.ALERT])
def test_a_session_that_ended_meanwhile(unit: str, reaction: Reaction) -> None:
    """A session that ended before the transaction is REVOKED to every unit, and nothing is recorded or changed."""
    ended = replace(SESSION, ending=samples.ending(START - 1))
    work = work_on(ended)
    outcome = outcome_of(work, UNITS[unit](call_of(rules(reaction, *SignalType)), CURRENT))
    assert (outcome.verdict, outcome.session) == (Verdict.REVOKED, None)
    assert (work.changes.events, work.changes.sessions, work.changes.activity) == ([], {}, {})


@every_unit
@pytest.mark.parametrize("sessions", [(), (replace(SESSION, application="shop"),)], ids=["pruned", "elsewhere"])
def test_a_session_that_is_gone(unit: str, sessions: tuple[Session, ...]) -> None:
    """A session that was pruned, or is another application's, is UNKNOWN to every unit, also by a replay."""
    for presented in (CURRENT, REPLAYED):
        work = work_on(*sessions)
        outcome = outcome_of(work, UNITS[unit](call_of(rules(Reaction.REVOKE_SUBJECT, *SignalType)), presented))
        assert (outcome.verdict, outcome.session) == (Verdict.UNKNOWN, None)
        assert (work.changes.events, work.changes.sessions) == ([], {})


@pytest.mark.parametrize("sessions", [(), (replace(SESSION, application="shop"),)], ids=["pruned", "elsewhere"])
def test_an_id_that_is_gone(sessions: tuple[Session, ...]) -> None:
    """The id of a session that was pruned, or is another application's, is not found."""
    for unit in (Revoke(call_of(), SESSION.id), Report(call_of(), SESSION.id)):
        with pytest.raises(SessionNotFound):
            work_on(*sessions).run(unit)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.VALID),
        ({"ending": samples.ending(START - 1)}, Verdict.REVOKED),
        ({"idle_deadline": START}, Verdict.EXPIRED_IDLE),
        ({"absolute_deadline": START}, Verdict.EXPIRED_ABSOLUTE),
    ],
)
@pytest.mark.parametrize("unit", ["UpdateData", "Revoke", "Report"])
def test_a_session_by_its_id(unit: str, changes: dict[str, Any], verdict: Verdict) -> None:
    """A session that is named by its id has a verdict as one named by its token has."""
    work = work_on(replace(SESSION, **changes))
    by_id: Any = SESSION.id
    assert outcome_of(work, UNITS[unit](call_of(), by_id)).verdict is verdict


def test_some_of_more_end() -> None:
    """Of the named sessions those end that live and are still the subject's; one past a deadline expires."""
    over, theirs = samples.session(ending=samples.ending(START - 1)), samples.session(subject="bob")
    shop, gone = samples.session(application="shop"), samples.session()
    due, live = samples.session(idle_deadline=Instant(START - 5)), samples.session()
    work = work_on(over, theirs, shop, due, live)
    ids = [session.id for session in (gone, over, theirs, shop, due, live)]
    own = rules(Reaction.ALERT)
    work.run(EndBatch(call_of(own), ids, "ada", Cause(CauseKind.CONCURRENCY_LIMIT)))
    assert [(event.session_id, event.type) for event in work.changes.events] == [
        (due.id, EventType.SESSION_EXPIRED),
        (live.id, EventType.SESSION_REVOKED),
    ]
    assert work.changes.retention == dict.fromkeys([due.id, live.id], own.retention)


@pytest.mark.parametrize("unit", ["Use", "Roll", "Refresh", "UpdateData", "Authenticate"])
def test_a_deadline_that_passed_meanwhile(unit: str) -> None:
    """A deadline reached by the time of the transaction is recorded by whatever unit meets it, and denies."""
    work = work_on(replace(SESSION, idle_deadline=START))
    outcome = outcome_of(work, UNITS[unit](call_of(), CURRENT))
    assert (outcome.verdict, types_of(work.changes.events)) == (Verdict.EXPIRED_IDLE, ["session_expired"])


@pytest.mark.parametrize(
    ("reaction", "told"),
    [(Reaction.ALERT, ["HIJACK_SUSPECTED"]), (Reaction.IGNORE, [])],
)
async def test_two_rolls_of_one_token(tmp_path: Path, clock: ManualClock, reaction: Reaction, told: list[str]) -> None:
    """Of two simultaneous rolls one is carried out; the other finds a replay, told or not as the policy says."""
    rules = policy(
        reactions={SignalType.TOKEN_REPLAY: reaction}, roll_tolerance=Millis(0), lost_answer_tolerance=Millis(0)
    )
    async with authority(tmp_path, clock, rules) as (app, stub):
        mine = await create(stub)
        call, token = app.authority.call("default", Caller("test"), None), Token(mine.token)
        reply: AnswerSpec[ChangeResult] = AnswerSpec(lambda changed: changed.verdict.value.encode())
        rolls = await asyncio.gather(*(app.authority.logins.roll(call, token, reply) for _ in range(2)))
        assert rolls == [EncodedAnswer(b"valid"), EncodedAnswer(b"replayed")]
        assert kinds(await story_of(stub, mine.token)) == ["SESSION_CREATED", "SESSION_ROLLED", *told]


# What was noticed outside


@pytest.mark.parametrize(
    ("reaction", "verdict", "events"),
    [
        (Reaction.IGNORE, Verdict.VALID, []),
        (Reaction.ALERT, Verdict.VALID, ["hijack_suspected"]),
        (Reaction.STEP_UP, Verdict.INSUFFICIENT, ["hijack_suspected"]),
        (Reaction.REVOKE_SESSION, Verdict.REVOKED, ["hijack_suspected", "session_revoked"]),
    ],
)
def test_what_was_noticed_of_a_use(reaction: Reaction, verdict: Verdict, events: list[str]) -> None:
    """What was noticed of a use that is VALID in the transaction too has the policy's reaction."""
    work = work_on(SESSION)
    call = call_of(rules(reaction, SignalType.IP_CHANGE), ELSEWHERE)
    outcome = outcome_of(work, Use(call, CURRENT, True, noticed(SignalType.IP_CHANGE)))
    assert (outcome.verdict, types_of(work.changes.events)) == (verdict, events)
    assert all(event.client == ELSEWHERE for event in work.changes.events)


def test_what_was_noticed_of_another_client() -> None:
    """If a login has bound the session to another client meanwhile, what was noticed before counts for nothing."""
    work = work_on(replace(SESSION, client=ELSEWHERE))
    call = call_of(rules(Reaction.REVOKE_SESSION, SignalType.IP_CHANGE), ELSEWHERE)
    outcome = outcome_of(work, Use(call, CURRENT, True, noticed(SignalType.IP_CHANGE, expected=HOME)))
    assert (outcome.verdict, work.changes.events) == (Verdict.VALID, [])


def told_of(*kinds: SignalType) -> KnownMemory:
    """A memory in which these kinds were reported of the session a moment ago."""
    memory = KnownMemory()
    signals = noticed(*kinds).signals
    event = samples.event(1, START - 1, type=EventType.HIJACK_SUSPECTED, session_id=SESSION.id, signals=signals)
    memory.reported.apply([event])
    return memory


@pytest.mark.parametrize(
    ("reaction", "told", "session", "events"),
    [
        (Reaction.ALERT, (), SESSION, ["hijack_suspected"]),
        (Reaction.ALERT, (SignalType.CONCURRENT_USE,), SESSION, []),
        (Reaction.ALERT, (SignalType.IP_CHANGE,), SESSION, ["hijack_suspected"]),
        (Reaction.STEP_UP, (SignalType.CONCURRENT_USE,), SESSION, ["hijack_suspected"]),
        (Reaction.STEP_UP, (SignalType.CONCURRENT_USE,), replace(SESSION, must_authenticate=True), []),
        (Reaction.REVOKE_SESSION, (SignalType.CONCURRENT_USE,), SESSION, ["hijack_suspected", "session_revoked"]),
    ],
)
def test_what_was_reported_lately(
    reaction: Reaction, told: tuple[SignalType, ...], session: Session, events: list[str]
) -> None:
    """A suspicion within its window is not reported again unless it changes the session, which always has its event."""
    work = work_on(session, memory=told_of(*told))
    call = call_of(rules(reaction, SignalType.CONCURRENT_USE))
    outcome_of(work, Use(call, CURRENT, True, noticed(SignalType.CONCURRENT_USE)))
    assert types_of(work.changes.events) == events


def test_a_hold_is_saved_with_its_event() -> None:
    """A step-up that no client can be singled out for holds the session, though `alert` has told of it before."""
    work = work_on(SESSION, memory=told_of(SignalType.CONCURRENT_USE))
    call = call_of(rules(Reaction.STEP_UP, SignalType.CONCURRENT_USE))
    outcome = outcome_of(work, Use(call, CURRENT, True, noticed(SignalType.CONCURRENT_USE)))
    assert outcome.verdict is Verdict.INSUFFICIENT
    assert work.changes.sessions[SESSION.id] == replace(SESSION, must_authenticate=True, revision=FIRST)
    assert outcome_of(work, Use(call, CURRENT, passive=False)).verdict is Verdict.INSUFFICIENT


def test_a_report_is_always_recorded() -> None:
    """What an application reports is recorded each time with its reason, within the window too."""
    work = work_on(SESSION, memory=told_of(SignalType.REPORTED))
    call = call_of(rules(Reaction.ALERT, SignalType.REPORTED), reason="odd")
    assert outcome_of(work, Report(call, CURRENT)).verdict is Verdict.VALID
    (event,) = work.changes.events
    assert (event.type, event.reaction) == (EventType.HIJACK_SUSPECTED, Reaction.ALERT)
    assert event.signals == (Signal(SignalType.REPORTED, expected="", seen="odd"),)


def test_a_report_that_the_policy_ignores() -> None:
    """Under `ignore` a report is answered with its signal and recorded nowhere."""
    work = work_on(SESSION)
    outcome = outcome_of(work, Report(call_of(rules(Reaction.IGNORE), reason="odd"), CURRENT))
    assert (outcome.verdict, outcome.judgement.signals[0].seen) == (Verdict.VALID, "odd")
    assert (work.changes.events, work.changes.sessions) == ([], {})


# The successor's first use


@pytest.mark.parametrize(
    ("unit", "events"),
    [
        ("Use", ["session_renewed"]),
        ("Use passively", ["session_renewed"]),
        ("Use that renews nothing", []),
        ("Roll", ["session_renewed", "session_rolled"]),
        ("Refresh", ["session_renewed", "session_refreshed"]),
        ("UpdateData", ["session_renewed", "session_data_changed"]),
        ("Authenticate", ["session_renewed", "session_authenticated", "session_rolled"]),
        ("Revoke", ["session_renewed", "session_revoked"]),
        ("Report", ["session_renewed", "hijack_suspected"]),
    ],
)
def test_a_first_use_by_any_unit(unit: str, events: list[str]) -> None:
    """Whatever unit takes a successor's first use renews the session by it, unless it is there to renew nothing."""
    work = work_on(SESSION)
    outcome = outcome_of(work, UNITS[unit](call_of(), NEXT))
    assert (outcome.verdict, types_of(work.changes.events)) == (Verdict.VALID, events)
    session = work.session(SESSION.id)
    assert session is not None
    rolls = "session_rolled" in events
    assert session.generation == 5 + ("session_renewed" in events) + rolls


def test_a_denied_first_use_renews_nothing() -> None:
    """A successor that a stranger presents first does not become the current token."""
    work = work_on(SESSION)
    call = call_of(rules(Reaction.STEP_UP, SignalType.IP_CHANGE), ELSEWHERE)
    outcome = outcome_of(work, Use(call, NEXT, False, noticed(SignalType.IP_CHANGE)))
    assert (outcome.verdict, types_of(work.changes.events)) == (Verdict.INSUFFICIENT, ["hijack_suspected"])
    assert work.session(SESSION.id) == SESSION


# Two holders

SEEN_TWICE = replace(SESSION, old_token=4)
BOTH_HOLD = rules(Reaction.REVOKE_SESSION, SignalType.TOKEN_REPLAY)


@pytest.mark.parametrize("unit", ["Use", "Use passively", "Roll", "Refresh", "UpdateData"])
def test_the_second_holder_is_denied(unit: str) -> None:
    """If a token from before the roll has come back, the use of the new one is the second holder's: a replay."""
    work = work_on(SEEN_TWICE)
    outcome = outcome_of(work, UNITS[unit](call_of(BOTH_HOLD), CURRENT))
    assert (outcome.verdict, outcome.session) == (Verdict.REVOKED, None)
    assert types_of(work.changes.events) == ["hijack_suspected", "session_revoked"]


class Denying(KnownMemory):
    """Knows that the policy denies the client until its subject has authenticated."""

    def is_denied_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """See `Memory`."""
        return client == ELSEWHERE


@pytest.mark.parametrize("elevates", [False, True])
@pytest.mark.parametrize(("client", "kept"), [(HOME, OLD), (ELSEWHERE, None)])
def test_which_client_keeps_the_earlier_csrf_token(elevates: bool, client: ClientContext, kept: bytes | None) -> None:
    """A step-up keeps the hash of the earlier CSRF token, but not if a suspicion about this client demanded it."""
    work = work_on(SESSION, memory=Denying())
    unit = Authenticate(call_of(client=client), CURRENT, Login("ada", level=2), FRESH, elevates, csrf=OLD)
    session = outcome_of(work, unit).session
    assert session is not None
    assert (session.earlier_csrf, session.earlier_csrf_at) == (kept, None if kept is None else START)


@pytest.mark.parametrize("unit", ["Authenticate", "Revoke"])
def test_who_proves_itself_or_harms_nobody(unit: str) -> None:
    """The subject that authenticates on such a session, or ends it, is no second holder."""
    work = work_on(SEEN_TWICE)
    outcome = outcome_of(work, UNITS[unit](call_of(BOTH_HOLD), CURRENT))
    assert outcome.verdict is Verdict.VALID
    assert "hijack_suspected" not in types_of(work.changes.events)


class OneHolder(KnownMemory):
    """Knows that the client which presented the old token, and no other, now uses the new one."""

    def presented_old_token(
        self, session: Session, client: ClientContext, policy: Policy, others: Sequence[ClientContext]
    ) -> bool:
        """See `Memory`."""
        return True


@pytest.mark.parametrize(
    ("reaction", "verdict", "state"),
    [
        (Reaction.IGNORE, Verdict.VALID, replace(SEEN_TWICE, old_token=None, revision=FIRST)),
        (Reaction.ALERT, Verdict.VALID, replace(SEEN_TWICE, old_token=None, revision=FIRST)),
        (
            Reaction.STEP_UP,
            Verdict.INSUFFICIENT,
            replace(SEEN_TWICE, must_authenticate=True, old_token=None, revision=FIRST),
        ),
        (Reaction.REVOKE_SESSION, Verdict.REVOKED, None),
    ],
)
def test_one_client_holds_both(reaction: Reaction, verdict: Verdict, state: Session | None) -> None:
    """If the client that presented the old token uses the new one, that is a copy, and the old one is settled."""
    copied = (replace(token_replay(5, 4, other_secret=True), type=SignalType.TOKEN_COPY),)
    work = work_on(SEEN_TWICE, memory=OneHolder())
    outcome = outcome_of(work, Use(call_of(rules(reaction, SignalType.TOKEN_COPY)), CURRENT, passive=True))
    assert (outcome.verdict, outcome.session) == (verdict, state)
    assert outcome.judgement.signals == (() if reaction is Reaction.IGNORE else copied)
    (event, *_) = work.changes.events
    ignored = reaction is Reaction.IGNORE
    assert event.type is (EventType.SESSION_REFRESHED if ignored else EventType.HIJACK_SUSPECTED)
    assert (event.signals, event.reaction) == (((), None) if ignored else (copied, reaction))


def test_an_old_token_comes_back() -> None:
    """A token whose successor was never used is denied, and remembered once, with an event."""
    unused = replace(SESSION, rolled_at=Instant(START - 30_000), last_active=Instant(START - 30_000))
    work = work_on(unused)
    for _ in range(2):
        outcome = outcome_of(work, Use(call_of(BOTH_HOLD, ELSEWHERE), REPLAYED, passive=False))
        assert (outcome.verdict, outcome.judgement.signals) == (Verdict.REPLAYED, ())
    assert types_of(work.changes.events) == ["old_token_presented"]
    assert work.changes.events[0].client == ELSEWHERE
    assert work.session(SESSION.id) == replace(unused, old_token=4, revision=FIRST)


# The whole subject


def test_the_others_of_the_subject() -> None:
    """Under `revoke-subject` every live session of the subject in the application ends, and no other."""
    other, guest = samples.session(), samples.session(subject="")
    bob, elsewhere = samples.session(subject="bob"), samples.session(application="shop")
    over = samples.session(ending=samples.ending(START - 1))
    work = work_on(SESSION, other, guest, bob, elsewhere, over)
    call = call_of(rules(Reaction.REVOKE_SUBJECT, SignalType.TOKEN_REPLAY))
    use = Use(call, REPLAYED, passive=False)
    assert (use.needs().sessions, use.needs().subjects_of) == ((SESSION.id,), (SESSION.id,))
    outcome_of(work, use)
    assert [event.session_id for event in work.changes.events] == [SESSION.id, SESSION.id, other.id]
    assert types_of(work.changes.events) == ["hijack_suspected", "session_revoked", "session_revoked"]


@pytest.mark.parametrize(("others", "crowd"), [(101, 0), (1, 150)])
def test_more_of_the_subject_than_can_end_at_once(others: int, crowd: int) -> None:
    """If the subject has more other sessions than can end at once, a hundred end first, by the same cause."""
    many = [samples.session() for _ in range(others)]
    due = samples.session(idle_deadline=START)
    read = Read({s.id: s for s in (SESSION, *many, due)}, truncated={("default", "ada"): crowd} if crowd else {})
    work = Work(START, HEAD, read, KnownMemory())
    call = call_of(rules(Reaction.REVOKE_SUBJECT, SignalType.TOKEN_REPLAY))
    with pytest.raises(PrerequisiteRequired) as raised:
        work.run(Use(call, REPLAYED, passive=False))
    ids = [session.id for session in (*many, due)][:100]
    assert raised.value.unit == EndBatch(call, ids, "ada", Cause(CauseKind.SIGNAL))
    assert work.changes.events == []


def test_as_many_of_the_subject_as_can_end_at_once() -> None:
    """A hundred other sessions of the subject end in the transaction that judges the token."""
    work = work_on(SESSION, *(samples.session() for _ in range(100)))
    outcome_of(work, Use(call_of(rules(Reaction.REVOKE_SUBJECT, SignalType.TOKEN_REPLAY)), REPLAYED, passive=False))
    assert types_of(work.changes.events) == ["hijack_suspected", *["session_revoked"] * 101]


def test_others_are_read_only_if_they_may_end() -> None:
    """Under a policy that ends no whole subject a unit reads its session alone."""
    use = Use(call_of(rules(Reaction.REVOKE_SESSION, *SignalType)), CURRENT, passive=False)
    assert (use.needs().sessions, use.needs().subjects_of) == ((SESSION.id,), ())


@pytest.mark.parametrize("unit", ["Roll", "Refresh", "UpdateData"])
def test_a_session_that_must_authenticate(unit: str) -> None:
    """A token that is not enough until the subject has authenticated changes nothing."""
    held = replace(SESSION, must_authenticate=True)
    work = work_on(held)
    outcome = outcome_of(work, UNITS[unit](call_of(), CURRENT))
    assert (outcome.verdict, outcome.session) == (Verdict.INSUFFICIENT, None)
    assert (work.changes.events, work.session(SESSION.id)) == ([], held)


# Activity


@pytest.mark.parametrize("unit", ["Roll", "Refresh", "Authenticate"])
def test_what_counts_as_activity(unit: str) -> None:
    """A roll, a refresh and a login are activity of the client that the call was about."""
    session = outcome_of(work_on(SESSION), UNITS[unit](call_of(client=ELSEWHERE), CURRENT)).session
    assert session is not None
    assert (session.last_active, session.last_client) == (START, ELSEWHERE)


def test_a_login_repeated_settles_the_old_token() -> None:
    """When a login's first answer is given again, the old token that came back is forgotten, as if rolled just now."""
    work = work_on(SEEN_TWICE)
    restart_tolerances(work, call_of(), SEEN_TWICE)
    assert work.session(SESSION.id) == replace(SEEN_TWICE, old_token=None, rolled_at=START, revision=FIRST)


@pytest.mark.parametrize("wait", [2_001, 2_002, 10_003, 300_000])
def test_a_login_repeated_late_is_as_if_rolled_just_now(wait: int) -> None:
    """Once a fifth of `roll_tolerance` has passed, a repeated login starts the tolerances again, with an event."""
    session = replace(SESSION, rolled_at=Instant(START - wait))
    work = work_on(session)
    restart_tolerances(work, call_of(policy(roll_tolerance=Millis(10_003))), session)
    assert work.session(SESSION.id) == replace(session, rolled_at=START, revision=FIRST)  # FIRST is the event's


# Before the fifth (of an odd tolerance, too), after the clock was set back, without a tolerance for requests in
# flight, and after a login that opened the session, so that nothing was rolled.
@pytest.mark.parametrize(
    ("tolerance", "rolled_at"),
    [(10_003, START), (10_003, START - 2_000), (10_003, START + 1), (0, START), (0, START - 300_000), (10_003, None)],
)
def test_a_login_repeated_at_once_changes_nothing(tolerance: int, rolled_at: int | None) -> None:
    """When a login's first answer is given again without a late repeat or an old token, nothing is recorded."""
    session = replace(SESSION, rolled_at=None if rolled_at is None else Instant(rolled_at))
    work = work_on(session)
    restart_tolerances(work, call_of(policy(roll_tolerance=Millis(tolerance))), session)
    assert (work.session(SESSION.id), work.has_no_events) == (session, True)


@pytest.mark.parametrize("tells", [False, True])
def test_active_use_is_recorded(tells: bool) -> None:
    """Active use is written as activity, with its client if the call tells of one; passive use is not."""
    client = ELSEWHERE if tells else NOBODY
    call = call_of(rules(Reaction.IGNORE), client, has_client_context=tells)
    work = work_on(SESSION)
    session = outcome_of(work, Use(call, CURRENT, passive=False)).session
    assert session is not None
    assert (session.last_active, session.last_client) == (START, ELSEWHERE if tells else HOME)
    written = work.changes.activity[SESSION.id]
    assert (written.at, written.client, work.changes.events) == (START, session.last_client, [])
    work = work_on(SESSION)
    assert outcome_of(work, Use(call, CURRENT, passive=True)).session == SESSION
    assert work.changes.activity == {}
