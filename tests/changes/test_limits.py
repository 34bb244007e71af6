"""The limit of concurrent sessions: whom it ends, and whom it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sessiond.changes.idempotency import KEEP_FOR
from sessiond.changes.judging import EndBatch, LimitReached
from sessiond.changes.limits import Choice, LimitDecision, enforce_limit, with_limit
from sessiond.domain.call import Call
from sessiond.domain.errors import InvalidField
from sessiond.domain.policy import PRESETS, LimitRule
from sessiond.domain.session import Session
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import Cause, CauseKind, Instant, SessionId
from sessiond.eventlog.work import Needs, PrerequisiteRequired, Read, Work
from sessiond.store.contract import KeptAnswer
from tests.contracts import samples
from tests.support.clock import START
from tests.support.work import HEAD, KnownMemory, call_of, types_of, work_on

# In the order they were opened; the second was used last, the first longest ago.
OLD, MIDDLE, NEW = (
    samples.session(START - opened, last_active=Instant(START - active))
    for opened, active in ((3_000, 2_000), (2_000, 10), (1_000, 1_000))
)
ALL = (OLD, MIDDLE, NEW)
REACHED = "concurrency_limit_reached"


def limited(most: int, rule: LimitRule) -> Call:
    """A call under such a limit."""
    return call_of(replace(PRESETS["owasp-low"], max_sessions=most, on_limit=rule))


@dataclass
class Entering:
    """A unit that does nothing but make room."""

    call: Call
    subject: str = "ada"
    own: SessionId | None = None
    choice: Choice | None = None

    def needs(self) -> Needs:
        """The subject's sessions."""
        return with_limit(Needs(), self.call, self.subject, self.choice)

    def apply(self, work: Work) -> LimitDecision:
        """Make room."""
        return enforce_limit(work, self.call, self.subject, self.own, self.choice)


def chosen(*sessions: Session, expires: int = 1_000) -> Choice:
    """The choice of these under a ticket, which expires so many milliseconds after the start."""
    return Choice(b"t" * 32, Instant(START + expires), [session.id for session in sessions])


@pytest.mark.parametrize("rule", list(LimitRule))
@pytest.mark.parametrize(("most", "subject"), [(0, "ada"), (4, "ada"), (1, ""), (1, "bob")])
def test_there_is_room(rule: LimitRule, most: int, subject: str) -> None:
    """Without a limit, below it, and for a guest or a subject without sessions nothing ends and nothing is recorded."""
    work = work_on(*ALL, samples.session(subject=""))
    assert work.run(Entering(limited(most, rule), subject)).result == LimitDecision(evicted=(), limit_reached=None)
    assert work.changes.events == []


@pytest.mark.parametrize(
    ("rule", "most", "evicted"),
    [
        (LimitRule.EVICT_OLDEST, 3, [OLD]),
        (LimitRule.EVICT_OLDEST, 2, [OLD, MIDDLE]),
        (LimitRule.EVICT_OLDEST, 1, [OLD, MIDDLE, NEW]),
        (LimitRule.EVICT_LEAST_RECENT, 3, [OLD]),
        (LimitRule.EVICT_LEAST_RECENT, 2, [OLD, NEW]),
        (LimitRule.EVICT_LEAST_RECENT, 1, [OLD, NEW, MIDDLE]),
    ],
)
def test_who_goes(rule: LimitRule, most: int, evicted: Sequence[Session]) -> None:
    """As many end as are too many with the new one, also after the limit was lowered; each of the limit's cause."""
    work = work_on(*ALL)
    decision = work.run(Entering(limited(most, rule))).result
    assert decision == LimitDecision(evicted=tuple(session.id for session in evicted))
    assert types_of(work.changes.events) == [REACHED, *["session_revoked"] * len(evicted)]
    endings = [work.changes.sessions[session.id].ending for session in evicted]
    assert [ending.cause.kind for ending in endings if ending] == [CauseKind.CONCURRENCY_LIMIT] * len(evicted)
    assert (work.changes.events[0].application, work.changes.events[0].subject) == ("default", "ada")


def test_of_two_alike_the_one_opened_first_goes() -> None:
    """Sessions opened and used at the same moment go in the order of their ids."""
    one, two = samples.session(), samples.session()
    for rule in (LimitRule.EVICT_OLDEST, LimitRule.EVICT_LEAST_RECENT):
        assert work_on(two, one).run(Entering(limited(2, rule))).result.evicted == (one.id,)


