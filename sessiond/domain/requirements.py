"""Requirements: what a request needs beyond a valid token, and which of it is missing."""

from __future__ import annotations

from enum import StrEnum

from sessiond.domain.immutable import immutable
from sessiond.domain.values import Authentication, Instant, Millis

__all__ = ["AuthenticationRequirements", "RequirementKind", "Unmet", "check_authentication"]


class RequirementKind(StrEnum):
    """What a validation may require beyond a valid token."""

    LEVEL = "level"
    AUTHENTICATION_AGE = "authentication_age"
    COMPANION_TOKEN = "companion_token"  # noqa: S105 - a kind of requirement, not a secret
    CSRF_TOKEN = "csrf_token"  # noqa: S105 - a kind of requirement, not a secret
    REAUTHENTICATION = "reauthentication"


@immutable
class AuthenticationRequirements:
    """Requirements on the authentication. `max_age` is in milliseconds; None: any age."""

    min_level: int = 0
    max_age: Millis | None = None


@immutable
class Unmet:
    """A requirement that is not met. `remedy` says how to meet it."""

    kind: RequirementKind
    remedy: str
    min_level: int = 0
    max_age: Millis | None = None


def check_authentication(
    authentication: Authentication | None, requirements: AuthenticationRequirements, now: Instant
) -> tuple[Unmet, ...]:
    """Return the unmet requirements on level and age (ASVS 7.5.1, 7.5.3). An age of exactly `max_age` is too old."""
    unmet = []
    level = 0 if authentication is None else authentication.level
    if level < requirements.min_level:
        remedy = f"authenticate the subject at level {requirements.min_level} or higher; the session has {level}"
        unmet.append(Unmet(RequirementKind.LEVEL, remedy, min_level=requirements.min_level))
    max_age = requirements.max_age
    if max_age is not None and (authentication is None or now >= authentication.at + max_age):
        remedy = f"authenticate the subject again; the authentication must be younger than {max_age / 1000:.15g} s"
        unmet.append(Unmet(RequirementKind.AUTHENTICATION_AGE, remedy, max_age=max_age))
    return tuple(unmet)
