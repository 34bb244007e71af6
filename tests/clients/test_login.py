"""A login works, whatever token the client presents and however often it is made: of both clients."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import (
    AsyncClient,
    Authentication,
    Client,
    FailedPrecondition,
    InvalidArgument,
    SessionState,
    Unavailable,
    Verdict,
)
from tests.clients.either import CLIENTS, Either
from tests.clients.relay import Losing
from tests.support.clock import ManualClock

PASSWORD = Authentication(level=1, methods=("pwd",))
MINUTE = 60_000


async def login(client: Either, token: Any, subject: str = "ada", **more: Any) -> Any:
    """A login that always works."""
    return await client.authenticate(token, subject, authentication=PASSWORD, or_create=True, **more)


async def test_a_login_without_a_live_session_opens_one(client: Either, clock: ManualClock) -> None:
    """No token, nonsense and a dead token each end in a fresh session of the subject, and the answer says why."""
    expired = await client.create(data={"cart": b"1"})
    clock.advance(31 * MINUTE)
    revoked = await client.create(data={"cart": b"1"})
    await client.revoke(token=revoked.token)
    presented = {
        None: Verdict.MALFORMED,
        "": Verdict.MALFORMED,
        "nonsense": Verdict.MALFORMED,
        "A" * 70: Verdict.FORGED,
        expired.token: Verdict.EXPIRED_IDLE,
        revoked.token: Verdict.REVOKED,
    }
    for token, verdict in presented.items():
        answer = await login(client, token)
        assert (answer.verdict, answer.created, answer.presented_verdict) == (Verdict.VALID, True, verdict)
        assert (answer.session.subject, answer.session.authentication.level) == ("ada", 1)
        checked = await client.validate(answer.token, data=True)
        assert checked.valid
        assert checked.data.values == {}
        assert checked.session.session_id == answer.session.session_id
        assert answer.cookies.set_cookie
        await client.revoke(token=answer.token)


async def test_a_login_keeps_the_guests_session(client: Either) -> None:
    """A live anonymous session becomes the subject's, with its cart; nothing is created."""
    guest = await client.create(data={"cart": b"1"})
    answer = await login(client, guest.token)
    assert (answer.created, answer.presented_verdict) == (False, None)
    assert answer.session.session_id == guest.session.session_id
    assert (await client.validate(answer.token, data=True)).data.values == {"cart": b"1"}


async def test_a_login_of_somebody_else_ends_the_session_before(client: Either) -> None:
    """A token of another subject's session: that session ends, and the fresh one has nothing of its data."""
    before = await client.create(subject="ada", data={"cart": b"1"})
    answer = await login(client, before.token, "bob")
    assert (answer.created, answer.presented_verdict) == (True, Verdict.VALID)
    assert answer.session.subject == "bob"
    assert answer.session.session_id != before.session.session_id
    checked = await client.validate(answer.token, data=True, at_least=answer.consistency_token)
    assert (checked.session.subject, checked.data.values) == ("bob", {})
    ended = await client.get(session_id=before.session.session_id)
    assert ended.session.state is SessionState.REVOKED
    assert (await client.validate(before.token)).verdict is Verdict.REVOKED


async def test_without_it_a_login_needs_a_live_session(client: Either) -> None:
    """Without `or_create` no token is MALFORMED and changes nothing, and another subject's session is refused."""
    for token in (None, ""):
        denied = await client.authenticate(token, "ada", authentication=PASSWORD)
        assert (denied.verdict, denied.token, denied.created) == (Verdict.MALFORMED, None, False)
    created = await client.create(subject="ada")
    with pytest.raises(FailedPrecondition, match="another subject; set or_create to open a new one in its place"):
        await client.authenticate(created.token, "bob")
    assert (await client.validate(created.token)).valid
    assert await client.all("list", subject="bob") == []


async def test_an_elevation_opens_nothing(client: Either) -> None:
    """`or_create` and `elevate` together are refused by field, and nothing has changed."""
    created = await client.create(subject="ada", authentication=PASSWORD)
    with pytest.raises(InvalidArgument) as refusal:
        await login(client, created.token, elevate=True)
    assert {violation.field for violation in refusal.value.violations} <= {"or_create", "elevate"}
    assert (await client.validate(created.token)).valid


@pytest.mark.parametrize("or_create", [True, False])
@pytest.mark.parametrize("safe_retries", [True, False])
@pytest.mark.parametrize("kind", CLIENTS)
async def test_two_clicks_are_one_login(
    kind: type[AsyncClient] | type[Client], app: App, safe_retries: bool, or_create: bool
) -> None:
    """Two logins at once with the same guest's token get the same token: one session, with the cart in it."""
    async with Either(kind, app.address, safe_retries=safe_retries) as client:
        guest = await client.create(data={"cart": b"1"})
        one, other = await asyncio.gather(
            *(client.authenticate(guest.token, "ada", authentication=PASSWORD, or_create=or_create) for _ in range(2))
        )
        assert one.token is not None
        assert one.token == other.token
        assert [session.session_id for session in await client.all("list")] == [guest.session.session_id]
        checked = await client.validate(one.token, data=True)
        assert (checked.session.subject, checked.data.values) == ("ada", {"cart": b"1"})


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_login_whose_answer_was_lost_is_made_again(kind: type[AsyncClient] | type[Client], app: App) -> None:
    """After a lost answer the client, which still has the old token, logs in again: the same session, with its cart."""
    async with Either(kind, app.address) as shop:
        guest = await shop.create(data={"cart": b"1"})
        relay = Losing(app.address)
        async with relay.running() as target, Either(kind, target, safe_retries=False) as client:
            with pytest.raises(Unavailable):
                await login(client, guest.token)
            answer = None
            while answer is None:  # gRPC may send a call on the broken connection before it notices
                with suppress(Unavailable):
                    answer = await login(client, guest.token)
        assert relay.breaks == 1
        assert (answer.verdict, answer.created) == (Verdict.VALID, False)
        assert [session.session_id for session in await shop.all("list")] == [guest.session.session_id]
        checked = await shop.validate(answer.token, data=True)
        assert (checked.session.subject, checked.data.values) == ("ada", {"cart": b"1"})


async def test_a_late_second_click_gets_the_same_token(client: Either, clock: ManualClock) -> None:
    """The first answer comes again also after its token is in use; another subject's login does not get it."""
    guest = await client.create()
    first = await login(client, guest.token)
    assert (await client.validate(first.token)).valid
    clock.advance(1_000)
    assert (await login(client, guest.token)).token == first.token
    other = await login(client, guest.token, "bob")
    assert other.token != first.token
    assert other.session.subject == "bob"
