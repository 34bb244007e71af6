"""The conversation of a near cache with the authority over `Follow`: what its messages mean, and what to send."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from sessiond_client import forks
from sessiond_client.errors import (
    InvalidArgument,
    NotServed,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    SessiondError,
)
from sessiond_client.following import Change
from sessiond_client.near_cache import NearCache, boot_millis
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["RENEW_EVERY", "Conversation", "changes_of"]

RENEW_EVERY = 1.0
"""Seconds between two renewals of the lease."""
_PAUSES = (0.05, 0.2, 0.5, 1.0, 2.0)
_NOT_SERVED = 60.0
"""Seconds until an authority that refuses `Follow` is asked again."""


def changes_of(event: pb.Event) -> tuple[Change, ...]:
    """What an event means for a cache."""
    if event.type == pb.EVENT_TYPE_SOURCE_LOCKED:
        return (Change(application=event.application, source=event.source),)
    if event.session_id:
        return (Change(session=event.session_id),)
    if event.type == pb.EVENT_TYPE_SOURCE_UNLOCKED or event.type == pb.EVENT_TYPE_GUESSING_SUSPECTED:
        return ()
    return (Change(application=event.application),)  # the policies, or an event that this package does not know


class Conversation:
    """Feeds a near cache from one stream after the other. `name` is shown to operators; empty: host and process id."""

    def __init__(self, cache: NearCache[Any], applications: tuple[str, ...], name: str = "") -> None:
        self._cache = cache
        self._follower = cache.follower
        self._applications = applications
        self._name = name
        self._acknowledged = ""
        self._failures = 0
        self.clock: Callable[[], int] = boot_millis

    def prepare(self) -> None:
        """Call this once, before the first stream: from now on the cache belongs to this process."""
        self._name = self._name or f"{socket.gethostname()}:{os.getpid()}"
        forks.close_in_children(self._cache)

    def begin(self) -> list[pb.FollowRequest]:
        """The first messages of a stream: where it starts, and a renewal."""
        with self._cache.lock:
            resume = self._follower.begin()
            self._acknowledged = resume.cursor
            start = pb.FollowStart(cursor=resume.cursor, follower=self._name, applications=self._applications)
            return [pb.FollowRequest(start=start), self._renewal()]

    def due(self) -> list[pb.FollowRequest]:
        """What to send every `RENEW_EVERY` seconds: an acknowledgement if there is news, and a renewal."""
        with self._cache.lock:
            return [*self._acknowledgement(), self._renewal()]

    def received(self, message: pb.FollowResponse) -> list[pb.FollowRequest]:
        """Apply a message. Returns what to send at once. Raises `StreamBroken`."""
        with self._cache.lock:
            self._follower.received(message.number)
            match message.WhichOneof("item"):
                case "started":
                    started = message.started
                    self._follower.started(message.cursor, started.incarnation, started.policies_fingerprint)
                case "grant":
                    self._granted(message)
                case "batch":
                    changes = [change for event in message.batch.events for change in changes_of(event)]
                    self._follower.applied(message.cursor, changes)
                case "event":
                    self._follower.applied(message.cursor, changes_of(message.event))
                case _:
                    self._follower.applied(message.cursor, ())
            return self._acknowledgement() if message.acknowledge else []

    def broken(self, error: SessiondError | None) -> float:
        """The stream has ended. Returns how many seconds to wait before the next one."""
        with self._cache.lock:
            self._follower.broken()
            if isinstance(error, (OutOfRange, InvalidArgument)):
                self._follower.lost()
        if isinstance(error, (NotServed, PermissionDenied)):
            return _NOT_SERVED
        self._failures += 1
        pause = _PAUSES[min(self._failures, len(_PAUSES)) - 1]
        asked = error.retry_after if isinstance(error, ResourceExhausted) else None
        return max(pause, asked or 0.0)

    def release(self) -> list[pb.FollowRequest]:
        """Close the cache for good. Returns what to send, so that no revocation waits for it."""
        with self._cache.lock:
            self._follower.broken()
            return [pb.FollowRequest(release=pb.LeaseRelease())]

    def _granted(self, message: pb.FollowResponse) -> None:
        grant = message.grant
        sent = self._follower.sent_at(grant.nonce)
        self._follower.granted(message.cursor, grant.nonce, grant.duration.ToMilliseconds())
        if sent is not None:
            self._cache.proven_at = max(self._cache.proven_at, sent)
            self._failures = 0

    def _renewal(self) -> pb.FollowRequest:
        return pb.FollowRequest(renewal=pb.LeaseRenewal(nonce=self._follower.renewal(self.clock())))

    def _acknowledgement(self) -> list[pb.FollowRequest]:
        cursor = self._follower.cursor
        if cursor == self._acknowledged or not cursor:
            return []
        self._acknowledged = cursor
        return [pb.FollowRequest(applied=pb.Acknowledgement(cursor=cursor))]
