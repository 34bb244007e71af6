"""The id of a call: in its errors, in each log line about it, and the same on every server that it passes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sessiond.app import App
from sessiond.system import ongoing
from sessiond_client import AsyncClient, Client, Grant, InvalidArgument, Role, SessiondError, Token
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.sidecar.scripted import SERVICE, scripted
from tests.support.canary import Canary
from tests.support.server import AsyncStub, ServerProcess, config_for, serving, stub_for
from tests.support.sidecars import beside, is_open, until

INVALID = pb.CreateSessionRequest(subject="a" * 5_000)
TOO_LONG = "a" * 43


def id_in(error: grpc.aio.AioRpcError) -> str:
    """Return the id of the call that failed."""
    rich, info = rpc_status.from_call(error), error_details_pb2.RequestInfo()
    assert rich is not None
    (found,) = [detail for detail in rich.details if detail.Is(info.DESCRIPTOR)]
    found.Unpack(info)
    return str(info.request_id)


async def refused(stub: AsyncStub, *sent: str, request: pb.CreateSessionRequest = INVALID) -> str:
    """Make a call that is refused, with these ids. Return the id in the error."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.CreateSession(request, metadata=[("x-request-id", one) for one in sent])
    return id_in(raised.value)


@pytest.fixture(params=["grpcio", "native"])
async def each(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An authority on each transport."""
    if request.param == "native":
        pytest.importorskip("pygrpc_native")
    async with serving(config_for(tmp_path, transport=request.param)) as app:
        yield app


async def test_the_caller_s_id(each: App) -> None:
    """An error has the id that its caller has sent, else one that no other call has."""
    async with stub_for(each.address) as stub:
        assert await refused(stub, "checkout-1") == "checkout-1"
        made = [await refused(stub), await refused(stub), await refused(stub, TOO_LONG), await refused(stub, "a", "b")]
    assert len(set(made)) == 4
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in made)


async def test_an_answer_from_memory_needs_no_id(each: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A validation that memory answers makes no id; the same call makes one if it is refused."""
    async with AsyncClient(each.address, coalesce=False) as client, stub_for(each.address) as stub:
        token = (await client.create(subject="ada")).token
        await client.validate(token)
        made: list[str] = []

        def count() -> str:
            made.append("made")
            return f"made-{len(made)}"

        monkeypatch.setattr(ongoing, "new_call_id", count)
        assert (await client.validate(token)).valid
        assert made == []
        assert await refused(stub) == "made-1"


async def test_who_is_refused(tmp_path: Path) -> None:
    """A caller without a key gets the id of the line in the audit log, also before anything else looks at the call."""
    file = tmp_path / "audit.log"
    async with serving(config_for(tmp_path, log_audit_file=file)) as app:
        async with AsyncClient(app.address) as client:
            await client.create_caller("ops", [Grant(role=Role.ADMIN, application="*")])
        async with stub_for(app.address) as stub:
            found = [await refused(stub), await refused(stub, "checkout-2")]
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [line["call_id"] for line in lines if line["outcome"] == "UNAUTHENTICATED"] == found
    assert found[1] == "checkout-2"


async def test_the_python_client(app: App) -> None:
    """Errors of both clients have the id, pickled too; those of the client itself have none."""
    async with AsyncClient(app.address) as client:
        with pytest.raises(InvalidArgument) as raised:
            await client.create(subject="a" * 5_000)
        with pytest.raises(SessiondError) as own:
            await client.validate(7)  # type: ignore[arg-type]
    assert len(raised.value.call_id) == 16
    assert own.value.call_id == ""
    again = pickle.loads(pickle.dumps(raised.value))
    assert again.call_id == raised.value.call_id
    assert raised.value.request_id != raised.value.call_id  # the one is a secret, the other is logged


def test_the_synchronous_client() -> None:
    """A target that nobody listens on gives an error without an id."""
    with Client("127.0.0.1:9", timeout=0.2, retries=0) as client, pytest.raises(SessiondError) as raised:
        client.validate(Token("x"))
    assert raised.value.call_id == ""


async def test_through_a_sidecar(tmp_path: Path, app: App) -> None:
    """A sidecar sends its caller's id to the authority, or one of its own, and errors of either have the same one."""

    async def answer(context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "")

    async with (
        scripted(answer) as authority,
        beside(authority.address, tmp_path) as near,
        stub_for(near.address) as stub,
    ):
        for sent in ("checkout-3", TOO_LONG):
            shown = await refused(stub, sent)
            got = next(
                dict(metadata) for method, metadata in reversed(authority.calls) if method == SERVICE + "CreateSession"
            )
            assert got["x-request-id"] == shown
            assert (shown == sent) is (sent != TOO_LONG)
    async with beside(app.address, tmp_path) as near, stub_for(near.address) as stub:
        assert await refused(stub, "checkout-4") == "checkout-4"
        token = (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))).token
        await until(lambda: is_open(near))
        for number in range(3):
            asked = pb.ValidateSessionRequest(token=token)
            await stub.ValidateSession(asked, metadata=[("x-request-id", f"checkout-{number}")])
        assert near.cache.stats().hits >= 1  # an id does not make another question


async def test_what_starts_a_server(tmp_path: Path) -> None:
    """Calls of a server, and of a sidecar, do not belong to the call within which it was started."""
    ongoing.begin_call(ongoing.OngoingCall("outer"))
    async with serving(config_for(tmp_path)) as app, beside(app.address, tmp_path) as near:
        for address in (app.address, near.address):
            async with stub_for(address) as stub:
                assert "outer" not in {await refused(stub), await refused(stub, "inner")}


async def test_over_http(tmp_path: Path) -> None:
    """A response has the id that its request came with, through a sidecar too; one that fails always has an id."""
    async with serving(config_for(tmp_path, http_listen="127.0.0.1:0")) as app:
        assert app._endpoints._http is not None
        async with beside(app.address, tmp_path, http_listen="127.0.0.1:0") as near:
            assert near._http is not None
            for address in (app._endpoints._http.address, near._http.address):
                async with httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False) as http:
                    asked = {
                        "x-forwarded-method": "GET",
                        "x-forwarded-uri": "/",
                        "x-forwarded-host": "app.example",
                        "x-forwarded-for": "203.0.113.9",
                    }
                    route = {"guests": "true"}
                    found = await http.get("/check", params=route, headers=asked | {"x-request-id": "checkout-5"})
                    assert (found.status_code, found.headers.get_list("x-request-id")) == (200, ["checkout-5"])
                    failed = await http.get("/check", params={"level": "much"}, headers=asked)
                    assert failed.status_code == 500
                    assert len(failed.headers["x-request-id"]) == 16


async def test_in_lines_of_the_log(tmp_path: Path) -> None:
    """Each line about a call has its id, and no other line has one, in the log of a process."""
    canary = Canary()
    server = ServerProcess(tmp_path, "--log-level", "debug")
    try:
        async with stub_for(await server.address()) as stub:
            token = canary.know_token((await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))).token)
            for sent in ("checkout-6", token):
                metadata = [("x-request-id", sent)]
                await stub.RevokeSessions(pb.RevokeSessionsRequest(whole_application=True), metadata=metadata)
    finally:
        await server.terminate()
    lines = [json.loads(line) for line in server.log_path.read_text(encoding="utf-8").splitlines()]
    found = [line["call_id"] for line in lines if line["event"] == "audit"]
    assert found[0] == "checkout-6"
    assert len(found[1]) == 16
    assert canary.found_in("log", server.log_path.read_text(encoding="utf-8")) == []
    assert all("call_id" not in line for line in lines if line["event"] != "audit")
