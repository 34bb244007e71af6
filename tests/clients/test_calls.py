"""The calls of both clients against a real authority."""

from __future__ import annotations

import asyncio
import shutil
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import (
    AsyncClient,
    Authentication,
    CauseKind,
    Client,
    ClientContext,
    Conflict,
    DeadlineExceeded,
    EventType,
    FailedPrecondition,
    InvalidArgument,
    NextStep,
    NotFound,
    OutOfRange,
    Question,
    SessiondError,
    SessionState,
    SignalType,
    Token,
    Unavailable,
    Verdict,
)
from tests.clients.either import CLIENTS, Either
from tests.clients.relay import Swallowing
from tests.support.clock import START, ManualClock
from tests.support.server import config_for, serving

NOBODY = "01a1ffcf-d799-7113-b468-5af8f30eb242"
SEEN = ClientContext(ip_address="192.0.2.10", user_agent="Firefox", certificate_thumbprint=b"\x01" * 32, device_id="d1")
MINUTE = 60_000


async def test_a_session_comes_back_as_it_was_opened(client: Either) -> None:
    """What was told at opening is what `get` shows, times and client context included."""
    created = await client.create(
        subject="ada", authentication=Authentication(level=2, methods=("pwd", "otp")), client=SEEN, data={"k": b"\x00v"}
    )
    found = await client.get(session_id=created.session.session_id)
    assert found.session == created.session
    session = found.session
    assert (session.application, session.subject, session.state) == ("default", "ada", SessionState.ACTIVE)
    assert session.client == SEEN
    assert session.create_time == datetime.fromtimestamp(START / 1000, UTC)
    assert session.authentication.level == 2
    assert session.authentication.methods == ("pwd", "otp")
    assert session.authentication.authenticate_time == session.create_time
    assert session.ending is None
    assert (await client.get_data(token=created.token)).data == {"k": b"\x00v"}


async def test_a_token_goes_in_as_text_or_as_a_token(client: Either) -> None:
    """Text from a cookie and a `Token` are the same to a call."""
    created = await client.create(subject="ada")
    for token in (created.token, created.token.reveal()):
        answer = await client.validate(token)
        assert answer.valid
        assert answer.next_step is NextStep.PROCEED
        assert answer.session.session_id == created.session.session_id


@pytest.mark.parametrize("token", ["", "nonsense", "häßlich", "odd\udcff", "A" * 70])
async def test_a_bad_token_is_an_answer(client: Either, token: str) -> None:
    """Whatever a client presents gets a verdict, not an exception."""
    answer = await client.validate(token)
    assert not answer.valid
    assert answer.verdict in (Verdict.MALFORMED, Verdict.FORGED)
    assert answer.next_step is NextStep.DISCARD_TOKEN
    assert answer.session is None


async def test_answers_stand_in_the_order_of_the_questions(client: Either) -> None:
    """`validate_many` takes tokens, text and questions, and answers in their order."""
    one, other = await client.create(subject="ada"), await client.create(subject="bob")
    answers = await client.validate_many([one.token, "nonsense", other.token.reveal(), Question(one.token, SEEN, True)])
    assert [answer.session and answer.session.subject for answer in answers] == ["ada", None, "bob", "ada"]


async def test_login_rolls_and_keeps_the_data(client: Either) -> None:
    """`authenticate` gives another token; the one from before is dead, and the data is still there."""
    guest = await client.create(data={"cart": b"1"})
    rolled = await client.authenticate(guest.token, "ada", authentication=Authentication(level=1))
    assert rolled.verdict is Verdict.VALID
    assert rolled.token != guest.token
    assert rolled.session.subject == "ada"
    assert (await client.validate(guest.token)).verdict is Verdict.SUPERSEDED
    assert (await client.get_data(token=rolled.token)).data == {"cart": b"1"}


async def test_login_over_another_subject_is_refused(client: Either) -> None:
    """A session that belongs to one subject cannot be bound to another."""
    created = await client.create(subject="ada")
    with pytest.raises(FailedPrecondition):
        await client.authenticate(created.token, "bob")


async def test_roll_and_refresh(client: Either, clock: ManualClock) -> None:
    """`roll` replaces the token, `refresh` keeps it and starts the idle timeout again."""
    created = await client.create(subject="ada")
    rolled = await client.roll(created.token, reason="password")
    assert rolled.token not in (None, created.token)
    clock.advance(20 * MINUTE)
    refreshed = await client.refresh(rolled.token)
    assert refreshed.verdict is Verdict.VALID
    assert refreshed.session.idle_expire_time > rolled.session.idle_expire_time
    assert (await client.roll("nonsense")).verdict is Verdict.MALFORMED