@pytest.mark.parametrize("rule", [LimitRule.REJECT, LimitRule.ASK])
@pytest.mark.parametrize("most", [1, 3])
def test_who_is_refused(rule: LimitRule, most: int) -> None:
    """A refusal names the live sessions, the newest first, ends none of them, and is recorded."""
    work = work_on(*ALL)
    decision = work.run(Entering(limited(most, rule))).result
    assert decision == LimitDecision(limit_reached=LimitReached((NEW, MIDDLE, OLD), 3))
    assert types_of(work.changes.events) == [REACHED]
    assert work.changes.sessions == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"application": "shop"},
        {"subject": "bob"},
        {"ending": samples.ending(START)},
        {"idle_deadline": START},
        {"absolute_deadline": START},
    ],
)
def test_who_does_not_count(changes: dict[str, Any]) -> None:
    """Sessions elsewhere, of others, or over do not count, those past a deadline that no sweep has seen included."""
    work = work_on(OLD, MIDDLE, replace(NEW, **changes))
    assert work.run(Entering(limited(3, LimitRule.REJECT))).result == LimitDecision()


def test_the_session_that_is_to_be_bound_does_not_count() -> None:
    """A session that the subject authenticates on takes no second place, and is never the one that goes."""
    work = work_on(*ALL)
    assert work.run(Entering(limited(3, LimitRule.REJECT), own=OLD.id)).result == LimitDecision()
    decision = work_on(*ALL).run(Entering(limited(2, LimitRule.EVICT_OLDEST), own=OLD.id)).result
    assert decision.evicted == (MIDDLE.id,)


# Choices


def test_the_subjects_choice() -> None:
    """Under `ask` all chosen sessions end, and the ticket is kept as used, for longer than it would be good."""
    work = work_on(*ALL)
    decision = work.run(Entering(limited(3, LimitRule.ASK), choice=chosen(MIDDLE, NEW))).result
    assert decision == LimitDecision(evicted=(MIDDLE.id, NEW.id))
    (used,) = work.changes.answers
    assert used == KeptAnswer(b"t" * 32, bytes(32), b"", Instant(START + 1_000 + KEEP_FOR))


@pytest.mark.parametrize(
    ("most", "named", "evicted"),
    [
        (3, [], [OLD]),
        (3, [NEW], [NEW]),
        (2, [NEW], [NEW, OLD]),
        (2, [OLD], [OLD, MIDDLE]),
        (1, [MIDDLE], [MIDDLE, OLD, NEW]),
        (1, [], [OLD, MIDDLE, NEW]),
    ],
)
def test_the_oldest_beside_the_choice(most: int, named: list[Session], evicted: list[Session]) -> None:
    """With `evict_oldest` the named sessions end, and of the others as many of the oldest as have to."""
    choice = replace(chosen(*named), evict_oldest=True)
    decision = work_on(*ALL).run(Entering(limited(most, LimitRule.ASK), choice=choice)).result
    assert decision == LimitDecision(evicted=tuple(session.id for session in evicted))


def test_the_only_session_is_chosen() -> None:
    """A subject with one session, which may have no other, may choose to end that."""
    decision = work_on(OLD).run(Entering(limited(1, LimitRule.ASK), choice=chosen(OLD))).result
    assert decision == LimitDecision(evicted=(OLD.id,))


def test_a_choice_of_too_few() -> None:
    """A choice that leaves too many, or names what is not the subject's, is refused and leaves the ticket good."""
    stranger = samples.session(subject="bob")
    for choice in (chosen(), chosen(OLD), chosen(OLD, stranger), chosen(OLD, OLD)):
        work = work_on(*ALL, stranger)
        with pytest.raises(InvalidField, match="must name at least 2") as refused:
            work.run(Entering(limited(2, LimitRule.ASK), choice=choice))
        assert refused.value.field == "evict_session_ids"
        assert (work.changes.events, work.changes.answers) == ([], [])


@pytest.mark.parametrize("rule", list(LimitRule))
def test_a_ticket_is_good_once(rule: LimitRule) -> None:
    """A second use of a ticket is refused, in the same transaction and later, under whatever rule there is now."""
    work = work_on(*ALL)
    entering = Entering(limited(3, rule), choice=chosen(OLD))
    work.run(entering)
    for again in (work, work_on(*ALL, answers=work.changes.answers)):
        with pytest.raises(InvalidField, match="has been used") as refused:
            again.run(entering)
        assert refused.value.field == "ticket"


@pytest.mark.parametrize(("late", "good"), [(-1, True), (0, False), (1, False)])
def test_a_ticket_expires(late: int, good: bool) -> None:
    """A ticket is good up to a millisecond before its end."""
    work = work_on(*ALL, now=START + 1_000 + late)
    entering = Entering(limited(3, LimitRule.ASK), choice=chosen(OLD))
    if good:
        assert work.run(entering).result.evicted == (OLD.id,)
    else:
        with pytest.raises(InvalidField, match="expired"):
            work.run(entering)


