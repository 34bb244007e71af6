"""A page "your devices": the list of a subject's sessions contains everything that it shows, and stays correct."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond.domain.values import SessionId
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import HOUR, MINUTE, authority, create, login, loose, millis, validate
from tests.rpc.refusals import session_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

DESK = pb.ClientContext(
    ip_address="192.0.2.10",
    user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
)
TRAIN = pb.ClientContext(ip_address="2001:db8::7", user_agent=DESK.user_agent)
PHONE = pb.ClientContext(
    ip_address="198.51.100.7",
    user_agent="Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1",
)


async def devices_of(stub: AsyncStub, subject: str = "ada") -> list[pb.Session]:
    """Return what the page shows."""
    return list((await stub.ListSessions(loose.ListSessionsRequest(filter={"subject": subject}))).sessions)


def addresses(session: pb.Session) -> tuple[str, str]:
    """Return the addresses at which a session was opened and last used."""
    return session.client.ip_address, session.last_client.ip_address


async def test_the_list_alone_makes_the_page(stub: AsyncStub, clock: ManualClock) -> None:
    """The list has the device, address and time of each session's opening and last use, its name and its level."""
    phone = await create(stub, client=PHONE, authentication={"level": 2, "methods": ["hwk"]})
    clock.advance(MINUTE)
    desk = await create(stub, client=DESK, labels={"device": "Work PC"})
    await create(stub, "bob", client=PHONE)
    clock.advance(MINUTE)
    await validate(stub, desk.token, TRAIN)
    first, second = await devices_of(stub)
    assert (first.session_id, second.session_id) == (desk.session.session_id, phone.session.session_id)
    assert (first.device.description, first.device.type) == ("Firefox 140 on Linux", pb.DEVICE_TYPE_DESKTOP)
    assert (first.last_device.description, first.last_device.type) == ("Firefox 140 on Linux", pb.DEVICE_TYPE_DESKTOP)
    assert addresses(first) == ("192.0.2.10", "2001:db8::7")
    assert (millis(first.last_active_time), dict(first.labels)) == (clock.now(), {"device": "Work PC"})
    assert (second.device.description, second.device.type) == ("Safari 17 on iPhone", pb.DEVICE_TYPE_PHONE)
    assert addresses(second) == ("198.51.100.7", "198.51.100.7")
    assert (millis(second.create_time), millis(second.last_active_time)) == (clock.now() - 2 * MINUTE,) * 2
    assert (second.authentication.level, list(second.authentication.methods)) == (2, ["hwk"])


USES: dict[str, Callable[[AsyncStub, str, pb.ClientContext], Awaitable[Any]]] = {
    "validate": validate,
    "validate many": lambda stub, token, client: stub.ValidateSessions(
        loose.ValidateSessionsRequest(requests=[{"token": token, "client": client}])
    ),
    "validate with data": lambda stub, token, client: validate(stub, token, client, data={}),
    "refresh": lambda stub, token, client: stub.RefreshSession(pb.RefreshSessionRequest(token=token, client=client)),
    "roll": lambda stub, token, client: stub.RollSession(pb.RollSessionRequest(token=token, client=client)),
    "login": lambda stub, token, client: login(stub, token, client=client),
    "elevate": lambda stub, token, client: login(stub, token, client=client, elevate=True),
}
use = pytest.mark.parametrize("name", USES)


@use
@pytest.mark.parametrize("wait", [1, MINUTE, 29 * MINUTE])
async def test_every_activity_is_seen(stub: AsyncStub, clock: ManualClock, name: str, wait: int) -> None:
    """Any activity shows its address, whether or not it is written to the store at once."""
    own = await create(stub, client=DESK)
    clock.advance(wait)
    await USES[name](stub, own.token, TRAIN)
    (shown,) = await devices_of(stub)
    assert (millis(shown.last_active_time), shown.last_client.ip_address) == (clock.now(), "2001:db8::7")
    assert shown == await session_of(stub, own.session.session_id)


@use
@pytest.mark.parametrize("nobody", [None, pb.ClientContext(), pb.ClientContext(device_id="desk")])
@pytest.mark.parametrize("wait", [1, 29 * MINUTE])
async def test_who_tells_nothing_hides_nobody(
    stub: AsyncStub, clock: ManualClock, name: str, nobody: pb.ClientContext | None, wait: int
) -> None:
    """Activity without an address and a user agent keeps the last known ones, stored or not."""
    own = await create(stub, client=DESK)
    clock.advance(1)
    await validate(stub, own.token, TRAIN)
    clock.advance(wait)
    await USES[name](stub, own.token, nobody)  # type: ignore[arg-type]  # None: the field is not set
    (shown,) = await devices_of(stub)
    assert (millis(shown.last_active_time), shown.last_client.ip_address) == (clock.now(), "2001:db8::7")


