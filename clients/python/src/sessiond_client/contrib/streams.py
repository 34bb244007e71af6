"""Ending a streaming response together with its session, in frameworks whose responses are iterators."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TypeVar

from sessiond_client.errors import SessiondError
from sessiond_client.guard import AsyncConnectionGuard, ConnectionGuard, SessionOver
from sessiond_client.values import Session

__all__ = ["EVENT_STREAM", "guarded", "guarded_async"]

T = TypeVar("T")

EVENT_STREAM = "text/event-stream"
"""The content type of the responses that are ended with their session."""
_log = logging.getLogger("sessiond_client")


def guarded(chunks: Iterable[T], guard: Callable[[], ConnectionGuard], session: Session) -> Iterator[T]:
    """The same chunks, until the session ends.

    That is noticed when the next chunk comes: nothing can interrupt an iterator that waits. `guard` returns the guard
    of the process in which the response is sent.
    """
    try:
        with guard().watch(session) as watch:
            for chunk in chunks:
                if watch.closing is not None:
                    return
                yield chunk
    except (SessionOver, SessiondError) as error:
        _log.warning("an event stream cannot be watched, and is ended: %s", error)
    finally:
        _close(chunks)


async def guarded_async(
    chunks: AsyncIterator[T], guard: Callable[[], AsyncConnectionGuard], session: Session
) -> AsyncIterator[T]:
    """As `guarded`, for an asynchronous iterator."""
    watch = None
    try:
        watch = await guard().watch(session)
        async for chunk in chunks:
            if watch.closing is not None:
                return
            yield chunk
    except (SessionOver, SessiondError) as error:
        _log.warning("an event stream cannot be watched, and is ended: %s", error)
    finally:
        if watch is not None:
            watch.release()
        closing = getattr(chunks, "aclose", None)
        if closing is not None:
            await closing()


def _close(chunks: object) -> None:
    closing = getattr(chunks, "close", None)
    if closing is not None:
        closing()
