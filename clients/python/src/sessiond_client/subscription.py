"""Where a stream of events stands and what to do when it breaks: all of a subscription that is not I/O."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from secrets import SystemRandom
from typing import Literal, TypedDict

from google.protobuf.duration_pb2 import Duration

from sessiond_client import convert
from sessiond_client.enums import EventType
from sessiond_client.errors import (
    InvalidArgument,
    NotServed,
    OutOfRange,
    PermissionDenied,
    SessiondError,
    Unauthenticated,
    Unavailable,
)
from sessiond_client.values import Checkpoint, Event
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["ENDED", "EventQuery", "Position", "subscribe_request"]

_log = logging.getLogger("sessiond_client")

_between = SystemRandom().uniform  # only spreads clients out; shares no state with a seeded generator

_FINAL = (InvalidArgument, OutOfRange, NotServed, PermissionDenied, Unauthenticated)
"""Going on from the same cursor cannot mend these."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0

ENDED: SessiondError = Unavailable("the stream ended", status="OK")
"""A stream that ends without a word is a broken one: the contract knows no end."""


class EventQuery(TypedDict, total=False):
    """Where a subscription begins and which events it brings; everything may be left out."""

    after: str | None
    """Begin directly after this cursor. Not together with `start`."""
    start: Literal["now", "earliest"]
    """`now` (as without it): after the newest event; `earliest`: at the horizon."""
    applications: Iterable[str] | None
    """Events of these, at most 100. None: of the client's own application. Empty: of all."""
    subjects: Iterable[str]
    """Events of these, at most 100. Empty: of all."""
    types: Iterable[EventType]
    """Events of these types. Empty: of all."""
    checkpoint_interval: float | None
    """Seconds that the stream may be quiet before a checkpoint, 0.1 to 3,600; None: 10."""


def subscribe_request(
    application: str,
    *,
    after: str | None = None,
    start: Literal["now", "earliest"] | None = None,
    applications: Iterable[str] | None = None,
    subjects: Iterable[str] = (),
    types: Iterable[EventType] = (),
    checkpoint_interval: float | None = None,
) -> pb.SubscribeRequest:
    """The request of a subscription's first stream. Raises TypeError where it begins at two places."""
    if after is not None and start is not None:
        raise TypeError("begin at one of after and start")
    if start not in (None, "now", "earliest"):
        raise ValueError("start is 'now' or 'earliest'")
    request = pb.SubscribeRequest(
        filter=pb.EventFilter(
            applications=[application or "default"] if applications is None else applications,
            subjects=subjects,
            types=[convert.event_type_number(item) for item in types],
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


class Position:
    """Where a subscription stands, over any number of streams.

    It moves when an item is handed out (or passed over as an unwanted checkpoint) and never before, so that what a
    broken stream had under way is asked for again. A start at `now` is fixed by the stream's first checkpoint; where
    the stream breaks even before that, the subscription begins at the then-now.
    """

    def __init__(
        self,
        request: pb.SubscribeRequest,
        *,
        include_checkpoints: bool,
        jitter: Callable[[float, float], float] = _between,
    ) -> None:
        self._request = request
        self._include_checkpoints = include_checkpoints
        self._jitter = jitter
        self._breaks = 0

    @property
    def cursor(self) -> str | None:
        """The cursor of the last step dealt with; None before the first where no cursor was given."""
        return self._request.cursor or None

    def request(self) -> pb.SubscribeRequest:
        """A request that goes on from here, with the same filter."""
        copy = pb.SubscribeRequest()
        copy.CopyFrom(self._request)
        return copy

    def step(self, response: pb.SubscribeResponse) -> Event | Checkpoint | None:
        """Move over one step of the stream; None where it is not for the caller."""
        self._breaks = 0
        self._request.cursor = response.cursor  # takes the place of `start`: they share a oneof
        if response.HasField("event"):
            return convert.event(response.event, response.cursor)
        if self._include_checkpoints and response.HasField("checkpoint"):
            return Checkpoint(revision=response.checkpoint.revision, cursor=response.cursor)
        return None

    def pause_after(self, error: SessiondError) -> float:
        """How many seconds to wait before the next stream. Raises `error` where no other stream can mend it.

        Doubles from 0.1 s to 5 s while nothing comes, less a random part of up to a half, so that many subscribers
        of one restarted authority do not come back in step.
        """
        if isinstance(error, _FINAL):
            raise error
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._breaks, 16))
        self._breaks += 1
        pause = self._jitter(longest / 2, longest)
        _log.info("event stream broke (%s); going on in %.2f s", error.status, pause)
        return pause
