"""What grpcio leaves behind of each call: its metadata, in a reference cycle.

The cycle collector frees it, but the collector counts objects and not bytes, and the server has it run rarely. gRPC
refuses a call with more than 16 KB of metadata, but only after it has received all of it, however much it is: it was 5
MB a call in a test. So metadata is counted here, and the collector runs once there are 4 MB of it.

That is the youngest generation, which takes milliseconds. A cycle that another run has met while its call was alive is
in an older generation by then. So after a call with more metadata than gRPC serves, which no honest client makes, all
generations are collected, at most once in ten seconds: with many sessions in memory that takes a good part of a second.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc

from sessiond.rpc.listening import MAX_METADATA_BYTES

__all__ = ["Leftovers"]

_MOST_BYTES = 4_000_000
_REFUSED_BYTES = 2 * MAX_METADATA_BYTES
_ALL_AFTER = 10.0
"""Seconds."""


class Leftovers(grpc.GenericRpcHandler):
    """Sees the metadata of every call, and serves none. It must be the first handler of a server."""

    def __init__(self, most_bytes: int = _MOST_BYTES, all_after: float = _ALL_AFTER) -> None:
        self._most = most_bytes
        self._all_after = all_after
        self._bytes = 0
        self._due = self._all_due = False

    def service(self, details: grpc.HandlerCallDetails) -> None:
        """Count the metadata of a call."""
        metadata: Any = details.invocation_metadata
        size = 0
        for key, value in metadata:
            size += len(key) + len(value)
        self._bytes += size
        if self._bytes >= self._most and not self._due:
            self._due = True
            # Not now: this call is not left behind yet, and what survives a collection stays longer.
            asyncio.get_running_loop().call_soon(self._collect)
        if size > _REFUSED_BYTES and not self._all_due:
            self._all_due = True
            asyncio.get_running_loop().call_later(self._all_after, self._collect_all)

    def _collect(self) -> None:
        gc.collect(0)
        self._bytes, self._due = 0, False

    def _collect_all(self) -> None:
        gc.collect()
        self._all_due = False
