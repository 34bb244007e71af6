"""Callers: who may call, how they prove who they are, and what each role may do. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from enum import StrEnum

from sessiond.domain.immutable import immutable
from sessiond.domain.values import Instant, Revision

__all__ = [
    "ANY_APPLICATION",
    "EVERYTHING",
    "KEY_FORM",
    "RESERVED_NAMES",
    "RULES",
    "CallerRecord",
    "Credential",
    "CredentialKind",
    "Grants",
    "Role",
    "Rule",
    "Scope",
    "administrative_role",
    "id_of_key",
    "may",
]


class Role(StrEnum):
    """What a caller may do for an application. The roles are independent, but `admin` includes all of them."""

    VALIDATOR = "validator"
    """Check tokens, and keep the answers in a cache."""
    ISSUER = "issuer"
    """Open, authenticate, change and end sessions; list and end those of one user."""
    SUBSCRIBER = "subscriber"
    """Read the event stream."""
    OPERATOR = "operator"
    """List and end sessions of anyone, read activity, lift locks."""
    ADMIN = "admin"
    """Everything. For all applications it includes the callers and the keys themselves."""


class CredentialKind(StrEnum):
    """How a caller proves who it is."""

    KEY = "key"
    """A secret that it sends with each call. Only its hash is stored."""
    CERTIFICATE = "certificate"
    """A name in its TLS client certificate: a URI such as a SPIFFE ID, or a DNS name."""
    UID = "uid"
    """The user id of its process, on a Unix socket."""


KEY_FORM = re.compile(r"sessiond_([a-z2-7]{10})_([A-Za-z0-9_-]{43})")
"""The form of a key: its public id, and its secret."""

ANY_APPLICATION = "*"
"""A role for every application, those included that are configured later."""

RESERVED_NAMES = frozenset({"authority", "caller"})
"""Names that no caller gets: events and audit lines have them for the authority itself, and for calls without a key."""

Grants = frozenset[tuple[str, Role]]
"""Pairs of application and role."""

EVERYTHING: Grants = frozenset({(ANY_APPLICATION, Role.ADMIN)})


@immutable
class Credential:
    """One proof of identity.

    id       public; names the credential in lists and logs. For a key, the part of it that may be seen; for a
             certificate, the name that it must have
    value    for a key SHA-256 of its secret part; otherwise the name or number in bytes
    expires  from then on it proves nothing; None: it does not expire
    """

    id: str
    kind: CredentialKind
    value: bytes = field(repr=False)
    created: Instant
    expires: Instant | None = None

    def is_good(self, now: Instant) -> bool:
        """Return whether it still proves something."""
        return self.expires is None or now < self.expires


@immutable
class CallerRecord:
    """One caller: a service, a tool or a person that calls the authority.

    revision  that of the event of its latest change
    """

    name: str
    grants: Grants
    credentials: tuple[Credential, ...]
    created: Instant
    revision: Revision

    def is_good_admin(self, now: Instant) -> bool:
        """Return whether it can manage callers for good: an admin for everything, by a key without an end.

        Other credentials do not count: a certificate ends, and proves nothing on a server whose TLS is switched off.
        """
        return self.grants >= EVERYTHING and any(
            credential.kind is CredentialKind.KEY and credential.expires is None and credential.is_good(now)
            for credential in self.credentials
        )


def id_of_key(text: str) -> str:
    """Return the public id of a key that a caller sent, which may be wrong; empty if the text has no such form."""
    found = KEY_FORM.fullmatch(text)
    return "" if found is None else found[1]


class Scope(StrEnum):
    """For what a call needs one of its roles."""

    APPLICATIONS = "applications"
    """For each application that the request names."""
    AUTHORITY = "authority"
    """For all applications (`*`), because the call is about the authority itself."""
    ANY = "any"
    """For any application at all: the response shows only what the caller may see."""
    OPEN = "open"
    """For none: everyone who can connect may call it."""


@immutable
class Rule:
    """Who may make a call.

    for_one_subject  roles that suffice as well if the request is about the sessions of one named subject
    """

    roles: frozenset[Role]
    scope: Scope = Scope.APPLICATIONS
    for_one_subject: frozenset[Role] = frozenset()


def _rule(*roles: Role, scope: Scope = Scope.APPLICATIONS, one_subject: Iterable[Role] = ()) -> Rule:
    return Rule(frozenset({*roles, Role.ADMIN}), scope, frozenset(one_subject))


_ISSUER, _VALIDATOR, _OPERATOR = Role.ISSUER, Role.VALIDATOR, Role.OPERATOR

RULES: Mapping[str, Rule] = {
    "CreateSession": _rule(_ISSUER),
    "ValidateSession": _rule(_VALIDATOR, _ISSUER),
    "ValidateSessions": _rule(_VALIDATOR, _ISSUER),
    "StreamValidations": _rule(_VALIDATOR, _ISSUER),
    "AuthenticateSession": _rule(_ISSUER),
    "RollSession": _rule(_ISSUER),
    "RefreshSession": _rule(_ISSUER),
    "RevokeSession": _rule(_OPERATOR, one_subject=[_ISSUER]),
    "RevokeSessions": _rule(_OPERATOR, one_subject=[_ISSUER]),
    "GetSession": _rule(_OPERATOR, _ISSUER, _VALIDATOR),
    "ListSessions": _rule(_OPERATOR, one_subject=[_ISSUER]),
    "GetSessionData": _rule(_OPERATOR, one_subject=[_ISSUER, _VALIDATOR]),
    "UpdateSessionData": _rule(_OPERATOR, one_subject=[_ISSUER]),
    "IssueCompanionToken": _rule(_ISSUER),
    "ListActivity": _rule(_OPERATOR, _ISSUER),
    "ReportSignal": _rule(_ISSUER, _OPERATOR),
    "ListSourceLocks": _rule(_OPERATOR),
    "ClearSourceLock": _rule(_OPERATOR),
    "Subscribe": _rule(Role.SUBSCRIBER),
    "Follow": _rule(_VALIDATOR),
    "GetAuthority": _rule(*Role, scope=Scope.ANY),
    "CreateCaller": _rule(scope=Scope.AUTHORITY),
    "ListCallers": _rule(scope=Scope.AUTHORITY),
    "RotateCaller": _rule(scope=Scope.AUTHORITY),
    "RevokeCaller": _rule(scope=Scope.AUTHORITY),
    "UpdateCallerCertificates": _rule(scope=Scope.AUTHORITY),
    "Check": _rule(_VALIDATOR, _ISSUER),
    "GetKeyRing": _rule(scope=Scope.AUTHORITY),
    "AddSealingKey": _rule(scope=Scope.AUTHORITY),
    "PromoteSealingKey": _rule(scope=Scope.AUTHORITY),
    "RetireSealingKey": _rule(scope=Scope.AUTHORITY),
    "StreamBackup": _rule(scope=Scope.AUTHORITY),
}
"""The rule of each call of the contract and of those that proxies make. A call without a rule is denied to everyone."""


def may(grants: Grants, rule: Rule | None, applications: Iterable[str], *, about_one_subject: bool = False) -> bool:
    """Return whether a caller with these grants may make a call for these applications.

    `about_one_subject`: whether the request presents a token, or names one subject whose sessions it is about. No
    applications means all of them.
    """
    if rule is None:
        return False
    if rule.scope is Scope.OPEN:
        return True
    roles = rule.roles | rule.for_one_subject if about_one_subject else rule.roles
    if rule.scope is Scope.ANY:
        return any(role in roles for _, role in grants)
    wanted = [ANY_APPLICATION] if rule.scope is Scope.AUTHORITY else list(applications) or [ANY_APPLICATION]
    return all(
        any(granted in (application, ANY_APPLICATION) and role in roles for granted, role in grants)
        for application in wanted
    )


_ADMINISTRATIVE = (Role.OPERATOR, Role.ADMIN)


def administrative_role(
    grants: Grants, rule: Rule, applications: Iterable[str], *, about_one_subject: bool = False
) -> Role | None:
    """Return the role by which a caller makes a call that it may make: `operator` or `admin`.

    None: its other roles allow the call too, so it is ordinary use.
    """
    applications = list(applications)
    for role, without in ((None, _ADMINISTRATIVE), (Role.OPERATOR, (Role.ADMIN,))):
        left = frozenset((application, granted) for application, granted in grants if granted not in without)
        if may(left, rule, applications, about_one_subject=about_one_subject):
            return role
    return Role.ADMIN
