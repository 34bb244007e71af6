"""What health checks say about an authority."""

from __future__ import annotations

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health

from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["LIVE", "SERVICE", "Health"]

SERVICE = pb.DESCRIPTOR.services_by_name["SessionAuthority"].full_name
LIVE = "live"
"""The name under which health checks say whether the process works. Restarting it does not help while it does."""
_STATUS = health_pb2.HealthCheckResponse


class Health:
    """The answers to health checks. `servicer` gives them; before `start` it knows no service."""

    def __init__(self) -> None:
        self.servicer = health.HealthServicer()
        self._is_stopping = False

    async def start(self) -> None:
        """Report that the process works, and is not ready yet."""
        await self.servicer.set(LIVE, _STATUS.SERVING)
        await self.report(is_ready=False)

    async def report(self, *, is_ready: bool) -> None:
        """Set whether calls can be answered. After `announce_stop` they cannot."""
        wanted = _STATUS.SERVING if is_ready and not self._is_stopping else _STATUS.NOT_SERVING
        for name in ("", SERVICE):
            await self.servicer.set(name, wanted)

    async def announce_stop(self) -> None:
        """Report NOT_SERVING from now on."""
        self._is_stopping = True
        await self.report(is_ready=False)
