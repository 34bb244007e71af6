"""A sidecar whose authority is reached over TLS: right and wrong files, and files that change."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sessiond.access.tls import BadTls
from sessiond.config import BadConfig
from sessiond_client import AsyncClient, Unavailable, Verdict
from tests.support.certificates import Authority, Pair, server_files
from tests.support.server import config_for, serving
from tests.support.sidecars import beside, is_open, until

CA, CLIENTS, STRANGER = Authority("servers"), Authority("clients"), Authority("stranger")


def upstream_files(folder: Path, own: Pair | None, authority: Authority = CA) -> dict[str, Any]:
    """Write a sidecar's files, and return its settings."""
    folder.mkdir(exist_ok=True)
    settings: dict[str, Any] = {"upstream_ca": str(authority.write(folder, "ca"))}
    if own is not None:
        certificate, key = own.write(folder, "sidecar")
        settings |= {"upstream_certificate": str(certificate), "upstream_key": str(key)}
    return settings


def mutual(folder: Path, **changes: Any) -> Any:
    """Return the configuration of an authority with mutual TLS."""
    return config_for(folder, transport="grpcio", **server_files(CA, folder / "tls", CLIENTS), **changes)


async def test_an_authority_with_mutual_tls(tmp_path: Path) -> None:
    """With its own certificate a sidecar forwards calls, and follows the authority, over mutual TLS."""
    async with (
        serving(mutual(tmp_path)) as app,
        beside(app.address, tmp_path, **upstream_files(tmp_path / "near", CLIENTS.client())) as sidecar,
        AsyncClient(sidecar.address) as client,
    ):
        opened = await client.create(subject="ada")
        await until(lambda: is_open(sidecar))
        for _ in range(3):
            assert (await client.validate(opened.token)).verdict is Verdict.VALID
        assert sidecar.cache.stats().hits
        await client.revoke(token=opened.token, wait_for_caches=True)
        assert (await client.validate(opened.token)).verdict is not Verdict.VALID
        async with client.events(start="earliest") as events:
            assert (await anext(events)).subject == "ada"


WRONG: dict[str, tuple[Pair | None, Authority, str]] = {
    "no certificate": (None, CA, "another certificate of the client"),
    "another authority's": (STRANGER.client(), CA, "another certificate of the client"),
    "another authority for the server": (
        CLIENTS.client(),
        STRANGER,
        "not signed by an authority that this client trusts",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
async def test_wrong_files(tmp_path: Path, kind: str) -> None:
    """With wrong files a sidecar refuses every call, and its log says what is wrong."""
    own, authority, said = WRONG[kind]
    async with serving(mutual(tmp_path)) as app:
        with capture_logs() as lines:
            async with beside(app.address, tmp_path, **upstream_files(tmp_path / "near", own, authority)) as sidecar:
                await until(lambda: any(line["event"] == "upstream lost" for line in lines))
                async with AsyncClient(sidecar.address, retries=0) as client:
                    with pytest.raises(Unavailable):
                        await client.create(subject="ada")
    (line,) = [line for line in lines if line["event"] == "upstream lost"]
    assert said in line["problem"]


async def test_files_that_change(tmp_path: Path) -> None:
    """A sidecar uses a new certificate without a restart: calls work when the old one is no longer accepted."""
    async with AsyncExitStack() as stack:
        async with serving(mutual(tmp_path)) as app:
            config = replace(app._config, listen=app.address)
            files = upstream_files(tmp_path / "near", CLIENTS.client())
            sidecar = await stack.enter_async_context(beside(app.address, tmp_path, **files))
            client = await stack.enter_async_context(AsyncClient(sidecar.address, timeout=30.0))
            opened = await client.create(subject="ada")
            await until(lambda: is_open(sidecar))
            new = STRANGER.client()
            upstream_files(tmp_path / "near", new)
            await until(lambda: sidecar._tls is not None and sidecar._tls.current.certificate == new.certificate)
        STRANGER.write(tmp_path / "tls", "clients")
        async with serving(config):  # the restart ends the connections
            await until(lambda: is_open(sidecar))
            assert (await client.validate(opened.token)).verdict is Verdict.VALID
            found = (await client.get(token=opened.token)).session
            assert found is not None
            assert found.subject == "ada"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"upstream_certificate": "a"}, "--test: needs --upstream-key too"),
        ({"upstream_key": "a"}, "--test: needs --upstream-certificate too"),
        ({"upstream_certificate": "a", "upstream_key": "b"}, "--test: needs --upstream-ca too"),
        (
            {"upstream": "unix:x", "upstream_ca": "a"},
            "--test: unix:x is a Unix socket, which needs no TLS; leave it out",
        ),
    ],
)
async def test_settings_that_do_not_fit(tmp_path: Path, settings: dict[str, Any], expected: str) -> None:
    """Settings of TLS that lack another one are refused, and name it."""
    with pytest.raises(BadConfig) as error:
        async with beside(settings.pop("upstream", "127.0.0.1:1"), tmp_path, **settings):
            raise AssertionError("it must not start")
    assert str(error.value) == expected


async def test_an_open_key(tmp_path: Path) -> None:
    """A private key that others can read is refused at the start."""
    settings = upstream_files(tmp_path / "near", CLIENTS.client())
    os.chmod(settings["upstream_key"], 0o644)
    with pytest.raises(BadTls, match=r"--upstream-key: .* has mode 0644"):
        async with beside("127.0.0.1:1", tmp_path, **settings):
            raise AssertionError("it must not start")