async def test_a_look_is_no_activity(stub: AsyncStub, clock: ManualClock) -> None:
    """Passive validations, reads and denied requests do not change the last client."""
    own = await create(stub, client=DESK)
    clock.advance(MINUTE)
    named = {"token": own.token}
    await validate(stub, own.token, TRAIN, passive=True)
    await validate(stub, own.token, TRAIN, requirements={"min_level": 3})
    await stub.GetSessionData(loose.GetSessionDataRequest(session=named))
    await stub.IssueCompanionToken(loose.IssueCompanionTokenRequest(token=own.token, purpose="pay", client=TRAIN))
    (shown,) = await devices_of(stub)
    assert addresses(shown) == ("192.0.2.10", "192.0.2.10")
    assert millis(shown.last_active_time) == clock.now() - MINUTE


async def test_the_answer_shows_its_own_client(stub: AsyncStub, clock: ManualClock) -> None:
    """A validation's response shows its own activity: its time and its address."""
    own = await create(stub, client=DESK)
    for client in (TRAIN, DESK, TRAIN, TRAIN):
        clock.advance(1)
        page = await validate(stub, own.token, client)
        assert (millis(page.session.last_active_time), page.session.last_client.ip_address) == (
            clock.now(),
            client.ip_address,
        )
        assert page.session.last_device.description == "Firefox 140 on Linux"


async def test_what_is_kept_of_the_last_client(stub: AsyncStub, clock: ManualClock) -> None:
    """Of the last client only address and user agent are shown; device id and certificate are those at the opening."""
    home = pb.ClientContext(ip_address="192.0.2.10", user_agent=DESK.user_agent, device_id="desk")
    own = await create(stub, client=home)
    clock.advance(MINUTE)
    await validate(stub, own.token, pb.ClientContext(ip_address="192.0.2.11", device_id="desk"))
    (shown,) = await devices_of(stub)
    assert shown.last_client == pb.ClientContext(ip_address="192.0.2.11")
    assert shown.last_device.description == ""
    assert shown.client == home


async def test_without_any_client(stub: AsyncStub, clock: ManualClock) -> None:
    """A session without a known client shows none, until the first one is reported."""
    own = await stub.CreateSession(loose.CreateSessionRequest(subject="ada"))
    clock.advance(MINUTE)
    await stub.ValidateSession(loose.ValidateSessionRequest(token=own.token))
    (shown,) = await devices_of(stub)
    for field in ("client", "device", "last_client", "last_device"):
        assert not shown.HasField(field)
    clock.advance(1)
    await validate(stub, own.token, PHONE)
    (shown,) = await devices_of(stub)
    assert (shown.HasField("client"), shown.last_device.description) == (False, "Safari 17 on iPhone")


@pytest.mark.parametrize("last", [None, TRAIN], ids=["told nothing", "told again"])
async def test_it_survives_a_restart(tmp_path: Path, clock: ManualClock, last: pb.ClientContext | None) -> None:
    """After a restart the page shows the same as before, including activity that was not written at once."""
    async with authority(tmp_path, clock) as (_, stub):
        own = await create(stub, client=DESK, labels={"device": "Work PC"})
        clock.advance(1)
        await validate(stub, own.token, TRAIN)
        clock.advance(1)
        await validate(stub, own.token, last)  # type: ignore[arg-type]  # None: the field is not set
        before = await devices_of(stub)
    async with authority(tmp_path, clock) as (_, stub):
        assert await devices_of(stub) == before
        assert addresses(before[0]) == ("192.0.2.10", "2001:db8::7")


async def test_a_leap_in_time_forgets_nobody(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """A machine that slept past the stored deadline keeps the session and the address of its last activity."""
    own = await create(stub, client=DESK)
    clock.advance(50_000)
    await validate(stub, own.token, TRAIN)
    clock.advance(30 * MINUTE - 1)
    await app.sweeper.sweep()
    (shown,) = await devices_of(stub)
    assert addresses(shown) == ("192.0.2.10", "2001:db8::7")
    stored = await app._store.session(SessionId.parse(own.session.session_id))
    assert stored is not None
    assert stored.last_client.ip_address == "2001:db8::7"


async def test_ended_sessions_keep_their_devices(stub: AsyncStub, clock: ManualClock) -> None:
    """Expired and revoked sessions show their devices too, each in its own list."""
    idle = await create(stub, client=PHONE)
    gone = await create(stub, client=DESK)
    clock.advance(1)
    await validate(stub, gone.token, TRAIN)
    await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": gone.token}))
    clock.advance(HOUR)
    for state, session, last in (
        (pb.SESSION_STATE_EXPIRED, idle, "198.51.100.7"),
        (pb.SESSION_STATE_REVOKED, gone, "2001:db8::7"),
    ):
        request = loose.ListSessionsRequest(filter={"subject": "ada", "state": state})
        (shown,) = (await stub.ListSessions(request)).sessions
        assert (shown.session_id, shown.last_client.ip_address) == (session.session.session_id, last)
