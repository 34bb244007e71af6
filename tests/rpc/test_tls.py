"""TLS on a real port: who gets in, what the others are told, and files that change under load."""

from __future__ import annotations

import asyncio
import gc
import shutil
import socket
import ssl
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from structlog.testing import capture_logs

from sessiond.access.callers import Callers
from sessiond.access.tls import BadTls
from sessiond.app import App, OpenToOthers, RemotePlaintext, WorkersNeedPort
from sessiond.domain.call import Caller
from sessiond_client import (
    AsyncClient,
    Client,
    Grant,
    InvalidArgument,
    Role,
    TlsFiles,
    Unauthenticated,
    Unavailable,
    Verdict,
)
from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub
from tests.support.certificates import Authority, Pair, credentials, server_files
from tests.support.server import ServerProcess, config_for, serving
from tests.support.sidecars import until

pytestmark = pytest.mark.usefixtures("grpcio_only")
CA, CLIENTS, STRANGER = Authority("servers"), Authority("clients"), Authority("stranger")


@pytest.fixture
def grpcio_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS is served by grpcio only, whatever transport the run has chosen."""
    monkeypatch.delenv("SESSIOND_TRANSPORT", raising=False)


@asynccontextmanager
async def secure(folder: Path, clients: Authority | None = None, **pair: Any) -> AsyncIterator[App]:
    """Run an authority with TLS; with `clients`, mutual TLS."""
    async with serving(config_for(folder, **server_files(CA, folder / "tls", clients, **pair))) as app:
        yield app


def tls_files(folder: Path, authority: Authority | None, own: Pair | None = None) -> TlsFiles:
    """Write a client's files."""
    folder.mkdir(exist_ok=True)
    paths: dict[str, Path] = {}
    if authority is not None:
        paths["ca"] = authority.write(folder, "ca")
    if own is not None:
        paths["certificate"], paths["key"] = own.write(folder, "client")
    return TlsFiles(**paths)


async def refusal(address: str, **options: Any) -> str:
    """Return why a client cannot connect, in one line."""
    async with AsyncClient(address, retries=0, **options) as client:
        with pytest.raises(Unavailable) as error:
            await client.authority()
    assert "\n" not in str(error.value)
    return str(error.value)


async def test_both_clients_connect(tmp_path: Path) -> None:
    """With the authority's certificate, both clients make calls over TLS."""
    async with secure(tmp_path) as app:
        files = tls_files(tmp_path / "client", CA)
        async with AsyncClient(app.address, tls=files) as client:
            opened = await client.create(subject="ada")
            assert (await client.validate(opened.token)).verdict is Verdict.VALID

        def ask() -> Verdict:
            with Client(app.address, tls=files) as client:
                return client.validate(opened.token).verdict

        assert await asyncio.to_thread(ask) is Verdict.VALID


async def test_mutual_tls(tmp_path: Path) -> None:
    """With a certificate that the server's authority of clients has signed, a client gets in."""
    async with secure(tmp_path, CLIENTS) as app:
        async with AsyncClient(app.address, tls=tls_files(tmp_path / "client", CA, CLIENTS.client())) as client:
            assert (await client.create(subject="ada")).session.subject == "ada"
        async with AsyncClient(app.address, credentials=credentials(CA, CLIENTS.client())) as client:
            assert (await client.create(subject="ada")).session.subject == "ada"


TRUST = "(the authority's certificate is not signed by an authority that this client trusts)"
CLOSED = "(the authority may expect TLS, or another certificate of the client)"


async def test_a_wrong_authority(tmp_path: Path) -> None:
    """A client that trusts another authority, or only public ones, refuses the server and says so."""
    async with secure(tmp_path) as app:
        assert TRUST in await refusal(app.address, tls=tls_files(tmp_path / "client", STRANGER))
        assert TRUST in await refusal(app.address, tls=True)