async def test_a_renewed_token_is_the_same_however_often_it_is_asked_for(client: Either, clock: ManualClock) -> None:
    """Where renewal is due, `renewed_token` comes along, and is one and the same."""
    created = await client.create(subject="ada")
    for _ in range(3):
        clock.advance(25 * MINUTE)
        first = await client.validate(created.token)
    again = await client.validate(created.token)
    assert first.next_step is again.next_step is NextStep.REPLACE_TOKEN
    assert first.renewed_token == again.renewed_token != created.token


async def test_a_replay_tells_its_signal(client: Either, clock: ManualClock) -> None:
    """An old token that comes back is REPLAYED, with the evidence."""
    created = await client.create(subject="ada")
    await client.roll(created.token)
    clock.advance(MINUTE)
    answer = await client.validate(created.token)
    assert answer.verdict is Verdict.REPLAYED
    assert [signal.type for signal in answer.signals] == [SignalType.TOKEN_REPLAY]


@pytest.mark.parametrize("by", ["token", "session_id"])
async def test_revoke_ends_a_session_once(client: Either, by: str) -> None:
    """Named either way a session ends at once; ending it again changes nothing and says so."""
    created = await client.create(subject="ada")
    named: dict[str, Any] = {by: created.token if by == "token" else created.session.session_id}
    first, again = await client.revoke(reason="logout", **named), await client.revoke(**named)
    assert (first.revoked, again.revoked) == (True, False)
    assert again.verdict is Verdict.REVOKED
    ended = await client.validate(created.token, at_least=first.consistency_token)
    assert ended.verdict is Verdict.REVOKED
    session = (await client.get(session_id=created.session.session_id)).session
    assert session.state is SessionState.REVOKED
    assert (session.ending.cause.kind, session.ending.cause.reason) == (CauseKind.REQUEST, "logout")


async def test_revoke_all_ends_what_matches_and_keeps_one(client: Either) -> None:
    """All sessions of a subject end but the one to keep, and nobody else's."""
    kept, *_ = [await client.create(subject="ada") for _ in range(3)]
    other = await client.create(subject="bob")
    ended = await client.revoke_all(subject="ada", except_session_id=kept.session.session_id)
    assert ended.revoked_count == 2
    assert (await client.validate(kept.token)).valid
    assert (await client.validate(other.token)).valid


async def test_ending_everything_has_to_be_said(client: Either) -> None:
    """Without a condition nothing ends unless the whole application is meant."""
    await client.create(subject="ada")
    with pytest.raises(InvalidArgument) as refusal:
        await client.revoke_all()
    assert [violation.field for violation in refusal.value.violations] == ["whole_application"]
    assert (await client.revoke_all(whole_application=True)).revoked_count == 1


async def test_listings_go_through_all_pages(client: Either) -> None:
    """`list` gives every session once, newest first, however small the pages are; `list_page` gives one."""
    opened = [(await client.create(subject="ada")).session.session_id for _ in range(7)]
    listed = [session.session_id for session in await client.all("list", subject="ada", page_size=3)]
    assert sorted(listed) == sorted(opened)
    assert len(set(listed)) == 7
    first = await client.list_page(subject="ada", page_size=3)
    rest = await client.list_page(subject="ada", page_size=100, page_token=first.next_page_token)
    assert [session.session_id for session in (*first.items, *rest.items)] == listed
    assert rest.next_page_token == ""


async def test_activity_tells_a_subjects_history(client: Either) -> None:
    """`activity` gives a subject's events, newest first, through all pages."""
    created = await client.create(subject="ada")
    await client.roll(created.token, reason="role")
    await client.revoke(token=created.token)
    await client.create(subject="bob")
    events = await client.all("activity", "ada", page_size=1)
    assert {event.subject for event in events} == {"ada"}
    assert [event.type for event in events][-2:] == [EventType.SESSION_ROLLED, EventType.SESSION_CREATED]
    assert [event.revision for event in events] == sorted((event.revision for event in events), reverse=True)
    page = await client.activity_page("ada", page_size=1)
    assert page.items == (events[0],)


async def test_data_is_set_and_deleted_by_key_and_version(client: Either) -> None:
    """A conditional write with a version that is not the current one is a Conflict, and changes nothing."""
    created = await client.create(data={"a": b"1", "b": b"2"})
    before = await client.get_data(token=created.token)
    written = await client.update_data(
        token=created.token, set={"a": b"3"}, delete=["b"], expected_version=before.version
    )
    assert written.version == before.version + 1
    with pytest.raises(Conflict):
        await client.update_data(token=created.token, set={"a": b"4"}, expected_version=before.version)
    after = await client.get_data(session_id=created.session.session_id)
    assert (after.data, after.version) == ({"a": b"3"}, written.version)
    assert (await client.get_data(token=created.token, keys=["nix"])).data == {}


