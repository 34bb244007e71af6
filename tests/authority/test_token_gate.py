"""The token gate: what is counted for whom."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sessiond.domain.call import Caller
from sessiond.domain.guess_limits import GuessLimits
from sessiond.store.contract import StoreFailed
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import authority, kinds, loose, policy, story_of, validate
from tests.support.assembly import assembled
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

RULES = policy(guessing=GuessLimits(alarm_after=3, lock_after=6, flood_after=10))
HERE = pb.ClientContext(ip_address="203.0.113.66")


@pytest.fixture
async def stub(tmp_path: Path, clock: ManualClock) -> AsyncIterator[AsyncStub]:
    """A client of an authority with two applications that have the same limits."""
    async with authority(tmp_path, clock, RULES, extra={"shop": RULES}) as (_, stub):
        yield stub


async def guesses(stub: AsyncStub, application: str, *clients: pb.ClientContext) -> list[tuple[str, str, str]]:
    """Guess once from each client; kind, application and source of all events so far."""
    for client in clients:
        answer = await validate(stub, "guess", client, application=application)
        assert answer.verdict == pb.VERDICT_MALFORMED
    # A list of the locks waits for those that are being recorded.
    await stub.ListSourceLocks(loose.ListSourceLocksRequest(application=application))
    return [(kinds([event])[0], event.application, event.source) for event in await story_of(stub)]


def everywhere(count: int) -> list[pb.ClientContext]:
    """So many clients at addresses of their own."""
    return [pb.ClientContext(ip_address=f"198.18.0.{number}") for number in range(count)]


async def test_a_flood_is_one_applications(stub: AsyncStub) -> None:
    """Guesses from many sources are added up for each application by itself, and its alarm names the application."""
    assert await guesses(stub, "default", *everywhere(9)) == []
    assert await guesses(stub, "shop", *everywhere(9)) == []
    flood = ("GUESSING_SUSPECTED", "shop", "*")
    assert await guesses(stub, "shop", *everywhere(1)) == [flood]
    assert await guesses(stub, "default", *everywhere(1)) == [flood, ("GUESSING_SUSPECTED", "default", "*")]


async def test_a_source_is_one_applications(stub: AsyncStub) -> None:
    """Guesses from one source are added up for each application by itself, as are its alarms and its lock."""
    source = "203.0.113.66/32"
    alarm, lock = ("GUESSING_SUSPECTED", "shop", source), ("SOURCE_LOCKED", "shop", source)
    assert await guesses(stub, "default", HERE, HERE) == []
    assert await guesses(stub, "shop", HERE, HERE) == []
    assert await guesses(stub, "shop", HERE) == [alarm]
    assert await guesses(stub, "shop", HERE, HERE) == [alarm]
    assert await guesses(stub, "shop", HERE) == [alarm, lock]
    locks = {
        name: (await stub.ListSourceLocks(loose.ListSourceLocksRequest(application=name))).source_locks
        for name in ("default", "shop")
    }
    assert {name: [lock.source for lock in found] for name, found in locks.items()} == {"default": [], "shop": [source]}


async def test_an_alarm_that_cannot_be_recorded(tmp_path: Path, clock: ManualClock) -> None:
    """If the store fails under an alarm, the journal reports that, and the event loop has nothing to report."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    failure = StoreFailed("injected: disk I/O error")

    def fail(name: str) -> None:
        if name == "write":
            raise failure

    async with assembled(tmp_path, clock, RULES) as (authority, store, stub, failures):
        store.before = fail
        for _ in range(3):
            assert (await validate(stub, "guess", HERE)).verdict == pb.VERDICT_MALFORMED
        assert await authority.parts.gate.locks(authority.call("default", Caller("test"), None)) == []
    gc.collect()
    assert (failures, complaints) == ([failure], [])
