"""`python -m sessiond.check_health [ADDRESS]`: exit code 0 if a server or a sidecar says that it is SERVING, else 1.

For container engines, which check health with a command. It imports little, because it runs every few seconds. Without
ADDRESS it asks where `SESSIOND_HEALTH_LISTEN`, or else `SESSIOND_LISTEN`, has the server listen.
"""

from __future__ import annotations

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

__all__ = ["main"]

_TIMEOUT = 3.0
_DEFAULT = "127.0.0.1:7443"
_OPTIONS = [("grpc.enable_http_proxy", 0)]
_ANY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - nothing listens here


def main(arguments: list[str]) -> int:
    """Check the health at an address, and return the exit code. If it is not SERVING, one line says why."""
    listen = os.environ.get("SESSIOND_HEALTH_LISTEN") or os.environ.get("SESSIOND_LISTEN") or _DEFAULT
    address = _reachable(arguments[0] if arguments else listen)
    try:
        with grpc.insecure_channel(address, options=_OPTIONS) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT)
    except grpc.RpcError as error:
        sys.stderr.write(f"no answer at {address}: {error.code().name}\n")
        return 1
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    sys.stderr.write(f"{address}: {status}\n")
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


def _reachable(listen: str) -> str:
    """Return an address to connect to for one to listen on."""
    host, colon, port = listen.rpartition(":")
    return f"{_ANY.get(host, host)}{colon}{port}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
