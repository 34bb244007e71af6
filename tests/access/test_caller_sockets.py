"""Sockets of callers: who can open one is its caller, and nobody else."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.access.turns import Turns
from sessiond.app import App
from sessiond.config import BadConfig, load_config
from sessiond.domain.call import FORWARDED_KEY, PEER_KEY
from sessiond.rpc.sockets import CannotListen
from sessiond.sidecar_app import Sidecar
from sessiond_client import AsyncClient, EventType, Grant, Role, Unauthenticated
from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub
from tests.access.test_certificates import end_of
from tests.access.test_matrix import LETTERS, TABLE, served_by
from tests.rpc.refusals import refusal_of
from tests.support.server import ServerProcess, config_for, serving, stub_for
from tests.support.sidecars import beside, is_open, until

ADMIN = [Grant(role=Role.ADMIN)]
APPLICATIONS = "[applications.default]\n[applications.shop]\n[applications.bank]\n"
AS_ANOTHER_USER = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")


def sockets(folder: Path, *names: str) -> str:
    """The sections of these callers, each with a socket of its name."""
    return "".join(f'[sockets."{name}"]\npath = "{folder / name}"\n' for name in names)


@asynccontextmanager
async def administered(folder: Path, *names: str, **settings: Any) -> AsyncIterator[tuple[App, AsyncClient]]:
    """An authority with sockets of these callers, which are not added yet, and an admin with a key."""
    async with serving(config_for(folder, APPLICATIONS + sockets(folder, *names), envoy=True, **settings)) as app:
        async with AsyncClient(app.address) as anyone:
            first = await anyone.create_caller("ops", ADMIN)
        async with AsyncClient(app.address, key=first.key) as admin:
            yield app, admin


def allowed(letter: str) -> set[str]:
    """The RPCs that the table allows to a role for the application `shop`."""
    return {name for name, (_, letters) in TABLE.items() if letter in letters}


# Who is known


async def test_each_socket_has_the_rights_of_its_caller(tmp_path: Path) -> None:
    """Without a key, each socket is served exactly the RPCs of its caller's role, and the server's own address none."""
    async with administered(tmp_path, *LETTERS) as (app, admin):
        for letter, role in LETTERS.items():
            grants = [Grant(role=Role(role), application="shop")]
            await admin.create_caller(letter, grants, without_key=True)
        for letter in LETTERS:
            assert await served_by(f"unix:{tmp_path / letter}") == allowed(letter)
        assert await served_by(app.address) == set()


async def test_sockets_are_not_mixed(tmp_path: Path) -> None:
    """Calls that arrive on two sockets at the same time are those of their callers, answers from memory included."""
    async with administered(tmp_path, "shop", "bank") as (_, admin):
        for name in ("shop", "bank"):
            await admin.create_caller(name, [Grant(role=Role.ISSUER, application=name)], without_key=True)
        async with stub_for(f"unix:{tmp_path / 'shop'}") as shop, stub_for(f"unix:{tmp_path / 'bank'}") as bank:
            stubs = {"shop": shop, "bank": bank}

            async def open_at(number: int) -> None:
                at, application = ("shop", "bank")[number % 2], ("shop", "bank")[number // 2 % 2]
                call: Any = stubs[at].CreateSession(pb.CreateSessionRequest(application=application, subject=at))
                denied = grpc.StatusCode.PERMISSION_DENIED
                assert await call.code() is (grpc.StatusCode.OK if at == application else denied)

            await asyncio.gather(*(open_at(number) for number in range(200)))
            opened = await shop.CreateSession(pb.CreateSessionRequest(application="shop", subject="shop"))
            question = pb.ValidateSessionRequest(application="shop", token=opened.token)
            for _ in range(5):  # the fast path answers the one that may ask, and never the other
                assert (await shop.ValidateSession(question)).verdict == pb.VERDICT_VALID
                refused = await refusal_of(bank.ValidateSession(question))
                assert (refused.code, refused.message[:13]) == (grpc.StatusCode.PERMISSION_DENIED, 'caller "bank"')
        seen: list[tuple[str, str]] = []
        async with admin.events(start="earliest", applications=[]) as events:
            async for event in events:
                if event.type is EventType.SESSION_CREATED:
                    seen.append((event.cause.actor, event.subject))
                    if len(seen) == 101:
                        break
        assert {actor for actor, _ in seen} == {"shop", "bank"}
        assert all(actor == subject for actor, subject in seen)


async def test_a_key_counts_before_a_socket(tmp_path: Path) -> None:
    """A call with a key is that of the key's caller, and one with a wrong key is refused, whatever socket it uses."""
    async with administered(tmp_path, "top") as (_, admin):
        await admin.create_caller("top", ADMIN, without_key=True)
        edge = (await admin.create_caller("edge", [Grant(role=Role.VALIDATOR)])).key.reveal()
        address = f"unix:{tmp_path / 'top'}"
        assert "ListCallers" in await served_by(address)
        assert "ListCallers" not in await served_by(address, [("authorization", f"Bearer {edge}")])
        wrong = edge[:-1] + ("A" if edge[-1] != "A" else "B")
        for metadata in ([("authorization", f"Bearer {wrong}")], [("authorization", "")]):
            assert await served_by(address, metadata) == set()


