"""`sessiond sidecar` as a process: its options, its mistakes, its log and its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from sessiond.config import BadConfig, Override, load_sidecar, sidecar_overrides_in
from sessiond_client import AsyncClient, Verdict
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.canary import Canary
from tests.support.failed_start import run_sessiond
from tests.support.server import ServerProcess, config_for, serving, stub_for
from tests.support.sidecars import PATIENCE, SidecarProcess, beside, is_open, until, until_healthy

WRONG_USAGE, CANNOT_NOW, MISCONFIGURED = 2, 1, 78
MISTAKES: Mapping[str, tuple[int, tuple[str, ...], tuple[str, ...]]] = {
    "upstream without a port": (
        WRONG_USAGE,
        ("--upstream", "localhost"),
        ("--upstream", 'must be "HOST:PORT" with a port from 1 to 65535, or "unix:PATH"'),
    ),
    "upstream with port 0": (WRONG_USAGE, ("--upstream", "localhost:0"), ("--upstream", "from 1 to 65535")),
    "upstream is a URL": (WRONG_USAGE, ("--upstream", "http://a:1"), ("--upstream", 'must be "HOST:PORT"')),
    "bad address": (WRONG_USAGE, ("--listen", "7443"), ("--listen", 'must be "HOST:PORT"')),
    "no number": (WRONG_USAGE, ("--max-calls", "many"), ("--max-calls", "not a valid integer")),
    "too small": (MISCONFIGURED, ("--cache-entries", "0"), ("--cache-entries: must be at least 1",)),
    "too few bytes": (MISCONFIGURED, ("--cache-bytes", "1"), ("--cache-bytes: must be at least 1000000",)),
    "listens for everybody": (
        MISCONFIGURED,
        ("--listen", "0.0.0.0:0"),
        ("0.0.0.0:0 can be reached from other machines", "unix:PATH", "--allow-remote-plaintext"),
    ),
    "asks over the network": (
        MISCONFIGURED,
        ("--upstream", "192.0.2.1:7443"),
        ("192.0.2.1:7443 is on another machine", "--upstream-ca", "--allow-remote-plaintext"),
    ),
    "certificates missing": (
        MISCONFIGURED,
        ("--upstream-ca", "none.pem"),
        ("--upstream-ca: none.pem cannot be read", "name a PEM file"),
    ),
    "no certificates": (
        MISCONFIGURED,
        ("--upstream-ca", "empty.pem"),
        ("--upstream-ca: empty.pem has no certificate", "name another file"),
    ),
    "no key file": (
        MISCONFIGURED,
        ("--key-file", "no.key"),
        ("--key-file: no.key cannot be read", "name another file"),
    ),
    "no key in it": (MISCONFIGURED, ("--key-file", "empty.key"), ("--key-file: empty.key does not hold a key",)),
    "open key file": (MISCONFIGURED, ("--key-file", "open.key"), ("can be read by everyone", "chmod 600 open.key")),
    "socket in use": (
        CANNOT_NOW,
        ("--listen", "unix:used.sock"),
        ("unix:used.sock: another server", "stop it, or choose another path"),
    ),
    "unknown option": (WRONG_USAGE, ("--listne", "unix:a"), ("--listne", "--listen")),
}


@pytest.mark.parametrize(("code", "arguments", "parts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_with_the_remedy(
    tmp_path: Path, code: int, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    """A start that cannot work ends with one line that names the setting and the remedy, and the documented code."""
    (tmp_path / "empty.pem").touch()
    for name, mode in (("empty.key", 0o600), ("open.key", 0o644)):
        (tmp_path / name).touch(mode)
    with socket.socket(socket.AF_UNIX) as used:
        used.bind(str(tmp_path / "used.sock"))
        used.listen()
        found, stderr = run_sessiond(tmp_path, "sidecar", *arguments)
    assert (found, stderr.count("\n")) == (code, 1), stderr
    for part in parts:
        assert part in stderr


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    """A variable that cannot be used is reported by its name."""
    environment = {"SESSIOND_UPSTREAM": "nowhere", "SESSIOND_MAX_STREAMS": "0"}
    code, stderr = run_sessiond(tmp_path, "sidecar", environment=environment)
    assert code == MISCONFIGURED
    assert stderr.splitlines() == [
        'Error: SESSIOND_UPSTREAM: must be "HOST:PORT" with a port from 1 to 65535, or "unix:PATH"',
        "Error: SESSIOND_MAX_STREAMS: must be at least 1",
    ]


def test_options_override_variables() -> None:
    """A setting comes from its option, else its variable, else the default; the configuration says from which."""
    overrides = sidecar_overrides_in({"SESSIOND_UPSTREAM": "a:1", "SESSIOND_CACHE_ENTRIES": "5", "SESSIOND_LISTEN": ""})
    config = load_sidecar([*overrides, Override("upstream", "b:2", "--upstream")])
    assert (config.upstream, config.cache_entries, config.listen) == ("b:2", 5, "unix:sessiond-sidecar.sock")
    origins = [config.origins[key] for key in ("upstream", "cache_entries", "listen")]
    assert origins == ["--upstream", "SESSIOND_CACHE_ENTRIES", "default"]


@pytest.mark.parametrize(
    "value", ["", "a", "a:", ":1", "a:x", "a:65536", "a:-1", "a b:c:1", "::1:1", "unix:", "unix:\0", 7]
)
def test_what_is_no_authority(value: object) -> None:
    """An address that is neither host and port nor a Unix socket is refused with the accepted form."""
    with pytest.raises(BadConfig, match='--upstream: must be "HOST:PORT"'):
        load_sidecar([Override("upstream", value, "--upstream")])


@pytest.mark.parametrize("mode", ["0600", "0660"])
async def test_the_socket_has_its_mode(tmp_path: Path, mode: str) -> None:
    """Who may connect is decided by the mode of the socket."""
    async with beside("127.0.0.1:1", tmp_path, socket_mode=mode) as sidecar:
        found = os.stat(sidecar.address.removeprefix("unix:"))
        assert stat.S_IMODE(found.st_mode) == int(mode, 8)


async def test_a_life_in_the_log(tmp_path: Path) -> None:
    """The log says what a sidecar serves, follows, may answer and has lost, and that it stopped; never a token."""
    canary = Canary()
    server = ServerProcess(tmp_path)
    sidecar = None
    try:
        sidecar = SidecarProcess(tmp_path / "near", await server.address(), "--log-level", "debug")
        address = await sidecar.address()
        canary.know_key_file(tmp_path / "data" / "sessiond.key")
        async with asyncio.timeout(PATIENCE), stub_for(address) as stub:
            await until_healthy(address, serves=True, from_memory=True)
            created = await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))
            for token in (created.token, canary.know_token("x" * 70), "short"):
                canary.know_token(token)
                for _ in range(3):
                    await stub.ValidateSession(pb.ValidateSessionRequest(token=token))
            await stub.RevokeSession(pb.RevokeSessionRequest(session=pb.SessionReference(token=created.token)))
            server.kill()
            await until_healthy(address, serves=False, from_memory=False)
        assert await sidecar.terminate() == 0
        events = [json.loads(line)["event"] for line in sidecar.log().splitlines()]
        for event in ("serving", "upstream reached", "following", "cache open", "cache closed", "upstream lost"):
            assert event in events
        assert events[-1] == "stopped"
        canary.know_text("the known token", created.token)
        assert canary.found_in("the log", sidecar.log()) == []
    finally:
        server.kill()
        if sidecar is not None:
            sidecar.kill()


async def test_a_sidecar_that_is_interrupted_gives_up_its_lease(tmp_path: Path) -> None:
    """After SIGINT a sidecar exits with 0, and no awaited revocation waits for it."""
    async with serving(config_for(tmp_path)) as app, stub_for(app.address) as direct:
        near = SidecarProcess(tmp_path / "near", app.address)
        try:
            address = await near.address()
            await until_healthy(address, serves=True, from_memory=True)
            os.kill(near.process.pid, signal.SIGINT)
            assert await asyncio.to_thread(near.process.wait) == 0
            created = await direct.CreateSession(pb.CreateSessionRequest(subject="ada"))
            reference = pb.SessionReference(session_id=created.session.session_id)
            wait = pb.REVOCATION_WAIT_FOR_CACHES
            loop = asyncio.get_running_loop()
            began = loop.time()
            await direct.RevokeSession(pb.RevokeSessionRequest(session=reference, wait=wait))
            assert loop.time() - began < 1  # a lease lasts five seconds
        finally:
            near.kill()


async def test_sessionctl_works_against_it(tmp_path: Path) -> None:
    """An operator names the sidecar as the target, and lists, checks and revokes as at the authority."""
    async with serving(config_for(tmp_path)) as app, beside(app.address, tmp_path) as sidecar:
        await until(lambda: is_open(sidecar))
        async with AsyncClient(sidecar.address) as client:
            created = await client.create(subject="ada")

            async def ctl(*arguments: str) -> tuple[int, str]:
                command = [sys.executable, "-m", "sessionctl", "--target", sidecar.address, *arguments]
                run = partial(subprocess.run, command, capture_output=True, text=True, check=False, timeout=PATIENCE)
                done = await asyncio.to_thread(run)
                return done.returncode, done.stdout + done.stderr

            assert (await ctl("status"))[0] == 0
            code, listed = await ctl("list", "--subject", "ada", "--json")
            assert code == 0, listed
            assert created.session.session_id in listed
            assert (await ctl("show", created.session.session_id))[0] == 0
            code, revoked = await ctl("revoke", created.session.session_id)
            assert code == 0, revoked
            assert (await client.validate(created.token)).verdict is Verdict.REVOKED
