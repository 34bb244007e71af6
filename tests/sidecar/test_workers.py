"""`sessiond serve --workers`: several processes on one port, and one that owns the store."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.access.callers import CallersOfWorkers
from sessiond.domain.call import PEER_KEY
from sessiond.rpc.sockets import CannotListen, reserve_port
from sessiond.sidecar.upstream import passed_on
from sessiond.sidecar.workers import Workers, WorkersFailed
from sessiond_client import AsyncClient, Verdict
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.failed_start import run_sessiond
from tests.support.server import ServerProcess, stub_for
from tests.support.sidecars import PATIENCE, until, until_healthy

MISCONFIGURED, CANNOT_NOW = 78, 1


@asynccontextmanager
async def working(folder: Path, *arguments: str, count: int = 2) -> AsyncIterator[ServerProcess]:
    """Run a server with workers."""
    server = ServerProcess(folder, "--workers", str(count), *arguments)
    try:
        await server.address()
        yield server
    finally:
        server.kill()


def logged(server: ServerProcess, event: str) -> list[dict[str, Any]]:
    """Return the lines of the log with an event."""
    lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def workers_of(server: ServerProcess) -> list[int]:
    """Return the process ids that the line of the start names."""
    (serving,) = logged(server, "serving")
    assert isinstance(serving["workers"], list)
    return serving["workers"]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def acceptors_of(connections: list[socket.socket], pids: list[int]) -> set[int]:
    """Return the processes that have accepted TCP connections of this process."""
    ours = {f"{one.getsockname()[1]:04X}" for one in connections}
    port = f"{connections[0].getpeername()[1]:04X}"
    sockets = set()
    # gRPC's sockets are of IPv6, also for an address of IPv4.
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
            _, local, remote, *fields = line.split()
            if local.endswith(f":{port}") and remote.rpartition(":")[2] in ours:
                sockets.add(f"socket:[{fields[6]}]")
    return {pid for pid in pids if sockets & links_of(pid)}


def links_of(pid: int) -> set[str]:
    """Return what the file descriptors of a process refer to."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in the meantime
            found.add(os.readlink(link))
    return found


async def validated(address: str, token: str) -> pb.Verdict.ValueType:
    """Validate a token on a connection of its own."""
    async with stub_for(address) as stub:
        return (await stub.ValidateSession(pb.ValidateSessionRequest(token=token), timeout=PATIENCE)).verdict


async def test_all_answer_on_one_port(tmp_path: Path) -> None:
    """Each worker accepts some of the connections, and a session that was opened on any is valid on all."""
    async with working(tmp_path) as server:
        address, pids = await server.address(), workers_of(server)
        assert len(pids) == len(set(pids)) == 2
        host, _, port = address.rpartition(":")
        connections = [socket.create_connection((host, int(port))) for _ in range(64)]
        try:
            await until(lambda: acceptors_of(connections, pids) == set(pids))
        finally:
            for one in connections:
                one.close()
        async with stub_for(address) as stub:
            token = (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))).token
        for _ in range(20):
            assert await validated(address, token) == pb.VERDICT_VALID


async def test_the_owner_s_socket_is_private(tmp_path: Path) -> None:
    """Nobody but the user of the server can reach the socket on which the owner answers."""
    async with working(tmp_path, count=1):
        folder = tmp_path / "data" / "workers"
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "owner.sock")]
        assert modes == [0o700, 0o600]


async def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    """While workers are killed, calls succeed after a retry, what was revoked stays refused, and others take over."""
    async with working(tmp_path) as server:
        address, first = await server.address(), workers_of(server)
        async with AsyncClient(address, timeout=PATIENCE, retries=20) as client:
            revoked, kept = await client.create(subject="ada"), await client.create(subject="bob")
            for session in (revoked, kept):
                await client.validate(session.token)
            await client.revoke(session_id=revoked.session.session_id, wait_for_caches=True)
            for pid in first:
                os.kill(pid, signal.SIGKILL)
                for _ in range(20):
                    assert (await client.validate(revoked.token)).verdict is Verdict.REVOKED
                    assert (await client.validate(kept.token)).verdict is Verdict.VALID
            await until(lambda: len(logged(server, "worker restarted")) == 2)
        ended = logged(server, "worker ended")
        assert [line["signal"] for line in ended] == ["SIGKILL"] * 2
        replaced = {line["pid"] for line in logged(server, "worker restarted")}
        assert not replaced & set(first)
        await until_healthy(address, serves=True, from_memory=True)
        assert await server.terminate() == 0
        assert not any(map(is_running, replaced))


async def test_the_limits_of_a_connection_hold_through_workers(tmp_path: Path) -> None:
    """One connection to a worker may have half of the subscribers, and another one is not refused because of it."""
    file = tmp_path / "sessiond.toml"
    file.write_text("[server]\nmax_subscribers = 4\n", encoding="utf-8")
    request = pb.SubscribeRequest(start=pb.STREAM_START_NOW)
    async with working(tmp_path, "--config", str(file), count=1) as server, asyncio.timeout(PATIENCE):
        address = await server.address()
        async with stub_for(address) as greedy, stub_for(address) as honest:
            streams = [greedy.Subscribe(request) for _ in range(2)]
            for stream in streams:
                assert isinstance(await stream.read(), pb.SubscribeResponse)
            third = greedy.Subscribe(request)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await third.read()
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "2 of them on this connection" in (refused.value.details() or "")
            assert isinstance(await honest.Subscribe(request).read(), pb.SubscribeResponse)


async def test_workers_end_with_their_owner(tmp_path: Path) -> None:
    """If the owner is killed, its workers end by themselves, and the port is free."""
    async with working(tmp_path) as server:
        address, pids = await server.address(), workers_of(server)
        assert all(map(is_running, pids))
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        await until(lambda: not any(map(is_running, pids)))
        held, _ = reserve_port(address)
        for one in held:
            one.close()


