"""The native transport alone: what differs from grpcio (docs/decisions/0024-native-transport.md)."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import h2.connection
import h2.events
import pytest

from sessiond.access.callers import Callers
from sessiond.config import BadConfig, Override, load_config
from sessiond.rpc.server import RpcServer
from sessiond.rpc.sockets import CannotListen
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.rpc.test_arrivals import MESSAGE
from tests.rpc.transports import METHOD, Held, channel_to, running
from tests.rpc.unfinished import Unfinished
from tests.support.failed_start import run_sessiond
from tests.support.server import ServerProcess, config_for, serving, stub_for

SOON = 20.0
"""Seconds after which a test that waits has failed."""
CANNOT_NOW = 1


# Settings


def refusal(text: str, folder: Path, **options: str) -> str:
    """Return the problem of a configuration with that text and these options."""
    file = folder / "sessiond.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadConfig) as raised:
        load_config(file, [Override(f"server.{key}", value, f"--{key}") for key, value in options.items()])
    return str(raised.value).replace(str(folder) + "/", "")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package, the setting is refused with the command that installs it; the default needs no package."""
    monkeypatch.setitem(sys.modules, "pygrpc_native", None)
    expected = "cannot be imported; run in the server's virtual environment: pip install 'sessiond[native]'"
    assert refusal('[server]\ntransport = "native"\n', tmp_path).startswith("sessiond.toml:2: server.transport: ")
    assert refusal('[server]\ntransport = "native"\n', tmp_path).endswith(expected)
    assert refusal("", tmp_path, transport="native").startswith("--transport: ")
    assert load_config(None).transport == "grpcio"


def test_a_wrong_name_is_refused(tmp_path: Path) -> None:
    """A transport that does not exist is refused with the names of those that do."""
    assert 'must be one of "grpcio", "native"; did you mean "native"?' in refusal(
        '[server]\ntransport = "nativ"\n', tmp_path
    )


def test_not_for_other_machines(tmp_path: Path) -> None:
    """On an address that other machines can reach the transport is refused, even if plaintext is allowed there."""
    remote = '[server]\nlisten = "0.0.0.0:7443"\nallow_remote_plaintext = true\n'
    assert refusal(remote + 'transport = "native"\n', tmp_path).startswith("sessiond.toml:4: server.transport: ")
    found = refusal(remote, tmp_path, transport="native")
    assert found.startswith('--transport: "native" does not limit the memory')
    assert "0.0.0.0:7443 can be reached from other machines" in found
    for local in ("127.0.0.1:7443", "[::1]:7443", "localhost:7443", "unix:s"):
        assert load_config(None, [Override("server.transport", "native", "-"), Override("server.listen", local, "-")])


# Listening


async def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    """A port in use is reported in one line; the package itself writes nothing to standard error."""
    async with running(Held(), "native") as (_, address):
        code, error = await asyncio.to_thread(
            run_sessiond, tmp_path, "serve", "--transport", "native", "--listen", address
        )
    assert (code, error.count("\n")) == (CANNOT_NOW, 1), error
    assert f"port {address.rpartition(':')[2]} is in use" in error


async def test_a_process_serves_and_stops(tmp_path: Path) -> None:
    """`serve --transport native` logs its transport, serves on a socket with its mode, and stops with exit code 0."""
    path = tmp_path / "s"
    server = ServerProcess(tmp_path, "--transport", "native", listen=f"unix:{path}")
    try:
        async with stub_for(await server.address()) as stub:
            assert '"transport": "native"' in server.log()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"), timeout=SOON)).token
        assert await server.terminate() == 0
        assert not path.exists()
    finally:
        server.kill()


async def test_the_fallback_is_private_and_goes_with_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket to the grpcio server behind is in a private folder, which is removed when the server stops."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with running(Held(), "native"):
        (folder,) = map(tmp_path.joinpath, os.listdir(tmp_path))
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (folder / "grpcio").is_socket()
    assert os.listdir(tmp_path) == []
    assert not [one for one in threading.enumerate() if one.name == "native-transport"]


async def test_a_start_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the socket to the server behind cannot be created, the error says so, and the port is free again."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    held = Held()
    held.go.set()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        taken = f"127.0.0.1:{probe.getsockname()[1]}"
    server = RpcServer((held,), Callers(), transport="native")
    with pytest.raises(CannotListen, match="choose a shorter path"):
        await server.start(taken)
    assert os.listdir(long) == []
    monkeypatch.undo()
    async with running(held, "native", taken) as (_, address), stub_for(address) as stub:
        assert (await stub.GetAuthority(pb.GetAuthorityRequest(), timeout=SOON)).version


