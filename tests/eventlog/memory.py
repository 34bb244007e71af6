"""What units see beside the store, for tests of the journal."""

from __future__ import annotations

from collections.abc import Sequence

from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.signals import SignalType
from sessiond.domain.values import ClientContext, Instant, Millis, SessionId

__all__ = ["NO_MEMORY", "Memory"]


class Memory:
    """Sessions whose activity only memory has, and nothing that was reported."""

    def __init__(self, *active: Session) -> None:
        self._active = {session.id: session for session in active}

    def with_activity(self, session: Session) -> Session:
        """The session as this memory has it, or as it is."""
        return self._active.get(session.id, session)

    def was_reported(self, session_id: SessionId, kind: SignalType, window: Millis, now: Instant) -> bool:
        """Nothing was."""
        return False

    def is_own_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """It is if nothing of it differs."""
        return client == session.client

    def is_denied_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """It is not."""
        return False

    def is_new_old_token(self, session: Session, client: ClientContext, others: Sequence[ClientContext]) -> bool:
        """It must be if none was."""
        return session.old_token is None

    def presented_old_token(
        self, session: Session, client: ClientContext, policy: Policy, others: Sequence[ClientContext]
    ) -> bool:
        """It did not."""
        return False


NO_MEMORY = Memory()
"""Nothing but what the store has."""
