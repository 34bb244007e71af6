"""Callers that are known by their client certificate, over real mutual TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.app import App
from sessiond.domain.call import FORWARDED_KEY, PEER_KEY
from sessiond.rpc import listening
from sessiond.system.clock import SystemClock
from sessiond_client import (
    AsyncClient,
    CallerKey,
    Client,
    EventType,
    FailedPrecondition,
    Grant,
    InvalidArgument,
    NotFound,
    Role,
    TlsFiles,
    Token,
    Unauthenticated,
    Verdict,
)
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.access.test_matrix import DENIED, LETTERS, TABLE, every_call, status
from tests.rpc.refusals import refusal_of
from tests.support.certificates import Authority, Pair, credentials, server_files
from tests.support.clock import ManualClock
from tests.support.replicas import replicas
from tests.support.server import AsyncStub, config_for, serving
from tests.support.sidecars import until

CA, CLIENTS, OTHERS = Authority("servers"), Authority("clients"), Authority("other clients")
ADMIN = [Grant(role=Role.ADMIN)]
VALIDATOR = [Grant(role=Role.VALIDATOR)]
SHOP = "spiffe://test/shop"
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def tls_files(folder: Path, own: Pair) -> TlsFiles:
    """Write a client's files."""
    folder.mkdir(exist_ok=True)
    certificate, key = own.write(folder, "client")
    return TlsFiles(ca=CA.write(folder, "ca"), certificate=certificate, key=key)


@asynccontextmanager
async def stub_of(app: App, own: Pair, **options: Any) -> AsyncIterator[AsyncStub]:
    """The generated stub on a connection with this certificate."""
    async with grpc.aio.secure_channel(app.address, credentials(CA, own), **options) as channel:
        yield every_call(channel)


def settings(folder: Path, clients: Authority = CLIENTS) -> dict[str, Any]:
    """The settings of an authority with mutual TLS, which only grpcio has."""
    return {"transport": "grpcio", "envoy": True, **server_files(CA, folder / "tls", clients)}


@asynccontextmanager
async def administered(
    folder: Path, text: str = "", clock: ManualClock | None = None
) -> AsyncIterator[tuple[App, AsyncClient]]:
    """An authority with mutual TLS and one caller, and the client of that one, which sends a key."""
    async with serving(config_for(folder, text, **settings(folder)), clock) as app:
        files = tls_files(folder / "ops", CLIENTS.client("spiffe://test/ops"))
        async with AsyncClient(app.address, tls=files) as anyone:
            first = await anyone.create_caller("ops", ADMIN)
        async with AsyncClient(app.address, tls=files, key=first.key) as admin:
            yield app, admin


async def add(admin: AsyncClient, name: str, *certificates: str, grants: list[Grant] | None = None) -> CallerKey:
    """Add a caller that is known by its certificate only."""
    return await admin.create_caller(name, grants or VALIDATOR, certificate_names=certificates, without_key=True)


def question(token: Token) -> pb.ValidateSessionRequest:
    """Ask about a token."""
    return pb.ValidateSessionRequest(token=token.reveal())


def bearer(key: str) -> list[tuple[str, str]]:
    """The metadata with a key."""
    return [("authorization", f"Bearer {key}")]


