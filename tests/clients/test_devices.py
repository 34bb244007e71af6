"""What a "your devices" page is made of: sessions with their devices, labels and timeouts, ended by their owner."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sessiond_client import (
    Authentication,
    ClientContext,
    DeviceType,
    EventType,
    InvalidArgument,
    Lifetimes,
    NotFound,
    SessionState,
    Verdict,
)
from tests.clients.either import Either
from tests.support.clock import ManualClock

LAPTOP = ClientContext(
    ip_address="192.0.2.10", user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
)
UPDATED = ClientContext(
    ip_address="192.0.2.77", user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0"
)
PHONE = ClientContext(
    ip_address="198.51.100.7",
    user_agent="Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/18.6 Mobile/15E148 Safari/604.1",
)
MINUTE = 60_000


async def test_a_devices_page_needs_nothing_but_a_list(client: Either, clock: ManualClock) -> None:
    """`list(subject=...)` has each device in words, and where it was opened and last seen."""
    laptop = await client.create(subject="ada", client=LAPTOP)
    clock.advance(1)
    await client.create(subject="ada", client=PHONE)
    await client.create(subject="bob", client=LAPTOP)
    clock.advance(5 * MINUTE)
    assert (await client.validate(laptop.token, client=UPDATED)).valid
    phone, computer = await client.all("list", subject="ada")
    assert (computer.device.description, computer.device.type) == ("Firefox 140 on Linux", DeviceType.DESKTOP)
    assert (computer.client, computer.last_client.ip_address) == (LAPTOP, "192.0.2.77")
    assert computer.last_client.user_agent == UPDATED.user_agent
    assert (computer.last_device.description, computer.last_device.type) == (
        "Firefox 141 on Linux",
        DeviceType.DESKTOP,
    )
    assert computer.last_active_time > phone.last_active_time
    assert (phone.device.type, phone.client.ip_address) == (DeviceType.PHONE, PHONE.ip_address)
    assert phone.device.description


async def test_a_session_that_nobody_described_has_no_device(client: Either) -> None:
    """Without a client context there is nothing to describe, and nothing is made up."""
    session = (await client.create(subject="ada")).session
    assert session.last_client is None
    assert not session.device or (session.device.description, session.device.type) == ("", DeviceType.UNSPECIFIED)


async def test_nobody_ends_anybody_elses_session(client: Either) -> None:
    """With the owner demanded, another subject's session is not found and lives on; one's own ends."""
    own, other = await client.create(subject="ada"), await client.create(subject="bob")
    guest = await client.create()
    for foreign in (other, guest):
        with pytest.raises(NotFound):
            await client.revoke(session_id=foreign.session.session_id, subject="ada")
        assert (await client.validate(foreign.token)).valid
    assert (await client.revoke(session_id=own.session.session_id, subject="ada")).revoked
    with pytest.raises(NotFound):
        await client.revoke(session_id=other.session.session_id, subject="")
    assert (await client.revoke(session_id=guest.session.session_id, subject="")).revoked


async def test_labels_are_set_added_to_and_filtered_by(client: Either) -> None:
    """A session has the labels of its opening and its login; lists and revocations take those that have all of them."""
    acme = await client.create(subject="ada", labels={"tenant": "acme", "idp.sid": "s-1"})
    await client.create(subject="ada", labels={"tenant": "other"})
    plain = await client.create(subject="bob")
    assert acme.session.labels == {"tenant": "acme", "idp.sid": "s-1"}
    login = await client.authenticate(plain.token, "bob", labels={"tenant": "acme"})
    again = await client.authenticate(login.token, "bob", labels={"region": "eu"})
    assert again.session.labels == {"tenant": "acme", "region": "eu"}
    found = await client.all("list", labels={"tenant": "acme"})
    assert sorted(session.subject for session in found) == ["ada", "bob"]
    both = await client.all("list", labels={"tenant": "acme", "region": "eu"})
    assert [session.subject for session in both] == ["bob"]
    ended = await client.revoke_all(labels={"idp.sid": "s-1"}, reason="back-channel logout")
    assert ended.revoked_count == 1
    assert (await client.get(session_id=acme.session.session_id)).session.state is SessionState.REVOKED
    assert (await client.validate(again.token)).valid


async def test_events_have_labels_and_are_filtered_by_them(client: Either) -> None:
    """A stream under a filter of labels brings the events of sessions that have all of them, with the labels."""
    for labels in ({"tenant": "other"}, {"tenant": "acme", "region": "eu"}, {}):
        created = await client.create(subject="ada", labels=labels)
        await client.revoke(token=created.token)
    async with client.follow(start="earliest", labels={"tenant": "acme"}) as stream:
        opened, ended = await stream.take(2)
    assert [opened.type, ended.type] == [EventType.SESSION_CREATED, EventType.SESSION_REVOKED]
    assert opened.labels == ended.labels == {"tenant": "acme", "region": "eu"}
    assert [event.labels.get("tenant") for event in await client.all("activity", "ada")] == [
        *(None, None),
        *("acme", "acme"),
        *("other", "other"),
    ]


@pytest.mark.parametrize(
    "labels",
    [{str(number): "x" for number in range(9)}, {"Tenant": "x"}, {"k" * 65: "x"}, {"k": ""}, {"k": "v" * 257}],
    ids=["nine", "capital letter", "long key", "empty value", "long value"],
)
async def test_labels_out_of_bounds_are_refused(client: Either, labels: dict[str, str]) -> None:
    """Too many labels, and labels of another form, are InvalidArgument, by field, and open nothing."""
    with pytest.raises(InvalidArgument) as refusal:
        await client.create(subject="ada", labels=labels)
    assert all(violation.field.startswith("labels") for violation in refusal.value.violations)
    assert refusal.value.violations
    assert await client.all("list") == []


async def test_a_session_may_end_earlier_than_the_policy_says(client: Either, clock: ManualClock) -> None:
    """Own timeouts that are shorter count from opening, login and refresh on; longer ones have no effect."""
    short = Lifetimes(idle_timeout=timedelta(minutes=5), absolute_timeout=timedelta(hours=1))
    created = await client.create(subject="ada", lifetimes=short)
    session = created.session
    assert session.lifetimes == short
    assert session.idle_expire_time - session.last_active_time == timedelta(minutes=5)
    assert session.absolute_expire_time - session.create_time == timedelta(hours=1)
    shorter = await client.refresh(created.token, lifetimes=Lifetimes(idle_timeout=timedelta(minutes=2)))
    assert shorter.session.idle_expire_time - shorter.session.last_active_time == timedelta(minutes=2)
    kept = await client.refresh(created.token)
    assert kept.session.idle_expire_time - kept.session.last_active_time == timedelta(minutes=2)
    clock.advance(2 * MINUTE)
    assert (await client.validate(created.token)).verdict is Verdict.EXPIRED_IDLE
    long = await client.create(
        subject="ada", lifetimes=Lifetimes(idle_timeout=timedelta(days=9), absolute_timeout=timedelta(days=9))
    )
    assert long.session.idle_expire_time - long.session.last_active_time == timedelta(minutes=30)
    assert long.session.absolute_expire_time - long.session.create_time == timedelta(hours=8)


async def test_a_login_may_shorten_a_session(client: Either) -> None:
    """Own timeouts of a login count from the login on; without them the session's own stay."""
    guest = await client.create(lifetimes=Lifetimes(idle_timeout=timedelta(minutes=5)))
    kept = await client.authenticate(guest.token, "ada", authentication=Authentication(level=1))
    assert kept.session.idle_expire_time - kept.session.last_active_time == timedelta(minutes=5)
    login = await client.authenticate(
        kept.token,
        "ada",
        authentication=Authentication(level=1),
        lifetimes=Lifetimes(absolute_timeout=timedelta(minutes=20)),
    )
    assert login.session.absolute_expire_time - login.session.authentication.authenticate_time == timedelta(minutes=20)


async def test_a_timeout_of_no_time_is_refused(client: Either) -> None:
    """Own timeouts are at least a second; a shorter one is refused by field."""
    with pytest.raises(InvalidArgument) as refusal:
        await client.create(lifetimes=Lifetimes(idle_timeout=timedelta(milliseconds=999)))
    assert [violation.field for violation in refusal.value.violations] == ["lifetimes.idle_timeout"]
