"""The event stream of a page: it says when the page's session ends, and when it lives on.

Server-sent events (WHATWG HTML, 9.2):

    event: ended      data: {"reason": "revoked"}    the session has ended; the stream ends, too
    event: renewed    data: {}                       the session was renewed or extended, or its token was replaced

All streams of a process share one subscription, that of the connection guard.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sessiond_client.answers import Found
from sessiond_client.browser.actions import Now, deadline_of, still_live
from sessiond_client.browser.answers import Answer
from sessiond_client.browser.site import Receive, Send, Site
from sessiond_client.enums import CauseKind
from sessiond_client.errors import NotFound
from sessiond_client.gateway import OUTAGES, Exchange, Steps
from sessiond_client.gateway.steps import Ask
from sessiond_client.guard import AsyncWatch, Closing
from sessiond_client.values import Event, Session

__all__ = ["EventStreams", "StreamRules", "TooManyStreams"]

_HEADERS = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("X-Accel-Buffering", "no"),  # nginx would keep events back
)
_RETRY_MILLIS = 1000
_LEAST_PAUSE, _SEND_TIMEOUT = 1.0, 30.0


class TooManyStreams(Exception):
    """There are as many streams as there may be. The page can ask for its status instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRules:
    """How many streams there may be, and how long."""

    most: int = 1000
    """In this process."""
    most_of_a_session: int = 8
    """In this process, for one session. The tabs of a browser share one stream, if the browser can."""
    most_of_a_user: int = 32
    """In this process, for all sessions of one user."""
    heartbeat: float = 15.0
    """Seconds after which a quiet stream sends a comment, so that no proxy ends it."""
    lifetime: float = 600.0
    """Seconds after which a stream ends. The browser opens another one."""


class EventStreams:
    """The streams of a process."""

    def __init__(self, rules: StreamRules, now: Now) -> None:
        self._rules = rules
        self._now = now
        self._total = 0
        self._of_session: Counter[str] = Counter()
        self._of_user: Counter[str] = Counter()
        self._open: set[_Stream] = set()
        self._is_closed = False

    async def serve(self, site: Site, exchange: Exchange, session: Session, receive: Receive, send: Send) -> None:
        """Stream the events of a session until it ends, the client goes away or the stream is old.

        Raises `TooManyStreams`, and `SessiondError` if the authority cannot be followed, before the response begins.
        """
        with self._counted(session):
            stream = _Stream(await site.watch(session), receive, send)
            try:
                # What happened before the watch began is no event for it.
                live = await site.ask(still_live(session))
                self._open.add(stream)
                await stream.begin(exchange)
                with suppress(*OUTAGES, TimeoutError):  # the page connects again, or the client does not read
                    await self._follow(stream, site, session, live)
                await stream.finish()
            finally:
                self._open.discard(stream)
                stream.release()

    def close(self) -> None:
        """End all streams, and refuse further ones: the process stops."""
        self._is_closed = True
        for stream in list(self._open):
            stream.stop()

    async def _follow(self, stream: _Stream, site: Site, session: Session, live: Session | None) -> None:
        loop = asyncio.get_running_loop()
        oldest, deadline = loop.time() + self._rules.lifetime, self._time_of(live)
        while not stream.is_over and loop.time() < oldest and not self._is_closed:
            if live is None:
                await stream.end(await site.ask(_why_ended(session)))
                return
            until = min(oldest, deadline, loop.time() + self._rules.heartbeat)
            has_changed = await stream.wait(until - loop.time())
            if has_changed and not self._is_closed:
                await stream.tell()
            if loop.time() >= deadline:
                # The session may have expired, or lives on because of activity, for which there are no events.
                live = await site.ask(still_live(session))
                deadline = max(self._time_of(live), loop.time() + _LEAST_PAUSE)
            elif not has_changed:
                await stream.send(b": still here\n\n")

    def _time_of(self, live: Session | None) -> float:
        """Return when to look whether a session has expired, by the clock of the event loop."""
        deadline = None if live is None else deadline_of(live)
        if deadline is None:
            return float("inf")
        return asyncio.get_running_loop().time() + max(0.0, (deadline - self._now()).total_seconds()) + 0.05

    @contextmanager
    def _counted(self, session: Session) -> Iterator[None]:
        rules = self._rules
        counts = (
            (self._of_session, session.session_id, rules.most_of_a_session),
            (self._of_user, f"{session.application}:{session.subject}", rules.most_of_a_user),
        )
        if self._is_closed or self._total >= rules.most or any(count[key] >= most for count, key, most in counts):
            raise TooManyStreams
        self._total += 1
        for count, key, _ in counts:
            count[key] += 1
        try:
            yield
        finally:
            self._total -= 1
            for count, key, _ in counts:
                count[key] -= 1
                if not count[key]:
                    del count[key]


