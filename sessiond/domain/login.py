"""A login: who was authenticated and how, and what is wanted for the session."""

from __future__ import annotations

from sessiond.domain.immutable import immutable
from sessiond.domain.values import Labels, Lifetimes

__all__ = ["ANONYMOUS", "Login"]


@immutable
class Login:
    """Who was authenticated and how, and what is wanted for the session.

    subject     empty: an anonymous session
    level       1 to 3 as AAL1 to AAL3, or 0 if the application does not rank
    methods     RFC 8176 method references
    persistent  the session is to be remembered
    lifetimes   the session's own timeouts; None: as they are, for a new session the policy's
    labels      to be set beside those that the session has
    """

    subject: str
    level: int = 0
    methods: tuple[str, ...] = ()
    persistent: bool = False
    lifetimes: Lifetimes | None = None
    labels: Labels = ()


ANONYMOUS = Login("")
"""Nobody was authenticated, and nothing special is wanted."""
