"""A login: who was authenticated and how, and the requested properties of the session."""

from __future__ import annotations

from sessiond.domain.immutable import immutable
from sessiond.domain.values import Labels, Lifetimes

__all__ = ["ANONYMOUS", "Login"]


@immutable
class Login:
    """Who was authenticated and how, and the requested properties of the session.

    subject     the user identifier; empty for an anonymous session
    level       1 to 3 for AAL1 to AAL3, or 0 if the application does not rank authentications
    methods     RFC 8176 method references
    persistent  whether the session is remembered
    lifetimes   the session's own timeouts; None: an existing session keeps its own, a new one has the policy's
    labels      added to the labels that the session has
    """

    subject: str
    level: int = 0
    methods: tuple[str, ...] = ()
    persistent: bool = False
    lifetimes: Lifetimes | None = None
    labels: Labels = ()


ANONYMOUS = Login("")
"""The login of an anonymous session with default properties."""