class _Stream:
    """One stream."""

    def __init__(self, watch: AsyncWatch, receive: Receive, send: Send) -> None:
        self._watch = watch
        self._send = send
        self._is_over = False
        self._listening = asyncio.create_task(self._listen(receive), name="sessiond: event stream")

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended, or the client has gone away."""
        return self._is_over

    async def begin(self, exchange: Exchange) -> None:
        """Send the headers."""
        headers = Answer(200, _HEADERS).all_headers(exchange)
        async with asyncio.timeout(_SEND_TIMEOUT):
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.send(f"retry: {_RETRY_MILLIS}\n\n".encode())

    async def wait(self, seconds: float) -> bool:
        """Wait for a change. Returns False if there was none for so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._watch.changed.wait()
            self._watch.changed.clear()
            return True
        return False

    async def tell(self) -> None:
        """Tell the page what has changed. Ends the stream if it cannot go on."""
        closing = self._watch.closing
        if closing in (Closing.ENDED, Closing.SUSPECTED):
            await self.end(_reason(self._watch.event, closing))
        elif closing is Closing.BLIND:
            await self.finish()  # the page connects again when the authority is back
        else:
            await self._event("renewed", {})
            if closing is Closing.CHANGED:
                await self.finish()  # the page connects again with its new token

    async def end(self, reason: str) -> None:
        """Tell the page that its session has ended, and end the stream."""
        await self._event("ended", {"reason": reason})
        await self.finish()

    async def finish(self) -> None:
        """End the response. May be called repeatedly."""
        if not self._is_over:
            self._is_over = True
            await self._send({"type": "http.response.body", "body": b""})

    async def send(self, text: bytes) -> None:
        """Send a part of the stream. Raises `TimeoutError` if the client does not read."""
        if not self._is_over:
            async with asyncio.timeout(_SEND_TIMEOUT):
                await self._send({"type": "http.response.body", "body": text, "more_body": True})

    def stop(self) -> None:
        """End the stream soon."""
        self._watch.changed.set()

    def release(self) -> None:
        """Let go of everything that the stream holds."""
        self._listening.cancel()
        self._watch.release()

    async def _event(self, name: str, data: dict[str, Any]) -> None:
        await self.send(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._is_over = True
        self._watch.changed.set()


_REVOKED = "revoked"
_REASONS = {
    CauseKind.IDLE_TIMEOUT: "idle_timeout",
    CauseKind.ABSOLUTE_TIMEOUT: "absolute_timeout",
    CauseKind.LOGIN_TIMEOUT: "login_timeout",
    CauseKind.CONCURRENCY_LIMIT: "concurrency_limit",
    CauseKind.SIGNAL: "suspected",
}
"""What pages are told. What a caller wrote about it may be meant for operators only."""


def _why_ended(session: Session) -> Steps[str]:
    """Return why a session has ended of which there was no event here."""
    try:
        found: Found = yield Ask("get", kwargs={"session_id": session.session_id})
    except NotFound:
        return _REVOKED
    ending = found.session.ending if found.session is not None else None
    return _REVOKED if ending is None else _REASONS.get(ending.cause.kind, _REVOKED)


def _reason(event: Event | None, closing: Closing | None) -> str:
    if closing is Closing.SUSPECTED:
        return "suspected"
    return _REVOKED if event is None else _REASONS.get(event.cause.kind, _REVOKED)
