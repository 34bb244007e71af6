"""A sidecar whose authority is gone, stopped, restarted, older or newer: it fails closed, and comes back by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sessiond.sidecar import barrier
from sessiond_client.following import Lease
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.sidecar.scripted import scripted
from tests.support.server import AsyncStub, ServerProcess, config_for, serving, stub_for
from tests.support.sidecars import PATIENCE, beside, is_open, until, until_healthy

SERVICE = "sessiond.v1.SessionAuthority"
LEASE = 5.0
"""Seconds that a lease lasts, at most."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def question(token: str) -> pb.ValidateSessionRequest:
    return pb.ValidateSessionRequest(token=token)


async def fails_with(stub: AsyncStub, token: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stub.ValidateSession(question(token), timeout=PATIENCE)
    return failed.value


async def is_answered(stub: AsyncStub, token: str) -> bool:
    """Ask about a live session. It may be refused, but not denied."""
    try:
        answer = await stub.ValidateSession(question(token), timeout=PATIENCE)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    assert answer.verdict == pb.VERDICT_VALID
    return True


async def test_no_authority_no_answer(tmp_path: Path) -> None:
    """Without an authority a sidecar starts, is NOT_SERVING, and refuses calls with UNAVAILABLE and RetryInfo."""
    async with beside(f"127.0.0.1:{free_port()}", tmp_path) as sidecar, stub_for(sidecar.address) as stub:
        await until_healthy(sidecar.address, serves=False, from_memory=False)
        error = await fails_with(stub, "x")
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        status = rpc_status.from_call(error)
        assert status is not None
        retry = error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() > 0
        stream = stub.Subscribe(pb.SubscribeRequest(start=pb.STREAM_START_NOW))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_killed_and_restarted(tmp_path: Path) -> None:
    """When the authority dies, the sidecar refuses what it answered before; when it is back, it answers again."""
    address = f"127.0.0.1:{free_port()}"
    first = ServerProcess(tmp_path, listen=address)
    try:
        await first.address()
        async with beside(address, tmp_path) as sidecar, stub_for(sidecar.address) as stub:
            await until_healthy(sidecar.address, serves=True, from_memory=True)
            token = (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))).token
            for _ in range(2):
                assert (await stub.ValidateSession(question(token))).verdict == pb.VERDICT_VALID
            first.kill()
            await until(lambda: not is_open(sidecar))
            assert (await fails_with(stub, token)).code() is grpc.StatusCode.UNAVAILABLE
            await until_healthy(sidecar.address, serves=False, from_memory=False)
            second = ServerProcess(tmp_path, listen=address)
            try:
                await second.address()
                await until(lambda: is_open(sidecar))
                await until(partial(is_answered, stub, token))
                hits = sidecar.cache.stats().hits
                for _ in range(2):
                    assert (await stub.ValidateSession(question(token))).verdict == pb.VERDICT_VALID
                assert sidecar.cache.stats().hits > hits
            finally:
                second.kill()
    finally:
        first.kill()


async def test_an_authority_that_is_stopped(tmp_path: Path) -> None:
    """If the authority hangs, the sidecar answers from memory until the lease ends, and then not at all."""
    server = ServerProcess(tmp_path)
    try:
        async with beside(await server.address(), tmp_path) as sidecar, stub_for(sidecar.address) as stub:
            await until(lambda: is_open(sidecar))
            token = (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))).token
            await stub.ValidateSession(question(token))
            loop = asyncio.get_running_loop()
            os.kill(server.process.pid, signal.SIGSTOP)
            stopped = loop.time()
            assert (await stub.ValidateSession(question(token), timeout=1)).verdict == pb.VERDICT_VALID
            await until(lambda: not is_open(sidecar))
            assert loop.time() - stopped < LEASE
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await stub.ValidateSession(question(token), timeout=0.5)
            assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await until_healthy(sidecar.address, serves=False, from_memory=False)
            os.kill(server.process.pid, signal.SIGCONT)
            await until_healthy(sidecar.address, serves=True, from_memory=True)
            assert (await stub.ValidateSession(question(token), timeout=PATIENCE)).verdict == pb.VERDICT_VALID
    finally:
        server.kill()


async def test_that_is_because_leases_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protection off: with leases that never end, a sidecar of a hanging authority stays open for longer than one."""

    def for_ever(self: Lease, sent: int, duration: int) -> None:
        self.until = sent + 1_000 * duration

    monkeypatch.setattr(Lease, "extend", for_ever)
    server = ServerProcess(tmp_path)
    try:
        async with beside(await server.address(), tmp_path) as sidecar:
            await until(lambda: is_open(sidecar))
            os.kill(server.process.pid, signal.SIGSTOP)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(LEASE + 1):
                    await until(lambda: not is_open(sidecar))
            os.kill(server.process.pid, signal.SIGCONT)
    finally:
        server.kill()


async def without_follow(context: Any) -> None:
    """Answer every call as an authority that serves none of them."""
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not served by this version")


async def test_an_older_authority(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With an authority that does not serve Follow, everything is forwarded, and the log says so."""
    async with scripted(without_follow) as authority, beside(authority.address, tmp_path) as sidecar:
        await until_healthy(sidecar.address, serves=True, from_memory=False)
        async with stub_for(sidecar.address) as stub:
            for _ in range(2):
                assert (await fails_with(stub, "x")).code() is grpc.StatusCode.UNIMPLEMENTED
        assert [method for method, _ in authority.calls].count(f"/{SERVICE}/ValidateSession") == 2
        await until(lambda: "not followed" in capsys.readouterr().out)


async def test_the_authority_is_upgraded_under_the_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If an older authority is replaced by one that serves Follow, the sidecar opens its cache without a restart."""
    # The time after which it asks again, in seconds.
    monkeypatch.setattr(barrier, "ASK_AGAIN", 0.2)
    address = f"127.0.0.1:{free_port()}"
    async with scripted(without_follow, address), beside(address, tmp_path) as sidecar:
        await until_healthy(sidecar.address, serves=True, from_memory=False)
    async with beside(address, tmp_path) as sidecar, stub_for(sidecar.address) as stub:
        async with scripted(without_follow, address):
            await until_healthy(sidecar.address, serves=True, from_memory=False)
        async with serving(replace(config_for(tmp_path), listen=address)):
            await until_healthy(sidecar.address, serves=True, from_memory=True)
            token = (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))).token
            for _ in range(2):
                assert (await stub.ValidateSession(question(token))).verdict == pb.VERDICT_VALID
            assert sidecar.cache.stats().hits


async def test_the_authority_is_downgraded_under_the_sidecar(tmp_path: Path) -> None:
    """If the authority is replaced by one without Follow, the sidecar closes its cache and forwards every call."""
    address = f"127.0.0.1:{free_port()}"
    async with beside(address, tmp_path) as sidecar, stub_for(sidecar.address) as stub:
        async with serving(replace(config_for(tmp_path), listen=address)):
            await until_healthy(sidecar.address, serves=True, from_memory=True)
            token = (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))).token
            await stub.ValidateSession(question(token))
        async with scripted(without_follow, address) as authority:
            await until_healthy(sidecar.address, serves=True, from_memory=False)
            assert (await fails_with(stub, token)).code() is grpc.StatusCode.UNIMPLEMENTED
            assert f"/{SERVICE}/ValidateSession" in [method for method, _ in authority.calls]
