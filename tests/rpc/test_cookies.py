"""Cookie directives over gRPC: the exact header values of every response that issues or ends a token."""

from __future__ import annotations

from dataclasses import replace
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest

from sessiond.crypto.tokens import Token
from sessiond.domain.policy import PRESETS, CookieRules
from sessiond.domain.values import Instant
from sessiond.rpc.cookies import browser_name, fill_deletion, fill_logout, fill_token
from sessiond.rpc.encode import policy_message
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.contracts import samples
from tests.support.clock import START, ManualClock
from tests.support.server import AsyncStub, config_for, serving, stub_for

loose: Any = pb  # so that a submessage can be written as a dict
SECOND = 1_000
MINUTE = 60 * SECOND
HOST = "Path=/; HttpOnly; SameSite=Lax; Secure"
GONE = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
CLEARED = '"cache", "storage"'
NOW = Instant(START)
TWO_NAMES = '[applications.default]\ncookie = { name = "id", anonymous_name = "visitor" }\n'


async def create(stub: AsyncStub, subject: str = "ada", **fields: Any) -> pb.CreateSessionResponse:
    response: pb.CreateSessionResponse = await stub.CreateSession(loose.CreateSessionRequest(subject=subject, **fields))
    return response


async def validate(stub: AsyncStub, token: str, **fields: Any) -> pb.ValidateSessionResponse:
    return await stub.ValidateSession(loose.ValidateSessionRequest(token=token, **fields))


def told(cookies: pb.CookieDirectives) -> tuple[list[str], str, str]:
    """Return the headers of directives."""
    return list(cookies.set_cookie), cookies.cache_control, cookies.clear_site_data


# The directives of each response, under the default policy


async def test_a_new_session(stub: AsyncStub) -> None:
    """A new session's cookie has the prefix `__Host-`, lasts until the browser closes, and is never cached."""
    created = await create(stub)
    assert told(created.cookies) == ([f"__Host-id={created.token}; {HOST}"], "no-store", "")


async def test_login_and_other_rolls(stub: AsyncStub) -> None:
    """Login, repeated authentication, elevation and roll each put their token into the cookie of the same name."""
    guest = await create(stub, "")
    assert told(guest.cookies)[0] == [f"__Host-id={guest.token}; {HOST}"]
    token = guest.token
    for elevate in (False, False, True):
        request = loose.AuthenticateSessionRequest(token=token, subject="ada", elevate=elevate)
        answer = await stub.AuthenticateSession(request)
        token = answer.token
        assert told(answer.cookies) == ([f"__Host-id={token}; {HOST}"], "no-store", "")
    rolled = await stub.RollSession(loose.RollSessionRequest(token=token, reason="role"))
    assert rolled.token != token
    assert told(rolled.cookies) == ([f"__Host-id={rolled.token}; {HOST}"], "no-store", "")


async def test_a_renewal(stub: AsyncStub, clock: ManualClock) -> None:
    """Each response with a renewed token has its cookie; a response without one has none."""
    created = await create(stub)
    assert not (await validate(stub, created.token)).HasField("cookies")
    for _ in range(3):
        clock.advance(25 * MINUTE)
        answer = await validate(stub, created.token)
    for again in (answer, await validate(stub, created.token)):
        assert again.next_step == pb.NEXT_STEP_REPLACE_TOKEN
        assert told(again.cookies) == ([f"__Host-id={again.renewed_token}; {HOST}"], "no-store", "")
    used = await validate(stub, answer.renewed_token)
    assert not used.HasField("cookies")
    healed = await validate(stub, created.token)
    assert told(healed.cookies) == told(answer.cookies)


