"""Between messages and values nothing is lost, and nothing that is new breaks an old client."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import pytest

from sessiond_client import (
    Application,
    Authentication,
    Cause,
    CauseKind,
    Client,
    ClientContext,
    CompanionIssued,
    ConcurrencyLimit,
    ConcurrencyLimitReached,
    CookieDirectives,
    CookieRules,
    Created,
    Ending,
    Event,
    EventType,
    GuessLimits,
    NextStep,
    Policy,
    Question,
    Reaction,
    RequirementKind,
    Requirements,
    Revoked,
    Session,
    SessionState,
    Signal,
    SignalReported,
    SignalType,
    SourceLock,
    Token,
    UnmetRequirement,
    Validation,
    Verdict,
    calls,
    convert,
)
from sessiond_client.connection import REPEATABLE, REPEATABLE_WITH_ID, channel_options
from sessiond_stubs.v1 import session_authority_pb2 as pb

WORDS: list[tuple[type[StrEnum], Any, str]] = [
    (Verdict, pb.Verdict, "VERDICT_"),
    (NextStep, pb.NextStep, "NEXT_STEP_"),
    (SessionState, pb.SessionState, "SESSION_STATE_"),
    (CauseKind, pb.CauseKind, "CAUSE_KIND_"),
    (SignalType, pb.SignalType, "SIGNAL_TYPE_"),
    (EventType, pb.EventType, "EVENT_TYPE_"),
    (Reaction, pb.Reaction, "REACTION_"),
    (RequirementKind, pb.RequirementKind, "REQUIREMENT_KIND_"),
]


@pytest.mark.parametrize(("kind", "wire", "prefix"), WORDS)
def test_the_words_are_those_of_the_contract(kind: type[StrEnum], wire: Any, prefix: str) -> None:
    """Each closed set of words has exactly the contract's names."""
    assert {prefix + member.name for member in kind} == set(wire.keys())
    assert all(member.value == member.name for member in kind)


def test_every_set_of_words_has_its_counterpart() -> None:
    """The contract has no closed set that this client does not know; a stream's start is told as text."""
    known = {wire.DESCRIPTOR.name for _, wire, _ in WORDS}
    assert set(pb.DESCRIPTOR.enum_types_by_name) - known == {"StreamStart"}


