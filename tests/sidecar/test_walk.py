"""A random walk over an authority and two sidecars: none of the three ever accepts what has been revoked."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sessiond_client import AsyncClient, Verdict
from tests.support.server import config_for, serving
from tests.support.sidecars import beside, is_open, until

STEPS = 400


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_sidecar_accepts_what_was_revoked(tmp_path: Path, seed: int) -> None:
    """What was revoked with a wait is refused everywhere, and otherwise where it was revoked; own writes are seen."""
    dice = random.Random(seed)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with (
        serving(config_for(tmp_path)) as app,
        beside(app.address, tmp_path / "a") as first,
        beside(app.address, tmp_path / "b") as second,
        AsyncClient(app.address) as direct,
        AsyncClient(first.address) as one,
        AsyncClient(second.address) as other,
    ):
        for sidecar in (first, second):
            await until(lambda sidecar=sidecar: is_open(sidecar))  # type: ignore[misc]
        places = [direct, one, other]
        live: dict[str, str] = {}  # the token of each session
        refused: list[tuple[str, set[int]]] = []  # a token, and where it must be refused
        for _ in range(STEPS):
            here = dice.randrange(len(places))
            place = places[here]
            step = dice.choice(["create", "validate", "validate", "validate", "revoke", "write"])
            session = dice.choice(list(live)) if live else ""
            if step == "create" or not session:
                created = await place.create(subject=f"user-{dice.randrange(5)}", data={"n": b"0"})
                live[created.session.session_id] = created.token.reveal()
            elif step == "validate":
                assert (await place.validate(live[session])).verdict is Verdict.VALID
            elif step == "write":
                await place.validate(live[session], data=True)
                written = await place.update_data(session_id=session, set={"n": str(dice.random()).encode()})
                seen = (await place.validate(live[session], data=True)).data
                assert seen is not None
                assert seen.version == written.version
            else:
                token = live.pop(session)
                for each in places:
                    await each.validate(token)
                awaited = dice.random() < 0.5
                await place.revoke(session_id=session, wait_for_caches=awaited)
                refused.append((token, set(range(len(places))) if awaited else {0, here}))
            for token, where in refused[-5:]:
                verdict = (await place.validate(token)).verdict
                assert verdict is Verdict.REVOKED or (here not in where and verdict is Verdict.VALID)
                if verdict is Verdict.REVOKED:
                    where.add(here)
        assert first.cache.stats().hits
        assert second.cache.stats().hits


async def test_a_near_cache_behind_a_sidecar(tmp_path: Path) -> None:
    """A client with a near cache works through a sidecar: it follows the authority, and an awaited revocation holds."""
    async with (
        serving(config_for(tmp_path)) as app,
        beside(app.address, tmp_path) as sidecar,
        AsyncClient(app.address) as direct,
        AsyncClient(sidecar.address, near_cache=True) as near,
    ):
        created = await direct.create(subject="ada")

        async def is_near() -> bool:
            await near.validate(created.token)
            assert near.near_cache is not None
            return near.near_cache.hits > 0

        await until(is_near)
        await direct.revoke(session_id=created.session.session_id, wait_for_caches=True)
        assert (await near.validate(created.token)).verdict is Verdict.REVOKED
