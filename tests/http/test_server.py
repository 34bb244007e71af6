"""The HTTP server for proxies: where it listens, what it bounds, and how it stops."""

from __future__ import annotations

import asyncio
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from sessiond.access.callers import Callers
from sessiond.app import App, OpenToOthers, RemotePlaintext
from sessiond.config import BadConfig, load_config
from sessiond.domain.call import Caller
from sessiond.edge.check import Decision
from sessiond.edge.routes import Route
from sessiond.http.door import Door
from sessiond.http.forward_auth import ForwardAuth
from sessiond.http.server import HttpServer
from sessiond.http.site import ProxySite, identifying
from sessiond.rpc.auditing import AuditedCalls
from sessiond.rpc.sockets import CannotListen
from sessiond_client.gateway.actions import Action
from sessiond_client.gateway.request import WebRequest
from tests.support.server import config_for, serving

ASKED = {
    "x-forwarded-method": "GET",
    "x-forwarded-uri": "/",
    "x-forwarded-host": "app.example",
    "x-forwarded-for": "203.0.113.9",
}


class Slow:
    """Decides when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def decide(self, request: WebRequest, route: Route, caller: Caller) -> Decision:
        """Let the request pass, later."""
        self.asked.set()
        await self.go_on.wait()
        return Decision(Action.PROCEED)


@asynccontextmanager
async def listening(slow: Slow, max_connections: int = 100, head_timeout: float = 10.0) -> AsyncIterator[HttpServer]:
    """Run a server of decisions that come late."""
    site = ProxySite(identifying(ForwardAuth(slow.decide, AuditedCalls()), Door(Callers())))
    server = HttpServer(site, max_connections, head_timeout)
    await server.start("127.0.0.1:0")
    try:
        yield server
    finally:
        await server.stop(0)


def client_of(server: HttpServer) -> httpx2.AsyncClient:
    """A client of the server."""
    return httpx2.AsyncClient(base_url=f"http://{server.address}", trust_env=False)


async def connection(server: HttpServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the server."""
    host, _, port = server.address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


# Where it listens


async def test_it_listens_on_a_unix_socket(tmp_path: Path) -> None:
    """A Unix socket has the configured mode, and the health of the server can be asked there."""
    path = tmp_path / "http.sock"
    config = config_for(tmp_path, http_listen=f"unix:{path}", socket_mode=0o660)
    async with (
        serving(config),
        httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(path))) as http,
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        response = await http.get("http://sessiond/healthz")
        assert (response.status_code, response.text) == (200, "serving\n")
    async with serving(config):  # over the socket that the first one left
        assert path.exists()


async def test_by_default_it_does_not_listen(tmp_path: Path) -> None:
    """Without `http_listen` there is no HTTP server."""
    async with serving(config_for(tmp_path)) as app:
        assert app._endpoints._http is None


async def test_other_machines_cannot_reach_it(tmp_path: Path) -> None:
    """An address that other machines can reach is refused, also with TLS, which this server has not."""
    config = config_for(tmp_path, http_listen="0.0.0.0:0")
    with pytest.raises(RemotePlaintext, match=r"server\.http_listen: 0\.0\.0\.0:0 can be reached"):
        await App.start(config)
    with pytest.raises(OpenToOthers, match=r"0\.0\.0\.0:0 can be reached"):
        await App.start(replace(config, allow_remote_plaintext=True))
    async with serving(replace(config, allow_remote_plaintext=True, allow_without_callers=True)):
        pass


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """If the address is taken, nothing is left running, and the error names it."""
    async with listening(Slow()) as other:
        config = config_for(tmp_path, http_listen=other.address)
        with pytest.raises(CannotListen, match=f"{other.address}: port .* is in use"):
            await App.start(config)
    async with serving(config):
        pass


