"""What one caller of a sidecar can cost the others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from sessiond.app import App
from sessiond.domain.errors import Overloaded
from sessiond.rpc.arrivals import ArrivalBounds
from sessiond.rpc.heavy import HEAVY_BYTES
from sessiond.sidecar.held import HeldBytes
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.rpc.unfinished import Unfinished
from tests.sidecar.scripted import SERVICE, outcome_of
from tests.support.server import stub_for
from tests.support.sidecars import PATIENCE, beside

RESOURCE_EXHAUSTED = "8"
MESSAGE = b"x" * 1000


@pytest.mark.parametrize("name", ["ValidateSession", "GetSession", "Subscribe", "Follow"])
async def test_messages_that_do_not_end(tmp_path: Path, app: App, name: str) -> None:
    """In each kind of call, a message that keeps others of its connection waiting is refused; nobody else waits."""
    number = 2 * ArrivalBounds().by_peer
    async with (
        beside(app.address, tmp_path, listen="127.0.0.1:0") as sidecar,
        stub_for(sidecar.address) as stub,
        Unfinished.to(sidecar.address) as slow,
    ):
        streams = [await slow.call(SERVICE + name, MESSAGE) for _ in range(number)]
        assert (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"), timeout=PATIENCE)).token
        assert slow.statuses == {}
        assert await asyncio.wait_for(slow.ended(streams[0]), PATIENCE) == [RESOURCE_EXHAUSTED]
        assert (await stub.GetAuthority(pb.GetAuthorityRequest(), timeout=PATIENCE)).version


async def test_too_large_a_message(tmp_path: Path, app: App) -> None:
    """A message over 4 MB is RESOURCE_EXHAUSTED, as at the authority."""
    large = b"x" * (4 * 1024 * 1024 + 1)
    async with beside(app.address, tmp_path) as sidecar:
        for address in (app.address, sidecar.address):
            code, *_ = await outcome_of(address, SERVICE + "ValidateSession", large)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_held_bytes() -> None:
    """Large messages on their way are counted in total and by connection; small ones are not."""
    held = HeldBytes(4 * HEAVY_BYTES)
    with held.counted("a", HEAVY_BYTES), held.counted("a", HEAVY_BYTES), held.counted("a", HEAVY_BYTES - 1):
        with pytest.raises(Overloaded, match="too many large messages"), held.counted("a", HEAVY_BYTES):
            pass
        with held.counted("b", 2 * HEAVY_BYTES):
            with pytest.raises(Overloaded), held.counted("c", HEAVY_BYTES):
                pass
            with held.counted("c", 1):
                pass
    with held.counted("a", 2 * HEAVY_BYTES):
        pass
