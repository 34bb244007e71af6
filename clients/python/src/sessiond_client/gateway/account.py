"""What a request can do with the user's sessions: log in and out, list and end devices, get tokens for pages."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from sessiond_client.answers import CompanionIssued, Data, Page, Revoked, Rolled
from sessiond_client.enums import EventType, Verdict
from sessiond_client.errors import FailedPrecondition, InvalidArgument, NotFound
from sessiond_client.gateway.actions import Action
from sessiond_client.gateway.exchange import Exchange
from sessiond_client.gateway.steps import Ask, Steps
from sessiond_client.tokens import Token
from sessiond_client.values import Authentication, Event, Lifetimes, Session

__all__ = [
    "ActivityRow",
    "DeviceRow",
    "csrf_token",
    "devices",
    "end_device",
    "end_other_devices",
    "issue_companion",
    "login",
    "logout",
    "logout_everywhere",
    "recent_activity",
    "roll",
]


_EVENTS_READ = 500
_SHOWN = {
    EventType.SESSION_CREATED: "login",  # with a subject from the beginning; a guest's has none
    EventType.SESSION_AUTHENTICATED: "login",
    EventType.SESSION_ROLLED: "token_replaced",
    EventType.SESSION_LEVEL_LOWERED: "level_lowered",
    EventType.SESSION_EXPIRED: "expired",
    EventType.SESSION_REVOKED: "ended",
    EventType.HIJACK_SUSPECTED: "suspected",
    EventType.CONCURRENCY_LIMIT_REACHED: "limit_reached",
}
"""What users see of their accounts, and what it is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One line of a "your devices" page."""

    session_id: str
    """Public. Pass it to `end_device`."""
    description: str
    """Such as `Firefox 140 on Linux`; `unknown device` if the client said nothing. Show it as text: it comes from the
    client."""
    ip_address: str
    """Of the last recorded activity; empty if it is unknown."""
    login_time: datetime
    last_active_time: datetime
    is_current: bool
    """Whether it is the session of this request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityRow:
    """One line of a "your activity" page."""

    time: datetime
    event: str
    """What happened: `login`, `token_replaced` (as after a change of password), `level_lowered`, `expired`, `ended`,
    `suspected` (the session may have been stolen) or `limit_reached` (too many sessions)."""
    cause: str
    """What led to it, a `CauseKind` in lower case, such as `request` or `idle_timeout`."""
    session_id: str
    """Of the session that it happened to; empty if it was none."""
    ip_address: str
    """Of the client whose request led to it; empty if it was none, or is unknown."""
    user_agent: str
    """As the client sent it; empty if it sent none. Show it as text."""
    is_current: bool
    """Whether it happened to the session of this request."""