async def test_data_over_the_limit_is_refused_by_name(client: Either) -> None:
    """Data that would grow over the policy's limit is an InvalidArgument that names the field."""
    created = await client.create()
    with pytest.raises(InvalidArgument) as refusal:
        await client.update_data(token=created.token, set={"big": b"x" * 70_000})
    assert [violation.field for violation in refusal.value.violations] == ["set"]


async def test_what_is_not_there_is_not_found(client: Either) -> None:
    """An id that the application does not have is NotFound."""
    for call in (client.get, client.revoke, client.get_data):
        with pytest.raises(NotFound):
            await call(session_id=NOBODY)


async def test_a_caller_sees_its_own_change(client: Either) -> None:
    """Every change answers with a consistency token that every reading call takes as `at_least`."""
    created = await client.create(subject="ada")
    session_id = created.session.session_id
    rolled = await client.roll(created.token)
    refreshed = await client.refresh(rolled.token)
    written = await client.update_data(token=rolled.token, set={"a": b"1"})
    seen = [created, rolled, refreshed, written, await client.authority()]
    assert all(answer.consistency_token for answer in seen)
    for state in (answer.consistency_token for answer in seen):
        assert (await client.validate(rolled.token, at_least=state)).valid
        assert (await client.validate_many([Question(rolled.token, at_least=state)]))[0].valid
        assert (await client.get(session_id=session_id, at_least=state)).session.data_version == written.version
        assert (await client.get_data(session_id=session_id, at_least=state)).data == {"a": b"1"}
        assert len(await client.all("list", subject="ada", at_least=state)) == 1
        assert len(await client.all("activity", "ada", at_least=state, page_size=1)) == 4


async def test_a_consistency_token_is_of_its_authority(client: Either, tmp_path: Path) -> None:
    """A damaged consistency token and one of another authority are InvalidArgument, by field."""
    created = await client.create()
    async with serving(config_for(tmp_path / "other")) as other, AsyncClient(other.address) as elsewhere:
        foreign = (await elsewhere.create()).consistency_token
    for wrong in ("nonsense", foreign, created.consistency_token[:-1]):
        with pytest.raises(InvalidArgument) as refusal:
            await client.validate(created.token, at_least=wrong)
        assert [violation.field for violation in refusal.value.violations] == ["at_least"]


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_state_that_no_longer_exists(kind: type[AsyncClient] | type[Client], tmp_path: Path) -> None:
    """After a restored backup, a consistency token of a change that was lost with it is OutOfRange."""
    config = config_for(tmp_path)
    async with serving(config) as app, Either(kind, app.address) as client:
        kept = await client.create(subject="ada")
    shutil.copytree(config.data, tmp_path / "backup")
    async with serving(config) as app, Either(kind, app.address) as client:
        lost = await client.create(subject="bob")
    shutil.rmtree(config.data)
    shutil.copytree(tmp_path / "backup", config.data)
    async with serving(config) as app, Either(kind, app.address) as client:
        assert (await client.validate(kept.token, at_least=kept.consistency_token)).valid
        with pytest.raises(OutOfRange):
            await client.validate(kept.token, at_least=lost.consistency_token)


async def test_an_answer_says_until_when_a_cache_may_reuse_it(client: Either) -> None:
    """A good token with nothing to do has a time and a state; every other answer has neither."""
    created = await client.create(subject="ada")
    good = await client.validate(created.token)
    assert good.cacheable_until > created.session.create_time
    assert (await client.validate(created.token, at_least=good.consistency_token)).valid
    bad = await client.validate("nonsense")
    assert (bad.cacheable_until, bad.consistency_token) == (None, "")


async def test_the_authority_tells_its_policies(client: Either) -> None:
    """`authority` shows who answers, and each application's policy in force."""
    created = await client.create()
    answer = await client.authority()
    assert answer.revision == 1
    assert answer.incarnation
    assert answer.policies_fingerprint
    assert (await client.validate(created.token, at_least=answer.consistency_token)).valid
    assert [application.name for application in answer.applications] == ["default"]
    policy = answer.applications[0].policy
    assert policy.preset == "owasp-low"
    assert policy.idle_timeout.total_seconds() == 1800
    assert timedelta(0) < policy.anonymous_retention < policy.retention


