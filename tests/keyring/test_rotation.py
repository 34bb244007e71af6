"""Rotating the keys of a running server over SQLite, from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from sessiond.app import App
from sessiond.crypto.tokens import KeyRing, TokenForged
from sessiond_client import (
    AsyncClient,
    EventType,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SealingKeyState,
    Token,
    Verdict,
)
from tests.keyring.rings import key_file, prints_in, rotate, states, until_removed
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving
from tests.support.sidecars import until

HOUR = 3_600_000


@pytest.fixture
async def client(app: App) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(app.address) as client:
        yield client


async def test_a_new_server_has_one_sealing_key(client: AsyncClient) -> None:
    """A new server's ring has one key, which seals, and the calls change the ring."""
    ring = await client.key_ring()
    assert [key.state for key in ring.keys] == [SealingKeyState.SEALING]
    assert len(ring.keys[0].fingerprint) == 32
    assert ring.keys[0].live_tokens is None
    assert not ring.change


async def test_a_whole_rotation_keeps_every_session(app: App, client: AsyncClient, clock: ManualClock) -> None:
    """Through add, promote and retire a session stays valid with the token that it has, and so does its next token."""
    created = await client.create(subject="ada")
    old = await rotate(client)
    assert await states(client) == [SealingKeyState.SEALING, SealingKeyState.OPENING]
    assert (await client.validate(created.token)).valid
    with pytest.raises(FailedPrecondition, match="1 live session may have a token"):
        await client.retire_sealing_key(old)
    token: Token = created.token
    for _ in range(9):  # past the renewal of an hour, and past the idle timeout after it
        clock.advance(HOUR // 4)
        answer = await client.validate(token)
        assert answer.valid
        token = answer.renewed_token or token
    assert token != created.token
    (sealing, opening) = (await client.key_ring()).keys
    assert (sealing.live_tokens, opening.live_tokens) == (None, 0)
    await client.retire_sealing_key(old[:8])
    await until_removed(client, old)
    assert (await client.validate(token)).valid
    assert len(key_file(app).read_text().split()) == 1


async def test_which_sessions_keep_a_key(client: AsyncClient, clock: ManualClock) -> None:
    """Sessions from before a promotion count, with the end of the last; ended and later ones do not."""
    first, second, ended = [await client.create(subject="ada") for _ in range(3)]
    clock.advance(60_000)
    await rotate(client)
    clock.advance(60_000)
    await client.create(subject="later")
    await client.revoke(token=ended.token)
    (_, old) = (await client.key_ring()).keys
    assert old.live_tokens == 2
    ends = [created.session.absolute_expire_time for created in (first, second)]
    assert old.tokens_end_time == max(end for end in ends if end is not None)
    await client.roll(first.token)
    await client.authenticate(second.token, "ada")
    assert (await client.key_ring()).keys[1].live_tokens == 0  # a roll shows when the token was sealed


async def test_tokens_of_the_promoted_key_are_not_opened_by_the_old_one(app: App, client: AsyncClient) -> None:
    """After a promotion new tokens are sealed with the new key alone: the first key of the file opens them."""
    old = KeyRing([bytes.fromhex(key_file(app).read_text().strip())])
    await rotate(client)
    token = (await client.create(subject="ada")).token
    assert token is not None
    with pytest.raises(TokenForged):
        old.open(token.reveal())
    first, second = key_file(app).read_text().split()
    KeyRing([bytes.fromhex(first)]).open(token.reveal())
    assert bytes.fromhex(second) in old.materials()


async def test_the_key_file_is_readable_by_its_user_alone(app: App, client: AsyncClient) -> None:
    """After each change the key file has mode 0600, and nothing of it lies beside it."""
    await rotate(client)
    assert key_file(app).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key_file(app).parent.glob(".sessiond.key*")] == []


async def test_each_change_is_an_event(client: AsyncClient) -> None:
    """Adding, promoting, retiring and removing are events that name the caller and fingerprints, and no key."""
    old = await rotate(client)
    new = (await client.key_ring()).keys[0].fingerprint
    await client.retire_sealing_key(old, log_out_sessions=True, reason="ticket 17")
    await until_removed(client, old)
    reasons = []
    async with client.events(start="earliest", applications=(), types=[EventType.KEY_RING_CHANGED]) as events:
        async for event in events:
            reasons.append(event.cause.reason)
            if len(reasons) == 4:
                break
    assert reasons == [
        f"added {new[:8]}",
        f"promoted {new[:8]}, which replaces {old[:8]}",
        f"began to retire {old[:8]}, even if that logs out sessions; ticket 17",
        f"removed {old[:8]}: nothing needs it any more",
    ]


async def test_a_key_that_is_removed_by_force_logs_out(app: App) -> None:
    """Once a key was removed by force, tokens of it are FORGED, also those that the fast path has answered before."""
    async with AsyncClient(app.address, coalesce=False) as client:
        created = await client.create(subject="ada")
        assert [(await client.validate(created.token)).verdict for _ in range(3)] == [Verdict.VALID] * 3
        old = await rotate(client)
        assert (await client.validate(created.token)).verdict is Verdict.VALID
        await client.retire_sealing_key(old, log_out_sessions=True)
        await until_removed(client, old)
        assert (await client.validate(created.token)).verdict is Verdict.FORGED