async def test_a_token_to_discard(stub: AsyncStub, clock: ManualClock) -> None:
    """An invalid token is deleted: with the same name and path, Max-Age 0 and an Expires in the past."""
    created = await create(stub)
    await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": created.token}))
    clock.advance(20 * SECOND)
    for token in (created.token, "x", "A" * 70):
        answer = await validate(stub, token)
        assert answer.next_step == pb.NEXT_STEP_DISCARD_TOKEN
        assert told(answer.cookies) == ([f"__Host-id=; {HOST}; {GONE}"], "no-store", "")
    batch = loose.ValidateSessionsRequest(requests=[{"token": "x"}, {"token": (await create(stub)).token}])
    discarded, kept = (await stub.ValidateSessions(batch)).responses
    assert told(discarded.cookies)[0] == [f"__Host-id=; {HOST}; {GONE}"]
    assert not kept.HasField("cookies")


@pytest.mark.parametrize("ending", ["logout", "admin", "idle", "another subject"])
async def test_a_token_of_a_session_that_ended_moments_ago(stub: AsyncStub, clock: ManualClock, ending: str) -> None:
    """For `roll_tolerance` after an end, responses do not touch the cookie, which may be new; a logout deletes it."""
    created = await create(stub)
    match ending:
        case "idle":
            clock.advance(30 * MINUTE)
        case "another subject":
            request = loose.AuthenticateSessionRequest(token=created.token, subject="bob", or_create=True)
            assert (await stub.AuthenticateSession(request)).created
        case _:
            named = {"token": created.token} if ending == "logout" else {"session_id": created.session.session_id}
            await stub.RevokeSession(loose.RevokeSessionRequest(session=named))
    for wait in (0, 20 * SECOND - 1):
        clock.advance(wait)
        late = await validate(stub, created.token)
        assert late.verdict in (pb.VERDICT_REVOKED, pb.VERDICT_EXPIRED_IDLE)
        assert (late.next_step, late.HasField("cookies")) == (pb.NEXT_STEP_KEEP_TOKEN, False)
    logout = await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": created.token}))
    assert told(logout.cookies) == ([f"__Host-id=; {HOST}; {GONE}"], "no-store", CLEARED)
    clock.advance(1)
    late = await validate(stub, created.token)
    assert late.next_step == pb.NEXT_STEP_DISCARD_TOKEN
    assert told(late.cookies) == ([f"__Host-id=; {HOST}; {GONE}"], "no-store", "")


async def test_a_token_to_keep(stub: AsyncStub) -> None:
    """A request in flight at a roll, and one with an unmet requirement, do not touch the client's cookie."""
    created = await create(stub)
    await stub.RollSession(loose.RollSessionRequest(token=created.token))
    superseded = await validate(stub, created.token)
    assert superseded.next_step == pb.NEXT_STEP_KEEP_TOKEN
    assert not superseded.HasField("cookies")


@pytest.mark.parametrize("needed", [{"min_level": 2}, {"csrf": {}}], ids=["level", "csrf"])
async def test_a_denied_request_renews_nothing(stub: AsyncStub, clock: ManualClock, needed: Any) -> None:
    """INSUFFICIENT has neither a cookie nor a renewed token, even if renewal is due: its next step is another one."""
    created = await create(stub)
    for _ in range(3):
        clock.advance(25 * MINUTE)
        assert (await validate(stub, created.token)).verdict == pb.VERDICT_VALID
    answer = await validate(stub, created.token, requirements=needed)
    assert answer.verdict == pb.VERDICT_INSUFFICIENT
    assert answer.next_step != pb.NEXT_STEP_REPLACE_TOKEN
    assert not answer.HasField("cookies")
    assert answer.renewed_token == ""


async def test_logout(stub: AsyncStub) -> None:
    """Logout deletes the cookie by name and clears cache and storage, but not other cookies; so does a repeated one."""
    created = await create(stub)
    for _ in range(2):
        answer = await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": created.token}))
        assert told(answer.cookies) == ([f"__Host-id=; {HOST}; {GONE}"], "no-store", CLEARED)


