"""Safe retries: what they cost. A change with an id goes through the journal once, as one without does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond.authority.retries import Retries
from sessiond.crypto.tokens import KEY_BYTES, KeyRing
from sessiond.domain.call import Caller
from sessiond.domain.login import Login
from sessiond.domain.values import SessionId
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import MINUTE, VICTIM, create, fresh_id, loose, roll, validate
from tests.support.assembly import WatchedStore, assembled
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

Serving = tuple[WatchedStore, AsyncStub]


@pytest.fixture
async def serving(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Serving]:
    """A client of an authority, and the store below it."""
    async with assembled(tmp_path, clock) as (_, store, stub, _failures):
        yield store, stub


ids = pytest.mark.parametrize(
    "request_id", ["", "3ccc7482-2d80-4333-a312-acb371a8121a"], ids=["without an id", "with an id"]
)


@ids
@pytest.mark.parametrize("subject", ["ada", ""])
async def test_opening_is_one_transaction(serving: Serving, request_id: str, subject: str) -> None:
    """CreateSession goes through the journal once, with an id or without: no token is there that could have changed."""
    store, stub = serving
    mine = await create(stub, subject, request_id=request_id)
    assert mine.token
    assert store.writes == 1


@ids
@pytest.mark.parametrize("name", ["RollSession", "RefreshSession", "UpdateSessionData"])
async def test_a_change_by_a_good_token_is_one_transaction(serving: Serving, request_id: str, name: str) -> None:
    """A change by a token that is plainly VALID goes through the journal once, with an id or without."""
    store, stub = serving
    mine = await create(stub)
    before = store.writes
    answer = await change(stub, name, mine.token, request_id)
    assert answer.verdict == pb.VERDICT_VALID
    assert store.writes == before + 1


@pytest.mark.parametrize("name", ["CreateSession", "RollSession", "RefreshSession", "UpdateSessionData"])
async def test_a_repeat_is_one_transaction(serving: Serving, name: str) -> None:
    """The repeat of a call, which finds its first answer, goes through the journal once as well."""
    store, stub = serving
    mine = await create(stub)
    request_id = fresh_id()
    first = await change(stub, name, mine.token, request_id)
    before = store.writes
    assert await change(stub, name, mine.token, request_id) == first
    assert store.writes == before + 1


async def test_a_validation_is_none(serving: Serving) -> None:
    """The control: what changes nothing goes through no transaction."""
    store, stub = serving
    mine = await create(stub)
    before = store.writes
    assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID
    assert store.writes == before


@ids
async def test_only_a_token_that_is_not_good_is_looked_up(
    serving: Serving, clock: ManualClock, request_id: str
) -> None:
    """For an old token the first answer is looked up before anything is recorded; then the suspicion is, once."""
    store, stub = serving
    mine = await create(stub)
    rolled = await roll(stub, mine.token)
    clock.advance(MINUTE)
    await validate(stub, rolled.token)
    before = store.writes
    answer = await change(stub, "RollSession", mine.token, request_id)
    assert answer.verdict == pb.VERDICT_REPLAYED
    assert store.writes == before + 1 + bool(request_id)


async def change(stub: AsyncStub, name: str, token: str, request_id: str) -> Any:
    """One call, with this id."""
    requests = {
        "CreateSession": loose.CreateSessionRequest(subject="bob"),
        "RollSession": loose.RollSessionRequest(token=token, client=VICTIM),
        "RefreshSession": loose.RefreshSessionRequest(token=token, client=VICTIM),
        "UpdateSessionData": loose.UpdateSessionDataRequest(session={"token": token}, set={"a": b"1"}),
    }
    requests[name].request_id = request_id
    return await getattr(stub, name)(requests[name])


@pytest.mark.parametrize(
    ("elevates", "key", "parameters"),
    [
        (
            False,
            "40363d2140cb5a31228863d81ed826b04ee715ba44f13f6f2fb86ce08c40597d",
            "ce912a1f1a2dd6c43a81e8eb97e905b11e56295802ea1759b52108dbb92971ec",
        ),
        (
            True,
            "52199f6217d960eec89a8e53d267ded258d3ac612abc20e4478751da240e0039",
            "2cea2cd388a770ee71975601ea197c8011dbd68370e24c3beb7af19af2d236e0",
        ),
    ],
    ids=["login", "elevation"],
)
async def test_the_key_of_a_login_never_changes(app: App, elevates: bool, key: str, parameters: str) -> None:
    """A login is found again by every version as by the one that kept its answer, and an elevation is another login."""
    keys = KeyRing([bytes(range(KEY_BYTES))])
    opened = keys.open(keys.seal(SessionId(bytes(range(16))), 7, bytes(range(16, 32))).reveal())
    retries = Retries(app.authority.parts.journal, keys)
    call = app.authority.call("default", Caller("test"), None)
    login = Login("ada", 2, ("pwd", "otp"), persistent=True)
    repeated = retries.repeated_login(call, opened, login, elevates=elevates)
    assert (repeated.key.hex(), repeated.parameters.hex()) == (key, parameters)
    assert repeated.open(repeated.seal(b"message")) == b"message"
    assert (repeated.keep_for, repeated.while_current, repeated.while_live) == (MINUTE, True, False)
