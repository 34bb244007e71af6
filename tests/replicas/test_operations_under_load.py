"""What operators do while honest clients go on: everything that rotates, reloads and restarts, one after the other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond.config import Config, load_config
from sessiond_client import AsyncClient, Grant, Role, TlsFiles, Token, Unavailable
from tests.keyring.rings import rotate
from tests.support.certificates import Authority, server_files
from tests.support.replicas import replica
from tests.support.sidecars import until

SERVERS, CLIENTS = Authority("servers"), Authority("clients")
POLICY = '[applications.default]\npreset = "owasp-low"\nmax_sessions = {}\n'
USERS = 6
ROUND = 60
"""Calls between two operations."""


@dataclass
class Site:
    """Two replicas with mutual TLS, the honest users of both, and what has gone wrong for them."""

    folder: Path
    database: str
    stacks: list[AsyncExitStack] = field(default_factory=list)
    apps: list[App] = field(default_factory=list)
    clients: list[AsyncClient] = field(default_factory=list)
    busy: Counter[AsyncClient] = field(default_factory=Counter)
    calls: int = 0
    answered: Counter[int] = field(default_factory=Counter)
    """How many of them each replica has answered."""
    retried: int = 0

    async def start(self, number: int, listen: str) -> None:
        """Start a replica, or start it again."""
        stack = AsyncExitStack()
        # Written once: later certificates are those that the test wrote meanwhile.
        tls = self.folder / f"tls-{number}"
        files = server_files(SERVERS, tls, CLIENTS)
        running = replica(
            self.folder, self.database, number, text=POLICY.format(0), transport="grpcio", listen=listen, **files
        )
        app = await stack.enter_async_context(running)
        self.stacks[number:], self.apps[number:] = [stack, *self.stacks[number + 1 :]], [app, *self.apps[number + 1 :]]

    def tls(self, name: str) -> TlsFiles:
        """The files of a client, with a certificate of its own."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        certificate, key = CLIENTS.client(f"spiffe://test/{name}").write(folder, "client")
        return TlsFiles(ca=SERVERS.write(folder, "ca"), certificate=certificate, key=key)

    async def connect(self, key: Token | None, name: str) -> None:
        """Connect to both replicas with another key and certificate, and close the earlier clients once idle."""
        before = self.clients
        self.clients = [AsyncClient(app.address, tls=self.tls(name), key=key, timeout=10) for app in self.apps]
        for client in before:
            await until(lambda idle=client: not self.busy[idle])  # type: ignore[misc]
            await client.close()

    async def ask(self, turn: int, call: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
        """Make a call at one replica, and at the other one if that one is restarting."""
        for at in (turn, turn + 1, turn):
            client = self.clients[at % 2]
            self.busy[client] += 1
            try:
                found = await call(client)
            except Unavailable:
                self.retried += 1
                continue
            finally:
                self.busy[client] -= 1
            self.calls += 1
            self.answered[at % 2] += 1
            return found
        raise AssertionError("neither replica answers")

    async def some_calls(self) -> None:
        """Wait until the users have made some more calls."""
        await until(lambda reached=self.calls + ROUND: self.calls >= reached)  # type: ignore[misc]


async def use(site: Site, number: int, tokens: list[Token], done: asyncio.Event) -> None:
    """Validate a session, and log in and out again, at both replicas in turn."""
    turn = number
    while not done.is_set():
        turn += 1
        answer = await site.ask(turn, lambda client: client.validate(tokens[number], data=True))
        assert answer.valid, answer.verdict
        tokens[number] = answer.renewed_token or tokens[number]
        await log_in_and_out(site, turn, f"s{number}")


def changed_file(file: Path) -> Config:
    """Change the configuration file of a replica, and read it."""
    file.write_text(POLICY.format(1_000), encoding="utf-8")
    return load_config(file)


async def log_in_and_out(site: Site, turn: int, subject: str) -> None:
    """Open a session at one replica, find it at the other, and end it."""
    opened = await site.ask(turn, lambda client: client.create(subject=subject))
    assert (await site.ask(turn + 1, lambda client: client.validate(opened.token))).valid
    assert await site.ask(turn, lambda client: client.revoke(token=opened.token))


@pytest.mark.slow
async def test_operations_fail_no_call_and_end_no_session(tmp_path: Path, database: str) -> None:
    """Under load the rotation of sealing keys, callers' keys and certificates, reloads and a rolling restart fail no
    honest call, retries at the other replica allowed, and end no session.
    """
    site, done = Site(tmp_path, database), asyncio.Event()
    for number in range(2):
        await site.start(number, "127.0.0.1:0")
    async with AsyncClient(site.apps[0].address, tls=site.tls("first")) as anyone:
        ops = await anyone.create_caller("ops", [Grant(role=Role.ADMIN)])
    await site.connect(ops.key, "ops")
    admin = AsyncClient(site.apps[0].address, tls=site.tls("admin"), key=ops.key)
    shop = (await admin.create_caller("shop", [Grant(role=Role.ISSUER)])).key
    await site.connect(shop, "shop")
    tokens = [(await site.clients[0].create(subject=f"user-{number}")).token for number in range(USERS)]

    async def operate() -> None:
        await site.some_calls()
        await rotate(admin)  # the sealing key
        await site.some_calls()
        renewed = (await admin.rotate_caller("shop", overlap=timedelta(seconds=2))).key
        await site.connect(renewed, "shop-2")
        await asyncio.sleep(2)  # the old key has expired
        await site.some_calls()
        before = [app._tls.current.certificate for app in site.apps if app._tls is not None]
        for number in range(2):
            server_files(SERVERS, tmp_path / f"tls-{number}", CLIENTS)
        await until(lambda: all(app._tls.current.certificate not in before for app in site.apps if app._tls))
        await site.connect(renewed, "shop-3")  # new connections, new certificates on both sides
        await site.some_calls()
        for app in site.apps:
            loaded = changed_file(app._config.files[0])
            reloaded = await app.reload(replace(app._config, policies=loaded.policies, origins=loaded.origins))
            assert list(reloaded.changed) == ["default"]
        await site.some_calls()
        for number in range(2):
            address = site.apps[number].address
            await site.stacks[number].aclose()
            await site.some_calls()  # the other one serves meanwhile
            reached = site.answered[number]
            await site.start(number, address)
            # It serves before clients have found it again, and the other one must not stop until they have.
            await until(lambda at=number, enough=reached + ROUND // 4: site.answered[at] > enough)  # type: ignore[misc]
        done.set()

    try:
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            for number in range(USERS):
                group.create_task(use(site, number, tokens, done))
            group.create_task(operate())
        for token in tokens:
            assert [(await client.validate(token)).valid for client in site.clients] == [True, True]
        assert site.calls > 8 * ROUND
    finally:
        await admin.close()
        for client in site.clients:
            await client.close()
        for stack in site.stacks:
            await stack.aclose()