async def test_a_wrong_host_name(tmp_path: Path) -> None:
    """A client refuses a certificate for another host, and says so."""
    settings = server_files(CA, tmp_path / "tls")
    certificate, key = CA.issue("other.example").write(tmp_path / "tls", "server")
    async with serving(config_for(tmp_path, **settings | {"tls_certificate": certificate, "tls_key": key})) as app:
        text = await refusal(app.address, tls=tls_files(tmp_path / "client", CA))
        assert "(the authority's certificate is for another name than the target's host)" in text


CLIENT_PAIRS: dict[str, Pair | None] = {
    "none": None,
    "another authority's": STRANGER.client(),
    "the servers' authority's": CA.client(),
    "expired": CLIENTS.client(begin=timedelta(days=-2), end=timedelta(days=-1)),
    "not yet valid": CLIENTS.client(begin=timedelta(days=1), end=timedelta(days=2)),
    "a server's": CLIENTS.server(),
}


@pytest.mark.parametrize("kind", CLIENT_PAIRS)
async def test_a_wrong_client_certificate(tmp_path: Path, kind: str) -> None:
    """A client without a certificate that is valid, for clients, and of the right authority makes no call."""
    async with secure(tmp_path, CLIENTS) as app:
        text = await refusal(app.address, tls=tls_files(tmp_path / "client", CA, CLIENT_PAIRS[kind]))
        assert CLOSED in text
        async with AsyncClient(app.address, tls=tls_files(tmp_path / "good", CA, CLIENTS.client())) as client:
            assert (await client.authority()).version


async def test_plaintext_to_a_port_with_tls(tmp_path: Path) -> None:
    """A client without TLS gets nothing from a port with TLS, and is told what may be the reason."""
    async with secure(tmp_path) as app:
        assert CLOSED in await refusal(app.address)


async def test_tls_to_a_port_without_it(app: App, tmp_path: Path) -> None:
    """A client with TLS sends nothing to a port without, and is told why."""
    text = await refusal(app.address, tls=tls_files(tmp_path / "client", CA))
    assert "(the authority does not serve TLS at this address)" in text


@pytest.mark.parametrize("version", ["TLSv1_1", "TLSv1_2", "TLSv1_3"])
async def test_the_oldest_version_is_1_2(tmp_path: Path, version: str) -> None:
    """A handshake below TLS 1.2 fails; with 1.2 and 1.3 it succeeds."""

    def connect(address: str) -> str | None:
        host, _, port = address.rpartition(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=CA.pem.decode())
        context.set_alpn_protocols(["h2"])
        # Otherwise OpenSSL itself would offer nothing below 1.2.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        with (
            socket.create_connection((host, int(port)), 10) as plain,
            context.wrap_socket(plain, server_hostname=host) as one,
        ):
            return one.version()

    async with secure(tmp_path) as app:
        if version == "TLSv1_1":
            with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises((ssl.SSLError, OSError)):
                await asyncio.to_thread(connect, app.address)
        else:
            assert await asyncio.to_thread(connect, app.address) == version.replace("_", ".")


async def test_streams(tmp_path: Path) -> None:
    """Events, a near cache's feed and the stream of validations work over mutual TLS."""
    async with secure(tmp_path, CLIENTS) as app:
        files = tls_files(tmp_path / "client", CA, CLIENTS.client())
        async with (
            AsyncClient(app.address, tls=files, near_cache=True) as near,
            AsyncClient(app.address, tls=files) as client,
        ):
            opened = [await client.create(subject=f"user {i}") for i in range(20)]
            answers = await asyncio.gather(*(client.validate(one.token) for one in opened))
            assert {answer.verdict for answer in answers} == {Verdict.VALID}
            async with asyncio.timeout(30):
                while not (near.near_cache and near.near_cache.is_open):
                    assert (await near.validate(opened[0].token)).valid
                await client.revoke(token=opened[0].token, wait_for_caches=True)
                assert not (await near.validate(opened[0].token)).valid
                async with client.events(start="earliest") as events:
                    subjects = {(await anext(events)).subject for _ in range(20)}
            assert subjects == {f"user {i}" for i in range(20)}
        async with grpc.aio.secure_channel(app.address, credentials(CA, CLIENTS.client())) as channel:
            call = SessionAuthorityStub(channel).StreamValidations()
            questions = [pb.ValidateSessionRequest(token=opened[1].token.reveal())]
            await call.write(pb.StreamValidationsRequest(requests=questions))
            answer: Any = await call.read()
            assert answer.responses[0].verdict == pb.VERDICT_VALID
            await call.done_writing()


