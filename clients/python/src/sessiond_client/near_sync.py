"""Feeds the near cache of a `Client`: a thread that follows the authority."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc

from sessiond_client import forks
from sessiond_client.connection import Channels
from sessiond_client.errors import SessiondError, from_rpc
from sessiond_client.following import StreamBroken
from sessiond_client.near_stream import RENEW_EVERY, Conversation
from sessiond_client.subscription import ENDED

__all__ = ["Flights", "FollowingThread"]

_GOODBYE = 0.5
"""Seconds to wait for the stream to end when the client is closed."""


class FollowingThread:
    """Follows the authority in a daemon thread, from `start` to `release`. Does not refer to the client.

    The garbage collector may call `release` in any thread, at any moment. So that takes no lock that is not reentrant,
    and does not wait.
    """

    def __init__(self, channels: Channels, conversation: Conversation) -> None:
        self._channels = channels
        self._conversation = conversation
        self._is_released = False
        self._released: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._fork_count: int | None = None

    def start(self) -> None:
        """Begin to follow, if this was not begun yet."""
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._is_released:
                    self._fork_count = forks.fork_count()
                    self._conversation.prepare()
                    thread = threading.Thread(target=self._run, name="sessiond near cache", daemon=True)
                    # Without a thread, as while the interpreter ends, the cache stays closed.
                    with contextlib.suppress(RuntimeError):
                        thread.start()
                        self._thread = thread

    def close(self) -> None:
        """As `release`, and wait until the authority knows, but not long."""
        self.release()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_GOODBYE)

    def release(self) -> None:
        """Close the cache, tell the authority, and end the stream."""
        if self._is_released or self._fork_count not in (None, forks.fork_count()):
            return  # in a child process there is no thread, and the parent's may have held any lock
        self._is_released = True
        self._released.put(None)
        for message in self._conversation.release():
            self._outbox.put(message)
        self._outbox.put(None)
        self._channels.forget(self)

    def _run(self) -> None:
        while not self._is_released:
            pause = self._conversation.broken(self._follow())
            with contextlib.suppress(queue.Empty):
                self._released.get(timeout=pause)

    def _ended(self) -> bool:
        return self._is_released

    def _follow(self) -> SessiondError | None:
        """Follow until the stream ends. Returns what it ended in."""
        outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._outbox = outbox
        if self._ended():
            return None  # the goodbye may have gone into the outbox of the stream before
        for message in self._conversation.begin():
            outbox.put(message)
        call: Any = None
        try:
            call = self._channels.for_stream(self).Follow(_requests(outbox, self._conversation))
            for message in call:
                if self._ended():
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
        left = due - time.monotonic()
        if left <= 0:  # checked first: under constant news the outbox may never be empty
            due = time.monotonic() + RENEW_EVERY
            yield from conversation.due()
            continue
        try:
            message = outbox.get(timeout=left)
        except queue.Empty:
            continue
        if message is None:
            return
        yield message