async def code_of(call: Any) -> grpc.StatusCode:
    """How a call ends."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


# Who is known


@pytest.mark.parametrize("name", [SHOP, "https://test/shop?x=1", "shop.internal.example"])
async def test_a_certificate_is_enough(tmp_path: Path, name: str) -> None:
    """A caller with a name in its certificate needs no key; events name it, and it may do what its roles say."""
    async with administered(tmp_path) as (app, admin):
        added = await add(admin, "shop", name, grants=[Grant(role=Role.ISSUER, application="default")])
        assert added.key == Token("")
        files = tls_files(tmp_path / "shop", CLIENTS.client(name))
        async with AsyncClient(app.address, tls=files) as shop:
            opened = await shop.create(subject="ada")
            assert (await shop.validate(opened.token)).verdict is Verdict.VALID
            with pytest.raises(Exception, match='caller "shop" may not call ListCallers'):
                await shop.list_callers()
        async with admin.events(start="earliest", applications=[]) as events:
            async for event in events:
                if event.type is EventType.SESSION_CREATED:
                    assert event.cause.actor == "shop"
                    break
        shown = {caller.name: caller.credentials for caller in await admin.list_callers()}
        assert [(one.id, one.certificate_name, one.expire_time) for one in shown["shop"]] == [(name, name, None)]


async def test_every_rpc_against_every_certificate(tmp_path: Path) -> None:
    """A caller by certificate is served exactly the RPCs of its role, and a certificate of no caller none."""
    text = "[applications.shop]\n[applications.bank]\n"
    names = {letter: f"spiffe://test/{letter.lower()}-{letter.isupper()}".lower() for letter in (*LETTERS, "A")}
    served: dict[str, set[str]] = {name: set() for name in TABLE}
    async with administered(tmp_path, text) as (app, admin):
        for letter, role in LETTERS.items():
            grants = [Grant(role=Role(role), application="shop")]
            await add(admin, f"shop-{letter}", names[letter], grants=grants)
            await add(
                admin, f"bank-{letter}", f"{names[letter]}/bank", grants=[Grant(role=Role(role), application="bank")]
            )
        await add(admin, "shop-everything", names["A"], grants=ADMIN)
        others = {f"bank-{letter}": f"{names[letter]}/bank" for letter in LETTERS}
        for caller, name in {**names, **others, "nobody": "spiffe://test/nobody"}.items():
            async with stub_of(app, CLIENTS.client(name)) as stub:
                for rpc, (request, _) in TABLE.items():
                    if await status(stub, rpc, request, []) not in DENIED:
                        served[rpc].add(caller)
    expected = {rpc: set(allowed) for rpc, (_, allowed) in TABLE.items()}
    expected["GetAuthority"] |= others.keys()
    assert served == expected


async def test_a_key_counts_before_a_certificate(tmp_path: Path) -> None:
    """A call with a key is that of the key's caller; with a wrong key it is refused, whatever certificate it has."""
    async with administered(tmp_path) as (app, admin):
        await add(admin, "shop", SHOP, grants=ADMIN)
        edge = (await admin.create_caller("edge", VALIDATOR)).key.reveal()
        async with stub_of(app, CLIENTS.client(SHOP)) as stub:
            assert await code_of(stub.ListCallers(pb.ListCallersRequest())) is grpc.StatusCode.OK
            ask = stub.ListCallers(pb.ListCallersRequest(), metadata=bearer(edge))
            assert await code_of(ask) is grpc.StatusCode.PERMISSION_DENIED
            wrong = edge[:-1] + ("A" if edge[-1] != "A" else "B")
            for metadata in (
                bearer(wrong),
                bearer(""),
                [("authorization", "")],
                [("authorization", f"Basic {edge}")],
                bearer(edge) + bearer(edge),
            ):
                ask = stub.ListCallers(pb.ListCallersRequest(), metadata=metadata)
                assert await code_of(ask) is UNAUTHENTICATED


async def test_a_mark_only_takes_away(tmp_path: Path) -> None:
    """A call with the mark of a sidecar has no rights by its certificate, whatever the mark says, and all by a key."""
    async with administered(tmp_path) as (app, admin):
        await add(admin, "shop", SHOP, grants=ADMIN)
        key = (await admin.create_caller("edge", ADMIN)).key.reveal()
        async with stub_of(app, CLIENTS.client(SHOP)) as stub:
            for value in ("sidecar", "", "0", "spiffe://test/ops"):
                marked = stub.ListCallers(pb.ListCallersRequest(), metadata=[(FORWARDED_KEY, value)])
                refused = await refusal_of(marked)
                assert (refused.code, refused.message[:14]) == (UNAUTHENTICATED, "no credentials")
            both = [(FORWARDED_KEY, "sidecar"), *bearer(key)]
            assert await code_of(stub.ListCallers(pb.ListCallersRequest(), metadata=both)) is grpc.StatusCode.OK
            peer = [(PEER_KEY, "unix:")]
            assert await code_of(stub.ListCallers(pb.ListCallersRequest(), metadata=peer)) is grpc.StatusCode.OK
        async with stub_of(app, CLIENTS.client("spiffe://test/nobody")) as stub:
            for name in (FORWARDED_KEY, PEER_KEY, "x509_uri", "x-forwarded-client-cert"):
                claimed = stub.ListCallers(pb.ListCallersRequest(), metadata=[(name, SHOP)])
                assert await code_of(claimed) is UNAUTHENTICATED


