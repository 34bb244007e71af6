"""Between messages and values nothing is lost, and nothing that is new breaks an old client."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest

from sessiond_client import (
    Authentication,
    CauseKind,
    ClientContext,
    EventType,
    NextStep,
    SessionState,
    SignalType,
    Verdict,
    calls,
    convert,
)
from sessiond_client.connection import REPEATABLE
from sessiond_stubs.v1 import session_authority_pb2 as pb


@pytest.mark.parametrize(
    ("kind", "wire", "prefix"),
    [
        (Verdict, pb.Verdict, "VERDICT_"),
        (NextStep, pb.NextStep, "NEXT_STEP_"),
        (SessionState, pb.SessionState, "SESSION_STATE_"),
        (CauseKind, pb.CauseKind, "CAUSE_KIND_"),
        (SignalType, pb.SignalType, "SIGNAL_TYPE_"),
        (EventType, pb.EventType, "EVENT_TYPE_"),
    ],
)
def test_the_words_are_those_of_the_contract(kind: type[StrEnum], wire: Any, prefix: str) -> None:
    """Each closed set of words has exactly the contract's names."""
    assert {prefix + member.name for member in kind} == set(wire.keys())
    assert all(member.value == member.name for member in kind)


def test_a_word_from_the_future_is_unspecified_and_not_valid() -> None:
    """A verdict that this client does not know is not VALID."""
    answer = pb.ValidateSessionResponse.FromString(b"\x08\x63")  # verdict = 99
    assert answer.verdict == 99
    validation = calls.validate("shop", "any").read(answer)
    assert validation.verdict is Verdict.UNSPECIFIED
    assert not validation.valid


def test_unset_fields_are_none() -> None:
    """What the authority leaves unset is None, not an empty thing that looks like an answer."""
    session = convert.session(pb.Session(session_id="s"))
    assert session.idle_expire_time is None
    assert session.absolute_expire_time is None
    assert session.authentication is None
    assert session.ending is None
    denied = calls.validate("shop", "any").read(pb.ValidateSessionResponse(verdict=pb.VERDICT_FORGED))
    assert denied.session is None
    assert denied.renewed_token is None


def test_times_are_aware_and_to_the_millisecond() -> None:
    """A time of the authority arrives as an aware UTC datetime, to the millisecond."""
    moment = datetime(2026, 5, 6, 7, 8, 9, 123_000, tzinfo=UTC)
    message = pb.Session(create_time=convert.timestamp_message(moment))
    assert convert.session(message).create_time == moment


def test_a_naive_time_is_refused() -> None:
    """A time without a zone could be anybody's."""
    with pytest.raises(ValueError, match="time zone"):
        calls.list_sessions("shop", created_from=datetime(2026, 1, 1))


def test_odd_bytes_in_a_header_cannot_break_a_call() -> None:
    """A user agent that is no Unicode text is sent with question marks in place of what is none."""
    call = calls.validate("shop", "any", client=ClientContext(user_agent="curl\udcff"))
    assert call.request.client.user_agent == "curl?"


@pytest.mark.parametrize("named", [{}, {"token": "t", "session_id": "s"}])
def test_a_session_is_named_in_exactly_one_way(named: dict[str, str]) -> None:
    """By token or by id: neither and both are mistakes."""
    several: tuple[Any, ...] = (calls.revoke, calls.get, calls.get_data, calls.update_data)
    for call in several:
        with pytest.raises(TypeError, match="exactly one"):
            call("shop", **named)


def test_an_unset_subject_is_no_condition_and_an_empty_one_is() -> None:
    """`subject=None` lists everybody, `subject=""` the anonymous sessions."""
    assert not calls.list_sessions("shop").request.filter.HasField("subject")
    assert calls.list_sessions("shop", subject="").request.filter.HasField("subject")


def test_the_time_of_an_authentication_is_the_authoritys() -> None:
    """A caller's own time of authentication is not sent."""
    authentication = Authentication(level=2, methods=("pwd",), authenticate_time=datetime(2026, 1, 1, tzinfo=UTC))
    request = calls.create("shop", subject="ada", authentication=authentication).request
    assert request.authentication.level == 2
    assert not request.authentication.HasField("authenticate_time")


def test_a_call_shows_no_token() -> None:
    """A call that waits to be made does not show its request, which holds the token."""
    assert "canary" not in repr(calls.roll("shop", "canary"))


def test_only_what_changes_nothing_twice_is_repeated() -> None:
    """The calls that gRPC may repeat exist in the contract, and none of them opens, rolls or writes."""
    methods = set(pb.DESCRIPTOR.services_by_name["SessionAuthority"].methods_by_name)
    assert set(REPEATABLE) <= methods
    assert not set(REPEATABLE) & {
        "CreateSession",
        "AuthenticateSession",
        "RollSession",
        "RefreshSession",
        "RevokeSessions",
        "UpdateSessionData",
    }
