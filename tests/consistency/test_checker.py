"""The checker reports each kind of violation in a history made by hand, and nothing in a good one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.consistency.checker import Rule, check
from tests.consistency.history import Delivery, History, Kind, LogEvent, Operation, Outcome, Stream, Validated


def operation(number: int, kind: Kind, at: float, **changes: object) -> Operation:
    """An operation about session `a` of `ada`, answered after half a second."""
    made = Operation(
        number=number,
        client="one",
        replica=0,
        kind=kind,
        invoked=at,
        returned=at + 0.5,
        outcome=Outcome.OK,
        subject="ada",
        session="a",
        applied=True,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the tests name its fields


def event(revision: int, kind: str, operation: int | None, **changes: object) -> LogEvent:
    """An event about session `a` of `ada`."""
    made = LogEvent(revision=revision, type=kind, subject="ada", session="a", operation=operation)
    return replace(made, **changes)  # type: ignore[arg-type]  # the tests name its fields


def validated(at: float, verdict: str = "VALID", **changes: object) -> Validated:
    """A validation of session `a` on another replica."""
    made = Validated(client="two", replica=1, invoked=at, returned=at + 0.1, session="a", verdict=verdict)
    return replace(made, **changes)  # type: ignore[arg-type]  # the tests name its fields


CREATE = operation(1, Kind.CREATE, 1)
REVOKE = operation(2, Kind.REVOKE, 10)
CREATED, REVOKED = event(1, "SESSION_CREATED", 1), event(2, "SESSION_REVOKED", 2)
LIFE = History(operations=(CREATE, REVOKE), log=(CREATED, REVOKED))
"""A session that is opened and revoked."""
ROLL = operation(2, Kind.ROLL, 3, generation=1)
ROLLED = event(2, "SESSION_ROLLED", 2, generation=1)
ROLLS = History(operations=(CREATE, ROLL), log=(CREATED, ROLLED))
"""A session whose token is replaced."""
LIMITED = History(
    operations=(CREATE, operation(2, Kind.CREATE, 2, session="b")),
    log=(CREATED, event(2, "SESSION_CREATED", 2, session="b")),
    limits={"default": 2},
)
"""A subject with as many sessions as it may have."""
STREAM = Stream(name="s", start=0, reached=2, deliveries=(Delivery(1.6, CREATED), Delivery(10.6, REVOKED)))


def rules(history: History) -> list[Rule]:
    """The rules that a history breaks."""
    return [violation.rule for violation in check(history)]


def with_validations(history: History, *validations: Validated) -> History:
    return replace(history, validations=validations)


# Revocations


def test_a_good_life_has_no_violation() -> None:
    """A session that is valid before its revocation and revoked afterwards obeys every rule."""
    history = with_validations(
        LIFE, validated(2), validated(10.1), validated(10.1, "REVOKED"), validated(20, "REVOKED")
    )
    assert check(replace(history, streams=(STREAM,))) == []


def test_valid_after_an_awaited_revocation() -> None:
    """A validation that begins after an awaited revocation has returned must not be valid, however soon it begins."""
    history = replace(LIFE, operations=(CREATE, replace(REVOKE, waits=True)))
    assert rules(with_validations(history, validated(10.51))) == [Rule.AWAITED]
    assert rules(with_validations(history, validated(10.49), validated(10.51, "REVOKED"))) == []


def test_valid_after_the_bound() -> None:
    """A session may be valid for the published bound after a plain revocation, and not longer."""
    assert rules(with_validations(LIFE, validated(15.4))) == []
    assert rules(with_validations(LIFE, validated(15.6))) == [Rule.BOUND]


def test_an_unknown_revocation_may_have_happened_or_not() -> None:
    """After a revocation whose outcome is unknown both verdicts are right, if the log agrees with one of them."""
    unknown = replace(REVOKE, outcome=Outcome.UNKNOWN, applied=False, waits=True)
    both = (CREATE, unknown)
    assert check(with_validations(replace(LIFE, operations=both), validated(30), validated(30, "REVOKED"))) == []
    never = replace(LIFE, operations=both, log=(CREATED,))
    assert check(with_validations(never, validated(30))) == []
    assert rules(with_validations(never, validated(30, "REVOKED"))) == [Rule.LOST]


def test_a_received_event_settles_an_unknown_revocation() -> None:
    """Once a subscriber has received the end of a session, the bound applies, whatever the caller knows."""
    unknown = replace(REVOKE, outcome=Outcome.UNKNOWN, applied=False)
    history = replace(LIFE, operations=(CREATE, unknown), streams=(STREAM,))
    assert rules(with_validations(history, validated(15.5))) == []
    assert rules(with_validations(history, validated(15.7))) == [Rule.BOUND]


def test_an_evicted_session_is_bound_by_the_answer() -> None:
    """A session that an answer names as evicted must not be valid after the bound."""
    evicting = operation(2, Kind.CREATE, 10, session="b", evicted=("a",))
    log = (CREATED, event(2, "SESSION_REVOKED", None), event(3, "SESSION_CREATED", 2, session="b"))
    history = History(operations=(CREATE, evicting), log=log)
    assert rules(with_validations(history, validated(15.4))) == []
    assert rules(with_validations(history, validated(15.6))) == [Rule.BOUND]


def test_a_replaced_token_is_bound_too() -> None:
    """A token that a roll has replaced must not be valid after the bound; the new one must not be affected."""
    old, new = validated(9), validated(9, epoch=1, generation=1)
    assert rules(with_validations(ROLLS, replace(old, invoked=8.4), new)) == []
    assert rules(with_validations(ROLLS, old)) == [Rule.BOUND]


# Consistency tokens


@pytest.mark.parametrize(
    ("history", "stale", "fresh"),
    [
        (LIFE, validated(10.6, at_least=2), validated(10.6, "REVOKED", at_least=2)),
        (LIFE, validated(1.6, "UNKNOWN", at_least=1), validated(1.6, at_least=1)),
        (ROLLS, validated(3.6, at_least=2), validated(3.6, "SUPERSEDED", at_least=2)),
        (ROLLS, validated(3.6, epoch=1, at_least=2), validated(3.6, epoch=1, generation=1, at_least=2)),
    ],
    ids=["revoke", "create", "roll", "generation"],
)
def test_a_change_is_seen_with_its_token(history: History, stale: Validated, fresh: Validated) -> None:
    """A validation with the consistency token of a change must not answer from an earlier state."""
    assert Rule.AT_LEAST in rules(with_validations(history, stale))
    assert rules(with_validations(history, fresh)) == []


def test_a_later_change_includes_earlier_ones() -> None:
    """The consistency token of any later change of the log shows an earlier revocation too."""
    later = operation(3, Kind.CREATE, 20, session="b")
    log = (CREATED, REVOKED, event(3, "SESSION_CREATED", 3, session="b"))
    history = History(operations=(CREATE, replace(REVOKE, outcome=Outcome.UNKNOWN), later), log=log)
    assert rules(with_validations(history, validated(20.6, at_least=3))) == [Rule.AT_LEAST]
    assert rules(with_validations(history, validated(20.6, at_least=1))) == []


def test_a_failed_validation_says_nothing() -> None:
    """A validation without an answer breaks no rule."""
    failed = validated(30, "", error="UNAVAILABLE", at_least=2)
    assert rules(with_validations(replace(LIFE, operations=(CREATE, replace(REVOKE, waits=True))), failed)) == []


# Limits


def test_as_many_sessions_as_allowed() -> None:
    """As many live sessions as the limit allows break no rule; one more breaks it, by the log and by the answers."""
    assert check(LIMITED) == []
    assert rules(replace(LIMITED, limits={"default": 1})) == [Rule.LIMIT, Rule.LIMIT]


def test_a_session_makes_room_when_it_ends() -> None:
    """A session that is opened after the end of another does not exceed the limit."""
    later = operation(3, Kind.CREATE, 20, session="b")
    log = (CREATED, REVOKED, event(3, "SESSION_CREATED", 3, session="b"))
    history = History(operations=(CREATE, REVOKE, later), log=log, limits={"default": 1})
    assert check(history) == []
    swapped = (CREATED, replace(log[2], revision=2), replace(REVOKED, revision=3))
    assert Rule.LIMIT in rules(replace(history, log=swapped))


def test_an_unknown_revocation_may_have_made_room() -> None:
    """A session that a revocation of unknown outcome has ended counts by the answers only until that was asked for."""
    unknown = replace(REVOKE, outcome=Outcome.UNKNOWN, applied=False)
    later = operation(3, Kind.CREATE, 20, session="b")
    log = (CREATED, REVOKED, event(3, "SESSION_CREATED", 3, session="b"))
    assert check(History(operations=(CREATE, unknown, later), log=log, limits={"default": 1})) == []


def test_acknowledged_sessions_exceed_the_limit_whatever_the_log_says() -> None:
    """Too many sessions that were acknowledged before the revocation of one was asked for break the limit."""
    second, third = operation(2, Kind.CREATE, 2, session="b"), operation(3, Kind.REVOKE, 20)
    log = (CREATED, event(2, "SESSION_REVOKED", 3), event(3, "SESSION_CREATED", 2, session="b"))
    history = History(operations=(CREATE, second, third), log=log, limits={"default": 1})
    assert Rule.LIMIT in rules(history)


# The log


def test_a_lost_change() -> None:
    """An acknowledged change without an event is lost."""
    assert rules(replace(LIFE, log=(CREATED,))) == [Rule.LOST]
    assert rules(replace(ROLLS, log=(CREATED,))) == [Rule.LOST]


def test_a_gap_of_the_log() -> None:
    """A revision that is missing in the log is a loss."""
    assert rules(replace(LIFE, log=(CREATED, replace(REVOKED, revision=3)))) == [Rule.LOST]


def test_a_session_is_unknown_after_it_was_opened() -> None:
    """A session that was acknowledged must not be unknown to a later validation, on any replica."""
    assert rules(with_validations(LIFE, validated(1.6, "UNKNOWN"))) == [Rule.LOST]
    assert rules(with_validations(LIFE, validated(1.4, "UNKNOWN"))) == []


def test_a_generation_that_the_log_does_not_have() -> None:
    """A renewal that an answer shows must be in the log."""
    assert rules(with_validations(LIFE, validated(2, generation=1))) == [Rule.LOST]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.OK])
def test_an_operation_that_changed_nothing(outcome: Outcome) -> None:
    """What failed for certain, or was answered as refused, must not be in the log."""
    refused = replace(CREATE, outcome=outcome, applied=False, session="")
    assert rules(History(operations=(refused,), log=(CREATED,))) == [Rule.PHANTOM]
    assert rules(History(operations=(replace(refused, outcome=Outcome.UNKNOWN),), log=(CREATED,))) == []
    assert rules(History(operations=(refused,))) == []


def test_a_repetition_is_answered_with_the_end_of_its_session() -> None:
    """A roll whose answer was lost may be answered with the end of the session, if it is repeated after that."""
    refused = replace(ROLL, applied=False, generation=0, returned=20.0)
    ended = replace(REVOKED, revision=3, operation=3)
    history = History(operations=(CREATE, refused, replace(REVOKE, number=3)), log=(CREATED, ROLLED, ended))
    assert check(history) == []
    assert rules(replace(history, operations=history.operations[:2], log=history.log[:2])) == [Rule.PHANTOM]


def test_an_event_of_no_operation() -> None:
    """A session that nobody asked for, and a revocation by an operation of another kind, are phantoms."""
    assert rules(History(log=(replace(CREATED, operation=None),))) == [Rule.PHANTOM]
    assert Rule.PHANTOM in rules(replace(LIFE, log=(CREATED, replace(REVOKED, operation=1))))


def test_an_operation_that_was_carried_out_twice() -> None:
    """A create that was repeated under one request id must open one session."""
    again = event(2, "SESSION_CREATED", 1, session="b")
    unknown = replace(CREATE, outcome=Outcome.UNKNOWN, session="")
    assert rules(History(operations=(unknown,), log=(CREATED, again))) == [Rule.PHANTOM]


def test_changes_in_the_order_of_their_acknowledgement() -> None:
    """A change that was acknowledged before another was asked for comes first in the log."""
    later = operation(3, Kind.CREATE, 20, session="b")
    log = (CREATED, event(2, "SESSION_CREATED", 3, session="b"), replace(REVOKED, revision=3))
    assert rules(History(operations=(CREATE, REVOKE, later), log=log)) == [Rule.ORDER]
    concurrent = replace(later, invoked=10.2)
    assert rules(History(operations=(CREATE, REVOKE, concurrent), log=log)) == []


# Streams


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stream: replace(stream, deliveries=stream.deliveries[:1]),
        lambda stream: replace(stream, deliveries=stream.deliveries[::-1]),
        lambda stream: replace(stream, deliveries=(*stream.deliveries, stream.deliveries[-1])),
        lambda stream: replace(stream, deliveries=(stream.deliveries[0], Delivery(11, replace(REVOKED, session="b")))),
        lambda stream: replace(stream, types=frozenset({"SESSION_REVOKED"})),
        lambda stream: replace(stream, deliveries=(Delivery(0.5, CREATED), stream.deliveries[1])),
        lambda stream: replace(stream, error="OUT_OF_RANGE"),
    ],
    ids=["gap", "order", "twice", "other", "filter", "early", "ended"],
)
def test_a_stream_that_breaks_a_promise(spoil: Callable[[Stream], Stream]) -> None:
    """A subscriber must receive exactly the events of the log that match its filter, once, in order and in time."""
    assert set(rules(replace(LIFE, streams=(spoil(STREAM),)))) == {Rule.STREAM}


def test_a_stream_that_began_later_or_is_behind() -> None:
    """A subscriber is held to the events between its start and the last revision that it has reached."""
    late = replace(STREAM, start=1, deliveries=STREAM.deliveries[1:])
    behind = replace(STREAM, reached=1, deliveries=STREAM.deliveries[:1])
    never = replace(STREAM, start=None, deliveries=())
    filtered = replace(STREAM, types=frozenset({"SESSION_REVOKED"}), deliveries=STREAM.deliveries[1:])
    assert check(replace(LIFE, streams=(late, behind, never, filtered))) == []


def test_a_replica_that_ends_by_itself() -> None:
    """A replica that ended without having been killed is reported."""
    assert rules(replace(LIFE, deaths=("replica 1 ended with 1",))) == [Rule.ALIVE]
