"""What a process tells the service manager that has started it: systemd, or anything else that knows sd_notify(3)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

import structlog

__all__ = ["ServiceManager"]

_log = structlog.get_logger(__name__)


class ServiceManager:
    """The service manager that `environment` names; if it names none, nothing happens.

    NOTIFY_SOCKET is where it listens. WATCHDOG_USEC is after how many microseconds without a sign of life it restarts
    this process, if WATCHDOG_PID is this one or is not set.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        microseconds = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog = int(microseconds) / 1e6 if is_ours and microseconds.isdecimal() else 0.0
        self._has_failed = False

    def ready(self) -> None:
        """Say that the service can be used: what depends on it may start."""
        self._notify("READY=1")

    def stopping(self) -> None:
        """Say that the service stops as asked."""
        self._notify("STOPPING=1")

    async def keep_alive(self) -> None:
        """Give signs of life until the task is cancelled, twice as often as needed.

        They come from the event loop: a loop that hangs answers no calls either.
        """
        while self._address and self._watchdog > 0:
            self._notify("WATCHDOG=1")
            await asyncio.sleep(self._watchdog / 2)

    def _notify(self, state: str) -> None:
        """Send a message. Never raises: a service that nobody waits for is useful too."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
                one.setblocking(False)
                one.sendto(state.encode(), self._address)
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                with suppress(OSError, ValueError):  # standard error is gone too
                    _log.warning("service manager not told", socket=self._address.lstrip("\0"), error=error.strerror)