async def test_the_identity_of_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call's caller has the names of the certificate that its connection has proved, and nobody else's."""
    seen: list[Caller] = []
    identify = Callers.identify

    def noted(self: Callers, *args: Any) -> Caller:
        seen.append(identify(self, *args))
        return seen[-1]

    monkeypatch.setattr(Callers, "identify", noted)
    names = {"shop": ("spiffe://test/shop",), "desk": ("desk.example", "*.wild.example")}
    async with secure(tmp_path, CLIENTS) as app:
        clients = {
            name: AsyncClient(app.address, credentials=credentials(CA, CLIENTS.client(*given)))
            for name, given in names.items()
        }
        for _ in range(3):
            for client in clients.values():
                await client.authority()
        for client in clients.values():
            await client.close()
    found = [None if one.certificate is None else (one.certificate.uris, one.certificate.dns_names) for one in seen]
    assert found == [(("spiffe://test/shop",), ()), ((), ("desk.example",))] * 3


HOSTILE: dict[str, bytes] = {
    "a NUL in a DNS name": b"\x82\x12shop.example\0.evil",
    "a NUL in a URI": b"\x86\x16spiffe://test/shop\0.ex",
    "a comma": b"\x86\x14spiffe://test/a,evil",
    "not ASCII": b"\x86\x14spiffe://test/sh\xc3\xb6p.",
    "two SPIFFE IDs": b"\x86\x0fspiffe://test/a" + b"\x86\x0fspiffe://test/b",
    "a wildcard": b"\x82\x0e*.shop.example",
    "an empty URI": b"\x86\x00",
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_hostile_names(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signed certificate with hostile names either gets no connection, or has no name; the server goes on."""
    names = HOSTILE[kind]
    extension = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes([0x30, len(names)]) + names)
    seen: list[Caller] = []
    identify = Callers.identify

    def noted(self: Callers, *args: Any) -> Caller:
        seen.append(identify(self, *args))
        return seen[-1]

    monkeypatch.setattr(Callers, "identify", noted)
    async with secure(tmp_path, CLIENTS) as app:
        pair = CLIENTS.issue(extensions=[extension])
        async with AsyncClient(app.address, credentials=credentials(CA, pair), retries=0) as client:
            with suppress(Unavailable):
                await client.authority()
        found = [(one.certificate.uris, one.certificate.dns_names) for one in seen if one.certificate is not None]
        assert found in ([], [((), ())])
        assert len(found) == len(seen)
        async with AsyncClient(app.address, credentials=credentials(CA, CLIENTS.client())) as client:
            assert (await client.authority()).version


def exchange(folder: Path, pair: Pair) -> None:
    """Replace a server's pair as an orchestrator does: each file at once."""
    (folder / "next").mkdir()
    for path in pair.write(folder / "next", "server"):
        path.rename(folder / path.name)
    (folder / "next").rmdir()


def shown_by(address: str) -> bytes:
    """Return the certificate that a server shows, as PEM text."""
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=10).encode()


async def shows(address: str, pair: Pair) -> bool:
    """Return whether a server shows the certificate of a pair."""
    return await asyncio.to_thread(shown_by, address) == pair.certificate