@pytest.mark.parametrize(
    ("kind", "message", "own"),
    [
        (Application, pb.Application, set()),
        (Authentication, pb.Authentication, set()),
        (Cause, pb.Cause, set()),
        (ClientContext, pb.ClientContext, set()),
        (CompanionIssued, pb.IssueCompanionTokenResponse, set()),
        (ConcurrencyLimit, pb.ConcurrencyLimit, set()),
        (CookieDirectives, pb.CookieDirectives, set()),
        (CookieRules, pb.CookieRules, set()),
        (Created, pb.CreateSessionResponse, {"limit"}),  # raised, not answered
        (Ending, pb.Ending, set()),
        (Event, pb.Event, {"cursor"}),  # of the stream, not of the event
        (GuessLimits, pb.GuessLimits, set()),
        (Policy, pb.Policy, set()),
        (Question, pb.ValidateSessionRequest, {"application"}),  # the client's own
        (Requirements, pb.Requirements, set()),
        (Revoked, pb.RevokeSessionResponse, set()),
        (Session, pb.Session, set()),
        (Signal, pb.Signal, set()),
        (SignalReported, pb.ReportSignalResponse, set()),
        (SourceLock, pb.SourceLock, set()),
        (UnmetRequirement, pb.UnmetRequirement, set()),
        (Validation, pb.ValidateSessionResponse, set()),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_thing_has_the_fields_of_its_message(kind: Any, message: Any, own: set[str]) -> None:
    """Each thing has exactly the contract's fields, but for those that are named here."""
    assert {field.name for field in dataclasses.fields(kind)} ^ set(message.DESCRIPTOR.fields_by_name) == own


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
    assert session.login_expire_time is None
    assert session.elevation_expire_time is None
    denied = calls.validate("shop", "any").read(pb.ValidateSessionResponse(verdict=pb.VERDICT_FORGED))
    assert denied.session is None
    assert denied.renewed_token is None
    assert denied.csrf_token is None
    assert denied.cookies.headers() == []
    revoked = calls.revoke("shop", token="any").read(pb.RevokeSessionResponse(verdict=pb.VERDICT_VALID))
    assert (revoked.anonymous_session, revoked.token, revoked.csrf_token) == (None, None, None)
    companion = calls.issue_companion_token("shop", "any", "pay").read(pb.IssueCompanionTokenResponse())
    assert (companion.companion_token, companion.expire_time) == (None, None)
    policy = convert.application(pb.Application()).policy
    assert (policy.remember_idle_timeout, policy.remember_absolute_timeout) == (None, None)


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
    several: tuple[Any, ...] = (calls.revoke, calls.get, calls.get_data, calls.update_data, calls.report_signal)
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


@pytest.mark.parametrize("by_batch", [False, True])
def test_what_a_request_needs_is_asked_for(by_batch: bool) -> None:
    """Requirements go along with a validation, alone and in a batch."""
    needed = Requirements(
        min_level=2, max_authentication_age=timedelta(minutes=5), companion=("pay", Token("c")), csrf="x"
    )
    if by_batch:
        question = Question("any", requirements=needed, with_csrf_token=True)
        request = calls.validate_many("shop", [question]).request.requests[0]
    else:
        request = calls.validate("shop", "any", requirements=needed, with_csrf_token=True).request
    assert request.with_csrf_token
    assert request.requirements == pb.Requirements(
        min_level=2,
        max_authentication_age=convert.span_message(timedelta(minutes=5)),
        companion=pb.CompanionRequirement(purpose="pay", companion_token="c"),
        csrf=pb.CsrfRequirement(csrf_token="x"),
    )


def test_a_missing_token_does_not_switch_its_requirement_off() -> None:
    """None is what a client did not present: it is required, and missing. Left out, it is not required."""
    missing = calls.validate("shop", "any", requirements=Requirements(companion=("pay", None), csrf=None)).request
    assert missing.requirements.HasField("companion")
    assert missing.requirements.HasField("csrf")
    assert not calls.validate("shop", "any", requirements=Requirements()).request.requirements.HasField("csrf")
    assert not calls.validate("shop", "any").request.HasField("requirements")


def test_what_is_not_met_is_told_and_not_valid() -> None:
    """INSUFFICIENT is not valid, and says what would meet it."""
    unmet = pb.UnmetRequirement(kind=pb.REQUIREMENT_KIND_LEVEL, remedy="a second factor", min_level=2)
    old = pb.UnmetRequirement(
        kind=pb.REQUIREMENT_KIND_AUTHENTICATION_AGE, max_authentication_age=convert.span_message(timedelta(minutes=5))
    )
    answer = pb.ValidateSessionResponse(verdict=pb.VERDICT_INSUFFICIENT, unmet=[unmet, old], session=pb.Session())
    validation = calls.validate("shop", "any").read(answer)
    assert not validation.valid
    assert validation.session is not None
    assert [(item.kind, item.remedy, item.min_level, item.max_authentication_age) for item in validation.unmet] == [
        (RequirementKind.LEVEL, "a second factor", 2, None),
        (RequirementKind.AUTHENTICATION_AGE, "", 0, timedelta(minutes=5)),
    ]


def test_headers_are_ready_to_be_sent() -> None:
    """Cookie directives become one header each, and none for what is empty."""
    message = pb.CookieDirectives(set_cookie=["id=a", "old=; Max-Age=0"], cache_control="no-store")
    directives = convert.cookie_directives(message)
    assert directives.headers() == [
        ("Set-Cookie", "id=a"),
        ("Set-Cookie", "old=; Max-Age=0"),
        ("Cache-Control", "no-store"),
    ]
    message.clear_site_data = '"cookies"'
    assert convert.cookie_directives(message).headers()[-1] == ("Clear-Site-Data", '"cookies"')


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (calls.create("shop", subject="ada"), pb.CreateSessionResponse()),
        (calls.authenticate("shop", "any", "ada"), pb.AuthenticateSessionResponse(verdict=pb.VERDICT_VALID)),
    ],
    ids=["create", "authenticate"],
)
def test_a_limit_is_no_answer(call: calls.Call[Any], answer: Any) -> None:
    """A login that the limit stood in the way of is an exception with the limit: overlooked, it still denies."""
    answer.limit.max_sessions = 2
    answer.limit.live_sessions.add(session_id="s")
    answer.limit.ticket = "canary"
    with pytest.raises(ConcurrencyLimitReached) as refusal:
        call.read(answer)
    limit = refusal.value.limit
    assert (limit.max_sessions, [session.session_id for session in limit.live_sessions]) == (2, ["s"])
    assert limit.ticket == Token("canary")
    assert limit.ticket_expire_time is None
    assert "canary" not in f"{refusal.value} {refusal.value!r} {refusal.value.__dict__}"


