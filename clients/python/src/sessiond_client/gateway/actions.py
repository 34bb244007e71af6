"""What the application must do with a request, and the response if it must not serve it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from html import escape
from math import ceil
from typing import Any
from urllib.parse import quote

__all__ = ["OUTAGE_SECONDS", "Action", "Refusal", "Refused", "RouteRequirements"]

OUTAGE_SECONDS = 2
"""After how many seconds a client should try again when the authority is out of reach or overloaded, at least."""


class Action(Enum):
    """What the application must do with a request."""

    PROCEED = "proceed"
    """Serve it: as part of the session if there is one, otherwise as for a guest."""
    LOGIN = "login"
    """There is no session with a subject: have the user log in."""
    STEP_UP = "step_up"
    """The authentication is too weak, too old or not trusted any more: have the user authenticate again."""
    COMPANION = "companion"
    """A companion token is missing: send the user to the page that issues it."""
    CSRF_ERROR = "csrf_error"
    """The request may come from another site, or its form is too old: refuse it. Logging in does not help."""
    AMBIGUOUS = "ambiguous"
    """Several session cookies of one name: refuse it, and have the user delete the cookies of this site."""
    LOCKED = "locked"
    """The client's network is locked because it guessed tokens: refuse it, logins included."""
    RETRY_LATER = "retry_later"
    """The authority cannot answer now: refuse it, and leave the cookie alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRequirements:
    """What a route needs. By default: a user who is logged in."""

    level: int = 0
    """The least level of authentication, 1 to 3; 0: any."""
    max_age: timedelta | None = None
    """The user's last authentication must be younger than this. Costs a second question."""
    companion: tuple[str, str | None] | None = field(default=None, repr=False)
    """`(purpose, presented)`: a companion token. Costs a second question."""
    csrf: bool = False
    """Require the CSRF token whatever the method and path. Costs a second question where it was not required anyway."""
    guests: bool = False
    """Serve guests too. The other requirements then hold for users who are logged in, and `csrf` for everyone."""

    def __post_init__(self) -> None:
        """Raises `ValueError` that names the requirement: no user could meet it, or it means nothing."""
        if type(self.level) is not int or not 0 <= self.level <= 3:
            raise ValueError(f"level: {self.level!r} is wrong: pass 0 to 3")
        if self.max_age is not None and (not isinstance(self.max_age, timedelta) or self.max_age <= timedelta(0)):
            raise ValueError(f"max_age: {self.max_age!r} is wrong: pass a timedelta of more than 0")
        companion: Any = self.companion
        if companion is not None and not (
            isinstance(companion, tuple) and len(companion) == 2 and companion[0] and isinstance(companion[0], str)
        ):
            raise ValueError("companion: pass (purpose, presented), such as ('payment', request.cookies.get(name))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The response to a request that is not served."""

    action: Action
    status: int
    error: str
    """A name for programs, such as `login_required`."""
    text: str
    """A sentence for people."""
    headers: tuple[tuple[str, str], ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def body(self, *, page: bool) -> tuple[str, bytes]:
        """The content type and the body, for a page or for a program."""
        if page:
            text = escape(self.text)
            html = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{text}</title><p>{text}</p></html>'
            return "text/html; charset=utf-8", html.encode()
        return "application/json", json.dumps({"error": self.error, "detail": self.text, **self.details}).encode()


class Refused(Exception):
    """A request must not be served. The adapter answers with `refusal` if the application does not."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.error)
        self.refusal = refusal

    @property
    def action(self) -> Action:
        """What is to be done instead."""
        return self.refusal.action


_RESPONSES = {
    Action.LOGIN: (401, "login_required", "Please log in."),
    Action.STEP_UP: (401, "step_up_required", "Please authenticate again."),
    Action.COMPANION: (403, "companion_required", "Please confirm this step first."),
    Action.CSRF_ERROR: (403, "csrf_failed", "This form is too old or from another site. Load the page again."),
    Action.AMBIGUOUS: (
        400,
        "ambiguous_cookie",
        "Your browser sent two session cookies. Delete its cookies for this site.",
    ),
    Action.LOCKED: (429, "locked", "Too many attempts from your network."),
    Action.RETRY_LATER: (503, "unavailable", "Please try again in a moment."),
}


def refusal(
    action: Action,
    *,
    page: bool,
    login_path: str | None,
    next_path: str = "",
    requirements: RouteRequirements | None = None,
    lock_seconds: int = 0,
    retry_after: float = 0.0,
) -> Refusal:
    """The response for an action other than PROCEED, as the client's guide says ("From verdict to HTTP").

    `page`: whether a browser shows the response. `login_path`: where a page is sent for LOGIN and STEP_UP; None: it
    gets a 401. `next_path`: where to return to after the login; empty: nowhere. `lock_seconds`: how long a lock lasts.
    `retry_after`: after how many seconds the authority asked to try again.
    """
    status, error, text = _RESPONSES[action]
    details = _details(action, requirements)
    headers: tuple[tuple[str, str], ...] = ()
    if page and login_path is not None and action in (Action.LOGIN, Action.STEP_UP):
        status, headers = 303, (("Location", _login_location(login_path, next_path, details)),)
    elif status == 401:
        headers = (("WWW-Authenticate", "Session"),)
    elif action is Action.RETRY_LATER:
        headers = (("Retry-After", str(max(OUTAGE_SECONDS, ceil(retry_after)))),)
    elif action is Action.LOCKED and lock_seconds:
        headers = (("Retry-After", str(lock_seconds)),)
    return Refusal(action=action, status=status, error=error, text=text, headers=headers, details=details)


def _details(action: Action, requirements: RouteRequirements | None) -> dict[str, Any]:
    if requirements is None or action not in (Action.STEP_UP, Action.COMPANION):
        return {}
    if action is Action.COMPANION:
        return {"purpose": requirements.companion[0]} if requirements.companion else {}
    details: dict[str, Any] = {"min_level": requirements.level} if requirements.level else {}
    if requirements.max_age is not None:
        details["max_authentication_age"] = int(requirements.max_age.total_seconds())
    return details


def _login_location(login_path: str, next_path: str, details: Mapping[str, Any]) -> str:
    pairs = [("next", next_path)] if next_path else []
    pairs += [(name, str(value)) for name, value in details.items()]
    query = "&".join(f"{name}={quote(value, safe='/')}" for name, value in pairs)
    path = quote(login_path, safe="/:@!$&'()*+,;=~")
    return f"{path}?{query}" if query else path
