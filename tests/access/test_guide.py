"""docs/how-to/add-callers.md: all of its blocks, run one after another against a real server."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.app import App
from sessiond_client import AsyncClient, TlsFiles, Unauthenticated
from tests.support.server import config_for, serving

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-callers.md"
_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROGRAM = re.compile(r"\bsessionctl\b(?= )")
BLOCKS: list[tuple[str, str]] = _BLOCK.findall(PAGE.read_text(encoding="utf-8"))
REJECTED = "rejected, exit code 1\n"


async def run(block: tuple[str, str], folder: Path, address: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one block as a reader would, in a folder of its own."""
    language, text = block
    environment = dict(os.environ) | {"SESSIOND_TARGET": address} | variables
    if (folder / "ops.key").exists():
        environment["SESSIOND_KEY_FILE"] = str(folder / "ops.key")  # the guide's `export`, for the blocks after it
    if language == "sh":
        command = ["bash", "-euc", _PROGRAM.sub(f"{sys.executable} -m sessionctl", text)]
    else:
        command = [sys.executable, "-c", text.replace("127.0.0.1:7443", address)]
    return await asyncio.to_thread(
        subprocess.run, command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.slow
async def test_the_guide_runs(app: App, tmp_path: Path) -> None:
    """Each block works in the order of the page, and calls are rejected where the page says so."""
    first, anyone_else, second, client, too_much, _, _, _, rotate, change, revoke = BLOCKS
    assert [language for language, _ in BLOCKS] == ["sh", "sh", "sh", "python", *["sh"] * 7]

    done = await run(first, tmp_path, app.address)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ops +admin ", done.stdout, re.M)
    without_key = await run(anyone_else, tmp_path, app.address)
    assert (without_key.stdout, without_key.stderr.count("\n")) == (REJECTED, 1)

    assert (await run(second, tmp_path, app.address)).returncode == 0
    assert (tmp_path / "shop.key").stat().st_mode & 0o777 == 0o600
    old = (tmp_path / "shop.key").read_text(encoding="ascii").strip()
    used = await run(client, tmp_path, app.address)
    assert (used.stdout, used.returncode) == ("MALFORMED\n", 0), used.stderr
    without_role = await run(too_much, tmp_path, app.address)
    assert without_role.stdout == REJECTED
    assert re.search(r'"shop-web".*\boperator\b', without_role.stderr)

    assert (await run(rotate, tmp_path, app.address)).returncode == 0
    assert (tmp_path / "shop.key").read_text(encoding="ascii").strip() != old
    assert (await run(client, tmp_path, app.address)).returncode == 0
    async with AsyncClient(app.address, key=old) as before:
        await before.validate("")  # the overlap

    changed = await run(change, tmp_path, app.address)
    assert changed.returncode == 0, changed.stderr
    other = (tmp_path / "shop-2.key").read_text(encoding="ascii").strip()
    async with AsyncClient(app.address, key=other) as replacement:
        await replacement.validate("")
        assert (await run(revoke, tmp_path, app.address)).returncode == 0
        with pytest.raises(Unauthenticated):
            await replacement.validate("")
    refused = await run(client, tmp_path, app.address)
    assert refused.returncode == 1
    assert "Unauthenticated" in refused.stderr
    assert "sessiond_" not in refused.stderr.replace("sessiond_client", "")
    async with AsyncClient(app.address, key=old) as before:
        with pytest.raises(Unauthenticated):
            await before.validate("")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="the guide makes its certificates with openssl")
async def test_certificates_instead_of_keys(tmp_path: Path) -> None:
    """With the certificates of the guide about TLS, its client is known without a key, until its name is removed."""
    *_, add, change, _, _, _, _ = BLOCKS
    make = _BLOCK.findall((PAGE.parent / "use-tls.md").read_text(encoding="utf-8"))[0]
    made = await run(make, tmp_path, "")
    assert made.returncode == 0, made.stderr
    files: dict[str, Any] = {
        "certificate": tmp_path / "server.crt",
        "key": tmp_path / "server.key",
        "client_ca": tmp_path / "ca.pem",
    }
    config = config_for(tmp_path, transport="grpcio", **{f"tls_{name}": file for name, file in files.items()})
    tls = TlsFiles(ca=tmp_path / "ca.pem", certificate=tmp_path / "client.crt", key=tmp_path / "client.key")
    variables = {
        "SESSIOND_TLS_CA": str(tls.ca),
        "SESSIOND_TLS_CLIENT_CERTIFICATE": str(tls.certificate),
        "SESSIOND_TLS_CLIENT_KEY": str(tls.key),
    }
    async with serving(config) as app:
        for block in (BLOCKS[0], add):
            done = await run(block, tmp_path, app.address, **variables)
            assert done.returncode == 0, done.stderr
        assert "certificate: spiffe://example.org/shop" in done.stdout
        async with AsyncClient(app.address, tls=tls) as client:
            token = (await client.create(subject="ada")).token
            assert (await client.validate(token)).valid
            done = await run(change, tmp_path, app.address, **variables)
            assert done.returncode == 0, done.stderr
            with pytest.raises(Unauthenticated, match="no caller has a name"):
                await client.validate(token)


@pytest.mark.slow
async def test_sockets_instead_of_keys(tmp_path: Path) -> None:
    """With the section of the guide, whoever can open the socket is known without a key."""
    *_, add, _, _, _ = BLOCKS
    (section,) = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    text = section.replace("/run/sessiond", str(tmp_path)).replace("www-data", str(os.getgid()))
    assert text != section
    async with serving(config_for(tmp_path, text)) as app:
        for block in (BLOCKS[0], add):
            done = await run(block, tmp_path, app.address)
            assert done.returncode == 0, done.stderr
        assert "key" not in done.stdout
        async with AsyncClient(f"unix:{tmp_path / 'worker.sock'}") as worker:
            assert (await worker.validate((await worker.create(subject="ada")).token)).valid


async def test_other_languages_send_metadata(app: App, tmp_path: Path) -> None:
    """What the guide says for other languages holds: the metadata `authorization: Bearer KEY` is all that it takes."""
    assert "`authorization: Bearer KEY`" in PAGE.read_text(encoding="utf-8")
    assert (await run(BLOCKS[0], tmp_path, app.address)).returncode == 0
    key = (tmp_path / "ops.key").read_text(encoding="ascii").strip()
    async with grpc.aio.insecure_channel(app.address) as channel:
        ask: Any = channel.unary_unary("/sessiond.v1.SessionAuthority/GetAuthority")
        assert await ask(b"", metadata=(("authorization", f"Bearer {key}"),))