@pytest.mark.parametrize("to_all", [False, True])
async def test_a_graceful_stop(tmp_path: Path, to_all: bool) -> None:
    """SIGTERM ends workers first, their streams with UNAVAILABLE, and then the owner, all with code 0."""
    async with working(tmp_path) as server, asyncio.timeout(PATIENCE):
        address, pids = await server.address(), workers_of(server)
        async with stub_for(address) as stub:
            stream = stub.Subscribe(pb.SubscribeRequest(start=pb.STREAM_START_NOW))
            assert isinstance(await stream.read(), pb.SubscribeResponse)
            (os.killpg if to_all else os.kill)(server.process.pid, signal.SIGTERM)
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await stream.read()
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await asyncio.to_thread(server.process.wait) == 0
        assert not any(map(is_running, pids))
        events = [json.loads(line)["event"] for line in server.log().splitlines()]
        assert events.count("worker stopped") == 2
        assert events[-1] == "stopped"
        assert not logged(server, "worker restarted")


async def test_a_reload_reaches_the_workers(tmp_path: Path) -> None:
    """`sessionctl reload` changes the policies, and what workers have kept under the old ones is not used."""
    file = tmp_path / "sessiond.toml"
    file.write_text('[applications.default]\nidle_timeout = "30m"\n', encoding="utf-8")
    async with working(tmp_path, "--config", str(file)) as server:
        address = await server.address()
        async with AsyncClient(address, timeout=PATIENCE) as client:
            created = await client.create(subject="ada")
            for _ in range(3):
                await client.validate(created.token)
            file.write_text('[applications.default]\nidle_timeout = "10m"\n', encoding="utf-8")
            command = [sys.executable, "-m", "sessionctl", "reload", "--data", str(tmp_path / "data")]
            run = partial(subprocess.run, command, capture_output=True, text=True, check=False, timeout=PATIENCE)
            done = await asyncio.to_thread(run)
            assert done.returncode == 0, done.stdout + done.stderr

            async def is_shorter() -> bool:
                session = (await client.validate(created.token)).session
                assert session is not None
                assert session.idle_expire_time is not None
                return (session.idle_expire_time - session.last_active_time).total_seconds() == 600

            await until(is_shorter)


@contextmanager
def taken_port(*, shared: bool) -> Iterator[str]:
    """Listen on a port, with or without SO_REUSEPORT."""
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield f"127.0.0.1:{other.getsockname()[1]}"


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_in_use(tmp_path: Path, shared: bool) -> None:
    """A port that another server has is refused in one line, also if that server would share it."""
    with taken_port(shared=shared) as address:
        code, stderr = run_sessiond(tmp_path, "serve", "--data", "d", "--listen", address, "--workers", "2")
    errors = [line for line in stderr.splitlines() if line.startswith("Error")]
    assert code == CANNOT_NOW
    assert errors == [
        f"Error: cannot listen on {address}: port {address.rpartition(':')[2]} is in use; stop the server that listens "
        "there, or choose another port"
    ]


async def test_a_port_that_workers_share_is_taken(tmp_path: Path) -> None:
    """Another server, with workers or without, cannot listen on the port of workers."""
    async with working(tmp_path) as server:
        address = await server.address()
        (tmp_path / "other").mkdir()
        for more in ([], ["--workers", "1"]):
            start = partial(run_sessiond, tmp_path / "other", "serve", "--data", "d", "--listen", address, *more)
            code, stderr = await asyncio.to_thread(start)
            assert code == CANNOT_NOW
            assert "is in use; stop the server that listens there" in stderr


def test_workers_need_a_port(tmp_path: Path) -> None:
    """A Unix socket cannot be shared by workers; the error names both settings."""
    code, stderr = run_sessiond(tmp_path, "serve", "--listen", "unix:a.sock", "--workers", "2")
    assert (code, stderr.count("\n")) == (MISCONFIGURED, 1)
    assert "server.workers is 2, and workers cannot share unix:a.sock: listen on HOST:PORT, or set " in stderr


@pytest.mark.parametrize("value", ["-1", "257", "many"])
def test_what_is_no_number_of_workers(tmp_path: Path, value: str) -> None:
    """The number of workers is from 0 to 256."""
    code, stderr = run_sessiond(tmp_path, "serve", "--workers", value)
    assert (code, stderr.count("\n")) == (2, 1)
    assert "--workers" in stderr


def test_a_host_that_does_not_exist() -> None:
    """A host that cannot be resolved is reported with the address."""
    with pytest.raises(CannotListen, match=r"cannot listen on no\.such\.host\.invalid:1: the host no\.such"):
        reserve_port("no.such.host.invalid:1")


async def test_workers_that_cannot_start() -> None:
    """If a worker ends before it serves, the start fails, and no worker is left."""
    with pytest.raises(WorkersFailed, match="a worker ended with code 2 before it served"):
        await Workers.start(2, ["--no-such-option"])


def test_the_peer_of_a_call_through_a_worker() -> None:
    """The owner counts a call as one of the connection that the worker names, and of its own otherwise."""
    callers = CallersOfWorkers()
    assert callers.identify("unix:", ((PEER_KEY, "ipv4:192.0.2.1:5"),)).peer == "ipv4:192.0.2.1:5"
    assert callers.identify("unix:", (("other", "x"),)).peer == "unix:"
    assert callers.identify("unix:", None).peer == "unix:"


def test_no_caller_names_another_peer() -> None:
    """What a caller says about its connection is not passed on."""
    assert passed_on(((PEER_KEY, "ipv4:192.0.2.1:5"), ("a", "b"))) == [("a", "b")]
