"""Between messages and values nothing is lost, and nothing that is new breaks an old client."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import (
    Application,
    AsyncClient,
    Authentication,
    Authority,
    Cause,
    CauseKind,
    ClientContext,
    CompanionIssued,
    ConcurrencyLimit,
    ConcurrencyLimitReached,
    CookieDirectives,
    CookieRules,
    Created,
    Data,
    DataRequest,
    DataUpdated,
    Device,
    DeviceType,
    Ending,
    Event,
    EventType,
    Found,
    Grant,
    GuessLimits,
    InvalidArgument,
    KeyRing,
    Lifetimes,
    LockCleared,
    NextStep,
    Policy,
    Question,
    Reaction,
    Refreshed,
    RequirementKind,
    Requirements,
    Revoked,
    RevokedAll,
    Role,
    Rolled,
    SealingKey,
    SealingKeyChanged,
    SealingKeyState,
    Session,
    SessionData,
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
from sessiond_client.rpc import Call
from sessiond_stubs.v1 import session_authority_pb2 as pb

WORDS: list[tuple[type[StrEnum], Any, str]] = [
    (Verdict, pb.Verdict, "VERDICT_"),
    (NextStep, pb.NextStep, "NEXT_STEP_"),
    (SessionState, pb.SessionState, "SESSION_STATE_"),
    (CauseKind, pb.CauseKind, "CAUSE_KIND_"),
    (DeviceType, pb.DeviceType, "DEVICE_TYPE_"),
    (SignalType, pb.SignalType, "SIGNAL_TYPE_"),
    (EventType, pb.EventType, "EVENT_TYPE_"),
    (Reaction, pb.Reaction, "REACTION_"),
    (RequirementKind, pb.RequirementKind, "REQUIREMENT_KIND_"),
    (Role, pb.Role, "ROLE_"),
    (SealingKeyState, pb.SealingKeyState, "SEALING_KEY_STATE_"),
]


@pytest.mark.parametrize(("kind", "wire", "prefix"), WORDS)
def test_the_words_are_those_of_the_contract(kind: type[StrEnum], wire: Any, prefix: str) -> None:
    """Each closed set of words has exactly the contract's names."""
    assert {prefix + member.name for member in kind} == set(wire.keys())
    assert all(member.value == member.name for member in kind)


def test_every_set_of_words_has_its_counterpart() -> None:
    """The client knows every enum; a stream's start is a text there, and a revocation's wait a boolean."""
    known = {wire.DESCRIPTOR.name for _, wire, _ in WORDS}
    assert set(pb.DESCRIPTOR.enum_types_by_name) - known == {"StreamStart", "RevocationWait"}