async def test_logout_with_a_session_in_its_place(stub: AsyncStub) -> None:
    """Logout with a new session in its place sets the new cookie, and nothing that would delete it again."""
    created = await create(stub)
    request = loose.RevokeSessionRequest(session={"token": created.token}, open_anonymous=True)
    answer = await stub.RevokeSession(request)
    assert answer.token not in ("", created.token)
    assert answer.anonymous_session.subject == ""
    assert told(answer.cookies) == ([f"__Host-id={answer.token}; {HOST}"], "no-store", CLEARED)
    after = await validate(stub, answer.token)
    assert (after.verdict, after.session.session_id) == (pb.VERDICT_VALID, answer.anonymous_session.session_id)


async def test_a_session_in_the_place_of_a_bad_one_is_one(stub: AsyncStub) -> None:
    """Logout with an invalid token, repeated with its request id, returns the same new session again."""
    request = loose.RevokeSessionRequest(
        session={"token": "A" * 70}, open_anonymous=True, request_id="16fd2706-8baf-433b-82eb-8c7fada847da"
    )
    first, again = await stub.RevokeSession(request), await stub.RevokeSession(request)
    assert first.verdict == pb.VERDICT_FORGED
    assert first.token == again.token != ""
    assert first == again


async def test_a_companion(stub: AsyncStub) -> None:
    """A companion's cookie is for its own path, has the prefix `__Secure-` there, and lasts as long as the token."""
    created = await create(stub)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"path": "/pay"}, "__Secure-id-pay={}; Path=/pay; HttpOnly; SameSite=Lax; Secure; Max-Age=600"),
        ({}, f"__Host-id-pay={{}}; {HOST}; Max-Age=600"),
        ({"path": "/"}, f"__Host-id-pay={{}}; {HOST}; Max-Age=600"),
        ({"time_to_live": {"seconds": 90}}, f"__Host-id-pay={{}}; {HOST}; Max-Age=90"),
    ]
    for fields, expected in cases:
        request = loose.IssueCompanionTokenRequest(token=created.token, purpose="pay", **fields)
        answer = await stub.IssueCompanionToken(request)
        assert told(answer.cookies) == ([expected.format(answer.companion_token)], "no-store", "")
    refused = await stub.IssueCompanionToken(loose.IssueCompanionTokenRequest(token="x", purpose="pay"))
    assert not refused.HasField("cookies")


async def test_no_cookie_where_nothing_is_given(tmp_path: Path, clock: ManualClock) -> None:
    """A response without a token has no cookie: at a limit, or after a login with a bad token."""
    config = config_for(tmp_path, '[applications.default]\nmax_sessions = 1\non_limit = "reject"\n')
    async with serving(config, clock) as app, stub_for(app.address) as stub:
        await create(stub)
        limited = await create(stub)
        assert limited.HasField("limit")
        assert not limited.HasField("cookies")
        login = await stub.AuthenticateSession(loose.AuthenticateSessionRequest(token="x", subject="ada"))
        assert (login.verdict, login.HasField("cookies")) == (pb.VERDICT_MALFORMED, False)


# The policy's cookie rules


