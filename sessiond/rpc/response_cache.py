"""Responses kept in memory: building one costs more than judging the token, and it changes far less often."""

from __future__ import annotations

from sessiond.authority.results import Answer
from sessiond.domain.call import Call
from sessiond.domain.judge import Verdict
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.values import SessionId
from sessiond.rpc.cookies import fill_deletion
from sessiond.rpc.encode import VERDICT, fill_session, next_step
from sessiond.system.lru import Lru
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["Refusals", "SessionViews"]


class SessionViews:
    """The messages of the sessions that are validated most, `capacity` of them at most.

    A view belongs to one `Session` value, not to an id: whenever anything about a session changes there is a new value,
    and so a new view.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._views: Lru[SessionId, tuple[Session, pb.Session]] = Lru(capacity)

    def fill(self, message: pb.Session, session: Session) -> None:
        """Write what callers may see of a live session."""
        kept = self._views.get(session.id)
        if kept is None or kept[0] is not session:
            view = pb.Session()
            fill_session(view, session)
            kept = (session, view)
            self._views.put(session.id, kept)
        message.CopyFrom(kept[1])


class Refusals:
    """The answers to tokens that are worth nothing: one for each kind and application, so that guesses are cheap."""

    def __init__(self) -> None:
        self._messages: dict[tuple[str, Verdict, bool], tuple[Policy, pb.ValidateSessionResponse]] = {}

    def message(self, call: Call, answer: Answer) -> pb.ValidateSessionResponse:
        """What a caller is told; not to be changed."""
        verdict = answer.judgement.verdict
        key = (call.application, verdict, answer.judgement.in_flight)
        kept = self._messages.get(key)
        if kept is None or kept[0] is not call.policy:
            message = pb.ValidateSessionResponse(verdict=VERDICT[verdict], next_step=next_step(answer))
            if message.next_step == pb.NEXT_STEP_DISCARD_TOKEN:
                fill_deletion(message.cookies, call.policy.cookie)
            kept = self._messages[key] = (call.policy, message)
        return kept[1]
