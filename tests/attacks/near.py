"""The stories' client with a near cache: what validates here goes through one that is open, and follows the clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from sessiond_client import (
    NOT_REQUIRED,
    AsyncClient,
    ClientContext,
    DataRequest,
    Requirements,
    Validation,
    reading,
)
from sessiond_client.near_cache import boot_millis
from sessiond_client.near_question import key_of_message
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, stub_for

__all__ = ["NearStub", "near_stub_for"]

PATIENCE = 20


class _Recording(grpc.aio.UnaryUnaryClientInterceptor):
    """Keeps the newest response to each request, so that an answer from memory can be returned as a message."""

    def __init__(self) -> None:
        self.responses: dict[bytes, pb.ValidateSessionResponse] = {}

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)
        if isinstance(request, pb.ValidateSessionRequest):
            self.responses[name_of(request)] = await call
        return call


def name_of(request: pb.ValidateSessionRequest) -> bytes:
    """A request without the position that the cache adds."""
    copy = pb.ValidateSessionRequest()
    copy.CopyFrom(request)
    copy.at_least = ""
    return copy.SerializeToString(deterministic=True)


class NearStub:
    """A stub whose validations go through the client of their application, near cache and all. The rest is plain.

    Before each validation the cache has caught up with the log and is open, so whatever it may answer it does.
    """

    def __init__(self, stub: AsyncStub, target: str, clock: ManualClock) -> None:
        self._stub = stub
        self._target = target
        self._clock = clock
        self._started = clock.now()
        self._clients: dict[str, tuple[AsyncClient, _Recording]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stub, name)

    @property
    def hits(self) -> int:
        """How many questions were answered from memory."""
        return sum(client.near_cache.hits for client, _ in self._clients.values() if client.near_cache is not None)

    async def ValidateSession(self, request: pb.ValidateSessionRequest) -> pb.ValidateSessionResponse:  # noqa: N802
        """As the contract says."""
        if key_of_message(request) is None or request.at_least:
            return await self._stub.ValidateSession(
                request
            )  # never answered from memory; the tests of the client show it
        client, recording = await self._open(request.application)
        try:
            answer: Validation = await client.validate(request.token, **_arguments(request))
        except Exception as error:
            cause = getattr(error, "status", None)
            if cause is None:
                raise
            return await self._stub.ValidateSession(request)  # raises it again, as the stub does
        response = recording.responses[name_of(request)]
        assert reading.validation(response) == answer, "an answer that the authority did not give to this request"
        copy = pb.ValidateSessionResponse()
        copy.CopyFrom(response)
        return copy

    async def _open(self, application: str) -> tuple[AsyncClient, _Recording]:
        if application not in self._clients:
            recording = _Recording()
            client = AsyncClient(
                self._target, application=application, near_cache=True, interceptors=[recording], retries=0
            )
            assert client._near is not None
            assert client._following is not None
            client._near.cache._clock = client._following._conversation.clock = self._now
            self._clients[application] = client, recording
            client._check()
            client._near.start()
            await _until(lambda: client.near_cache is not None and client.near_cache.is_open)
        client, recording = self._clients[application]
        following = client._following
        near = client._near
        assert near is not None
        assert following is not None
        # A renewal is granted after every event that the authority knows was sent. It also reopens a cache whose lease
        # has ended because the story's clock was set.
        due = following._conversation.due()
        for message in due:
            following._outbox.put_nowait(message)
        follower = following._conversation._follower

        def caught_up() -> bool:
            return follower.sent_at(due[-1].renewal.nonce) is None and near.cache.is_open

        await _until(caught_up)
        return client, recording

    def _now(self) -> int:
        return boot_millis() + self._clock.now() - self._started

    async def close(self) -> None:
        """Close the clients."""
        for client, _ in self._clients.values():
            await client.close()


def _arguments(request: pb.ValidateSessionRequest) -> dict[str, Any]:
    found: dict[str, Any] = {"passive": request.passive, "with_csrf_token": request.with_csrf_token}
    if request.HasField("client"):
        seen = request.client
        found["client"] = ClientContext(
            ip_address=seen.ip_address,
            user_agent=seen.user_agent,
            certificate_thumbprint=seen.certificate_thumbprint,
            device_id=seen.device_id,
        )
    if request.HasField("requirements"):
        needed = request.requirements
        age = needed.max_authentication_age.ToTimedelta() if needed.HasField("max_authentication_age") else None
        found["requirements"] = Requirements(min_level=needed.min_level, max_authentication_age=age, csrf=NOT_REQUIRED)
    if request.HasField("data"):
        found["data"] = DataRequest(keys=tuple(request.data.keys), newer_than=request.data.newer_than)
    return found


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - a lease sets no event
            await asyncio.sleep(0.002)


@asynccontextmanager
async def near_stub_for(address: str, clock: ManualClock) -> AsyncIterator[Any]:
    """As `stub_for`, with near caches."""
    async with stub_for(address) as stub:
        near = NearStub(stub, address, clock)
        try:
            yield near
        finally:
            await near.close()