def login(
    exchange: Exchange,
    subject: str,
    *,
    level: int = 1,
    methods: Sequence[str] = ("pwd",),
    persistent: bool = False,
    elevate: bool = False,
    labels: Mapping[str, str] | None = None,
    lifetimes: Lifetimes | None = None,
    ticket: str | Token | None = None,
    evict: Sequence[str] = (),
) -> Steps[None]:
    """Log in a user whom you have authenticated, or authenticate the user again (step-up).

    The session gets a new token, and keeps its data if it was a guest's or this user's. Nothing is left of a session of
    another user. Two clicks that send the same cookie lead to one session.

    - `subject`: the user, 1 to 256 characters.
    - `level`, `methods`: how you have authenticated the user; see `Authentication`.
    - `persistent`: remember the session ("stay signed in").
    - `elevate`: `level` counts for the policy's elevation timeout only; the user must be logged in.
    - `labels`, `lifetimes`, `ticket`, `evict`: as for `Client.authenticate`.

    Raises `Refused` if the client's network is locked or its cookies are ambiguous, if the session to be elevated is a
    guest's or another user's, or if `subject` is empty, as a guest's is: nobody is logged in. Raises
    `ConcurrencyLimitReached` and other `SessiondError`s as `Client.authenticate` does.
    """
    gate = exchange.gate()
    if gate is Action.PROCEED and exchange.is_ambiguous:
        gate = Action.AMBIGUOUS
    if gate is not Action.PROCEED:
        raise exchange.refuse(gate)
    before = exchange.session
    if not subject:
        raise exchange.refuse(Action.LOGIN)
    if elevate and (exchange.token is None or (before is not None and not before.subject)):
        raise exchange.refuse(Action.LOGIN)
    kwargs = {
        "authentication": Authentication(level=level, methods=tuple(methods)),
        "client": exchange.client,
        "persistent": persistent,
        "elevate": elevate,
        "or_create": not elevate,
        "labels": labels,
        "lifetimes": lifetimes,
        "ticket": ticket,
        "evict": evict,
    }
    try:
        answer: Rolled = yield Ask("authenticate", (exchange.token, subject), kwargs)
    except FailedPrecondition:
        if not elevate:
            raise
        raise exchange.refuse(Action.LOGIN) from None  # the session of somebody else
    if answer.token is None:
        raise exchange.refuse(Action.LOCKED if answer.verdict is Verdict.LOCKED else Action.LOGIN)
    if answer.created:
        if before is not None and before.subject not in ("", subject):
            exchange.values.forget_all()
        else:
            exchange.values.as_unstored()
    exchange.adopt(answer)
    if before is None and not answer.created:
        # A second click, or a user who had to authenticate again: the validation was denied and had no data.
        data: Data = yield Ask("get_data", kwargs={"token": answer.token})
        exchange.values.found(data.data)


def logout(exchange: Exchange, *, reason: str = "logout") -> Steps[None]:
    """End the session of this request, if there is one, and delete its cookie. Nothing happens to a guest.

    `reason`: recorded with the event, at most 256 characters. Raises `Refused` if the client's cookies are ambiguous:
    nobody is logged out.
    """
    if exchange.is_ambiguous:
        raise exchange.refuse(Action.AMBIGUOUS)
    if exchange.token is None:
        exchange.leave()
        return
    answer: Revoked = yield Ask("revoke", kwargs={"token": exchange.token, "reason": reason, "client": exchange.client})
    exchange.leave(answer)


def logout_everywhere(exchange: Exchange, *, reason: str = "logout everywhere") -> Steps[int]:
    """End all sessions of the user who is logged in, this one included. Returns how many were ended.

    When it returns, no replica, sidecar or near cache accepts any of them. Raises `Refused` for a guest.
    """
    subject = _own_subject(exchange)
    ended = yield Ask("revoke_all", kwargs={"subject": subject, "reason": reason, "wait_for_caches": True})
    yield from logout(exchange, reason=reason)  # has ended by now; the answer deletes the cookie
    count: int = ended.revoked_count
    return count


def end_other_devices(exchange: Exchange, *, reason: str = "logged out elsewhere by the user") -> Steps[int]:
    """End all sessions of the user but this one, as after a change of password. Returns how many were ended."""
    subject, current = _own_subject(exchange), exchange.session
    ended = yield Ask(
        "revoke_all",
        kwargs={
            "subject": subject,
            "except_session_id": current.session_id if current is not None else "",
            "reason": reason,
            "wait_for_caches": True,
        },
    )
    count: int = ended.revoked_count
    return count


def roll(exchange: Exchange, reason: str) -> Steps[None]:
    """Replace the token at a privilege change other than a login, such as a changed password or role.

    Raises `Refused` if there is no session.
    """
    if exchange.session is None:
        raise exchange.refuse(Action.LOGIN)
    answer: Rolled = yield Ask("roll", (exchange.token,), {"client": exchange.client, "reason": reason})
    if answer.token is None:
        raise exchange.refuse(Action.LOGIN)
    exchange.adopt(answer)


def devices(exchange: Exchange) -> Steps[list[DeviceRow]]:
    """The live sessions of the user who is logged in, newest first. Raises `Refused` for a guest."""
    subject, rows, page_token = _own_subject(exchange), [], ""
    current = exchange.session.session_id if exchange.session is not None else ""
    while True:
        page: Page[Session] = yield Ask("list_page", kwargs={"subject": subject, "page_token": page_token})
        rows += [_row(session, current) for session in page.items]
        page_token = page.next_page_token
        if not page_token:
            return rows