def test_a_choice_goes_with_its_ticket() -> None:
    """Ticket and sessions to end go along with the repeated login."""
    first = calls.create("shop", ticket=Token("t"), evict=["a", "b"]).request
    assert (first.ticket, list(first.evict_session_ids)) == ("t", ["a", "b"])
    again = calls.authenticate("shop", "any", "ada", ticket="t", evict=("a",), persistent=True, elevate=True).request
    assert (again.ticket, list(again.evict_session_ids), again.persistent, again.elevate) == ("t", ["a"], True, True)


def test_a_policy_tells_its_reactions_by_signal() -> None:
    """Reactions are found by signal; one to a signal that nobody knows yet is left out."""
    message = pb.Policy(reactions={"ip_change": pb.REACTION_STEP_UP, "mind_change": pb.REACTION_ALERT})
    message.guessing.lock_after = 20
    message.cookie.clear_site_data.append("cookies")
    policy = convert.application(pb.Application(name="shop", policy=message)).policy
    assert policy.reactions == {SignalType.IP_CHANGE: Reaction.STEP_UP}
    assert policy.guessing.lock_after == 20
    assert policy.cookie.clear_site_data == ("cookies",)
    assert dataclasses.asdict(policy)["preset"] == ""  # nothing in it that cannot be copied


def test_every_call_is_repeatable_or_known_not_to_be() -> None:
    """Each unary call of the contract may be repeated, by itself or by its id; what has an id is told as such."""
    service = pb.DESCRIPTOR.services_by_name["SessionAuthority"]
    streams = {"StreamValidations", "Subscribe", "Follow"}
    assert sorted((*REPEATABLE, *REPEATABLE_WITH_ID, *streams)) == sorted(service.methods_by_name)
    with_id = {
        name for name, method in service.methods_by_name.items() if "request_id" in method.input_type.fields_by_name
    }
    assert with_id == {*REPEATABLE_WITH_ID, "RevokeSession"}


def test_only_what_changes_nothing_twice_is_repeated_without_an_id() -> None:
    """Without safe retries gRPC repeats no call that opens, rolls or writes."""
    (_, config), *_ = channel_options(safe_retries=False)
    assert "RevokeSession" in str(config)
    assert not [method for method in REPEATABLE_WITH_ID if f'"{method}"' in str(config)]
    (_, config), *_ = channel_options(safe_retries=True)
    assert all(f'"{method}"' in str(config) for method in (*REPEATABLE, *REPEATABLE_WITH_ID))


CHANGING = [
    calls.create,
    lambda application, **more: calls.authenticate(application, "any", "ada", **more),
    lambda application, **more: calls.roll(application, "any", **more),
    lambda application, **more: calls.refresh(application, "any", **more),
    lambda application, **more: calls.revoke(application, token="any", **more),
    lambda application, **more: calls.revoke_all(application, subject="ada", **more),
    lambda application, **more: calls.update_data(application, token="any", **more),
    lambda application, **more: calls.report_signal(application, token="any", **more),
    lambda application, **more: calls.clear_source_lock(application, "192.0.2.1/32", **more),
]


@pytest.mark.parametrize("change", CHANGING)
def test_a_change_carries_an_id(change: Any) -> None:
    """Each changing call has an id of its own, a UUIDv4; the caller's own stays, and shows nowhere."""
    with Client("127.0.0.1:1") as client:
        ids = {client._identified(change("shop")).request_id for _ in range(3)}
        assert len(ids) == 3
        assert {(uuid.UUID(text).version, str(uuid.UUID(text)) == text) for text in ids} == {(4, True)}
        own = change("shop", request_id=Token("canary"))
        assert client._identified(own).request_id == "canary"
        assert "canary" not in repr(own)
    with Client("127.0.0.1:1", safe_retries=False) as client:
        assert client._identified(change("shop")).request_id == ""
        assert client._identified(change("shop", request_id="own")).request_id == "own"


def test_an_end_that_opens_is_never_repeated_without_an_id() -> None:
    """`revoke` is repeated even without safe retries; where it opens a session, it has an id so as not to open two."""
    with Client("127.0.0.1:1", safe_retries=False) as client:
        assert client._identified(calls.revoke("shop", token="any", open_anonymous=True)).request_id


def test_reading_calls_need_no_id() -> None:
    """A call that changes nothing is sent as it is."""
    with Client("127.0.0.1:1") as client:
        assert client._identified(calls.authority("shop")) == pb.GetAuthorityRequest()
        assert client._identified(calls.issue_companion_token("shop", "any", "pay")).purpose == "pay"