@pytest.mark.parametrize(
    ("kind", "message", "own"),
    [
        (Application, pb.Application, set()),
        (Authentication, pb.Authentication, set()),
        (Authority, pb.GetAuthorityResponse, set()),
        (Cause, pb.Cause, set()),
        (ClientContext, pb.ClientContext, set()),
        (CompanionIssued, pb.IssueCompanionTokenResponse, set()),
        (ConcurrencyLimit, pb.ConcurrencyLimit, set()),
        (CookieDirectives, pb.CookieDirectives, set()),
        (CookieRules, pb.CookieRules, set()),
        (Created, pb.CreateSessionResponse, {"limit"}),  # raised, not answered
        (Data, pb.GetSessionDataResponse, set()),
        (DataRequest, pb.DataRequest, set()),
        (DataUpdated, pb.UpdateSessionDataResponse, set()),
        (Device, pb.Device, set()),
        (Ending, pb.Ending, set()),
        (Event, pb.Event, {"cursor"}),  # of the stream, not of the event
        (Found, pb.GetSessionResponse, set()),
        (GuessLimits, pb.GuessLimits, set()),
        (Lifetimes, pb.Lifetimes, set()),
        (KeyRing, pb.GetKeyRingResponse, set()),
        (LockCleared, pb.ClearSourceLockResponse, set()),
        (Policy, pb.Policy, set()),
        (Question, pb.ValidateSessionRequest, {"application"}),  # the client's own
        (Refreshed, pb.RefreshSessionResponse, set()),
        (Requirements, pb.Requirements, set()),
        (Revoked, pb.RevokeSessionResponse, set()),
        (RevokedAll, pb.RevokeSessionsResponse, set()),
        (Rolled, pb.AuthenticateSessionResponse, {"limit"}),  # raised, not answered
        (SealingKey, pb.SealingKey, set()),
        (SealingKeyChanged, pb.AddSealingKeyResponse, set()),
        (Session, pb.Session, set()),
        (SessionData, pb.SessionData, set()),
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
    assert (session.last_client, session.device, session.last_device) == (None, None, None)
    assert (session.lifetimes, session.labels) == (None, {})
    denied = calls.validate("shop", "any").read(pb.ValidateSessionResponse(verdict=pb.VERDICT_FORGED))
    assert denied.session is None
    assert denied.renewed_token is None
    assert denied.csrf_token is None
    assert (denied.data, denied.cacheable_until, denied.consistency_token) == (None, None, "")
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
    with pytest.raises(InvalidArgument, match="time zone"):
        calls.list_sessions("shop", created_from=datetime(2026, 1, 1))


@pytest.mark.parametrize("odd", ["\udcff", "\0"], ids=["lone surrogate", "U+0000"])
async def test_odd_characters_in_a_header_cannot_break_a_call(odd: str, app: App) -> None:
    """Lone surrogates and U+0000 in the texts of a client context are sent as question marks; the call succeeds."""
    seen = ClientContext(user_agent=f"curl{odd}1", device_id=f"d{odd}1")
    message = calls.validate("default", "any", client=dataclasses.replace(seen, ip_address=odd)).request.client
    assert (message.ip_address, message.user_agent, message.device_id) == ("?", "curl?1", "d?1")
    async with AsyncClient(app.address) as client:
        created = await client.create(client=seen)
        assert created.session is not None
        assert created.session.client == ClientContext(user_agent="curl?1", device_id="d?1")


@pytest.mark.parametrize("text", ["testclient", "192.0.2.10\0", "192.0.2.999"])
async def test_an_address_that_is_none_is_refused(text: str, app: App) -> None:
    """An `ip_address` that is neither empty nor an address raises `InvalidArgument`, which names the field."""
    async with AsyncClient(app.address) as client:
        with pytest.raises(InvalidArgument, match=r"client\.ip_address"):
            await client.validate("any", client=ClientContext(ip_address=text))


@pytest.mark.parametrize("named", [{}, {"token": "t", "session_id": "s"}])
def test_a_session_is_named_in_exactly_one_way(named: dict[str, str]) -> None:
    """By token or by id: neither and both are mistakes."""
    several: tuple[Any, ...] = (calls.revoke, calls.get, calls.get_data, calls.update_data, calls.report_signal)
    for call in several:
        with pytest.raises(InvalidArgument, match="exactly one"):
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
def test_a_limit_is_no_answer(call: Call[Any], answer: Any) -> None:
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


# What a call carries


def parameters_of(rpc: str) -> set[str]:
    """The fields of an RPC's request."""
    return set(pb.DESCRIPTOR.services_by_name["SessionAuthority"].methods_by_name[rpc].input_type.fields_by_name)


AT_LEAST: list[Call[Any]] = [
    calls.validate("shop", "any", at_least="state"),
    calls.get("shop", token="any", at_least="state"),
    calls.get_data("shop", token="any", at_least="state"),
    calls.list_sessions("shop", at_least="state"),
    calls.activity("shop", "ada", at_least="state"),
    calls.list_callers("shop", at_least="state"),
    calls.key_ring("shop", at_least="state"),
]


def test_a_state_can_be_demanded_of_every_call_that_reads() -> None:
    """`at_least` goes along with each call whose request has it, in a batch too; without it there is no demand."""
    assert [call.request.at_least for call in AT_LEAST] == ["state"] * len(AT_LEAST)
    demanding = {rpc.name for rpc in calls.RPCS if "at_least" in parameters_of(rpc.name)}
    assert {call.rpc.name for call in AT_LEAST} == demanding
    batch = calls.validate_many("shop", [Question("any", at_least="state"), "any"]).request
    assert [question.at_least for question in batch.requests] == ["state", ""]
    assert calls.validate("shop", "any").request.at_least == ""


@pytest.mark.parametrize(
    ("data", "asked"),
    [
        (None, None),
        (False, None),
        (True, pb.DataRequest()),
        (DataRequest(), pb.DataRequest()),
        (DataRequest(keys=("cart", "theme"), newer_than=7), pb.DataRequest(keys=["cart", "theme"], newer_than=7)),
    ],
    ids=repr,
)
def test_data_is_asked_for_with_a_validation_or_a_write(
    data: DataRequest | bool | None, asked: pb.DataRequest | None
) -> None:
    """True asks for all data, a `DataRequest` for some, None and False for none: alone, in a batch and with a write."""
    requests: list[Any] = [
        calls.validate("shop", "any", data=data).request,
        calls.validate_many("shop", [Question("any", data=data)]).request.requests[0],
        calls.update_data("shop", token="any", return_data=data).request,
    ]
    for request in requests:
        assert request.HasField("data") is (asked is not None)
        assert asked is None or request.data == asked


def test_data_comes_with_its_version_and_shows_no_value() -> None:
    """Data with an answer has its version; neither it nor the answer shows a value."""
    data = pb.SessionData(values={"cart": b"canary"}, version=3)
    answers: list[Any] = [
        calls.validate("shop", "any").read(pb.ValidateSessionResponse(verdict=pb.VERDICT_VALID, data=data)),
        calls.update_data("shop", token="any").read(pb.UpdateSessionDataResponse(data=data)),
    ]
    for answer in answers:
        assert answer.data == SessionData(values={"cart": b"canary"}, version=3)
        assert "canary" not in f"{answer!r} {answer.data!r} {answer.data}"
    assert calls.update_data("shop", token="any").read(pb.UpdateSessionDataResponse()).data is None


def test_no_data_is_not_empty_data() -> None:
    """Data that is not sent is None; a session without data has an empty mapping."""
    validate = calls.validate("shop", "any")
    assert validate.read(pb.ValidateSessionResponse()).data is None
    assert validate.read(pb.ValidateSessionResponse(data=pb.SessionData())).data == SessionData(values={}, version=0)


def test_until_when_an_answer_may_be_reused() -> None:
    """An answer that may be reused has a time and the state that it is true at."""
    moment = datetime(2026, 5, 6, tzinfo=UTC)
    message = pb.ValidateSessionResponse(cacheable_until=convert.timestamp_message(moment), consistency_token="state")
    answer = calls.validate("shop", "any").read(message)
    assert (answer.cacheable_until, answer.consistency_token) == (moment, "state")


@pytest.mark.parametrize("token", [None, ""])
def test_a_login_needs_no_token(token: str | None) -> None:
    """None and an empty token are sent alike: as no token, for the authority to judge."""
    request = calls.authenticate("shop", token, "ada", or_create=True).request
    assert (request.token, request.or_create) == ("", True)
    assert not calls.authenticate("shop", token, "ada").request.or_create


def test_a_login_says_whether_it_opened_a_session() -> None:
    """`presented_verdict` is there with `created` only, and then tells what the presented token was."""
    login = calls.authenticate("shop", None, "ada", or_create=True)
    fresh = pb.AuthenticateSessionResponse(
        verdict=pb.VERDICT_VALID, created=True, presented_verdict=pb.VERDICT_REVOKED, evicted_session_ids=["old"]
    )
    answer = login.read(fresh)
    assert (answer.created, answer.presented_verdict) == (True, Verdict.REVOKED)
    assert answer.evicted_session_ids == ("old",)
    ordinary = login.read(pb.AuthenticateSessionResponse(verdict=pb.VERDICT_VALID))
    assert (ordinary.created, ordinary.presented_verdict) == (False, None)
    rolled = calls.roll("shop", "any").read(pb.RollSessionResponse(verdict=pb.VERDICT_VALID))
    assert (rolled.created, rolled.presented_verdict) == (False, None)


def test_a_session_may_have_timeouts_of_its_own() -> None:
    """`lifetimes` goes along with an opening, a login and a refresh; a timeout that is not given stays unset."""
    own = Lifetimes(idle_timeout=timedelta(minutes=5))
    requests: list[Any] = [
        calls.create("shop", lifetimes=own).request,
        calls.authenticate("shop", "any", "ada", lifetimes=own).request,
        calls.refresh("shop", "any", lifetimes=own).request,
    ]
    for request in requests:
        assert request.lifetimes.idle_timeout.ToTimedelta() == timedelta(minutes=5)
        assert not request.lifetimes.HasField("absolute_timeout")
    without: list[Any] = [calls.create("shop"), calls.authenticate("shop", "any", "ada"), calls.refresh("shop", "any")]
    assert not any(call.request.HasField("lifetimes") for call in without)
    message = pb.Session()
    message.lifetimes.absolute_timeout.FromTimedelta(timedelta(hours=1))
    assert convert.session(message).lifetimes == Lifetimes(absolute_timeout=timedelta(hours=1))


def test_labels_are_set_and_filtered_by() -> None:
    """Labels go along with an opening and a login, and into the filter of a listing and of a bulk revocation."""
    labels = {"tenant": "acme", "region": "eu"}
    carried: list[Any] = [
        calls.create("shop", labels=labels).request.labels,
        calls.authenticate("shop", "any", "ada", labels=labels).request.labels,
        calls.list_sessions("shop", labels=labels).request.filter.labels,
        calls.revoke_all("shop", labels=labels).request.filter.labels,
    ]
    assert [dict(found) for found in carried] == [labels] * 4
    assert dict(calls.revoke_all("shop", subject="ada").request.filter.labels) == {}
    assert convert.session(pb.Session(labels=labels)).labels == labels
    assert convert.event(pb.Event(labels=labels)).labels == labels


def test_an_owner_can_be_demanded() -> None:
    """`revoke(subject=...)` demands the owner; an empty one demands an anonymous session, None nothing."""
    assert not calls.revoke("shop", session_id="s").request.HasField("subject")
    for owner in ("ada", ""):
        request = calls.revoke("shop", session_id="s", subject=owner).request
        assert request.HasField("subject")
        assert request.subject == owner


def test_a_session_shows_the_devices_it_was_seen_on() -> None:
    """A session has the client and the device of its opening and of its last activity, each its own."""
    message = pb.Session(
        client=pb.ClientContext(user_agent="first"),
        last_client=pb.ClientContext(user_agent="last"),
        device=pb.Device(description="Firefox 140 on Linux", type=pb.DEVICE_TYPE_DESKTOP),
        last_device=pb.Device(description="Firefox 140 on Android", type=pb.DEVICE_TYPE_PHONE),
    )
    session = convert.session(message)
    assert session.client == ClientContext(user_agent="first")
    assert session.last_client == ClientContext(user_agent="last")
    assert session.device == Device(description="Firefox 140 on Linux", type=DeviceType.DESKTOP)
    assert session.last_device == Device(description="Firefox 140 on Android", type=DeviceType.PHONE)


def test_a_device_from_the_future_is_unspecified() -> None:
    """A type of device that this client does not know is UNSPECIFIED, and the description stays."""
    message = pb.Session()
    message.device.MergeFromString(b"\x0a\x04Ring\x10\x63")  # description = "Ring", type = 99
    assert convert.session(message).device == Device(description="Ring", type=DeviceType.UNSPECIFIED)


def test_a_policy_tells_the_cookies_names_and_both_retentions() -> None:
    """A policy has the cookies' names as browsers send them, and a retention of its own for anonymous sessions."""
    message = pb.Policy(
        cookie=pb.CookieRules(browser_name="__Host-id", browser_anonymous_name="__Host-guest", partitioned=True)
    )
    message.retention.FromTimedelta(timedelta(days=30))
    message.anonymous_retention.FromTimedelta(timedelta(days=1))
    policy = convert.application(pb.Application(policy=message)).policy
    assert (policy.cookie.browser_name, policy.cookie.browser_anonymous_name) == ("__Host-id", "__Host-guest")
    assert policy.cookie.partitioned
    assert (policy.retention, policy.anonymous_retention) == (timedelta(days=30), timedelta(days=1))


def test_a_policy_tells_its_overlap_of_csrf_tokens() -> None:
    """A policy has the overlap of CSRF tokens; that of a server from before the setting has none."""
    message = pb.Policy()
    assert convert.application(pb.Application(policy=message)).policy.csrf_overlap == timedelta(0)
    message.csrf_overlap.FromTimedelta(timedelta(minutes=5))
    assert convert.application(pb.Application(policy=message)).policy.csrf_overlap == timedelta(minutes=5)


def test_the_authority_tells_its_state() -> None:
    """`authority` has the state, the incarnation and the policies' fingerprint."""
    message = pb.GetAuthorityResponse(
        revision=9, horizon=2, consistency_token="state", incarnation="run", policies_fingerprint="print"
    )
    answer = calls.authority("shop").read(message)
    assert (answer.revision, answer.horizon) == (9, 2)
    assert (answer.consistency_token, answer.incarnation, answer.policies_fingerprint) == ("state", "run", "print")


CHANGES: list[tuple[Call[Any], Any]] = [
    (calls.create("shop"), pb.CreateSessionResponse),
    (calls.authenticate("shop", "any", "ada"), pb.AuthenticateSessionResponse),
    (calls.roll("shop", "any"), pb.RollSessionResponse),
    (calls.refresh("shop", "any"), pb.RefreshSessionResponse),
    (calls.revoke("shop", token="any"), pb.RevokeSessionResponse),
    (calls.revoke_all("shop", subject="ada"), pb.RevokeSessionsResponse),
    (calls.update_data("shop", token="any"), pb.UpdateSessionDataResponse),
    (calls.report_signal("shop", token="any"), pb.ReportSignalResponse),
    (calls.clear_source_lock("shop", "192.0.2.1/32"), pb.ClearSourceLockResponse),
    (calls.create_caller("shop", "ops", [Grant(role=Role.ADMIN)]), pb.CreateCallerResponse),
    (calls.rotate_caller("shop", "ops"), pb.RotateCallerResponse),
    (calls.revoke_caller("shop", "ops"), pb.RevokeCallerResponse),
    (calls.update_caller_certificates("shop", "ops", add=["ops.example"]), pb.UpdateCallerCertificatesResponse),
    (calls.add_sealing_key("shop"), pb.AddSealingKeyResponse),
    (calls.promote_sealing_key("shop"), pb.PromoteSealingKeyResponse),
    (calls.retire_sealing_key("shop", "5aedb482"), pb.RetireSealingKeyResponse),
]


def test_every_change_answers_with_its_state() -> None:
    """Each call that changes something has its answer's consistency token."""
    assert [call.read(message(consistency_token="state")).consistency_token for call, message in CHANGES] == [
        "state"
    ] * len(CHANGES)
    assert {call.rpc.name for call, _ in CHANGES} == {rpc.name for rpc in calls.RPCS if rpc.changes}


def test_a_caller_has_its_roles_and_the_public_part_of_its_keys() -> None:
    """A caller has its roles and keys; an unknown role is UNSPECIFIED, and a key without an end has none."""
    message = pb.CallerInfo(name="edge", credentials=[pb.CallerCredential(id="aaaaaaaaaa")])
    message.grants.add(application="shop", role=pb.ROLE_VALIDATOR)
    message.grants.add(application="*").MergeFromString(b"\x10\x63")  # role = 99
    message.credentials.add(id="bbbbbbbbbb").expire_time.FromMilliseconds(1_000)
    (caller,) = calls.list_callers("shop").read(pb.ListCallersResponse(callers=[message]))
    assert caller.name == "edge"
    assert caller.grants == (
        Grant(role=Role.VALIDATOR, application="shop"),
        Grant(role=Role.UNSPECIFIED, application="*"),
    )
    assert [key.id for key in caller.credentials] == ["aaaaaaaaaa", "bbbbbbbbbb"]
    assert [key.expire_time for key in caller.credentials] == [None, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)]


def test_names_in_certificates_are_sent_and_read() -> None:
    """Names go along when a caller is added or changed; those of a caller are its credentials beside its keys."""
    names = ["spiffe://example.org/ops", "ops.example"]
    adding = calls.create_caller("shop", "ops", [], certificate_names=names, without_key=True)
    assert (list(adding.request.certificate_names), adding.request.without_key) == (names, True)
    changing = calls.update_caller_certificates("shop", "ops", add=iter(names[:1]), remove=names[1:], reason="new")
    assert changing.request == pb.UpdateCallerCertificatesRequest(
        name="ops", add=names[:1], remove=names[1:], reason="new"
    )
    message = pb.CallerInfo(name="ops", credentials=[pb.CallerCredential(id="aaaaaaaaaa")])
    message.credentials.add(id=names[0], certificate_name=names[0])
    answer = changing.read(pb.UpdateCallerCertificatesResponse(caller=message, consistency_token="state"))
    assert [one.certificate_name for one in answer.caller.credentials] == ["", names[0]]
    assert adding.read(pb.CreateCallerResponse(caller=message)).key == Token("")


def test_a_key_of_the_ring_has_its_state_and_what_needs_it() -> None:
    """A key of the ring has what the message says; an unknown state is UNSPECIFIED, and what is unset is None."""
    message = pb.GetKeyRingResponse(source="a file", change="it", encrypts_data=True, plain_values=3)
    message.keys.add(fingerprint="5aedb482", state=pb.SEALING_KEY_STATE_SEALING, sealed_values=7)
    other = message.keys.add(live_tokens=0, tokens_partial=True, moved_values=9, lacking_replicas=["east"])
    other.MergeFromString(b"\x10\x63")  # state = 99
    other.tokens_end_time.FromMilliseconds(1_000)
    ring = calls.key_ring("shop").read(message)
    assert (ring.source, ring.change, ring.encrypts_data, ring.plain_values) == ("a file", "it", True, 3)
    first, second = ring.keys
    assert (first.fingerprint, first.state, first.sealed_values) == ("5aedb482", SealingKeyState.SEALING, 7)
    assert (first.live_tokens, first.tokens_end_time, first.state_time) == (None, None, None)
    assert (second.state, second.live_tokens, second.tokens_partial) == (SealingKeyState.UNSPECIFIED, 0, True)
    assert second.tokens_end_time == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert (second.moved_values, second.lacking_replicas, second.holding_replicas) == (9, ("east",), ())


def test_the_key_of_a_caller_does_not_show() -> None:
    """The answers with a new key have it as a token, so no repr shows it; roles and overlap go along as they are."""
    grants = [Grant(role=Role.ISSUER, application="shop"), Grant(role=Role.ADMIN)]
    adding = calls.create_caller("shop", "ops", grants, reason="new")
    assert adding.request == pb.CreateCallerRequest(
        name="ops",
        reason="new",
        grants=[
            pb.Grant(application="shop", role=pb.ROLE_ISSUER),
            pb.Grant(application="*", role=pb.ROLE_ADMIN),
        ],
    )
    rotating = calls.rotate_caller("shop", "ops", overlap=timedelta(hours=1))
    assert rotating.request.overlap.ToTimedelta() == timedelta(hours=1)
    assert not calls.rotate_caller("shop", "ops").request.HasField("overlap")
    answers = [adding.read(pb.CreateCallerResponse(key="canary")), rotating.read(pb.RotateCallerResponse(key="canary"))]
    assert [answer.key for answer in answers] == [Token("canary")] * 2
    assert "canary" not in repr(answers)
