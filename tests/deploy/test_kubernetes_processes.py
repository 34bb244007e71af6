"""The settings of the manifests in real processes, in the order in which the guide has an operator use them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sessiond_client import AsyncClient, Grant, Role, TlsFiles
from tests.deploy.manifests import Manifest, containers, environment, find, pods
from tests.deploy.orchestrated import IMAGE_VARIABLES
from tests.support.certificates import Authority, Pair
from tests.support.server import ServerProcess
from tests.support.sidecars import health_of, until_healthy

SIDECAR = "spiffe://example.org/sidecar"
VALIDATOR = Grant(role=Role.VALIDATOR)


def variables(container: Manifest, folder: Path, **known: str) -> tuple[str, ...]:
    """Return the command that sets the variables of a container, with its volumes in a folder and on free ports."""
    for mount in container["volumeMounts"]:
        path = Path(f"{folder}{mount['mountPath']}")
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o2777)
    values = {}
    for name, value in (IMAGE_VARIABLES | environment(container)).items():
        free = re.sub(r"^(0\.0\.0\.0|127\.0\.0\.1):\d+$", r"\1:0", value)
        values[name] = re.sub(r"^(unix:)?(/(?:etc|run|var)/)", rf"\1{folder}\2", free)
    return ("/usr/bin/env", *(f"{name}={value}" for name, value in (values | known).items()))


def write_secret(folder: Path, **files: bytes) -> None:
    """Write the files of a secret as Kubernetes mounts them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content)
        path.chmod(0o440)


def write_tls(folder: Path, pair: Pair, authority: Authority) -> None:
    write_secret(folder, tls_crt=pair.certificate, tls_key=pair.key, ca_crt=authority.pem)


@contextmanager
def process(folder: Path, command: str, prefix: tuple[str, ...], cwd: Path) -> Iterator[ServerProcess]:
    """Run a server or a sidecar that has its settings from the environment and the file of a folder alone."""
    folder.mkdir(exist_ok=True)
    started = ServerProcess(folder, prefix=prefix, options=False, command=command, cwd=cwd)
    try:
        yield started
    finally:
        started.kill()


def logged(server: ServerProcess, key: str) -> str:
    """Return a fact of the line `serving`."""
    lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    return str(next(line[key] for line in lines if line["event"] == "serving"))


@pytest.mark.slow
async def test_the_steps_of_the_guide(tmp_path: Path, database: str) -> None:
    """With the settings of the manifests an operator adds the first caller, the replica refuses to start before that
    and becomes healthy after it, and an application gets its session validated through the sidecar."""
    found = {part: spec for part, _, spec in pods()}
    ca = Authority()
    key_ring = os.urandom(64).hex().encode() + b"\n"
    pod = tmp_path / "pod"
    config = Path(f"{pod}/etc/sessiond")
    write_secret(Path(f"{pod}/etc/sessiond-keys"), sessiond_key=key_ring)
    write_tls(Path(f"{pod}/etc/sessiond-tls"), ca.server(), ca)
    replica = variables(containers(found["base"])[0], pod, SESSIOND_STORE=database)
    (config / "sessiond.toml").write_text(find("base", "ConfigMap")["data"]["sessiond.toml"], encoding="utf-8")
    with process(tmp_path / "too-early", "serve", replica, config) as server, pytest.raises(AssertionError) as refused:
        await server.address()
    assert "without callers everyone who connects has full access" in str(refused.value)

    first = tmp_path / "first"
    write_secret(Path(f"{first}/etc/sessiond-keys"), sessiond_key=key_ring)
    alone = variables(containers(found["first-caller"])[0], first, SESSIOND_STORE=database)
    with process(tmp_path / "first-caller", "serve", alone, first) as server:
        await server.address()
        add = [*alone, sys.executable, "-m", "sessionctl", "callers", "add", "ops", "--role", "admin", "--key-only"]
        added = await asyncio.to_thread(subprocess.run, add, capture_output=True, text=True, check=True, timeout=60)
        assert await server.terminate() == 0

    with process(tmp_path / "replica", "serve", replica, config) as server:
        port = (await server.address()).rpartition(":")[2]
        assert await health_of(logged(server, "health").replace("0.0.0.0", "127.0.0.1")) == "SERVING"
        certificate, private = ca.client().write(tmp_path, "ops")
        tls = TlsFiles(ca=ca.write(tmp_path, "ca"), certificate=certificate, key=private)
        target = f"localhost:{port}"
        async with AsyncClient(target, application="shop", key=added.stdout.strip(), tls=tls) as ops:
            await ops.create_caller("sidecar", [VALIDATOR], certificate_names=[SIDECAR], without_key=True)
            token = (await ops.create(subject="ada")).token
        beside = tmp_path / "beside"
        write_tls(Path(f"{beside}/etc/sessiond-tls"), ca.client(SIDECAR), ca)
        (container,) = found["overlays/shop"]["initContainers"]
        settings = variables(container, beside, SESSIOND_UPSTREAM=target)
        with process(tmp_path / "sidecar", "sidecar", settings, beside) as sidecar:
            near = await sidecar.address()
            assert near == f"unix:{beside}/run/sessiond/near.sock"
            await until_healthy(near, serves=True, from_memory=True)
            async with AsyncClient(near, application="shop", key=added.stdout.strip()) as shop:
                assert (await shop.validate(token)).valid
            assert await sidecar.terminate() == 0
        assert await server.terminate() == 0