async def test_a_socket_of_nobody(tmp_path: Path) -> None:
    """Until its caller is added, and after its revocation, a socket proves nobody, and the error says so."""
    async with administered(tmp_path, "shop") as (_, admin), stub_for(f"unix:{tmp_path / 'shop'}") as stub:
        for _ in range(2):
            refused = await refusal_of(stub.GetAuthority(pb.GetAuthorityRequest()))
            assert refused.code is grpc.StatusCode.UNAUTHENTICATED
            assert refused.message.endswith('; this socket is for the caller "shop", which does not exist')
            await admin.create_caller("shop", [Grant(role=Role.SUBSCRIBER)], without_key=True)
            stream: Any = stub.Subscribe(pb.SubscribeRequest(start=pb.STREAM_START_EARLIEST))
            assert await stream.read()
            await admin.revoke_caller("shop")
            assert await end_of(stream) is grpc.StatusCode.UNAUTHENTICATED


async def test_without_callers_a_socket_is_as_open_as_the_port(tmp_path: Path) -> None:
    """Without any caller, everyone who can open a socket may make every call; with the first one, nobody."""
    config = config_for(tmp_path, APPLICATIONS + sockets(tmp_path, "shop"))
    async with serving(config), AsyncClient(f"unix:{tmp_path / 'shop'}") as client:
        assert list(await client.list_callers()) == []
        await client.create_caller("ops", ADMIN)
        with pytest.raises(Unauthenticated):
            await client.list_callers()


async def test_a_lost_admin_key(tmp_path: Path) -> None:
    """If all admin keys are lost, a socket of an admin, after a restart, gives out a new one."""
    async with administered(tmp_path):
        pass
    text = APPLICATIONS + sockets(tmp_path, "ops")
    async with serving(config_for(tmp_path, text)) as app:
        async with AsyncClient(f"unix:{tmp_path / 'ops'}") as recovering:
            key = (await recovering.rotate_caller("ops")).key
        async with AsyncClient(app.address, key=key) as admin:
            assert [caller.name for caller in await admin.list_callers()] == ["ops"]


# Sidecars


@asynccontextmanager
async def near(folder: Path, mark: bool = True) -> AsyncIterator[tuple[AsyncClient, Sidecar]]:
    """A sidecar without a key, whose upstream is the socket of an admin."""
    async with administered(folder, "near.caller") as (_, admin):
        await admin.create_caller("near.caller", ADMIN, without_key=True)
        async with beside(f"unix:{folder / 'near.caller'}", folder) as sidecar:
            if not mark:
                sidecar._forwarding._way = replace(sidecar._forwarding._way, metadata=lambda _: ())
            await until(lambda: is_open(sidecar))
            yield admin, sidecar


@pytest.mark.parametrize("metadata", [[], [(FORWARDED_KEY, ""), (PEER_KEY, "unix:")]])
async def test_a_socket_is_not_that_of_who_calls_a_sidecar(tmp_path: Path, metadata: Any) -> None:
    """A sidecar follows by its socket; through it, who has no key is served nothing, and who has one what it may."""
    async with near(tmp_path) as (admin, sidecar):
        assert await served_by(sidecar.address, metadata) == set()
        key = (await admin.create_caller("shop", [Grant(role=Role.VALIDATOR, application="shop")])).key.reveal()
        assert await served_by(sidecar.address, [("authorization", f"Bearer {key}")]) == allowed("v")