async def test_names_are_compared_exactly(tmp_path: Path) -> None:
    """A name that only resembles that of a caller proves nobody, and the error says why."""
    async with administered(tmp_path) as (app, admin):
        await add(admin, "shop", SHOP, "shop.example")
        for name in (
            f"{SHOP}/",
            "spiffe://test/Shop",
            "https://test/shop",
            "a.shop.example",
            "*.example",
            "shop.example.",
        ):
            async with stub_of(app, CLIENTS.client(name)) as stub:
                refused = await refusal_of(stub.GetAuthority(pb.GetAuthorityRequest()))
                assert refused.code is UNAUTHENTICATED
                assert refused.message.startswith("no credentials: send the key of a caller")
        async with stub_of(app, CLIENTS.client("SHOP.example")) as stub:  # DNS names have no case
            assert await code_of(stub.GetAuthority(pb.GetAuthorityRequest())) is grpc.StatusCode.OK


# What can be added


WRONG = {
    "": "is empty; write a URI such as spiffe://example.org/shop, or a DNS name such as shop.example.org",
    "*.example.org": "is a wildcard, which cannot identify a caller; write the whole name",
    "spiffe://example.org/*": "is a wildcard, which cannot identify a caller; write the whole name",
    "192.0.2.1": "is an IP address, which cannot identify a caller; use a URI or a DNS name of the certificate",
    "2001:db8::1": "is an IP address, which cannot identify a caller; use a URI or a DNS name of the certificate",
    "Shop.example.org": "has upper case; write DNS names in lower case, as they are compared",
    "spiffe://Example.org/shop": "has upper case before the path of a SPIFFE ID; write scheme and trust domain in",
    "SPIFFE://example.org/shop": "has upper case before the path of a SPIFFE ID; write scheme and trust domain in",
    "spiffe://example.org/shop/": "is not a SPIFFE ID: write spiffe://TRUST-DOMAIN/PATH, without a port, a query,",
    "spiffe://example.org:8443/shop": "is not a SPIFFE ID: write spiffe://TRUST-DOMAIN/PATH",
    "DNS:shop.example.org": "has the prefix DNS: of another notation; leave it out",
    "shop.example.org:443": "has a port, and certificates have none; leave it out",
    "CN=shop": "is neither a URI such as spiffe://example.org/shop nor a DNS name such as shop.example.org",
    "a shop": "is neither a URI such as spiffe://example.org/shop nor a DNS name such as shop.example.org",
    "https://example.org/ü": "is not a URI of at most 2048 characters; write it as it is in the certificate",
    "https://" + "x" * 2050: "is not a URI of at most 2048 characters; write it as it is in the certificate",
    "x" * 254: "is neither a URI such as spiffe://example.org/shop nor a DNS name such as shop.example.org",
}


@pytest.mark.parametrize("name", WRONG, ids=lambda name: name[:20])
async def test_names_that_cannot_be_used(name: str, app: App) -> None:
    """A name that no certificate can prove is refused with the reason, for a new caller and for another one."""
    async with AsyncClient(app.address) as anyone:
        first = await anyone.create_caller("ops", ADMIN)
    async with AsyncClient(app.address, key=first.key) as admin:
        with pytest.raises(InvalidArgument) as error:
            await add(admin, "shop", "good.example", name)
        assert str(error.value).startswith("certificate_names: ")
        assert WRONG[name] in str(error.value)
        with pytest.raises(InvalidArgument) as error:
            await admin.update_caller_certificates("ops", add=[name])
        assert str(error.value).startswith("add: ")
        assert WRONG[name] in str(error.value)
        assert [caller.name for caller in await admin.list_callers()] == ["ops"]