async def test_new_files_under_load(tmp_path: Path) -> None:
    """While the files change three times under load, with new connections all the time, no honest call fails."""
    async with secure(tmp_path) as app:
        failed: list[Exception] = []
        done = 0
        stopping = asyncio.Event()
        files = tls_files(tmp_path / "client", CA)

        async def work(*, reconnects: bool) -> None:
            nonlocal done
            client = AsyncClient(app.address, tls=files)
            token = (await client.create(subject="ada")).token
            while not stopping.is_set():
                try:
                    assert (await client.validate(token)).valid
                    done += 1
                except Exception as error:  # noqa: BLE001 - reported below
                    failed.append(error)
                if reconnects:
                    await client.close()
                    client = AsyncClient(app.address, tls=files)
            await client.close()

        tasks = [asyncio.create_task(work(reconnects=number < 2)) for number in range(6)]
        async with asyncio.timeout(60):
            for _ in range(3):
                new = CA.server()
                exchange(tmp_path / "tls", new)
                await until(partial(shows, app.address, new))
                before = done
                await until(lambda before=before: done >= before + 100)  # type: ignore[misc]  # mypy infers no lambda
        stopping.set()
        await asyncio.gather(*tasks)
        assert failed == []


async def test_broken_files_under_load(tmp_path: Path) -> None:
    """If the new files are broken, new connections still get the certificate before, and the log says why."""
    async with secure(tmp_path) as app:
        before = await asyncio.to_thread(shown_by, app.address)
        with capture_logs() as lines:
            (tmp_path / "tls" / "server.crt").write_text("broken")
            await until(lambda: any(line["event"] == "certificate refused" for line in lines))
        (line,) = [line for line in lines if line["event"] == "certificate refused"]
        assert line["problem"].endswith("server.crt has no certificate in PEM form; name another file")
        assert await asyncio.to_thread(shown_by, app.address) == before
        async with AsyncClient(app.address, tls=tls_files(tmp_path / "client", CA)) as client:
            assert (await client.authority()).version


async def test_new_authorities_of_clients(tmp_path: Path) -> None:
    """New connections are judged by the new authorities of clients, without a restart."""
    async with secure(tmp_path, CLIENTS) as app:
        files = tls_files(tmp_path / "client", CA, STRANGER.client())
        assert CLOSED in await refusal(app.address, tls=files)
        STRANGER.write(tmp_path / "tls", "clients")
        await app.reload(app._config)  # a reload reads the files at once
        async with AsyncClient(app.address, tls=files) as client:
            assert (await client.authority()).version
        assert CLOSED in await refusal(app.address, tls=tls_files(tmp_path / "old", CA, CLIENTS.client()))


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_client_whose_files_change(tmp_path: Path, asynchronous: bool) -> None:
    """A client whose certificate is no longer accepted takes the new one from the same files, without a restart."""
    files = tls_files(tmp_path / "client", CA, CLIENTS.client())
    async with secure(tmp_path, CLIENTS) as app:
        config = replace(app._config, listen=app.address)
        client, plain = AsyncClient(app.address, tls=files), Client(app.address, tls=files)

        async def version() -> str:
            one = client.authority() if asynchronous else asyncio.to_thread(plain.authority)
            return (await one).version

        assert await version()
    STRANGER.write(tmp_path / "tls", "clients")
    STRANGER.client().write(tmp_path / "client", "client")
    async with serving(config):  # the restart ends the connection
        assert await version()
        await client.close()
        plain.close()


# What does not start


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "127.0.0.1:0"])
async def test_tls_needs_no_flag(tmp_path: Path, listen: str) -> None:
    """With TLS the server listens on any address without the flag for plain text."""
    files = server_files(CA, tmp_path / "tls")
    async with serving(config_for(tmp_path, listen=listen, allow_without_callers=True, **files)) as app:
        port = app.address.rpartition(":")[2]
        async with AsyncClient(f"localhost:{port}", tls=tls_files(tmp_path / "client", CA)) as client:
            assert (await client.authority()).version


