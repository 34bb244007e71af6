"""Session views, kept: building one costs more than judging the token, and it changes far less often."""

from __future__ import annotations

from collections import OrderedDict

from sessiond.domain.session import Session
from sessiond.domain.values import SessionId
from sessiond.rpc.convert import fill_session
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["SessionViews"]


class SessionViews:
    """The messages of the sessions that are validated most, `capacity` of them at most.

    A view belongs to one `Session` value, not to an id: whenever anything about a session changes there is a new value,
    and so a new view.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._views: OrderedDict[SessionId, tuple[Session, pb.Session]] = OrderedDict()

    def fill(self, message: pb.Session, session: Session) -> None:
        """Write what callers may see of a live session."""
        kept = self._views.get(session.id)
        if kept is None or kept[0] is not session:
            view = pb.Session()
            fill_session(view, session)
            kept = self._views[session.id] = (session, view)
            if len(self._views) > self._capacity:
                self._views.popitem(last=False)
        message.CopyFrom(kept[1])