async def test_changes_that_cannot_be_made(app: App) -> None:
    """A name belongs to one caller, and one to remove must be there; a caller keeps a credential, and has few names."""
    async with AsyncClient(app.address) as anyone:
        first = await anyone.create_caller("ops", ADMIN)
    async with AsyncClient(app.address, key=first.key) as admin:
        await add(admin, "shop", SHOP)
        with pytest.raises(InvalidArgument, match='certificate_names: belongs to the caller "shop" already'):
            await add(admin, "edge", SHOP)
        with pytest.raises(InvalidArgument, match=r"certificate_names: .* is there twice; name it once"):
            await add(admin, "edge", "edge.example", "edge.example")
        with pytest.raises(InvalidArgument, match="certificate_names: has 11 entries; at most 10 are allowed"):
            await add(admin, "edge", *(f"edge-{number}.example" for number in range(11)))
        change = admin.update_caller_certificates
        for caller in ("shop", "ops"):
            with pytest.raises(InvalidArgument, match='add: belongs to the caller "shop" already'):
                await change(caller, add=[SHOP])
        with pytest.raises(InvalidArgument, match='remove: "spiffe://test/shop" is not a certificate name of this'):
            await change("ops", remove=[SHOP])
        with pytest.raises(InvalidArgument, match="remove: would leave the caller without a credential; give it a key"):
            await change("shop", remove=[SHOP])
        with pytest.raises(InvalidArgument, match="add: a caller has at most 10 certificate names; remove some"):
            await change("shop", add=[f"shop-{number}.example" for number in range(10)])
        with pytest.raises(InvalidArgument, match="add: must have a name if remove has none"):
            await change("shop")
        with pytest.raises(NotFound, match='there is no caller "nobody"'):
            await change("nobody", add=["nobody.example"])
        nine = [f"shop-{number}.example" for number in range(9)]
        changed = await change("shop", add=nine, reason="ticket 18")
        assert [one.certificate_name for one in changed.caller.credentials] == [SHOP, *nine]
        moved = await change("shop", remove=[SHOP, *nine[1:]])
        assert [one.certificate_name for one in moved.caller.credentials] == nine[:1]
        await change("ops", add=[SHOP])
        reasons = []
        async with admin.events(start="earliest", applications=[]) as events:
            async for event in events:
                reasons.append(event.cause.reason)
                if len(reasons) == 5:
                    break
        assert reasons[1] == f"added shop: validator for *; certificate {SHOP}"
        assert reasons[2].startswith("certificates of shop: added shop-0.example, ")
        assert reasons[3].startswith(f"certificates of shop: removed {SHOP}, ")
        assert reasons[4] == f"certificates of ops: added {SHOP}"


async def test_an_admin_by_certificate_is_not_the_last(tmp_path: Path) -> None:
    """A certificate ends, so the first caller needs a key, and the last admin with a key cannot be revoked."""
    async with serving(config_for(tmp_path, **settings(tmp_path))) as app:
        files = tls_files(tmp_path / "ops", CLIENTS.client("spiffe://test/ops"))
        async with AsyncClient(app.address, tls=files) as ops:
            with pytest.raises(FailedPrecondition, match="an admin for all applications, with a key"):
                await add(ops, "ops", "spiffe://test/ops", grants=ADMIN)
            issued = await ops.create_caller("ops", ADMIN, certificate_names=["spiffe://test/ops"])
            assert issued.key.reveal().startswith("sessiond_")
            await add(ops, "deputy", "spiffe://test/deputy", grants=ADMIN)
            with pytest.raises(FailedPrecondition, match="is the last admin for all applications with a key"):
                await ops.revoke_caller("ops")
            await ops.update_caller_certificates("ops", remove=["spiffe://test/ops"])
            with pytest.raises(Unauthenticated):
                await ops.list_callers()
        async with AsyncClient(app.address, tls=files, key=issued.key) as ops:
            assert len(await ops.list_callers()) == 2
            rotated = await ops.rotate_caller("deputy")  # gives it a key, and keeps its certificate
            await ops.revoke_caller("ops")
        deputy = tls_files(tmp_path / "deputy", CLIENTS.client("spiffe://test/deputy"))
        for key in (None, rotated.key):
            async with AsyncClient(app.address, tls=deputy, key=key) as client:
                assert [caller.name for caller in await client.list_callers()] == ["deputy"]


# What ends


async def opened(stub: AsyncStub) -> Any:
    """A stream of events that is being served."""
    stream = stub.Subscribe(pb.SubscribeRequest(start=pb.STREAM_START_EARLIEST))
    assert await stream.read()
    return stream


