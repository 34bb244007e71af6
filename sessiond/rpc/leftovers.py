"""What grpcio leaves behind of each call: its metadata, in a reference cycle.

The cycle collector frees it, but the collector counts objects and not bytes, and the server has it run rarely. gRPC
refuses a call with more than 16 KB of metadata, but only after it has received all of it, however much it is: it was 5
MB a call in a test. So metadata is counted here, and the collector runs once there are 4 MB of it.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc

__all__ = ["Leftovers"]

_MOST_BYTES = 4_000_000


class Leftovers(grpc.GenericRpcHandler):
    """Sees the metadata of every call, and serves none. It must be the first handler of a server."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._due = False

    def service(self, details: grpc.HandlerCallDetails) -> None:
        """Count the metadata of a call."""
        metadata: Any = details.invocation_metadata
        for key, value in metadata:
            self._bytes += len(key) + len(value)
        if self._bytes >= self._most and not self._due:
            self._due = True
            # Not now: this call is not left behind yet, and what survives a collection stays longer.
            asyncio.get_running_loop().call_soon(self._collect)

    def _collect(self) -> None:
        # The youngest generation is enough, and takes milliseconds: a call's cycle is left behind as it begins.
        gc.collect(0)
        self._bytes, self._due = 0, False
