"""A sidecar whose certificate is that of a caller: it speaks for the sidecar itself, and for nobody behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.app import App
from sessiond.domain.call import FORWARDED_KEY, PEER_KEY
from sessiond.sidecar.upstream import passed_on
from sessiond.sidecar_app import Sidecar
from sessiond_client import AsyncClient, Grant, Role, TlsFiles
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.access.test_matrix import TABLE, served_by
from tests.support.certificates import Authority, server_files
from tests.support.server import ServerProcess, config_for, serving, stub_for
from tests.support.sidecars import beside, is_open, until

CA, CLIENTS = Authority("servers"), Authority("clients")
ADMIN = [Grant(role=Role.ADMIN)]
NEAR = "spiffe://test/near"
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


@asynccontextmanager
async def near_an_authority(
    folder: Path, grants: list[Grant], mark: bool = True
) -> AsyncIterator[tuple[App, AsyncClient, Sidecar]]:
    """An authority with mutual TLS, an admin with a key, and a sidecar that is a caller by its certificate."""
    tls = server_files(CA, folder / "tls", CLIENTS)
    config = config_for(folder, "[applications.default]\n[applications.shop]\n", transport="grpcio", envoy=True, **tls)
    ca = CA.write(folder, "ca")
    certificate, key = CLIENTS.client("spiffe://test/ops").write(folder, "ops")
    files = TlsFiles(ca=ca, certificate=certificate, key=key)
    certificate, key = CLIENTS.client(NEAR).write(folder, "near")
    upstream: dict[str, Any] = {
        "upstream_ca": str(ca),
        "upstream_certificate": str(certificate),
        "upstream_key": str(key),
    }
    async with serving(config) as app:
        async with AsyncClient(app.address, tls=files) as anyone:
            first = await anyone.create_caller("ops", ADMIN)
        async with AsyncClient(app.address, tls=files, key=first.key) as admin:
            await admin.create_caller("near", grants, certificate_names=[NEAR], without_key=True)
            async with beside(app.address, folder, **upstream) as sidecar:
                if not mark:
                    sidecar._forwarding._way = replace(sidecar._forwarding._way, metadata=lambda _: ())
                await until(lambda: is_open(sidecar))
                yield app, admin, sidecar


async def test_a_sidecar_follows_by_its_certificate(tmp_path: Path) -> None:
    """A sidecar without a key follows by its certificate, and answers its callers from memory; each needs a key."""
    async with near_an_authority(tmp_path, [Grant(role=Role.VALIDATOR)]) as (_, admin, sidecar):
        shop = (await admin.create_caller("shop", [Grant(role=Role.VALIDATOR)])).key
        token = (await admin.create(subject="ada")).token
        async with AsyncClient(sidecar.address, key=shop, coalesce=False) as client:

            async def comes_from_memory() -> bool:
                assert (await client.validate(token)).valid
                return sidecar.cache.stats().hits > 0

            await until(comes_from_memory)
            hits = sidecar.cache.stats().hits
            async with stub_for(sidecar.address) as stub:
                request = pb.ValidateSessionRequest(token=token.reveal())
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await stub.ValidateSession(request)
            assert error.value.code() is UNAUTHENTICATED
            assert sidecar.cache.stats().hits == hits
            await admin.revoke_caller("near")
            await until(lambda: not is_open(sidecar))
            assert (await client.validate(token)).valid


@pytest.mark.parametrize("value", [None, "", "0"])
async def test_nobody_gets_the_rights_of_a_sidecar(tmp_path: Path, value: str | None) -> None:
    """Through a sidecar whose certificate is an admin's, who has no key is served nothing, whatever it sends."""
    async with near_an_authority(tmp_path, ADMIN) as (_, _, sidecar):
        metadata = [] if value is None else [(FORWARDED_KEY, value), (PEER_KEY, value)]
        assert await served_by(sidecar.address, metadata) == set()


async def test_without_the_mark_everyone_would_get_them(tmp_path: Path) -> None:
    """The control: if the sidecar did not mark what it forwards, callers without a key would have all of its rights."""
    async with near_an_authority(tmp_path, ADMIN, mark=False) as (_, _, sidecar):
        assert await served_by(sidecar.address) == TABLE.keys()


def test_the_mark_of_a_caller_is_not_passed_on() -> None:
    """What a caller claims about its connection is dropped, so that only the sidecar's own mark arrives."""
    sent = [(FORWARDED_KEY, "0"), (PEER_KEY, "unix:"), ("authorization", "Bearer x")]
    assert passed_on(sent) == [("authorization", "Bearer x")]


@pytest.mark.slow
async def test_nobody_gets_the_rights_of_a_worker(tmp_path: Path) -> None:
    """A worker is trusted for its own stream only: all that it forwards for callers without a key is refused."""
    server = ServerProcess(tmp_path, "--workers", "1")
    try:
        address = await server.address()
        async with AsyncClient(address) as anyone:
            first = await anyone.create_caller("ops", ADMIN)
        for metadata in (
            [],
            [(PEER_KEY, "")],
            [(PEER_KEY, "unix:"), (FORWARDED_KEY, "")],
            [("sessiond-peer-bin", b"x")],
        ):
            assert await served_by(address, metadata) == set()
        key = [("authorization", f"Bearer {first.key.reveal()}")]
        assert {"ListCallers", "Follow all", "ValidateSession"} <= await served_by(address, key)
    finally:
        server.kill()