async def end_of(stream: Any) -> grpc.StatusCode:
    """How a stream ends."""
    async with asyncio.timeout(20):
        try:
            while await stream.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return error.code()
        return await stream.code()  # type: ignore[no-any-return]  # generated stubs have no types for it


async def test_what_is_taken_away_ends_at_once(tmp_path: Path) -> None:
    """A removed name, and a revoked caller, end streams on open connections, and the next call is refused."""
    async with administered(tmp_path) as (app, admin):
        await add(admin, "shop", SHOP, "shop.example", grants=ADMIN)
        token = (await admin.create(subject="ada")).token
        async with stub_of(app, CLIENTS.client(SHOP)) as one, stub_of(app, CLIENTS.client("shop.example")) as other:
            first, second = await opened(one), await opened(other)
            for _ in range(3):  # the fast path answers
                assert (await one.ValidateSession(question(token))).verdict == pb.VERDICT_VALID
            await admin.update_caller_certificates("shop", remove=[SHOP])
            # Both end, because they are of the same caller; the client with the other name resumes.
            assert await end_of(first) is UNAVAILABLE
            assert await end_of(second) is UNAVAILABLE
            assert await code_of(one.ValidateSession(question(token))) is UNAUTHENTICATED
            second = await opened(other)
            await admin.revoke_caller("shop")
            assert await end_of(second) is UNAUTHENTICATED
            assert await code_of(other.ValidateSession(question(token))) is UNAUTHENTICATED


async def test_a_certificate_that_expires_on_an_open_connection(tmp_path: Path) -> None:
    """When a certificate ends, calls over its open connection are refused and its streams end; a key goes on."""
    clock = ManualClock(SystemClock().now())
    async with administered(tmp_path, clock=clock) as (app, admin):
        await add(admin, "shop", SHOP, grants=ADMIN)
        key = (await admin.create_caller("edge", ADMIN)).key.reveal()
        async with stub_of(app, CLIENTS.client(SHOP, end=timedelta(days=30))) as stub:
            by_certificate = await opened(stub)
            by_key = stub.Subscribe(pb.SubscribeRequest(start=pb.STREAM_START_EARLIEST), metadata=bearer(key))
            assert await by_key.read()
            clock.advance(29 * 86_400_000)
            assert await code_of(stub.ListCallers(pb.ListCallersRequest())) is grpc.StatusCode.OK
            clock.advance(86_400_000 + 60_000)
            refused = await refusal_of(stub.ListCallers(pb.ListCallersRequest()))
            assert refused.code is UNAUTHENTICATED
            assert "the certificate of this connection has expired: connect again with a new one" in refused.message
            assert await end_of(by_certificate) is UNAVAILABLE
            assert await code_of(stub.ListCallers(pb.ListCallersRequest(), metadata=bearer(key))) is grpc.StatusCode.OK
            assert not by_key.done()


async def test_a_key_that_expires_ends_its_streams(app: App, clock: ManualClock) -> None:
    """A stream that was opened with the old key ends with the overlap; one with the new key goes on."""
    async with AsyncClient(app.address) as anyone:
        first = await anyone.create_caller("ops", ADMIN)
    async with AsyncClient(app.address, key=first.key) as admin:
        second = await admin.rotate_caller("ops", overlap=timedelta(hours=1))
    async with grpc.aio.insecure_channel(app.address) as channel:
        stub = every_call(channel)
        streams = []
        for issued in (first, second):
            metadata = bearer(issued.key.reveal())
            streams.append(stub.Subscribe(pb.SubscribeRequest(start=pb.STREAM_START_EARLIEST), metadata=metadata))
            assert await streams[-1].read()
        clock.advance(3_600_000)
        assert await end_of(streams[0]) is UNAVAILABLE
        assert not streams[1].done()


