"""Feeds the near cache of a `Client`: a thread that follows the authority."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc

from sessiond_client.connection import Channels
from sessiond_client.errors import SessiondError, from_rpc
from sessiond_client.following import StreamBroken
from sessiond_client.near_stream import RENEW_EVERY, Conversation
from sessiond_client.subscription import ENDED

__all__ = ["Flights", "FollowingThread"]

_GOODBYE = 0.5
"""Seconds to wait for the stream to end when the client is closed."""


class FollowingThread:
    """Follows the authority in a daemon thread, from `start` to `release`. Does not refer to the client."""

    def __init__(self, channels: Channels, conversation: Conversation) -> None:
        self._channels = channels
        self._conversation = conversation
        self._closed = threading.Event()
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def start(self) -> None:
        """Begin to follow, if this was not begun yet."""
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._closed.is_set():
                    self._thread = threading.Thread(target=self._run, name="sessiond near cache", daemon=True)
                    self._thread.start()

    def release(self) -> None:
        """Close the cache, tell the authority, and end the stream."""
        if self._closed.is_set():
            return
        self._closed.set()
        for message in self._conversation.release():
            self._outbox.put(message)
        self._outbox.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_GOODBYE)
        self._channels.forget(self)

    def _run(self) -> None:
        while not self._closed.is_set():
            self._closed.wait(self._conversation.broken(self._follow()))

    def _follow(self) -> SessiondError | None:
        """Follow until the stream ends. Returns what it ended in."""
        outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._outbox = outbox
        for message in self._conversation.begin():
            outbox.put(message)
        call: Any = None
        try:
            call = self._channels.for_stream(self).Follow(_requests(outbox, self._conversation))
            for message in call:
                if self._closed.is_set():
                    continue  # until the authority ends the stream
                for reply in self._conversation.received(message):
                    outbox.put(reply)
        except grpc.RpcError as error:
            return from_rpc(error)
        except SessiondError as error:
            return error
        except ValueError:
            return ENDED  # this is how gRPC reports a channel that was just closed
        except StreamBroken:
            return ENDED
        finally:
            outbox.put(None)
            if call is not None:
                call.cancel()
        return ENDED


class Flights:
    """Questions that some thread is asking, so that others with the same question can wait for its answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._landed: dict[Any, threading.Event] = {}

    def take_off(self, key: Any) -> threading.Event | None:
        """None: nobody asks this, so the caller must, and then call `land`. Else what to wait for."""
        with self._lock:
            landed = self._landed.get(key)
            if landed is None:
                self._landed[key] = threading.Event()
            return landed

    def land(self, key: Any) -> None:
        """The question is answered, or has failed."""
        with self._lock:
            self._landed.pop(key).set()


def _requests(outbox: queue.SimpleQueue[Any], conversation: Conversation) -> Iterator[Any]:
    """What to send: what is put into the outbox until None, and renewals in time."""
    due = time.monotonic() + RENEW_EVERY
    while True:
        try:
            message = outbox.get(timeout=max(0.0, due - time.monotonic()))
        except queue.Empty:
            due = time.monotonic() + RENEW_EVERY
            yield from conversation.due()
            continue
        if message is None:
            return
        yield message
