"""A backup of the authority's database, as it arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from types import TracebackType
from typing import Any, Self

import grpc

from sessiond_client import convert, forks
from sessiond_client.connection import Channels
from sessiond_client.errors import SessiondError, Unavailable, from_rpc
from sessiond_client.outcome import attempt
from sessiond_client.values import BackupFacts
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["AsyncBackup", "Backup"]


class _Parts:
    """Checks the messages of one backup, without the I/O."""

    def __init__(self) -> None:
        self.facts: BackupFacts | None = None
        self._digest = sha256()
        self._received = 0

    def step(self, message: pb.StreamBackupResponse) -> bytes | None:
        """The part in a message, empty for the first message; None for the last one. Raises `Unavailable`."""
        match message.WhichOneof("item"):
            case "started" if self.facts is None:
                self.facts = convert.backup_facts(message.started)
                return b""
            case "part" if self.facts is not None:
                self._digest.update(message.part)
                self._received += len(message.part)
                return message.part
            case "complete" if self.facts is not None:
                whole = self._received == self.facts.size and self._digest.digest() == message.complete.sha256
                if whole:
                    return None
        raise Unavailable("the backup is damaged: discard it, and start again", status="DATA_LOSS")


def _cut_off() -> SessiondError:
    return Unavailable("the backup ended before its last message: discard it, and start again", status="OK")


class _Reading:
    """What both kinds of a backup have."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._parts = _Parts()
        self._call: Any = None

    @property
    def facts(self) -> BackupFacts:
        """What the backup is of. Only inside the block."""
        assert self._parts.facts is not None, "use the backup in a `with` block"  # noqa: S101
        return self._parts.facts

    def release(self) -> None:
        """Cancel the gRPC call."""
        if self._call is not None:
            self._call.cancel()
        self._channels.forget(self)

    def _open(self) -> None:
        self._channels.check()
        self._call = self._channels.for_stream(self).StreamBackup(pb.StreamBackupRequest())


class Backup(_Reading):
    """One backup, as an iterator over the parts of the database file; a context manager.

    The block begins with the first message, and `facts` says what the backup is of. The parts are complete and correct
    only if the iteration ends without an exception. It does not repeat anything by itself. Raises a `SessiondError`.
    """

    def __enter__(self) -> Self:
        try:
            attempt(self._begin).get()
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __iter__(self) -> Iterator[bytes]:
        while (part := attempt(self._next).get()) is not None:
            yield part

    def _begin(self) -> None:
        forks.keep_in_children(self)
        self._open()
        self._next()

    def _next(self) -> bytes | None:
        try:
            return self._parts.step(next(self._call))
        except StopIteration:
            raise _cut_off() from None
        except grpc.RpcError as error:
            raise from_rpc(error) from None


class AsyncBackup(_Reading):
    """As `Backup`, for asyncio: `async with` and `async for`."""

    async def __aenter__(self) -> Self:
        self._open()
        try:
            await self._next()
        except BaseException:
            self.release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (part := await self._next()) is not None:
            yield part

    async def _next(self) -> bytes | None:
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None
        if message is grpc.aio.EOF:
            raise _cut_off()
        return self._parts.step(message)