def recent_activity(exchange: Exchange, *, most: int = 50) -> Steps[list[ActivityRow]]:
    """What happened lately to the account of the user who is logged in, newest first, as far as events are kept.

    `most`: how many rows, at most; the latest events are looked through for them. Raises `Refused` for a guest.
    """
    subject = _own_subject(exchange)
    page: Page[Event] = yield Ask("activity_page", (subject,), {"page_size": _EVENTS_READ})
    current = exchange.session.session_id if exchange.session is not None else ""
    logins = {event.revision for event in page.items if event.type is EventType.SESSION_AUTHENTICATED}
    # A login replaces the token, too, with the next event.
    shown = (event for event in page.items if event.type in _SHOWN and not _follows(event, logins))
    return [_activity_row(event, current) for event in islice(shown, most)]


def end_device(exchange: Exchange, session_id: str, *, reason: str = "ended by its owner") -> Steps[bool]:
    """End one session of the user who is logged in. Returns False if it is not one of the user's, or not a session.

    Its caches have learned of it when this returns. If it is this request's own session, this is a logout. Raises
    `Refused` for a guest.
    """
    subject = _own_subject(exchange)
    if exchange.session is not None and session_id == exchange.session.session_id:
        yield from logout(exchange, reason=reason)
        return True
    try:
        answer: Revoked = yield Ask(
            "revoke",
            kwargs={"session_id": session_id, "subject": subject, "reason": reason, "wait_for_caches": True},
        )
    except (NotFound, InvalidArgument):
        return False
    return answer.revoked


def csrf_token(exchange: Exchange) -> Steps[str]:
    """The CSRF token for a form or a script of this page. A guest without a session gets one for it.

    Empty if there can be none, because the client's cookie must stay as it is, or because the page took so long that
    the user may have logged in meanwhile. Such a form is refused if the client has a session by then.
    """
    exchange.accessed = True
    if exchange.csrf is None and exchange.session is None and exchange.may_create:
        login_page = exchange.request.path == exchange.gateway.settings.login_path
        created = yield Ask("create", kwargs={"client": exchange.client, "login_page": login_page})
        exchange.adopt(created)
    return exchange.csrf.reveal() if exchange.csrf is not None else ""


def issue_companion(exchange: Exchange, purpose: str) -> Steps[Token]:
    """Issue a companion token for one purpose. Its cookie is sent too. Raises `Refused` if there is no session."""
    if exchange.session is None:
        raise exchange.refuse(Action.LOGIN)
    kwargs = {"client": exchange.client}
    answer: CompanionIssued = yield Ask("issue_companion_token", (exchange.token, purpose), kwargs)
    if answer.companion_token is None:
        raise exchange.refuse(Action.LOGIN)
    exchange.take_companion(answer)
    return answer.companion_token


def _own_subject(exchange: Exchange) -> str:
    """The user who is logged in. Raises `Refused` for a guest: an empty subject would mean all guests."""
    subject = exchange.subject
    if not subject:
        raise exchange.refuse(exchange.without_user())
    return subject


def _follows(event: Event, logins: Container[int]) -> bool:
    return event.type is EventType.SESSION_ROLLED and event.revision - 1 in logins


def _activity_row(event: Event, current: str) -> ActivityRow:
    return ActivityRow(
        time=event.event_time,
        event=_SHOWN[event.type],
        cause=event.cause.kind.value.lower(),
        session_id=event.session_id,
        ip_address=event.client.ip_address,
        user_agent=event.client.user_agent,
        is_current=bool(event.session_id) and event.session_id == current,
    )


def _row(session: Session, current: str) -> DeviceRow:
    device = session.last_device or session.device
    client = session.last_client or session.client
    authentication = session.authentication
    at = authentication.authenticate_time if authentication is not None else None
    return DeviceRow(
        session_id=session.session_id,
        description=(device.description if device is not None else "") or "unknown device",
        ip_address=client.ip_address,
        login_time=at or session.create_time,
        last_active_time=session.last_active_time,
        is_current=session.session_id == current,
    )