async def test_a_near_cache_forgets_what_a_removed_key_sealed(app: App) -> None:
    """A near cache does not answer for a token whose key was removed by force."""
    async with AsyncClient(app.address, near_cache=True) as near, AsyncClient(app.address) as client:
        created = await client.create(subject="ada")

        async def is_near() -> bool:
            before = near.near_cache
            await near.validate(created.token)
            after = near.near_cache
            return before is not None and after is not None and after.hits > before.hits

        await until(is_near)
        old = await rotate(client)
        await until(is_near)
        await client.retire_sealing_key(old, log_out_sessions=True)

        async def is_forged() -> bool:
            return (await near.validate(created.token)).verdict is Verdict.FORGED

        await until(is_forged)


async def test_refusals(client: AsyncClient) -> None:
    """The sealing key stays, unknown keys are not found, and a fourth key is refused."""
    (only,) = (await client.key_ring()).keys
    with pytest.raises(FailedPrecondition, match="is the sealing key"):
        await client.retire_sealing_key(only.fingerprint)
    with pytest.raises(FailedPrecondition, match="is the sealing key already"):
        await client.promote_sealing_key(only.fingerprint)
    with pytest.raises(NotFound, match="no key starts with 00000000; the keys are"):
        await client.promote_sealing_key("00000000")
    for _ in range(2):
        await client.add_sealing_key()
    with pytest.raises(FailedPrecondition, match="has 3 keys"):
        await client.add_sealing_key()


async def test_a_retry_adds_no_second_key(app: App, client: AsyncClient) -> None:
    """An addition that is repeated with its request id adds one key, and leaves one in the file."""
    request = "2b0b2e4e-9d4c-4b7e-8a6b-0d1f8a1f0c11"
    first = await client.add_sealing_key(request_id=request)
    again = await client.add_sealing_key(request_id=request)
    assert first.key.fingerprint == again.key.fingerprint
    assert len((await client.key_ring()).keys) == len(key_file(app).read_text().split()) == 2


async def test_a_key_that_was_never_promoted_is_removed_at_once(app: App, client: AsyncClient) -> None:
    """Retiring a key that has sealed nothing removes it immediately, from the file too."""
    added = await client.add_sealing_key()
    changed = await client.retire_sealing_key(added.key.fingerprint)
    assert changed.key.state is SealingKeyState.RETIRED
    assert await states(client) == [SealingKeyState.SEALING]
    assert len(key_file(app).read_text().split()) == 1


async def test_the_ring_survives_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    """After a restart the ring is as it was, and tokens of both keys are valid."""
    config = config_for(tmp_path)
    tokens: list[Token] = []
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        tokens.append((await client.create(subject="ada")).token)
        await rotate(client)
        tokens.append((await client.create(subject="ada")).token)
        before = [(key.fingerprint, key.state) for key in (await client.key_ring()).keys]
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        assert [(key.fingerprint, key.state) for key in (await client.key_ring()).keys] == before
        assert [(await client.validate(token)).valid for token in tokens] == [True, True]


async def test_a_repeated_call_gets_the_first_answer(app: App, client: AsyncClient) -> None:
    """A repeat of a call with its id is answered as the first one, also if the ring would refuse the call by now."""
    await client.add_sealing_key()
    ids = [str(uuid4()) for _ in range(2)]
    added = await client.add_sealing_key(request_id=ids[0])  # the third one: there is no room for another
    again = await client.add_sealing_key(request_id=ids[0])
    assert again.key.fingerprint == added.key.fingerprint
    retired = await client.retire_sealing_key(added.key.fingerprint, request_id=ids[1])  # it is gone at once
    assert await client.retire_sealing_key(added.key.fingerprint, request_id=ids[1]) == retired
    assert len(key_file(app).read_text().split()) == 2


async def test_a_refused_addition_leaves_no_key(app: App, client: AsyncClient) -> None:
    """If an addition is refused for whatever reason, its key is in no file, and there is room for the next ones."""
    used = str(uuid4())
    await client.add_sealing_key()
    await client.promote_sealing_key(request_id=used)
    with pytest.raises(InvalidArgument, match="request_id"):
        await client.add_sealing_key(request_id=used)
    assert len(key_file(app).read_text().split()) == 2
    await client.add_sealing_key()


async def test_what_an_unknown_outcome_left_is_forgotten(app: App, client: AsyncClient) -> None:
    """A key that is held, and that the store does not know, does not take the place of the next one."""
    keeper = app._keeper
    for number in range(2):
        keeper.hold(bytes([number]) * 64)
    await keeper.save()
    assert len(key_file(app).read_text().split()) == 3
    added = await client.add_sealing_key()
    assert sorted(prints_in(key_file(app))) == sorted(key.fingerprint for key in (await client.key_ring()).keys)
    assert added.key.fingerprint in prints_in(key_file(app))