@pytest.mark.parametrize(
    ("rules", "name", "attributes"),
    [
        ('path = "/shop"', "__Secure-id", "Path=/shop; HttpOnly; SameSite=Lax; Secure"),
        ('same_site = "Strict"', "__Host-id", "Path=/; HttpOnly; SameSite=Strict; Secure"),
        ('name = "sid"', "__Host-sid", HOST),
        ('same_site = "None"', "__Host-id", "Path=/; HttpOnly; SameSite=None; Secure"),
        (
            'same_site = "None", partitioned = true',
            "__Host-id",
            "Path=/; HttpOnly; SameSite=None; Secure; Partitioned",
        ),
        ("partitioned = true", "__Host-id", f"{HOST}; Partitioned"),
        (
            'partitioned = true, path = "/shop"',
            "__Secure-id",
            "Path=/shop; HttpOnly; SameSite=Lax; Secure; Partitioned",
        ),
        ("secure = false", "id", "Path=/; HttpOnly; SameSite=Lax"),
        ('secure = false, path = "/shop"', "id", "Path=/shop; HttpOnly; SameSite=Lax"),
    ],
)
async def test_prefixes(tmp_path: Path, clock: ManualClock, rules: str, name: str, attributes: str) -> None:
    """TLS with the path `/` gives `__Host-`, TLS alone gives `__Secure-`; a deletion repeats all attributes."""
    rules += ', anonymous_name = "sid"' if "sid" in rules else ""
    config = config_for(tmp_path, f"[applications.default]\ncookie = {{ {rules} }}\n")
    async with serving(config, clock) as app, stub_for(app.address) as stub:
        created = await create(stub)
        assert told(created.cookies)[0] == [f"{name}={created.token}; {attributes}"]
        ended = await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": created.token}))
        assert told(ended.cookies)[0] == [f"{name}=; {attributes}; {GONE}"]
        created = await create(stub)
        request = loose.IssueCompanionTokenRequest(token=created.token, purpose="pay")
        companion = await stub.IssueCompanionToken(request)
        expected = f"{name}-pay={companion.companion_token}; {attributes}; Max-Age=600"
        assert told(companion.cookies)[0] == [expected]


async def test_another_name_after_login(tmp_path: Path, clock: ManualClock) -> None:
    """If guests have another cookie name, each response sets one cookie and deletes the other, so that one remains."""
    async with serving(config_for(tmp_path, TWO_NAMES), clock) as app, stub_for(app.address) as stub:
        guest = await create(stub, "")
        assert told(guest.cookies)[0] == [f"__Host-visitor={guest.token}; {HOST}", f"__Host-id=; {HOST}; {GONE}"]
        request = loose.AuthenticateSessionRequest(token=guest.token, subject="ada")
        login = await stub.AuthenticateSession(request)
        assert told(login.cookies)[0] == [f"__Host-id={login.token}; {HOST}", f"__Host-visitor=; {HOST}; {GONE}"]
        discarded = await validate(stub, "x")
        assert told(discarded.cookies)[0] == [f"__Host-id=; {HOST}; {GONE}", f"__Host-visitor=; {HOST}; {GONE}"]
        anew = loose.RevokeSessionRequest(session={"token": login.token}, open_anonymous=True)
        logout = await stub.RevokeSession(anew)
        assert told(logout.cookies) == (
            [f"__Host-visitor={logout.token}; {HOST}", f"__Host-id=; {HOST}; {GONE}"],
            "no-store",
            CLEARED,
        )


def test_a_remembered_session_that_nothing_ends() -> None:
    """A remembered session without deadlines has a cookie without Max-Age, and not with 0."""
    session = samples.session(persistent=True, idle_deadline=None, absolute_deadline=None)
    cookies = pb.CookieDirectives()
    fill_token(cookies, CookieRules(), session, Token("t"), NOW)
    assert list(cookies.set_cookie) == [f"__Host-id=t; {HOST}"]


async def test_a_remembered_session(tmp_path: Path, clock: ManualClock) -> None:
    """A remembered session's cookie outlives the browser session, up to the session's latest possible end."""
    text = '[applications.default]\nremember_idle_timeout = "7d"\nremember_absolute_timeout = "30d"\n'
    async with serving(config_for(tmp_path, text), clock) as app, stub_for(app.address) as stub:
        ordinary = await create(stub)
        assert "Max-Age" not in ordinary.cookies.set_cookie[0]
        created = await create(stub, persistent=True)
        assert told(created.cookies)[0] == [f"__Host-id={created.token}; {HOST}; Max-Age={30 * 86_400}"]
        clock.advance(86_400_500)
        rolled = await stub.RollSession(loose.RollSessionRequest(token=created.token))
        assert told(rolled.cookies)[0] == [f"__Host-id={rolled.token}; {HOST}; Max-Age={29 * 86_400 - 1}"]
        request = loose.AuthenticateSessionRequest(token=rolled.token, subject="ada", persistent=True)
        login = await stub.AuthenticateSession(request)
        assert told(login.cookies)[0] == [f"__Host-id={login.token}; {HOST}; Max-Age={30 * 86_400}"]
        clock.advance(3_600_000)
        renewed = await validate(stub, login.token)
        expected = f"__Host-id={renewed.renewed_token}; {HOST}; Max-Age={30 * 86_400 - 3600}"
        assert told(renewed.cookies)[0] == [expected]


