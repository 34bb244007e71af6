"""What the endpoints do with a session. No I/O: the steps ask questions that the caller carries out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from sessiond_client.answers import Found
from sessiond_client.browser.answers import NO_CONTENT, NOT_FOUND, Answer, json_answer
from sessiond_client.enums import NextStep, Verdict
from sessiond_client.errors import NotFound
from sessiond_client.gateway import Action, DeviceRow, Exchange, Steps, account
from sessiond_client.gateway.account import ActivityRow
from sessiond_client.gateway.steps import Ask
from sessiond_client.values import Session

__all__ = [
    "Now",
    "activity",
    "deadline_of",
    "end",
    "end_others",
    "extend",
    "logout",
    "open_session",
    "own",
    "sessions",
    "status",
    "still_live",
]

_OLD = (Verdict.SUPERSEDED, Verdict.REPLAYED)
_IN_PATHS = "/:@!$&'()*+,;=~"

Now = Callable[[], datetime]
"""The time, as the authority has it."""


def open_session(exchange: Exchange) -> Steps[None]:
    """Ask about the request's session. Raises `Refused` if the request must not be served at all.

    Unlike other pages, these are refused with two session cookies, and during an outage, whatever the settings say.
    """
    if exchange.is_cross_site():
        raise exchange.refuse(Action.CSRF_ERROR)
    yield from exchange.open(csrf=False, with_data=False, with_csrf_token=False)
    exchange.accessed = True
    gate = exchange.gate()
    if exchange.failure is not None:
        gate = Action.RETRY_LATER
    elif exchange.is_ambiguous:
        gate = Action.AMBIGUOUS
    if gate is not Action.PROCEED:
        raise exchange.refuse(gate)


def own(exchange: Exchange) -> Session:
    """Return the session of the user who is logged in. Raises `Refused` for a guest."""
    if exchange.session is None or not exchange.session.subject:
        raise exchange.refuse(exchange.without_user())
    return exchange.session


def still_live(session: Session) -> Steps[Session | None]:
    """Return a session as the authority has it now, past any near cache; None: it has ended."""
    try:
        found: Found = yield Ask("get", kwargs={"session_id": session.session_id})
    except NotFound:
        return None
    return found.session if found.verdict is Verdict.VALID else None


def deadline_of(session: Session) -> datetime | None:
    """Return when a session ends without further activity; None: never."""
    times = (session.idle_expire_time, session.absolute_expire_time, session.login_expire_time)
    return min((time for time in times if time is not None), default=None)


def status(exchange: Exchange, now: Now) -> Steps[Answer]:
    """Return what the page may know of its session, for its script.

    Raises `Refused` (RETRY_LATER) for an old token whose replacement may be on its way to the browser, as during a
    login: the page must not be left because of it, which would also cancel that response.
    """
    known, answer = exchange.session, exchange.validation
    if answer is not None and answer.verdict in _OLD and answer.next_step is NextStep.KEEP_TOKEN:
        raise exchange.refuse(Action.RETRY_LATER)
    session = None if known is None else (yield from still_live(known))
    return json_answer(_status(session, now()))


def extend(exchange: Exchange, now: Now) -> Steps[Answer]:
    """Restart the idle timeout, because the user wants to stay, and return the status."""
    own(exchange)
    yield Ask("refresh", (exchange.token,), {"client": exchange.client})
    return (yield from status(exchange, now))


def logout(exchange: Exchange) -> Steps[Answer]:
    """End the session and delete its cookie. A form gets a redirect, a script 204."""
    yield from account.logout(exchange)
    if not exchange.request.is_page:
        return NO_CONTENT
    return Answer(303, (("Location", quote(exchange.gateway.settings.login_path or "/", safe=_IN_PATHS)),))


def sessions(exchange: Exchange) -> Steps[Answer]:
    """Return the live sessions of the user."""
    rows = yield from account.devices(exchange)
    return json_answer({"sessions": [_device(row) for row in rows]})


def end(exchange: Exchange, session_id: str) -> Steps[Answer]:
    """End one session of the user. If it is this request's own, this is a logout."""
    ended = yield from account.end_device(exchange, session_id)
    return NO_CONTENT if ended else NOT_FOUND


def end_others(exchange: Exchange) -> Steps[Answer]:
    """End all sessions of the user but this one."""
    count = yield from account.end_other_devices(exchange)
    return json_answer({"ended": count})


def activity(exchange: Exchange) -> Steps[Answer]:
    """Return what happened to the user's account lately."""
    rows = yield from account.recent_activity(exchange)
    return json_answer({"activity": [_event(row) for row in rows]})


def _status(session: Session | None, now: datetime) -> Mapping[str, Any]:
    if session is None:
        names = ("subject", "session_id", "idle_expires_in", "expires_in", "level", "login_time")
        return {"state": "none", **dict.fromkeys(names)}
    known = session.authentication
    ends = (session.absolute_expire_time, session.login_expire_time)
    return {
        "state": "active" if session.subject else "guest",
        "subject": session.subject or None,
        "session_id": session.session_id,
        "idle_expires_in": _seconds(session.idle_expire_time, now),
        "expires_in": _seconds(min((time for time in ends if time is not None), default=None), now),
        "level": known.level if known is not None else None,
        "login_time": known.authenticate_time.isoformat() if known is not None and known.authenticate_time else None,
    }


def _seconds(time: datetime | None, now: datetime) -> float | None:
    return None if time is None else max(0.0, round((time - now).total_seconds(), 3))


def _device(row: DeviceRow) -> Mapping[str, Any]:
    return {
        "session_id": row.session_id,
        "description": row.description,
        "ip_address": row.ip_address,
        "login_time": row.login_time.isoformat(),
        "last_active_time": row.last_active_time.isoformat(),
        "current": row.is_current,
    }


def _event(row: ActivityRow) -> Mapping[str, Any]:
    return {
        "time": row.time.isoformat(),
        "event": row.event,
        "cause": row.cause,
        "session_id": row.session_id,
        "ip_address": row.ip_address,
        "user_agent": row.user_agent,
        "current": row.is_current,
    }
