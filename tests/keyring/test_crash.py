"""Crashes amid a change of the key ring: every later start has a ring that opens everything that was acknowledged."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress
from pathlib import Path

from sessiond.crypto.tokens import KEY_BYTES
from sessiond_client import AsyncClient, SealingKeyState, SessiondError, Token
from tests.keyring.rings import key_file, keys_in, prints_in, rotate, states, until_removed
from tests.support.clock import ManualClock
from tests.support.server import ServerProcess, config_for, serving
from tests.support.sidecars import until

ROUNDS = 6


async def test_a_key_in_the_file_that_was_not_recorded(tmp_path: Path, clock: ManualClock) -> None:
    """After a crash between the key file and the commit, the added key opens, seals nothing, and can be promoted."""
    config = config_for(tmp_path)
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        token = (await client.create(subject="ada")).token
    file = config.data / "sessiond.key"
    before = prints_in(file)
    file.write_text(file.read_text() + os.urandom(KEY_BYTES).hex() + "\n")
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        assert await states(client) == [SealingKeyState.SEALING, SealingKeyState.ADDED]
        assert (await client.key_ring()).keys[0].fingerprint == before[0]
        await client.promote_sealing_key()
        assert (await client.validate(token)).valid


async def test_a_promotion_that_is_not_in_the_file(tmp_path: Path, clock: ManualClock) -> None:
    """After a crash between the commit of a promotion and the key file, the promoted key seals."""
    config = config_for(tmp_path)
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        await rotate(client)
        token = (await client.create(subject="ada")).token
        await until(lambda: len(keys_in(key_file(app))) == 2)
    file = config.data / "sessiond.key"
    new, old = prints_in(file)
    file.write_text("".join(f"{line}\n" for line in reversed(file.read_text().split())))
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        assert [key.fingerprint for key in (await client.key_ring()).keys] == [new, old]
        assert (await client.validate(token)).valid
        await until(lambda: prints_in(file) == [new, old])


async def test_a_removed_key_that_is_still_in_the_file(tmp_path: Path, clock: ManualClock) -> None:
    """After a crash between the commit of a removal and the key file, the key is not used, and leaves the file."""
    config = config_for(tmp_path)
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        lost = (await client.create(subject="ada")).token
        old = await rotate(client)
        await until(lambda: len(keys_in(key_file(app))) == 2)
        both = key_file(app).read_text()
        await client.retire_sealing_key(old, log_out_sessions=True)
        await until_removed(client, old)
        token = (await client.create(subject="bob")).token
    file = config.data / "sessiond.key"
    file.write_text(both)
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        assert await states(client) == [SealingKeyState.SEALING]
        assert [(await client.validate(one)).valid for one in (token, lost)] == [True, False]
        await until(lambda: len(keys_in(file)) == 1)


async def test_kills_at_any_moment_of_a_rotation(tmp_path: Path) -> None:
    """After each of several kills amid rotations the server starts, and every session that was opened is valid."""
    tokens, dice = list[Token](), random.Random(35)

    async def rotate_on(client: AsyncClient) -> None:
        while True:
            tokens.append((await client.create(subject="ada")).token)
            keys = (await client.key_ring()).keys
            if len(keys) < 3:
                await client.add_sealing_key()
            tokens.append((await client.create(subject="ada")).token)
            await client.promote_sealing_key(keys[-1].fingerprint if len(keys) > 1 else "")

    for _ in range(ROUNDS):
        server = ServerProcess(tmp_path)
        try:
            async with AsyncClient(await server.address()) as client:
                for token in tokens:
                    assert (await client.validate(token)).valid
                rotating = asyncio.create_task(rotate_on(client))
                wanted = len(tokens) + dice.randint(1, 6)
                await until(lambda wanted=wanted: len(tokens) >= wanted)  # type: ignore[misc]
                await asyncio.sleep(dice.uniform(0.0, 0.03))
                server.kill()
                with suppress(SessiondError):
                    await rotating
        finally:
            server.kill()
    assert len(tokens) >= ROUNDS
