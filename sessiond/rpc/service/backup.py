"""The call StreamBackup."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import grpc

from sessiond.authority.backup import Backup, Backups
from sessiond.domain.call import Caller
from sessiond.domain.errors import Overloaded
from sessiond.domain.key_ring import in_use
from sessiond.rpc import encode
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["BackupService"]

Context = grpc.aio.ServicerContext[Any, Any]
_PART_BYTES = 262_144


class BackupService:
    """The call StreamBackup. If the caller leaves a message unread for `write_timeout` seconds, the stream ends."""

    def __init__(self, backups: Backups, write_timeout: float, version: str) -> None:
        self._backups = backups
        self._write_timeout = write_timeout
        self._version = version

    async def StreamBackup(self, _: pb.StreamBackupRequest, __: Caller, context: Context) -> None:
        """Stream a copy of the database."""
        async with self._backups.backup() as backup:
            await self._write(context, pb.StreamBackupResponse(started=self._started(backup)))
            while part := await backup.read(_PART_BYTES):
                await self._write(context, pb.StreamBackupResponse(part=part))
            complete = pb.BackupComplete(sha256=backup.sha256)
            await self._write(context, pb.StreamBackupResponse(complete=complete))

    def _started(self, backup: Backup) -> pb.BackupStarted:
        facts = backup.facts
        message = pb.BackupStarted(
            size=facts.size,
            authority_id=str(UUID(bytes=backup.authority_id)),
            revision=facts.revision,
            server_version=self._version,
            schema_version=facts.schema_version,
            key_fingerprints=[key.fingerprint.hex() for key in in_use(facts.keys)],
        )
        encode.set_time(message.time, backup.time)
        return message

    async def _write(self, context: Context, message: pb.StreamBackupResponse) -> None:
        try:
            # Not `wait_for`: on Python 3.11 it loses a cancellation that arrives when the write has finished.
            async with asyncio.timeout(self._write_timeout):
                await context.write(message)
        except TimeoutError:
            raise Overloaded("the caller did not read the backup in time; start it again") from None
