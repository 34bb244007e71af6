"""Cached response messages: building one takes longer than judging a token, and it changes far less often."""

from __future__ import annotations

from sessiond.authority.results import ValidationResult
from sessiond.domain.call import Call
from sessiond.domain.judge import Verdict
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.values import SessionId
from sessiond.rpc.cookies import fill_deletion
from sessiond.rpc.encode import VERDICT, fill_session, next_step
from sessiond.system.lru import Lru
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["Refusals", "SessionMessages"]


class SessionMessages:
    """The messages of the most recently validated sessions, at most `capacity` of them.

    A cached message belongs to one `Session` object, not to an id. Any change of a session creates a new object, and so
    invalidates the message.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._messages: Lru[SessionId, tuple[Session, pb.Session]] = Lru(capacity)

    def fill(self, message: pb.Session, session: Session) -> None:
        """Fill a message with a live session, as callers may see it."""
        cached = self._messages.get(session.id)
        if cached is None or cached[0] is not session:
            built = pb.Session()
            fill_session(built, session)
            cached = (session, built)
            self._messages.put(session.id, cached)
        message.CopyFrom(cached[1])


class Refusals:
    """The responses to invalid tokens, so that refusing guesses is cheap.

    There is one for each application, verdict and next step. Nothing else of an answer shows in it.
    """

    def __init__(self) -> None:
        self._messages: dict[tuple[str, Verdict, pb.NextStep.ValueType], tuple[Policy, pb.ValidateSessionResponse]] = {}

    def message(self, call: Call, answer: ValidationResult) -> pb.ValidateSessionResponse:
        """Return the response to a call whose token is not valid. The caller must not change it."""
        verdict, step = answer.judgement.verdict, next_step(answer)
        key = (call.application, verdict, step)
        cached = self._messages.get(key)
        if cached is None or cached[0] is not call.policy:
            message = pb.ValidateSessionResponse(verdict=VERDICT[verdict], next_step=step)
            if step == pb.NEXT_STEP_DISCARD_TOKEN:
                fill_deletion(message.cookies, call.policy.cookie)
            cached = self._messages[key] = (call.policy, message)
        return cached[1]
