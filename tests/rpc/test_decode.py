"""Timestamps in messages: every one that the contract allows is accepted, and no other."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sessiond.domain.errors import InvalidField
from sessiond.rpc import decode
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import create
from tests.rpc.refusals import refusal_of, revision_of
from tests.support.clock import START
from tests.support.server import AsyncStub

FIRST, LAST = -62_135_596_800, 253_402_300_799
"""The seconds of 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z, the range of google.protobuf.Timestamp."""
MOST_NANOS = 999_999_999
fields = pytest.mark.parametrize("field", ["created_from", "created_until"])

GOOD = [
    (0, 0, 0),
    (1, 999_999, 1_000),
    (1, 1_000_000, 1_001),
    (1, MOST_NANOS, 1_999),
    (-1, 0, -1_000),
    (-1, MOST_NANOS, -1),
    (FIRST, 0, FIRST * 1_000),
    (FIRST, MOST_NANOS, FIRST * 1_000 + 999),
    (LAST, 0, LAST * 1_000),
    (LAST, MOST_NANOS, LAST * 1_000 + 999),
]
BAD = [
    (FIRST - 1, 0),
    (FIRST - 1, MOST_NANOS),
    (LAST + 1, 0),
    (LAST + 1, MOST_NANOS),
    (0, -1),
    (0, MOST_NANOS + 1),
    (-1, -1),
    (2**63 - 1, 0),
    (-(2**63), 0),
    (0, 2**31 - 1),
    (0, -(2**31)),
]


def query(field: str, seconds: int, nanos: int) -> Any:
    """Return the query of a filter with that timestamp."""
    at = Timestamp(seconds=seconds, nanos=nanos)
    message = pb.SessionFilter(created_from=at) if field == "created_from" else pb.SessionFilter(created_until=at)
    return decode.session_query("default", message, START)


@fields
@pytest.mark.parametrize(("seconds", "nanos", "millis"), GOOD)
def test_a_point_of_time(field: str, seconds: int, nanos: int, millis: int) -> None:
    """A timestamp between the years 1 and 9999 is read with millisecond precision; finer digits are cut off."""
    found = query(field, seconds, nanos)
    assert getattr(found, field) == millis
    other = {"created_from": "created_until", "created_until": "created_from"}[field]
    assert getattr(found, other) is None


@fields
@pytest.mark.parametrize(("seconds", "nanos"), BAD)
def test_what_is_no_point_of_time(field: str, seconds: int, nanos: int) -> None:
    """A timestamp outside these years, or with an invalid fraction, is refused, and the field is named."""
    with pytest.raises(InvalidField, match="between the years 1 and 9999") as refused:
        query(field, seconds, nanos)
    assert refused.value.field == f"filter.{field}"


@fields
@pytest.mark.parametrize(("seconds", "nanos"), BAD)
async def test_a_refused_point_of_time_changes_nothing(stub: AsyncStub, field: str, seconds: int, nanos: int) -> None:
    """A list or bulk revocation with an invalid timestamp is refused, the field is named, and nothing ends."""
    await create(stub)
    before = await revision_of(stub)
    at = Timestamp(seconds=seconds, nanos=nanos)
    chosen = pb.SessionFilter(created_from=at) if field == "created_from" else pb.SessionFilter(created_until=at)
    for call in (
        stub.ListSessions(pb.ListSessionsRequest(filter=chosen)),
        stub.RevokeSessions(pb.RevokeSessionsRequest(filter=chosen)),
    ):
        refused = await refusal_of(call)
        assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [f"filter.{field}"])
    assert await revision_of(stub) == before


async def test_from_the_first_to_the_last_moment(stub: AsyncStub) -> None:
    """A filter over the entire time range finds every session, and one over an empty range finds none."""
    mine = await create(stub)
    first, last = Timestamp(seconds=FIRST), Timestamp(seconds=LAST, nanos=MOST_NANOS)
    for chosen, found in (
        (pb.SessionFilter(created_from=first, created_until=last), [mine.session.session_id]),
        (pb.SessionFilter(created_from=last), []),
        (pb.SessionFilter(created_until=first), []),
    ):
        answer = await stub.ListSessions(pb.ListSessionsRequest(filter=chosen))
        assert [session.session_id for session in answer.sessions] == found
