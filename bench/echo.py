"""The baseline: a bare `grpc.aio` echo server in its own process.

    python -m bench.echo RESPONSE_BYTES [asyncio | uvloop] [grpcio | native] [CERTIFICATE KEY CLIENT_CA]

It does the minimum of an asyncio handler: protobuf parses one message with one bytes field and serializes another.
There is no interceptor, no log and no check. It uses asyncio's own event loop. sessiond runs on uvloop, which would
make the echo 3 to 4 % faster too (`python -m bench --uvloop` measures that). The options are gRPC's defaults except
`so_reuseport`; the other options of sessiond are limits and keep-alive times, which do not slow down a call. `native`
serves the same handler on the package pygrpc-native, whose server has the interface of grpc.aio's. With PEM files it
requires mutual TLS, with gRPC's defaults.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import uvloop
from google.protobuf.wrappers_pb2 import BytesValue

__all__ = ["PATH", "sized"]

_SERVICE, _METHOD = "bench.Echo", "Echo"
PATH = f"/{_SERVICE}/{_METHOD}"


def sized(wanted: int) -> BytesValue:
    """Return a message of that serialized size, or one byte less if protobuf's length prefix makes it impossible."""
    message = BytesValue(value=bytes(wanted))
    while message.ByteSize() > wanted:
        message.value = message.value[:-1]
    return message


def _server(transport: str) -> grpc.aio.Server:
    options = [("grpc.so_reuseport", 0)]
    if transport == "grpcio":
        return grpc.aio.server(options=options)
    import pygrpc_native.aio  # imported here: only this transport needs it

    return pygrpc_native.aio.server(options=options)


async def serve(response_bytes: int, transport: str, files: Sequence[bytes] = ()) -> None:
    """Serve on a free port until SIGTERM. Print the address as one line of JSON."""
    wanted = len(sized(response_bytes).value)
    padding = bytes(wanted)

    async def echo(request: BytesValue, _: grpc.aio.ServicerContext[Any, Any]) -> BytesValue:
        return BytesValue(value=(request.value + padding)[:wanted])

    server = _server(transport)
    handler: grpc.RpcMethodHandler[BytesValue, BytesValue] = grpc.unary_unary_rpc_method_handler(
        echo, request_deserializer=BytesValue.FromString, response_serializer=BytesValue.SerializeToString
    )
    if transport == "grpcio":
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),))
    else:
        server.add_registered_method_handlers(_SERVICE, {_METHOD: handler})
    if files:
        certificate, key, authority = files
        credentials = grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    print(json.dumps({"event": "serving", "address": f"127.0.0.1:{port}"}), flush=True)
    await stopping.wait()
    await server.stop(1.0)


if __name__ == "__main__":
    size, loop, transport = [*sys.argv[1:4], *("asyncio", "grpcio")[len(sys.argv) - 2 :]]
    run = uvloop.run if loop == "uvloop" else asyncio.run
    run(serve(int(size), transport, [Path(file).read_bytes() for file in sys.argv[4:]]))
