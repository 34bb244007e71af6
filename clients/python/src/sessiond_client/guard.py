"""Closing live connections (WebSockets, event streams, gRPC streams) when their session ends.

A connection that lives longer than a request was checked only when it began. A guard follows the authority's events and
calls back when the session of a connection ends, expires, falls under suspicion or gets a new token.

    watch = await guard.watch(session)      # raises `SessionOver` if the session has ended already
    closing = await watch.closed()          # returns when the connection must be closed
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import Self

from sessiond_client.aio import AsyncClient, AsyncEvents
from sessiond_client.enums import EventType, Reaction, SessionState
from sessiond_client.errors import NotFound, OutOfRange, SessiondError
from sessiond_client.subscription import EventQuery
from sessiond_client.sync import Client
from sessiond_client.values import Checkpoint, Event, Session

__all__ = ["BLIND_AFTER", "AsyncConnectionGuard", "AsyncWatch", "Closing", "ConnectionGuard", "SessionOver", "Watch"]

BLIND_AFTER = 15.0
"""Seconds without word from the authority after which every watched connection is closed."""


class Closing(Enum):
    """Why a connection must be closed."""

    ENDED = "ended"
    """The session was revoked or has expired."""
    CHANGED = "changed"
    """The session got a new token, as at a login or a change of password. The client may connect again with it."""
    SUSPECTED = "suspected"
    """The user must authenticate again: the connection may be a stranger's."""
    BLIND = "blind"
    """The authority is out of reach, so nobody knows whether the session is still live."""


class SessionOver(Exception):
    """The session had ended before its connection was watched."""


_LIVES_ON = (EventType.SESSION_RENEWED, EventType.SESSION_REFRESHED)
_TYPES = (
    EventType.SESSION_REVOKED,
    EventType.SESSION_EXPIRED,
    EventType.SESSION_ROLLED,
    EventType.HIJACK_SUSPECTED,
    *_LIVES_ON,
)
_SERIOUS = (Reaction.STEP_UP, Reaction.REVOKE_SESSION, Reaction.REVOKE_SUBJECT)


def closing_of(event: Event) -> Closing | None:
    """What an event means for the connections of its session; None: nothing."""
    if event.type in (EventType.SESSION_REVOKED, EventType.SESSION_EXPIRED):
        return Closing.ENDED
    if event.type is EventType.SESSION_ROLLED:
        return Closing.CHANGED
    if event.type is EventType.HIJACK_SUSPECTED and event.reaction in _SERIOUS:
        return Closing.SUSPECTED
    return None