def test_a_choice_that_is_not_needed() -> None:
    """If there is room by now nobody has to go, and the ticket is used up."""
    work = work_on(OLD)
    assert work.run(Entering(limited(3, LimitRule.ASK), choice=chosen(OLD))).result == LimitDecision()
    assert len(work.changes.answers) == 1


# More than can end at once


def crowded(*sessions: Session, count: int) -> Work:
    """The work of a transaction that has read these sessions, of a subject who has so many live ones."""
    return Work(START, HEAD, Read({s.id: s for s in sessions}, truncated={("default", "ada"): count}), KnownMemory())


def ended_first(work: Work, entering: Entering) -> EndBatch:
    """The unit that must be carried out before there is room."""
    with pytest.raises(PrerequisiteRequired) as raised:
        work.run(entering)
    assert isinstance(raised.value.unit, EndBatch)
    assert work.changes.events == []
    return raised.value.unit


def test_the_overdue_of_a_crowd_end_first() -> None:
    """In a crowd those past a deadline expire first, a hundred at once: only then it is known how many live."""
    overdue = [samples.session(START - 9, idle_deadline=START) for _ in range(101)]
    work = crowded(*ALL, *overdue, count=204)
    call = limited(2, LimitRule.EVICT_OLDEST)
    unit = ended_first(work, Entering(call))
    assert unit == EndBatch(call, [s.id for s in overdue[:100]], "ada", Cause(CauseKind.CONCURRENCY_LIMIT))
    work.run(unit)
    assert types_of(work.changes.events) == ["session_expired"] * 100


@pytest.mark.parametrize("count", [0, 150])
def test_the_first_of_a_crowd_end_first(count: int) -> None:
    """If more than a hundred must go, a hundred end first, in the order of the rule."""
    many = [samples.session() for _ in range(103)]
    work = crowded(*many, count=count)
    call = limited(1, LimitRule.EVICT_OLDEST)
    unit = ended_first(work, Entering(call))
    assert unit == EndBatch(call, [s.id for s in many[:100]], "ada", Cause(CauseKind.CONCURRENCY_LIMIT))
    work.run(unit)
    assert types_of(work.changes.events) == ["session_revoked"] * 100
    assert {event.cause for event in work.changes.events} == {Cause(CauseKind.CONCURRENCY_LIMIT)}


def test_a_hundred_end_at_once() -> None:
    """A hundred that must go end in the same transaction as the new session begins."""
    many = [samples.session() for _ in range(100)]
    assert len(crowded(*many, count=0).run(Entering(limited(1, LimitRule.EVICT_OLDEST))).result.evicted) == 100


def test_a_crowd_that_is_gone() -> None:
    """If earlier units have ended all that was read of a crowd, the rest is read before the limit is decided."""
    call = limited(3, LimitRule.EVICT_OLDEST)
    unit = ended_first(crowded(OLD, MIDDLE, count=150), Entering(call))
    assert unit == EndBatch(call, [], "ada", Cause(CauseKind.CONCURRENCY_LIMIT))


# What is read first

ENDS_SUBJECTS = replace(
    PRESETS["owasp-low"], reactions={**PRESETS["owasp-low"].reactions, SignalType.REPORTED: Reaction.REVOKE_SUBJECT}
)


@pytest.mark.parametrize(
    ("call", "subject", "choice", "needs"),
    [
        (limited(0, LimitRule.REJECT), "ada", None, Needs()),
        (limited(1, LimitRule.REJECT), "", None, Needs()),
        (limited(1, LimitRule.REJECT), "ada", None, Needs(subjects=[("default", "ada")], max_live=101)),
        (call_of(ENDS_SUBJECTS), "ada", None, Needs(subjects=[("default", "ada")])),
        (limited(0, LimitRule.ASK), "ada", chosen(), Needs(subjects=[], answers=(b"t" * 32,))),
        (
            limited(1, LimitRule.ASK),
            "ada",
            chosen(),
            Needs(subjects=[("default", "ada")], answers=(b"t" * 32,), max_live=101),
        ),
    ],
)
def test_what_the_limit_needs(call: Call, subject: str, choice: Choice | None, needs: Needs) -> None:
    """The subject's sessions are read if there is a limit or a reaction that ends them all, and the ticket's use."""
    assert with_limit(Needs(), call, subject, choice) == needs


def test_what_else_is_needed_stays() -> None:
    """What a unit needs beside the limit is read all the same."""
    needs = with_limit(Needs(sessions=(OLD.id,)), limited(1, LimitRule.REJECT), "ada", None)
    assert needs == Needs(sessions=(OLD.id,), subjects=[("default", "ada")], max_live=101)