def test_a_wrong_address_is_an_error_of_the_file(tmp_path: Path) -> None:
    """An address that is none gets a line with file, key and remedy."""
    file = tmp_path / "sessiond.toml"
    file.write_text('[server]\nhttp_listen = "7480"\n', encoding="utf-8")
    with pytest.raises(BadConfig, match=r":2: server\.http_listen: "):
        load_config(file)


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Without a package that it needs, the setting is refused with the command that installs it; empty needs none."""
    monkeypatch.setitem(sys.modules, package, None)
    file = tmp_path / "sessiond.toml"
    file.write_text('[server]\nhttp_listen = "127.0.0.1:0"\n', encoding="utf-8")
    with pytest.raises(BadConfig, match=r":2: server\.http_listen: needs .*: pip install 'sessiond\[http\]'"):
        load_config(file)
    file.write_text('[server]\nhttp_listen = ""\n', encoding="utf-8")
    assert load_config(file).http_listen == ""


async def test_with_workers_the_owner_of_the_store_answers(tmp_path: Path) -> None:
    """With workers, questions are answered by the process that owns the store, and end with it."""
    config = config_for(tmp_path, http_listen="127.0.0.1:0", workers=1, transport="grpcio")
    async with serving(config) as app:
        assert app._endpoints._http is not None
        async with client_of(app._endpoints._http) as http:
            assert (await http.get("/check?guests=true", headers=ASKED)).status_code == 200
            assert (await http.get("/check", headers=ASKED)).status_code == 401


# What it bounds


async def test_a_slow_head_is_cut_off() -> None:
    """A connection on which no request arrives, or only a part of one, is closed."""
    async with listening(Slow(), head_timeout=0.05) as server:
        for sent in (b"", b"GET /healthz HTTP/1.1\r\nhost:", b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nGET /he"):
            reader, writer = await connection(server)
            writer.write(sent)
            if b"\r\n\r\n" in sent:
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            with suppress(ConnectionResetError):
                async with asyncio.timeout(10):
                    await reader.read()
            writer.close()


async def test_an_unfinished_request_is_cut_off_after_its_answer() -> None:
    """A connection on which a request was answered before its end is closed: the rest of it may never come."""
    async with listening(Slow()) as server, asyncio.timeout(10):
        reader, writer = await connection(server)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n")
        answer = await reader.read()
        assert answer.endswith(b"serving\n")
        writer.close()


async def test_a_slow_decision_is_not_cut_off() -> None:
    """The limit is one for the client's part: a decision may take longer."""
    slow = Slow()
    async with listening(slow, head_timeout=0.05) as server, client_of(server) as http:
        asking = asyncio.create_task(http.get("/check", headers=ASKED))
        await slow.asked.wait()
        await asyncio.sleep(0.15)
        slow.go_on.set()
        assert (await asking).status_code == 200
        await asyncio.sleep(0.15)
        assert (await http.get("/healthz")).status_code == 200


async def test_too_many_requests_are_refused() -> None:
    """Beyond the limit a question is answered with 503, which no proxy takes for a permission."""
    slow = Slow()
    async with listening(slow, max_connections=2) as server, client_of(server) as http:
        asking = asyncio.create_task(http.get("/check", headers=ASKED))
        await slow.asked.wait()
        assert (await http.get("/check", headers=ASKED)).status_code == 503
        slow.go_on.set()
        assert (await asking).status_code == 200


async def test_a_long_head_is_refused() -> None:
    """A head above 64 KB is refused before it has arrived as a whole."""
    async with listening(Slow()) as server:
        reader, writer = await connection(server)
        writer.write(b"GET /check HTTP/1.1\r\nhost: a\r\ncookie: " + b"a" * 200_000)
        async with asyncio.timeout(10):
            assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD"])
async def test_only_get_asks(method: str) -> None:
    """Another method is no question. HEAD is answered as GET is."""
    slow = Slow()
    slow.go_on.set()
    async with listening(slow) as server, client_of(server) as http:
        response = await http.request(method, "/check", headers=ASKED)
        assert response.status_code == (200 if method == "HEAD" else 405)
        assert (await http.get("/elsewhere")).status_code == 404


# How it stops


async def test_open_questions_are_answered_before_it_stops() -> None:
    """A server that stops answers what it was asked, and accepts no more connections."""
    slow = Slow()
    async with listening(slow) as server, client_of(server) as http:
        asking = asyncio.create_task(http.get("/check", headers=ASKED))
        await slow.asked.wait()
        server.announce_stop()
        async with client_of(server) as health:
            assert (await health.get("/healthz")).status_code == 503
        stopping = asyncio.create_task(server.stop(10))
        await asyncio.sleep(0)
        slow.go_on.set()
        assert (await asking).status_code == 200
        await stopping
        async with client_of(server) as late:
            with pytest.raises(httpx2.ConnectError):
                await late.get("/healthz")


async def test_a_question_that_takes_too_long_is_ended() -> None:
    """After the grace, a question that is still open ends without a permission."""
    slow = Slow()
    async with listening(slow) as server, client_of(server) as http:
        asking = asyncio.create_task(http.get("/check", headers=ASKED))
        await slow.asked.wait()
        await server.stop(0.01)
        with pytest.raises(httpx2.HTTPError):
            (await asking).raise_for_status()