async def test_an_authority_that_is_removed(tmp_path: Path) -> None:
    """When a CA is removed from the file, its certificates prove nothing on open connections; those of others go on."""
    async with administered(tmp_path) as (app, admin):
        await add(admin, "shop", SHOP, grants=ADMIN)
        await add(admin, "edge", "edge.example", grants=ADMIN)
        bundle = tmp_path / "tls" / "clients.pem"
        bundle.write_bytes(CLIENTS.pem + OTHERS.pem)
        await app.reload(app._config)
        async with stub_of(app, CLIENTS.client(SHOP)) as stays, stub_of(app, OTHERS.client("edge.example")) as goes:
            first, second = await opened(stays), await opened(goes)
            bundle.write_bytes(CLIENTS.pem)
            assert await end_of(second) is UNAVAILABLE  # the files are looked at every second
            assert await code_of(goes.ListCallers(pb.ListCallersRequest())) is UNAUTHENTICATED
            assert await code_of(stays.ListCallers(pb.ListCallersRequest())) is grpc.StatusCode.OK
            assert not first.done()
            bundle.write_bytes(CLIENTS.pem + OTHERS.pem)
            await app.reload(app._config)
            assert await code_of(goes.ListCallers(pb.ListCallersRequest())) is grpc.StatusCode.OK


async def test_connections_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With mutual TLS each connection is replaced after a while: no call fails, and a stream ends with UNAVAILABLE."""
    monkeypatch.setattr(listening, "_CONNECTION_AGE_MS", 300)
    monkeypatch.setattr(listening, "_CONNECTION_GRACE_MS", 300)
    async with administered(tmp_path) as (app, admin):
        await add(admin, "shop", SHOP, grants=ADMIN)
        peers: set[str] = set()
        identify = app._callers.identify

        def noted(peer: str, *more: Any) -> Any:
            peers.add(peer)
            return identify(peer, *more)

        monkeypatch.setattr(app._callers, "identify", noted)
        async with stub_of(app, CLIENTS.client(SHOP)) as stub:
            stream = await opened(stub)
            while len(peers) < 4:
                assert await code_of(stub.ListCallers(pb.ListCallersRequest())) is grpc.StatusCode.OK
                await asyncio.sleep(0.01)
            assert await end_of(stream) is UNAVAILABLE


# Clients, replicas


@pytest.mark.parametrize("kind", [AsyncClient, Client])
async def test_a_client_with_a_new_certificate_goes_on(tmp_path: Path, kind: type[AsyncClient | Client]) -> None:
    """A client whose certificate has ended on its open connection, and whose files are new, notices nothing."""
    clock = ManualClock(SystemClock().now())
    async with administered(tmp_path, clock=clock) as (app, admin):
        await add(admin, "shop", SHOP, grants=ADMIN)
        files = tls_files(tmp_path / "shop", CLIENTS.client(SHOP, end=timedelta(days=1)))
        client = kind(app.address, tls=files)

        async def callers() -> int:
            found: Any = await asyncio.to_thread(client.list_callers) if kind is Client else client.list_callers()
            return len(found if kind is Client else await found)

        assert await callers() == 2
        clock.advance(86_400_000 + 60_000)
        with pytest.raises(Unauthenticated, match="has expired"):
            await callers()
        tls_files(tmp_path / "shop", CLIENTS.client(SHOP, end=timedelta(days=30)))
        assert await callers() == 2
        closing: Any = client.close()
        if closing is not None:
            await closing


async def test_a_certificate_counts_at_all_replicas(tmp_path: Path, database: str) -> None:
    """A name that was added at one replica is known at the other, and one that was removed proves nothing there."""
    async with replicas(tmp_path, database, **settings(tmp_path)) as (one, other):
        files = tls_files(tmp_path / "ops", CLIENTS.client("spiffe://test/ops"))
        async with AsyncClient(one.address, tls=files) as anyone:
            first = await anyone.create_caller("ops", ADMIN)
        async with (
            AsyncClient(one.address, tls=files, key=first.key) as admin,
            stub_of(other, CLIENTS.client(SHOP)) as stub,
        ):

            async def is_known() -> bool:
                return await code_of(stub.GetAuthority(pb.GetAuthorityRequest())) is grpc.StatusCode.OK

            async def is_unknown() -> bool:
                return await code_of(stub.GetAuthority(pb.GetAuthorityRequest())) is UNAUTHENTICATED

            await until(is_unknown)
            await add(admin, "shop", SHOP, "shop.example", grants=ADMIN)
            await until(is_known)
            stream = await opened(stub)
            await admin.update_caller_certificates("shop", remove=[SHOP])
            assert await end_of(stream) is UNAVAILABLE
            await until(is_unknown)
