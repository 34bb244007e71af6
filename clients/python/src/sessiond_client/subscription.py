"""A subscription without the I/O: the position in the event stream, and what to do when the stream breaks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict

from google.protobuf.duration_pb2 import Duration

from sessiond_client import convert
from sessiond_client.arguments import checked
from sessiond_client.enums import EventType
from sessiond_client.errors import (
    InvalidArgument,
    NotServed,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    SessiondError,
    Unauthenticated,
    Unavailable,
)
from sessiond_client.flow import spread
from sessiond_client.kinds import Items, Seconds
from sessiond_client.values import Checkpoint, Event
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["ENDED", "EventQuery", "Position", "subscribe_request", "subscription"]

_log = logging.getLogger("sessiond_client")

_NOT_REPAIRABLE = (InvalidArgument, OutOfRange, NotServed, PermissionDenied, Unauthenticated)
"""Failures that resuming from the same cursor cannot fix."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0

ENDED: SessiondError = Unavailable("the stream ended", status="OK")
"""A stream that ends without an error counts as broken: by the contract streams never end."""


class EventQuery(TypedDict, total=False):
    """Where a subscription begins and which events it delivers; all optional."""

    after: str | None
    """Begin directly after this cursor, whatever `start` says. None: `start` decides. So
    `events(after=saved, start="earliest")` begins at the oldest event the first time, and later continues."""
    start: Literal["now", "earliest"] | None
    """`now` (the default): after the newest event; `earliest`: with the oldest event that is kept. Ignored with
    `after`."""
    applications: Items[str] | None
    """Events of these applications, at most 100. None: of the client's own application. Empty: of all."""
    subjects: Items[str]
    """Events of these subjects, at most 100. Empty: of all."""
    types: Items[EventType]
    """Events of these types. Empty: of all types."""
    labels: Mapping[str, str]
    """Events of sessions that have all of these labels, at most 8. Empty: of all sessions."""
    checkpoint_interval: Seconds | None
    """How many seconds the stream may be quiet before the authority sends a checkpoint, 0.1 to 3,600; None: 10."""


@checked
def subscribe_request(
    application: str,
    *,
    after: str | None = None,
    start: Literal["now", "earliest"] | None = None,
    applications: Items[str] | None = None,
    subjects: Items[str] = (),
    types: Items[EventType] = (),
    labels: Mapping[str, str] | None = None,
    checkpoint_interval: Seconds | None = None,
) -> pb.SubscribeRequest:
    """The request for the first stream of a subscription; see `EventQuery`. Raises `InvalidArgument`."""
    request = pb.SubscribeRequest(
        filter=pb.EventFilter(
            applications=[application or "default"] if applications is None else applications,
            subjects=subjects,
            types=[convert.event_type_number(item) for item in types],
            labels=labels or {},
        )
    )
    if after is not None:
        request.cursor = after
    else:
        request.start = pb.STREAM_START_EARLIEST if start == "earliest" else pb.STREAM_START_NOW
    if checkpoint_interval is not None:
        request.checkpoint_interval.CopyFrom(Duration())
        request.checkpoint_interval.FromMilliseconds(round(checkpoint_interval * 1000))
    return request


@checked
def subscription(application: str, include_checkpoints: bool, **query: Any) -> Position:
    """A new subscription, at its beginning. Raises `InvalidArgument`."""
    return Position(subscribe_request(application, **query), include_checkpoints=include_checkpoints)


class Position:
    """The position of a subscription, over any number of streams.

    It advances when an item is returned (or skipped as an unwanted checkpoint) and never earlier, so that items lost
    with a broken stream are requested again. The stream's first checkpoint fixes a start at `now`; if the stream breaks
    even before that, the subscription begins at the time of the next stream.
    """

    def __init__(
        self,
        request: pb.SubscribeRequest,
        *,
        include_checkpoints: bool,
        jitter: Callable[[float, float], float] = spread,
    ) -> None:
        self._request = request
        self._include_checkpoints = include_checkpoints
        self._jitter = jitter
        self._breaks = 0

    @property
    def cursor(self) -> str | None:
        """The cursor of the last message; before the first one, that of the query, or None if it has none."""
        return self._request.cursor or None

    def request(self) -> pb.SubscribeRequest:
        """A request that resumes at this position, with the same filter."""
        copy = pb.SubscribeRequest()
        copy.CopyFrom(self._request)
        return copy

    def step(self, response: pb.SubscribeResponse) -> Event | Checkpoint | None:
        """Advance by one message of the stream. Returns its item; None if the caller did not ask for checkpoints."""
        self._breaks = 0
        self._request.cursor = response.cursor  # takes the place of `start`: they share a oneof
        if response.HasField("event"):
            return convert.event(response.event, response.cursor)
        if self._include_checkpoints and response.HasField("checkpoint"):
            return Checkpoint(revision=response.checkpoint.revision, cursor=response.cursor)
        return None

    def pause_after(self, error: SessiondError) -> float:
        """How many seconds to wait before the next stream. Raises `error` if another stream cannot fix it.

        The pause doubles from 0.1 s to 5 s while nothing arrives, minus a random part of up to a half, so that the
        subscribers of a restarted authority do not all reconnect at the same moment. What the authority asked for is
        added.
        """
        if isinstance(error, _NOT_REPAIRABLE):
            raise error
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._breaks, 16))
        self._breaks += 1
        pause = self._jitter(longest / 2, longest)
        if isinstance(error, ResourceExhausted) and error.retry_after is not None:
            pause += error.retry_after
        _log.info("event stream broke (%s); resuming in %.2f s", error.status, pause)
        return pause