class Watch:
    """One watched connection. Release it when the connection ends."""

    def __init__(self, connections: _Connections, session_id: str, notify: Callable[[Closing], None]) -> None:
        self._connections = connections
        self._session_id = session_id
        self._notify = notify
        self.closing: Closing | None = None
        """Why the connection must be closed; None: it may go on."""
        self.event: Event | None = None
        """The event because of which it must be closed; None: none, or it may go on."""
        self.on_life: Callable[[], None] = lambda: None
        """Called when the session is renewed or refreshed."""

    def close(self, closing: Closing, event: Event | None = None) -> None:
        """Say that the connection must be closed. The first reason counts."""
        if self.closing is None:
            self.closing, self.event = closing, event
            self._notify(closing)

    def release(self) -> None:
        """Stop watching. May be called repeatedly."""
        self._connections.remove(self._session_id, self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


class _Connections:
    """The watched connections by session. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: dict[str, set[Watch]] = {}

    def add(self, session_id: str, notify: Callable[[Closing], None]) -> Watch:
        watch = Watch(self, session_id, notify)
        with self._lock:
            self._watches.setdefault(session_id, set()).add(watch)
        return watch

    def remove(self, session_id: str, watch: Watch) -> None:
        with self._lock:
            watches = self._watches.get(session_id, set())
            watches.discard(watch)
            if not watches:
                self._watches.pop(session_id, None)

    def apply(self, item: Event | Checkpoint) -> None:
        if not isinstance(item, Event):
            return
        closing = closing_of(item)
        if closing is None and item.type not in _LIVES_ON:
            return
        with self._lock:
            watches = list(self._watches.get(item.session_id, ()))
        for watch in watches:
            if closing is None:
                watch.on_life()
            else:
                watch.close(closing, item)

    def close_all(self, closing: Closing) -> None:
        with self._lock:
            watches = [watch for some in self._watches.values() for watch in some]
        for watch in watches:
            watch.close(closing)


def _query(blind_after: float) -> EventQuery:
    return {"types": _TYPES, "checkpoint_interval": min(10.0, max(0.1, blind_after / 3))}


def _is_live(session: Session | None) -> bool:
    return session is not None and session.state is SessionState.ACTIVE


class AsyncWatch:
    """One watched connection in asyncio. Release it when the connection ends."""

    def __init__(self, connections: _Connections, session_id: str) -> None:
        self._closed: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()
        self._watch = connections.add(session_id, self._close)
        self._watch.on_life = self._renew
        self.changed = asyncio.Event()
        """Set when the session is renewed or refreshed, and when the connection must be closed. Clear it yourself."""

    @property
    def closing(self) -> Closing | None:
        """Why the connection must be closed; None: it may go on."""
        return self._watch.closing

    @property
    def event(self) -> Event | None:
        """The event because of which the connection must be closed; None: none, or it may go on."""
        return self._watch.event

    async def closed(self) -> Closing:
        """Wait until the connection must be closed, and return why."""
        return await asyncio.shield(self._closed)

    def release(self) -> None:
        """Stop watching. May be called repeatedly."""
        self._watch.release()
        if not self._closed.done():
            self._closed.cancel()

    def _close(self, closing: Closing) -> None:
        self.changed.set()
        if not self._closed.done():
            self._closed.set_result(closing)

    def _renew(self) -> None:
        self.changed.set()


class AsyncConnectionGuard:
    """Watches the connections of one event loop. It follows the authority from the first watch on."""

    def __init__(self, client: AsyncClient, *, blind_after: float = BLIND_AFTER) -> None:
        self._client = client
        self._blind_after = blind_after
        self._connections = _Connections()
        self._following: asyncio.Task[None] | None = None
        self._sees: asyncio.Event = asyncio.Event()

    async def watch(self, session: Session) -> AsyncWatch:
        """Watch a connection that belongs to this session.

        Raises `SessionOver` if the session is no longer live, and `SessiondError` if the authority cannot say.
        """
        try:
            watch = await self.attach(session.session_id)
        except TimeoutError:
            raise SessionOver("the authority is out of reach") from None
        try:
            # What happened before the stream began, or between the check of the request and now, is no event for it.
            found = await self._client.get(session_id=session.session_id)
        except NotFound:
            watch.release()
            raise SessionOver("the session has ended") from None
        except BaseException:
            watch.release()
            raise
        if not _is_live(found.session):
            watch.release()
            raise SessionOver("the session has ended")
        return watch

    async def attach(self, session_id: str) -> AsyncWatch:
        """Watch a connection, and leave it to the caller to ask whether the session is still live.

        Raises `TimeoutError` if the authority is out of reach, and `SessiondError` if it refuses to be followed.
        """
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow())
        watch = AsyncWatch(self._connections, session_id)
        try:
            await self._until_it_sees(self._following)
        except BaseException:
            watch.release()
            raise
        return watch

    async def _until_it_sees(self, following: asyncio.Task[None]) -> None:
        if self._sees.is_set():
            return
        seeing = asyncio.create_task(self._sees.wait())
        try:
            await asyncio.wait({seeing, following}, timeout=self._blind_after, return_when=asyncio.FIRST_COMPLETED)
            if not seeing.done():
                if following.done() and not following.cancelled():
                    following.result()
                raise TimeoutError
        finally:
            seeing.cancel()

    async def close(self) -> None:
        """Stop following. Watched connections are closed as `BLIND`."""
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        self._connections.close_all(Closing.BLIND)

    async def _follow(self) -> None:
        try:
            while True:
                events = self._client.events(include_checkpoints=True, **_query(self._blind_after))
                with contextlib.suppress(OutOfRange):  # a restored backup: begin again, with nothing watched
                    async with events:
                        await self._apply(events)
                self._blind()
        finally:
            self._blind()

    async def _apply(self, events: AsyncEvents[Event | Checkpoint]) -> None:
        while True:
            try:
                async with asyncio.timeout(self._blind_after):
                    item = await anext(events)
            except TimeoutError:
                self._blind()
                continue
            except StopAsyncIteration:
                return
            self._connections.apply(item)
            self._sees.set()

    def _blind(self) -> None:
        self._sees.clear()
        self._connections.close_all(Closing.BLIND)


class ConnectionGuard:
    """Watches the connections of a process with threads. It follows the authority from the first watch on."""

    def __init__(
        self, client: Client, *, blind_after: float = BLIND_AFTER, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` returns seconds of a monotonic clock."""
        self._client = client
        self._blind_after = blind_after
        self._clock = clock
        self._connections = _Connections()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._sees = threading.Event()
        self._last = 0.0
        self._threads: list[threading.Thread] = []

    def watch(self, session: Session, notify: Callable[[Closing], None] = lambda closing: None) -> Watch:
        """Watch a connection that belongs to this session.

        `notify` is called from another thread when the connection must be closed, and `Watch.closing` says so too.
        Raises `SessionOver` if the session is no longer live, and `SessiondError` if the authority cannot say.
        """
        self._start()
        watch = self._connections.add(session.session_id, notify)
        try:
            if not self._sees.wait(self._blind_after):
                raise SessionOver("the authority is out of reach")
            found = self._client.get(session_id=session.session_id)
        except NotFound:
            watch.release()
            raise SessionOver("the session has ended") from None
        except BaseException:
            watch.release()
            raise
        if not _is_live(found.session):
            watch.release()
            raise SessionOver("the session has ended")
        return watch

    def close(self) -> None:
        """Stop following. Watched connections are closed as `BLIND`. The client must be closed too."""
        self._stop.set()
        self._blind()

    def _start(self) -> None:
        with self._lock:
            if not self._threads:
                for target in (self._follow, self._look):
                    thread = threading.Thread(target=target, name="sessiond-guard", daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                with self._client.events(include_checkpoints=True, **_query(self._blind_after)) as events:
                    for item in events:
                        self._connections.apply(item)
                        self._last = self._clock()
                        self._sees.set()
                        if self._stop.is_set():
                            return
            except OutOfRange:
                self._blind()  # a restored backup: begin again, with nothing watched
            except SessiondError:
                self._blind()
                if self._stop.wait(1.0):
                    return
            else:
                return  # the client was closed

    def _look(self) -> None:
        """Close everything when nothing has come for too long."""
        while not self._stop.wait(self._blind_after / 4):
            if self._sees.is_set() and self._clock() - self._last > self._blind_after:
                self._blind()

    def _blind(self) -> None:
        self._sees.clear()
        self._connections.close_all(Closing.BLIND)
