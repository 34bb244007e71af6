"""Proxies that ask a sidecar: what happens beside the answers, which are the authority's (see tests/http)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from google.rpc.http_pb2 import HttpRequest

from sessiond.app import App, RemotePlaintext
from sessiond.config import BadConfig, Override, load_sidecar
from sessiond.http.forwarded import METHOD
from sessiond.http.relay import Relay
from sessiond.rpc.sockets import CannotListen
from sessiond.sidecar_app import Sidecar
from sessiond_client import AsyncClient, Grant, Role
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving
from tests.support.sidecars import SidecarProcess, beside, health_of, until

ASKED = {
    "x-forwarded-method": "GET",
    "x-forwarded-uri": "/",
    "x-forwarded-host": "app.example",
    "x-forwarded-for": "203.0.113.9",
}


def http_of(sidecar: Sidecar) -> httpx2.AsyncClient:
    """A client of the HTTP server."""
    assert sidecar._http is not None
    return httpx2.AsyncClient(base_url=f"http://{sidecar._http.address}", trust_env=False)


async def test_nobody_passes_without_the_authority(tmp_path: Path) -> None:
    """While the authority is out of reach, questions get 503 with a time, and health checks fail; only until then."""
    (tmp_path / "a").mkdir()
    config = config_for(tmp_path / "a", listen=f"unix:{tmp_path / 'authority.sock'}")
    async with beside(config.listen, tmp_path, http_listen="127.0.0.1:0") as near, http_of(near) as http:
        for path in ("/check", "/check/nginx"):
            answer = await http.get(path, params={"guests": "true"}, headers=ASKED)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
        assert (await http.get("/check/nginx/refusal")).status_code == 403
        assert (await http.get("/healthz")).status_code == 503
        async with serving(config, ManualClock()):

            async def passes() -> bool:
                return (await http.get("/check", params={"guests": "true"}, headers=ASKED)).status_code == 200

            await until(passes)
            assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/check", params={"guests": "true"}, headers=ASKED)).status_code == 503


async def test_an_older_authority_is_named_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An authority that does not know such questions lets nobody pass, and the log says once what to do."""
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with beside(f"127.0.0.1:{port}", tmp_path, http_listen="127.0.0.1:0") as near, http_of(near) as http:
            for _ in range(3):
                assert (await http.get("/check", headers=ASKED)).status_code == 500
    finally:
        await server.stop(0)
    lines = [line for line in capsys.readouterr().out.splitlines() if "proxy refused" in line]
    assert len(lines) == 1
    assert "the authority is older than the sidecar" in lines[0]


async def test_what_proves_the_sidecar_proves_no_proxy(tmp_path: Path) -> None:
    """A proxy without a key is refused, although the sidecar has the key of a validator; one with a key is answered."""
    async with serving(config_for(tmp_path), ManualClock()) as app, AsyncClient(app.address) as anyone:
        ops = (await anyone.create_caller("ops", [Grant(role=Role.ADMIN)])).key
        async with AsyncClient(app.address, key=ops) as admin:
            own = (await admin.create_caller("sidecar", [Grant(role=Role.VALIDATOR)])).key
            proxy = (await admin.create_caller("caddy", [Grant(application="default", role=Role.VALIDATOR)])).key
        file = tmp_path / "sidecar.key"
        file.write_text(own.reveal(), encoding="ascii")
        file.chmod(0o600)
        async with (
            beside(app.address, tmp_path, key_file=str(file), http_listen="127.0.0.1:0") as near,
            http_of(near) as http,
        ):
            for key, status in ((b"", 500), (b"nonsense", 500), (b"caf\xe9", 500), (b"Bearer KEY", 200)):
                headers = [(name.encode(), value.encode()) for name, value in ASKED.items()]
                if key:
                    headers.append((b"x-session-key", key.replace(b"KEY", proxy.reveal().encode())))
                assert (await http.get("/check?guests=true", headers=headers)).status_code == status, key


async def test_the_authority_answers_at_known_paths_only(app: App) -> None:
    """A forwarded question with another path is INVALID_ARGUMENT, which a sidecar does not take for an answer."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        ask: Any = channel.unary_unary(METHOD)
        for uri in ("", "/", "/check/", "/healthz", "check"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(HttpRequest(uri=uri).SerializeToString())
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "/check/nginx" in (caught.value.details() or "")


@pytest.mark.parametrize("raw", [b"", b"\xff", b"\x08\x01", b"\x08\xe8\x07"])
async def test_an_answer_that_is_none_lets_nobody_pass(raw: bytes) -> None:
    """A message without a status of HTTP, or that cannot be read, is answered with 500."""

    async def ask(*_: Any) -> bytes:
        return raw

    answer = await Relay(ask).respond({"path": "/check", "query_string": b"", "headers": []})
    assert answer.status == 500


async def test_an_address_that_cannot_be_used(app: App, tmp_path: Path) -> None:
    """Without encryption a sidecar answers only proxies on its machine, and an address that is taken is named."""
    for address in ("0.0.0.0:7480", "192.0.2.1:7480"):
        with pytest.raises(RemotePlaintext, match=address):
            async with beside(app.address, tmp_path, http_listen=address):
                pass
    with pytest.raises(BadConfig, match="--http-listen: must be"):
        load_sidecar([Override("http_listen", "nonsense", "--http-listen")])
    async with beside(app.address, tmp_path, http_listen="127.0.0.1:0") as near:
        assert near._http is not None
        (tmp_path / "b").mkdir()
        with pytest.raises(CannotListen):
            async with beside(app.address, tmp_path / "b", http_listen=near._http.address):
                pass


async def test_the_command_serves_proxies(app: App, tmp_path: Path) -> None:
    """`sessiond sidecar --http-listen` answers on a Unix socket of its mode, until it is stopped."""
    path = tmp_path / "proxy.sock"
    process = SidecarProcess(tmp_path / "near", app.address, "--http-listen", f"unix:{path}", "--socket-mode", "0660")
    try:
        address = await process.address()
        await until(path.exists)
        assert path.stat().st_mode & 0o777 == 0o660
        transport = httpx2.AsyncHTTPTransport(uds=str(path))
        async with httpx2.AsyncClient(transport=transport, base_url="http://near", trust_env=False) as http:

            async def answers() -> bool:
                found = await http.get("/check?guests=true", headers=ASKED)
                return found.status_code == 200 and found.headers["x-session-action"] == "proceed"

            await until(answers)
        assert await health_of(address) == "SERVING"
    finally:
        assert await process.terminate() == 0