@pytest.mark.parametrize("clients", [None, CLIENTS])
async def test_without_callers_a_flag_is_needed(tmp_path: Path, clients: Authority | None) -> None:
    """Without callers an address that other machines can reach is refused, with client_ca too, and nothing is left."""
    config = config_for(tmp_path, listen="0.0.0.0:0", **server_files(CA, tmp_path / "tls", clients))
    with pytest.raises(OpenToOthers) as error:
        await App.start(config)
    assert "sessionctl callers add ops --role admin" in str(error.value)
    assert "--allow-without-callers" in str(error.value)
    async with serving(replace(config, listen="127.0.0.1:0")):
        pass  # the store was closed


async def test_without_tls_the_flag_is_needed(tmp_path: Path) -> None:
    """Without TLS an address that other machines can reach is refused, and the error names TLS first."""
    with pytest.raises(RemotePlaintext) as error:
        await App.start(config_for(tmp_path, listen="0.0.0.0:0"))
    assert "set server.tls.certificate and server.tls.key" in str(error.value)


async def test_workers_serve_no_tls(tmp_path: Path) -> None:
    """Workers with TLS are refused with the remedy."""
    with pytest.raises(WorkersNeedPort) as error:
        await App.start(config_for(tmp_path, workers=2, **server_files(CA, tmp_path / "tls")))
    assert "workers do not serve TLS" in str(error.value)


async def test_bad_files_at_start(tmp_path: Path) -> None:
    """With a bad file nothing is started, and no database is created."""
    settings = server_files(CA, tmp_path / "tls")
    settings["tls_key"].chmod(0o644)
    with pytest.raises(BadTls):
        await App.start(config_for(tmp_path, **settings))
    assert not (tmp_path / "data").exists()


async def test_the_command(tmp_path: Path) -> None:
    """`sessiond serve` takes the files as options, and reads new ones on SIGHUP; a bad one ends it with code 78."""
    files = server_files(CA, tmp_path / "tls")
    options = [text for name, path in files.items() for text in (f"--{name.replace('_', '-')}", str(path))]
    server = ServerProcess(tmp_path, *options)
    try:
        address = await server.address()
        async with AsyncClient(address, tls=tls_files(tmp_path / "client", CA)) as client:
            assert (await client.authority()).version
    finally:
        assert await server.terminate() == 0
    shutil.copy(tmp_path / "tls" / "server.key", tmp_path / "tls" / "server.crt")
    broken = ServerProcess(tmp_path, *options)
    assert await asyncio.to_thread(broken.process.wait) == 78
    (line,) = broken.log().splitlines()
    broken.kill()
    assert line.startswith(f"Error: server.tls.certificate: {files['tls_certificate']} has no certificate")


# What the client refuses before it connects


BAD_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "both": (
        {"tls": True, "credentials": grpc.ssl_channel_credentials()},
        "tls: must not be combined with credentials; pass one of them",
    ),
    "no such file": (
        {"tls": TlsFiles(ca="/no/such.pem")},
        "tls.ca: /no/such.pem cannot be read: No such file or directory; name a PEM file that this user can read",
    ),
    "no key": (
        {"tls": TlsFiles(certificate="client.crt")},
        "tls.key: is missing, and certificate is set; name both",
    ),
    "no certificate": (
        {"tls": TlsFiles(key="client.key")},
        "tls.certificate: is missing, and key is set; name both",
    ),
    "a wrong type": ({"tls": "ca.pem"}, "tls: must be True or False or a TlsFiles, not str"),
}


@pytest.mark.parametrize("kind", BAD_OPTIONS)
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_wrong_option(client: type[Client | AsyncClient], kind: str) -> None:
    """Options that do not fit together, or name no file, are refused when the client is created."""
    options, expected = BAD_OPTIONS[kind]
    with pytest.raises(InvalidArgument) as error:
        client("127.0.0.1:1", **options)
    assert str(error.value) == expected


