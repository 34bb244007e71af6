"""A sidecar and workers of an authority that has callers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.app import App
from sessiond.domain.call import PEER_KEY
from sessiond.sidecar.endpoint import CACHE_SERVICE
from sessiond_client import AsyncClient, CallerKey, Grant, Role, Token
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.rpc.refusals import refusal_of
from tests.support.server import AsyncStub, ServerProcess, stub_for
from tests.support.sidecars import SidecarProcess, beside, health_of, is_open, until

ADMIN = [Grant(role=Role.ADMIN)]
VALIDATOR = [Grant(role=Role.VALIDATOR)]
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def with_key(issued: CallerKey) -> list[tuple[str, str]]:
    """The metadata with which a caller proves who it is."""
    return [("authorization", f"Bearer {issued.key.reveal()}")]


def key_file(folder: Path, issued: CallerKey) -> Path:
    """A file with a key, which nobody else can read."""
    file = folder / "sidecar.key"
    file.touch(mode=0o600)
    file.write_text(issued.key.reveal() + "\n", encoding="ascii")
    return file


@asynccontextmanager
async def administered(address: str) -> AsyncIterator[AsyncClient]:
    """The client of the first caller of an authority."""
    async with AsyncClient(address) as anyone:
        first = await anyone.create_caller("ops", ADMIN)
    async with AsyncClient(address, key=first.key) as admin:
        yield admin


async def answer_to(stub: AsyncStub, request: pb.ValidateSessionRequest, metadata: Any) -> pb.ValidateSessionResponse:
    """The answer to a question."""
    answer: pb.ValidateSessionResponse = await stub.ValidateSession(request, metadata=metadata)
    return answer


async def test_a_sidecar_follows_with_its_own_key(app: App, tmp_path: Path) -> None:
    """With the key of a validator a sidecar answers from memory; each caller gets only what its own key was given."""
    async with administered(app.address) as admin:
        own, shop = await admin.create_caller("near", VALIDATOR), await admin.create_caller("shop", VALIDATOR)
        created = await admin.create(subject="ada")
        request = pb.ValidateSessionRequest(token=created.token.reveal())
        async with (
            beside(app.address, tmp_path, key_file=str(key_file(tmp_path, own))) as sidecar,
            stub_for(sidecar.address) as stub,
        ):
            await until(lambda: is_open(sidecar))
            for _ in range(3):
                assert (await answer_to(stub, request, with_key(shop))).verdict == pb.VERDICT_VALID
            assert sidecar.cache.stats().hits == 2
            for metadata in ([], [("authorization", "Bearer " + "x" * 64)]):
                assert (await refusal_of(stub.ValidateSession(request, metadata=metadata))).code is UNAUTHENTICATED
            assert sidecar.cache.stats().hits == 2


async def test_a_revoked_caller_gets_nothing_from_a_sidecar(app: App, tmp_path: Path) -> None:
    """After a caller was revoked, answers that the sidecar had kept for it are not served any more."""
    async with administered(app.address) as admin:
        own, shop = await admin.create_caller("near", VALIDATOR), await admin.create_caller("shop", VALIDATOR)
        created = await admin.create(subject="ada")
        request = pb.ValidateSessionRequest(token=created.token.reveal())
        async with (
            beside(app.address, tmp_path, key_file=str(key_file(tmp_path, own))) as sidecar,
            stub_for(sidecar.address) as stub,
        ):
            await until(lambda: is_open(sidecar))
            for _ in range(2):
                await answer_to(stub, request, with_key(shop))
            assert sidecar.cache.stats().hits == 1
            await admin.revoke_caller("shop")
            await until(lambda: sidecar.cache.stats().entries == 0)
            refused = await refusal_of(stub.ValidateSession(request, metadata=with_key(shop)))
            assert refused.code is UNAUTHENTICATED
            assert is_open(sidecar)


async def test_a_sidecar_whose_own_key_was_revoked_forwards(app: App, tmp_path: Path) -> None:
    """A sidecar without a good key answers nothing from memory, and goes on forwarding for callers with one."""
    async with administered(app.address) as admin:
        own, shop = await admin.create_caller("near", VALIDATOR), await admin.create_caller("shop", VALIDATOR)
        created = await admin.create(subject="ada")
        request = pb.ValidateSessionRequest(token=created.token.reveal())
        async with (
            beside(app.address, tmp_path, key_file=str(key_file(tmp_path, own))) as sidecar,
            stub_for(sidecar.address) as stub,
        ):
            await until(lambda: is_open(sidecar))
            await admin.revoke_caller("near")
            await until(lambda: not is_open(sidecar))
            before = sidecar.cache.stats().hits
            for _ in range(3):
                assert (await answer_to(stub, request, with_key(shop))).verdict == pb.VERDICT_VALID
            assert sidecar.cache.stats().hits == before


async def test_a_sidecar_from_before_the_first_caller_is_closed(app: App, tmp_path: Path) -> None:
    """A sidecar that followed without a key stops answering from memory when the first caller is added."""
    async with AsyncClient(app.address) as anyone:
        created = await anyone.create(subject="ada")
        request = pb.ValidateSessionRequest(token=created.token.reveal())
        async with beside(app.address, tmp_path) as sidecar, stub_for(sidecar.address) as stub:
            await until(lambda: is_open(sidecar))
            for _ in range(3):
                await answer_to(stub, request, [])
            await anyone.create_caller("ops", ADMIN)
            await until(lambda: not is_open(sidecar))
            assert (await refusal_of(stub.ValidateSession(request))).code is UNAUTHENTICATED


@pytest.mark.slow
async def test_no_key_is_in_the_log_of_a_sidecar(app: App, tmp_path: Path) -> None:
    """A sidecar as a process has neither its own key nor that of a caller in its log, whether they are good or not."""
    async with administered(app.address) as admin:
        own, shop = await admin.create_caller("near", VALIDATOR), await admin.create_caller("shop", VALIDATOR)
        await admin.revoke_caller("near")
        process = SidecarProcess(
            tmp_path / "near", app.address, "--key-file", str(key_file(tmp_path, own)), "--log-level", "debug"
        )
        try:
            address = await process.address()
            async with stub_for(address) as stub:
                await refusal_of(stub.GetAuthority(pb.GetAuthorityRequest(), metadata=with_key(own)))
                await stub.GetAuthority(pb.GetAuthorityRequest(), metadata=with_key(shop))
            await until(lambda: "not followed" in process.log())
        finally:
            process.kill()
    assert secret_of(own.key) not in process.log_path.read_text()
    assert secret_of(shop.key) not in process.log_path.read_text()


def secret_of(key: Token) -> str:
    """The secret part of a key."""
    return key.reveal()[-43:]


@pytest.mark.slow
async def test_workers_of_an_authority_with_callers(tmp_path: Path) -> None:
    """Workers need no key of their own: they answer from memory, and never for a caller that was revoked."""
    server = ServerProcess(tmp_path, "--workers", "1")
    try:
        address = await server.address()
        async with administered(address) as admin, stub_for(address) as stub:
            shop = await admin.create_caller("shop", VALIDATOR)
            created = await admin.create(subject="ada")
            request = pb.ValidateSessionRequest(token=created.token.reveal())
            assert (await answer_to(stub, request, with_key(shop))).verdict == pb.VERDICT_VALID
            await until(lambda: from_memory(address))
            spoofed = [(PEER_KEY, "unix:")]
            for metadata in ([], spoofed):
                assert (await refusal_of(stub.ValidateSession(request, metadata=metadata))).code is UNAUTHENTICATED
            await admin.revoke_caller("shop")

            async def is_refused() -> bool:
                try:
                    await answer_to(stub, request, with_key(shop))
                except grpc.aio.AioRpcError as error:
                    return error.code() is UNAUTHENTICATED
                return False

            await until(is_refused)
            assert await from_memory(address)
    finally:
        server.kill()


async def from_memory(address: str) -> bool:
    """Whether the worker may answer from memory."""
    return await health_of(address, CACHE_SERVICE) == "SERVING"