@pytest.mark.parametrize(
    ("kinds", "logout", "with_a_fresh_one"),
    [
        ('["cache", "cookies", "storage"]', '"cache", "cookies", "storage"', '"cache", "storage"'),
        ('["*", "cookies", "storage"]', '"*", "cookies", "storage"', '"storage"'),
        ('["cookies"]', '"cookies"', ""),
        ("[]", "", ""),
        ('["*"]', '"*"', ""),
        ('["cache", "executionContexts"]', '"cache", "executionContexts"', '"cache", "executionContexts"'),
    ],
)
async def test_clear_site_data(
    tmp_path: Path, clock: ManualClock, kinds: str, logout: str, with_a_fresh_one: str
) -> None:
    """Logout lists the policy's kinds of data, each in quotes; with a new cookie, none that would delete it."""
    config = config_for(tmp_path, f"[applications.default]\ncookie = {{ clear_site_data = {kinds} }}\n")
    async with serving(config, clock) as app, stub_for(app.address) as stub:
        for anew, expected in ((False, logout), (True, with_a_fresh_one)):
            created = await create(stub)
            assert created.cookies.clear_site_data == ""
            request = loose.RevokeSessionRequest(session={"token": created.token}, open_anonymous=anew)
            assert (await stub.RevokeSession(request)).cookies.clear_site_data == expected


@pytest.mark.parametrize(
    ("rules", "name", "anonymous_name"),
    [
        (CookieRules(), "__Host-id", "__Host-id"),
        (CookieRules(name="sid", anonymous_name="visitor"), "__Host-sid", "__Host-visitor"),
        (CookieRules(path="/shop", anonymous_name="visitor"), "__Secure-id", "__Secure-visitor"),
        (CookieRules(secure=False, anonymous_name="visitor"), "id", "visitor"),
        (CookieRules(same_site="None", partitioned=True), "__Host-id", "__Host-id"),
    ],
)
def test_the_name_that_browsers_send(rules: CookieRules, name: str, anonymous_name: str) -> None:
    """The policy shows both cookie names as browsers send them, which is how the directives set them."""
    assert (browser_name(rules, anonymous=False), browser_name(rules, anonymous=True)) == (name, anonymous_name)
    message = policy_message(replace(PRESETS["owasp-low"], cookie=rules), {}).cookie
    assert (message.browser_name, message.browser_anonymous_name) == (name, anonymous_name)
    assert (message.name, message.anonymous_name) == (rules.name, rules.anonymous_name)
    assert (message.same_site, message.partitioned) == (rules.same_site, rules.partitioned)
    for subject, expected in (("ada", name), ("", anonymous_name)):
        directives = pb.CookieDirectives()
        fill_token(directives, rules, samples.session(subject=subject), Token("T"), NOW)
        assert directives.set_cookie[0].startswith(f"{expected}=T; ")


async def test_the_names_that_an_application_reads(tmp_path: Path, clock: ManualClock) -> None:
    """The names shown with the policy are those in the headers, for guests and members, and follow the settings."""
    text = '[applications.default]\ncookie = { name = "sid", anonymous_name = "visitor", path = "/shop" }\n'
    async with serving(config_for(tmp_path, text), clock) as app, stub_for(app.address) as stub:
        (application,) = (await stub.GetAuthority(pb.GetAuthorityRequest())).applications
        rules = application.policy.cookie
        assert (rules.browser_name, rules.browser_anonymous_name) == ("__Secure-sid", "__Secure-visitor")
        for subject, name in (("ada", rules.browser_name), ("", rules.browser_anonymous_name)):
            created = await create(stub, subject)
            assert created.cookies.set_cookie[0].startswith(f"{name}={created.token}; ")


