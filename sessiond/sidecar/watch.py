"""Watching: whether the authority answers and whether the cache may, for health checks and the log."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from sessiond.sidecar.endpoint import Endpoint
from sessiond.sidecar.upstream import Upstream
from sessiond_client.near_cache import NearCache

__all__ = ["Watch"]

_log = structlog.get_logger(__name__)
_LOOK_EVERY = 0.1
"""Seconds between two looks at the cache."""
_PROBE_EVERY = 1.0
"""Seconds between two questions to the authority whether it answers."""


class Watch:
    """Tells health checks and the log what changes. `address` is the authority's."""

    def __init__(self, endpoint: Endpoint, upstream: Upstream, cache: NearCache[Any], address: str) -> None:
        self._endpoint = endpoint
        self._upstream = upstream
        self._cache = cache
        self._address = address
        self._is_answering: bool | None = None
        self._is_open = self._is_following = False

    async def run(self) -> None:
        """Watch until the task is cancelled."""
        await asyncio.gather(self._look(), self._probe())

    async def _probe(self) -> None:
        while True:
            is_answering = await self._upstream.is_answering()
            if is_answering != self._is_answering:
                if is_answering:
                    _log.info("upstream reached", upstream=self._address)
                else:
                    problem = self._upstream.problem
                    _log.warning("upstream lost", upstream=self._address, problem=problem, effect=self._effect())
                self._is_answering = is_answering
                await self._report()
            await asyncio.sleep(_PROBE_EVERY)

    async def _look(self) -> None:
        while True:
            stats = self._cache.stats()
            is_following = self._cache.follower.is_streaming
            if is_following != self._is_following:
                self._is_following = is_following
                if is_following:
                    _log.info("following", upstream=self._address)
            if stats.is_open != self._is_open:
                self._is_open = stats.is_open
                if stats.is_open:
                    _log.info("cache open", entries=stats.entries)
                else:
                    _log.warning("cache closed", entries=stats.entries, effect="every question goes to the authority")
                await self._report()
            await asyncio.sleep(_LOOK_EVERY)

    def _effect(self) -> str:
        return "answers from memory until the lease ends" if self._is_open else "calls are refused with UNAVAILABLE"

    async def _report(self) -> None:
        await self._endpoint.report(serves=bool(self._is_answering) or self._is_open, from_memory=self._is_open)
