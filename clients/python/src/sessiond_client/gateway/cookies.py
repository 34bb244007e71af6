"""Reading the session cookie from the `Cookie` headers of a request."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sessiond_client.tokens import Token

__all__ = ["NO_COOKIE", "CookieNames", "Presented", "companion_deletions", "presented"]

_HOST = "__Host-"
_PURPOSE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MOST_COMPANIONS = 10


@dataclass(frozen=True, slots=True)
class CookieNames:
    """The names of the session cookies, exactly as the browser sends them. They may be the same."""

    subject: str
    """The cookie of a session with a subject."""
    anonymous: str
    """The cookie of an anonymous session."""


@dataclass(frozen=True, slots=True)
class Presented:
    """What a request presented as its session token."""

    token: Token | None = None
    """None: nothing, or something ambiguous."""
    ambiguous: bool = False
    """Whether the request had several session cookies of one name. Nobody can tell which of them is the user's: the
    other one may have been planted from a sibling host."""


NO_COOKIE = Presented()
AMBIGUOUS = Presented(ambiguous=True)


def presented(headers: Iterable[str], names: CookieNames) -> Presented:
    """Find the session token in the `Cookie` headers of a request. Never raises.

    The cookie of a session with a subject comes first; without one, the cookie of an anonymous session counts.

    Several `Cookie` headers are read as one (RFC 9113, 8.2.3). A proxy may join them by a comma instead, which hides
    where one ends, so a session cookie with a comma before or in it is ambiguous.
    """
    joined = ";".join(headers)
    if names.subject not in joined and names.anonymous not in joined:
        return NO_COOKIE
    found = {names.subject: "", names.anonymous: ""}
    for part in joined.split(";"):
        name, equals, value = part.partition("=")
        name, value = name.strip(" \t"), value.strip(" \t")
        if "," in part and _is_joined(name, value, names):
            return AMBIGUOUS
        if not equals or name not in found or not value:
            continue
        if found[name]:
            return AMBIGUOUS
        found[name] = value
    text = found[names.subject] or found[names.anonymous]
    return Presented(Token(text)) if text else NO_COOKIE


def companion_deletions(headers: Iterable[str], names: CookieNames, *, partitioned: bool) -> list[str]:
    """The values of the `Set-Cookie` headers that delete the companion cookies of a request. Never raises.

    These are the ones with the prefix `__Host-`: they are for all paths. The path of any other one is not known here;
    its token is worthless without the session, and it expires soon.
    """
    prefix = names.subject + "-"
    if not prefix.startswith(_HOST):
        return []
    sent = (part.partition("=")[0].strip(" \t") for header in headers for part in header.split(";"))
    found = {name for name in sent if name.startswith(prefix) and _PURPOSE.fullmatch(name.removeprefix(prefix))}
    found.discard(names.anonymous)
    attributes = "Path=/; HttpOnly; SameSite=Lax; Secure" + ("; Partitioned" if partitioned else "")
    past = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    return [f"{name}=; {attributes}; {past}" for name in sorted(found)[:_MOST_COMPANIONS]]


def _is_joined(name: str, value: str, names: CookieNames) -> bool:
    """Whether a part with a comma has to do with a session cookie."""
    pieces = [piece.partition("=")[0].strip(" \t") for piece in value.split(",")[1:]]
    return name in (names.subject, names.anonymous) or any(
        piece in (names.subject, names.anonymous) for piece in pieces
    )
