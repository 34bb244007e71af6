"""A real Envoy in front of a real application, with the configuration that operators copy."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Application", "application", "envoy_program", "running_envoy"]

_DEPLOYED = Path(__file__).parents[2] / "deploy" / "envoy" / "envoy.yaml"


def envoy_program() -> str | None:
    """Return the path of an Envoy; None if there is none."""
    if found := shutil.which("envoy"):
        return found
    spec = importlib.util.find_spec("envoy")
    for place in spec.submodule_search_locations or () if spec is not None else ():
        for program in Path(place, "_bin").glob("envoy*"):
            return str(program)
    return None


@dataclass
class Application:
    """An application that knows nothing of sessions: it answers with the request that it got.

    `status`: that of its responses; `headers`: what it adds to each. `seen`: the requests, newest last.
    """

    port: int = 0
    status: str = "200 OK"
    headers: list[str] = field(default_factory=list)
    seen: list[dict[str, list[str]]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while first := (await reader.readline()).decode("latin-1").strip():
                headers: dict[str, list[str]] = {":request": [first]}
                while line := (await reader.readline()).decode("latin-1").strip():
                    name, _, value = line.partition(":")
                    headers.setdefault(name.lower(), []).append(value.strip())
                await reader.readexactly(int(headers.get("content-length", ["0"])[0]))
                self.seen.append(headers)
                body = json.dumps(headers).encode()
                head = [f"HTTP/1.1 {self.status}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
                writer.write("\r\n".join([*head, *self.headers, "", ""]).encode() + body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def application() -> AsyncIterator[Application]:
    """Run the application on a free port."""
    app = Application()
    server = await asyncio.start_server(app.serve, "127.0.0.1", 0)
    app.port = server.sockets[0].getsockname()[1]
    try:
        yield app
    finally:
        server.close()


@asynccontextmanager
async def running_envoy(
    folder: Path, authority: str, application_port: int, name: str = "default"
) -> AsyncIterator[int]:
    """Run Envoy with the deployed configuration and these addresses, and return its port."""
    program = envoy_program()
    assert program is not None
    port = _free_port()
    text = _DEPLOYED.read_text(encoding="utf-8")
    for deployed, here in (
        ("port_value: 8080", f"port_value: {port}"),
        ("port_value: 8000", f"port_value: {application_port}"),
        ("port_value: 7443", f"port_value: {authority.rpartition(':')[2]}"),
        ("application: default", f"application: {name}"),
    ):
        assert deployed in text
        text = text.replace(deployed, here)
    file, log = folder / "envoy.yaml", folder / "envoy.log"
    file.write_text(text, encoding="utf-8")
    arguments = [program, "-c", str(file), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*arguments, stdout=output, stderr=output)
    try:
        while not await _accepts(port):
            assert process.returncode is None, log.read_text(encoding="utf-8")
            await asyncio.sleep(0.05)
        yield port
    finally:
        process.terminate()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
