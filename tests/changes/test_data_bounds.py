"""Session data of many keys: bounded, and changed by difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.changes.judging import checked_size, size_of
from sessiond.crypto.session_data import DataCipher
from sessiond.domain.errors import InvalidField
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import authority, create, loose, policy
from tests.rpc.refusals import refusal_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

MOST = 1_000


def update(stub: AsyncStub, created: pb.CreateSessionResponse, **fields: Any) -> Any:
    """A change of the session's data."""
    return stub.UpdateSessionData(loose.UpdateSessionDataRequest(session={"token": created.token}, **fields))


def keys(count: int, prefix: str = "k") -> dict[str, bytes]:
    """So many keys without a value."""
    return {f"{prefix}{number}": b"" for number in range(count)}


async def test_a_session_has_at_most_a_thousand_keys(stub: AsyncStub) -> None:
    """A thousand keys are stored, one more is refused, by a creation and by an update; one that is there may change."""
    refused = await refusal_of(create(stub, data=keys(MOST + 1)))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["data"])
    created = await create(stub, data=keys(MOST))
    refused = await refusal_of(update(stub, created, set={"more": b""}))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["set"])
    assert "1001 keys" in refused.message
    assert (await update(stub, created, set={"k7": b"x"})).version == 2
    assert (await update(stub, created, set={"more": b""}, delete=["k7"])).version == 3


async def test_the_size_is_kept_by_difference(stub: AsyncStub) -> None:
    """However data was changed, the bound on its bytes is met to the byte."""
    most = 64 * 1024
    created = await create(stub, data={"a": bytes(999), "ü": bytes(10)})
    await update(stub, created, set={"a": b"12", "b": bytes(100)}, delete=["ü", "gone"])
    taken = len("a") + 2 + len("b") + 100
    refused = await refusal_of(update(stub, created, set={"c": bytes(most - taken)}))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["set"])
    await update(stub, created, set={"c": bytes(most - taken - 1)})
    refused = await refusal_of(update(stub, created, set={"d": b""}))
    assert refused.fields == ["set"]
    assert (await update(stub, created, set={"d": b""}, delete=["b"])).verdict == pb.VERDICT_VALID


async def test_values_that_stay_are_not_opened(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With encryption an update opens the values that it replaces, and no other, however many there are."""
    async with authority(tmp_path, clock, encrypt_data=True) as (_, stub):
        created = await create(stub, data=keys(500))
        opened: list[str] = []
        ordinary = DataCipher.open

        def watched(self: DataCipher, session_id: Any, key: str, value: bytes) -> bytes:
            opened.append(key)
            return ordinary(self, session_id, key, value)

        monkeypatch.setattr(DataCipher, "open", watched)
        await update(stub, created, set={"k3": b"x", "new": b"y"}, delete=["k4"])
        assert sorted(opened) == ["k3", "k4"]
        opened.clear()
        shown = await update(stub, created, set={"k5": b"x"}, data={})
        assert len(shown.data.values) == 500
        assert len(opened) >= 499


@pytest.mark.parametrize(
    ("keys", "size", "refused"), [(1_000, 500, False), (1_001, 500, True), (1, 500, False), (1, 501, True)]
)
def test_the_bounds_are_met_exactly(keys: int, size: int, refused: bool) -> None:
    """A thousand keys and the policy's bound in bytes are allowed, and not one more; a refusal names the field."""
    rules = policy(max_data_bytes=500)
    if not refused:
        assert checked_size("set", keys, size, rules) == size
        return
    with pytest.raises(InvalidField) as raised:
        checked_size("set", keys, size, rules)
    assert raised.value.field == "set"


@pytest.mark.parametrize(("value", "size"), [(None, 0), (b"", 3), (b"12", 5)])
def test_what_a_key_takes(value: bytes | None, size: int) -> None:
    """A key takes its own bytes in UTF-8 and those of its value, and nothing if it is not there."""
    assert size_of("kü", value) == size