async def test_without_the_mark_it_would_be(tmp_path: Path) -> None:
    """The control: if the sidecar did not mark what it forwards, callers without a key would have the socket's."""
    async with near(tmp_path, mark=False) as (_, sidecar):
        assert await served_by(sidecar.address) == TABLE.keys()


# Other servers


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--workers", "1"), ("--transport", "native")], ids=lambda options: options[0])
async def test_beside_workers_and_the_native_transport(tmp_path: Path, options: tuple[str, str]) -> None:
    """The sockets work beside workers and beside the native transport, and prove nothing at the server's address."""
    if "native" in options:
        pytest.importorskip("pygrpc_native")
    (tmp_path / "sessiond.toml").write_text(sockets(tmp_path, "shop"), encoding="utf-8")
    server = ServerProcess(tmp_path, "--config", str(tmp_path / "sessiond.toml"), *options)
    try:
        address = await server.address()
        async with AsyncClient(address) as anyone:
            first = await anyone.create_caller("ops", ADMIN)
        async with AsyncClient(address, key=first.key) as admin:
            await admin.create_caller("shop", [Grant(role=Role.ISSUER)], without_key=True)
        async with AsyncClient(f"unix:{tmp_path / 'shop'}") as shop:
            token = (await shop.create(subject="ada")).token
            assert (await shop.validate(token)).valid
        async with AsyncClient(address) as nobody:
            with pytest.raises(Unauthenticated):
                await nobody.validate(token)
    finally:
        server.kill()


# Who may connect


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def give(folder: Path, group: int) -> None:
    """Give a folder to a group, so that what is created in it has this group too."""
    os.chown(folder, -1, group)
    folder.chmod(0o2755)


def connects(path: Path, user: int, *groups: int) -> bool:
    """Return whether a process of this user and these groups can open a socket."""
    becomes = f"os.setgroups({list(groups)}); os.setgid({user}); os.setuid({user})"
    program = f"import os, socket; {becomes}; socket.socket(socket.AF_UNIX).connect({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "PermissionError" in done.stderr, done.stderr
    return done.returncode == 0


@AS_ANOTHER_USER
async def test_the_kernel_decides_who_connects(tmp_path: Path, shared_folder: Path) -> None:
    """The members of its group can open a socket, and those of another one cannot; without a group, only its user."""
    text = "".join(
        f'[sockets.{name}]\npath = "{shared_folder / name}"\n{group}'
        for name, group in {
            "shop": 'mode = "0660"\ngroup = "54321"\n',
            "edge": 'mode = "0660"\ngroup = "54322"\n',
            "own": "",
        }.items()
    )
    async with serving(config_for(tmp_path, text)):
        modes = {name: stat.S_IMODE((shared_folder / name).stat().st_mode) for name in ("shop", "edge", "own")}
        assert modes == {"shop": 0o660, "edge": 0o660, "own": 0o600}

        async def opened(*groups: int) -> set[str]:
            paths = {name: shared_folder / name for name in modes}
            return {name for name, path in paths.items() if await asyncio.to_thread(connects, path, 54000, *groups)}

        assert await opened() == set()
        assert await opened(54321) == {"shop"}
        assert await opened(54322) == {"edge"}


@AS_ANOTHER_USER
async def test_the_group_of_a_folder(tmp_path: Path, shared_folder: Path) -> None:
    """In a folder with the setgid bit, a socket of mode 0660 is open to the folder's group; the server changes none."""
    give(shared_folder, 54321)
    async with serving(config_for(tmp_path, f'[sockets.shop]\npath = "{shared_folder / "shop"}"\nmode = "0660"\n')):
        for group in (54321, 54322):
            assert await asyncio.to_thread(connects, shared_folder / "shop", 54000, group) is (group == 54321)


async def test_a_group_that_there_is_not(tmp_path: Path) -> None:
    """A group that does not exist keeps the server from starting, with a remedy, and no socket is listened on."""
    text = (
        sockets(tmp_path, "edge")
        + f'[sockets.shop]\npath = "{tmp_path / "shop"}"\nmode = "0660"\ngroup = "no such group"\n'
    )
    with pytest.raises(CannotListen, match="there is no group no such group; create it, or choose another one"):
        await App.start(config_for(tmp_path, text))
    async with serving(config_for(tmp_path, sockets(tmp_path, "edge", "shop"))):
        pass


