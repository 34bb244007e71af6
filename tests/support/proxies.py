"""Real proxies in front of a real application, with the configurations that operators copy."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import secrets
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sessiond.app import App
from tests.support.certificates import Authority
from tests.support.programs import start_program

__all__ = ["PROXIES", "Application", "Front", "application", "program_of", "running"]

PROXIES = ("envoy", "nginx", "caddy")
_DEPLOYED = Path(__file__).parents[2] / "deploy"


@dataclass(frozen=True, slots=True)
class Front:
    """A running proxy: the address of the site, and that without TLS."""

    url: str
    plain_url: str


@dataclass(frozen=True, slots=True)
class _Addresses:
    """Where sessiond listens."""

    grpc: str
    http: str


def program_of(proxy: str) -> str | None:
    """Return the path of a proxy's program; None if there is none."""
    if found := shutil.which(proxy, path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        return found
    return _packaged_envoy() if proxy == "envoy" else None


def _packaged_envoy() -> str | None:
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
async def running(
    proxy: str, folder: Path, app: App, application_port: int, key: str = "", http: str = ""
) -> AsyncIterator[Front]:
    """Run a proxy with the deployed configuration and these addresses.

    `key`: what it sends to prove who it is. `http`: where it asks over HTTP, if not at the authority.
    """
    program = program_of(proxy)
    assert program is not None
    folder = folder / proxy
    folder.mkdir()
    start = {"envoy": _envoy, "nginx": _nginx, "caddy": _caddy}[proxy]
    arguments, front = start(folder, _Addresses(app.address, http or _http_address(app)), application_port, key)
    log = folder / "log"
    # Caddy keeps certificates, and nginx a file with its process id, where another one may have them.
    environment = os.environ | {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with log.open("wb") as output:
        process = await start_program(program, *arguments, stdout=output, stderr=output, env=environment)
    try:
        while not await _accepts(int(front.url.rpartition(":")[2])):
            assert process.returncode is None, f"{proxy} ended: {process.returncode}\n{log.read_text(encoding='utf-8')}"
            await asyncio.sleep(0.05)
        yield front
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself, and the test says so
            process.terminate()
        await process.wait()


def _envoy(folder: Path, sessiond: _Addresses, application_port: int, key: str) -> tuple[Sequence[str], Front]:
    port, plain, certificate = _free_port(), _free_port(), _certificate(folder)
    to_sessiond = "                        envoy_grpc: {cluster_name: sessiond}\n"
    metadata = f'                        initial_metadata: [{{key: authorization, value: "{key}"}}]\n'
    changes = {
        'address: "::", port_value: 80, ipv4_compat: true': f"address: 127.0.0.1, port_value: {plain}",
        'address: "::", port_value: 443, ipv4_compat: true': f"address: 127.0.0.1, port_value: {port}",
        "https_redirect: true": f"https_redirect: true, port_redirect: {port}",
        "port_value: 8000": f"port_value: {application_port}",
        to_sessiond: to_sessiond + (metadata if key else ""),
        "port_value: 7443": f"port_value: {sessiond.grpc.rpartition(':')[2]}",
        "port_value: 7480": f"port_value: {sessiond.http.rpartition(':')[2]}",
        'x-session-key, value: ""': f'x-session-key, value: "{key}"',
        "/etc/envoy/tls/shop": str(certificate),
        "shop.example.com": "localhost",
    }
    file = _written(folder, "envoy/envoy.yaml", changes)
    arguments = ["-c", str(file), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
    return arguments, Front(f"https://localhost:{port}", f"http://localhost:{plain}")


def _nginx(folder: Path, sessiond: _Addresses, application_port: int, key: str) -> tuple[Sequence[str], Front]:
    port, plain, certificate = _free_port(), _free_port(), _certificate(folder)
    temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"    {name}_temp_path {folder / name};\n" for name in temporary)
    changes = {
        "    access_log /var/log/nginx/access.log;\n": f"    access_log off;\n{paths}",
        "server 127.0.0.1:7480": f"server {sessiond.http}",
        "server 127.0.0.1:8000": f"server 127.0.0.1:{application_port}",
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "https://$host$request_uri": f"https://$host:{port}$request_uri",
        "/etc/nginx/tls/shop": str(certificate),
        "shop.example.com": "localhost",
        'X-Session-Key ""': f'X-Session-Key "{key}"',
    }
    file = _written(folder, "nginx/nginx.conf", changes)
    globals_ = f"daemon off; pid {folder / 'pid'};"
    if os.geteuid() == 0:
        globals_ += " user root;"  # another user may not write in the folders of tests
    arguments = ["-p", str(folder), "-c", str(file), "-e", "stderr", "-g", globals_]
    return arguments, Front(f"https://localhost:{port}", f"http://localhost:{plain}")


def _caddy(folder: Path, sessiond: _Addresses, application_port: int, key: str) -> tuple[Sequence[str], Front]:
    port, plain, certificate = _free_port(), _free_port(), _certificate(folder)
    ours = f"{{\n\tadmin off\n\tskip_install_trust\n\thttp_port {plain}\n\thttps_port {port}\n}}\n(session) {{"
    changes = {
        "(session) {": ours,
        "127.0.0.1:7480": sessiond.http,
        "reverse_proxy 127.0.0.1:8000": f"reverse_proxy 127.0.0.1:{application_port}",
        "/etc/caddy/tls/shop": str(certificate),
        "shop.example.com": "localhost",
        "header_up -X-Session-Key": f'header_up X-Session-Key "{key}"' if key else "header_up -X-Session-Key",
    }
    file = _written(folder, "caddy/Caddyfile", changes)
    arguments = ["run", "--config", str(file), "--adapter", "caddyfile"]
    return arguments, Front(f"https://localhost:{port}", f"http://localhost:{plain}")


def _http_address(app: App) -> str:
    assert app._endpoints._http is not None
    return app._endpoints._http.address


def _written(folder: Path, deployed: str, changes: dict[str, str]) -> Path:
    text = (_DEPLOYED / deployed).read_text(encoding="utf-8")
    for there, here in changes.items():
        assert there in text, there
        text = text.replace(there, here)
    file = folder / Path(deployed).name
    file.write_text(text, encoding="utf-8")
    return file


def _certificate(folder: Path) -> Path:
    """Write a certificate and its key, and return their path without `.crt` and `.key`."""
    Authority().server().write(folder, "shop")
    return folder / "shop"


def _free_port() -> int:
    """Return a port that nobody has, and that the kernel gives to nobody who asks for any."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
