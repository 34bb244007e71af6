"""Where a subscription stands moves only when an item was handed out, and it knows which breaks it can mend."""

from __future__ import annotations

import logging

import pytest

from sessiond_client import (
    Cancelled,
    Checkpoint,
    Conflict,
    DeadlineExceeded,
    Event,
    EventType,
    InternalError,
    InvalidArgument,
    NotServed,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    SessiondError,
    Unauthenticated,
    Unavailable,
)
from sessiond_client.subscription import ENDED, Position, subscribe_request
from sessiond_stubs.v1 import session_authority_pb2 as pb


def position(*, include_checkpoints: bool = False) -> Position:
    request = subscribe_request(
        "shop",
        subjects=["ada"],
        types=[EventType.SESSION_REVOKED],
        labels={"tenant": "acme"},
        checkpoint_interval=0.25,
    )
    return Position(request, include_checkpoints=include_checkpoints, jitter=lambda least, most: most)


EVENT = pb.SubscribeResponse(cursor="c7", event=pb.Event(revision=7))
CHECKPOINT = pb.SubscribeResponse(cursor="c8", checkpoint=pb.Checkpoint(revision=8))


def test_the_first_stream_begins_where_it_was_asked_to() -> None:
    """`now` is what a subscription without a beginning means; `earliest` and a cursor say otherwise."""
    assert subscribe_request("shop").start == pb.STREAM_START_NOW
    assert subscribe_request("shop", start="earliest").start == pb.STREAM_START_EARLIEST
    assert subscribe_request("shop", after="c1").cursor == "c1"


def test_a_cursor_counts_before_a_start() -> None:
    """`after` wins over `start`, so that one line serves the first run and each later one."""
    first = subscribe_request("shop", after=None, start="earliest")
    later = subscribe_request("shop", after="c1", start="earliest")
    assert (first.WhichOneof("from"), first.start) == ("start", pb.STREAM_START_EARLIEST)
    assert (later.WhichOneof("from"), later.cursor) == ("cursor", "c1")


def test_applications_are_the_clients_own_unless_told() -> None:
    """A client follows its own application; an empty list means all."""
    assert list(subscribe_request("shop").filter.applications) == ["shop"]
    assert list(subscribe_request("").filter.applications) == ["default"]
    assert list(subscribe_request("shop", applications=[]).filter.applications) == []
    assert list(subscribe_request("shop", applications=["a", "b"]).filter.applications) == ["a", "b"]


def test_each_condition_is_in_the_filter() -> None:
    """Subjects, types and labels go along; labels that are not given set no condition."""
    conditions = position().request().filter
    assert list(conditions.subjects) == ["ada"]
    assert list(conditions.types) == [pb.EVENT_TYPE_SESSION_REVOKED]
    assert dict(conditions.labels) == {"tenant": "acme"}
    assert dict(subscribe_request("shop").filter.labels) == {}


def test_a_later_stream_goes_on_after_the_last_item_with_the_same_filter() -> None:
    """After an event the next stream begins at its cursor, and nothing else of the request changes."""
    stands = position()
    first = stands.request()
    event = stands.step(EVENT)
    assert isinstance(event, Event)
    assert (event.revision, event.cursor) == (7, "c7")
    later = stands.request()
    assert later.WhichOneof("from") == "cursor"
    assert later.cursor == stands.cursor == "c7"
    assert later.filter == first.filter
    assert later.checkpoint_interval == first.checkpoint_interval
    assert first.WhichOneof("from") == "start"


def test_a_checkpoint_moves_the_position_whether_it_is_shown_or_not() -> None:
    """Progress counts even where the caller did not ask to see it."""
    silent, open_ = position(), position(include_checkpoints=True)
    assert silent.step(CHECKPOINT) is None
    assert open_.step(CHECKPOINT) == Checkpoint(revision=8, cursor="c8")
    assert silent.cursor == open_.cursor == "c8"


def test_before_the_first_item_the_beginning_stays() -> None:
    """A stream that breaks before anything came is begun anew as it was begun before."""
    stands = position()
    stands.pause_after(Unavailable())
    assert stands.cursor is None
    assert stands.request().start == pb.STREAM_START_NOW


def test_pauses_double_up_to_a_limit_and_begin_anew_when_something_comes() -> None:
    """0.1 s, doubled with each break up to 5 s; anything that arrives resets it."""
    stands = position()
    pauses = [stands.pause_after(Unavailable()) for _ in range(9)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    stands.step(CHECKPOINT)
    assert stands.pause_after(Unavailable()) == 0.1


def test_the_random_part_is_of_the_pause_that_is_due() -> None:
    """Each pause is drawn between half of the time that is due and all of it, and is what was drawn."""
    drawn: list[tuple[float, float]] = []

    def jitter(least: float, most: float) -> float:
        drawn.append((least, most))
        return (least + most) / 2

    stands = Position(subscribe_request("shop"), include_checkpoints=False, jitter=jitter)
    pauses = [stands.pause_after(Unavailable()) for _ in range(7)]
    assert drawn == [(due / 2, due) for due in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)]
    assert pauses == [(least + most) / 2 for least, most in drawn]


def test_a_break_is_logged_with_its_status_and_pause(caplog: pytest.LogCaptureFixture) -> None:
    """The logger `sessiond_client` reports a broken stream at level INFO; nothing is logged about one that is final."""
    with caplog.at_level(logging.INFO, "sessiond_client"):
        position().pause_after(Unavailable("gone", status="UNAVAILABLE"))
        with pytest.raises(OutOfRange):
            position().pause_after(OutOfRange())
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("sessiond_client", "INFO", "event stream broke (UNAVAILABLE); resuming in 0.10 s")
    ]


def test_the_random_part_of_a_pause_is_at_most_a_half() -> None:
    """A pause is never zero, so that a broken authority is not asked in a tight loop."""
    stands = Position(subscribe_request("shop"), include_checkpoints=False)
    assert all(0.05 <= stands.pause_after(Unavailable()) <= 5.0 for _ in range(50))


@pytest.mark.parametrize(
    "error",
    [ENDED, Unavailable(), ResourceExhausted(), InternalError(), Cancelled(), DeadlineExceeded(), Conflict()],
    ids=lambda error: type(error).__name__,
)
def test_breaks_that_another_stream_can_mend(error: SessiondError) -> None:
    """After these the subscription goes on, as the contract obliges it to."""
    assert position().pause_after(error) > 0


@pytest.mark.parametrize(
    "error",
    [InvalidArgument(), OutOfRange(), NotServed(), PermissionDenied(), Unauthenticated()],
    ids=lambda error: type(error).__name__,
)
def test_breaks_that_no_other_stream_can_mend(error: SessiondError) -> None:
    """These reach the caller."""
    with pytest.raises(type(error)):
        position().pause_after(error)