async def test_a_socket_in_use(tmp_path: Path) -> None:
    """A socket of another server is not taken, and the address of the server that is refused is free again."""
    async with administered(tmp_path / "one", "shop") as (_, admin):
        text = f'[sockets.edge]\npath = "{tmp_path / "edge"}"\n' + sockets(tmp_path / "one", "shop")
        with pytest.raises(CannotListen, match="another server is listening there"):
            await App.start(config_for(tmp_path / "two", text))
        assert len(await admin.list_callers()) == 1
    async with serving(config_for(tmp_path / "two", text, listen=f"unix:{tmp_path / 'main'}")):
        pass


async def test_the_address_of_another_server(tmp_path: Path) -> None:
    """If the server's own address is taken, its sockets of callers are not listened on either."""
    async with serving(config_for(tmp_path / "one")) as first:
        config = config_for(tmp_path / "two", sockets(tmp_path, "shop"), listen=first.address, transport="grpcio")
        with pytest.raises(CannotListen):
            await App.start(config)
        async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'shop'}") as channel:
            stub: Any = SessionAuthorityStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.GetAuthority(pb.GetAuthorityRequest())
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


# The file

WRONG = {
    "[sockets.shop]": "1: sockets.shop.path: must be set",
    '[sockets.shop]\npath = ""': "2: sockets.shop.path: must be the path of a socket, and not empty",
    '[sockets.shop]\npath = "unix:s"': "2: sockets.shop.path: must be a path without unix:",
    '[sockets.shop]\npath = "s"\ngroup = 7': "3: sockets.shop.group: must be the name or the number of a group, as a "
    'string: "shop" or "1001"',
    '[sockets.shop]\npath = "s"\nmode = "0666"': '3: sockets.shop.mode: must be one of "0600", "0660"',
    '[sockets.shop]\npath = "s"\ngroup = "7"': "3: sockets.shop.group: has no effect if only the server's user may ",
    '[sockets.shop]\npath = "s"\ngrp = "7"': "3: sockets.shop.grp: no such key; did you mean 'group'?",
    '[sockets.Shop]\npath = "s"': "1: sockets.Shop: the section's name is that of a caller: 1 to 64 of a-z, 0-9, '.', ",
    '[sockets.a]\npath = "s"\n[sockets.b]\npath = "./x/../s"': "4: sockets.b.path: is that of sockets.a already; ",
    '[sockets.a]\npath = "s"\n[server]\nlisten = "unix:s"': "2: sockets.a.path: is that of server.listen already; ",
    'sockets = "s"': "1: sockets: must be a table",
    "".join(f'[sockets.s{number}]\npath = "s{number}"\n' for number in range(65)): "1: sockets: must have at most 64 ",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:40])
def test_sections_that_cannot_be_used(text: str, tmp_path: Path) -> None:
    """A section that cannot be used is reported with its line, its key and the remedy."""
    file = tmp_path / "sessiond.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadConfig) as error:
        load_config(file)
    assert str(error.value).startswith(f"{file}:{WRONG[text]}")


def test_sockets_need_a_restart(tmp_path: Path) -> None:
    """Changed sockets count with a restart only, as every setting of the server does."""
    before = config_for(tmp_path, sockets(tmp_path, "shop"))
    assert before.restart_required(config_for(tmp_path, sockets(tmp_path, "shop", "edge"))) == ["sockets"]
    assert before.restart_required(config_for(tmp_path, sockets(tmp_path, "shop"))) == []


async def test_all_servers_share_their_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of a caller at its socket and at the server's address take turns with each other: what the caller has in
    work at one would otherwise hold back its calls at the other, and nobody would let them begin.
    """
    seen: list[Turns] = []
    begin = Turns.begin

    def noted(self: Turns, lane: Any, weight: int) -> Any:
        seen.append(self)
        return begin(self, lane, weight)

    monkeypatch.setattr(Turns, "begin", noted)
    async with administered(tmp_path, "shop") as (_, admin):
        await admin.create_caller("shop", [Grant(role=Role.VALIDATOR)], without_key=True)
        async with stub_for(f"unix:{tmp_path / 'shop'}") as stub:
            await stub.ValidateSession(pb.ValidateSessionRequest(application="shop", token="t"))
    assert len(seen) >= 2
    assert len({id(turns) for turns in seen}) == 1