def test_a_unix_socket_has_no_tls() -> None:
    """TLS to a Unix socket is refused."""
    with pytest.raises(InvalidArgument, match="must be False for a Unix socket"):
        Client("unix:/run/s.sock", tls=True)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_forgotten_client_goes(kind: type[Client | AsyncClient], tmp_path: Path) -> None:
    """Nothing keeps a client with TLS alive that nobody uses any more: its files are watched without it."""
    forgotten = weakref.ref(kind("127.0.0.1:1", tls=tls_files(tmp_path, CA), near_cache=True))
    gc.collect()
    assert forgotten() is None


def test_wrong_files_of_a_client(tmp_path: Path) -> None:
    """Files that are no pair, or no certificates, are refused with the file and the field."""
    files = tls_files(tmp_path, CA, CLIENTS.client())
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(InvalidArgument) as error:
        Client("127.0.0.1:1", tls=files)
    assert str(error.value) == f"tls.ca: {tmp_path}/ca.pem has no certificate in PEM form; name another file"
    tls_files(tmp_path, CA, CLIENTS.client())
    (tmp_path / "client.key").write_bytes(CLIENTS.client().key)
    with pytest.raises(InvalidArgument) as error:
        Client("127.0.0.1:1", tls=files)
    assert str(error.value) == (
        f"tls.key: {tmp_path}/client.key is not the private key of the certificate in {tmp_path}/client.crt; "
        "name the pair"
    )
    (tmp_path / "client.key").write_text("nothing")
    with pytest.raises(InvalidArgument) as error:
        Client("127.0.0.1:1", tls=files)
    assert str(error.value).startswith(f"tls.key: {tmp_path}/client.key has no private key in PEM form")


# Callers


async def test_a_key_over_mutual_tls(tmp_path: Path) -> None:
    """With callers a certificate alone is refused on an open connection too; with a key each call has its caller."""
    folder = tmp_path / "client"
    async with secure(tmp_path, CLIENTS) as app:
        files = tls_files(folder, CA, CLIENTS.client("spiffe://test/shop"))
        async with AsyncClient(app.address, tls=files, retries=0) as anyone:
            first = await anyone.create_caller("ops", [Grant(role=Role.ADMIN)])
            with pytest.raises(Unauthenticated, match="no credentials: pass the key of a caller"):
                await anyone.authority()
        async with AsyncClient(app.address, tls=files, key=first.key) as client:
            opened = await client.create(subject="ada")
            assert (await client.validate(opened.token)).verdict is Verdict.VALID
            async with client.events(start="earliest") as events:
                assert (await anext(events)).cause.actor == "ops"


async def test_new_files_keep_the_key(tmp_path: Path) -> None:
    """A client whose certificate has changed sends its key over the new connections too."""
    folder = tmp_path / "client"
    async with secure(tmp_path, CLIENTS) as app:
        files = tls_files(folder, CA, CLIENTS.client())
        async with AsyncClient(app.address, tls=files) as anyone:
            first = await anyone.create_caller("ops", [Grant(role=Role.ADMIN)])
        async with AsyncClient(app.address, tls=files, key=first.key) as client:
            await client.create(subject="ada")
            tls_files(folder, None, CLIENTS.client())
            async with client.events(start="earliest") as events:  # a stream begins with the new files
                assert (await anext(events)).subject == "ada"
            assert (await client.authority()).version


async def test_a_key_without_client_certificates(tmp_path: Path) -> None:
    """With callers, a server with TLS listens where anyone can reach it, and does not say that it is open."""
    files = tls_files(tmp_path / "client", CA)
    config = config_for(tmp_path, **server_files(CA, tmp_path / "tls"))
    async with serving(config) as app, AsyncClient(app.address, tls=files) as anyone:
        first = await anyone.create_caller("ops", [Grant(role=Role.ADMIN)])
    with capture_logs() as lines:
        async with serving(replace(config, listen="0.0.0.0:0")) as app:
            address = f"localhost:{app.address.rpartition(':')[2]}"
            async with AsyncClient(address, tls=files, key=first.key) as client:
                assert (await client.authority()).version
    assert "open to everyone who can connect" not in {line["event"] for line in lines}