async def test_a_response_on_its_way_when_the_server_stops() -> None:
    """A caller that reads slowly still gets the whole response if it does so within the grace."""
    service = Held(1_000_000)
    async with running(service, "native") as (server, address), Unfinished.to(address) as slow:
        stream = await slow.call(METHOD, MESSAGE, lacks=0, ends=True)
        await service.opened(1)
        stop = asyncio.create_task(server.stop(SOON))
        service.go.set()
        await service.opened(0)
        await asyncio.sleep(0.2)  # a server that does not wait for the caller has stopped by then
        assert await asyncio.wait_for(slow.ended(stream), SOON) == ["0"]
        await stop


# Limits


async def test_connections_of_a_unix_socket_are_distinguished(tmp_path: Path) -> None:
    """Each connection over a Unix socket has an address of its own, so that limits on one connection hold there."""
    service = Held()
    service.go.set()
    async with running(service, "native", f"unix:{tmp_path}/s") as (_, address):
        peers = []
        for _ in range(2):
            async with stub_for(address) as stub:
                peers += [(await stub.GetAuthority(pb.GetAuthorityRequest(), timeout=SOON)).version for _ in range(2)]
    assert peers[0] == peers[1] != peers[2] == peers[3]
    assert all(peer.startswith("unix:") for peer in peers)


async def test_unfinished_messages_keep_nobody_waiting(tmp_path: Path) -> None:
    """Calls whose message never ends take no place and delay no call, not even one of the same connection."""
    config = config_for(tmp_path, "[server]\nmax_calls = 100\n", transport="native")
    async with serving(config) as app, stub_for(app.address) as stub, Unfinished.to(app.address) as slow:
        for _ in range(40):
            await slow.call(METHOD, MESSAGE)
        whole = await slow.call(METHOD, MESSAGE, lacks=0, ends=True)
        assert (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"), timeout=SOON)).token
        assert len(await asyncio.wait_for(slow.ended(whole), SOON)) == 1


async def test_rapid_resets_are_refused(tmp_path: Path) -> None:
    """A connection that begins and resets calls in a burst is closed with ENHANCE_YOUR_CALM; others are served."""
    async with serving(config_for(tmp_path, transport="native")) as app, stub_for(app.address) as stub:
        host, _, port = app.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        connection = h2.connection.H2Connection()
        connection.initiate_connection()
        headers = {":method": "POST", ":scheme": "http", ":authority": "test", ":path": METHOD}
        headers |= {"content-type": "application/grpc", "te": "trailers"}
        for _ in range(5_000):
            stream = connection.get_next_available_stream_id()
            connection.send_headers(stream, list(headers.items()))
            connection.reset_stream(stream, 8)
        writer.write(connection.data_to_send())
        assert await asyncio.wait_for(_goodbye(reader, connection), SOON) == 11
        writer.close()
        assert (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"), timeout=SOON)).token


async def _goodbye(reader: asyncio.StreamReader, connection: h2.connection.H2Connection) -> int:
    """Return the HTTP/2 error code with which the server closes a connection."""
    while raw := await reader.read(65_536):
        for event in connection.receive_data(raw):
            if isinstance(event, h2.events.ConnectionTerminated):
                return int(event.error_code or 0)
    raise AssertionError("closed without a reason")


class Flood:
    """A service whose streams never end, and that counts what it could write."""

    def __init__(self) -> None:
        self.written = 0

    async def Subscribe(self, _: pb.SubscribeRequest, caller: Any, context: Any) -> None:  # noqa: N802
        """Write as much as is read."""
        message = pb.SubscribeResponse(cursor="x" * 100_000)
        while True:
            await context.write(message)
            self.written += 1


async def test_a_slow_reader_takes_no_thread() -> None:
    """Writing waits for a subscriber that does not read, however many there are, and no thread waits with it."""
    service = Flood()
    async with running(service, "native") as (_, address), channel_to(address) as channel:
        before = threading.active_count()
        call: Any = channel.unary_stream(METHOD.replace("GetAuthority", "Subscribe"))
        streams = [call(b"") for _ in range(10)]
        for stream in streams:
            await stream.read()
        written = -1
        while written != service.written:
            written = service.written
            await asyncio.sleep(0.3)  # six times the longest pause between two attempts
        assert threading.active_count() == before
        await streams[0].read()
        for stream in streams:
            stream.cancel()
