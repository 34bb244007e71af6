"""Checking what a request needs beyond a valid token, from the session and its secret, without the store."""

from __future__ import annotations

from dataclasses import field

from sessiond.crypto.companions import Companion, open_companion
from sessiond.crypto.csrf import csrf_token_matches
from sessiond.crypto.tokens import KeyRing, OpenedToken, Token
from sessiond.domain.immutable import immutable
from sessiond.domain.policy import Policy
from sessiond.domain.requirements import AuthenticationRequirements, RequirementKind, Unmet, check_authentication
from sessiond.domain.session import Session, accepted_earlier_csrf
from sessiond.domain.values import Instant

__all__ = ["NO_REQUIREMENTS", "Requirements", "unmet"]


@immutable
class Requirements:
    """The requirements of a request, and the tokens that the client presented to meet them.

    authentication  required level and maximum age of the authentication
    companion       the required purpose and the presented companion token (empty: none presented); None: not required
    csrf            the presented CSRF token (empty: none presented); None: not required
    """

    authentication: AuthenticationRequirements = field(default_factory=AuthenticationRequirements)
    companion: tuple[str, Token] | None = None
    csrf: Token | None = None

    def foreign_companion(self, keys: KeyRing, opened: OpenedToken) -> Companion | None:
        """Return the presented companion token if it belongs to a different session than the session token."""
        if self.companion is None:
            return None
        companion = open_companion(keys, self.companion[1].reveal())
        return None if companion is None or companion.session_id == opened.presented.session_id else companion


NO_REQUIREMENTS = Requirements()
"""A valid token is enough. Compared by identity (`is NO_REQUIREMENTS`)."""


def unmet(
    keys: KeyRing, opened: OpenedToken, session: Session, requirements: Requirements, policy: Policy, now: Instant
) -> tuple[Unmet, ...]:
    """Return the unmet requirements. `session` must have the authentication that counts now, see `as_seen`."""
    if requirements is NO_REQUIREMENTS:
        return ()
    missing = list(check_authentication(session.authentication, requirements.authentication, now))
    if requirements.companion is not None:
        purpose, token = requirements.companion
        companion = open_companion(keys, token.reveal())
        good = companion is not None and companion.belongs_to(opened) and companion.is_for(purpose)
        if companion is None or not good or now >= companion.expires:
            remedy = f"issue a companion token for {purpose!r} and have the client present it"
            missing.append(Unmet(RequirementKind.COMPANION_TOKEN, remedy))
    if requirements.csrf is not None:
        earlier = accepted_earlier_csrf(session, policy, now)
        if not csrf_token_matches(opened, requirements.csrf.reveal(), earlier):
            remedy = (
                "send the page again with the session's CSRF token (with_csrf_token) and have the client present it"
            )
            missing.append(Unmet(RequirementKind.CSRF_TOKEN, remedy))
    return tuple(missing)
