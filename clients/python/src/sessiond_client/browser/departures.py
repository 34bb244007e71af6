"""Logging out when the last window of a site closes.

A page that goes away cannot know whether it is closed, reloaded or left for another page of the site. So it only says
that it goes, and the session ends a while later, unless another page of the browser says that it is there: it extends
the session, which all processes of the application hear of.
"""

from __future__ import annotations

import asyncio
import logging

from sessiond_client.browser.site import Site
from sessiond_client.errors import SessiondError, Unavailable
from sessiond_client.gateway import Exchange
from sessiond_client.gateway.steps import Ask, Steps
from sessiond_client.guard import AsyncWatch
from sessiond_client.values import Session

__all__ = ["Departures"]

_MOST = 10_000
_log = logging.getLogger("sessiond_client")


class Departures:
    """The sessions of this process whose last window may have closed."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: for how long another page may say that it is there."""
        self._seconds = seconds
        self._pending: dict[str, asyncio.Task[None]] = {}

    async def begin(self, site: Site, exchange: Exchange, session: Session) -> None:
        """End this session in a while. Raises `SessiondError` if the authority cannot be followed."""
        if len(self._pending) >= _MOST:
            raise Unavailable("too many windows close at once")
        watch = await site.watch(session)
        if (before := self._pending.pop(session.session_id, None)) is not None:
            before.cancel()
        task = asyncio.create_task(self._end(watch, site, exchange, session), name="sessiond: a window closes")
        self._pending[session.session_id] = task

    def close(self) -> None:
        """End no session any more: the process stops. Those of closed windows end by their idle timeout."""
        for task in self._pending.values():
            task.cancel()
        self._pending.clear()

    async def _end(self, watch: AsyncWatch, site: Site, exchange: Exchange, session: Session) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await watch.changed.wait()
        except TimeoutError:
            try:
                await site.ask(_revoke(exchange, session))
            except SessiondError as error:
                _log.warning("a closed window could not be logged out: %s", error)
        finally:
            watch.release()
            if self._pending.get(session.session_id) is asyncio.current_task():
                del self._pending[session.session_id]


def _revoke(exchange: Exchange, session: Session) -> Steps[None]:
    kwargs = {"session_id": session.session_id, "subject": session.subject, "reason": "window closed"}
    yield Ask("revoke", kwargs={**kwargs, "client": exchange.client})