def test_a_deletion_reaches_its_cookie() -> None:
    """A deletion has the name, path and partition of the cookie that it deletes, under any rules."""
    for rules in (CookieRules(), CookieRules(path="/shop"), CookieRules(same_site="None", partitioned=True)):
        given, deleted = pb.CookieDirectives(), pb.CookieDirectives()
        fill_token(given, rules, samples.session(subject="ada"), Token("T"), NOW)
        fill_deletion(deleted, rules)
        assert [line.removesuffix(f"; {GONE}") for line in deleted.set_cookie] == [
            line.replace("=T;", "=;") for line in given.set_cookie
        ]


def test_a_cookie_of_the_other_name_is_deleted_in_its_partition() -> None:
    """With two names, the deletion of the other cookie is for the same partition."""
    rules = CookieRules(anonymous_name="visitor", same_site="None", partitioned=True)
    directives = pb.CookieDirectives()
    fill_token(directives, rules, samples.session(subject="ada"), Token("T"), NOW)
    attributes = "Path=/; HttpOnly; SameSite=None; Secure; Partitioned"
    assert list(directives.set_cookie) == [f"__Host-id=T; {attributes}", f"__Host-visitor=; {attributes}; {GONE}"]


def test_a_fresh_cookie_survives_the_headers_beside_it() -> None:
    """No response that sets a new cookie also clears cookies, whatever the policy lists."""
    for kinds in (("cookies",), ("*",), ("*", "cache", "cookies"), ("storage", "cookies", "executionContexts"), ()):
        directives = pb.CookieDirectives()
        fill_logout(directives, CookieRules(clear_site_data=kinds), keeps_cookies=True)
        assert "cookies" not in directives.clear_site_data
        assert "*" not in directives.clear_site_data


async def test_the_largest_cookie(tmp_path: Path, clock: ManualClock) -> None:
    """Name and value have at most 4,096 bytes together, each attribute at most 1,024 (RFC 6265bis), all plain ASCII."""
    name, path = "n" * 64, "/" + "p" * 1023
    text = (
        f'[applications.default]\ncookie = {{ name = "{name}", anonymous_name = "{name}", path = "{path}" }}\n'
        'remember_idle_timeout = "7d"\nremember_absolute_timeout = "30d"\n'
    )
    async with serving(config_for(tmp_path, text), clock) as app, stub_for(app.address) as stub:
        created = await create(stub, persistent=True)
        request = loose.IssueCompanionTokenRequest(token=created.token, purpose="p" * 64, path="/" + "q" * 255)
        companion = await stub.IssueCompanionToken(request)
        ended = await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": created.token}))
    for answer in (created, companion, ended):
        for line in answer.cookies.set_cookie:
            pair, *attributes = line.split("; ")
            assert line.isascii()
            assert line.isprintable()
            assert len(pair) - 1 <= 4096
            assert all(len(attribute.partition("=")[2]) <= 1024 for attribute in attributes)


async def test_a_client_reads_them(stub: AsyncStub) -> None:
    """An independent cookie parser reads name, value and every attribute as intended."""
    created = await create(stub)
    jar: SimpleCookie = SimpleCookie(created.cookies.set_cookie[0])
    (cookie,) = jar.values()
    assert (cookie.key, cookie.value) == ("__Host-id", created.token)
    assert (cookie["path"], cookie["samesite"], cookie["secure"], cookie["httponly"]) == ("/", "Lax", True, True)
    assert (cookie["domain"], cookie["max-age"], cookie["expires"]) == ("", "", "")


async def test_ending_another_devices_session(stub: AsyncStub) -> None:
    """Ending a session by its id sends no cookie headers to the caller's browser."""
    created = await create(stub)
    request = loose.RevokeSessionRequest(session={"session_id": created.session.session_id})
    answer = await stub.RevokeSession(request)
    assert answer.revoked
    assert not answer.HasField("cookies")