async def test_the_authority_tells_the_names_of_its_cookies(client: Either) -> None:
    """The cookies' names in the policy are those of the cookies that are set, prefix included."""
    rules = (await client.authority()).applications[0].policy.cookie
    for subject, name in (("ada", rules.browser_name), ("", rules.browser_anonymous_name)):
        (cookie,) = (await client.create(subject=subject)).cookies.set_cookie
        assert cookie.reveal().startswith(f"{name}=")
    assert (rules.browser_name, rules.partitioned) == ("__Host-id", False)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_an_application_that_is_not_configured(kind: type[AsyncClient] | type[Client], app: App) -> None:
    """A client of an unknown application is told so, by field."""
    async with Either(kind, app.address, application="nix") as client:
        with pytest.raises(InvalidArgument) as refusal:
            await client.create()
    assert [violation.field for violation in refusal.value.violations] == ["application"]


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_unix_socket_is_a_target(kind: type[AsyncClient] | type[Client], tmp_path: Path) -> None:
    """`unix:/path` reaches an authority that listens there."""
    target = f"unix:{tmp_path / 's.sock'}"
    async with serving(replace(config_for(tmp_path), listen=target)), Either(kind, target) as client:
        assert (await client.authority()).version


@pytest.mark.parametrize("kind", CLIENTS)
async def test_nobody_there_is_unavailable(kind: type[AsyncClient] | type[Client]) -> None:
    """Where nobody listens, a question and a change both end as Unavailable, repeated or not."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: refused, and nobody else takes the port
        for safe_retries in (True, False):
            async with Either(
                kind, f"127.0.0.1:{unused.getsockname()[1]}", safe_retries=safe_retries, timeout=60
            ) as client:
                for call in (client.create, client.authority):
                    with pytest.raises(Unavailable):
                        await call()


@pytest.mark.parametrize("kind", CLIENTS)
async def test_what_may_be_repeated_is(kind: type[AsyncClient] | type[Client], app: App) -> None:
    """A call whose connection breaks under it is made again, a change once in effect; the caller does not notice."""
    relay = Swallowing(app.address, connections=2)
    async with relay.running() as target, Either(kind, target) as client:
        created = await client.create(subject="ada")
        assert len(await client.all("list", subject="ada")) == 1
    assert relay.breaks == 2
    relay = Swallowing(app.address, connections=2)
    async with relay.running() as target, Either(kind, target, safe_retries=False) as client:
        assert (await client.validate(created.token)).valid
    assert relay.breaks == 2


@pytest.mark.parametrize("kind", CLIENTS)
async def test_what_may_not_be_repeated_is_not(kind: type[AsyncClient] | type[Client], app: App) -> None:
    """Without safe retries an opening whose connection breaks is Unavailable: nobody knows whether it took place."""
    relay = Swallowing(app.address, connections=1)
    async with relay.running() as target, Either(kind, target, safe_retries=False) as client:
        with pytest.raises(Unavailable):
            await client.create(subject="ada")
        assert await client.all("list", subject="ada") == []
    assert relay.breaks == 1


@pytest.mark.parametrize("kind", CLIENTS)
async def test_deadlines_are_the_clients_and_the_calls(kind: type[AsyncClient] | type[Client]) -> None:
    """Somebody who accepts and never answers costs a client its deadline, and a call its own where it has one."""
    secret = "canary" * 11
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        target = f"127.0.0.1:{mute.getsockname()[1]}"
        async with asyncio.timeout(30):
            async with Either(kind, target, timeout=0.2) as client:
                with pytest.raises(DeadlineExceeded):
                    await client.authority()
            async with Either(kind, target, timeout=600.0) as client:
                with pytest.raises(DeadlineExceeded) as late:
                    await client.roll(secret, timeout=0.2)
    assert secret not in f"{late.value} {late.value!r} {late.value.__context__!r}"


async def test_no_exception_holds_a_token(client: Either) -> None:
    """Whatever a call with a token ends in, neither its text nor what it holds has the token."""
    created = await client.create(subject="ada")
    secret = created.token.reveal()
    broken = [
        client.authenticate(created.token, "bob"),
        client.authenticate(created.token, "x" * 300),
        client.validate(created.token, at_least="nonsense"),
        client.update_data(token=created.token, set={"a": b"1"}, expected_version=7),
        client.revoke(session_id=secret),
    ]
    for call in broken:
        with pytest.raises(SessiondError) as refusal:
            await call
        error = refusal.value
        assert secret not in f"{error} {error!r} {error.__dict__} {error.__cause__!r} {error.__context__!r}"


async def test_what_holds_a_token_does_not_show_it(client: Either) -> None:
    """Answers that give out a token do not show it."""
    created = await client.create(subject="ada")
    rolled = await client.roll(created.token)
    assert isinstance(rolled.token, Token)
    assert created.token.reveal() not in repr(created)
    assert rolled.token.reveal() not in repr(rolled)
